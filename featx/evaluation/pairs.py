"""Pairs of videos that show the same or not, in folds: ASLAN's View2.mat, or a CSV file of ``first,second,same,fold``.

View2.mat holds action_splits_pairs, 600 x 5 x 10: the numbers of two samples, whether they show the same action, and the
numbers of the two actions; ten folds of 300 pairs that do and 300 that do not. A sample's video is the one whose name ends in
its number of four digits. Source: the data set's ReadMe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from featx.errors import UsageError
from featx.evaluation.tables import read_table

__all__ = ["Fold", "Pair", "read_pairs"]

VIEW2 = "action_splits_pairs"
SHAPE = (600, 5, 10)  # pairs, columns, folds
NUM_SAME = 300  # a fold
NUM_SAMPLES = 3697


class Pair(NamedTuple):
    """Two videos, as they are listed, and whether they show the same."""

    first: str
    second: str
    same: bool


@dataclass(frozen=True)
class Fold:
    """Pairs that are tested together, by what the other folds train."""

    name: str
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        if len({pair.same for pair in self.pairs}) != 2:
            raise UsageError(f"{self.name} has pairs of one kind only, but a ROC curve needs the same and not the same")


def read_pairs(path: Path, keys: Sequence[str]) -> tuple[Fold, ...]:
    """The folds in a file of either form; `keys` are those of the feature file, in which ASLAN's numbers are looked up.

    Raises UsageError for a file that is neither, or whose counts are not the benchmark's.
    """
    folds = _read_view2(path, keys) if path.suffix.lower() == ".mat" else _read_csv(path)
    if len(folds) < 2:
        raise UsageError(f"{path} has {len(folds)} fold, but one tests and the others train: it needs 2")
    return folds


def _read_view2(path: Path, keys: Sequence[str]) -> tuple[Fold, ...]:
    from scipy.io import loadmat  # comes with scikit-learn

    try:
        table = loadmat(path, appendmat=False).get(VIEW2)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception:  # whatever scipy meets in a damaged file
        raise UsageError(f"{path} is no MATLAB file of version 5; give ASLAN's View2.mat, or a CSV of pairs") from None
    if table is None or table.shape != SHAPE:
        found = "is not there" if table is None else f"has the shape {table.shape}"
        raise UsageError(f"{path}: {VIEW2} {found}, but is {SHAPE} in ASLAN's View2.mat")
    if not np.isin(table[:, 2], (0, 1)).all() or (table[:, 2].sum(axis=0) != NUM_SAME).any():
        raise UsageError(f"{path}: a fold has not {NUM_SAME} pairs that are the same; use the official file unchanged")
    samples = table[:, :2]
    if (samples != np.round(samples)).any() or samples.min() < 1 or samples.max() > NUM_SAMPLES:
        raise UsageError(f"{path}: samples are not numbered from 1 to {NUM_SAMPLES}; use the official file unchanged")
    key_of = _by_number(keys)
    folds = []
    for n in range(SHAPE[2]):
        pairs = []
        for first, second, same in table[:, :3, n].tolist():
            names = (key_of.get(int(number), f"{int(number):04d}") for number in (first, second))
            pairs.append(Pair(*names, bool(same)))
        folds.append(Fold(f"fold {n + 1}", tuple(pairs)))
    return tuple(folds)


def _by_number(keys: Sequence[str]) -> dict[int, str]:
    numbered: dict[int, str] = {}
    for key in keys:
        match = re.search(r"(?<!\d)(\d{4})$", PurePosixPath(key).name)
        if match and numbered.setdefault(int(match[1]), key) != key:
            raise UsageError(
                f"'{numbered[int(match[1])]}' and '{key}' both end in the number {match[1]}; leave one out"
            )
    return numbered


def _read_csv(path: Path) -> tuple[Fold, ...]:
    by_fold: dict[str, list[Pair]] = {}
    for row in read_table(path, ("first", "second", "same", "fold")):
        if row["same"] not in ("0", "1"):
            raise UsageError(
                f"{path}: '{','.join(row.values())}' says '{row['same']}', but the same is 1, not the same 0"
            )
        if row["fold"] in ("train", "test"):
            raise UsageError(
                f"{path} has the fold '{row['fold']}', but pairs are cross-validated; number the folds 1, 2, …"
            )
        by_fold.setdefault(row["fold"], []).append(Pair(row["first"], row["second"], row["same"] == "1"))
    return tuple(Fold(f"fold {name}", tuple(pairs)) for name, pairs in by_fold.items())
