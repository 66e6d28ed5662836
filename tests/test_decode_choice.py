"""decode_choice.py: who decodes, by pools whose speed is made up; which videos are tried; what an Extractor makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_noise_video

from featx import extractor
from featx.decode_choice import MEASURED_SECONDS, MOST_PIXELS, MOST_SECONDS, is_gpu_faster, videos_to_try
from featx.decode_pool import Chunk, DecodePool, Ended, Failed, Started
from featx.errors import FeatxError
from featx.extractor import LONG_RUN_VIDEOS, Extractor
from featx.plan import VideoItem
from featx.run import extract_to
from featx.video import VideoHeader


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Paced:
    """A pool that gives so many frames a second, after a start: videos of 100 frames in chunks of `cuts`, told by their names.

    `other`: a frame that others have otherwise, by video and number. `rates`: of one call after another, warming up included.
    """

    def __init__(self, clock, rate, start_seconds=3.0, other=None, error=None, cuts=(50, 50), rates=()):
        self.clock, self.rate, self.left_to_start, self.other, self.error = clock, rate, start_seconds, other, error
        self.closed, self.decoded, self.cuts, self.rates = False, [], cuts, list(rates)

    def decode(self, paths, planar):
        assert planar and not self.closed
        if self.error:
            raise self.error
        self.rate = self.rates.pop(0) if self.rates else self.rate
        self.clock.now, self.left_to_start = self.clock.now + self.left_to_start, 0.0
        for index, path in enumerate(paths):
            self.decoded.append(path)
            yield Started(index, 25.0, None)
            if path.stem == "broken":
                yield Failed(index, "not a video")
                continue
            video = np.full((100, 12), sum(path.stem.encode()) % 256, np.uint8)
            if self.other and self.other[0] == path.stem:
                video[self.other[1]] += 1
            for i, num_frames in enumerate(self.cuts[:-1] if path.stem == "damaged" else self.cuts):
                first = sum(self.cuts[:i])
                self.clock.now += num_frames / self.rate
                seconds = [number / 25 for number in range(first, first + num_frames)]
                yield Chunk(index, video[first : first + num_frames], seconds, (2, 4))
            if path.stem == "damaged":
                yield Failed(index, "damaged at its end")
                continue
            yield Ended(index, 25.0, 100, 4.0, 4.0)

    def close(self):
        self.closed = True


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / f"{name}.mp4" for name in ("a", "b", "broken")]
    for size, path in enumerate(made):
        path.write_bytes(bytes(10 + size))
    return made


def choose(paths, cpu_rate, gpu_rate, num_videos=10**6, **gpu_options):
    clock = Clock()
    cpu, gpu = Paced(clock, cpu_rate), Paced(clock, gpu_rate, **gpu_options)
    return *is_gpu_faster(cpu, gpu, paths, 2, num_videos, clock), cpu, gpu


@pytest.mark.parametrize(
    ("gpu_rate", "taken"), [(3000, True), (1200, True), (1050, False), (1000, False), (400, False)]
)
def test_the_faster_one_decodes(paths, gpu_rate, taken):
    """However long it takes to start, and not for a few frames more."""
    is_faster, note, cpu, gpu = choose(paths, 1000, gpu_rate, start_seconds=20.0)
    assert is_faster == taken and not cpu.closed and not gpu.closed
    assert f"{gpu_rate:,} frames/s of the first videos beside the processor's 1,000" in note
    assert note.startswith("the GPU's decoder is taken" if taken else "the processor decodes: ")
    assert ("damage inside of a picture" in note) == taken
    for pool in (cpu, gpu):  # warmed up by the smallest one, a worker each; then all, in turns
        assert pool.decoded[:2] == paths[:1] * 2 and pool.decoded[2:5] == paths
        assert len([path for path in pool.decoded[2:] if path.stem != "broken"]) >= MEASURED_SECONDS * pool.rate / 100


def test_the_better_try_of_the_processor_counts(paths):
    """It is measured before and after: what slowed it down at first, or later, wins nothing for the GPU."""
    for rates, taken in (((500, 1000), False), ((1000, 500), False), ((900, 800), True)):
        clock = Clock()
        cpu, gpu = Paced(clock, 0, rates=[rate for rate in rates for _ in range(2)]), Paced(clock, 1050)
        is_faster, note = is_gpu_faster(cpu, gpu, paths, 2, 10**6, clock)
        assert (
            is_faster == taken and f"1,050 frames/s of the first videos beside the processor's {max(rates):,}" in note
        )


@pytest.mark.parametrize("other", [("a", 0), ("b", 48), ("a", 99)])
@pytest.mark.parametrize("cuts", [(50, 50), (7,) * 14 + (2,)])
def test_other_frames_are_not_taken_however_fast(paths, other, cuts):
    is_faster, note, *_ = choose(paths, 1000, 9000, other=other, cuts=cuts)
    assert not is_faster and note == (
        "the processor decodes, since the GPU's decoder gives other frames of the first videos"
    )


@pytest.mark.parametrize("cuts", [(100,), (7,) * 14 + (2,), (1, 31, 20, 48), (1,) * 100])
def test_the_same_frames_in_other_chunks_are_the_same(paths, cuts):
    """As a worker has them whose memory is smaller, or larger, by the videos that it had before."""
    assert choose(paths, 1000, 9000, cuts=cuts)[0]


def test_a_video_that_fails_for_both_is_no_other_one(paths):
    """Though one pool gave more of its frames before."""
    damaged = paths[0].with_name("damaged.mp4")
    damaged.write_bytes(bytes(99))
    assert choose([*paths, damaged], 1000, 9000, cuts=(7,) * 14 + (2,))[0]


def test_a_run_that_is_soon_over_is_not_held_up(paths):
    """600,000 frames, those of broken videos not counted, take the processor a minute; fewer do not."""
    is_faster, note, _, gpu = choose(paths[:2], 1000, 9000, num_videos=590)
    assert (is_faster, note, gpu.decoded) == (False, "", [])
    assert choose(paths[:2], 1000, 9000, num_videos=610)[0]


def test_a_gpu_that_does_not_start_or_hangs(paths):
    is_faster, note, *_ = choose(paths, 1000, 9000, error=FeatxError("decode workers cannot start: no memory"))
    assert not is_faster
    assert (
        note == "the processor decodes, since the GPU's decoder cannot be tried: decode workers cannot start: no memory"
    )
    is_faster, note, cpu, gpu = choose(paths, 1000, 9000, start_seconds=MOST_SECONDS + 1)
    assert not is_faster and gpu.closed and not cpu.closed and "take longer than 60 s" in note


def test_pools_of_real_workers(tmp_path):
    """Both the processor's: their frames are the same."""
    videos = [write_noise_video(tmp_path / f"{i}.mp4", 70, seed=i, codec="libx264") for i in range(2)]
    ticks = iter(np.arange(0, 1e6, 0.1))  # a clock that nothing but being looked at moves
    with DecodePool(2) as cpu, DecodePool(2) as gpu:
        is_faster, note = is_gpu_faster(cpu, gpu, videos, 2, 10**6, lambda: float(next(ticks)))
        assert "frames/s of the first videos beside" in note and isinstance(is_faster, bool)
        assert cpu.num_started == gpu.num_started == 2 and not cpu.closed and not gpu.closed


