"""A protocol's listed names as rows of a feature file, and in words what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Split
from featx.lists import few, match_names
from featx.store import FeatureSet

__all__ = ["Rows", "find_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A split as rows of the feature file: int64 indices, and labels 0 to k - 1 that index `classes`."""

    name: str
    classes: tuple[str, ...]
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def find_rows(
    protocol: Protocol, features: FeatureSet, path: Path, allow_missing: bool
) -> tuple[list[Rows], list[str]]:
    """Turn listed names into rows of the feature file; the notes say what was left out."""
    names = list(dict.fromkeys(name for split in protocol.splits for name, _ in (*split.train, *split.test)))
    found = match_names(names, features.keys)
    missing = [name for name in names if name not in found]
    notes = []
    if missing:
        text = f"{len(missing)} of {len(names)} listed videos are not in {path}: {few(missing)}" + _failed(
            missing, features
        )
        if not found or not allow_missing:
            remedy = (
                "check --splits and the keys ('featx info')"
                if not found
                else "extract them, or leave them out with --allow-missing"
            )
            raise UsageError(f"{text}; {remedy}")
        notes.append(f"{text}; left out")
    unlisted = len(features) - len(found)
    if unlisted:
        notes.append(f"{unlisted} of {len(features)} videos in {path} are in none of the lists; not used")
    tables = []
    for split in protocol.splits:
        table, split_notes = _split_rows(split, protocol.classes, found)
        tables.append(table)
        notes += split_notes
    return tables, notes


def _failed(missing: list[str], features: FeatureSet) -> str:
    failed = match_names(missing, [failure.key for failure in features.failures])
    if not failed:
        return ""
    name, i = next(iter(failed.items()))
    return f" ({len(failed)} of them failed in extraction; {name}: {features.failures[i].reason})"


def _split_rows(split: Split, classes: tuple[str, ...], found: dict[str, int]) -> tuple[Rows, list[str]]:
    listed = {label for _, label in split.train}
    trained = {label for name, label in split.train if name in found}
    kept = tuple(label for label in classes if label in trained)
    dropped = [label for label in classes if label in listed - trained]
    notes = []
    if dropped:
        notes.append(f"{split.name}: classes without a training video, dropped: {len(dropped)}; left: {len(kept)}")
    if len(kept) < 2:
        raise UsageError(
            f"{split.name}: classes with training videos: {len(kept)}, but an SVM needs 2; extract more classes"
        )
    label_of = {label: i for i, label in enumerate(kept)}

    def rows(entries: Iterable[Entry]) -> tuple[np.ndarray, np.ndarray]:
        pairs = sorted((found[name], label_of[label]) for name, label in entries if name in found and label in label_of)
        return tuple(np.array(pairs, dtype=np.int64).reshape(-1, 2).T)

    table = Rows(split.name, kept, *rows(split.train), *rows(split.test))
    if not len(table.test):
        raise UsageError(f"{split.name}: none of its test videos is in the feature file; extract some of them")
    untested = [kept[i] for i in sorted(set(range(len(kept))) - set(table.test_labels.tolist()))]
    if untested:
        notes.append(f"{split.name}: classes trained but without a test video: {few(untested)}")
    return table, notes
