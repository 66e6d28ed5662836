"""decode_pool.py: frames through worker processes equal those read directly, and workers may die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from conftest import write_noise_video, write_video

from featx import decode_pool, decode_worker
from featx.decode_pool import Chunk, DecodePool, Ended, Failed, Picture, Started
from featx.errors import FeatxError
from featx.images import encode_thumbnail
from featx.video import read_frames, read_picture
from featx.yuv import Planes, planes_to_bgr, yuv_form

pytestmark = pytest.mark.usefixtures("workers_of_its_own")


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
                assert ended == Ended(i, 25.0, len(expected), *[pytest.approx(len(expected) / 25)] * 2)
            assert isinstance(videos[4][2][-1], Failed) and "not a video" in videos[4][2][-1].reason


def test_pictures_come_from_the_middle_and_a_bad_video_costs_its_own_alone(paths):
    with DecodePool(2) as pool:
        videos = [(path, None if i % 2 else 0.1) for i, path in enumerate(paths)]
        events = {event.index: event for event in pool.pictures(videos, max_bytes=4000)}
        again = list(pool.decode(paths[1:2]))  # the workers serve on
    assert sorted(events) == list(range(len(paths))) and isinstance(again[-1], Ended)
    for i, (path, seconds) in enumerate(videos[:-1]):
        assert events[i] == Picture(i, encode_thumbnail(read_picture(path, seconds), 4000))
    assert isinstance(events[4], Failed) and "not a video" in events[4].reason


def test_workers_give_way_to_the_forward_pass(paths):
    with DecodePool(1) as pool:
        collect(pool, paths[1:2])
        (worker,) = pool._workers
        own = os.getpriority(os.PRIO_PROCESS, os.getpid())
        assert os.getpriority(os.PRIO_PROCESS, worker._process.pid) == min(own + decode_worker.NICENESS, 19)


@pytest.mark.parametrize(
    ("refusals", "written"), [([], "10"), ([BlockingIOError(), BlockingIOError()], "10"), ([FileNotFoundError()], "")]
)
def test_a_worker_gives_way_as_a_session(tmp_path, monkeypatch, refusals, written):
    """Where the system has such a thing; it takes a few a second, and says so."""
    file = tmp_path / "autogroup"
    file.touch()

    def answer(name, mode):
        assert name == "/proc/self/autogroup"
        if refusals:
            raise refusals.pop(0)
        return file.open(mode)

    monkeypatch.setattr("builtins.open", answer)
    monkeypatch.setattr(decode_worker.time, "sleep", lambda seconds: None)
    decode_worker._give_way_as_session()
    monkeypatch.undo()
    assert file.read_text() == written


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


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.long) for n in (signal.SIGSEGV, signal.SIGSTOP))]
)
def test_a_worker_lost_in_the_middle_costs_its_video_alone(paths, tmp_path, number):
    long = write_noise_video(tmp_path / "long.mp4", 400, size=(240, 320))
    with DecodePool(2, timeout_seconds=3) as pool:
        last, hit = {}, False
        for event in pool.decode([paths[0], long, *paths[:4]]):
            if isinstance(event, Chunk) and event.index == 1 and not hit:
                hit = True
                (worker,) = [
                    w for w in pool._workers if np.shares_memory(event.frames, np.frombuffer(w._memory, np.uint8))
                ]
                os.kill(worker._process.pid, number)
            last[event.index] = event
        silence = "no frame decoded for 3 s (--timeout)"
        assert last.pop(1).reason in (f"the decoder crashed ({number.name})", silence)
        assert len(last) == 5 and all(isinstance(event, Ended) for event in last.values())


def test_a_worker_killed_before_it_has_begun_costs_nothing(paths, monkeypatch):
    start, killed = DecodePool._start, []

    def start_and_kill_the_first(pool):
        worker = start(pool)
        if len(killed) < decode_pool.MAX_LOST_STARTS:
            os.kill(worker._process.pid, signal.SIGKILL)
            killed.append(worker)
        return worker

    monkeypatch.setattr(DecodePool, "_start", start_and_kill_the_first)
    with DecodePool(1) as pool:
        videos = collect(pool, paths[:2])
    assert all(isinstance(events[-1], Ended) for _, _, events in videos.values()) and len(killed) == 3


def test_workers_that_are_always_killed_end_the_run(paths, monkeypatch):
    start = DecodePool._start

    def start_and_kill(pool):
        worker = start(pool)
        os.kill(worker._process.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(DecodePool, "_start", start_and_kill)
    with DecodePool(1) as pool, pytest.raises(FeatxError, match="decode workers cannot start"):
        collect(pool, paths[:1])


def test_time_in_which_nobody_looked_is_not_held_against_a_worker(paths, monkeypatch):
    """As after Ctrl-Z and fg, or when the machine slept."""
    with DecodePool(1) as pool:
        collect(pool, paths[:1])
        (worker,) = pool._workers
        worker.silent_seconds(at_most=2)  # takes note of its last heartbeat
        worker.touch()
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
        assert worker.silent_seconds(at_most=2) <= 2


def test_a_worker_that_holds_much_memory_is_replaced(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "KEEP_BYTES", 110 * 2**20)
    large = write_video(tmp_path / "large.avi", 1, size=(3000, 5000), codec="mjpeg", pix_fmt="yuvj420p")
    with DecodePool(1) as pool:
        pids = []
        for path in (paths[0], large, paths[0], paths[1]):
            videos = collect(pool, [path])
            assert isinstance(videos[0][2][-1], Ended)
            pids.append(pool._workers[0]._process.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.mark.parametrize(
    ("gpu", "kept_bytes", "replaced_bytes"), [(None, 300 * 2**20, 500 * 2**20), ("0", 1900 * 2**20, 2200 * 2**20)]
)
def test_a_worker_that_holds_a_gpus_context_may_hold_more(paths, monkeypatch, gpu, kept_bytes, replaced_bytes):
    """Its context alone takes more than an ordinary worker may; here it decodes on the processor."""
    with DecodePool(1, gpu=gpu) as pool:
        pids = []
        for held_bytes in (kept_bytes, kept_bytes, replaced_bytes):
            collect(pool, paths[4:5])  # which no GPU is asked for
            pids.append(pool._workers[0]._process.pid)
            monkeypatch.setattr(decode_pool._WorkerProcess, "held_bytes", lambda self, held=held_bytes: held)
        collect(pool, paths[4:5])
        pids.append(pool._workers[0]._process.pid)
    assert pids[0] == pids[1] == pids[2] != pids[3]


def test_workers_end_with_their_parent_whatever_they_do(tmp_path):
    """Also while they count, and say nothing for long."""
    endless = write_noise_video(tmp_path / "a.mp4", 1000)
    program = (
        "import sys, time, threading; from pathlib import Path; from featx.decode_pool import DecodePool\n"
        "pool = DecodePool(1)\n"
        "threading.Thread(target=lambda: list(pool.count([Path(sys.argv[1])] * 1000)), daemon=True).start()\n"
        "while not (pool._workers and pool._workers[0].ready): time.sleep(0.01)\n"
        "print(pool._workers[0]._process.pid, flush=True); time.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(endless)], stdout=subprocess.PIPE)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(worker)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------------------------- planes


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """A stream whose size, and then whose range, change on the way."""
    folder = tmp_path_factory.mktemp("changing")
    parts = [("a", 9, (48, 64), "yuv420p"), ("b", 7, (64, 48), "yuv420p"), ("c", 5, (64, 48), "yuvj420p")]
    out = folder / "changing.h264"
    with open(out, "wb") as joined:
        for name, num_frames, size, pix_fmt in parts:
            path = folder / f"{name}.h264"
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
                stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
                for i in range(num_frames):
                    picture = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
                container.mux(stream.encode(None))
            joined.write(path.read_bytes())
    return out


def as_bgr(chunk):
    """The frames of a chunk, converted where they are planes."""
    if chunk.yuv is None:
        return [frame.copy() for frame in chunk.frames]
    (height, width), half = chunk.size, [(length + 1) // 2 for length in chunk.size]
    frames = []
    for row in chunk.frames:
        luma, u, v = np.split(row, [height * width, height * width + half[0] * half[1]])
        planes = Planes(luma.reshape(height, width), u.reshape(half), v.reshape(half), chunk.yuv)
        frames.append(planes_to_bgr(planes))
    return frames


def test_planes_give_the_frames_read_directly(paths, changing, tmp_path):
    odd = write_noise_video(tmp_path / "odd.mkv", 9, codec="ffv1", pix_fmt="yuv420p", size=(33, 35))
    wanted = [*paths[:4], changing, odd]
    frames, forms = {i: [] for i in range(len(wanted))}, {i: [] for i in range(len(wanted))}
    with DecodePool(2) as pool:
        for event in pool.decode(wanted, planar=True):
            if isinstance(event, Chunk):
                frames[event.index] += as_bgr(event)
                forms[event.index].append((event.size, event.yuv))
                assert len(event.seconds) == len(event.frames) <= 64
    for i, path in enumerate(wanted):
        assert all(np.array_equal(a, b.pixels) for a, b in zip(frames[i], read_frames(path), strict=True))
    assert [size for size, _ in forms[0]] == [(188, 64)] * 2  # 70 frames
    limited, full = yuv_form(2, False), yuv_form(2, True)
    assert forms[4] == [((48, 64), limited), ((64, 48), limited), ((64, 48), full)]
    assert forms[5] == [((33, 35), None)]


def test_a_slot_that_is_held_is_not_written_to(paths, monkeypatch):
    """Neither while its worker decodes on, nor when slots grow, nor by the next videos."""
    monkeypatch.setattr(decode_pool, "SLOT_BYTES", 60_000)  # a few frames
    held = []

    def hold(chunk):
        before, polls = chunk.frames.copy(), iter(range(3))

        def is_done():
            assert np.array_equal(chunk.frames, before)
            held.append(chunk.index)
            return next(polls, None) is None

        chunk.held_until = is_done
        return as_bgr(chunk)

    with DecodePool(2, num_slots=2) as pool:
        for order in ([0, 1, 2, 3], [3, 0]):
            frames = {i: [] for i in range(len(order))}
            for event in pool.decode([paths[i] for i in order], planar=True):
                if isinstance(event, Chunk):
                    frames[event.index] += hold(event)
            for i, place in enumerate(order):
                expected = list(read_frames(paths[place]))
                assert all(np.array_equal(a, b.pixels) for a, b in zip(frames[i], expected, strict=True))
        arena = pool._workers[0]._shared
        closed = []
        arena.before_closing += [lambda: closed.append("unlocked"), lambda: closed.append("waited")]
    assert len(held) > 40 and closed == ["waited", "unlocked"]


def test_a_damaged_video_costs_no_slot(paths, tmp_path):
    """Its last chunk is never sent."""
    cut = tmp_path / "cut.mkv"
    whole = write_noise_video(tmp_path / "whole.mkv", 40).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with DecodePool(1) as pool:
        videos = collect(pool, [cut] * 5 + [paths[0]])
    assert all(isinstance(videos[i][2][-1], Failed) for i in range(5)) and isinstance(videos[5][2][-1], Ended)
