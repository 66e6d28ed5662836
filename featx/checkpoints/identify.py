"""Which card a file of weights fits, by the names and shapes of its tensors.

Names and shapes do not tell everything: nets for clips of other lengths, or trained on other data with as many classes,
share them. So a match names every card that it is true of.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from featx.backbones import build
from featx.catalog import CHECKPOINTS, Checkpoint
from featx.checkpoints.caffe_names import caffe_naming
from featx.checkpoints.files import file_form, read_tensors, without_counters
from featx.checkpoints.names import Naming, namings

__all__ = ["Match", "card_namings", "identify", "match_shapes"]

Shape = tuple[int, ...]

CLASSES = 999_983  # as wide as no layer is: it marks the sizes that are a card's number of classes


@dataclass(frozen=True)
class Match:
    """How well a file fits one card, or several alike.

    `naming` says whose names the file uses. Of the `num_expected` tensors that such a card needs, the file has
    `num_matched` in name and shape, and `num_surplus` others.
    """

    cards: tuple[str, ...]
    naming: str
    num_matched: int
    num_expected: int
    num_surplus: int

    @property
    def exact(self) -> bool:
        """Whether every tensor fits, and none is missing or left over."""
        return self.num_matched == self.num_expected and not self.num_surplus

    @property
    def num_wrong(self) -> int:
        """Tensors that are missing or left over; one of another shape is both."""
        return self.num_expected - self.num_matched + self.num_surplus


def identify(path: str | Path, cards: Iterable[Checkpoint] = tuple(CHECKPOINTS.values())) -> list[Match]:
    """Compare a file with every card: one match a card, in the naming that suits best, or for several cards alike.

    The best come first, and so do exact ones; a card whose weights were never published in the file's form is left out.
    Raises CheckpointError for a file that is damaged or no form of weights.
    """
    path = Path(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in read_tensors(path).items()}
    return match_shapes(shapes, file_form(path) == "caffe", cards)


def match_shapes(
    shapes: Mapping[str, Shape], caffe: bool, cards: Iterable[Checkpoint] = tuple(CHECKPOINTS.values())
) -> list[Match]:
    """`identify` for the names and shapes of a file's tensors; `caffe` tells whose naming it is."""
    alike: dict[tuple[str, int, int, int], list[str]] = {}
    for card in cards:
        tried = []
        for naming, expected in _forms(card, shapes, caffe):
            num_matched = sum(expected.get(name) == shape for name, shape in shapes.items())
            tried.append((naming, num_matched, len(expected), len(shapes) - num_matched))
        if not tried:
            continue
        best = max(tried, key=lambda numbers: 2 * numbers[1] - numbers[2])
        alike.setdefault(best, []).append(card.name)
    matches = [Match(tuple(names), *numbers) for numbers, names in alike.items()]
    return sorted(matches, key=lambda match: match.num_wrong)


def _forms(card: Checkpoint, names: Iterable[str], caffe: bool) -> Iterator[tuple[str, dict[str, Shape]]]:
    """Yield the label of each naming, and what a file in it holds for the card: name -> shape."""
    arguments = {name: value for name, value in card.arguments.items() if name != "num_classes"}
    skeleton = _skeleton(card.architecture, json.dumps(arguments))
    shapes = {
        name: tuple(card.classes if size == CLASSES else size for size in shape) for name, shape in skeleton.items()
    }
    for naming in card_namings(card, shapes, names, caffe):
        yield naming.label, {theirs: shapes[own] for theirs, own in naming.ours.items()}


def card_namings(card: Checkpoint, our_names: Iterable[str], names: Iterable[str], caffe: bool) -> list[Naming]:
    """The namings that a file of a card may use; `names` are the file's, which a naming of Caffe's layers depends on.

    There is none where the file is of Caffe's form and such a file would be other weights than the card's.
    """
    if caffe:
        known = [caffe_naming(our_names, names)]
    else:
        known = _namings(card.architecture, tuple(our_names))
    return [naming for naming in known if card.namings is None or naming.label in ("featx's own", *card.namings)]


@functools.cache
def _skeleton(architecture: str, arguments: str) -> dict[str, Shape]:
    """Names and shapes of a net's tensors, with CLASSES in place of the number of classes; `arguments` are JSON."""
    with torch.device("meta"):
        backbone = build(architecture, **json.loads(arguments), num_classes=CLASSES)
    return {name: tuple(tensor.shape) for name, tensor in without_counters(backbone.state_dict()).items()}


@functools.cache
def _namings(architecture: str, our_names: tuple[str, ...]) -> list[Naming]:
    return namings(architecture, our_names)
