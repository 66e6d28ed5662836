"""What the page tells of a feature file besides its vectors: how it was made, its videos, what failed."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from featx.segments import video_of
from featx.store import FeatureSet, parts_folder

__all__ = ["class_names", "gather"]

NO_CLASS = ""  # of a video in no folder
NUMBERS = ("num_clips", "num_frames", "fps", "duration_seconds", "start_seconds", "end_seconds")


def gather(features: FeatureSet, path: Path) -> dict[str, object]:
    """Everything but vectors and pictures, as JSON can hold it; rows are in the order of the keys.

    Columns of `videos` are lists of V values, None for NaN. `classes` are sorted; `class_of` numbers them, a video each.
    """
    classes, class_of, grouped_by = class_names(features.keys, features.column("label").tolist())
    damage = features.column("damage").tolist()
    return {
        "file": _file_facts(features, path),
        "made": {name: _plain(value) for name, value in dataclasses.asdict(features.provenance).items()},
        "holds": {
            "descriptors": features.has_descriptors,
            "clip_features": features.has_clips,
            "dims": {layer: features.num_dims(layer) for layer in features.layers},
            "reduced_by_pca": {layer: str(basis.get("fitted_on", "")) for layer, basis in features.bases.items()},
        },
        "videos": {
            "key": list(features.keys),
            "path": features.column("path").tolist(),
            "label": _unless_empty(features.column("label").tolist()),
            **{name: [_plain(value) for value in features.column(name).tolist()] for name in NUMBERS},
        },
        "classes": classes,
        "class_of": class_of,
        "grouped_by": grouped_by,
        "failures": [{"key": f.key, "path": f.path, "reason": f.reason} for f in features.failures],
        "damaged": [{"video": i, "damage": text} for i, text in enumerate(damage) if text],
    }


def class_names(keys: Sequence[str], labels: Sequence[str]) -> tuple[list[str], list[int], str]:
    """The classes, the class of each video as an index, and what names them: "folder" or "label".

    A class is the name of the folder that the video, or a segment's video, lies in, "" for one without. Labels take its place
    where every video has one in words, as segments do, and where no video lies in a folder.
    """
    names, grouped_by = [PurePosixPath(video_of(key)).parent.name for key in keys], "folder"
    in_words = bool(labels) and all(labels) and not all(label.isdigit() for label in labels)
    if in_words or (any(labels) and not any(names)):
        names, grouped_by = list(labels), "label"
    classes = sorted(set(names))
    number = {name: i for i, name in enumerate(classes)}
    return classes, [number[name] for name in names], grouped_by


def _file_facts(features: FeatureSet, path: Path) -> dict[str, object]:
    """The set's files; the time is that of the newest, in UTC."""
    statuses = [os.stat(file) for file in features.paths]
    newest = datetime.datetime.fromtimestamp(max(s.st_mtime for s in statuses), datetime.timezone.utc)
    times = features.column("mtime_ns")
    known = times[times > 0]
    return {
        "name": path.name or str(path),
        "path": os.fspath(path),
        "num_files": len(statuses),
        "num_parts": sum(file.parent == parts_folder(path) for file in features.paths),
        "num_bytes": sum(s.st_size for s in statuses),
        "written": newest.isoformat(timespec="seconds"),
        "videos_from": _date(known.min()) if len(known) else None,
        "videos_to": _date(known.max()) if len(known) else None,
    }


def _date(nanoseconds: int) -> str | None:
    try:
        return datetime.datetime.fromtimestamp(int(nanoseconds) / 1e9, datetime.timezone.utc).date().isoformat()
    except (ValueError, OverflowError, OSError):  # a clock gone wrong
        return None


def _plain(value: object) -> object:
    """NaN and the infinities, which JSON has not, become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _unless_empty(values: list[str]) -> list[str]:
    return values if any(values) else []
