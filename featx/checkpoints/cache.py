"""The cache folder: weights converted once, kept with where they came from.

    $FEATX_HOME                           else $XDG_CACHE_HOME/featx or ~/.cache/featx, on macOS ~/Library/Caches/featx
      weights/
        <card>.json                       the record: what is stored and of what origin; with it, the card is here
        <card>.<8 digits>.safetensors     the tensors in featx's names, float32; the digits begin the file's SHA-256
        <card>.<8 digits>.npy             the mean cube, float32 (3, T, h, w), BGR, where one was given
      downloads/                          files on their way, see featx.checkpoints.download

Every file is written aside and renamed, the record last: a card is stored whole, or stays as it was. To forget a card, delete
its files; nothing else refers to them.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from torch import Tensor

from featx.catalog import Checkpoint
from featx.checkpoints.files import file_sha256
from featx.checkpoints.safetensors import write_safetensors
from featx.durable import locked, sync
from featx.errors import CheckpointError
from featx.home import cache_folder

__all__ = [
    "MeanCube",
    "Origin",
    "Record",
    "cache_folder",
    "downloads_folder",
    "find",
    "kept_cube",
    "read_record",
    "read_sound_record",
    "store",
]

RECORD_VERSION = 1  # raised when other tensors would be made of the same published file, or the layout changes


@dataclass(frozen=True)
class Origin:
    """The published file that something stored was made from.

    `form` is "caffe", "torch", "safetensors" or "mean cube"; `naming` says whose tensor names it uses; `url` is where featx
    fetched it, "" for a file of the user's; `added` is a time in UTC, ISO 8601.
    """

    file: str
    sha256: str
    num_bytes: int
    form: str
    naming: str = ""
    url: str = ""
    added: str = ""

    @classmethod
    def of(cls, path: Path, sha256: str, form: str, naming: str = "", url: str = "") -> Origin:
        """The origin `path`, added now."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(path.name, sha256, path.stat().st_size, form, naming, url, now)


@dataclass(frozen=True)
class MeanCube:
    """A stored mean cube: its file beside the record, that file's SHA-256, and what it was made from."""

    file: str
    sha256: str
    origin: Origin


@dataclass(frozen=True)
class Record:
    """What the cache holds for the card `card`; `file` lies beside the record and has the `sha256`."""

    card: str
    file: str
    sha256: str
    origin: Origin
    mean: MeanCube | None = None
    version: int = RECORD_VERSION

    @property
    def path(self) -> Path:
        """Where the weights are; unchecked."""
        return _weights_folder() / self.file

    def checked_path(self) -> Path:
        """Where the weights are; raises CheckpointError unless they are, byte for byte, what was stored."""
        add = f"'featx weights add {self.card} FILE'"
        remedy = f"store it again with {add}, or fetch it again as 'featx weights get {self.card}' says"
        return self._checked(self.file, self.sha256, remedy)

    def checked_mean_path(self) -> Path | None:
        """Where the mean cube is, None without one; raises CheckpointError as `checked_path` does."""
        if self.mean is None:
            return None
        add = f"'featx weights add {self.card} FILE --mean CUBE'"
        remedy = f"store it again with {add}, or take the card's constants with --mean card"
        return self._checked(self.mean.file, self.mean.sha256, remedy)

    def _checked(self, file: str, sha256: str, remedy: str) -> Path:
        path = _weights_folder() / file
        if not path.exists() or file_sha256(path) != sha256:
            raise CheckpointError(f"the stored file {path} is {'damaged' if path.exists() else 'gone'}; {remedy}")
        return path


def downloads_folder() -> Path:
    """Where files lie while they are fetched."""
    return cache_folder() / "downloads"


def find(card: Checkpoint) -> Path | None:
    """The stored safetensors file of a card, None where there is none; it is not checked."""
    record = read_record(card.name)
    return record.path if record is not None and record.path.exists() else None


