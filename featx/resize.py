"""Resizing uint8 frames as three programs do it, to the last grey level, and only the part that a crop keeps.

bilinear              OpenCV's INTER_LINEAR: two taps a side, whole-number weights, one rounding at the end
bilinear-antialias    Pillow's BILINEAR, as before version 13: as many taps as the scale asks for, first along the rows,
                      then along the columns, each time rounded to a grey level
bilinear-float        torchvision's bilinear without antialias: two taps a side in float32, rounded half to even

The first two are sums of whole numbers, so that they give the same pixels on every machine. numpy does them frame by frame
and lets go of Python's lock; several threads share the frames where there are cores to spare. The native kernels, where there
are some, do the same sums several times as fast (featx/engine/resize.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # torch is imported where it computes: this module is imported to read a card, too
    from torch import Tensor

__all__ = ["INTERPOLATIONS", "Taps", "Window", "opencv_taps", "pillow_taps", "resize"]

OPENCV_BITS = 11  # a weight of 1 is 2**11; the sum over rows and columns is rounded from 22 bits to a grey level
PILLOW_BITS = 22
MAX_THREADS = 4


class Window(NamedTuple):
    """A part of a resized frame, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def resize(frames: Tensor, size: tuple[int, int], interpolation: str, window: Window | None = None) -> Tensor:
    """Resize frames to `size` (h, w) and return the `window` of the result, everything by default.

    `frames`: uint8 (N, H, W, C), on the CPU. Returns uint8 (N, window.height, window.width, C), contiguous and new.
    `interpolation`: a name of INTERPOLATIONS.
    """
    return INTERPOLATIONS[interpolation](frames, size, window or Window(0, 0, *size))


class Taps(NamedTuple):
    """Where the pixels of one side come from: pixel i is the sum of ``weights[k, i] * source[places[k, i]]`` over k."""

    places: np.ndarray  # (K, n) intp
    weights: np.ndarray  # (K, n) int32

    def cut(self, start: int, length: int) -> Taps:
        """The taps of pixels `start` .. `start` + `length` - 1."""
        return Taps(*(np.ascontiguousarray(array[:, start : start + length]) for array in self))

    def interleaved(self, channels: int) -> Taps:
        """The taps of a row (w * channels,) whose channels stand side by side."""
        places = self.places[:, :, None] * channels + np.arange(channels)
        return Taps(places.reshape(len(places), -1), np.repeat(self.weights, channels, axis=1))


# ------------------------------------------------------------------------------------------------------------------ OpenCV


def _resize_as_opencv(frames: Tensor, size: tuple[int, int], window: Window) -> Tensor:
    _, height, width, channels = frames.shape
    rows = opencv_taps(height, size[0], False).cut(window.top, window.height)
    columns = opencv_taps(width, size[1], True).cut(window.left, window.width).interleaved(channels)
    needed, places = np.unique(rows.places, return_inverse=True)  # no others are looked at
    upper, lower = places.reshape(2, -1)
    upper_weights, lower_weights = rows.weights[:, :, None]

    def one(frame: np.ndarray, out: np.ndarray) -> None:
        lines = frame.reshape(height, -1)[needed]
        sums = _weighted(lines, columns)  # (needed, w * C), below 2**19
        sums >>= 4  # OpenCV drops four bits so that 16-bit multiplications will do
        upper_part = sums[upper]
        upper_part *= upper_weights
        upper_part >>= 16
        lower_part = sums[lower]
        lower_part *= lower_weights
        lower_part >>= 16
        upper_part += lower_part
        upper_part += 2
        upper_part >>= 2
        out[:] = upper_part.reshape(out.shape)

    return _each(one, frames, window)


@lru_cache(maxsize=64)
def opencv_taps(source: int, target: int, columns: bool) -> Taps:
    """The taps of one side. Past the edge OpenCV moves a column's weight to the last pixel, but repeats the last row."""
    scale = 1.0 / (target / source)
    at = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.intp)
    share = at - first.astype(np.float32)  # of the second tap
    if columns:
        share[(first < 0) | (first >= source - 1)] = 0
    one = np.float32(2**OPENCV_BITS)
    weights = np.stack([np.rint((1 - share) * one), np.rint(share * one)]).astype(np.int32)
    return Taps(np.clip([first, first + 1], 0, source - 1), weights)


# ------------------------------------------------------------------------------------------------------------------ Pillow


