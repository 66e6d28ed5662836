"""Resizing and cropping by the native kernels: the pixels of featx/resize.py, many times as fast, in one thread.

Frames are prepared beside the forward pass, which has all cores busy: what is saved here is the forward pass's. Frames that
came as planes of luma and chroma are converted by the rule of featx/yuv.py on the way, row by row, and only what the taps
look at.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featx import resize as plain
from featx.engine import native
from featx.resize import PILLOW_BITS, Taps, Window
from featx.yuv import Planes, YuvForm, planes_to_bgr

__all__ = ["PlanarFrames", "resize"]

FORMS = {"none": 0, "bilinear": 1, "bilinear-antialias": 2}  # `Form` of cpp/convolution.h
PART_BITS = PILLOW_BITS // 2  # kPartBits of cpp/resize.h


@dataclass(frozen=True, eq=False)
class PlanarFrames:
    """Frames of one size, (H, W), as planes: luma, U and V of each side by side, uint8 (N, bytes)."""

    planes: Tensor
    size: tuple[int, int]
    form: YuvForm

    def __post_init__(self) -> None:
        height, width = self.size
        half_size = ((height + 1) // 2) * ((width + 1) // 2)
        if self.planes.ndim != 2 or self.planes.shape[1] != height * width + 2 * half_size:
            raise ValueError(f"{tuple(self.planes.shape)} are no planes of frames of {width}x{height}")

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the frames as BGR: (N, H, W, 3)."""
        return (len(self.planes), *self.size, 3)


class _YuvForm(ctypes.Structure):
    """`YuvForm` of cpp/convolution.h."""

    _fields_ = [(name, ctypes.c_int) for name in YuvForm._fields]


class _Resize(ctypes.Structure):
    """`Resize` of cpp/convolution.h."""

    _fields_ = [
        (name, ctypes.c_int) for name in ("n", "height", "width", "out_height", "out_width", "taps_y", "taps_x", "form")
    ] + [
        (name, ctypes.c_void_p)
        for name in ("yuv", "frames", "rows", "row_weights", "columns", "column_weights", "output")
    ]


class _Layout(NamedTuple):
    """The taps as the kernels read them."""

    rows: np.ndarray  # int32 (h, taps)
    row_weights: np.ndarray  # int32 (h, taps)
    columns: np.ndarray  # int32 (w padded to 4,)
    column_weights: np.ndarray  # int16, as `make_line` of cpp/resize.h takes them


def resize(
    frames: Tensor | PlanarFrames, size: tuple[int, int], interpolation: str, window: Window | None = None
) -> Tensor:
    """Resize frames to `size` (h, w) and return the `window` of the result: `featx.resize.resize`, which stands in for it
    where it has no kernel. Frames of that size already are only cut.

    `frames`: uint8 (N, H, W, C), on the CPU, or planes. Returns uint8 (N, window.height, window.width, C), contiguous and new.
    """
    window = window or Window(0, 0, *size)
    inside = 0 <= window.top <= size[0] - window.height and 0 <= window.left <= size[1] - window.width
    values = frames.planes if isinstance(frames, PlanarFrames) else frames
    is_whole = inside and min(*frames.shape[1:3], *window[2:]) >= 1
    if values.dtype != torch.uint8 or values.device.type != "cpu" or not is_whole:
        raise ValueError(f"no resize of {values.dtype} {tuple(frames.shape)} to {size} and {window}")
    if tuple(frames.shape[1:3]) == tuple(size):
        interpolation = "none"
    if interpolation in FORMS and frames.shape[3] == 3 and native.kernels() is not None:
        return _by_kernel(frames, size, interpolation, window)
    if isinstance(frames, PlanarFrames):
        frames = _bgr(frames)
    if interpolation != "none":
        return plain.resize(frames, size, interpolation, window)
    top, left, height, width = window
    return frames[:, top : top + height, left : left + width].clone(memory_format=torch.contiguous_format)


