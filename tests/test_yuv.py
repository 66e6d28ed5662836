"""yuv.py and the planes of video.py against swscale itself: equal pixels, or BGR as before."""

from __future__ import annotations

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation, VideoReformatter
from conftest import write_noise_video

from featx import video
from featx.yuv import FULL_RANGE, LUMA_SHARES, Planes, planes_to_bgr, yuv_form

RANGES = [1, FULL_RANGE]  # libav's numbers: limited, full


def frame_of(luma, u, v, matrix=5, color_range=1, kind="yuv420p"):
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], kind)
    for plane, samples in zip(frame.planes, (luma, u, v), strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = samples
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def noise(height, width, seed=0):
    rng = np.random.default_rng(seed)
    half = ((height + 1) // 2, (width + 1) // 2)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((height, width), half, half)]


def swscale(frame):
    """BGR as OpenCV's reader has it."""
    return (
        VideoReformatter().reformat(frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1).to_ndarray()
    )


@pytest.mark.parametrize("color_range", RANGES)
@pytest.mark.parametrize("matrix", sorted(LUMA_SHARES))
def test_the_rule_is_swscales(matrix, color_range):
    form = yuv_form(matrix, color_range == FULL_RANGE)
    for height, width in ((64, 96), (2, 1), (2, 2), (6, 3), (50, 75), (240, 322), (144, 30)):
        planes = noise(height, width)
        expected = swscale(frame_of(*planes, matrix, color_range))
        assert np.array_equal(planes_to_bgr(Planes(*planes, form)), expected), (height, width)


@pytest.mark.long
@pytest.mark.parametrize("color_range", RANGES)
@pytest.mark.parametrize("matrix", sorted(LUMA_SHARES))
def test_the_rule_for_every_colour(matrix, color_range):
    """All 2**24: U and V along the sides, Y in the four places of each and in 64 pictures."""
    form = yuv_form(matrix, color_range == FULL_RANGE)
    v, u = np.mgrid[:256, :256].astype(np.uint8)
    for first in range(0, 256, 4):
        luma = np.tile(np.array([[first, first + 1], [first + 2, first + 3]], np.uint8), (256, 256))
        expected = swscale(frame_of(luma, u, v, matrix, color_range))
        assert np.array_equal(planes_to_bgr(Planes(luma, u, v, form)), expected)


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p"])
@pytest.mark.parametrize("matrix", [0, 1, 2, 4, 5, 6, 7, 9, 10])
@pytest.mark.parametrize("color_range", [0, *RANGES])
def test_what_a_frame_says_of_itself(kind, matrix, color_range):
    """Whatever it is: planes that give swscale's pixels, or none."""
    frame = frame_of(*noise(18, 33), matrix, color_range, kind)
    planes = video._to_planes(frame)
    assert (planes is not None) == (matrix in LUMA_SHARES)
    if planes is not None:
        assert np.array_equal(planes_to_bgr(planes), swscale(frame))


def test_another_swscale_is_found_out(monkeypatch):
    """As on processors for which it has other code."""
    frame = frame_of(*noise(18, 33))
    monkeypatch.setattr(video, "yuv_form", lambda *args, **kwargs: yuv_form(1, False))
    video._form.cache_clear()
    try:
        assert video._to_planes(frame) is None
    finally:
        video._form.cache_clear()


def test_odd_heights_have_no_planes():
    assert video._to_planes(frame_of(*noise(17, 32))) is None
    assert video._to_planes(frame_of(*noise(18, 31))) is not None


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "size", "has_planes"),
    [("mpeg4", "yuv420p", (48, 64), True), ("libx264", "yuv420p", (50, 70), True), ("mjpeg", "yuvj420p", (48, 64), True),
     ("ffv1", "yuv420p", (33, 35), False), ("ffv1", "yuv420p", (34, 35), True), ("ffv1", "yuv422p", (48, 64), False),
     ("ffv1", "yuv444p", (48, 64), False), ("ffv1", "yuv420p10le", (48, 64), False), ("ffv1", "gray", (48, 64), False),
     ("ffv1", "bgr0", (48, 64), False)],
)  # fmt: skip
def test_frames_are_the_same_with_planes_and_without(tmp_path, codec, pix_fmt, size, has_planes):
    path = write_noise_video(tmp_path / "a.mkv", 5, codec=codec, pix_fmt=pix_fmt, size=size)
    plain, planar = list(video.read_frames(path)), list(video.read_frames(path, planar=True))
    assert [frame[:2] for frame in planar] == [frame[:2] for frame in plain]
    for frame, expected in zip(planar, plain, strict=True):
        assert isinstance(frame.pixels, Planes) == has_planes
        bgr = planes_to_bgr(frame.pixels) if has_planes else frame.pixels
        assert np.array_equal(bgr, expected.pixels)


def test_fields_have_no_planes(tmp_path):
    """Interlaced frames are converted field by field."""
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={"flags": "+ilme+ildct", "top": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(4):
            container.mux(stream.encode(frame_of(*noise(64, 64, i))))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    pairs = zip(video.read_frames(path), video.read_frames(path, planar=True), strict=True)
    assert all(isinstance(b.pixels, np.ndarray) and np.array_equal(a.pixels, b.pixels) for a, b in pairs)


def test_planes_are_written_without_their_padding():
    luma, u, v = (np.pad(plane, ((0, 0), (0, 5)))[:, :-5] for plane in noise(6, 7))
    planes = Planes(luma, u, v, yuv_form(5, False))
    place = np.zeros(planes.num_bytes, np.uint8)
    planes.write_to(place)
    assert planes.num_bytes == 42 + 2 * 12
    assert np.array_equal(place, np.concatenate([luma.ravel(), u.ravel(), v.ravel()]))
