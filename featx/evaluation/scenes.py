"""Scenes, leave one video out: YUPENN (14 classes of 30 videos), Maryland (13 of 10), and any other class folders.

The class of a video is the parent folder of its key. Every video is tested by an SVM that was trained on all others.
Source of the counts: the C3D paper, section 6, and the P3D paper, section 5.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import PurePosixPath

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split
from featx.segments import is_segment_key

__all__ = ["load", "load_maryland", "load_yupenn"]

MAX_VIDEOS = 2000  # each of them trains an SVM
COUNTS = {"yupenn": (14, 30), "maryland": (13, 10)}  # classes, videos a class


def load(request: Request, dataset: str = "scenes") -> Protocol:
    """Leave one video out, over all videos of the feature file."""
    request.no_folds(dataset)
    if request.folder is not None:
        raise UsageError(
            f"{request.folder} is given, but {dataset} has no lists: a class is a folder; leave --splits out"
        )
    if request.numbers:
        raise UsageError(f"split {request.numbers[0]} is asked for, but {dataset} leaves out every video in turn")
    for key in request.keys:
        if is_segment_key(key):
            raise UsageError(
                f"'{key}' is a segment, and leaving one out would train on others of its video; take --dataset folders, which "
                "never parts a video's"
            )
    entries = [Entry(key, PurePosixPath(key).parent.name) for key in request.keys]
    for key, label in entries:
        if not label:
            raise UsageError(f"'{key}' has no parent folder to name its class; extract a folder of class folders")
    counts = Counter(label for _, label in entries)
    if len(entries) > MAX_VIDEOS:
        raise UsageError(
            f"leaving out each of {len(entries)} videos trains as many SVMs, and {MAX_VIDEOS} are the most; take "
            "--dataset folders, which makes folds"
        )
    if dataset in COUNTS:
        _check_counts(dataset, counts, request.allow_missing)
    alone = [label for label, count in counts.items() if count < 2]
    if alone:
        raise UsageError(f"class '{alone[0]}' has 1 video, but leaving one out needs 2; add videos of it")
    splits = tuple(
        Split(f"without {entry.name}", tuple(entries[:i] + entries[i + 1 :]), (entry,))
        for i, entry in enumerate(entries)
    )
    return Protocol(tuple(sorted(counts)), splits, leave_one_out=True)


load_yupenn = partial(load, dataset="yupenn")
load_maryland = partial(load, dataset="maryland")


def _check_counts(dataset: str, counts: Counter, allow_missing: bool) -> None:
    num_classes, num_videos = COUNTS[dataset]
    complete = len(counts) == num_classes and set(counts.values()) == {num_videos}
    fewer = len(counts) <= num_classes and max(counts.values()) <= num_videos
    if complete or (allow_missing and fewer):
        return
    odd = next((label for label, count in counts.items() if count != num_videos), None)
    found = f"{len(counts)} class folders" + (f", and {counts[odd]} videos in '{odd}'" if odd else "")
    raise UsageError(
        f"the feature file has {found}, but {dataset} has {num_classes} classes of {num_videos} videos; extract the data set's "
        "folders as they are"
        + (", or evaluate what is there with --allow-missing" if fewer else " (--dataset scenes takes any)")
    )
