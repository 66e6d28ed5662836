"""Any data set in class folders: the class of a video is the parent folder of its key.

Splits come from list files in UCF101's format, ``trainlist0N.txt`` and ``testlist0N.txt``, or from grouped cross-validation:
videos of one group (``_gNN_`` in the name, within a class) are never parted; without groups each video is its own.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split, choose_numbers, group_of
from featx.evaluation.ucf101 import read_split
from featx.lists import few
from featx.segments import video_of

__all__ = ["cross_validate", "load"]

DEFAULT_FOLDS = 5


def load(request: Request) -> Protocol:
    """Read the lists where a folder of them is given, else make folds."""
    return _listed(request) if request.folder is not None else _folds(request)


def _listed(request: Request) -> Protocol:
    folder = request.list_folder("folders with --splits", "trainlist0N.txt and testlist0N.txt")
    matches = [re.fullmatch(r"trainlist(\d\d)\.txt", path.name) for path in folder.iterdir()]
    available = sorted(int(match[1]) for match in matches if match)
    if not available:
        raise UsageError(f"{folder} has no trainlist01.txt; put lists in UCF101's format there, or leave --splits out")
    splits = tuple(read_split(folder, n) for n in choose_numbers(available, request.numbers))
    return Protocol(tuple(sorted({e.label for s in splits for e in s.train})), splits)


def _folds(request: Request) -> Protocol:
    entries = [Entry(key, PurePosixPath(video_of(key)).parent.name) for key in request.keys]
    for key, label in entries:
        if not label:
            raise UsageError(f"'{key}' has no parent folder to name its class; extract a folder of class folders")
    splits, notes = cross_validate(entries, [_group_id(entry) for entry in entries], request)
    num_groups = len({_group_id(entry) for entry in entries})
    if not any(group_of(entry.name) for entry in entries):
        note = "the names carry no groups (_gNN_): each video is its own, and near-copies may stand on both sides"
    else:
        note = f"{len(entries)} videos in {num_groups} groups (_gNN_ in the names); no group stands on both sides"
    return Protocol(tuple(sorted({entry.label for entry in entries})), splits, (note, *notes))


def cross_validate(
    entries: Sequence[Entry], groups: Sequence[str], request: Request
) -> tuple[tuple[Split, ...], tuple[str, ...]]:
    """Folds that keep every group together, as many as `request` asks for, and notes; `groups[i]` is that of `entries[i]`.

    Raises UsageError for a class of one group, and for more folds than any class has groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups_of_class = defaultdict(set)
    for entry, group in zip(entries, groups, strict=True):
        groups_of_class[entry.label].add(group)
    for label, members in groups_of_class.items():
        if len(members) < 2:
            raise UsageError(
                f"class '{label}' has {len(members)} group, but cross-validation needs 2; add videos of it"
            )
    most = max(map(len, groups_of_class.values()))
    folds = request.folds if request.folds is not None else min(DEFAULT_FOLDS, most)
    if not 2 <= folds <= most:
        raise UsageError(f"folds is {folds}, but must be from 2 to {most}, the groups of the largest class")

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=request.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds: said below in our words
        parts = list(splitter.split(entries, [entry.label for entry in entries], groups))
    splits = []
    for n in choose_numbers(range(1, folds + 1), request.numbers):
        train, test = (tuple(entries[i] for i in part) for part in parts[n - 1])
        splits.append(Split(f"fold {n}", train, test))
    sparse = [label for label, members in groups_of_class.items() if len(members) < folds]
    if sparse:
        return tuple(splits), (
            f"classes with fewer groups than folds, so not in every test: {len(sparse)} ({few(sparse)})",
        )
    return tuple(splits), ()


def _group_id(entry: Entry) -> str:
    video = video_of(entry.name)
    group = group_of(Path(video).name)
    return f"{entry.label}/g{group}" if group else video
