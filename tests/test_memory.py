"""Memory grows neither with the length of a video nor, but for its row, with the number of videos: measured in processes of
their own, with a network that takes no time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from brightness import NUM_DIMS
from conftest import write_noise_video, write_video

from featx import decode_pool, run, store
from featx.engine import Engine
from featx.engine.flight import Done

pytestmark = pytest.mark.usefixtures("workers_of_its_own")

# Prints frames, failures, peak MB of the parent, the largest peak MB of a worker that is alive at the end, open descriptors.
PROGRAM = """
import os, resource, sys
import numpy as np
from featx import decode_pool, run
from featx.engine import Engine
from featx.engine.flight import Done

def answer_at_once(engine, clips, ready=()):
    return Done({layer: np.ones((len(clips), int(sys.argv[4])), np.float32) for layer in engine.layers})

if sys.argv[4] != "0":
    Engine.submit = answer_at_once
peaks = []
close = decode_pool._WorkerProcess.close

def note_and_close(worker):
    if not worker.exited():
        with open(f"/proc/{worker._process.pid}/status") as status:
            peaks.append(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
    close(worker)

decode_pool._WorkerProcess.close = note_and_close
summary = run.extract_to(sys.argv[1], sys.argv[2], stride=int(sys.argv[3]), layers=["pool5"])
print(summary.num_frames, len(summary.failures), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, max(peaks),
      len(peaks), len(os.listdir("/proc/self/fd")))
"""


def run_program(videos: Path, output: Path, stride: int, num_dims: int) -> list[int]:
    arguments = [sys.executable, "-c", PROGRAM, str(videos), str(output), str(stride), str(num_dims)]
    return list(map(int, subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()))


def repeated(source: Path, path: Path, times: int) -> Path:
    """A long stream at the cost of a short one: its packets again and again."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [(bytes(p), p.is_keyframe, p.duration) for p in container.demux(stream) if p.size]
        step, time_base = packets[0][2], stream.time_base
        with av.open(str(path), "w") as out:
            copy = out.add_stream_from_template(stream)
            for i in range(times * len(packets)):
                data, is_keyframe, _ = packets[i % len(packets)]
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = copy, time_base, is_keyframe
                packet.pts = packet.dts = i * step
                packet.duration = step
                out.mux(packet)
    return path


@pytest.mark.long
@pytest.mark.parametrize("seconds", [180, 2 * 60 * 60])
def test_a_long_1080p_video_needs_no_more_than_fifteen_seconds_of_it(tmp_path, seconds):
    """But for the time of every frame, 8 bytes, which makes 1.4 MB in two hours.

    Two hours, 180,000 frames, took 380 MB in the parent and 98 MB in the worker, and so did fifteen seconds.
    """
    second = write_noise_video(tmp_path / "second.mp4", 25, size=(1080, 1920))
    peaks = []
    for length in (15, seconds):
        video = repeated(second, tmp_path / f"{length}.mkv", length)
        num_frames, failures, parent, worker, *_ = run_program(video, tmp_path / f"{length}.h5", 16, NUM_DIMS)
        assert (num_frames, failures) == (25 * length, 0)
        with store.open_features(tmp_path / f"{length}.h5") as features:
            (key,) = features.keys
            assert features[key].num_clips == (25 * length - 16) // 16 + 1
        peaks.append((parent, worker))
        video.unlink()
    print(peaks)
    assert peaks[1][0] < peaks[0][0] + 32 and peaks[1][1] < peaks[0][1] + 8


@pytest.mark.long
def test_hundreds_of_videos_leave_no_worker_and_no_descriptor(tmp_path, monkeypatch):
    """Every tenth is a bad one; see below for thousands."""
    tiny = write_noise_video(tmp_path / "tiny.mp4", 2, size=(16, 16))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(tiny.read_bytes()[:500])
    (tmp_path / "videos").mkdir()
    for i in range(300):
        (tmp_path / f"videos/{i:06d}.mp4").symlink_to(bad if i % 10 == 9 else tiny)
    monkeypatch.setattr(
        Engine, "submit", lambda self, clips, *_: Done({"pool5": np.ones((len(clips), NUM_DIMS), "f4")})
    )
    monkeypatch.setattr("featx.parts.PART_SECONDS", 0.2)
    workers, descriptors = [], []

    class Noted(decode_pool._WorkerProcess):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            workers.append(self)

    monkeypatch.setattr(decode_pool, "_WorkerProcess", Noted)
    summary = run.extract_to(
        tmp_path / "videos", tmp_path / "f.h5", layers=["pool5"],
        on_result=lambda result: descriptors.append(len(os.listdir("/proc/self/fd"))),
    )  # fmt: skip
    assert (summary.num_videos, len(summary.failures), len(descriptors)) == (270, 30, 300)
    assert 1 <= len(workers) <= decode_pool.default_num_workers() and all(worker.exited() for worker in workers)
    assert min(descriptors[150:]) <= max(descriptors[:150])  # some come and go with every part
    assert len(os.listdir("/proc/self/fd")) < min(descriptors)


@pytest.mark.long
@pytest.mark.parametrize(("few", "many"), [(2_000, 12_000)])
def test_a_video_more_takes_its_row_and_no_worker_or_descriptor(tmp_path, few, many):
    """Every tenth is a bad one. 100,000 files took 562 MB in the parent, 51 MB in a worker, 2 workers and 4 descriptors."""
    tiny = write_noise_video(tmp_path / "tiny.mp4", 2, size=(16, 16))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(tiny.read_bytes()[:500])
    measured = {}
    for number in (few, many):
        folder = tmp_path / str(number)
        folder.mkdir()
        for i in range(number):
            (folder / f"{i:06d}.mp4").symlink_to(bad if i % 10 == 9 else tiny)
        num_frames, failures, *measured[number] = run_program(folder, tmp_path / f"{number}.h5", 16, NUM_DIMS)
        assert (num_frames, failures) == (2 * number * 9 // 10, number // 10)
    print(measured)
    (parent, worker, workers, descriptors), (more_parent, more_worker, more_workers, more_descriptors) = (
        measured.values()
    )
    assert (more_parent - parent) * 2**20 < 4096 * (many - few) + 32 * 2**20
    assert more_worker < worker + 32 and more_workers <= workers and more_descriptors <= descriptors


@pytest.mark.long
def test_an_hour_through_the_network_needs_no_more_than_twenty_minutes(tmp_path):
    """As many clips of either, none of which share frames: 563 and 545 MB; a minute of clips that do took 496."""
    peaks = []
    for num_frames, stride in ((20 * 60 * 25, 133), (60 * 60 * 25, 400)):
        video = write_video(tmp_path / f"{num_frames}.mp4", num_frames, size=(120, 160))
        measured = run_program(video, tmp_path / f"{num_frames}.h5", stride, 0)
        assert measured[0] == num_frames
        peaks.append(measured[2])
    assert peaks[1] < peaks[0] + 32
