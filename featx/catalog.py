"""The table of published weights: one record a checkpoint, read from the cards (JSON) in the package featx.weights.

    card = get_checkpoint("c3d-sports1m")
    card.preprocess, card.sampling      how its network wants its input
    card.with_variant("port")           the same weights, run in another way

Adding published weights for a known architecture is one more card; nothing here changes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import featx.weights
from featx.backbones import ARCHITECTURES
from featx.clips import Sampling
from featx.errors import UnknownNameError, UsageError
from featx.preprocess import Preprocess

__all__ = ["CHECKPOINTS", "WEIGHTS_FOLDER", "Checkpoint", "get_checkpoint", "list_backbones", "read_card"]

WEIGHTS_FOLDER = Path(featx.weights.__file__).parent

VARIANT_FIELDS = {"arguments", "preprocess", "note"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One set of weights for an architecture, with everything that belongs to the weights.

    `arguments` go to the architecture besides `classes`. `layers` maps the layers on offer to D, the length of one clip's
    flattened feature. `source` are URLs, `file` the published file's name; the file of an `embedded` checkpoint lies
    beside the cards and has the `sha256`. `labels` are the class names in the order of the layer prob. `variants` maps a
    name to the "arguments" and "preprocess" fields that it changes. `published` holds accuracies in %:
    ``published[data set][layer]``, or ``[layer@dims]`` after PCA; `published_source` says where they are printed.

    Raises UsageError where the fields contradict each other.
    """

    name: str
    architecture: str
    classes: int
    sampling: Sampling
    preprocess: Preprocess
    layers: dict[str, int]
    default_layer: str
    licence: str
    source: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    sha256: str | None = None
    embedded: bool = False
    labels: tuple[str, ...] | None = None
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    variant: str = ""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    published_source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for name, problem in self._problems():
            raise UsageError(f"{name} of card '{self.name}' is {getattr(self, name)!r}, but {problem}")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape of one clip as the network takes it, (3, T, H, W)."""
        return (3, self.sampling.length, self.preprocess.crop, self.preprocess.crop)

    @property
    def build_arguments(self) -> dict[str, Any]:
        """What the architecture is built with."""
        return {**self.arguments, "num_classes": self.classes}

    def with_variant(self, name: str) -> Checkpoint:
        """The same weights with the changes of the variant `name`; raises UnknownNameError if the card has no such one."""
        if not self.variants:
            raise UsageError(f"{self.name} has no variants, so '{name}' is none; leave --variant out")
        if name not in self.variants:
            raise UnknownNameError(f"variant of {self.name}", name, self.variants)
        changes = self.variants[name]
        return dataclasses.replace(
            self,
            arguments={**self.arguments, **changes.get("arguments", {})},
            preprocess=dataclasses.replace(self.preprocess, **changes.get("preprocess", {})),
            variant=name,
        )

    def _problems(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for each rule that the fields break."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", self.name):
            yield "name", "must be <architecture>-<data> in lower-case letters, digits and hyphens"
        if self.architecture not in ARCHITECTURES:
            yield "architecture", f"must be one of {', '.join(ARCHITECTURES)}"
        if not isinstance(self.classes, int) or self.classes < 1:
            yield "classes", "must be a whole number of at least 1"
        if self.arguments.get("num_classes", self.classes) != self.classes:
            yield "arguments", f"classes is {self.classes}"
        if not self.layers or not all(isinstance(d, int) and d > 0 for d in self.layers.values()):
            yield "layers", "must map at least one layer to its dimension, a whole number above 0"
        if self.layers.get("prob", self.classes) != self.classes:
            yield "layers", f"prob must have one dimension for each of the {self.classes} classes"
        if self.default_layer not in self.layers:
            yield "default_layer", f"must be one of {', '.join(self.layers)}"
        if self.labels is not None and len(set(self.labels)) != self.classes:
            yield "labels", f"must be {self.classes} different names, one a class"
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            yield "sha256", "must be 64 lower-case hexadecimal digits"
        if self.embedded and (self.file is None or Path(self.file).name != self.file):
            yield "file", "must name a file beside the card, since the checkpoint is embedded"
        if self.embedded and self.sha256 is None:
            yield "sha256", "must be given, since the checkpoint is embedded"
        if not self.embedded and not self.source:
            yield "source", "must say where the published file is, since the checkpoint is not embedded"
        if any(set(changes) - VARIANT_FIELDS for changes in self.variants.values()):
            yield "variants", f"a variant may hold {', '.join(sorted(VARIANT_FIELDS))} only"


def read_card(text: str, where: str) -> Checkpoint:
    """Make a Checkpoint from a card's JSON; `where` names the card in messages.

    Raises UsageError for text that is not JSON, unknown or missing fields, and values that break a rule.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise UsageError(f"card {where} is not JSON ({error}); correct it or leave it out") from None
    _check_names(Checkpoint, fields, where)
    for name, record in (("sampling", Sampling), ("preprocess", Preprocess)):
        _check_names(record, fields[name], f"{where}, {name}")
    try:
        return Checkpoint(
            **{
                **fields,
                "sampling": Sampling(**fields["sampling"]),
                "preprocess": Preprocess(**fields["preprocess"]),
                "source": tuple(fields.get("source", ())),
                "labels": None if fields.get("labels") is None else tuple(fields["labels"]),
            }
        )
    except UsageError as error:
        raise UsageError(f"card {where}: {error}") from None
    except (AttributeError, TypeError, ValueError) as error:  # a list where a number belongs, and the like
        raise UsageError(
            f"card {where} has a field of the wrong type ({error}); compare it with featx's own cards"
        ) from None


def _check_names(record: type, fields: Any, where: str) -> None:
    if not isinstance(fields, dict):
        raise UsageError(f"card {where} is a JSON {type(fields).__name__}, but must be an object")
    known = {f.name: f for f in dataclasses.fields(record)}
    for name in fields:
        if name not in known:
            raise UnknownNameError(f"field of card {where}:", name, known)
    no_default = dataclasses.MISSING
    for name, f in known.items():
        if name not in fields and f.default is no_default and f.default_factory is no_default:
            raise UsageError(f"card {where} has no field '{name}', which every card needs")


def _read_cards(folder: Path) -> dict[str, Checkpoint]:
    cards = {}
    for path in sorted(folder.glob("*.json")):
        card = read_card(path.read_text(encoding="utf-8"), path.name)
        if card.name != path.stem:
            raise UsageError(f"card {path.name} is named '{card.name}', but a card's file is <name>.json; rename one")
        cards[card.name] = card
    return cards


CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType(_read_cards(WEIGHTS_FOLDER))


def get_checkpoint(name: str) -> Checkpoint:
    """The card called `name`.

    Raises UsageError for the bare name of an architecture, and UnknownNameError, with suggestions, for any other name
    that no card has.
    """
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    if name in ARCHITECTURES:
        cards = ", ".join(card.name for card in CHECKPOINTS.values() if card.architecture == name)
        raise UsageError(f"backbone '{name}' is an architecture, not a checkpoint of it; take one of: {cards}")
    raise UnknownNameError("backbone", name, CHECKPOINTS, "'featx info --backbones' lists them.")


def list_backbones() -> list[str]:
    """The names that `backbone` takes everywhere: one a card, sorted."""
    return sorted(CHECKPOINTS)
