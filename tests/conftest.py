"""Videos and small networks that the tests make themselves."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

# Threads that wait sleep, here and in the processes that tests start: several of them share two cores. Read with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Every process that the tests start would otherwise compile featx anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import av
import numpy as np
import pytest
import torch
from kept_workers import keeping_workers, starting_workers
from prepared_engines import preparing_anew, preparing_once

import featx
from featx import decode_pool


def pytest_collection_finish() -> None:
    """What lives as long as the suite is not looked through for garbage again and again, which takes a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def write_video(
    path: Path,
    num_frames: int,
    *,
    size: tuple[int, int] = (48, 64),
    fps: int = 25,
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    times: list[float] | None = None,
    stamps: list[int] | None = None,
    brightness: Callable[[int], int] = lambda i: 16 + 3 * i % 220,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of uniformly grey frames, the index of each written into its brightness; `times` in seconds make it uneven.

    `stamps` are the frames' places when some were dropped.
    """
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(num_frames):
            picture = np.full((height, width, 3), brightness(i), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format=pix_fmt)
            frame.pts = (stamps[i] if stamps else i) if times is None else round(times[i] * 1000)
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_noise_video(
    path: Path, num_frames: int, *, seed: int = 0, size: tuple[int, int] = (48, 64), **options
) -> Path:
    """A video of smooth coloured noise that moves, so that every frame and every place differs."""
    height, width = size
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8 + num_frames // 4)).astype(np.float32))
    wide = torch.nn.functional.interpolate(coarse, (height, width + num_frames), mode="bicubic").clamp(0, 255)[0]
    pictures = wide.permute(1, 2, 0).numpy().astype(np.uint8)  # (3, H, W) -> (H, W, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(options.get("codec", "mpeg4"), rate=25, options={"qscale": "3"})
        stream.width, stream.height, stream.pix_fmt = width, height, options.get("pix_fmt", "yuv420p")
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[:, i : i + width]), format="bgr24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session", autouse=True)
def share_of_the_cores():
    """Where pytest-xdist runs several processes, each takes its share of the cores, for threads and for decode workers."""
    num_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if num_processes == 1:
        yield
        return
    num_cores = max(1, decode_pool.default_num_workers() // num_processes)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(num_cores))  # for the processes that tests start
        patch.setattr(decode_pool, "default_num_workers", lambda: num_cores)
        torch.set_num_threads(num_cores)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def as_at_a_terminal():
    """A suite that was itself started in the background ignores SIGINT, as its runs and the processes it starts then would."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def nobodys_cache(tmp_path_factory):
    """No test sees weights that the user has stored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATX_HOME", str(tmp_path_factory.mktemp("home") / "absent"))
        yield


@pytest.fixture(scope="session", autouse=True)
def engines_are_prepared_once():
    """No test of something else makes and checks a plan that an engine before it had."""
    with preparing_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def decode_workers_are_kept():
    """No test of something else starts a decode worker that one before it has left."""
    with keeping_workers():
        yield


@pytest.fixture(scope="module")
def workers_of_its_own():
    """Every pool of the module starts its own decode workers."""
    with starting_workers():
        yield


@pytest.fixture(scope="module")
def prepared_anew():
    """Every engine of the module makes and checks its own plan."""
    with preparing_anew():
        yield


@pytest.fixture(scope="session")
def example_features(tmp_path_factory, engines_are_prepared_once) -> Path:
    """What the quick start's command makes of the example videos, made once, by the first of the test processes to need it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # all have it in common
    made = folder / "examples.h5"
    with open(folder / "examples.lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            patch.chdir(Path(__file__).parents[1])
            featx.extract_to("examples/videos", made)
    return made


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def clips_folder(tmp_path_factory) -> Path:
    """dog/000 (40 frames), dog/001 (7), cat/000 (23) and a text file that is no video."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, (name, num_frames) in enumerate([("dog/000.mp4", 40), ("dog/001.avi", 7), ("cat/000.mkv", 23)]):
        (folder / name).parent.mkdir(exist_ok=True)
        write_noise_video(folder / name, num_frames, seed=seed)
    (folder / "notes.txt").write_text("not a video")
    return folder
