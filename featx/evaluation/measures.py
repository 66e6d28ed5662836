"""The twelve (dis)similarities of two vectors with which the ASLAN benchmark was introduced.

Source: Kliper-Gross, Hassner, Wolf, "The Action Similarity Labeling Challenge", TPAMI 34(3), 2012, table 3. Of the vectors
a and b, with no negative entries; sums run over the dimensions, and 0 / 0 counts as 0:

     1  sum a b                               7  sum |a - b|
     2  sqrt(sum a b)                         8  sqrt(sum (sqrt a - sqrt b)^2)
     3  sqrt(sum sqrt(a) sqrt(b))             9  sqrt(sum (a - b)^2)
     4  sqrt(sum a b / (a + b))              10  (sum a log(a / b) + sum b log(b / a)) / 2
     5  sum a b / (|a| |b|)                  11  sum sqrt(max(a, b)) / sqrt(a + b)
     6  sqrt(sum (a - b)^2 / (a + b))        12  sum min(a, b) / (sum a  sum b)

For 9 to 12 the vectors are normalised first; the benchmark does not say how: to a sum of one, as befits histograms, unless
asked otherwise. Number 10 is infinite where one entry is zero and the other is not, and after a ReLU most are: for it alone
FLOOR is added to every entry before that. (An entry of a descriptor, whose length is 1, is about 0.01.)
"""

from __future__ import annotations

import numpy as np

__all__ = ["FLOOR", "NORMS", "NUM_MEASURES", "measure_pairs"]

NUM_MEASURES = 12
FLOOR = 1e-6
NORMS = {
    "sum": lambda rows: rows.sum(axis=1, keepdims=True),
    "l2": lambda rows: np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None],
    "none": lambda rows: np.ones((len(rows), 1)),
}


def measure_pairs(a: np.ndarray, b: np.ndarray, norm: str = "sum") -> np.ndarray:
    """The twelve numbers of each pair of rows: `a` and `b` (n, D), no entry below 0; float64 (n, 12), all finite.

    `norm`, one of NORMS, is for the last four. Raises ValueError for a negative entry.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(a.min(initial=0), b.min(initial=0)) < 0:
        raise ValueError("the similarities are of vectors without negative entries")
    out = np.empty((len(a), NUM_MEASURES))
    dot, total, gap = np.einsum("nd,nd->n", a, b), a + b, a - b
    out[:, 0] = dot
    out[:, 1] = np.sqrt(dot)
    root_a, root_b = np.sqrt(a), np.sqrt(b)
    out[:, 2] = np.sqrt(np.einsum("nd,nd->n", root_a, root_b))
    out[:, 3] = np.sqrt(_share(a * b, total).sum(axis=1))
    out[:, 4] = _share(dot, (NORMS["l2"](a) * NORMS["l2"](b))[:, 0])
    out[:, 5] = np.sqrt(_share(gap * gap, total).sum(axis=1))
    out[:, 6] = np.abs(gap).sum(axis=1)
    out[:, 7] = np.linalg.norm(root_a - root_b, axis=1)

    floored = [_normalised(rows + FLOOR, norm) for rows in (a, b)]
    a, b = _normalised(a, norm), _normalised(b, norm)
    out[:, 8] = np.linalg.norm(a - b, axis=1)
    # the two sums in one: (p - q) log p - (p - q) log q
    out[:, 9] = ((floored[0] - floored[1]) * (np.log(floored[0]) - np.log(floored[1]))).sum(axis=1) / 2
    out[:, 10] = _share(np.sqrt(np.maximum(a, b)), np.sqrt(a + b)).sum(axis=1)
    out[:, 11] = _share(np.minimum(a, b).sum(axis=1), a.sum(axis=1) * b.sum(axis=1))
    return out


def _normalised(rows: np.ndarray, norm: str) -> np.ndarray:
    return _share(rows, NORMS[norm](rows))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where `whole` is."""
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