def _resize_as_pillow(frames: Tensor, size: tuple[int, int], window: Window) -> Tensor:
    _, height, width, channels = frames.shape
    rows = pillow_taps(height, size[0]).cut(window.top, window.height)
    columns = pillow_taps(width, size[1]).cut(window.left, window.width)
    # the lines and columns that the taps look at: from the first to the last
    top, left = rows.places.min(), columns.places.min()
    lines = slice(top, rows.places.max() + 1)
    pixels = slice(left * channels, (columns.places.max() + 1) * channels)
    rows = rows._replace(places=rows.places - top)
    columns = columns._replace(places=columns.places - left).interleaved(channels)
    row_weights = rows.weights[:, :, None]

    def one(frame: np.ndarray, out: np.ndarray) -> None:
        # int32 beforehand: a tap then costs one gather and two passes
        wide = frame.reshape(height, -1)[lines, pixels].astype(np.int32)
        narrow = _rounded(_weighted(wide, columns))  # (lines, w * C)
        total = narrow[rows.places[0]] * row_weights[0]
        for places, weights in zip(rows.places[1:], row_weights[1:], strict=True):
            part = narrow[places]
            part *= weights
            total += part
        out[:] = _rounded(total).reshape(out.shape)

    return _each(one, frames, window)


def _rounded(sums: np.ndarray) -> np.ndarray:
    """Sums weighted with PILLOW_BITS, at most 255.01 * 2**22, to grey levels; in place."""
    sums += 1 << (PILLOW_BITS - 1)
    sums >>= PILLOW_BITS
    return np.minimum(sums, 255, out=sums)  # weights that were rounded up may add up to more than 1


@lru_cache(maxsize=64)
def pillow_taps(source: int, target: int) -> Taps:
    """The taps of one side: a triangle around each pixel's centre, as wide as the scale where frames shrink."""
    scale = source / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.intp), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.intp), source)  # exclusive
    places = first + np.arange((last - first).max())[:, None]  # (K, n)
    shares = np.maximum(1.0 - np.abs((places - centres + 0.5) * (1.0 / reach)), 0.0)
    shares[places >= last] = 0.0
    total = np.zeros(target)
    for row in shares:  # one after the other, as Pillow adds them
        total += row
    weights = (0.5 + shares / total * 2**PILLOW_BITS).astype(np.int32)
    return Taps(np.minimum(places, source - 1), weights)


# ------------------------------------------------------------------------------------------------------------- torchvision


def _resize_as_torchvision(frames: Tensor, size: tuple[int, int], window: Window) -> Tensor:
    import torch
    from torch.nn import functional

    top, left, height, width = window
    out = torch.empty((len(frames), height, width, frames.shape[3]), dtype=torch.uint8)
    for i, frame in enumerate(frames):  # one by one: in float32 a chunk of large frames would leave every cache
        planes = frame.permute(2, 0, 1)[None].to(
            torch.float32
        )  # (H, W, C) -> (1, C, H, W), still channels last in memory
        resized = functional.interpolate(planes, size=size, mode="bilinear", align_corners=False)
        kept = resized[0, :, top : top + height, left : left + width].round()
        out[i] = kept.permute(1, 2, 0)  # (C, h, w) -> (h, w, C)
    return out


INTERPOLATIONS: dict[str, Callable[[Tensor, tuple[int, int], Window], Tensor]] = {
    "bilinear": _resize_as_opencv,
    "bilinear-antialias": _resize_as_pillow,
    "bilinear-float": _resize_as_torchvision,
}


# ------------------------------------------------------------------------------------------------------------------- shared


def _weighted(lines: np.ndarray, columns: Taps) -> np.ndarray:
    """The weighted sums along the lines: (H, W * C) -> int32 (H, w * C)."""
    total = np.take(lines, columns.places[0], axis=1) * columns.weights[0]
    part = np.empty_like(total)
    for places, weights in zip(columns.places[1:], columns.weights[1:], strict=True):
        total += np.multiply(np.take(lines, places, axis=1), weights, out=part)
    return total


def _each(one: Callable[[np.ndarray, np.ndarray], None], frames: Tensor, window: Window) -> Tensor:
    """Fill a frame of the result from each frame, (N, H, W, C) -> (N, h, w, C), in threads where they are worth it."""
    import torch

    out = np.empty((len(frames), window.height, window.width, frames.shape[3]), np.uint8)
    pool = _pool() if len(frames) > 1 else None
    list((pool.map if pool else map)(one, frames.numpy(), out))
    return torch.from_numpy(out)


@cache
def _pool() -> ThreadPoolExecutor | None:
    """One thread for every four cores, MAX_THREADS at most; None on small machines, whose cores decode and compute."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    num_threads = min(cores // 4, MAX_THREADS)
    return ThreadPoolExecutor(num_threads, thread_name_prefix="featx-resize") if num_threads > 1 else None
