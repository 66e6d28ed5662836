"""Step 2b on any device: frames as they were decoded, a chunk at a time, to resized and cropped BGR, in torch's operations.

    planes (n, bytes) or BGR (n, H, W, 3)  ->  the pixels that the taps look at  ->  colours  ->  resize  ->  (n, crop, crop, 3)

The sums are those of featx/yuv.py and featx/resize.py, so the pixels are the same to the last grey level on every device.
Only "bilinear-float" is float arithmetic: here in the order, and with the fused multiply-adds, of torch's own kernel on
x86-64, which gives equal pixels there and may differ by one grey level in some of 100,000 from what other processors give.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featx.preprocess import Preprocess
from featx.resize import PILLOW_BITS, Taps, Window, opencv_taps, pillow_taps
from featx.yuv import YuvForm

__all__ = ["Layout", "Preparer", "Side", "layouts_of", "prepare"]

ROWS, COLUMNS = 2, 3  # axes of (n, 3, H, W)


class Side(NamedTuple):
    """The taps of one side of the result, on a device: pixel i is a sum over k of ``weights[k, i] * source[places[k, i]]``.

    `needed` are the source's pixels that any tap looks at, rising, and `needed_places` counts in these.
    """

    places: Tensor  # (K, n) int32
    weights: Tensor  # (K, n) int32 or float32
    needed: Tensor  # (m,) int64
    needed_places: Tensor  # (K, n) int64
    needed_chroma: Tensor  # (c,) int64, in planes of half the size
    chroma_places: Tensor  # (m,) int64: of each needed pixel, among the needed of chroma


class Layout(NamedTuple):
    """How frames of one size become what the network is shown."""

    size: tuple[int, int]  # of the source, (H, W)
    interpolation: str  # one of FORMS
    rows: Side
    columns: Side


def layouts_of(preprocess: Preprocess, size: tuple[int, int], crops: int, device: torch.device) -> tuple[Layout, ...]:
    """A layout for each crop of frames of `size` (H, W). Raises VideoError where they are smaller than the crop."""
    resized = preprocess.resized_shape(*size)
    return tuple(
        _layout(preprocess, size, resized, window, device) for window in preprocess.crop_windows(*resized, crops)
    )


def _layout(
    preprocess: Preprocess, size: tuple[int, int], resized: tuple[int, int], window: Window, device: torch.device
) -> Layout:
    interpolation = preprocess.interpolation if resized != size else "none"
    taps = FORMS[interpolation].taps
    rows = taps(size[0], resized[0], False).cut(window.top, window.height)
    columns = taps(size[1], resized[1], True).cut(window.left, window.width)
    return Layout(size, interpolation, *(_side(taps, device) for taps in (rows, columns)))


def _side(taps: Taps, device: torch.device) -> Side:
    needed, needed_places = np.unique(taps.places, return_inverse=True)
    needed_chroma, chroma_places = np.unique(needed // 2, return_inverse=True)
    arrays = (
        taps.places.astype(np.int32),
        taps.weights,
        needed.astype(np.int64),
        needed_places.reshape(taps.places.shape).astype(np.int64),
        needed_chroma.astype(np.int64),
        chroma_places.astype(np.int64),
    )
    return Side(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))


def prepare(frames: Tensor, layout: Layout, form: YuvForm | None) -> Tensor:
    """Resize and crop frames: BGR uint8 (n, H, W, 3), or with `form` their planes, uint8 (n, bytes).

    Returns uint8 (n, crop, crop, 3), contiguous and new, on the device of frames and layout.
    """
    pixels = _needed_bgr(frames, layout) if form is None else _converted(frames, layout, form)
    resized = FORMS[layout.interpolation].resize(pixels, layout.rows, layout.columns)
    return resized.to(torch.uint8).permute(0, 2, 3, 1).contiguous()  # (n, 3, h, w) -> (n, h, w, 3)


class Preparer:
    """`prepare`, on a GPU by one Triton kernel where that gives the same pixels: it is tried on the first chunk of each kind.

    `note` says why it is not taken, where it is not.
    """

    def __init__(self, device: torch.device) -> None:
        self.note = "" if device.type == "cuda" else "Triton's kernel runs on GPUs only"
        self._proved: set[tuple] = set()

    def __call__(self, frames: Tensor, layout: Layout, form: YuvForm | None) -> Tensor:
        if self.note:
            return prepare(frames, layout, form)
        try:
            from featx.engine import pixels_triton

            fused = pixels_triton.prepare(frames, layout, form)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no Triton, no compiler, a GPU that it does not know: they have no class in common
            self.note = (
                f"Triton's kernel cannot run ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
            )
            return prepare(frames, layout, form)
        kind = (layout.size, layout.interpolation, form)
        if kind not in self._proved:
            plain = prepare(frames, layout, form)
            if not torch.equal(fused, plain):
                self.note = "Triton's kernel gives other pixels"
                return plain
            self._proved.add(kind)
        return fused


# ----------------------------------------------------------------------------------------------------------------- colours


def _needed_bgr(frames: Tensor, layout: Layout) -> Tensor:
    """What the taps look at: int32 (n, 3, rows, columns)."""
    planes = frames.permute(0, 3, 1, 2)  # (n, H, W, 3) -> (n, 3, H, W)
    return _select(_select(planes, ROWS, layout.rows.needed), COLUMNS, layout.columns.needed).to(torch.int32)


def _converted(frames: Tensor, layout: Layout, form: YuvForm) -> Tensor:
    """The BGR of what the taps look at, by the rule of featx/yuv.py: int32 (n, 3, rows, columns)."""
    (height, width), rows, columns = layout.size, layout.rows, layout.columns
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (
        plane.unflatten(1, (1, *shape))  # (n, bytes of a plane) -> (n, 1, h, w)
        for plane, shape in zip(
            frames.split([height * width, half[0] * half[1], half[0] * half[1]], dim=1),
            ((height, width), half, half),
            strict=True,
        )
    )
    luma = _part(_select(_select(y, ROWS, rows.needed), COLUMNS, columns.needed), form.offset, form.luma)
    u, v = (_select(_select(c, ROWS, rows.needed_chroma), COLUMNS, columns.needed_chroma) for c in (u, v))
    green = _part(u, 128, form.green_of_u) + _part(v, 128, form.green_of_v)
    chroma = torch.cat([_part(u, 128, form.blue_of_u), green, _part(v, 128, form.red_of_v)], dim=1)
    spread = chroma.index_select(ROWS, rows.chroma_places).index_select(COLUMNS, columns.chroma_places)
    return spread.add_(luma).clamp_(0, 255)


def _part(samples: Tensor, offset: int, factor: int) -> Tensor:
    """``((samples - offset << 3) * factor) >> 16``, at most 2**26 on the way."""
    return samples.to(torch.int32).sub_(offset).mul_(8 * factor).bitwise_right_shift_(16)


def _select(planes: Tensor, axis: int, needed: Tensor) -> Tensor:
    return planes if len(needed) == planes.shape[axis] else planes.index_select(axis, needed)


# ------------------------------------------------------------------------------------------------------------------ resize


def _copy(pixels: Tensor, rows: Side, columns: Side) -> Tensor:
    return pixels


def _as_opencv(pixels: Tensor, rows: Side, columns: Side) -> Tensor:
    """OpenCV's INTER_LINEAR, as in featx/resize.py: what is dropped where."""
    left, right = (_tap(pixels, COLUMNS, columns, k) for k in (0, 1))
    lines = left.add_(right).bitwise_right_shift_(4)
    upper, lower = (_tap(lines, ROWS, rows, k).bitwise_right_shift_(16) for k in (0, 1))
    return upper.add_(lower).add_(2).bitwise_right_shift_(2)