def read_record(name: str) -> Record | None:
    """What the cache holds for the card called `name`; raises CheckpointError for a record that cannot be read."""
    path = _record_path(name)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["version"] != RECORD_VERSION:
            raise ValueError(f"version {fields['version']}")
        mean = fields.get("mean")
        if mean is not None:
            mean = MeanCube(**{**mean, "origin": Origin(**mean["origin"])})
        record = Record(**{**fields, "origin": Origin(**fields["origin"]), "mean": mean})
        if record.card != name or any("/" in file for file in (record.file, mean.file if mean else "")):
            raise ValueError("it is not this card's")
        return record
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check $FEATX_HOME") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        add = f"featx weights add {name} FILE" + " --mean CUBE" * bool(_files_of(name, "npy"))
        raise CheckpointError(
            f"{path} is damaged, or of another version of featx ({error}); store the weights again with '{add}'"
        ) from None


def read_sound_record(name: str) -> Record | None:
    """The same, but None as well where the record or the weights that it names are damaged: what is fit for use."""
    try:
        record = read_record(name)
        return record if record is not None and record.checked_path() else None
    except CheckpointError:
        return None


def kept_cube(name: str) -> MeanCube | None:
    """The mean cube that stays when other weights are stored for a card, None where there is none.

    Raises CheckpointError where one was stored that is damaged, or of which the record is: it would be lost in silence.
    """
    try:
        record = read_record(name)
        has_cube = record is not None and record.mean is not None
    except CheckpointError:  # what is damaged is about to be replaced
        record, has_cube = None, bool(_files_of(name, "npy"))
    if not has_cube:
        return None
    try:
        if record is not None and record.checked_mean_path():
            return record.mean
    except CheckpointError:
        pass
    raise CheckpointError(
        f"the mean cube that was stored for {name} is damaged, or the record of it; give it again with --mean CUBE, or delete "
        f"{_record_path(name)} to do without it"
    )


def store(
    name: str,
    tensors: Mapping[str, Tensor],
    origin: Origin,
    mean: tuple[np.ndarray, Origin] | None = None,
) -> Record:
    """Keep the tensors of a card, in featx's names, and its mean cube, float32 (3, T, h, w); returns the record.

    What was stored for the card before is replaced at the end; a cube stays where none is given. Raises CheckpointError
    as `kept_cube` does, and where the folder cannot be written.
    """
    folder = _weights_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):  # so that none drops the files of another's record
            return _store(folder, name, tensors, origin, mean)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror or error}); make room, or set $FEATX_HOME to another folder"
        ) from None


def _store(
    folder: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    origin: Origin,
    mean: tuple[np.ndarray, Origin] | None,
) -> Record:
    metadata = {"card": name} | {f"origin_{key}": str(value) for key, value in asdict(origin).items() if key != "added"}
    for leftover in folder.glob(f".{glob.escape(name)}.*"):  # of a run that died: the folder is locked
        leftover.unlink()
    aside = folder / f".{name}.{os.getpid()}"
    try:
        write_safetensors(aside, tensors, metadata)
        file, sha256 = _named_by_content(aside, f"{name}.", ".safetensors")
        if mean is None:
            cube = kept_cube(name)
        else:
            with open(aside, "wb") as handle:
                np.save(handle, np.ascontiguousarray(mean[0], dtype="<f4"))
            cube = MeanCube(*_named_by_content(aside, f"{name}.", ".npy"), mean[1])
        record = Record(name, file, sha256, origin, cube)
        aside.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        sync(aside)
        os.replace(aside, _record_path(name))
        sync(folder)
    finally:
        aside.unlink(missing_ok=True)
    _drop_replaced(record)
    return record


def _weights_folder() -> Path:
    return cache_folder() / "weights"


def _record_path(name: str) -> Path:
    return _weights_folder() / f"{name}.json"


def _named_by_content(aside: Path, before: str, after: str) -> tuple[str, str]:
    """Give a finished file its name; returns that and the file's SHA-256."""
    sync(aside)
    sha256 = file_sha256(aside)
    name = f"{before}{sha256[:8]}{after}"
    os.replace(aside, aside.with_name(name))
    return name, sha256


def _drop_replaced(record: Record) -> None:
    """Delete what earlier records of the card named."""
    kept = {record.file, record.mean.file if record.mean else ""}
    for path in _files_of(record.card, "safetensors|npy"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _files_of(name: str, kinds: str) -> list[Path]:
    """The files that records of a card name, or named."""
    try:
        paths = list(_weights_folder().iterdir())
    except OSError:
        return []
    return [path for path in paths if re.fullmatch(rf"{re.escape(name)}\.[0-9a-f]{{8}}\.({kinds})", path.name)]
