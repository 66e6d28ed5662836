"""`featx.engine.pixels.prepare` as one Triton kernel: a launch a chunk, and no more is read or written than needs be.

Triton comes with torch's builds for GPUs. Nothing depends on it: `featx.engine.pixels` is the definition, and this is taken
where it gave the same pixels on the first chunk of its kind (`Preparer`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from featx.engine.pixels import Layout
from featx.resize import PILLOW_BITS
from featx.yuv import YuvForm

__all__ = ["prepare"]

BLOCK = 256  # pixels of the result a program
KINDS = {"none": 0, "bilinear": 1, "bilinear-antialias": 2, "bilinear-float": 3}
HALF = tl.constexpr(1 << (PILLOW_BITS - 1))
BITS = tl.constexpr(PILLOW_BITS)
# added to and subtracted from a float32 of this size, it rounds that half to even
ROUND = tl.constexpr(1.5 * 2**23)


def prepare(frames: Tensor, layout: Layout, form: YuvForm | None) -> Tensor:
    """As `featx.engine.pixels.prepare`."""
    rows, columns = layout.rows, layout.columns
    height, width = layout.size
    n, out_height, out_width = len(frames), rows.places.shape[1], columns.places.shape[1]
    frames = frames.contiguous()
    out = torch.empty((n, out_height, out_width, 3), dtype=torch.uint8, device=frames.device)
    half_width = (width + 1) // 2
    if n:
        _prepare[(triton.cdiv(out_height * out_width, BLOCK), n)](
            *(frames, out, rows.places, rows.weights, columns.places, columns.weights),
            *(frames[0].numel(), width, height * width, half_width, (height + 1) // 2 * half_width),
            *(out_height, out_width, len(rows.places), len(columns.places), *(form or YuvForm(0, 0, 0, 0, 0, 0))),
            KIND=KINDS[layout.interpolation],
            PLANAR=form is not None,
            BLOCK=BLOCK,
        )
    return out


@triton.jit
def _clamped(values):
    return tl.minimum(tl.maximum(values, 0), 255)


@triton.jit
def _grey_levels(sums):
    return tl.minimum((sums + HALF) >> BITS, 255)


@triton.jit
def _added(blue, green, red, weight, b, g, r):
    """Weighted pixels added to sums, each by one fused operation."""
    blue = tl.fma(weight, b.to(tl.float32), blue)
    green = tl.fma(weight, g.to(tl.float32), green)
    red = tl.fma(weight, r.to(tl.float32), red)
    return blue, green, red


@triton.jit
def _bgr(
    frame, y, x, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR: tl.constexpr
):
    """One pixel each, int32."""
    if PLANAR:
        grey = tl.load(frame + y * width + x, inside, other=0).to(tl.int32)
        at = frame + luma_size + (y // 2) * half_width + x // 2
        u = tl.load(at, inside, other=0).to(tl.int32) - 128
        v = tl.load(at + half_size, inside, other=0).to(tl.int32) - 128
        grey = ((grey - offset) * 8 * luma) >> 16
        b = _clamped(grey + ((u * 8 * bu) >> 16))
        g = _clamped(grey + ((u * 8 * gu) >> 16) + ((v * 8 * gv) >> 16))
        r = _clamped(grey + ((v * 8 * rv) >> 16))
    else:
        at = frame + (y * width + x) * 3
        b = tl.load(at, inside, other=0).to(tl.int32)
        g = tl.load(at + 1, inside, other=0).to(tl.int32)
        r = tl.load(at + 2, inside, other=0).to(tl.int32)
    return b, g, r


# one compilation for all sizes of frames: nothing is made for special numbers
NUMBERS = (
    "frame_bytes width luma_size half_width half_size out_height out_width row_taps column_taps offset luma bu gu gv rv"
)


@triton.jit(do_not_specialize=NUMBERS.split())
def _prepare(
    frames, out, rows, row_weights, columns, column_weights,
    frame_bytes, width, luma_size, half_width, half_size, out_height, out_width, row_taps, column_taps,
    offset, luma, bu, gu, gv, rv, KIND: tl.constexpr, PLANAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < out_height * out_width
    i, j = at // out_width, at % out_width
    number = tl.program_id(1).to(tl.int64)
    frame = frames + number * frame_bytes
    b = tl.zeros((BLOCK,), tl.int32)
    g = tl.zeros((BLOCK,), tl.int32)
    r = tl.zeros((BLOCK,), tl.int32)
    if KIND == 0:
        y = tl.load(rows + i, inside, other=0)
        x = tl.load(columns + j, inside, other=0)
        b, g, r = _bgr(
            frame, y, x, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR
        )
    elif KIND == 3:
        y0 = tl.load(rows + i, inside, other=0)
        y1 = tl.load(rows + out_height + i, inside, other=0)
        x0 = tl.load(columns + j, inside, other=0)
        x1 = tl.load(columns + out_width + j, inside, other=0)
        h0 = tl.load(row_weights + i, inside, other=0)
        h1 = tl.load(row_weights + out_height + i, inside, other=0)
        w0 = tl.load(column_weights + j, inside, other=0)
        w1 = tl.load(column_weights + out_width + j, inside, other=0)
        zero = tl.zeros((BLOCK,), tl.float32)
        b, g, r = _bgr(
            frame, y0, x1, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR
        )
        blue, green, red = _added(zero, zero, zero, h0 * w1, b, g, r)
        b, g, r = _bgr(
            frame, y0, x0, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR
        )
        blue, green, red = _added(blue, green, red, h0 * w0, b, g, r)
        b, g, r = _bgr(
            frame, y1, x0, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR
        )
        blue, green, red = _added(blue, green, red, h1 * w0, b, g, r)
        b, g, r = _bgr(
            frame, y1, x1, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR
        )
        blue, green, red = _added(blue, green, red, h1 * w1, b, g, r)
        b = ((blue + ROUND) - ROUND).to(tl.int32)
        g = ((green + ROUND) - ROUND).to(tl.int32)
        r = ((red + ROUND) - ROUND).to(tl.int32)
    else:
        for k in range(row_taps):
            y = tl.load(rows + k * out_height + i, inside, other=0)
            row_weight = tl.load(row_weights + k * out_height + i, inside, other=0)
            line_b = tl.zeros((BLOCK,), tl.int32)
            line_g = tl.zeros((BLOCK,), tl.int32)
            line_r = tl.zeros((BLOCK,), tl.int32)
            for l in range(column_taps):  # noqa: E741
                x = tl.load(columns + l * out_width + j, inside, other=0)
                weight = tl.load(column_weights + l * out_width + j, inside, other=0)
                b0, g0, r0 = _bgr(
                    frame, y, x, inside, width, luma_size, half_width, half_size, offset, luma, bu, gu, gv, rv, PLANAR
                )
                line_b += b0 * weight
                line_g += g0 * weight
                line_r += r0 * weight
            if KIND == 1:
                b += ((line_b >> 4) * row_weight) >> 16
                g += ((line_g >> 4) * row_weight) >> 16
                r += ((line_r >> 4) * row_weight) >> 16
            else:
                b += _grey_levels(line_b) * row_weight
                g += _grey_levels(line_g) * row_weight
                r += _grey_levels(line_r) * row_weight
        if KIND == 1:
            b, g, r = (b + 2) >> 2, (g + 2) >> 2, (r + 2) >> 2
        else:
            b, g, r = _grey_levels(b), _grey_levels(g), _grey_levels(r)
    to = out + (number * out_height * out_width + at) * 3
    tl.store(to, b.to(tl.uint8), inside)
    tl.store(to + 1, g.to(tl.uint8), inside)
    tl.store(to + 2, r.to(tl.uint8), inside)
