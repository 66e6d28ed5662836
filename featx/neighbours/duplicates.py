"""All pairs of nearly equal rows, exactly, in blocks: float32 products by BLAS find candidates, float64 decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from featx.errors import FeatureFileError, UsageError
from featx.neighbours.nearest import EXACT_VALUES, Rows, bound, cosines, unit32
from featx.neighbours.records import Pair

__all__ = ["MAX_PAIRS", "find_pairs"]

BLOCK_ROWS = 2048  # two such blocks and their products: 16 MB besides the rows
BLOCK_VALUES = 2**25  # 128 MB of float32: fewer rows where they are long
MAX_PAIRS = 1_000_000


def find_pairs(
    rows: Rows, places: np.ndarray, threshold: float, name: Callable[[int], str]
) -> tuple[tuple[Pair, ...], tuple[tuple[str, ...], ...]]:
    """The pairs among the rows at `places`, rising, whose cosine is at least `threshold`, nearest first, and their groups.

    `rows` reads rows, none of which may be zero; `name` names one. Raises FeatureFileError for a row that is not finite,
    UsageError for more than MAX_PAIRS pairs.
    """
    if not len(places):
        return (), ()
    num_dims = rows(places[:1]).shape[1]
    step = max(1, min(BLOCK_ROWS, BLOCK_VALUES // num_dims))
    blocks = [places[start : start + step] for start in range(0, len(places), step)]
    first, second, found, num_found = [], [], [], 0
    for a, ours in enumerate(blocks):
        left = _units(rows, ours, name)
        for theirs in blocks[a:]:
            right = left if theirs is ours else unit32(rows(theirs))
            products = left @ right.T
            if theirs is ours:
                products[np.tri(len(ours), dtype=bool)] = -np.inf  # each pair once, and no row with itself
            i, j = np.nonzero(products >= threshold - bound(num_dims))
            chunk = max(1, EXACT_VALUES // num_dims)
            for start in range(0, len(i), chunk):
                p, q = ours[i[start : start + chunk]], theirs[j[start : start + chunk]]
                exact = cosines(rows(p), rows(q))
                kept = exact >= threshold
                num_found += int(kept.sum())
                if num_found > MAX_PAIRS:
                    raise UsageError(f"more than {MAX_PAIRS:,} pairs {_too_near(threshold)}")
                first.append(p[kept])
                second.append(q[kept])
                found.append(exact[kept])
    if not num_found:
        return (), ()
    first, second, found = np.concatenate(first), np.concatenate(second), np.concatenate(found)
    order = np.lexsort((second, first, -found))
    groups = _groups(first, second)
    pairs = zip(first[order].tolist(), second[order].tolist(), found[order].tolist(), strict=True)
    return (
        tuple(Pair(name(p), name(q), cosine) for p, q, cosine in pairs),
        tuple(tuple(name(place) for place in group) for group in groups),
    )


def _too_near(threshold: float) -> str:
    if threshold < 1:
        return f"have a cosine of {threshold:g} or more; raise the --threshold, to 1 at most"
    return (
        "are of equal features, which no --threshold tells apart; choose another layer, or leave most such videos out"
    )


def _units(rows: Rows, places: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    units = unit32(rows(places))
    finite = np.isfinite(units).all(axis=1)
    if not finite.all():
        bad = name(int(places[finite.argmin()]))
        raise FeatureFileError(f"the feature of '{bad}' is not finite; extract that video again")
    return units


def _groups(first: np.ndarray, second: np.ndarray) -> Sequence[list[int]]:
    """What the pairs join: lists of rows, rising, by their first rows."""
    lead: dict[int, int] = {}

    def find(row: int) -> int:
        while lead.setdefault(row, row) != row:
            lead[row] = row = lead[lead[row]]
        return row

    for p, q in zip(first.tolist(), second.tolist(), strict=True):
        a, b = find(p), find(q)
        lead[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for row in sorted(lead):
        groups.setdefault(find(row), []).append(row)
    return [groups[root] for root in sorted(groups)]
