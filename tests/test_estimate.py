"""What a run will take: the arithmetic by hand, the sample with a clock of its own, and the command on tiny videos."""

import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_noise_video
from feature_files import make_provenance
from test_cli import run

import featx
from featx import estimate_run as estimating
from featx.cli.durations import duration_text
from featx.dry_run import Counted
from featx.errors import UsageError
from featx.estimate import Sample, reckon, spread_of
from featx.estimate_run import estimate_run, stands_for
from featx.features import Failure, Features
from featx.measure import drawn, measure
from featx.plan import VideoItem
from featx.profile import Profile, Stopwatch

# 100 clips of 1,000 frames in 10 s, of which 2 s were waited for clips; two decoders took 4 s of processor time together
PROFILE = Profile(3.0, 10.0, 5.0, 4.0, 1.0, 2.0, 7.0, 0.5, num_decoders=2, num_frames=1000, num_clips=100)
EVEN = ((5.0, 50), (5.0, 50))
SAMPLE = Sample(10, 0, 100, PROFILE, EVEN)


def test_by_hand_on_one_machine():
    found = reckon(SAMPLE, [10, 30], [100, 500], price_per_hour=36)
    # a clip keeps the forward pass busy for 8 s / 100, a frame lets it wait for 2 s / 1000
    first, second = 10 * 0.08 + 100 * 0.002, 30 * 0.08 + 500 * 0.002
    assert found.one.seconds == pytest.approx(3 + first + second) == pytest.approx(3 + 4.4)
    assert found.longest_seconds == pytest.approx(second)
    assert found.one.cost == pytest.approx(36 * 7.4 / 3600)
    assert (found.num_videos, found.num_clips, found.num_frames, found.spread) == (2, 40, 600, 0.05)
    assert found.one.low_seconds == pytest.approx(3 + 4.4 / 1.05) and found.one.high_seconds == pytest.approx(
        3 + 4.4 * 1.05
    )
    assert found.clips_per_second == pytest.approx(40 / 4.4)
    assert found.stages == pytest.approx({"decode": 100 / (4 / 2), "resize": 100, "forward": 100 / 7, "write": 200})
    assert found.bottleneck == "forward"


def test_by_hand_on_three_machines():
    """Videos of 1 s, 1 s, 2 s and 4 s: by number of shard 1: 1 s, 2: 4 s, 3: 1 s + 2 s."""
    clips = [12.5, 12.5, 25, 50]  # at 0.08 s, without frames
    found = reckon(SAMPLE, clips, [0] * 4, machines=3, shard_numbers=[1, 3, 3, 2], price_per_hour=10)
    assert found.one.seconds == pytest.approx(3 + 8)
    assert found.queue.seconds == pytest.approx(3 + 4), "the longest video is longer than a third of all"
    assert found.shards.seconds == pytest.approx(3 + 4) and found.imbalance == pytest.approx(4 / (8 / 3))
    assert found.shards.cost == pytest.approx(10 * 3 * 7 / 3600)
    assert reckon(SAMPLE, clips, [0] * 4, machines=2).queue.seconds == pytest.approx(3 + 4)
    all_in_one = reckon(SAMPLE, clips, [0] * 4, machines=3, shard_numbers=[2] * 4)
    assert all_in_one.shards.seconds == pytest.approx(3 + 8) and all_in_one.imbalance == pytest.approx(3)


def test_one_video_takes_one_decoder():
    """10,000 frames of 4 ms of processor time each are 40 s, though two decoders are there and the network needs 8 s."""
    found = reckon(SAMPLE, [0.001], [10_000], machines=8)
    assert found.longest_seconds == pytest.approx(40) and found.one.seconds == found.queue.seconds == pytest.approx(43)


def test_headers_that_promise_too_much_are_corrected():
    half = replace(SAMPLE, told_clips=200, num_failed=4)
    found = reckon(half, [100, 100], [0, 0])
    assert found.num_clips == 100 and found.one.seconds == pytest.approx(3 + 100 * 0.08)


def test_nothing_left_takes_no_time():
    found = reckon(SAMPLE, [], [], machines=4, shard_numbers=[], price_per_hour=5)
    assert found.one.seconds == found.shards.seconds == found.queue.high_seconds == 0 and found.one.cost == 0


