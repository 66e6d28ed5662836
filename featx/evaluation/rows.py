"""A protocol's listed names as rows of a feature file, and in words what was left out.

A row is a video's descriptor, or a clip's feature where a protocol goes clip by clip; the rows of a file have names, and
from there on nobody asks which of the two they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol as Interface

import numpy as np

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Split, clip_name, group_of
from featx.features import Failure
from featx.lists import few, match_names
from featx.segments import video_of
from featx.store import FeatureSet

__all__ = ["Rows", "find_rows", "group_numbers", "num_left_out", "read_rows", "row_names"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A split as rows of the feature file: int64 indices, and labels 0 to k - 1 that index `classes`.

    `train_groups`, int64: training rows of one group show the same people and background; see `group_numbers`.
    `truth`: bool (test rows, k), which classes are true of a test row; its label is one of them. `sha256`: of the names
    that train and of those that test, as they are listed, by which two tests are known to be the same.
    """

    name: str
    classes: tuple[str, ...]
    train: np.ndarray
    train_labels: np.ndarray
    train_groups: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    truth: np.ndarray
    sha256: str


def row_names(features: FeatureSet, unit: str) -> list[str]:
    """The names of a file's rows: its keys, or with `unit` "clip" the `clip_name` of every clip, in the same order."""
    if unit == "video":
        return list(features.keys)
    return [clip_name(key, start) for key in features.keys for start in features.clip_table(key).start_frame.tolist()]


def read_rows(features: FeatureSet, layer: str, unit: str) -> np.ndarray:
    """The rows of a layer, float32 (n, D), in the order of `row_names`; clip features of float16 become float32."""
    if unit == "video":
        return features.descriptors(layer)
    out = np.empty((features.num_clips, features.num_dims(layer)), np.float32)
    start = 0
    for block in features.clip_blocks(layer):
        out[start : start + len(block)] = block
        start += len(block)
    return out


class Named(Interface):
    """What is asked of the features: the names of their rows, and which videos failed."""

    names: Sequence[str]
    failures: Sequence[Failure]


def find_rows(
    protocol: Protocol, features: Named, path: Path, allow_missing: bool, unit: str = "video"
) -> tuple[list[Rows], list[str]]:
    """Turn listed names into rows of the feature file; the notes say what was left out."""
    names = list(dict.fromkeys(name for split in protocol.splits for name, _ in (*split.train, *split.test)))
    held = features.names
    found = match_names(names, held)
    missing = [name for name in names if name not in found]
    notes = []
    if missing:
        text = f"{len(missing)} of {len(names)} listed {unit}s are not in {path}: {few(missing)}" + _failed(
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
    elif features.failures:
        keys = [failure.key for failure in features.failures]
        notes.append(f"{len(keys)} videos failed in extraction and are in no split: {few(keys)}")
    unlisted = len(held) - len(found)
    if unlisted:
        notes.append(f"{unlisted} of {len(held)} {unit}s in {path} are in none of the lists; not used")
    tables = []
    for split in protocol.splits:
        table, split_notes = _split_rows(split, protocol, found, held)
        tables.append(table)
        notes += split_notes
    return tables, notes


def num_left_out(protocol: Protocol, tables: Sequence[Rows]) -> int:
    """How many listed names have no row in the tables made of them."""
    listed = {name for split in protocol.splits for name, _ in (*split.train, *split.test)}
    used = np.unique(np.concatenate([rows for table in tables for rows in (table.train, table.test)]))
    return len(listed) - len(used)


def _failed(missing: list[str], features: Named) -> str:
    failed = match_names(missing, [failure.key for failure in features.failures], by_base_name=False)
    if not failed:
        return ""
    name, i = next(iter(failed.items()))
    return f" ({len(failed)} of them failed in extraction; {name}: {features.failures[i].reason})"


def _split_rows(
    split: Split, protocol: Protocol, found: dict[str, int], names: Sequence[str]
) -> tuple[Rows, list[str]]:
    listed = {label for _, label in split.train}
    trained = {label for name, label in split.train if name in found}
    kept = tuple(label for label in protocol.classes if label in trained)
    dropped = [label for label in protocol.classes if label in listed - trained]
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

    test, test_labels = rows(split.test)
    if not len(test):
        raise UsageError(f"{split.name}: none of its test videos is in the feature file; extract some of them")
    truth = test_labels[:, None] == np.arange(len(kept))
    for name, _ in split.test if protocol.other_labels else ():
        for label in protocol.other_labels.get(name, ()):
            if name in found and label in label_of:
                truth[test == found[name], label_of[label]] = True
    train, train_labels = rows(split.train)
    groups = group_numbers([names[i] for i in train], [kept[i] for i in train_labels])
    sides = [
        sorted((name, label) for name, label in side if name in found and label in label_of)
        for side in (split.train, split.test)
    ]
    digest = hashlib.sha256(repr(sides).encode()).hexdigest()
    table = Rows(split.name, kept, train, train_labels, groups, test, test_labels, truth, digest)
    if protocol.leave_one_out:
        return table, notes
    untested = [kept[i] for i in sorted(set(range(len(kept))) - set(table.test_labels.tolist()))]
    if untested:
        notes.append(f"{split.name}: classes trained but without a test video: {few(untested)}")
    return table, notes


def group_numbers(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """A number a row, int64 (n,): one for a class's group (``_g07_`` in the names), one for what is of one video."""
    groups = []
    for name, label in zip(names, labels, strict=True):
        video = video_of(name.rpartition(" @")[0] or name)
        group = group_of(PurePosixPath(video).name)
        groups.append(f"{label}/g{group}" if group else video)
    return np.unique(np.array(groups, dtype=object), return_inverse=True)[1].astype(np.int64)
