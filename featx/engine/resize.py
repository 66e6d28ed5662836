"""The resizing of featx/resize.py by the native kernels: the same pixels, several times as fast, in one thread.

Frames are resized beside the forward pass, which has all cores busy: what is saved here is the forward pass's.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featx import resize as plain
from featx.engine import native
from featx.resize import Window

__all__ = ["resize"]

TAPS = {
    "bilinear": plain.opencv_taps,
    "bilinear-antialias": lambda source, target, _: plain.pillow_taps(source, target),
}


class _Resize(ctypes.Structure):
    """`Resize` of cpp/convolution.h."""

    _fields_ = [
        (name, ctypes.c_int) for name in ("n", "height", "width", "out_height", "out_width", "taps_y", "taps_x", "opencv")
    ] + [
        (name, ctypes.c_void_p) for name in ("frames", "rows", "row_weights", "columns", "column_weights", "output")
    ]  # fmt: skip


class _Layout(NamedTuple):
    """The taps as the kernels read them, int32."""

    rows: np.ndarray  # (h, taps)
    row_weights: np.ndarray  # (h, taps)
    columns: np.ndarray  # (w,)
    column_weights: np.ndarray  # (w, taps, 1 or 4)


def resize(frames: Tensor, size: tuple[int, int], interpolation: str, window: Window | None = None) -> Tensor:
    """Resize frames to `size` (h, w) and return the `window` of the result: `featx.resize.resize`, which stands in for it
    where it has no kernel.

    `frames`: uint8 (N, H, W, C), on the CPU. Returns uint8 (N, window.height, window.width, C), contiguous and new.
    """
    window = window or Window(0, 0, *size)
    n, height, width, channels = frames.shape
    library = native.kernels()
    if interpolation not in TAPS or channels != 3 or library is None:
        return plain.resize(frames, size, interpolation, window)
    inside = 0 <= window.top <= size[0] - window.height and 0 <= window.left <= size[1] - window.width
    if frames.dtype != torch.uint8 or frames.device.type != "cpu" or not inside or min(height, width, *window[2:]) < 1:
        raise ValueError(f"no resize of {frames.dtype} {tuple(frames.shape)} to {size} and {window}")
    layout = _layout(interpolation, (height, width), size, window)
    frames = frames.contiguous()
    out = torch.empty((n, window.height, window.width, 3), dtype=torch.uint8)
    request = _Resize(
        *(n, height, width, window.height, window.width, layout.rows.shape[1], layout.column_weights.shape[1]),
        interpolation == "bilinear",
        *(frames.data_ptr(), *(array.ctypes.data for array in layout), out.data_ptr()),
    )
    workspace = np.empty(library.featx_resize_workspace_bytes(ctypes.byref(request)), np.uint8)
    library.featx_resize(ctypes.byref(request), workspace.ctypes.data)
    return out


@lru_cache(maxsize=64)
def _layout(interpolation: str, source: tuple[int, int], size: tuple[int, int], window: Window) -> _Layout:
    taps = TAPS[interpolation]
    rows = taps(source[0], size[0], False).cut(window.top, window.height)
    columns = taps(source[1], size[1], True).cut(window.left, window.width)
    if interpolation == "bilinear":
        weights = columns.weights.T[:, :, None]  # (taps, w) -> (w, taps, 1)
    else:
        weights = np.pad(columns.weights, ((0, len(columns.weights) % 2), (0, 0)))  # two taps at a time
        weights = np.repeat(weights.T[:, :, None], 4, axis=2)  # (taps, w) -> (w, taps, 4)
    arrays = (rows.places.T, rows.weights.T, columns.places[0], weights)
    return _Layout(*(np.ascontiguousarray(array, np.int32) for array in arrays))