# ----------------------------------------------------------------------------------------------------------- what is tried


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "broken.mp4").write_bytes(b"nothing")
    (folder / "images").mkdir()
    return {
        "h264": write_noise_video(folder / "a.mp4", 5, codec="libx264"),
        "hevc": write_noise_video(folder / "b.mp4", 5, codec="libx265"),
        "mpeg4": write_noise_video(folder / "c.avi", 5),
        "broken": folder / "broken.mp4",
        "images": folder / "images",
        "absent": folder / "absent.mp4",
    }


@pytest.mark.parametrize(
    ("names", "num_workers", "tried"),
    [("h264 hevc", 2, "h264 hevc"), ("h264 hevc", 3, ""), ("h264 mpeg4 hevc broken", 2, "h264 hevc"),
     ("h264 mpeg4 images absent hevc", 2, ""), ("mpeg4", 1, ""), ("h264 h264 h264", 2, ""), ("", 1, ""),
     ("h264 mpeg4 images broken", 1, "")],
)  # fmt: skip
def test_which_videos_are_tried(kinds, names, num_workers, tried):
    """Files whose frames every decoder gives alike, where a worker has at least one, and others are no more than they."""
    items = [VideoItem(str(i), kinds[name]) for i, name in enumerate(names.split())]
    assert videos_to_try(items, num_workers) == [kinds[name] for name in tried.split()]