def test_the_spread_is_students_of_the_jackknife():
    assert spread_of(EVEN) == 0.05 and spread_of(EVEN[:1]) == spread_of(((1.0, 1), (100.0, 1))) == 1.0
    # three blocks of 10 clips: without each, 18/20, 20/20 and 22/20 s a clip; s.e. = sqrt(2/3 * (0.01 + 0 + 0.01))
    assert spread_of(((12.0, 10), (10.0, 10), (8.0, 10))) == pytest.approx(4.30 * (2 / 3 * 0.02) ** 0.5)


def test_the_range_holds_the_truth_nearly_always():
    """Blocks of a noise of a fifth about 1 s a clip: of 400 ranges, 95 % hold 1, give or take."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        blocks = [(float(s), 10) for s in 10 * rng.normal(1, 0.2, 8)]
        rate, spread = sum(s for s, _ in blocks) / 80, spread_of(blocks)
        hits += rate / (1 + spread) <= 1 <= rate * (1 + spread)
    assert 365 <= hits <= 396


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"machines": 0}, "0 machines are asked for"),
        ({"price_per_hour": -1.0}, "the price of an hour is -1"),
        ({"price_per_hour": float("nan")}, "the price of an hour is nan"),
    ],
)
def test_what_cannot_be_reckoned_is_refused(changed, told):
    with pytest.raises(UsageError, match=told):
        reckon(SAMPLE, [1], [1], **changed)
    with pytest.raises(UsageError, match="2 videos were sampled, 2 failed, and 0 clips came"):
        Sample(2, 2, 5, replace(PROFILE, num_clips=0), ())


# ---------------------------------------------------------------------------------------------------------------- what is drawn


def test_the_first_few_drawn_lie_evenly_over_the_sizes():
    sizes = random.Random(1).sample(range(10_000), 1000)
    places = list(drawn(sizes))
    assert sorted(places) == list(range(1000)) and places == list(drawn(sizes))
    ranks = sorted(sizes)
    for few in (2, 5, 13, 40, 200):
        found = sorted(ranks.index(sizes[i]) / 1000 for i in places[:few])
        gaps = np.diff([0, *found, 1])
        assert gaps.max() <= 2.7 / few
    assert list(drawn([7])) == [0] and sorted(drawn([5, 5, 5])) == [0, 1, 2]


def test_a_read_header_stands_for_the_nearest_sizes():
    sizes = [50, 10, 40, 20, 30, 60]  # in order: places 1 3 4 2 0 5; of three, ranks 1, 3 and 5 are read
    assert stands_for(sizes, 3) == [2, 3, 2, 3, 3, 5]
    assert stands_for(sizes, 6) == list(range(6))
    assert set(stands_for(range(1000), 10)) == {50 + 100 * i for i in range(10)}


def test_headers_of_a_few_stand_for_many(clips_folder, monkeypatch):
    monkeypatch.setattr(estimating, "MAX_HEADERS", 1)
    notes = []
    told, found = estimate_run(clips_folder, sample=1, on_note=notes.append)
    assert any("headers of 1 of 3 videos are read" in note for note in notes)
    assert found.num_videos == 3 and len({clips for _, _, clips in told.videos}) == 1


# ------------------------------------------------------------------------------------------------------------------ the sample


class Clock:
    """Shows a time that goes by only where a network computes."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fixed:
    """What `measure` asks of an Extractor: a clip takes 0.1 s, the first call 5 s more, and a name may fail."""

    engine, num_decoders, provenance = SimpleNamespace(is_beside=False, batch_size=1), 2, make_provenance()

    def __init__(self, clock: Clock, lost: str = "") -> None:
        self.clock, self.lost, self.stopwatch, self.keys, self._cold = clock, lost, Stopwatch(), [], 5.0

    def extract_many(self, items):
        self.clock.now += self._cold
        self._cold = 0.0
        for item in items:
            self.keys.append(item.key)
            if item.key == self.lost:
                yield Failure(item.key, "p", "no reason")
                continue
            num_clips = int(item.path.stem)
            self.clock.now += 0.1 * num_clips
            self.stopwatch.add("forward", 0.1 * num_clips)
            yield Features(
                item.key, "p", 8 * num_clips, num_clips, 25.0, 1.0, descriptors={"fc6": np.ones(2, np.float32)}
            )


def videos_of(counts):
    return [(VideoItem(f"v{i}", Path(f"{count}.mp4")), Counted(8 * count, count)) for i, count in enumerate(counts)]


