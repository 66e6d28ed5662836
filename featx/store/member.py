"""One file of a feature set: its tables, read where they lie."""

from __future__ import annotations

import errno
import io
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from featx.errors import FeatureFileError, FeatxError
from featx.provenance import Provenance
from featx.store.handles import Handles
from featx.store.plain import read_plain
from featx.store.record import Hdf5Source, Record, Stamp, examine, read_texts
from featx.store.schema import OPTIONAL, SCHEMA, STRING
from featx.store.tables import Table

__all__ = ["Member", "Moved", "reading"]

ABSENT = "no such file"
SPAN_BYTES = 2**18  # rows that lie within so much of a file are read together with what is between them


class Moved(FeatureFileError):
    """A file that went, or was replaced, before it was open: where a run has just joined it into another, look again."""


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

    Where it stays open, it is read as it was opened, also when a run renames a new one into its place or removes it meanwhile.
    One of a set of many files is closed, opened again when it is read, and must not have been replaced.
    """

    def __init__(
        self,
        path: Path,
        record: Record,
        opened: tuple[BinaryIO, h5py.File] | None = None,
        handles: Handles | None = None,
    ) -> None:
        self.path, self.record = path, record
        self._name, self._open, self._handles = os.fspath(path), opened, handles or Handles()

    @classmethod
    def open(cls, path: Path, handles: Handles | None = None) -> Member:
        """Examine a file, which then stays open, or with `handles` does not.

        Raises FeatureFileError for a file that is damaged, or none of featx.
        """
        if handles is not None:
            record = _examine_plain(path)
            if record is not None:
                return cls(path, record, handles=handles)
        file, h5 = _open_pair(path)
        try:
            with reading(path):
                record = examine(Hdf5Source(file, h5, path), file, path)
        except BaseException:
            _close(file, h5)
            raise
        if handles is None:
            return cls(path, record, (file, h5))
        _close(file, h5)
        return cls(path, record, handles=handles)

    @property
    def provenance(self) -> Provenance:
        return self.record.provenance

    @property
    def num_videos(self) -> int:
        return self.record.num_videos

    def table(self, name: str) -> Table:
        """Where a table lies."""
        return self.record.tables[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a table."""
        return self.table(name).shape

    def dtype(self, name: str) -> np.dtype:
        """The type of a table of numbers."""
        return self.table(name).dtype

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """The file as HDF5 sees it. Raises FeatureFileError where it is another one than at first."""
        if self._open:
            yield self._open[1]
            return
        file, h5 = _open_pair(self.path)
        with file, h5:
            self._require_same(file)
            yield h5

    def _file(self) -> BinaryIO | io.FileIO:
        """The file, open as long as somebody has it."""
        if self._open:
            return self._open[0]
        try:
            return self._handles.get(self._name, self._require_same)
        except OSError as error:
            raise FeatureFileError(f"{self.path}: {_why_not_opened(self.path, error)}; it was there before") from error

    def _require_same(self, file: BinaryIO | io.FileIO) -> None:
        if not self.record.stamp.is_same_file(Stamp.of(os.fstat(file.fileno()))):
            raise FeatureFileError(f"{self.path} was replaced while it was read; open it again")

    def texts(self, name: str) -> list[str]:
        """A column of texts."""
        if name in OPTIONAL and name not in self.record.tables:
            return [OPTIONAL[name]] * self.num_videos
        if name == "videos/key":
            return [key.decode() for key in self.record.keys.tolist()]
        if not self.table(name).num_text_bytes:
            return [""] * self.table(name).num_rows
        with self.opened() as h5:
            return [text.decode() for text in read_texts(h5, name)]

    def value(self, name: str, row: int) -> object:
        """One row of a column, a str or a number, without the others."""
        if name in OPTIONAL and name not in self.record.tables:
            return OPTIONAL[name]
        if name == "videos/key":
            return self.record.keys[row].decode()
        if not self.table(name).is_text:
            return self.rows(name, row).item()
        if not self.table(name).num_text_bytes:
            return ""
        with self.opened() as h5:
            return h5[name].asstr()[row]

    def array(self, name: str) -> np.ndarray:
        """A table as an array that is read when it is touched: numbers are memory-mapped."""
        if self.is_text(name):
            return np.array(self.texts(name), dtype=object)
        table = self.table(name)
        if table.offset is None:
            return np.empty(table.shape, table.dtype)  # no values
        return self._map(table)

    def rows(self, name: str, rows: int | slice) -> np.ndarray:
        """One row of a table of numbers, or some that follow one another, copied."""
        table = self.table(name)
        first, end, _ = (slice(rows, rows + 1) if isinstance(rows, int) else rows).indices(table.num_rows)
        out = np.empty((max(end - first, 0), *table.shape[1:]), table.dtype)
        if out.nbytes:
            self._read(out, table.offset + first * (out.nbytes // len(out)))
        return out[0] if isinstance(rows, int) else out

    def new(self, name: str, num_rows: int) -> np.ndarray:
        """An array for so many rows as a table has, its values undefined."""
        if self.is_text(name):
            return np.empty(num_rows, object)
        table = self.table(name)
        return np.empty((num_rows, *table.shape[1:]), table.dtype)

    def take(self, name: str, rows: np.ndarray, out: np.ndarray, places: np.ndarray, room: np.ndarray) -> None:
        """Write some rows of a table, in any order, to `out[places]`. `room`: uint8 (n,), to read them into meanwhile."""
        if self.is_text(name):
            out[places] = np.array(self.texts(name), dtype=object)[rows]
            return
        table = self.table(name)
        row_bytes = table.dtype.itemsize * math.prod(table.shape[1:])
        if row_bytes:
            self._take(table, row_bytes, rows, out, places, room)

    def _take(
        self, table: Table, row_bytes: int, rows: np.ndarray, out: np.ndarray, places: np.ndarray, room: np.ndarray
    ) -> None:
        num_rows, first, end = len(rows), int(rows[0]), int(rows[-1]) + 1
        in_order = num_rows == 1 or bool((rows[1:] > rows[:-1]).all())
        if not in_order:
            first, end = int(rows.min()), int(rows.max()) + 1
        together, num_bytes = in_order and end - first == num_rows, (end - first) * row_bytes
        if together and places[-1] - places[0] == num_rows - 1 and bool((places[1:] > places[:-1]).all()):
            self._read(out[places[0] : places[-1] + 1], table.offset + first * row_bytes)
        elif num_bytes > max(SPAN_BYTES, 2 * num_rows * row_bytes):  # few, and far from each other
            out[places] = self._map(table)[rows]
        elif num_bytes > len(room) and num_rows > 1:
            half = num_rows // 2
            self._take(table, row_bytes, rows[:half], out, places[:half], room)
            self._take(table, row_bytes, rows[half:], out, places[half:], room)
        else:
            room = room[:num_bytes] if num_bytes <= len(room) else np.empty(num_bytes, np.uint8)
            span = room.view(table.dtype).reshape(end - first, *table.shape[1:])
            self._read(span, table.offset + first * row_bytes)
            out[places] = span if together else span[rows - first]

    def _map(self, table: Table) -> np.memmap:
        file = self._file()
        try:
            return np.memmap(file, table.dtype, "r", table.offset, table.shape)
        except (ValueError, OSError) as error:
            self.require_unchanged()  # the usual reason: it became shorter
            raise FeatureFileError(
                f"{self.path}: cannot be mapped into memory ({error}); close other programs"
            ) from error

    def require_unchanged(self, since: Stamp | None = None) -> None:
        """Raise FeatureFileError where somebody wrote to the file since it was opened, or where it is not that of `since`."""
        then = self.record.stamp
        try:
            now = Stamp.of(os.fstat(self._open[0].fileno()) if self._open else os.stat(self.path))
        except OSError:  # it was removed, and what was read of it stays true
            now = then
        if (now[:2] == then[:2] and not then.is_same_file(now)) or not then.is_same_file(since or then):
            raise FeatureFileError(
                f"{self.path} was changed while it was read; 'featx check' tells whether it is whole"
            )

    def _read(self, into: np.ndarray, offset: int) -> None:
        """Fill an array that lies in one piece from the file's bytes."""
        file, left = self._file(), memoryview(into.reshape(-1).view(np.uint8))
        while len(left):
            count = _pread_into(file.fileno(), left, offset)
            if not count:
                raise FeatureFileError(f"{self.path}: damaged: it is shorter than it was; extract again")
            left, offset = left[count:], offset + count

    def is_text(self, name: str) -> bool:
        """Whether a table holds texts."""
        group, _, column = name.partition("/")
        return SCHEMA.get(group, {}).get(column) is STRING

    def close(self) -> None:
        if self._open:
            _close(*self._open)
            self._open = None


def _examine_plain(path: Path) -> Record | None:
    """The record of a file in featx's own form, as HDF5 would give it; None for any other file, also for one to refuse."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            source = read_plain(file) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
            return None if source is None else examine(source, file, path)
    except (OSError, FeatureFileError, ValueError, KeyError):
        return None


def _pread_into(descriptor: int, into: memoryview, offset: int) -> int:
    """Read from a place of a file, which no other reader's place moves; returns the number of bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [into], offset)
    data = os.pread(descriptor, len(into), offset)  # of older systems
    into[: len(data)] = data
    return len(data)


def _close(file: BinaryIO, h5: h5py.File) -> None:
    h5.close()
    file.close()


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
            raise Moved(f"{path} was replaced while it was opened; open it again")
        return file, h5
    except (OSError, FeatureFileError, RuntimeError, KeyError, ValueError) as error:
        if file is not None:
            file.close()
        if isinstance(error, FeatureFileError):
            raise
        what = _why_not_opened(path, error)
        kind = Moved if what == ABSENT or isinstance(error, FileNotFoundError) else FeatureFileError
        raise kind(f"{path}: {what}; a feature file is what 'featx extract -o' writes") from error


def _why_not_opened(path: Path, error: Exception) -> str:
    if not path.exists():
        return ABSENT
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM):
        return f"cannot be opened ({os.strerror(number)})"
    return "not an HDF5 file, or damaged"
