"""profile.py: stages that add up, and what is made of them; and that a run fills them in."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest
from conftest import write_noise_video

from featx.cli import main
from featx.decode_pool import DecodePool, Ended, Spent
from featx.extractor import Extractor
from featx.plan import plan_videos
from featx.profile import Profile, Stopwatch
from featx.run import extract_to

pytestmark = pytest.mark.usefixtures("workers_of_its_own")

EXAMPLE = Profile(
    start_seconds=1.5,
    wall_seconds=10.0,
    decode_seconds=6.0,
    decode_processor_seconds=5.0,
    resize_seconds=2.5,
    wait_seconds=1.0,
    forward_seconds=8.0,
    write_seconds=0.5,
    num_decoders=2,
    num_frames=3000,
    num_clips=250,
    input_seconds=0.5,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    now = iter(range(1000))
    monkeypatch.setattr("featx.profile.time.perf_counter", lambda: next(now))


def test_a_stopwatch_adds_up(clock):
    watch = Stopwatch()
    for _ in range(3):
        with watch.time("forward"):
            pass
    with pytest.raises(KeyError), watch.time("write"):
        raise KeyError
    assert list(watch.time_each("wait", "ab")) == ["a", "b"]
    watch.add("wait", 0.5)
    times = {"forward": 3, "write": 1, "wait": 3.5, "decode": 0}  # the end has to be waited for, too
    assert {name: watch.seconds(name) for name in times} == times


def test_a_profile_in_lines():
    assert EXAMPLE.other_seconds == 0.5
    first, waits, *stages, last = EXAMPLE.lines()
    assert waits.split()[:4] == ["input", "0.50", "s", "5.0%"]
    assert first == "where 10.00 s went, after 1.50 s to start:"
    assert [line.split()[:4] for line in stages] == [
        ["decode", "6.00", "s", "30.0%"],  # of each of two
        ["resize", "2.50", "s", "25.0%"],
        ["wait", "1.00", "s", "10.0%"],
        ["forward", "8.00", "s", "80.0%"],
        ["write", "0.50", "s", "5.0%"],
        ["other", "0.50", "s", "5.0%"],
    ]
    assert stages[0].endswith("2 processes beside, each so much of the time; 5.00 s on processors")
    assert last == "300 frames/s, 25.0 clips/s; the bottleneck is forward"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "forward"),
        ({"wait_seconds": 8.0, "forward_seconds": 1.0}, "decode"),  # 3 s each of two
        ({"wait_seconds": 8.0, "forward_seconds": 1.0, "resize_seconds": 4.0}, "resize"),
        # slow disks and decoders on a GPU: hardly a processor at work
        (
            {"wait_seconds": 8.0, "forward_seconds": 1.0, "decode_seconds": 18.0, "decode_processor_seconds": 1.0}
            | {"resize_seconds": 4.0},
            "decode",
        ),
        # 16 decoders and one long video, which one of them reads
        ({"wait_seconds": 8.0, "forward_seconds": 1.0, "num_decoders": 16, "resize_seconds": 2.5}, "decode"),
        # videos that are fetched come slower than they are decoded
        ({"wait_seconds": 8.0, "forward_seconds": 1.0, "num_decoders": 16, "input_seconds": 4.5}, "input"),
        ({"write_seconds": 8.0, "forward_seconds": 0.5}, "write"),
        ({"forward_seconds": 0.5}, "other"),
    ],
)
def test_the_bottleneck(changes, expected):
    assert dataclasses.replace(EXAMPLE, **changes).bottleneck == expected


ON_GPU = dataclasses.replace(EXAMPLE, beside=True, launch_seconds=1.0, results_seconds=6.0, copy_seconds=3.0)


def test_a_gpu_works_beside_the_thread():
    assert ON_GPU.other_seconds == 1.5  # 10 s without wait, write, launch and results
    _, _, *stages, last = ON_GPU.lines()
    assert [line.split()[0] for line in stages] == [
        *("decode", "resize", "wait", "forward", "write", "other"),
        *("launch", "results", "copy"),
    ]
    assert "forward      8.00 s  80.0%   the GPU beside: the network" in stages[3]
    assert last.endswith("the bottleneck is forward")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "forward"),
        ({"copy_seconds": 9.0}, "copy"),
        ({"wait_seconds": 7.0, "results_seconds": 0.5}, "decode"),
        ({"launch_seconds": 7.0, "results_seconds": 0.5}, "launch"),
        ({"results_seconds": 0.5}, "other"),
    ],
)
def test_the_bottleneck_beside_a_gpu(changes, expected):
    assert dataclasses.replace(ON_GPU, **changes).bottleneck == expected


def test_a_run_that_did_nothing_has_a_profile():
    nothing = Profile(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, num_decoders=0, num_frames=0, num_clips=0)
    assert nothing.lines()[-1].startswith("0 frames/s, 0.0 clips/s")


def test_a_run_says_where_its_time_went(clips_folder, tmp_path):
    summary = extract_to(clips_folder, tmp_path / "f.h5")
    profile = summary.profile
    assert (profile.num_frames, profile.num_clips) == (summary.num_frames, summary.num_clips)
    assert 1 <= profile.num_decoders <= 3
    for stage in ("start", "decode", "decode_processor", "resize", "wait", "forward", "write"):
        assert getattr(profile, f"{stage}_seconds") > 0, stage
    in_turn = profile.wait_seconds + profile.forward_seconds + profile.write_seconds
    assert in_turn <= profile.wall_seconds <= summary.seconds
    again = extract_to(clips_folder, tmp_path / "f.h5").profile
    assert (again.num_clips, again.forward_seconds, again.num_decoders) == (0, 0, 0)


def test_the_time_of_workers_that_are_gone_still_counts(clips_folder):
    items = plan_videos([clips_folder])
    with DecodePool(2) as pool:
        assert pool.spent() == Spent()
        list(pool.decode(item.path for item in items))
        spent = pool.spent()
    assert 0 < spent.seconds <= pool.spent().seconds
    assert 0 < spent.processor_seconds <= pool.spent().processor_seconds


def test_a_pool_counts_the_time_without_videos(tmp_path):
    """Two workers, and a second video that comes when the first has ended: until then one has nothing to do."""
    for name in "ab":
        write_noise_video(tmp_path / f"{name}.mp4", 60)
    ended = threading.Event()

    def late():
        yield tmp_path / "a.mp4"
        ended.wait(60)
        yield tmp_path / "b.mp4"

    with DecodePool(2) as pool:
        for event in pool.decode(late()):
            if isinstance(event, Ended) and event.index == 0:
                assert pool.spent().lacking_seconds > 0
                ended.set()
    assert pool.spent().lacking_seconds > 0


def test_every_call_of_an_extractor_adds_to_its_stopwatch(clips_folder):
    items = plan_videos([clips_folder])
    with Extractor() as extractor:
        list(extractor.extract_many(items))
        before = {stage: extractor.stopwatch.seconds(stage) for stage in ("decode", "resize", "wait", "forward")}
        list(extractor.extract_many(items))
        assert all(0 < seconds < extractor.stopwatch.seconds(stage) for stage, seconds in before.items())


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    return ended.value.code, *capsys.readouterr()


def test_the_command_prints_it_where_it_is_asked_for(capsys, clips_folder, tmp_path):
    code, out, _ = run(capsys, "extract", clips_folder / "cat", "-o", tmp_path / "f.h5", "--profile", "--quiet")
    assert code == 0 and out.startswith("where ") and "the bottleneck is " in out.splitlines()[-1]
    code, out, err = run(capsys, "extract", clips_folder, "-o", tmp_path / "f.h5", "--profile", "--json")
    assert code == 0 and "\nwhere " in err
    found = json.loads(out)["profile"]
    assert found.keys() == {field.name for field in dataclasses.fields(Profile)} and found["num_clips"] > 0
    code, out, _ = run(capsys, "extract", clips_folder, "-o", tmp_path / "f.h5", "--overwrite")
    assert code == 0 and "where " not in out
    code, _, err = run(capsys, "extract", clips_folder, "-o", tmp_path / "f.h5", "--profile", "--dry-run")
    assert code == 2 and "--dry-run makes none" in err


def test_what_is_settled_on_the_first_batch_is_a_part_of_the_start():
    watch = Stopwatch()
    watch.add("start", 3.0)
    watch.add("wait", 1.0)
    found = Profile.of(watch, 2.0, 10.0, num_decoders=1, num_frames=70, num_clips=7, beside=True)
    assert (found.start_seconds, found.wall_seconds, found.other_seconds) == (5.0, 7.0, 6.0)
