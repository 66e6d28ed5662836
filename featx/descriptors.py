"""Clip features to one descriptor a video: the mean, or the maximum, then unit length."""

from __future__ import annotations

import numpy as np

from featx.errors import UsageError

__all__ = ["MaxAccumulator", "MeanAccumulator", "l2_normalise", "mean_descriptor"]

FLOAT32 = np.finfo(np.float32)


def l2_normalise(rows: np.ndarray) -> np.ndarray:
    """Scale every row of `rows` to unit length; a zero vector stays zero.

    `rows` is float (n, D) or (D,); the result has its shape and is float32. Lengths are summed in float64, and rows divided in
    it where float32 has no number for the length, or not all digits of it.
    """
    rows = np.asarray(rows, dtype=np.float32)
    lengths = np.sqrt(np.einsum("...d,...d->...", rows, rows, dtype=np.float64))[..., None]
    lengths = np.where(lengths > 0, lengths, 1)
    extreme = ((lengths > FLOAT32.max) | (lengths < FLOAT32.tiny))[..., 0]
    if not extreme.any():
        return rows / lengths.astype(np.float32)
    unit = rows / np.where(extreme[..., None], 1, lengths).astype(np.float32)
    unit[extreme] = rows[extreme] / lengths[extreme]
    return unit


class MeanAccumulator:
    """The mean of clip features that arrive in clip order, summed in float64 so that their number costs no accuracy."""

    def __init__(self, num_dims: int) -> None:
        self._sum = np.zeros(num_dims, dtype=np.float64)
        self.num_clips = 0

    def add(self, features: np.ndarray) -> None:
        """Add the next clips' features, float32 (n, D)."""
        if features.ndim != 2 or features.shape[1] != self._sum.size:
            raise UsageError(f"clip features have shape {features.shape}, but must be (clips, {self._sum.size})")
        for row in features:  # one by one: the order of summation, and so the last bit, must not depend on the batches
            self._sum += row
        self.num_clips += len(features)

    def result(self) -> np.ndarray:
        """The mean, float32 (D,), not normalised. Raises UsageError before the first clip."""
        if not self.num_clips:
            raise UsageError("0 clips were added, but a mean needs at least 1")
        return (self._sum / self.num_clips).astype(np.float32)


class MaxAccumulator:
    """The largest value of each dimension over clip features that arrive in any order."""

    def __init__(self, num_dims: int) -> None:
        self._max = np.full(num_dims, -np.inf, dtype=np.float32)
        self.num_clips = 0

    def add(self, features: np.ndarray) -> None:
        """Add the next clips' features, float32 (n, D)."""
        if features.ndim != 2 or features.shape[1] != self._max.size:
            raise UsageError(f"clip features have shape {features.shape}, but must be (clips, {self._max.size})")
        for row in features:
            np.maximum(self._max, row, out=self._max)
        self.num_clips += len(features)

    def result(self) -> np.ndarray:
        """The maxima, float32 (D,), not normalised. Raises UsageError before the first clip."""
        if not self.num_clips:
            raise UsageError("0 clips were added, but a maximum needs at least 1")
        return self._max.copy()


def mean_descriptor(features: np.ndarray) -> np.ndarray:
    """The descriptor of one video: mean of its clip features float32 (num_clips, D), then L2; float32 (D,).

    Source: C3D paper, section 3.3 (clip fc6 activations are averaged, then L2-normalised).
    """
    mean = MeanAccumulator(features.shape[1])
    mean.add(features)
    return l2_normalise(mean.result())
