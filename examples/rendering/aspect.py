"""Videos filmed wider or taller than they are shown: what a fixed resize makes of pictures of any shape.

A card that resizes every frame to 128 x 171 keeps pictures of 4:3 as they are, draws films of 16:9 together across to 0.75,
and films of telephones held upright apart to 2.4. Scenes are rendered in such a shape and squeezed into the square.
Labels of directions are those of the film, before it is squeezed.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Generator, Tensor

from .draws import log_uniform, uniform

__all__ = ["STRETCHES", "draw_filmed_size", "shown"]

STRETCHES = (0.6, 2.4)  # bounds: how much wider than filmed people are shown
KEPT_SHARE = 0.5  # of batches, as filmed


def draw_filmed_size(generator: Generator, side: int) -> tuple[int, int]:
    """A random height and width, multiples of 8, of about as many pixels as the square of `side` that they are shown in."""
    kept = float(uniform(generator, (1,))) < KEPT_SHARE
    stretch = math.sqrt(float(log_uniform(generator, (1,), *STRETCHES)))
    if kept:
        return side, side
    height, width = (max(16, 8 * round(size / 8)) for size in (side * stretch, side / stretch))
    return height, width


def shown(clips: Tensor, side: int) -> Tensor:
    """Clips uint8 (N, T, h, w, 3) squeezed into (N, T, side, side, 3), linearly and antialiased, as Pillow does."""
    num, frames, height, width, _ = clips.shape
    if (height, width) == (side, side):
        return clips
    pictures = clips.flatten(0, 1).permute(0, 3, 1, 2)  # (N, T, h, w, 3) -> (N * T, 3, h, w)
    seen = F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)
    seen = seen.round_().clamp_(0, 255).to(clips.dtype)
    return seen.permute(0, 2, 3, 1).unflatten(0, (num, frames)).contiguous()
