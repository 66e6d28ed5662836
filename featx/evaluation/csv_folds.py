"""Any data set in a CSV file of ``key,label,fold``, a video a line, with or without a header.

Folds named train and test make one split. With other names every fold is tested once, by what the others train.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split, choose_numbers
from featx.evaluation.tables import read_table

__all__ = ["load", "split_by_fold"]


def load(request: Request) -> Protocol:
    """Read the file."""
    path = request.list_file("csv", "a CSV file of key,label,fold")
    rows = read_table(path, ("key", "label", "fold"))
    splits = split_by_fold([(Entry(row["key"], row["label"]), row["fold"]) for row in rows], path, request.numbers)
    return Protocol(tuple(sorted({row["label"] for row in rows})), splits)


def split_by_fold(entries: Sequence[tuple[Entry, str]], path: Path, numbers: Iterable[int]) -> tuple[Split, ...]:
    """The splits that the folds of a file make; `numbers` chooses some of them, none for all."""
    folds = sorted({fold for _, fold in entries}, key=_natural)
    if len(folds) < 2:
        raise UsageError(f"{path} has the fold '{folds[0]}' only, but a test needs 2: train and test, or 1, 2, …")
    if {"train", "test"} & set(folds):
        if set(folds) != {"train", "test"}:
            raise UsageError(
                f"{path} has the folds {', '.join(folds)}; name them train and test, or otherwise throughout"
            )
        named = [("test", "test")]
    else:
        named = [(f"fold {fold}", fold) for fold in folds]
    splits = []
    for n in choose_numbers(range(1, len(named) + 1), numbers):
        name, tested = named[n - 1]
        sides: tuple[list[Entry], list[Entry]] = ([], [])
        for entry, fold in entries:
            sides[fold == tested].append(entry)
        splits.append(Split(name, *map(tuple, sides)))
    return tuple(splits)


def _natural(fold: str) -> tuple:
    """2 before 10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", fold))
