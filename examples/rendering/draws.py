"""Small random tensors on the CPU, from the one generator of a batch, and the directions that motions are labelled by.

Everything random is drawn here, on the CPU, so that the same seed gives the same scene on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = [
    "DIRECTIONS",
    "SPEEDS",
    "SPEED_BOUNDS",
    "STILL",
    "TAU",
    "band_noise",
    "choose",
    "direction_of",
    "log_uniform",
    "signs",
    "speed_class",
    "uniform",
]

TAU = 2 * math.pi

# As seen on the screen, clockwise; an angle of 45 degrees each.
DIRECTIONS = ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right", "still")
STILL = len(DIRECTIONS) - 1

# Classes of speeds, and the bounds between them in picture heights a shown frame.
SPEEDS = ("still", "slow", "middling", "quick", "fast")
SPEED_BOUNDS = (0.004, 0.012, 0.025, 0.05)


def uniform(generator: Generator, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Float32 of `shape`, uniform in [low, high)."""
    return torch.rand(tuple(shape), generator=generator) * (high - low) + low


def log_uniform(generator: Generator, shape: Sequence[int], low: float, high: float) -> Tensor:
    """Float32 of `shape` whose logarithm is uniform: as many values of 1-2 as of 2-4."""
    return torch.exp(uniform(generator, shape, math.log(low), math.log(high)))


def signs(generator: Generator, shape: Sequence[int]) -> Tensor:
    """Float32 of `shape`, -1 or 1."""
    return torch.randint(0, 2, tuple(shape), generator=generator).float() * 2 - 1


def chance(generator: Generator, num: int, share: float) -> Tensor:
    """Bool (num,), true in this share."""
    return torch.rand(num, generator=generator) < share


def choose(generator: Generator, shares: Sequence[float], num: int) -> Tensor:
    """Indices int64 (num,) into `shares`, drawn in these proportions."""
    return torch.multinomial(torch.tensor(shares, dtype=torch.float32), num, replacement=True, generator=generator)


def speed_class(speed: Tensor) -> Tensor:
    """Which of SPEEDS, int64, the speeds are."""
    return torch.bucketize(speed, torch.tensor(SPEED_BOUNDS), right=True)


def direction_of(velocity: Tensor, still_below: float = SPEED_BOUNDS[0]) -> Tensor:
    """The nearest of DIRECTIONS, int64 (...), of velocities (..., 2) as (y, x); slower than `still_below` is still."""
    octant = torch.round(torch.atan2(velocity[..., 0], velocity[..., 1]) / (TAU / 8)).long() % 8
    return torch.where(velocity.norm(dim=-1) < still_below, STILL, octant)


def band_noise(
    generator: Generator,
    num: int,
    size: int,
    low: float | Tensor,
    high: float | Tensor,
    fall: float | Tensor = 0.0,
    stretch: float | Tensor = 1.0,
) -> Tensor:
    """Noise float32 (num, size, size) with mean 0 and variance 1, whose frequencies lie in [low, high].

    Frequencies are in cycles a picture; amplitudes go as frequency ** -fall. `stretch` > 1 draws the pattern out along
    a random direction. The numbers may be tensors (num,). The noise wraps around at its edges.
    """
    low, high, fall, stretch = (
        torch.as_tensor(value, dtype=torch.float32).expand(num)[:, None, None] for value in (low, high, fall, stretch)
    )
    y = torch.fft.fftfreq(size, 1 / size)[None, :, None]
    x = torch.fft.rfftfreq(size, 1 / size)[None, None]
    angle = uniform(generator, (num, 1, 1), 0, math.pi)
    along, across = angle.cos() * y + angle.sin() * x, angle.cos() * x - angle.sin() * y
    frequency = torch.sqrt(along**2 * stretch + across**2 / stretch)
    amplitude = frequency.clamp_min(0.5) ** -fall * ((frequency >= low) & (frequency <= high))
    amplitude[:, 0, 0] = 0
    spectrum = torch.randn((num, size, size // 2 + 1, 2), generator=generator) * amplitude[..., None]
    noise = torch.fft.irfft2(torch.view_as_complex(spectrum), s=(size, size))
    return noise / noise.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
