"""Round-ended limbs painted into batches of clips, far ones first, with soft edges, shading and patterned cloth.

What a limb covers is listed pixel by pixel for the whole batch, as runs along the picture's rows: a few operations on
long lists in place of many on small boxes. The runs are laid out on the CPU, from small tensors; only the pixels are
worked out on the canvas' device, whose program never waits for it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CROP_SIZE", "Limbs", "paint_limbs"]

CROP_SIZE = 32  # pixels of a crop of cloth; a power of two, since patterns are repeated by masking bits
_CHUNK = {"cpu": 1 << 16}  # pixels worked out at a time: what stays in a processor's cache
_LARGE_CHUNK = 1 << 23


@dataclass(frozen=True)
class Limbs:
    """N limbs in the order of painting: those of equal `layer` are in different frames or clips.

    `frame` int64 (N,) is the clip's number times T plus t; `start`, `end` (N, 2) are its ends (y, x) in pixels from
    the middle of the first pixel, `radii` (N, 2) in pixels. `light` (N, 2) is the slope of brightness (y, x).
    `address` int64 (N,) is the place of its colour in an atlas, of which a patterned limb (`patterned` bool (N,)) takes
    CROP_SIZE x CROP_SIZE. The pattern begins at `origin` (N,), both along and across, with `density` (N,) texels a pixel.
    """

    layer: Tensor
    frame: Tensor
    start: Tensor
    end: Tensor
    radii: Tensor
    light: Tensor
    address: Tensor
    patterned: Tensor
    origin: Tensor
    density: Tensor

    def take(self, which: Tensor) -> Limbs:
        return Limbs(*(getattr(self, name).index_select(0, which) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class _Runs:
    """M runs of pixels along rows: their `length` and `layer` (M,); the flat index of the first pixel in the canvas
    `pixel` int64 (M,); the limb's `address` int32 (M,) in the atlas; and float32 `numbers` (C, M): see _lay_out."""

    length: Tensor
    layer: Tensor
    pixel: Tensor
    address: Tensor
    numbers: Tensor


def _lay_out(limbs: Limbs, frames: int, height: int, width: int) -> _Runs:
    """The runs of pixels that limbs may cover: within the strip about the bone and within the box about the ends.

    The numbers of a run: where its first pixel lies along the bone and across it, each with the step to the next pixel,
    in pixels; the bone's length; the radius and its growth along the bone; the slope of light along and across; texels
    a pixel and the pattern's origin.
    """
    bone = limbs.end - limbs.start
    length = bone.square().sum(1).sqrt_()
    # A bone without length points to the right.
    unit = (bone / length.clamp(min=1e-3)[:, None]).T.contiguous()
    unit[1] += length < 1e-3
    low = torch.minimum(limbs.start - limbs.radii[:, :1], limbs.end - limbs.radii[:, 1:]) - 0.5
    high = torch.maximum(limbs.start + limbs.radii[:, :1], limbs.end + limbs.radii[:, 1:]) + 0.5
    low, high = low.ceil_().clamp_(min=0), torch.minimum(high.floor_(), torch.tensor([height - 1.0, width - 1.0]))
    rows = (high[:, 0] - low[:, 0] + 1).clamp_(min=0).long()
    light_y, light_x = limbs.light.T
    look = torch.stack(
        [
            *(length, limbs.radii[:, 0], (limbs.radii[:, 1] - limbs.radii[:, 0]) / length.clamp(min=1e-3)),
            *(light_y * unit[0] + light_x * unit[1], light_x * unit[0] - light_y * unit[1]),
            # Never negative, so that cutting off rounds down; a plain limb has one texel.
            *(limbs.density * limbs.patterned, torch.where(limbs.patterned, limbs.origin + 64 * CROP_SIZE, 0.0)),
        ]
    )
    clip = torch.div(limbs.frame, frames, rounding_mode="floor")
    first_pixel = (limbs.frame + 2 * frames * clip) * (height * width)
    reach = limbs.radii.amax(1) + 0.5
    limb = torch.repeat_interleave(rows)
    number = torch.arange(len(limb)) - (rows.cumsum(0) - rows).index_select(0, limb)
    of_rows = torch.stack([low[:, 0], low[:, 1], high[:, 1], *limbs.start.T, *unit, reach]).index_select(1, limb)
    top, left, right, start_y, start_x, unit_y, unit_x, reach = of_rows
    y = top.add_(number)
    dy = y - start_y
    # Where the row enters and leaves the strip |distance from the bone's line| <= reach.
    steep = unit_y.abs().clamp_(min=1e-2).copysign_(unit_y)
    middle = (dy * unit_x).div_(steep).add_(start_x)
    half = reach.div_(steep.abs_())
    first = torch.maximum((middle - half).ceil_(), left)
    last = torch.minimum((middle + half).floor_(), right)
    dx = first - start_x
    along, across = (dy * unit_y).addcmul_(dx, unit_x), (dx * unit_y).addcmul_(dy, unit_x, value=-1)
    return _Runs(
        length=(last - first).add_(1).clamp_(min=0).long(),
        layer=limbs.layer.index_select(0, limb),
        pixel=first_pixel.index_select(0, limb) + (y * width + first).long(),
        address=limbs.address.int().index_select(0, limb),
        numbers=torch.cat([torch.stack([along, unit_x, across, unit_y]), look.index_select(1, limb)]),
    )


