"""Leak guards: what makes a figure better than is fair, said in one line each.

groups      a group of UCF-like names (same people, same background) trains and tests
weights     the network itself was trained on the data set
PCA         the basis of a compact feature file was fitted on videos that test
"""

from __future__ import annotations

import hashlib
import re

from featx.evaluation.datasets import Dataset
from featx.evaluation.protocol import Protocol, Request, mixed_groups
from featx.lists import few, match_names, read_lines, split_label
from featx.store import FeatureSet

__all__ = ["leak_warnings"]


def leak_warnings(
    dataset: Dataset, protocol: Protocol, request: Request, features: FeatureSet, layer: str
) -> tuple[str, ...]:
    """What makes the evaluation of a layer flattered, as far as can be told."""
    warnings = [*_groups(protocol), *_weights(dataset, features)]
    if layer in features.bases:
        warnings += _basis(protocol, request, features, str(features.bases[layer]["fitted_on"]))
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


def _weights(dataset: Dataset, features: FeatureSet) -> list[str]:
    from featx.catalog import CHECKPOINTS  # late: it brings torch

    name = features.provenance.checkpoint
    card = CHECKPOINTS.get(name)
    data = card.data if card else name  # of a card that is not here only the name is known
    if not dataset.trained_as or not re.search(rf"\b{dataset.trained_as}\b", data, re.IGNORECASE):
        return []
    known = f": {card.data}" if card else ", by its name"
    return [
        f"{name} was trained on {dataset.title}{known}; its features know training videos of some split, so only a split "
        "whose test videos it has not seen is fair ('featx weights show' tells which)"
    ]


def _basis(protocol: Protocol, request: Request, features: FeatureSet, fitted_on: str) -> list[str]:
    fix = "evaluate the file as extracted with --dims, which fits PCA on the training rows of each split"
    if fitted_on == f"all {len(features)} videos":
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
    if digest and request.folder is not None and request.folder.is_dir():
        for path in sorted(request.folder.glob("*.txt")):
            if hashlib.sha256(path.read_bytes()).hexdigest() == digest[1]:
                return list(dict.fromkeys(split_label(line)[0] for line in read_lines(path)))
    return None
