"""The nearest rows of a layer by cosine, exactly: every row is looked at, block by block as it lies in the files.

    float32, all rows       cosines, each within `bound` of the truth         BLAS, on all cores
    float64, candidates     those that may be among the k best, in one fixed order of additions

A row whose float32 cosine is more than two bounds below the k-th best cannot be one of the k best, so the answer is that of
float64 over all rows, whatever the blocks, the cores and BLAS are. Equal cosines stand in the order of the rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from featx.errors import FeatureFileError
from featx.store import Piece

__all__ = ["Ranked", "bound", "cosines", "rank", "scan"]

STEP_BYTES = 2**19  # of rows that are multiplied at once: they stay in a core's cache
STEP_VALUES = 2**20  # of products, where there are many vectors
COLUMNS = 2048  # dimensions that are added up in float32; sums of sums are float64
# squares in float32 are exact enough between these; rows beyond them are left to float64
SMALL, LARGE = 1e-24, 1e24
EXACT_VALUES = 2**22  # 32 MB of float64

Rows = Callable[[np.ndarray], np.ndarray]  # places int64 (n,) -> rows (n, D)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The best rows of one query, best first: `places` int64 (k,), `cosines` float64 (k,), and which of the query's vectors
    each is nearest to, `vectors` int64 (k,)."""

    places: np.ndarray
    cosines: np.ndarray
    vectors: np.ndarray


def bound(num_dims: int) -> float:
    """How far a cosine from `scan` can be from the true one: the worst case of adding up in float32, in any order."""
    return (2 * min(num_dims, COLUMNS) + 64) * 2.0**-24


def unit32(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32 (n, D), scaled in float64; zero rows stay zero."""
    rows = rows.astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(axis=1))[:, None]
    with np.errstate(invalid="ignore"):  # whoever calls looks for what is not finite
        return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def scan(pieces: Sequence[Piece], queries: Sequence[np.ndarray], num_rows: int) -> np.ndarray:
    """Cosines of all rows with several queries, float32 (num queries, num_rows), each within `bound` of the truth.

    A query is (m, D), m vectors none of which is zero; a row's cosine is that with the nearest of them. Rows of zeros, which
    have no direction, get -inf; rows for which float32 will not do get +inf. Raises FeatureFileError for a damaged block.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    out = np.full((len(queries), num_rows), -np.inf, np.float32)
    vectors = unit32(np.concatenate(queries)).T
    starts = np.cumsum([0, *map(len, queries[:-1])])
    tasks = [(piece, block) for piece in pieces for block in range(piece.num_blocks)]

    def work(task: tuple[Piece, int]) -> None:
        piece, block = task
        num_bytes = max(piece.shape[1] * piece.dtype.itemsize, 1)
        max_rows = max(1, min(STEP_BYTES // num_bytes, STEP_VALUES // vectors.shape[1]))
        for rows, places in piece.steps(block, max_rows):
            found = np.maximum.reduceat(_cosines32(rows, vectors), starts, axis=1).T
            out[:, places[places >= 0]] = found[:, places >= 0]

    num_threads = max(1, min(len(tasks), _num_cores()))
    with threadpool_limits(1 if num_threads > 1 else None), ThreadPoolExecutor(num_threads) as pool:
        try:
            for _ in pool.map(work, tasks):
                pass
        except BaseException:  # damage, or Ctrl-C: the other blocks are of no use any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return out


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cosines32(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(n, D) rows with (D, m) vectors of unit length -> float32 (n, m)."""
    rows = rows.astype(np.float32, copy=False)
    dots, squares = 0, 0
    for start in range(0, rows.shape[1], COLUMNS):
        part = rows[:, start : start + COLUMNS]
        dots = dots + part @ vectors[start : start + COLUMNS]
        squares = squares + np.einsum("nd,nd->n", part, part)
        if rows.shape[1] > COLUMNS:
            dots, squares = np.asarray(dots, np.float64), np.asarray(squares, np.float64)
    with np.errstate(all="ignore"):
        found = dots / np.sqrt(squares)[:, None]
    strange = ~((squares > SMALL) & (squares < LARGE))  # not finite ones too
    if strange.any():
        found[strange] = np.where(rows[strange].any(axis=1), np.inf, -np.inf)[:, None]
    return found.astype(np.float32, copy=False)


def rank(
    scores: np.ndarray,
    vectors: np.ndarray,
    k: int,
    rows: Rows,
    name: Callable[[int], str],
    firsts: np.ndarray | None = None,
) -> Ranked:
    """The k best rows of one query, by its row of `scan`, float32 (num_rows,); -inf leaves a row out.

    `vectors` (m, D) is the query; `rows` reads rows and `name` names one. With `firsts` int64, the first rows of groups
    that follow each other without gaps, only the best row of each group counts. Fewer than k where there are fewer.
    Raises FeatureFileError for a row that is not finite.
    """
    margin = 2 * bound(vectors.shape[1])
    best = scores if firsts is None else np.maximum.reduceat(scores, firsts)
    known = best[np.isfinite(best)]
    least = -np.inf
    if k < len(known):
        least = np.partition(known, len(known) - k)[len(known) - k] - margin
    candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
    found, nearest = _exact(candidates, vectors, margin, rows, name)
    order = np.lexsort((candidates, -found))
    if firsts is not None:
        groups = np.searchsorted(firsts, candidates[order], side="right")
        order = order[np.sort(np.unique(groups, return_index=True)[1])]
    order = order[:k]
    return Ranked(candidates[order], found[order], nearest[order])


def _exact(
    places: np.ndarray, vectors: np.ndarray, margin: float, rows: Rows, name: Callable[[int], str]
) -> tuple[np.ndarray, np.ndarray]:
    """Of some rows the cosine with the nearest of the vectors (m, D), float64 (n,), and which that is, int64 (n,)."""
    found, nearest = np.empty(len(places)), np.zeros(len(places), np.int64)
    units = unit32(vectors)
    step = max(1, EXACT_VALUES // max(vectors.shape))
    for start in range(0, len(places), step):
        chunk = slice(start, start + step)
        values = np.asarray(rows(places[chunk]), np.float32)
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            bad = name(int(places[chunk][finite.argmin()]))
            raise FeatureFileError(f"the feature of '{bad}' is not finite; extract that video again")
        if len(vectors) == 1:
            found[chunk] = cosines(values, np.broadcast_to(vectors, values.shape))
            continue
        with np.errstate(invalid="ignore"):  # all are finite; a product library may look beyond a short row's end
            rough = unit32(values) @ units.T
        row, vector = np.nonzero(rough >= rough.max(axis=1, keepdims=True) - margin)
        exact = np.full(rough.shape, -np.inf)
        for part in range(0, len(row), step):
            i, j = row[part : part + step], vector[part : part + step]
            exact[i, j] = cosines(values[i], vectors[j])
        nearest[chunk] = exact.argmax(axis=1)
        found[chunk] = exact.max(axis=1)
    return found, nearest


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Row by row, float64 (n,) of (n, D) and (n, D), none of them zero: 1 for equal rows, and the same two always the same."""
    # along contiguous rows, also where one vector was broadcast, so that the order of additions depends on D alone
    first, second = first.astype(np.float64, order="C"), second.astype(np.float64, order="C")
    dots, a, b = ((x * y).sum(axis=1) for x, y in ((first, second), (first, first), (second, second)))
    return np.clip(dots / np.sqrt(a * b), -1, 1)