def paint_limbs(canvas: Tensor, limbs: Limbs, atlas: Tensor) -> None:
    """Paint limbs into `canvas` float32 (B, 3, T, h, w) in place; `atlas` (3, A) holds their colours."""
    _, _, frames, height, width = canvas.shape
    limbs = limbs.take(torch.argsort(limbs.layer, stable=True))
    runs = _lay_out(limbs, frames, height, width)
    ends = runs.length.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    chunk = _CHUNK.get(canvas.device.type, _LARGE_CHUNK)
    flat = canvas.view(-1)
    begin = done = 0
    while done < total:
        until = max(int(torch.searchsorted(ends, done + chunk, right=True)), begin + 1)
        part = slice(begin, until)
        piece = _Runs(runs.length[part], runs.layer[part], runs.pixel[part], runs.address[part], runs.numbers[:, part])
        _paint_runs(flat, piece, atlas, frames * height * width)
        begin, done = until, int(ends[until - 1])


def _paint_runs(flat: Tensor, runs: _Runs, atlas: Tensor, plane: int) -> None:
    """Paint consecutive runs of pixels; `plane` is the number of pixels from a colour channel to the next."""
    device = flat.device
    _, counts = torch.unique_consecutive(runs.layer, return_counts=True)
    ends = runs.length.cumsum(0)
    layer_ends = ends[counts.cumsum(0) - 1].tolist()
    num = layer_ends[-1]
    if num == 0:
        return
    length, begin = runs.length.to(device), (ends - runs.length).to(device)
    run = torch.repeat_interleave(length, output_size=num)
    k = torch.arange(num, device=device).sub_(begin.index_select(0, run))
    pixel = runs.pixel.to(device).index_select(0, run).add_(k)
    k = k.to(torch.float32)
    (along, step_along, across, step_across, length, radius, widening, light_along, light_across, density, origin) = (
        runs.numbers.to(device).index_select(1, run)
    )
    along, across = along.addcmul_(step_along, k), across.addcmul_(step_across, k)
    nearest = torch.minimum(along.clamp(min=0), length)
    beyond = along - nearest
    distance = (beyond * beyond).addcmul_(across, across).sqrt_()
    radius.addcmul_(nearest, widening)
    cover = (radius - distance).add_(0.5).clamp_(0, 1)
    # A round limb's brightness: less where its surface turns away, and more towards the light.
    part = radius.reciprocal_()
    facing = distance.mul_(part).square_().neg_().add_(1).clamp_(min=0).sqrt_()
    shade = light_along.mul_(beyond).addcmul_(light_across, across).mul_(part).add_(facing, alpha=0.28).add_(0.74)
    texel = along.mul_(density).add_(origin).int().bitwise_and_(CROP_SIZE - 1).mul_(CROP_SIZE)
    texel += across.mul_(density).add_(origin).int().bitwise_and_(CROP_SIZE - 1)
    texel += runs.address.to(device).index_select(0, run)
    sizes = [end - begin for begin, end in itertools.pairwise([0, *layer_ends]) if end > begin]
    covers = cover.split(sizes)
    for channel in range(3):
        colours = atlas[channel].index_select(0, texel).mul_(shade).split(sizes)
        for place, colour, cover in zip(pixel.split(sizes), colours, covers, strict=True):
            flat.scatter_(0, place, flat.index_select(0, place).lerp_(colour, cover))
        pixel += plane
