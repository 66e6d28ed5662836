"""hardware_decode.py: what a GPU's decoder may decode, and that its frames become those of the processor's."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from av.codec.hwaccel import HWAccel
from av.video.reformatter import VideoReformatter
from conftest import write_noise_video

from featx import Extractor, extractor, hardware_decode, video
from featx.decode_pool import Chunk, DecodePool
from featx.errors import UsageError

NO_GPU = hardware_decode.why_no_hardware("0")


@pytest.fixture
def hardware():
    hardware_decode.use_hardware("0")
    yield
    hardware_decode.use_hardware(None)


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("size", [(64, 48), (70, 50), (322, 178), (33, 17)])
def test_nv12_comes_apart_without_a_changed_sample(kind, size):
    """Made by hand: luma as it is, and U and V taken in turns."""
    rng = np.random.default_rng(0)
    planar, nv12 = av.VideoFrame(*size, kind), av.VideoFrame(*size, "nv12")
    for frame in (planar, nv12):
        frame.color_range = 2 if kind == "yuvj420p" else 1
        frame.colorspace, frame.pts = 1, 7
    samples = [rng.integers(0, 256, (plane.height, plane.line_size), np.uint8) for plane in planar.planes]
    for plane, values in zip(planar.planes, samples, strict=True):
        plane.update(values.tobytes())
    luma, chroma = (np.zeros((plane.height, plane.line_size), np.uint8) for plane in nv12.planes)
    height, width = samples[1].shape[0], (size[0] + 1) // 2
    luma[:, : size[0]] = samples[0][:, : size[0]]
    chroma[:, : 2 * width : 2], chroma[:, 1 : 2 * width : 2] = (sample[:, :width] for sample in samples[1:])
    for plane, values in zip(nv12.planes, (luma, chroma), strict=True):
        plane.update(values.tobytes())
    frame = hardware_decode.as_the_processor_gives_it(VideoReformatter(), nv12)
    assert (frame.format.name, frame.pts, frame.colorspace, height) == (kind, 7, 1, (size[1] + 1) // 2)
    for plane, values, columns in zip(frame.planes, samples, (size[0], width, width), strict=True):
        got = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        assert np.array_equal(got[:, :columns], values[:, :columns])
    pixels = [video._to_bgr(VideoReformatter(), each) for each in (frame, planar)]
    assert np.array_equal(*pixels)
    assert hardware_decode.as_the_processor_gives_it(VideoReformatter(), planar) is planar


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "taken"),
    [("libx264", "yuv420p", "mp4", True), ("libx264", "yuv444p", "mp4", False), ("libx265", "yuv420p", "mp4", True),
     ("libx265", "yuv420p10le", "mp4", False), ("mpeg4", "yuv420p", "avi", False)],
)  # fmt: skip
def test_only_streams_whose_pixels_are_fixed_are_decoded_by_a_gpu(
    tmp_path, monkeypatch, hardware, codec, pix_fmt, suffix, taken
):
    path = write_noise_video(tmp_path / f"a.{suffix}", 3, codec=codec, pix_fmt=pix_fmt)
    opened, original = [], video._open

    def noted(path, flow=False, hwaccel=None):
        opened.append(hwaccel)
        return original(path, flow)

    monkeypatch.setattr(video, "_open", noted)
    assert len(list(video.read_frames(path))) == 3
    assert [isinstance(each, HWAccel) for each in opened] == ([False, True] if taken else [False])


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU that decodes")
def test_a_gpu_that_is_not_there_is_refused():
    assert NO_GPU.startswith("no NVIDIA driver answers for GPU 0") and "\n" not in NO_GPU
    with pytest.raises(UsageError, match="decode 'cuda' was asked for, but no NVIDIA .*; use '--decode cpu'"):
        Extractor(decode="cuda", engine="torch")
    with pytest.raises(UsageError, match="decode is 'gpu', but must be one of cpu, cuda, auto"):
        Extractor(decode="gpu")


@pytest.mark.parametrize(
    ("device", "current", "number"), [("cuda", 1, "1"), ("cuda:0", 1, "0"), ("cuda:2", 0, "2"), ("cpu", 1, "0")]
)
def test_the_gpu_that_computes_decodes(monkeypatch, device, current, number):
    """Of a device without a number that is the one that the program around has set."""
    asked = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(extractor, "why_no_hardware", lambda gpu: asked.append(gpu) or "")
    assert extractor._gpu_to_decode("cuda", torch.device(device)) == number and asked == [number]


class FakeAccelerator:
    """HWAccel of a machine with a driver; where `shares` is False its primary context is in other hands."""

    shares, made = True, []

    def __init__(self, kind, device=None, options=None):
        assert kind == "cuda"
        self.device, self.options = device, options

    def create(self, codec):
        if self.options and not self.shares:
            raise av.error.ArgumentError(95, "Operation not supported")
        self.made.append((self.device, self.options))
        return object()


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(hardware_decode, "HWAccel", FakeAccelerator)
    monkeypatch.setattr(FakeAccelerator, "made", [])
    hardware_decode._hardware.cache_clear()
    yield FakeAccelerator
    hardware_decode._hardware.cache_clear()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_driver_without_its_decoder_is_refused(driver, monkeypatch, is_there):
    """As in a container that was started without it, where FFmpeg would let the processor decode."""
    asked = []

    def load(name):
        asked.append(name)
        if not is_there:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", load)
    reason = hardware_decode.why_no_hardware("1")
    assert asked == ["libnvcuvid.so.1"]
    assert driver.made == [("1", None)]  # the asking process may use the primary context with flags that FFmpeg refuses
    assert reason == (
        "" if is_there else "the driver's libnvcuvid.so.1 is missing (a container needs the driver capability 'video')"
    )


@pytest.mark.parametrize("shares", [True, False])
def test_one_context_is_held_for_all_videos(tmp_path, monkeypatch, hardware, driver, shares):
    path = write_noise_video(tmp_path / "a.mp4", 3, codec="libx264")
    given, original = [], video._open

    def noted(path, flow=False, hwaccel=None):
        given.append(hwaccel)
        return original(path, flow)

    monkeypatch.setattr(video, "_open", noted)
    monkeypatch.setattr(driver, "shares", shares)
    for _ in range(3):
        assert len(list(video.read_frames(path))) == 3
    options = {"primary_ctx": "1"} if shares else None
    assert [(each.device, each.options) for each in given if each is not None] == [("0", options)] * 3
    assert driver.made == [("0", options)] * shares
    assert (hardware_decode._hardware("0")[1] is not None) == shares


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=f"needs a GPU's video decoder: {NO_GPU}")
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("size", [(240, 320), (270, 482), (1080, 1920)])
def test_a_gpu_gives_the_frames_of_the_processor(tmp_path, codec, size):
    path = write_noise_video(tmp_path / "a.mp4", 30, codec=codec, size=size)

    hardware_decode.use_hardware("0")
    try:
        with video._open_to_decode(path, False) as container:
            kinds = {frame.format.name for frame in container.decode(video=0)}
    finally:
        hardware_decode.use_hardware(None)
    assert kinds == {"nv12"}  # a yuv420p would be the processor's

    def frames(gpu):
        with DecodePool(1, gpu=gpu) as pool:
            return np.concatenate([event.frames.copy() for event in pool.decode([path]) if isinstance(event, Chunk)])

    assert np.array_equal(frames("0"), frames(None))


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=f"needs a GPU's video decoder: {NO_GPU}")
def test_a_process_that_decodes_only_holds_one_context():
    program = "from featx.hardware_decode import _hardware as h; print(h('0')[1] is not None, h('0')[0].options)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True {'primary_ctx': '1'}\n"