def _tap(pixels: Tensor, axis: int, side: Side, k: int) -> Tensor:
    weights = side.weights[k]
    return pixels.index_select(axis, side.needed_places[k]).mul_(weights[:, None] if axis == ROWS else weights)


def _as_pillow(pixels: Tensor, rows: Side, columns: Side) -> Tensor:
    """Pillow's BILINEAR before 13: along the rows, then along the columns; sums of whole numbers, exact in float64."""
    narrow = _grey_levels(pixels.to(torch.float64) @ _matrix(columns))
    return _grey_levels(_matrix(rows).T @ narrow)


def _matrix(side: Side) -> Tensor:
    """The taps of a side as a matrix, float64 (needed, n)."""
    out = torch.zeros((len(side.needed), side.places.shape[1]), dtype=torch.float64, device=side.places.device)
    # several taps may be clipped to one place, all but one with the weight 0
    return out.scatter_add_(0, side.needed_places, side.weights.to(torch.float64))


def _grey_levels(sums: Tensor) -> Tensor:
    """Sums weighted with PILLOW_BITS, rounded; weights that were rounded up may add up to more than 1."""
    return sums.add_(1 << (PILLOW_BITS - 1)).mul_(0.5**PILLOW_BITS).floor_().clamp_(max=255)


def _as_torchvision(pixels: Tensor, rows: Side, columns: Side) -> Tensor:
    """torch's bilinear in float32, with the multiply-adds that its kernel fuses, rounded half to even."""
    corners = {}
    for i in (0, 1):
        lines = pixels.index_select(ROWS, rows.needed_places[i])
        for j in (0, 1):
            weights = rows.weights[i][:, None] * columns.weights[j]  # float32 (h, w)
            corners[i, j] = weights, lines.index_select(COLUMNS, columns.needed_places[j]).to(torch.float32)
    total = corners[0, 1][0] * corners[0, 1][1]
    for place in ((0, 0), (1, 0), (1, 1)):
        weights, values = corners[place]
        # float64 holds the product exactly, so that the sum is rounded as a fused one is
        total = values.to(torch.float64).mul_(weights.to(torch.float64)).add_(total).to(torch.float32)
    return total.round_()


def torchvision_taps(source: int, target: int, columns: bool) -> Taps:
    """The two taps of one side in float32, as torch computes them where pixels' centres, not corners, are aligned."""
    scale = np.float64(np.float32(source) / np.float32(target))
    at = np.maximum(scale * (np.arange(target) + 0.5) - 0.5, 0).astype(np.float32)  # the last operation is a fused one
    first = np.minimum(at.astype(np.intp), source - 1)
    share = np.clip(at - first.astype(np.float32), 0, 1).astype(np.float32)
    return Taps(np.stack([first, np.minimum(first + 1, source - 1)]), np.stack([np.float32(1) - share, share]))


def _same_taps(source: int, target: int, columns: bool) -> Taps:
    return Taps(np.arange(target)[None], np.ones((1, target), np.int32))


class _Form(NamedTuple):
    taps: Callable[[int, int, bool], Taps]
    resize: Callable[[Tensor, Side, Side], Tensor]


FORMS = {
    "none": _Form(_same_taps, _copy),
    "bilinear": _Form(opencv_taps, _as_opencv),
    "bilinear-antialias": _Form(lambda source, target, _: pillow_taps(source, target), _as_pillow),
    "bilinear-float": _Form(torchvision_taps, _as_torchvision),
}
