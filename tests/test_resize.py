"""resize.py against OpenCV and Pillow themselves, to the last grey level, and against bilinear arithmetic written out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from featx import resize as resize_module
from featx.resize import INTERPOLATIONS, Window, resize

# (height, width) before and after: down, up, mixed, by whole factors, one side kept, tiny, long, more than 8 bits of taps
SIZES = [
    ((240, 320), (128, 171)), ((240, 320), (182, 242)), ((240, 320), (112, 149)), ((256, 340), (128, 171)),
    ((64, 48), (128, 171)), ((129, 173), (128, 171)), ((128, 342), (128, 171)), ((61, 171), (128, 171)),
    ((256, 342), (128, 171)), ((100, 100), (50, 50)), ((100, 100), (25, 20)), ((50, 50), (100, 150)), ((37, 91), (112, 275)),
    ((91, 37), (275, 112)), ((2, 3), (5, 4)), ((1, 1), (4, 4)), ((16, 16), (1, 1)), ((8, 500), (9, 30)),
    ((480, 640), (128, 171)),
]  # fmt: skip


def noise(height, width, num_frames=2):
    """Every grey level beside every other: uint8 (N, H, W, 3)."""
    rng = np.random.default_rng(height * 10_000 + width)
    return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def smooth(height, width):
    """Slopes, as in natural frames, where sums lie near half a grey level more often: uint8 (1, H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(y + 2 * x) % 256, (3 * y + x) % 256, (x * y // 64) % 256], axis=-1).astype(np.uint8)[None]


def as_opencv(frame, size):
    return cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, 3)


def as_pillow(frame, size):
    # rows first: Pillow's own order, which releases from 13 on turn round where the other one is cheaper
    picture = Image.fromarray(frame).resize((size[1], frame.shape[0]), Image.BILINEAR)
    return np.asarray(picture.resize(size[::-1], Image.BILINEAR))


@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize(("name", "oracle"), [("bilinear", as_opencv), ("bilinear-antialias", as_pillow)])
def test_pixels_are_those_of_the_other_program(name, oracle, source, size):
    for frames in (noise(*source), smooth(*source)):
        ours = resize(torch.from_numpy(frames), size, name).numpy()
        assert np.array_equal(ours, np.stack([oracle(frame, size) for frame in frames]))


# Where Pillow from 13 on keeps to the old order; it does not for all sizes of kept aspect: 268x128 is an exception.
@pytest.mark.parametrize("source", [(240, 320), (320, 240), (256, 340), (360, 202), (202, 360), (100, 100), (77, 123)])
def test_pillow_in_one_call_agrees_at_these_sizes(source):
    short = min(source)
    size = tuple(int(112 * side / short) for side in source)
    (frame,) = noise(*source, num_frames=1)
    theirs = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.BILINEAR))
    assert np.array_equal(resize(torch.from_numpy(frame)[None], size, "bilinear-antialias")[0].numpy(), theirs)


def bilinear(frame, size):
    """Two taps a side, in float64: float (h, w, 3)."""
    out = frame.astype(np.float64)
    for axis, target in enumerate(size):
        source = frame.shape[axis]
        at = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
        first = np.minimum(np.floor(at).astype(int), source - 1)
        share = (at - first).reshape(-1, *[1] * (2 - axis))
        second = np.minimum(first + 1, source - 1)
        out = out.take(first, axis) * (1 - share) + out.take(second, axis) * share
    return out


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_the_float_form_rounds_the_true_value(source, size):
    (frame,) = noise(*source, num_frames=1)
    ours = resize(torch.from_numpy(frame)[None], size, "bilinear-float")[0].numpy()
    # half a grey level, and what float32 cannot tell from it: places are known to 2e-5 pixels at most
    assert np.abs(ours - bilinear(frame, size)).max() <= 0.5 + 0.02


def test_the_float_form_rounds_half_to_even():
    frame = torch.tensor([0, 1, 1, 2, 2, 3], dtype=torch.uint8).view(1, 1, 6, 1)
    assert resize(frame, (1, 3), "bilinear-float").flatten().tolist() == [0, 2, 2]  # 0.5, 1.5, 2.5


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize(
    "window", [Window(8, 29, 112, 112), Window(0, 0, 1, 1), Window(127, 170, 1, 1), Window(3, 0, 9, 171)]
)
def test_a_window_is_cut_from_the_whole(name, window):
    top, left, height, width = window
    frames = torch.from_numpy(noise(90, 201))
    whole = resize(frames, (128, 171), name)
    part = resize(frames, (128, 171), name, window)
    assert torch.equal(part, whole[:, top : top + height, left : left + width]) and part.is_contiguous()


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_threads_and_views_change_nothing(name, monkeypatch):
    frames = torch.from_numpy(noise(60, 80, num_frames=9))
    alone = resize(frames, (40, 33), name)
    turned = frames.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)  # the same pixels, column by column in memory
    assert not turned.is_contiguous() and torch.equal(resize(turned, (40, 33), name), alone)
    with ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(resize_module, "_pool", lambda: pool)
        assert torch.equal(resize(frames, (40, 33), name), alone)
