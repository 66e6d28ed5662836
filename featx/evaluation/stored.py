"""Any data set whose labels stand in the feature file itself, as lists of segments bring them.

Segments of one video show the same people and places, so they are never parted: folds are made of whole videos. Or a CSV file
of ``key,fold`` says what is tested: a key is a video's, for all its segments, or a segment's own; folds are named as in
csv_folds.
"""

from __future__ import annotations

from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.csv_folds import split_by_fold
from featx.evaluation.folders import cross_validate
from featx.evaluation.protocol import Entry, Protocol, Request
from featx.evaluation.tables import read_mapping
from featx.lists import few, match_names
from featx.segments import video_of

__all__ = ["load"]


def load(request: Request) -> Protocol:
    """Splits by the file where it is given, else folds."""
    pairs = zip(request.keys, request.labels, strict=True)
    entries = [Entry(key, label) for key, label in pairs if label]
    if not entries:
        raise UsageError(
            "no video of the feature file has a label; labels are those of 'featx extract --segments' and '--c3d-list'; take "
            "'--dataset folders' or '--dataset csv'"
        )
    notes = ()
    if len(entries) < len(request.keys):
        bare = [key for key, label in zip(request.keys, request.labels, strict=True) if not label]
        notes = (f"{len(bare)} of {len(request.keys)} videos have no label; not used ({few(bare)})",)
    if request.folder is None:
        splits, fold_notes = cross_validate(entries, [video_of(key) for key, _ in entries], request)
        num_videos = len({video_of(key) for key, _ in entries})
        notes += (
            f"{len(entries)} rows of {num_videos} videos; what comes from one video stands on one side",
            *fold_notes,
        )
    else:
        path = request.list_file("stored with --splits", "a CSV file of key,fold")
        folds = _folds(path, entries, request.allow_missing)
        splits = split_by_fold(
            [(entry, folds[entry.name]) for entry in entries if entry.name in folds], path, request.numbers
        )
    return Protocol(tuple(sorted({label for _, label in entries})), splits, notes)


def _folds(path: Path, entries: list[Entry], allow_missing: bool) -> dict[str, str]:
    """The fold of every key that is listed, itself or its video."""
    listed = read_mapping(path, "key", "fold")
    keys = sorted({name for key, _ in entries for name in (key, video_of(key))})
    found = match_names(list(listed), keys)
    missing = [name for name in listed if name not in found]
    if missing and (not found or not allow_missing):
        raise UsageError(
            f"{len(missing)} of {len(listed)} names in {path} are neither videos nor segments with a label: {few(missing)}; "
            "extract them, or leave them out with --allow-missing"
        )
    fold_of = {keys[i]: listed[name] for name, i in found.items()}
    own = {key: fold_of.get(key, fold_of.get(video_of(key))) for key, _ in entries}
    return {key: fold for key, fold in own.items() if fold is not None}