def test_neither_addresses_nor_long_videos_are_tried(kinds, monkeypatch):
    assert videos_to_try([VideoItem("a", kinds["h264"], url="https://a/b.mp4")], 1) == []
    asked = []

    def header(path):
        asked.append(path)
        num_frames = MOST_PIXELS // 100 + (path == kinds["hevc"])
        return VideoHeader(10, 10, 25.0, num_frames, num_frames / 25, "h264")

    monkeypatch.setattr("featx.decode_choice.read_header", header)
    items = [VideoItem(str(i), kinds[name]) for i, name in enumerate(["h264", "hevc"] * 500)]
    assert videos_to_try(items, 1) == [kinds["h264"]] and asked == [kinds["h264"], kinds["hevc"]]


# ------------------------------------------------------------------------------------------------------------ an Extractor


@pytest.fixture
def on_gpu(kinds, monkeypatch):
    """An Extractor that believes in a GPU, the videos of a long run, and what was measured."""
    asked, answer = [], [True, "found"]

    def measured(cpu, gpu, paths, num_workers, num_videos):
        asked.append((cpu._gpu, gpu._gpu, paths, num_workers, num_videos))
        return tuple(answer)

    monkeypatch.setattr(extractor, "is_gpu_faster", measured)
    monkeypatch.setattr(extractor, "why_no_hardware", lambda gpu: "")
    with Extractor(device="cpu", num_decoders=2, decode="auto") as made:
        made.engine.device = torch.device("cuda:3")
        items = [VideoItem(str(i), kinds["hevc" if i % 2 else "h264"]) for i in range(LONG_RUN_VIDEOS)]
        yield made, items, asked, answer


@pytest.mark.parametrize("is_faster", [True, False])
def test_a_long_run_on_a_gpu_takes_the_faster_one(on_gpu, is_faster):
    made, items, asked, answer = on_gpu
    notes, answer[0] = [], is_faster
    made.prepare(items, notes.append)
    made.prepare(items, notes.append)  # it is settled
    assert asked == [(None, "3", [items[0].path, items[1].path], 2, LONG_RUN_VIDEOS)] and notes == ["found"]
    assert made.decode == ("cuda" if is_faster else "cpu")
    assert made._decoders()._gpu == ("3" if is_faster else None)
    made.close()
    assert made._decoders()._gpu == ("3" if is_faster else None)


def test_what_leaves_the_processor_unasked(on_gpu, monkeypatch):
    made, items, asked, _ = on_gpu
    for few in (items[:-1], [VideoItem(i.key, Path("a.mp4"), url="https://a/a.mp4") for i in items], []):
        made.decode = "auto"
        made.prepare(few)
        assert made.decode == "cpu" and made._pool is None
    for word in ("cpu", "cuda"):  # asked for by name
        made.decode = word
        made.prepare(items)
        assert made.decode == word
    made.decode = "auto"
    monkeypatch.setattr(extractor, "why_no_hardware", lambda gpu: "no NVIDIA driver answers")
    made.prepare(items)
    made.decode, made.engine.device = "auto", torch.device("cpu")
    monkeypatch.setattr(extractor, "why_no_hardware", lambda gpu: "")
    made.prepare(items)
    assert asked == [] and made.decode == "cpu" and made._decoders()._gpu is None


def test_a_measurement_that_is_broken_off_leaves_no_process(on_gpu, monkeypatch):
    made, items, *_ = on_gpu
    pools = []

    def broken_off(cpu, gpu, *rest):
        pools.extend((cpu, gpu))
        raise KeyboardInterrupt

    monkeypatch.setattr(extractor, "is_gpu_faster", broken_off)
    with pytest.raises(KeyboardInterrupt):
        made.prepare(items)
    assert len(pools) == 2 and all(pool.closed for pool in pools)


def test_a_run_that_goes_on_reckons_with_what_is_left(clips_folder, tmp_path, monkeypatch):
    """Of a finished output nobody is tried."""
    prepared, prepare = [], Extractor.prepare

    def told(self, items, *args):
        prepared.append((self.decode, [item.key for item in items]))
        prepare(self, items, *args)

    monkeypatch.setattr(Extractor, "prepare", told)
    videos = [clips_folder / "dog/001.avi", clips_folder / "cat/000.mkv"]
    for inputs in (videos[:1], videos, videos):
        summary = extract_to(
            inputs, tmp_path / "f.h5", decode="auto", device="cpu", engine="torch", stride=16, num_decoders=1
        )
    assert prepared == [("auto", ["001"]), ("auto", ["000"]), ("cpu", ["000", "001"])] and summary.num_present == 2