def test_a_sample_tells_the_steady_rate_and_the_start_apart(tmp_path):
    clock = Clock()
    net = Fixed(clock)
    sample = measure(net, videos_of([30, 10, 20]), tmp_path, 2, 1.5, 3, clock=clock)
    assert net.keys[:4] == ["v1/0", "v1/1"] * 2 and sorted(net.keys[4:]) == ["v0", "v1", "v2"]
    assert sample.profile.wall_seconds == pytest.approx(6) and sample.profile.start_seconds == pytest.approx(1.5 + 5)
    assert (sample.num_videos, sample.told_clips, sample.profile.num_clips, sample.came) == (3, 60, 60, 1)
    assert sample.profile.forward_seconds == pytest.approx(6), "that of the videos before is not counted"
    assert sum(clips for _, clips in sample.blocks) == 60 and len(sample.blocks) == 3
    assert list(tmp_path.iterdir()) != []  # where it was told to write, and nowhere else


def test_without_a_number_a_sample_ends_in_time_and_passes_over_long_videos(tmp_path):
    clock, notes = Clock(), []
    net = Fixed(clock)
    sample = measure(net, videos_of([10] * 100 + [310]), tmp_path, 1, 0.0, on_note=notes.append, clock=clock)
    # 10 clips take a second once it is running, so that 30 s are 300 clips
    assert "1 of 101 videos would take longer than 30 s" in notes[0] and "v100" not in net.keys
    assert sample.num_videos == 21 and sample.profile.wall_seconds == pytest.approx(21)
    assert measure(net, videos_of([700]), tmp_path, 1, 0.0, clock=clock).profile.num_clips == 700


def test_what_failed_in_the_sample_counts(tmp_path):
    clock = Clock()
    sample = measure(Fixed(clock, lost="v1"), videos_of([10, 10, 10]), tmp_path, 1, 0.0, 3, clock=clock)
    assert sample.num_failed == 1 and sample.came == pytest.approx(2 / 3)


def test_addresses_are_not_sampled(tmp_path):
    clock = Clock()
    away = [(VideoItem("a", Path("a.mp4"), url="http://x.org/a.mp4"), Counted(8, 1))]
    with pytest.raises(UsageError, match="all are addresses"):
        measure(Fixed(clock), away, tmp_path, 1, 0.0, 1, clock=clock)


# ----------------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v")
    for i, num_frames in enumerate((16, 24, 40)):
        write_noise_video(folder / f"{i}.avi", num_frames, seed=i)
    return folder


def test_what_is_left_of_an_output_is_estimated_and_nothing_is_written(capsys, folder, tmp_path):
    output = tmp_path / "f.h5"
    featx.extract_to([folder / "0.avi", folder / "1.avi"], output)
    stamp = output.stat().st_mtime_ns, sorted(tmp_path.iterdir())
    line = ["extract", folder, "-o", output, "--dry-run", "--estimate", "--sample", "1"]
    code, out, _ = run(capsys, *line, "--machines", "2", "--price", "3.5 EUR")
    assert code == 0 and f"{output} holds 2 of 3 videos" in out and "left: 1 videos, 4 clips, at" in out
    assert "3 videos, 80 frames, 7 clips" in out and "4 clips of the 4 that headers promise" in out
    (one, shards, queue) = [text for text in out.splitlines() if "machine" in text]
    assert one.startswith("1 machine like this one: ") and one.endswith("EUR") and "at a cost of 0.0" in one
    assert "the fullest has 2.00 times its share" in shards and "one queue of videos" in queue
    assert (output.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == stamp
    code, out, _ = run(capsys, *line, "--overwrite", "--json")
    facts = json.loads(out[out.index("{") :])
    assert code == 0 and facts["estimate"]["num_videos"] == 3 and facts["num_videos"] == 3
    assert facts["estimate"]["one"]["seconds"] > 0 and facts["estimate"]["machines"] == 1
    featx.extract_to(folder, output)
    code, out, _ = run(capsys, *line)
    assert code == 0 and "no video is left" in out
    with pytest.raises(featx.FeatxError, match="stride is 8 in .*f.h5, 4 in this run"):
        estimate_run(folder, output=output, stride=4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (60, "1 min 0 s"), (185.4, "3 min 5 s"), (3599.9, "60 min 0 s"), (28_680, "7 h 58 min"),
     (1_051_200, "12 days 4 h"), (3.2 * 365 * 86400, "3.2 years")],
)  # fmt: skip
def test_durations_in_words(seconds, text):
    assert duration_text(seconds) == text
