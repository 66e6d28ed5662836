"""What opening one feature file tells: how it was made, where its tables lie, its keys. A stranger's file is checked for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import h5py
import numpy as np

from featx import provenance as _provenance
from featx.errors import FeatureFileError
from featx.features import Failure
from featx.provenance import Provenance
from featx.shards import parse_held
from featx.store.attributes import read_attributes
from featx.store.hdf5_tables import find_tables
from featx.store.keys import Texts
from featx.store.schema import SCHEMA, STRING, attributes_crc, values_crc
from featx.store.structure import require_tables, require_types
from featx.store.tables import FoundTable, Table

__all__ = ["Hdf5Source", "Record", "Source", "Stamp", "attributes_problem", "examine", "read_texts"]


class Stamp(NamedTuple):
    """Which file it was, and in which state: nothing can be written to it without another `ctime_ns`."""

    device: int
    inode: int
    num_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_same_file(self, other: Stamp) -> bool:
        """Whether it is that file with that content; a name or a right more (`ctime_ns`) is no other content."""
        return self[:4] == other[:4]


@dataclass(frozen=True, eq=False)
class Record:
    """One feature file whose structure has been checked; its checksums have not, but for that of the attributes.

    `keys` in UTF-8 are in order, none twice. `attributes_problem`: what is wrong with the attributes' checksum, "" if nothing.
    """

    stamp: Stamp
    provenance: Provenance
    tables: Mapping[str, Table]
    keys: Texts
    failures: tuple[Failure, ...]
    attributes_problem: str

    @property
    def num_videos(self) -> int:
        return len(self.keys)


class Source(Protocol):
    """What a file says of itself: read by HDF5, or, of featx's own form, without it (`featx.store.plain`)."""

    attributes: dict[str, object]
    tables: dict[str, FoundTable]

    def texts(self, name: str) -> list[bytes]:
        """The keys, or a column of texts of the failures, in UTF-8."""

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers."""

    def attributes_problem(self) -> str:
        """What is wrong with the checksum of the attributes, "" if nothing."""


def examine(source: Source, file: BinaryIO, path: Path) -> Record:
    """The record of an open file. Raises FeatureFileError for one that is damaged or none of featx, and what h5py raises."""
    provenance = _provenance_of(source.attributes, path)
    status = os.fstat(file.fileno())
    tables = require_tables(source.tables, source.numbers, provenance, status.st_size, path)
    keys = source.texts("videos/key")
    for key in keys:
        key.decode()  # which may fail
    if not all(a < b for a, b in pairwise(keys)):
        raise FeatureFileError(f"{path}: damaged: its keys are not in order, or one stands twice; extract again")
    failures = _failures(source) if tables["failures/key"].num_rows else ()
    return Record(Stamp.of(status), provenance, tables, Texts.of(keys), failures, source.attributes_problem())


class Hdf5Source:
    """A file as HDF5 tells of it. Raises FeatureFileError for what featx does not write, and what h5py raises."""

    def __init__(self, file: BinaryIO, h5: h5py.File, path: Path) -> None:
        self._h5, self._file, self._path = h5, file, path
        self.attributes = read_attributes(h5py.h5g.open(h5.id, b"/"), path)

    @cached_property
    def tables(self) -> dict[str, FoundTable]:
        return find_tables(self._h5, self._file, os.fstat(self._file.fileno()).st_size, self._path)

    def texts(self, name: str) -> list[bytes]:
        return read_texts(self._h5, name)

    def numbers(self, name: str) -> np.ndarray:
        return self._h5[name][...]

    def attributes_problem(self) -> str:
        try:
            sums = h5py.h5g.open(self._h5.id, b"checksums") if "checksums" in self._h5 else None
            recorded = None if sums is None else read_attributes(sums, self._path, (b"attributes",)).get("attributes")
            has_basis = any(name.startswith("basis/") for name in self.tables)
            actual = attributes_crc(self._h5) if has_basis else values_crc(self.attributes, {})
        except (KeyError, ValueError, RuntimeError, OSError, TypeError) as error:
            return f"its attributes, which say how it was made, cannot be read ({str(error).partition(chr(10))[0]})"
        return attributes_problem(recorded, actual)


def read_texts(h5: h5py.File, name: str) -> list[bytes]:
    """A column of texts, in UTF-8."""
    dataset = h5py.h5d.open(h5.id, name.encode())
    values = np.empty(dataset.shape, STRING)
    if len(values):
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values.tolist()


def _failures(source: Source) -> tuple[Failure, ...]:
    columns = [
        [text.decode() for text in source.texts(f"failures/{name}")]
        if dtype is STRING
        else source.numbers(f"failures/{name}").tolist()
        for name, dtype in SCHEMA["failures"].items()
    ]
    return tuple(Failure(**dict(zip(SCHEMA["failures"], values, strict=True))) for values in zip(*columns, strict=True))


def _provenance_of(attributes: dict[str, object], path: Path) -> Provenance:
    if attributes.get("format") != "featx":
        raise FeatureFileError(f"{path}: an HDF5 file, but not a feature file; that is what 'featx extract -o' writes")
    version = attributes.get("format_version", 0)
    if version != _provenance.FORMAT_VERSION:
        raise FeatureFileError(
            f"{path}: format version {version}, but this featx reads version {_provenance.FORMAT_VERSION}; "
            "use the featx that wrote it, or extract again"
        )
    names = [f.name for f in fields(Provenance)]
    missing = [name for name in names if name not in attributes and name not in _provenance.ADDED_LATER]
    if missing:
        raise FeatureFileError(
            f"{path}: its attribute '{missing[0]}' is missing: damaged, or written by an earlier featx; extract again"
        )
    values = {name: attributes[name] for name in names if name in attributes}
    require_types(values, path)
    if values.get("shard"):
        parse_held(values["shard"])
    return Provenance(**values)


def attributes_problem(recorded: object, actual: int) -> str:
    """What `featx check` says of the checksum of the attributes, "" where it is right."""
    if recorded is None:
        return "its attributes have no checksum (damaged, or written by an earlier featx)"
    return "" if recorded == actual else "its attributes, which say how it was made, are not those that were written"
