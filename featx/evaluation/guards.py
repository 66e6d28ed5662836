"""Leak guards: what makes a figure better than is fair, said in one line each.

groups      a group of UCF-like names (same people, same background) trains and tests
segments    segments of one video train and test
weights     the network itself was trained on the data set
PCA         the basis of a compact feature file was fitted on videos that test
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable

from featx.evaluation.datasets import Dataset
from featx.evaluation.protocol import Protocol, Request, mixed_groups
from featx.lists import few, match_names, read_lines, split_label
from featx.segments import is_segment_key, video_of

__all__ = ["leak_warnings"]


def leak_warnings(
    dataset: Dataset, protocol: Protocol, request: Request, checkpoints: Iterable[str], fitted_on: Iterable[str]
) -> tuple[str, ...]:
    """What makes an evaluation flattered, as far as can be told.

    `checkpoints` are those that made the features, `fitted_on` what was said of each PCA basis that they went through.
    """
    warnings = _groups(protocol) + _segments(protocol)
    for checkpoint in checkpoints:
        warnings += _weights(dataset, protocol, checkpoint)
    for words in fitted_on:
        warnings += _basis(protocol, request, words)
    return tuple(warnings)


def _groups(protocol: Protocol) -> list[str]:
    by_split = {split.name: mixed_groups(split) for split in protocol.splits}
    mixed = {name: groups for name, groups in by_split.items() if groups}
    if not mixed:
        return []
    groups = sorted(set().union(*mixed.values()))
    where = few(mixed) if len(mixed) < len(by_split) or len(mixed) == 1 else "every split"
    return [
        f"groups (_gNN_ in the names: same people, same background) on both sides of {where}: {len(groups)} ({few(groups)}), "
        "so the accuracy is flattered"
    ]


def _segments(protocol: Protocol) -> list[str]:
    parted: set[str] = set()
    for split in protocol.splits:
        train, test = (
            {video_of(name) for name, _ in side if is_segment_key(name)} for side in (split.train, split.test)
        )
        parted |= train & test
    return [
        f"segments of one video train and test: {len(parted)} videos ({few(sorted(parted))}), so the accuracy is flattered"
    ] * bool(parted)


def _weights(dataset: Dataset, protocol: Protocol, name: str) -> list[str]:
    from featx.catalog import CHECKPOINTS  # late: it brings torch

    card = CHECKPOINTS.get(name)
    data = card.data if card else name  # of a card that is not here only the name is known
    if not dataset.trained_as and card and not card.embedded and set(protocol.classes) <= set(card.labels or ()):
        return [
            f"{name} was trained on classes of these names ({card.data}); if on these videos, the accuracy is flattered"
        ]
    if not dataset.trained_as or not re.search(rf"\b{dataset.trained_as}\b", data, re.IGNORECASE):
        return []
    known = f": {card.data}" if card else ", by its name"
    return [
        f"{name} was trained on {dataset.title}{known}; its features know training videos of some split, so only a split "
        "whose test videos it has not seen is fair ('featx weights show' tells which)"
    ]


def _basis(protocol: Protocol, request: Request, fitted_on: str) -> list[str]:
    fix = "evaluate the file as extracted with --dims, which fits PCA on the training rows of each split"
    if fitted_on == f"all {len(request.keys)} videos":
        return [f"the PCA basis was fitted on {fitted_on}, test videos among them; {fix}"]
    listed = _fitted_names(request, fitted_on)
    if listed is None:
        return [f"the PCA basis was fitted on {fitted_on}; whether test videos are among them cannot be told; {fix}"]
    keys = set(match_names(listed, request.keys).values())
    seen = {}
    for split in protocol.splits:
        tested = match_names([name for name, _ in split.test], request.keys)
        seen[split.name] = len(keys & set(tested.values()))
    leaky = [f"{name} ({count})" for name, count in seen.items() if count]
    return [f"the PCA basis was fitted on {fitted_on}, with test videos of {few(leaky)} among them; {fix}"] * bool(
        leaky
    )


def _fitted_names(request: Request, fitted_on: str) -> list[str] | None:
    """The names of the list that the basis was fitted on, if that list lies in the folder of splits; else None."""
    digest = re.search(r"sha256 ([0-9a-f]{64})", fitted_on)
    if digest and request.folder is not None and os.path.isdir(request.folder):
        for path in sorted(request.folder.glob("*.txt")):
            if hashlib.sha256(path.read_bytes()).hexdigest() == digest[1]:
                return list(dict.fromkeys(split_label(line)[0] for line in read_lines(path)))
    return None
