"""What opening a folder of many files told, kept for the next time: in the user's own cache folder, one file a folder.

    $FEATX_HOME/sets/<32 digits>.index        the digits begin the SHA-256 of the folder's path

It is never kept beside the feature files, which may come from strangers: it says that files were checked. A file counts as
known only in the very state in which it was checked (inode, size, times of modification and of change); anything else is
examined anew, and an index that is damaged, of another version of featx, or of another owner is none. It holds no feature.

    16 bytes        magic
    uint64          CRC-32 of all that follows
    5 uint64        bytes of JSON, keys, videos in order (or NO_ORDER, ALL_ROWS), tables, bytes of keys
    JSON            the rest, padded to 8 bytes
    int64 (t, 7)    tables: number of dimensions, the three of them, offset or -1, bytes of texts, rows of a checksum's block
    int64 (n + 1,)  where each key begins
    int64 (V,)      the order
    bytes           the keys
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from itertools import pairwise
from pathlib import Path

import numpy as np

from featx import __version__
from featx.durable import new_file
from featx.errors import UsageError
from featx.features import Failure
from featx.home import cache_folder
from featx.provenance import Provenance
from featx.store.keys import Texts
from featx.store.order import Order
from featx.store.record import Record, Stamp
from featx.store.schema import STRING
from featx.store.tables import Table

__all__ = ["Index"]

MAGIC = b"featx index 002\n"  # another number where a Record holds or means something else
NO_ORDER, ALL_ROWS = 2**64 - 1, 2**64 - 2
SETTLED_NS = (
    3 * 10**9
)  # a file changed so short ago may change again without other times: those of some disks go by 2 seconds
MAPPED_BYTES = 64 * 2**20  # of more than this, only what is needed is read
MOST = 200  # folders remembered


class Index:
    """What was found of a folder's files. `load` gives an empty one where there is none to be trusted."""

    def __init__(self, place: Path, head: dict | None = None, sections: Sequence[np.ndarray | memoryview] = ()) -> None:
        self._place, self._head, self._sections = os.fspath(place), head, sections
        self._provenances = [_provenance(values) for values in head["provenances"]] if head else []
        self._layouts = [_Layout(layout) for layout in head["layouts"]] if head else []
        self._rows = {name: i for i, (name, *_) in enumerate(head["files"])} if head else {}
        counts = (
            [(len(self._layouts[layout].names), keys) for _, _, layout, _, keys, *_ in head["files"]] if head else []
        )
        self._firsts = np.cumsum([(0, 0), *counts], axis=0)  # of every file, its first table and key
        self._known: list[int | None] = []  # which of the index's files each file was that was asked for; None for none

    @classmethod
    def load(cls, place: Path) -> Index:
        """The index of a folder, or of a file and its parts."""
        try:
            data = _read(_path(place))
            index = cls(place, *_parse(data))
            if index._head["place"] != os.path.abspath(place) or index._head["featx"] != __version__:
                raise ValueError
            return index
        except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
            return cls(place)

    def record(self, path: Path) -> Record | None:
        """What is known of a file in the state in which it is now; None if nothing."""
        i, stamp = self._rows.get(self._name(path)), None
        if i is not None:
            try:
                status = os.stat(path)
            except OSError:
                status = None
            if status is not None and stat.S_ISREG(status.st_mode):
                stamp = Stamp.of(status)
        if stamp is None or list(stamp[1:]) != self._head["files"][i][1]:  # a disk's number may differ each time
            self._known.append(None)
            return None
        self._known.append(i)
        _, _, layout, provenance, num_keys, failures, problem = self._head["files"][i]
        tables, starts, _, data = self._sections
        first_table, first_key = self._firsts[i].tolist()
        layout = self._layouts[layout]
        return Record(
            stamp,
            self._provenances[provenance],
            _Tables(layout, tables[first_table : first_table + len(layout.names)]),
            Texts(data, starts).part(first_key, first_key + num_keys),
            tuple(Failure(*values) for values in failures),
            problem,
        )

    def order(self, group_sizes: Sequence[int]) -> Order | None:
        """The order of the files that were asked for; None unless they are all, and as they were when it was made."""
        if not self._head or self._head["groups"] != list(group_sizes) or self._known != list(range(len(self._rows))):
            return None
        _, starts, rows, data = self._sections
        failures = tuple(Failure(*values) for values in self._head["failures"])
        return Order(Texts(data, starts), np.ascontiguousarray(self._firsts[:, 1]), rows, failures)

    def save(
        self, files: Sequence[tuple[Path, Record]], group_sizes: Sequence[int], order: Order, began_ns: int
    ) -> None:
        """Keep what was found, where it can be kept; `began_ns`: the time before the first file was looked at."""
        settled = [
            (path, record)
            for path, record in files
            if max(record.stamp.mtime_ns, record.stamp.ctime_ns) < began_ns - SETTLED_NS
        ]
        if not settled:
            return
        path = _path(self._place)
        try:
            with new_file(path, replace=True) as aside:
                os.chmod(aside, 0o600)
                named = [(self._name(path), record) for path, record in settled]
                _write(aside, self._place, named, list(group_sizes), order if len(settled) == len(files) else None)
            _forget(path.parent)
        except (OSError, UsageError, UnicodeEncodeError):
            return  # a full or read-only disk, or another run that writes it: the next time takes as long as this one

    def _name(self, path: Path) -> str:
        return os.fspath(path).removeprefix(self._place)


