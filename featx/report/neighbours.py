"""The nearest neighbours of every row by cosine: exact, from the rows as they are, in blocks."""

from __future__ import annotations

import numpy as np

__all__ = ["nearest"]

BLOCK_VALUES = 1 << 24  # cosines at once: 64 MB of float32
MAX_CANDIDATES = 256  # rows that float32 cannot tell apart are compared in float64, but not more than so many


def nearest(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of the unit (or zero) `rows`, float32 (V, D), the `count` others of the highest cosine.

    Returns indices int64 (V, n) and cosines float64 (V, n), highest first and among equals in the order of rows, with
    n = min(count, V - 1). Products are summed in float32 first; whatever its rounding could have put in a wrong place is
    decided in float64.
    """
    num_rows, num_dims = rows.shape
    count = max(0, min(count, num_rows - 1))
    indices, cosines = np.zeros((num_rows, count), np.int64), np.zeros((num_rows, count))
    if not count:
        return indices, cosines
    # products of unit rows in float32: the error of a sum of D terms grows with the root of D
    margin = 4 * np.finfo(np.float32).eps * max(1.0, num_dims**0.5)
    step = max(1, BLOCK_VALUES // num_rows)
    for start in range(0, num_rows, step):
        block = np.asarray(rows[start : start + step])
        scores = block @ rows.T  # (n, V)
        scores[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf  # not itself
        least = np.partition(scores, num_rows - count, axis=1)[:, num_rows - count]
        for i, row in enumerate(block):
            candidates = np.flatnonzero(scores[i] >= least[i] - margin)
            if len(candidates) > MAX_CANDIDATES:
                candidates = candidates[np.argsort(-scores[i][candidates], kind="stable")[:MAX_CANDIDATES]]
                candidates.sort()
            exact = np.asarray(rows[candidates], np.float64) @ row.astype(np.float64)
            best = np.argsort(-exact, kind="stable")[:count]
            indices[start + i], cosines[start + i] = candidates[best], exact[best]
    return indices, cosines
