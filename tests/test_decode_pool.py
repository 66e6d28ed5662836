"""decode_pool.py: frames through worker processes equal those read directly, and workers may die."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from conftest import write_noise_video

from featx import decode_pool
from featx.decode_pool import Chunk, DecodePool, Ended, Failed, Started
from featx.video import read_frames


def collect(pool, paths, **options):
    """index -> (frames, seconds, last event)"""
    videos = {i: ([], [], []) for i in range(len(paths))}
    for event in pool.decode(paths, **options):
        frames, seconds, rest = videos[event.index]
        if isinstance(event, Chunk):
            frames += [frame.copy() for frame in event.frames]
            seconds += event.seconds
        else:
            rest.append(event)
    return videos


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    made = [write_noise_video(folder / f"{n}.mp4", n, seed=n, size=(48 + 2 * n, 64)) for n in (70, 1, 33, 5)]
    (folder / "broken.mp4").write_bytes(b"\0" * 100)
    return [*made, folder / "broken.mp4"]


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_frames_equal_those_read_directly(paths, num_workers):
    with DecodePool(num_workers) as pool:
        for _ in range(2):  # workers serve more than one call
            videos = collect(pool, paths)
            for i, path in enumerate(paths[:-1]):
                frames, seconds, (started, ended) = videos[i]
                expected = list(read_frames(path))
                assert all(np.array_equal(a, b.pixels) for a, b in zip(frames, expected, strict=True))
                assert seconds == [frame.seconds for frame in expected]
                assert started == Started(i, 25.0, None)
                assert ended == Ended(i, 25.0, len(expected), pytest.approx(len(expected) / 25))
            assert isinstance(videos[4][2][-1], Failed) and "not a video" in videos[4][2][-1].reason


def test_counting_first_and_resampling(paths):
    with DecodePool(2) as pool:
        videos = collect(pool, paths[:1], fps=12.5, count_first=True)
    assert videos[0][2][0] == Started(0, 12.5, 35)
    assert len(videos[0][0]) == 35


def test_large_frames_grow_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "SLOT_BYTES", 20_000)
    paths = [write_noise_video(tmp_path / f"{h}.mp4", 4, size=(h, 64)) for h in (48, 480, 64)]
    with DecodePool(1) as pool:
        videos = collect(pool, paths)
    for i, path in enumerate(paths):
        assert all(np.array_equal(a, b.pixels) for a, b in zip(videos[i][0], read_frames(path), strict=True))


def test_a_killed_worker_costs_one_video(paths):
    with DecodePool(2) as pool:
        events = pool.decode(paths[:4])
        first = next(events)
        process = pool._workers[first.index]._process
        os.kill(process.pid, signal.SIGKILL)
        last = {event.index: event for event in events}
        assert last.pop(first.index).reason == "the decoder crashed (SIGKILL)"
        assert all(isinstance(event, Ended) for event in last.values()) and len(last) == 3


def test_a_stopped_worker_is_noticed(paths):
    with DecodePool(1, timeout_seconds=4) as pool:
        collect(pool, paths[:1])
        os.kill(pool._workers[0]._process.pid, signal.SIGSTOP)
        videos = collect(pool, paths[:2])
    assert videos[0][2] == [Failed(0, "no frame decoded for 4 s (--timeout)")]
    assert isinstance(videos[1][2][-1], Ended)


def test_no_process_and_no_descriptor_is_left(paths):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(3):
        with DecodePool(2) as pool:
            collect(pool, paths[:2])
            pids = [worker._process.pid for worker in pool._workers]
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before
