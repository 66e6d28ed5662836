"""Descriptors computed by hand in every cell of a clip: what the small network learns to say, and a baseline for it.

A cell is 16 x 16 pixels of all frames, which is what one value of the network's last feature map stands for. In each:

    colour      how much of it has which colour: a soft joint histogram, 4 levels a channel, square roots
    appearance  in which directions its edges run (as in HOG), at three scales, and how strong they are
    motion      at two scales: which of 16 velocities, standing still among them, explains its change in time (from the
                structure tensor, as in motion energies), the directions of the edges of the change (as in MBH), and how
                much changes

All is differentiable torch on any device, and costs about as much as a tenth of the network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["GROUPS", "NUM_DESCRIPTORS", "local_descriptors"]

CELL = 16  # pixels
LEVELS = 4  # of a colour channel
DIRECTIONS = 8
SPEEDS = (0.7, 2.0)  # pixels a frame, at the scale of the moment
APPEARANCE_SCALES, MOTION_SCALES = 3, 2
SHARPNESS = 12.0  # of the choice among velocities

_NUM_MOTION = 1 + DIRECTIONS * len(SPEEDS)
_SIZES = {
    "colour": LEVELS**3,
    "appearance": APPEARANCE_SCALES * (DIRECTIONS + 1),
    "motion": MOTION_SCALES * (_NUM_MOTION + 1 + DIRECTIONS + 1 + 1),
}
GROUPS = {
    "colour": slice(0, _SIZES["colour"]),
    "appearance": slice(_SIZES["colour"], _SIZES["colour"] + _SIZES["appearance"]),
    "motion": slice(_SIZES["colour"] + _SIZES["appearance"], sum(_SIZES.values())),
}
NUM_DESCRIPTORS = sum(_SIZES.values())  # 147


def local_descriptors(clips: Tensor) -> Tensor:
    """Clips (N, 3, T, h, w), 0..1, sides divisible by 16 -> descriptors (N, 147, h / 16, w / 16) in GROUPS' order."""
    grey = clips.mean(1)  # (N, T, h, w)
    return torch.cat([_colour(clips), _appearance(grey), _motion(grey)], dim=1)


def _pool(maps: Tensor, side: int) -> Tensor:
    """(N, K, t, h, w) -> (N, K, h / side, w / side), averaged over all frames."""
    return F.avg_pool3d(maps, (maps.shape[2], side, side)).squeeze(2)


def _colour(clips: Tensor) -> Tensor:
    small = F.avg_pool3d(clips[:, :, ::2], (1, 2, 2))
    centres = torch.linspace(0, 1, LEVELS, device=clips.device).view(1, LEVELS, 1, 1, 1)
    first, second, third = ((1 - (small[:, None, c] - centres).abs() * (LEVELS - 1)).clamp_(min=0) for c in range(3))
    pairs = (first[:, :, None] * second[:, None]).flatten(1, 2)
    return _pool((pairs[:, :, None] * third[:, None]).flatten(1, 2), CELL // 2).sqrt()


def _gradients(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences (y, x) of (N, t, h, w), zero on the border."""
    y = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    x = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1))
    return y, x


def _orientations(y: Tensor, x: Tensor) -> Tensor:
    """The gradients' lengths shared among 8 orientations of half a turn: (N, t, h, w) -> (N, 8, t, h, w)."""
    length = (y * y + x * x + 1e-8).sqrt()
    cos, sin = x / length, y / length
    cos, sin = cos * cos - sin * sin, 2 * cos * sin  # of twice the angle: opposite gradients are one edge
    angles = [math.tau * k / DIRECTIONS for k in range(DIRECTIONS)]
    return torch.stack([length * (cos * math.cos(a) + sin * math.sin(a)).clamp_(min=0) ** 4 for a in angles], dim=1)


def _shares(energies: Tensor) -> list[Tensor]:
    """The square roots of the shares that the channels of (N, K, h, w) have, and the logarithm of their sum."""
    total = energies.sum(1, keepdim=True) + 0.01
    return [(energies / total).clamp_(min=0).sqrt(), 0.3 * total.log()]


def _appearance(grey: Tensor) -> Tensor:
    parts, picture = [], grey[:, ::4]
    for scale in range(APPEARANCE_SCALES):
        parts += _shares(_pool(_orientations(*_gradients(picture)), CELL >> scale))
        picture = F.avg_pool2d(picture, 2)
    return torch.cat(parts, dim=1)


def _velocities(y: Tensor, x: Tensor, t: Tensor, window: int) -> Tensor:
    """How well each velocity explains the change, from gradients (N, t, h, w): (N, 17, t, h / window, w / window).

    A pattern that moves by (v, u) keeps y v + x u + t = 0; the energy of what is left over, in windows, chooses softly.
    """
    products = torch.stack([x * x, x * y, y * y, x * t, y * t, t * t], dim=1)
    xx, xy, yy, xt, yt, tt = F.avg_pool3d(products, (1, window, window)).unbind(1)
    total = xx + yy + tt + 1e-4
    left = [tt / total]
    for k in range(DIRECTIONS):
        cos, sin = math.cos(math.tau * k / DIRECTIONS), math.sin(math.tau * k / DIRECTIONS)
        first = 2 * (cos * xt + sin * yt)
        second = cos * cos * xx + 2 * cos * sin * xy + sin * sin * yy
        left += [(tt + v * first + v * v * second) / total / (1 + v * v) for v in SPEEDS]
    return torch.softmax(-SHARPNESS * torch.stack(left, dim=1), dim=1) * total[:, None].sqrt()


def _motion(grey: Tensor) -> Tensor:
    parts, video, cell = [], F.avg_pool2d(grey, 2), CELL // 2
    for _ in range(MOTION_SCALES):
        y, x = _gradients((video[:, 1:] + video[:, :-1]) / 2)
        change = video[:, 1:] - video[:, :-1]
        window = min(4, cell)
        parts += _shares(_pool(_velocities(y / 2, x / 2, change, window), cell // window))
        change = change.abs()
        parts += _shares(_pool(_orientations(*_gradients(change)), cell))
        parts.append(0.3 * (_pool(change[:, None], cell) + 0.005).log())
        video, cell = F.avg_pool2d(video, 2), cell // 2
    return torch.cat(parts, dim=1)
