"""The table of published weights: one record a checkpoint, read from the cards (JSON) in the package featx.weights.

    card = get_checkpoint("c3d-sports1m")
    card.preprocess, card.sampling      how its network wants its input
    card.with_variant("port")           the same weights, run in another way

Adding published weights for a known architecture is one more card; nothing here changes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from featx.backbones import ARCHITECTURES
from featx.clips import Sampling
from featx.errors import UnknownNameError, UsageError
from featx.preprocess import Preprocess
from featx.small_files import is_special

__all__ = [
    "CHECKPOINTS",
    "WEIGHTS_FOLDER",
    "Checkpoint",
    "Source",
    "get_checkpoint",
    "list_backbones",
    "read_card",
    "read_card_file",
]


def _weights_folder() -> Path:
    """That of the package featx.weights; in a clone, whose featx/ Python finds before an installed one, weights/ beside it."""
    try:
        import featx.weights

        return Path(featx.weights.__file__).parent
    except ModuleNotFoundError:
        beside = Path(__file__).resolve().parents[1] / "weights"
        if not (beside / "__init__.py").is_file():
            raise
        return beside


WEIGHTS_FOLDER = _weights_folder()
LABELS_FOLDER = WEIGHTS_FOLDER / "labels"  # class names, one a line, for every data set that several cards share

VARIANT_FIELDS = {"arguments", "preprocess", "note"}
MAX_SHOWN = 100  # characters of a value in a message: some are long lists
# what the records of a card have, and its text cannot say
NOT_IN_JSON = {"base", "folder", "variant", "mean_cube", "listed", "num_clips_random", "seed"}
# whose tensor names files may use: the labels of featx.checkpoints.names, and Caffe's own
NAMINGS = (
    "featx's own", "Caffe", "DavideA's port", "jfzhang95's port", "mmaction2's port", "mmaction2's recognizer",
    "qijiezhao's port", "Hara's", "Hara's, without dots", "torchvision's",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One place that has a file of published weights.

    `file` is its name there, `form` says in words what it is. `plain`: the URL gives the file itself; other hosts (Google
    Drive, OneDrive, Dropbox) need a browser. `sha256_prefix` are the first digits of the file's SHA-256 where the
    publisher states them, `sha1` all 40 of its SHA-1.
    """

    url: str
    file: str = ""
    form: str = ""
    plain: bool = False
    sha256_prefix: str = ""
    sha1: str = ""

    def __post_init__(self) -> None:
        for name in ("url", "file", "form", "sha256_prefix", "sha1"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} of a source is {getattr(self, name)!r:.100}, but must be text")
        if not isinstance(self.plain, bool):
            raise UsageError(f"plain of the source {self.url} is {self.plain!r:.100}, but must be true or false")
        if not re.match(r"https?://", self.url):
            raise UsageError(f"url of a source is '{self.url}', but must begin with http:// or https://")
        if self.plain and not (self.file and Path(self.file).name == self.file):
            raise UsageError(
                f"file of the source {self.url} is '{self.file}', but must be a file's name without folders"
            )
        for name, pattern in (("sha256_prefix", r"([0-9a-f]{8,64})?"), ("sha1", r"([0-9a-f]{40})?")):
            if not re.fullmatch(pattern, getattr(self, name)):
                raise UsageError(f"{name} of the source {self.url} is '{getattr(self, name)}', which is no such hash")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One set of weights for an architecture, with everything that belongs to the weights.

    `arguments` go to the architecture besides `classes`. `data` names what the weights were trained on. `layers` maps the
    layers on offer to D, the length of one clip's flattened feature. `source` are the places to get the weights from, best
    first; `file` is the published file's name and `size_mb` about its size in MB (10^6 bytes). The file of an `embedded`
    checkpoint lies beside the cards and has the `sha256`. `labels` are the class names in the order of the layer prob.
    `namings` says whose tensor names files of these weights use beside featx's own, where not every known one will do: other
    files of the same names and shapes are then other weights. `variants` maps a name to the "arguments" and "preprocess"
    fields that it changes. `published` holds figures in %:
    ``published[data set][layer]`` is an accuracy, ``[layer@dims]`` after PCA, ``[layer:metric]`` another figure; layers that go
    together are joined by "+", in the card's order. `published_source` says for each data set where they are printed.
    `folder` is where a user's own card lies, and beside it its `file`; None for featx's cards. `base` is what a `variant`
    was made of.

    Raises UsageError where the fields contradict each other.
    """

    name: str
    architecture: str
    classes: int
    data: str
    sampling: Sampling
    preprocess: Preprocess
    layers: dict[str, int]
    default_layer: str
    licence: str
    source: tuple[Source, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    size_mb: float | None = None
    sha256: str | None = None
    embedded: bool = False
    labels: tuple[str, ...] | None = None
    namings: tuple[str, ...] | None = None
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    variant: str = ""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    published_source: dict[str, str] = field(default_factory=dict)
    note: str = ""
    folder: Path | None = None
    base: Checkpoint | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, str) or self.architecture not in ARCHITECTURES:
            kind = f"architecture of card '{self.name}':"
            raise UnknownNameError(kind, str(self.architecture), ARCHITECTURES, "'featx models' lists them.")
        for name, problem in chain(self._wrong_types(), self._problems()):  # in this order: the rules trust the types
            value = repr(getattr(self, name))
            value = value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
            raise UsageError(f"{name} of card '{self.name}' is {value}, but {problem}")

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape of one clip as the network takes it, (C, T, H, W); C is 3, or 2 for optical flow."""
        arguments = {**ARCHITECTURES[self.architecture].arguments, **self.arguments}
        return (arguments.get("in_channels", 3), self.sampling.length, self.preprocess.crop, self.preprocess.crop)

    @property
    def build_arguments(self) -> dict[str, Any]:
        """What the architecture is built with."""
        return {**self.arguments, "num_classes": self.classes}

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the weights can be had, best first."""
        return tuple(source.url for source in self.source)

    @property
    def downloads(self) -> tuple[Source, ...]:
        """The sources whose URL gives the file itself, best first."""
        return tuple(source for source in self.source if source.plain)

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
            base=self,
        )

    def ordered_layers(self, names: str | Iterable[str] | None = None) -> tuple[str, ...]:
        """The layers named, by default the card's own one, in the card's order; raises UnknownNameError for no such layer."""
        names = [names] if isinstance(names, str) else list(names or [self.default_layer])
        for name in names:
            if name not in self.layers:
                raise UnknownNameError(f"layer of {self.name}:", name, self.layers)
        return tuple(name for name in self.layers if name in names)  # in one order, however they were asked for

    def _wrong_types(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for each field of another type; numbers have their own rules."""
        for name in ("name", "data", "default_layer", "licence", "variant", "note"):
            if not isinstance(getattr(self, name), str):
                yield name, "must be text"
        for name in ("file", "sha256"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                yield name, "must be text"
        for name in ("arguments", "layers", "published", "published_source", "variants"):
            if not isinstance(getattr(self, name), dict):
                yield name, "must map names to values"
        for name in ("labels", "namings"):
            values = getattr(self, name)
            if values is not None and not (
                isinstance(values, tuple) and all(isinstance(value, str) for value in values)
            ):
                yield name, "must be a list of names"
        if not isinstance(self.embedded, bool):
            yield "embedded", "must be true or false"
        if not isinstance(self.source, tuple) or not all(isinstance(source, Source) for source in self.source):
            yield "source", "must be a list of places"
        for figures in self.published.values():
            if not isinstance(figures, dict) or not all(map(_is_number, figures.values())):
                yield "published", "must map each data set to layers and their accuracies in %"
        if set(self.published_source) != set(self.published):
            yield "published_source", "must say for each data set of 'published', and for no other, where it is printed"
        if not all(isinstance(source, str) for source in self.published_source.values()):
            yield "published_source", "must be a text for each data set"
        for variant, changes in self.variants.items():
            if not variant or not isinstance(changes, dict):
                yield "variants", f"variant '{variant}' must have a name and map fields to values"
            elif not all(isinstance(changes.get(name, {}), dict) for name in ("arguments", "preprocess")):
                yield "variants", f"arguments and preprocess of variant '{variant}' must map fields to values"
            elif not isinstance(changes.get("note", ""), str):
                yield "variants", f"note of variant '{variant}' must be text"

    def _problems(self) -> Iterator[tuple[str, str]]:
        """Yield (field, rule) for each rule that the fields break."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", self.name):
            yield "name", "must be <architecture>-<data> in lower-case letters, digits and hyphens"
        if not _is_count(self.classes):
            yield "classes", "must be a whole number of at least 1"
        if self.arguments.get("num_classes", self.classes) != self.classes:
            yield "arguments", f"classes is {self.classes}"
        if not self.layers or not all(map(_is_count, self.layers.values())):
            yield "layers", "must map at least one layer to its dimension, a whole number above 0"
        if self.layers.get("prob", self.classes) != self.classes:
            yield "layers", f"prob must have one dimension for each of the {self.classes} classes"
        if self.default_layer not in self.layers:
            yield "default_layer", f"must be one of {', '.join(self.layers)}"
        if not self.data:
            yield "data", "must say what the weights were trained on"
        if self.size_mb is not None and not (_is_number(self.size_mb) and self.size_mb > 0):
            yield "size_mb", "must be a number of MB above 0"
        if self.labels is not None and not all(label.strip() and label.isprintable() for label in self.labels):
            yield "labels", "must be names that can be printed; a list of them has no empty lines"
        if self.labels is not None and not len(self.labels) == len(set(self.labels)) == self.classes:
            yield "labels", f"must be {self.classes} different names, one a class"
        unknown = [naming for naming in self.namings or () if naming not in NAMINGS]
        if unknown:
            yield "namings", f"'{unknown[0]}' is none; known: {', '.join(NAMINGS)}"
        if self.file is not None and (not self.file or "\0" in self.file):
            yield "file", "must be the name of a file; leave it out where there is none"
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            yield "sha256", "must be 64 lower-case hexadecimal digits"
        if self.embedded and (self.file is None or Path(self.file).name != self.file):
            yield "file", "must name a file beside the card, since the checkpoint is embedded"
        if self.embedded and self.sha256 is None:
            yield "sha256", "must be given, since the checkpoint is embedded"
        if self.folder is not None and self.embedded:
            yield "embedded", "only featx embeds files; leave it out and name the weights beside the card with 'file'"
        if self.folder is not None and self.name in CHECKPOINTS:
            yield "name", "a card of featx has that name; choose another one"
        if not self.embedded and not self.source and self.folder is None:
            yield "source", "must say where the published file is, since the checkpoint is not embedded"
        if any(set(changes) - VARIANT_FIELDS for changes in self.variants.values()):
            yield "variants", f"a variant may hold {', '.join(sorted(VARIANT_FIELDS))} only"


def read_card(text: str, where: str, folder: Path | None = None) -> Checkpoint:
    """Make a Checkpoint from a card's JSON; `where` names the card in messages.

    In JSON a source may be a bare URL, and `labels` may be a word: "kinetics400" stands for the list of that name in
    featx.weights, "names.txt" for a file of that name in `folder`, one label a line. `folder` is given for a user's own card.

    Raises UsageError for text that is not JSON, unknown or missing fields, and values that break a rule.
    """
    try:
        fields = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"card {where} is not JSON ({error}); correct it or leave it out") from None
    _check_names(Checkpoint, fields, where)
    for name, record in (("sampling", Sampling), ("preprocess", Preprocess)):
        _check_names(record, fields[name], f"{where}, {name}")
    for name, value in fields["sampling"].items():
        if value is None and name in ("length", "stride", "frame_step"):
            raise UsageError(f"card {where}, sampling: {name} is null, but must be a whole number of at least 1")
        if isinstance(value, bool):  # which counts as 0 or 1 in Python
            raise UsageError(
                f"card {where}, sampling: {name} is {json.dumps(value)}, but none of its fields is true or false"
            )
    sources = fields.get("source", [])
    if not isinstance(sources, list):
        raise UsageError(f"card {where}: source is {sources!r:.100}, but must be a list of places")
    for source in sources:
        if not isinstance(source, str):
            _check_names(Source, source, f"{where}, source")
    try:
        card = Checkpoint(
            **{
                **fields,
                "sampling": Sampling(**fields["sampling"]),
                "preprocess": Preprocess(**fields["preprocess"]),
                "source": tuple(Source(source) if isinstance(source, str) else Source(**source) for source in sources),
                "labels": _read_labels(fields.get("labels"), folder),
                "namings": _as_tuple(fields.get("namings")),
                "folder": folder,
            }
        )
    except UsageError as error:
        raise UsageError(f"card {where}: {error}") from None
    except (AttributeError, TypeError, ValueError) as error:  # a list where a number belongs, and the like
        raise UsageError(
            f"card {where} has a field of the wrong type ({error}); compare it with featx's own cards"
        ) from None
    for name, changes in card.variants.items():
        _check_variant(card, name, changes.get("preprocess", {}), where)
    return card


def _check_variant(card: Checkpoint, name: str, preprocess: dict[str, Any], where: str) -> None:
    """Make the variant, so that what is wrong with it shows before it is asked for."""
    where = f"{where}, variant '{name}'"
    _check_names(Preprocess, {"crop": 1, **preprocess}, where)
    try:
        card.with_variant(name)
    except UsageError as error:
        raise UsageError(f"card {where}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"'{name}' stands twice in one object")
    return dict(pairs)


def _as_tuple(values: Any) -> Any:
    """A list of JSON as the record has it; what is no list is left to the record's own checks."""
    return tuple(values) if isinstance(values, list) else values


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _read_labels(labels: Any, folder: Path | None) -> Any:
    """The class names of a card, which may say them or say where they are; what is neither is left to its checks."""
    if not isinstance(labels, str):
        return _as_tuple(labels)
    if labels.endswith(".txt"):
        path = (folder or Path()) / labels
    else:
        known = [path.stem for path in LABELS_FOLDER.glob("*.txt")]
        if labels not in known:
            raise UnknownNameError("labels", labels, known)
        path = LABELS_FOLDER / f"{labels}.txt"
    if is_special(path):
        raise UsageError(f"labels are '{labels}', but {path} is a pipe or a device; name a text file")
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"labels are '{labels}', but {path} cannot be read ({reason})") from None