class _Layout:
    """The names of a file's tables, and their types: "" for texts."""

    def __init__(self, tables: list[list[str]]) -> None:
        self.names = {name: i for i, (name, _) in enumerate(tables)}
        self.dtypes = [np.dtype(code) if code else STRING for _, code in tables]
        self.are_text = [not code for _, code in tables]


class _Tables(Mapping[str, Table]):
    """The tables of a file, each made when it is asked for: of a thousand files there are forty thousand."""

    def __init__(self, layout: _Layout, numbers: np.ndarray) -> None:
        self._layout, self._numbers = layout, numbers

    def __getitem__(self, name: str) -> Table:
        i = self._layout.names[name]
        num_dims, *shape, offset, num_text_bytes, block_rows = self._numbers[i].tolist()
        is_text = self._layout.are_text[i]
        where = None if offset < 0 else offset
        return Table(tuple(shape[:num_dims]), self._layout.dtypes[i], where, is_text, num_text_bytes, block_rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.names)

    def __len__(self) -> int:
        return len(self._layout.names)


def _layout_of(tables: Mapping[str, Table]) -> tuple[tuple[str, str], ...]:
    return tuple((name, "" if table.is_text else table.dtype.str) for name, table in tables.items())


def _numbers_of(tables: Mapping[str, Table]) -> list[list[int]]:
    return [
        [
            len(table.shape),
            *(*table.shape, 0, 0)[:3],
            -1 if table.offset is None else table.offset,
            table.num_text_bytes,
            table.block_rows,
        ]
        for table in tables.values()
    ]


def _provenance(values: dict) -> Provenance:
    return Provenance(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _path(place: str | os.PathLike) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.abspath(place))).hexdigest()
    return cache_folder() / "sets" / f"{digest[:32]}.index"


def _write(
    aside: Path,
    place: str,
    files: Sequence[tuple[str, Record]],
    group_sizes: list[int],
    order: Order | None,
) -> None:
    layouts: dict[tuple, int] = {}
    provenances: dict[Provenance, int] = {}
    listed, numbers = [], []
    for name, record in files:
        layout = layouts.setdefault(_layout_of(record.tables), len(layouts))
        made = provenances.setdefault(record.provenance, len(provenances))
        failures = [astuple(failure) for failure in record.failures]
        listed.append([name, record.stamp[1:], layout, made, record.num_videos, failures, record.attributes_problem])
        numbers += _numbers_of(record.tables)
    head = {
        "place": os.path.abspath(place),
        "featx": __version__,
        "groups": group_sizes if order else [],
        "failures": [astuple(failure) for failure in order.failures] if order else [],
        "files": listed,
        "layouts": list(layouts),
        "provenances": [asdict(made) for made in provenances],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    texts = Texts.joined([record.keys for _, record in files])
    rows = order.rows if order and order.rows is not None else np.zeros(0, np.int64)
    num_ordered = NO_ORDER if not order else ALL_ROWS if order.rows is None else len(rows)
    sizes = [len(text), len(texts), num_ordered, len(numbers), texts.num_bytes]
    tables = np.array(numbers, "<i8").reshape(-1, 7)
    sections = [np.array(sizes, "<u8"), text, tables, texts.starts - texts.starts[0], rows, texts.bytes]
    crc = 0
    with open(aside, "wb") as file:
        file.write(MAGIC + bytes(8))
        for section in sections:
            section = np.ascontiguousarray(section) if isinstance(section, np.ndarray) else section
            crc = zlib.crc32(section, crc)
            file.write(section)
        file.seek(len(MAGIC))
        file.write(np.array(crc, "<u8").tobytes())


def _read(path: Path) -> bytes | mmap.mmap:
    """The bytes of an index. Raises ValueError for one that another user could have written, OSError where there is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ValueError
        return file.read() if status.st_size <= MAPPED_BYTES else mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _parse(data: bytes | mmap.mmap) -> tuple[dict, list]:
    """The JSON of an index, and its sections. Raises ValueError for one that is damaged."""
    head, view = len(MAGIC) + 8, memoryview(data)
    if view[: len(MAGIC)] != MAGIC or len(view) < head + 40:
        raise ValueError
    crc = int.from_bytes(view[len(MAGIC) : head], "little")
    if zlib.crc32(view[head:]) != crc:
        raise ValueError
    num_json, num_keys, num_ordered, num_tables, num_bytes = np.frombuffer(view[head : head + 40], "<u8").tolist()
    lengths = [num_json, 56 * num_tables, 8 * (num_keys + 1), 8 * num_ordered * (num_ordered < ALL_ROWS), num_bytes]
    ends = [head + 40]
    for length in lengths:
        ends.append(ends[-1] + length)
    if ends[-1] != len(view):
        raise ValueError
    text, tables, starts, rows, keys = (view[first:end] for first, end in pairwise(ends))
    tables, starts, rows = (np.frombuffer(part, "<i8") for part in (tables, starts, rows))
    return json.loads(bytes(text)), [tables.reshape(-1, 7), starts, None if num_ordered == ALL_ROWS else rows, keys]


def _forget(folder: Path) -> None:
    """Keep the folders that were looked at anew last."""
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.index")}
    for path in sorted(times, key=times.__getitem__)[:-MOST]:
        path.unlink(missing_ok=True)
