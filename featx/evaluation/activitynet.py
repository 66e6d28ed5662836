"""ActivityNet v1.3, untrimmed classification: train on the training videos, test on the validation videos, 200 classes.

The annotation file (activity_net.v1-3.min.json) maps a video's id to its subset and its annotated segments. A video has the
labels of all of its segments: a hit on any of them counts, and each counts for the mean average precision; it trains as the one
that fills most of its time. Source of the counts: the data set's site, and the P3D paper, section 5.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split, choose_numbers

__all__ = ["load"]

VERSION = "1.3"
NUM_CLASSES = 200
COUNTS = {"training": 10_024, "validation": 4_926}


def load(request: Request) -> Protocol:
    """Read and check the annotation file."""
    path = request.list_file("activitynet", "the annotation file, activity_net.v1-3.min.json,")
    choose_numbers((1,), request.numbers)
    database = _read_database(path)
    stems = {PurePosixPath(key).name for key in request.keys}
    sides: dict[str, list[Entry]] = {"training": [], "validation": []}
    others: dict[str, tuple[str, ...]] = {}
    for name, record in database.items():
        subset = _field(path, name, record, "subset")
        if subset not in sides:
            continue  # the labels of the test videos are not published
        labels = _labels(path, name, record)
        named = f"v_{name}" if f"v_{name}" in stems else name  # as the data set's own tools call the files
        sides[subset].append(Entry(named, labels[0]))
        if len(labels) > 1:
            others[named] = tuple(labels[1:])
    for subset, entries in sides.items():
        if len(entries) != COUNTS[subset]:
            raise UsageError(
                f"{path} has {len(entries)} {subset} videos, but ActivityNet v{VERSION} has {COUNTS[subset]}; use the official "
                "file unchanged (--allow-missing copes with videos you do not have)"
            )
    classes = sorted(
        {e.label for side in sides.values() for e in side} | {o for names in others.values() for o in names}
    )
    if len(classes) != NUM_CLASSES:
        raise UsageError(f"{path} has {len(classes)} classes, but ActivityNet v{VERSION} has {NUM_CLASSES}")
    notes = [f"videos of several classes: {len(others)}; each trains as the class that fills most of its time"] * bool(
        others
    )
    split = Split("validation", tuple(sides["training"]), tuple(sides["validation"]))
    return Protocol(tuple(classes), (split,), tuple(notes), others)


def _read_database(path: Path) -> dict[str, dict]:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path} is not a JSON file; give ActivityNet's annotation file") from None
    database = text.get("database") if isinstance(text, dict) else None
    if not isinstance(database, dict) or not database:
        raise UsageError(f"{path} has no 'database' of videos; give ActivityNet's annotation file")
    version = str(text.get("version", "")).split()[-1:]
    if version != [VERSION]:
        raise UsageError(f"{path} is of version {text.get('version')!r}, but the protocol is that of VERSION {VERSION}")
    return database


def _labels(path: Path, name: str, record: dict) -> list[str]:
    """The classes of a video, the one that fills most of its time first, then by name."""
    seconds: dict[str, float] = defaultdict(float)
    for segment in _field(path, name, record, "annotations"):
        try:
            start, end = segment["segment"]
            seconds[str(segment["label"])] += float(end) - float(start)
        except (TypeError, KeyError, ValueError):
            raise UsageError(f"{path}: an annotation of '{name}' lacks a label or a segment of two times") from None
    if not seconds:
        raise UsageError(f"{path}: '{name}' has no annotations, but trains or tests; use the official file unchanged")
    return sorted(seconds, key=lambda label: (-seconds[label], label))


def _field(path: Path, name: str, record: dict, field: str):
    if not isinstance(record, dict) or field not in record:
        raise UsageError(f"{path}: '{name}' has no {field}; use the official file unchanged")
    return record[field]