def _check_names(record: type, fields: Any, where: str) -> None:
    if not isinstance(fields, dict):
        raise UsageError(f'card {where} is a JSON {type(fields).__name__}, but must be an object; write {{"name": …}}')
    known = {f.name: f for f in dataclasses.fields(record) if f.name not in NOT_IN_JSON}
    for name in fields:
        if name not in known:
            raise UnknownNameError(f"field of card {where}:", name, known)
    no_default = dataclasses.MISSING
    for name, f in known.items():
        if name not in fields and f.default is no_default and f.default_factory is no_default:
            raise UsageError(f"card {where} has no field '{name}', which every card needs; add it")


def _read_cards(folder: Path) -> dict[str, Checkpoint]:
    cards = {}
    for path in sorted(folder.glob("*.json")):
        card = read_card(path.read_text(encoding="utf-8"), path.name)
        if card.name != path.stem:
            raise UsageError(f"card {path.name} is named '{card.name}', but a card's file is <name>.json; rename one")
        cards[card.name] = card
    return cards


def read_card_file(path: str | os.PathLike) -> Checkpoint:
    """The card of a user's own weights: JSON in the form of featx's cards, whose `file` lies beside it.

    Such a card needs no `source`, and must not have the name of one of featx's. Raises UsageError for a file that cannot be
    read, and as `read_card` does.
    """
    path = Path(path)
    if is_special(path):
        raise UsageError(f"card '{path}' is a pipe or a device; name a card's JSON file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"card '{path}' cannot be read ({reason}); name a card's JSON file") from None
    return read_card(text, f"'{path}'", path.parent)


CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType(_read_cards(WEIGHTS_FOLDER))


def get_checkpoint(backbone: str | os.PathLike | Checkpoint) -> Checkpoint:
    """The card that `backbone` stands for: a card's name, the path of a user's own card (.json), or the card itself.

    Raises UsageError for the bare name of an architecture and for a card that cannot be read, and UnknownNameError, with
    suggestions, for any other name that no card has.
    """
    if isinstance(backbone, Checkpoint):
        return backbone
    if backbone in CHECKPOINTS:
        return CHECKPOINTS[backbone]
    if isinstance(backbone, os.PathLike) or backbone.endswith(".json"):
        return read_card_file(backbone)
    if backbone in ARCHITECTURES:
        cards = ", ".join(card.name for card in CHECKPOINTS.values() if card.architecture == backbone)
        remedy = (
            f"take one of: {cards}" if cards else "featx has no weights for it; give a card of your own with --card"
        )
        raise UsageError(f"backbone '{backbone}' is an architecture, not a checkpoint of it; {remedy}")
    raise UnknownNameError("backbone", backbone, CHECKPOINTS, "'featx weights list' lists them.")


def list_backbones() -> list[str]:
    """The names that `backbone` takes everywhere: one a card, sorted."""
    return sorted(CHECKPOINTS)
