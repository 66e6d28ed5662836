"""engine/resize.py: the kernels give the pixels of featx/resize.py, which stands in where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featx import resize as plain
from featx.catalog import CHECKPOINTS
from featx.engine import native
from featx.engine.resize import PlanarFrames, resize
from featx.resize import Window
from featx.yuv import LUMA_SHARES, Planes, planes_to_bgr, yuv_form

HAS_KERNEL = hasattr(native.kernels(), "featx_resize")
needs_kernel = pytest.mark.skipif(not HAS_KERNEL, reason="there are no native kernels")

SIZES = [
    ((240, 320), (128, 171)),
    ((240, 320), (112, 149)),
    ((480, 270), (182, 242)),
    ((64, 48), (128, 171)),  # larger
    ((17, 91), (90, 16)),  # larger and smaller
    ((500, 700), (9, 7)),  # many taps
    ((5, 5), (5, 9)),
    ((1, 1), (4, 3)),
    ((3, 2), (1, 1)),
]


def frames(height, width, num_frames=2, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), np.uint8)
    noise[-1, : height // 2] = 255  # the brightest sums
    return torch.from_numpy(noise)


@needs_kernel
@pytest.mark.parametrize("interpolation", ["bilinear", "bilinear-antialias"])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_the_pixels_are_the_same(source, target, interpolation, monkeypatch):
    given = frames(*source)
    expected = plain.resize(given, target, interpolation)
    monkeypatch.setattr(plain, "resize", None)  # no help
    found = resize(given, target, interpolation)
    assert found.is_contiguous() and torch.equal(found, expected)
    height, width = (max(1, side // 2) for side in target)
    window = Window(target[0] - height, (target[1] - width) // 2, height, width)
    found = resize(given, target, interpolation, window)
    assert torch.equal(found, expected[:, window.top :, window.left : window.left + width])


@needs_kernel
def test_the_pixels_are_the_same_for_any_size():
    rng = np.random.default_rng(0)
    for seed in range(100):
        height, width, *size = rng.integers(1, 120, 4).tolist()
        part = [int(rng.integers(1, side + 1)) for side in size]
        at = [int(rng.integers(0, side - kept + 1)) for side, kept in zip(size, part, strict=True)]
        given = frames(height, width, 1, seed)
        for interpolation in ("bilinear", "bilinear-antialias"):
            arguments = (given, tuple(size), interpolation, Window(*at, *part))
            assert torch.equal(resize(*arguments), plain.resize(*arguments)), (height, width, size, at, part)


def planes(height, width, form, num_frames=2, seed=0):
    """Frames of noise as planes, and as BGR by the readable form of the rule."""
    rng = np.random.default_rng(seed)
    half = ((height + 1) // 2, (width + 1) // 2)
    noise = [rng.integers(0, 256, (num_frames, *shape), np.uint8) for shape in ((height, width), half, half)]
    noise[0][:, : height // 2] = rng.choice([0, 255], (height // 2, width))  # beyond black and white
    together = np.concatenate([plane.reshape(num_frames, -1) for plane in noise], axis=1)
    pictures = np.stack([planes_to_bgr(Planes(*samples, form)) for samples in zip(*noise, strict=True)])
    return PlanarFrames(torch.from_numpy(together), (height, width), form), torch.from_numpy(pictures)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA_SHARES))
def test_planes_become_the_same_bgr(matrix, full_range):
    form = yuv_form(matrix, full_range)
    for height, width in ((2, 1), (2, 2), (4, 31), (6, 32), (2, 33), (3, 65), (50, 75), (16, 322)):
        given, expected = planes(height, width, form)
        assert torch.equal(resize(given, (height, width), "bilinear"), expected), (height, width)
        assert given.shape == expected.shape and len(given) == 2


@pytest.mark.long
@needs_kernel
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA_SHARES))
def test_planes_of_every_colour(matrix, full_range):
    """All 2**24: U and V along the sides, Y in the four places of each and in 64 pictures."""
    form = yuv_form(matrix, full_range)
    v, u = np.mgrid[:256, :256].astype(np.uint8)
    for first in range(0, 256, 4):
        luma = np.tile(np.array([[first, first + 1], [first + 2, first + 3]], np.uint8), (256, 256))
        together = torch.from_numpy(np.concatenate([luma.ravel(), u.ravel(), v.ravel()])[None])
        found = resize(PlanarFrames(together, (512, 512), form), (512, 512), "bilinear")
        assert np.array_equal(found[0], planes_to_bgr(Planes(luma, u, v, form)))


@pytest.mark.parametrize("has_kernel", [True, False])
def test_planes_are_resized_and_cut_as_their_bgr_is(has_kernel, monkeypatch):
    if not has_kernel:
        monkeypatch.setattr(native, "kernels", lambda: None)
    rng = np.random.default_rng(0)
    for seed in range(40 if has_kernel else 2):
        height, width, *size = rng.integers(1, 120, 4).tolist()
        if seed % 5 == 0:
            size = [height, width]  # only cut
        part = [int(rng.integers(1, side + 1)) for side in size]
        at = [int(rng.integers(0, side - kept + 1)) for side, kept in zip(size, part, strict=True)]
        given, pictures = planes(height, width, yuv_form(5, False), 2, seed)
        top, left, h, w = window = Window(*at, *part)
        for interpolation in ("bilinear", "bilinear-antialias", "bilinear-float"):
            if size == [height, width]:
                expected = pictures[:, top : top + h, left : left + w]
            else:
                expected = plain.resize(pictures, tuple(size), interpolation, window)
            for source in (given, pictures):
                found = resize(source, tuple(size), interpolation, window)
                assert found.is_contiguous() and torch.equal(found, expected), (height, width, size, window)


def test_planes_of_another_size_are_refused():
    with pytest.raises(ValueError, match="no planes of frames of 7x4"):
        PlanarFrames(torch.zeros((1, 41), dtype=torch.uint8), (4, 7), yuv_form(5, False))


@needs_kernel
def test_frames_that_are_no_block_of_memory():
    given = frames(50, 60)[:, ::2, 5:40]
    assert not given.is_contiguous()
    assert torch.equal(resize(given, (20, 30), "bilinear"), plain.resize(given.contiguous(), (20, 30), "bilinear"))


@needs_kernel
def test_what_no_kernel_may_see_is_refused():
    for wrong in (frames(8, 8).float(), frames(8, 8).to("meta"), frames(8, 8)[:, :0]):
        with pytest.raises(ValueError, match="no resize of"):
            resize(wrong, (4, 4), "bilinear")
    for window in (Window(0, 0, 5, 4), Window(1, 0, 4, 4), Window(-1, 0, 2, 2), Window(0, 0, 0, 4)):
        with pytest.raises(ValueError, match="no resize of"):
            resize(frames(8, 8), (4, 4), "bilinear-antialias", window)


def test_without_kernels_the_plain_form_stands_in(monkeypatch):
    given = frames(30, 40)
    monkeypatch.setattr(native, "kernels", lambda: None)
    assert torch.equal(resize(given, (20, 20), "bilinear"), plain.resize(given, (20, 20), "bilinear"))


def test_other_forms_are_the_plain_ones():
    given = frames(30, 40)
    assert torch.equal(resize(given, (20, 20), "bilinear-float"), plain.resize(given, (20, 20), "bilinear-float"))
    grey = given[..., :1]
    assert torch.equal(resize(grey, (20, 20), "bilinear"), plain.resize(grey, (20, 20), "bilinear"))


@pytest.mark.parametrize("card", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_every_card_is_prepared_alike(card):
    given = frames(240, 320, 1)
    assert torch.equal(card.preprocess.prepare_frames(given, resize), card.preprocess.prepare_frames(given))
