"""Small random tensors on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

__all__ = ["chance", "log_uniform", "uniform"]


def uniform(generator: Generator, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Float32 of `shape`, uniform in [low, high)."""
    return torch.rand(tuple(shape), generator=generator) * (high - low) + low


def log_uniform(generator: Generator, shape: Sequence[int], low: float, high: float) -> Tensor:
    """Float32 of `shape` whose logarithm is uniform: as many values of 1-2 as of 2-4."""
    return torch.exp(uniform(generator, shape, math.log(low), math.log(high)))


def chance(generator: Generator, num: int, share: float) -> Tensor:
    """Bool (num,), true in this share."""
    return torch.rand(num, generator=generator) < share
