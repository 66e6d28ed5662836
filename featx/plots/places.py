"""Where labels go so that none lies on another: plain geometry, the same places for the same boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["place_boxes", "spread"]

STEP = 0.5  # of a box's height: how finely free places are looked for


def spread(wanted: Sequence[float], distance: float) -> np.ndarray:
    """The places nearest to `wanted` (least squares), in the same order, that keep `distance` from each other."""
    wanted = np.asarray(wanted, np.float64)
    order = np.argsort(wanted, kind="stable")
    # less what the ones before it take, places need only not to fall: an isotonic regression, by pooling
    pools: list[tuple[float, int]] = []  # mean, members
    for value in wanted[order] - distance * np.arange(len(wanted)):
        pool = (float(value), 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, count = pools.pop()
            pool = ((mean * count + pool[0] * pool[1]) / (count + pool[1]), count + pool[1])
        pools.append(pool)
    levels = np.concatenate([np.full(count, mean) for mean, count in pools]) if pools else wanted
    out = np.empty(len(wanted))
    out[order] = levels + distance * np.arange(len(wanted))
    return out


def place_boxes(anchors: np.ndarray, sizes: np.ndarray, bounds: tuple[float, float], margin: float = 1.0) -> np.ndarray:
    """Centres float64 (n, 2) of boxes of `sizes` (n, 2), each near its anchor (n, 2), that do not touch each other.

    Boxes go one after the other, where they stand, to the nearest free place on growing ellipses around their anchors, inside
    (0, 0) to `bounds` as far as there is room; `margin` is left free around each.
    """
    placed = np.empty((len(anchors), 2))
    reach = np.hypot(*bounds)
    for i, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        low, high = size / 2, np.maximum(np.asarray(bounds) - size / 2, size / 2)
        needed = (sizes[:i] + size) / 2 + margin
        step = STEP * size[1]
        for ring in range(int(2 * reach / step) + 1):
            count = max(1, 8 * ring)
            angles = 2 * math.pi * (np.arange(count) / count + 0.25)
            # flat boxes find room sooner above than beside
            around = anchor + ring * step * np.stack([np.cos(angles) * 1.5, np.sin(angles)], axis=1)
            centres = np.clip(around, low, high) if 2 * ring * step < reach else around
            apart = (np.abs(centres[:, None] - placed[None, :i]) >= needed[None]).any(axis=2).all(axis=1)
            if apart.any():
                near = np.square(centres - anchor).sum(axis=1)
                placed[i] = centres[np.where(apart, near, np.inf).argmin()]
                break
        else:
            raise AssertionError("a ring beyond all boxes is free")
    return placed