def _by_kernel(frames: Tensor | PlanarFrames, size: tuple[int, int], interpolation: str, window: Window) -> Tensor:
    n, height, width, _ = frames.shape
    layout = _layout(interpolation, (height, width), size, window)
    if isinstance(frames, PlanarFrames):
        pixels, form = frames.planes.contiguous(), _YuvForm(*frames.form)
    else:
        pixels, form = frames.contiguous(), None
    out = torch.empty((n, window.height, window.width, 3), dtype=torch.uint8)
    taps_x = layout.column_weights.shape[2] * 2 if layout.column_weights.size else 1
    request = _Resize(
        *(n, height, width, window.height, window.width, layout.rows.shape[1], taps_x, FORMS[interpolation]),
        None if form is None else ctypes.addressof(form),
        *(pixels.data_ptr(), *(array.ctypes.data for array in layout), out.data_ptr()),
    )
    library = native.kernels()
    workspace = np.empty(library.featx_resize_workspace_bytes(ctypes.byref(request)), np.uint8)
    library.featx_resize(ctypes.byref(request), workspace.ctypes.data)
    return out


def _bgr(frames: PlanarFrames) -> Tensor:
    """All of the frames, uint8 (N, H, W, 3)."""
    if native.kernels() is not None:
        return _by_kernel(frames, frames.size, "none", Window(0, 0, *frames.size))
    height, width = frames.size
    half = ((height + 1) // 2, (width + 1) // 2)
    out = np.empty(frames.shape, np.uint8)
    for samples, picture in zip(frames.planes.numpy(), out, strict=True):
        luma, u, v = np.split(samples, np.cumsum([height * width, half[0] * half[1]]))
        picture[:] = planes_to_bgr(Planes(luma.reshape(height, width), u.reshape(half), v.reshape(half), frames.form))
    return torch.from_numpy(out)


@lru_cache(maxsize=64)
def _layout(interpolation: str, source: tuple[int, int], size: tuple[int, int], window: Window) -> _Layout:
    rows, columns = (
        _taps(interpolation, source[axis], size[axis], axis == 1).cut(window[axis], window[axis + 2]) for axis in (0, 1)
    )
    places = np.pad(columns.places[0], (0, -len(columns.places[0]) % 4), "edge")
    weights = np.zeros(0) if interpolation == "none" else _in_fours(columns.weights, interpolation)
    arrays = (rows.places.T, rows.weights.T, places)
    return _Layout(
        *(np.ascontiguousarray(array, np.int32) for array in arrays), np.ascontiguousarray(weights, np.int16)
    )


def _taps(interpolation: str, source: int, target: int, columns: bool) -> Taps:
    if interpolation == "none":
        return Taps(np.arange(target)[None], np.ones((1, target), np.int32))
    return (
        plain.opencv_taps(source, target, columns) if interpolation == "bilinear" else plain.pillow_taps(source, target)
    )


def _in_fours(weights: np.ndarray, interpolation: str) -> np.ndarray:
    """The weights along a row, (taps, w), for pixels 0 and 2, then 1 and 3 of every four, two taps at a time.

    Shape (w / 4, 2, taps / 2, parts, 2, 4, 2): which two pixels, pair of taps, part of the weight, the pixel, colour, the tap.
    """
    taps, width = weights.shape
    weights = np.pad(weights, ((0, taps % 2), (0, -width % 4)))
    parts = weights[None]
    if interpolation == "bilinear-antialias":
        parts = np.stack([weights >> PART_BITS, weights & (1 << PART_BITS) - 1])
    # (parts, taps, w) -> (parts, pair, tap, four, half, which)
    split = parts.reshape(len(parts), -1, 2, weights.shape[1] // 4, 2, 2)
    ordered = split.transpose(3, 5, 1, 0, 4, 2)  # -> (four, which, pair, parts, half, tap)
    return np.repeat(ordered[..., None, :], 4, axis=5)
