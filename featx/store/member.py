"""One file of a feature set: opened, its structure checked, its tables read where they lie."""

from __future__ import annotations

import errno
import itertools
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from featx import provenance as _provenance
from featx.errors import FeatureFileError, FeatxError
from featx.provenance import Provenance
from featx.shards import parse_held
from featx.store.schema import OPTIONAL, STRING, from_attribute
from featx.store.structure import require_attributes, require_tables, require_types

__all__ = ["Member", "reading"]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise FeatureFileError for whatever HDF5 says of a part of the file that cannot be read."""
    try:
        yield
    except FeatxError:
        raise
    except (KeyError, ValueError, RuntimeError, OSError, TypeError, OverflowError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise FeatureFileError(f"{path}: damaged: it cannot be read ({why}); extract again") from error


class Member:
    """One file of a feature set; its structure has been checked, its checksums have not.

    With `stays_open` it is read as it was opened, also when a run renames a new one into its place or removes it meanwhile.
    Without, for sets of many files, it is closed and opened again for every table that is asked for, and must not have been
    replaced. Raises FeatureFileError for a file that is damaged, or none of featx.
    """

    def __init__(self, path: Path, stays_open: bool = True) -> None:
        self.path = path
        self._file, self._h5 = _open_pair(path)
        try:
            with reading(path):
                self.provenance = _read_provenance(self._h5, path)
                status = os.fstat(self._file.fileno())
                self._tables = require_tables(self._h5, self._file, self.provenance, status.st_size, path)
                self.keys: list[str] = _strings(self._h5, "videos/key")
                self._identity = _identity(status)
            if not all(map(operator.lt, self.keys, itertools.islice(self.keys, 1, None))):
                raise FeatureFileError(
                    f"{path}: damaged: its keys are not in order, or one stands twice; extract again"
                )
        except BaseException:
            self.close()
            raise
        if not stays_open:
            self.close()

    @property
    def num_failures(self) -> int:
        return self._tables["failures/key"].num_rows

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a table."""
        return self._tables[name].shape

    def dtype(self, name: str) -> np.dtype:
        """The type of a table of numbers."""
        return self._tables[name].dtype

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """The file as HDF5 sees it. Raises FeatureFileError where it is another one than at first."""
        if self._h5:
            yield self._h5
            return
        file, h5 = _open_pair(self.path)
        with file, h5:
            self._require_same(file)
            yield h5

    @contextmanager
    def _opened_file(self) -> Iterator[BinaryIO]:
        if not self._file.closed:
            yield self._file
            return
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise FeatureFileError(f"{self.path}: {_why_not_opened(self.path, error)}; it was there before") from error
        with file:
            self._require_same(file)
            yield file

    def _require_same(self, file: BinaryIO) -> None:
        if _identity(os.fstat(file.fileno())) != self._identity:
            raise FeatureFileError(f"{self.path} was replaced while it was read; open it again")

    def strings(self, name: str) -> list[str]:
        with self.opened() as h5:
            return _strings(h5, name)

    def value(self, name: str, row: int) -> object:
        """One row of a column, a str or a number, without the others."""
        if name in OPTIONAL and name not in self._tables:
            return OPTIONAL[name]
        if name == "videos/key":
            return self.keys[row]
        if not self._tables[name].is_text:
            return self.array(name)[row].item()
        with self.opened() as h5:
            return h5[name].asstr()[row]

    def array(self, name: str) -> np.ndarray:
        """A table as an array that is read when it is touched: numbers are memory-mapped."""
        if name in OPTIONAL and name not in self._tables:
            return np.full(len(self.keys), OPTIONAL[name], object)
        if name == "videos/key":
            return np.array(self.keys, dtype=object)
        table = self._tables[name]
        if table.is_text:
            return np.array(self.strings(name), dtype=object)
        if table.offset is None:
            return np.empty(table.shape, table.dtype)  # no values
        with self._opened_file() as file:
            return np.memmap(file, table.dtype, mode="r", offset=table.offset, shape=table.shape)

    def rows(self, name: str, rows: int | slice) -> np.ndarray:
        """One row of a table of numbers, or some that follow one another, copied."""
        return np.array(self.array(name)[rows])

    def close(self) -> None:
        self._h5.close()
        self._file.close()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _strings(h5: h5py.File, name: str) -> list[str]:
    """A column of texts."""
    dataset = h5py.h5d.open(h5.id, name.encode())
    values = np.empty(dataset.shape, STRING)
    if len(values):
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return [value.decode() for value in values]


def _read_provenance(h5: h5py.File, path: Path) -> Provenance:
    root = h5py.h5g.open(h5.id, b"/")
    require_attributes(h5, path)
    attributes = {}
    for i in range(h5py.h5a.get_num_attrs(root)):
        attribute = h5py.h5a.open(root, index=i)
        attributes[attribute.name.decode("utf-8", "surrogateescape")] = attribute
    if "format" not in attributes or _value(attributes["format"]) != "featx":
        raise FeatureFileError(f"{path}: an HDF5 file, but not a feature file; that is what 'featx extract -o' writes")
    version = _value(attributes["format_version"]) if "format_version" in attributes else 0
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
    values = {name: _value(attributes[name]) for name in names if name in attributes}
    require_types(values, path)
    if values.get("shard"):
        parse_held(values["shard"])
    return Provenance(**values)


def _value(attribute: h5py.h5a.AttrID) -> object:
    """The value of an attribute, as `from_attribute`."""
    dtype = attribute.dtype
    values = np.zeros(attribute.shape, dtype)
    attribute.read(values)
    if h5py.check_string_dtype(dtype) and dtype.kind == "O":
        texts = [value.decode("utf-8", "surrogateescape") for value in values.flat]
        return tuple(texts) if values.ndim else texts[0]
    return from_attribute(values if values.ndim else values[()])


def _open_pair(path: Path) -> tuple[BinaryIO, h5py.File]:
    """A file, opened for mapping and by HDF5. Mapped arrays are read from this very file, also when a run renames a new one
    into its place meanwhile."""
    file = None
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without an end
            raise FeatureFileError(f"{path}: not a regular file; a feature file is what 'featx extract -o' writes")
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        h5 = h5py.File(path, "r")
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            h5.close()
            raise FeatureFileError(f"{path} was replaced while it was opened; open it again")
        return file, h5
    except (OSError, FeatureFileError, RuntimeError, KeyError, ValueError) as error:
        if file is not None:
            file.close()
        if isinstance(error, FeatureFileError):
            raise
        what = _why_not_opened(path, error)
        raise FeatureFileError(f"{path}: {what}; a feature file is what 'featx extract -o' writes") from error


def _why_not_opened(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM):
        return f"cannot be opened ({os.strerror(number)})"
    return "not an HDF5 file, or damaged"
