"""Round-ended limbs painted into batches of clips, far ones first, with soft edges, shading and patterned cloth.

What a limb covers is listed pixel by pixel for the whole batch, as runs along the picture's rows: a few operations on
long lists in place of many on small boxes. The runs are laid out on the CPU, from small tensors; only the pixels are
worked out on the canvas' device, whose program never waits for it.
"""

from __future__ import annotations

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
    CROP_SIZE x CROP_SIZE. The pattern begins at `origin` (N, 2), along and across, with `density` (N,) texels a pixel.
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
        return Limbs(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class _Runs:
    """M runs of pixels along rows: float32 numbers (C, M), whole numbers int64 (3, M), `length` and `layer` (M,)."""

    numbers: Tensor
    whole: Tensor
    length: Tensor
    layer: Tensor


def _spread(counts: Tensor) -> tuple[Tensor, Tensor]:
    """For a list with counts[i] entries of each i: the i of every entry, and its number among those of i."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    begin = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner)) - begin[owner]


def _lay_out(limbs: Limbs, frames: int, height: int, width: int) -> _Runs:
    """The runs of pixels that limbs may cover: within the strip about the bone and within the box about the ends."""
    bone = limbs.end - limbs.start
    length = bone.square().sum(1).sqrt_().clamp_(min=1e-3)
    reach = limbs.radii.amax(1) + 0.5
    low = torch.minimum(limbs.start - limbs.radii[:, :1], limbs.end - limbs.radii[:, 1:]) - 0.5
    high = torch.maximum(limbs.start + limbs.radii[:, :1], limbs.end + limbs.radii[:, 1:]) + 0.5
    size = torch.tensor([height - 1.0, width - 1.0])
    low, high = low.ceil_().clamp_(min=0), torch.minimum(high.floor_(), size)
    rows = (high[:, 0] - low[:, 0] + 1).clamp_(min=0).long()
    limb, number = _spread(rows)
    columns = torch.stack(
        [
            *(low[:, 0], low[:, 1], high[:, 1], limbs.start[:, 0], limbs.start[:, 1], bone[:, 0], bone[:, 1]),
            *(reach, length, limbs.radii[:, 0], limbs.radii[:, 1] - limbs.radii[:, 0]),
            *(limbs.light[:, 0], limbs.light[:, 1], limbs.density, limbs.origin[:, 0], limbs.origin[:, 1]),
        ]
    )
    (top, left, right, start_y, start_x, bone_y, bone_x, reach, length, radius, widening, *look) = columns[:, limb]
    y = top + number
    dy = y - start_y
    # Where the row enters and leaves the strip |distance from the bone's line| <= reach.
    steep = bone_y.abs().clamp(min=1e-2 * length) * torch.where(bone_y < 0, -1.0, 1.0)
    middle = start_x + dy * bone_x / steep
    half = reach * length / steep.abs()
    first = torch.maximum((middle - half).ceil_(), left)
    last = torch.minimum((middle + half).floor_(), right)
    dx = first - start_x
    light_y, light_x, density, origin_along, origin_across = look
    square = length * length
    along, step_along = (dy * bone_y + dx * bone_x) / square, bone_x / square
    to_texels = density / length
    numbers = torch.stack(
        [
            *(along, step_along, dy, dx, bone_y, bone_x, radius, widening, light_y, light_x),
            # The place in the pattern, never negative, so that cutting it off rounds it down.
            origin_along + along * length * density + 64 * CROP_SIZE,
            step_along * length * density,
            origin_across + (dx * bone_y - dy * bone_x) * to_texels + 64 * CROP_SIZE,
            bone_y * to_texels,
        ]
    )
    clip, t = limbs.frame[limb] // frames, limbs.frame[limb] % frames
    pixel = ((clip * 3 * frames + t) * height + y.long()) * width + first.long()
    whole = torch.stack([pixel, limbs.address[limb], torch.where(limbs.patterned, CROP_SIZE - 1, 0)[limb]])
    run_length = (last - first + 1).clamp_(min=0).long()
    return _Runs(numbers, whole, run_length, limbs.layer[limb])


def paint_limbs(canvas: Tensor, limbs: Limbs, atlas: Tensor) -> None:
    """Paint limbs into `canvas` float32 (B, 3, T, h, w) in place; `atlas` (3, A) holds their colours."""
    _, _, frames, height, width = canvas.shape
    limbs = limbs.take(torch.argsort(limbs.layer, stable=True))
    runs = _lay_out(limbs, frames, height, width)
    ends = runs.length.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    chunk = _CHUNK.get(canvas.device.type, _LARGE_CHUNK)
    flat = canvas.view(-1)
    begin = 0
    while begin < len(ends):
        done = int(ends[begin - 1]) if begin else 0
        if done == total:
            break
        until = max(int(torch.searchsorted(ends, done + chunk, right=True)), begin + 1)
        part = slice(begin, until)
        piece = _Runs(runs.numbers[:, part], runs.whole[:, part], runs.length[part], runs.layer[part])
        _paint_runs(flat, piece, atlas, frames * height * width)
        begin = until


def _paint_runs(flat: Tensor, runs: _Runs, atlas: Tensor, plane: int) -> None:
    """Paint consecutive runs of pixels; `plane` is the number of pixels from a colour channel to the next."""
    device = flat.device
    _, counts = torch.unique_consecutive(runs.layer, return_counts=True)
    layer_ends = runs.length.cumsum(0)[counts.cumsum(0) - 1].tolist()
    run, k = _spread_on(runs.length, layer_ends[-1], device)
    (along, step, dy, dx, bone_y, bone_x, radius, widening, light_y, light_x, u, step_u, v, step_v) = runs.numbers.to(
        device
    ).index_select(1, run)
    pixel, address, mask = runs.whole.to(device).index_select(1, run)
    pixel += k
    k = k.to(torch.float32)
    along = torch.addcmul(along, step, k).clamp_(0, 1)
    dy = dy.addcmul_(along, bone_y, value=-1)
    dx = dx.add_(k).addcmul_(along, bone_x, value=-1)
    radius = radius.addcmul_(along, widening)
    distance = (dy * dy).addcmul_(dx, dx).sqrt_()
    cover = (radius - distance).add_(0.5).clamp_(0, 1)
    # A round limb's brightness: less where its surface turns away, and more towards the light.
    part = radius.reciprocal_()
    facing = distance.mul_(part).square_().neg_().add_(1).clamp_(min=0).sqrt_()
    shade = light_y.mul_(dy).addcmul_(light_x, dx).mul_(part).add_(facing, alpha=0.28).add_(0.74)
    u, v = torch.addcmul(u, step_u, k).long(), torch.addcmul(v, step_v, k).long()
    address += (u & mask) * CROP_SIZE + (v & mask)
    colour = atlas.index_select(1, address).mul_(shade)  # (3, N)
    for channel in range(3):
        at = pixel if channel == 0 else pixel + channel * plane
        begin = 0
        for end in layer_ends:
            if end > begin:
                place = at[begin:end]
                seen = flat.index_select(0, place)
                seen.lerp_(colour[channel, begin:end], cover[begin:end])
                flat.index_copy_(0, place, seen)
            begin = end


def _spread_on(counts: Tensor, total: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """_spread on a device, for `total` entries."""
    counts = counts.to(device)
    begin = counts.cumsum(0) - counts
    owner = torch.repeat_interleave(torch.arange(len(counts), device=device), counts, output_size=total)
    return owner, torch.arange(total, device=device) - begin.index_select(0, owner)
