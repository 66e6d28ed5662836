"""Whether a file has the structure of a feature file, found before any of it is read: a stranger's file is data.

Only what featx itself writes is taken: groups and tables that lie in the file as plain bytes. Links to elsewhere, external and
virtual storage, compressed tables (whose filters are code) and references are refused, and so is every size that the file is
too short for: what is allocated never depends on a number that nothing backs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import BinaryIO

import h5py
import numpy as np

from featx.provenance import Provenance
from featx.store.attributes import read_attributes, refused, shown
from featx.store.schema import BASIS, CHECKSUM, OPTIONAL, SCHEMA, STRING

__all__ = ["Table", "require_tables", "require_types"]

NO_SUMS = 0  # rows of a block where a table has no checksums, or is none of them
MAX_OBJECTS = 10_000
MAX_DEPTH = 4
SMALL_BYTES = 2**18

# how HDF5 stores a text of any length in a table: its bytes lie elsewhere in the file
_TEXT = np.dtype([("num_bytes", "<u4"), ("address", "<u8"), ("index", "<u4")])
_TYPES = {"str": str, "int": int, "float": float, "tuple[str, ...]": str, "tuple[float, ...]": float}


def require_types(provenance: dict[str, object], path: object) -> None:
    """Raise FeatureFileError unless every field given of a Provenance-to-be has its type."""
    for f in fields(Provenance):
        if f.name not in provenance:
            continue
        value = provenance[f.name]
        values = value if f.type.startswith("tuple") else (value,)
        if not isinstance(values, tuple) or not all(type(v) is _TYPES[f.type] for v in values):
            raise refused(path, f"its attribute '{f.name}' is {str(value)[:80]!r}, which is no {f.type}")


def require_tables(
    h5: h5py.File, file: BinaryIO, provenance: Provenance, num_file_bytes: int, path: object
) -> dict[str, Table]:
    """Where every table lies. Raises FeatureFileError unless they are those of SCHEMA, whole, and lie in the file.

    `file`: the same file, to read what HDF5 does not tell.
    """
    tables = {}
    for name, dataset, attributes in _walk(h5, path):
        tables[name] = _require_plain(name, dataset, file, num_file_bytes, path)
        block_rows = attributes.get("block_rows", NO_SUMS)
        tables[name].block_rows = block_rows if isinstance(block_rows, int) and 0 < block_rows < 2**48 else NO_SUMS
    if sum(table.num_text_bytes for table in tables.values()) > num_file_bytes:
        raise refused(path, "its texts claim more bytes than the file has")
    for layer in provenance.layers:
        if not layer or "/" in layer or layer.startswith("."):
            raise refused(path, f"'{shown(layer)}' is no name of a layer")
    expected = {f"{group}/{name}": dtype for group in ("videos", "failures") for name, dtype in SCHEMA[group].items()}
    if provenance.has_clip_table:
        expected |= {f"clips/{name}": dtype for name, dtype in SCHEMA["clips"].items()}
    for name, dtype in expected.items():
        if name not in tables and name not in OPTIONAL:
            raise refused(path, f"its table {name} is missing")
        if name in tables:
            _require_type(name, tables[name], dtype, 1, path)
    matrices = {}
    if provenance.save != "clips":
        matrices |= {f"descriptors/{layer}": np.dtype("<f4") for layer in provenance.layers}
    if provenance.dtype not in ("float32", "float16") and (provenance.save != "descriptors" or provenance.bins):
        raise refused(path, f"its attribute 'dtype' is '{provenance.dtype}', not float32 or float16")
    if provenance.save != "descriptors":
        matrices |= {f"clips/{layer}": np.dtype(provenance.dtype).newbyteorder("<") for layer in provenance.layers}
    if provenance.bins:
        matrices |= {f"bins/{layer}": np.dtype(provenance.dtype).newbyteorder("<") for layer in provenance.layers}
    for name, dtype in matrices.items():
        if name not in tables:
            raise refused(path, f"its table {name} is missing")
        # a part that holds only failures has no rows that would tell
        binned = name.startswith("bins/")
        _require_type(
            name, tables[name], dtype if tables[name].num_rows else tables[name].dtype, 3 if binned else 2, path
        )
        if binned and tables[name].num_rows and tables[name].shape[1] != provenance.bins:
            raise refused(path, f"its table {name} has {tables[name].shape[1]:,} bins a video, not {provenance.bins:,}")
    _require_one_width([(name, tables[name]) for name in matrices if tables[name].num_rows], path)
    for name, table in tables.items():
        group, _, rest = name.partition("/")
        if group == "checksums":
            _require_type(name, table, CHECKSUM, 1, path)
        elif group == "basis":
            layer, _, column = rest.partition("/")
            if not layer or column not in BASIS:
                raise refused(path, f"its table {shown(name)} is no part of a basis")
            _require_type(name, table, *BASIS[column], path)
    first_of: dict[str, str] = {}
    for name in (*expected, *matrices):
        if name in tables:
            group = name.partition("/")[0]
            group = "videos" if group in ("descriptors", "bins") else group  # a row a video
            first = tables[first_of.setdefault(group, name)]
            if tables[name].shape[0] != first.shape[0]:
                raise refused(
                    path, f"its table {name} has {tables[name].shape[0]:,} rows, {first_of[group]} {first.shape[0]:,}"
                )
    if provenance.has_clip_table:
        _require_clip_rows(h5, tables["clips/start_frame"].shape[0], path)
    # what HDF5 told of types is let go: closing a file takes the longer, the more of it is held
    return {name: table.plain() for name, table in tables.items()}


@cache
def _stored(dtype: np.dtype) -> h5py.h5t.TypeID:
    """How HDF5 stores a type."""
    return h5py.h5t.py_create(dtype, logical=True)


def _require_one_width(matrices: list[tuple[str, _Table]], path: object) -> None:
    """Descriptors, clip features and bins of a layer have one number of dimensions."""
    first_of: dict[str, tuple[str, int]] = {}
    for name, table in matrices:
        first, width = first_of.setdefault(name.partition("/")[2], (name, table.shape[-1]))
        if table.shape[-1] != width:
            raise refused(path, f"its table {name} has {table.shape[-1]:,} dimensions, but {first} {width:,}")


def _require_type(name: str, table: _Table, dtype: np.dtype, ndim: int, path: object) -> None:
    """A table must be stored bit for bit as featx does: its checksums are of the bytes, and say nothing of what they mean."""
    if table.ndim != ndim or table.kind != _stored(dtype):
        shape = {1: "column", 2: "matrix", 3: "table of three dimensions"}[ndim]
        raise refused(path, f"its table {shown(name)} is {table}, not a {shape} of {_type_name(dtype)}")


def _require_clip_rows(h5: h5py.File, num_clips: int, path: object) -> None:
    """The clips of every video must be rows of the clip tables."""
    first, count = h5["videos/first_clip"][...], h5["videos/num_clips"][...]
    wrong = (first < 0) | (count < 0) | (first > num_clips) | (count > num_clips - np.clip(first, 0, num_clips))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise refused(path, f"video {i} has clips {first[i]} to {first[i] + count[i]} of {num_clips:,}")


@dataclass(frozen=True)
class Table:
    """A table's shape and type, and where in the file its numbers lie: None for texts, and for a table without rows.

    `num_text_bytes`: of all texts together. `block_rows`, of a table of checksums: the rows that each is of, else NO_SUMS.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int | None
    is_text: bool
    num_text_bytes: int = 0
    block_rows: int = NO_SUMS

    @property
    def num_rows(self) -> int:
        return self.shape[0]


class _Table:
    """A table as HDF5 tells of it, and the bytes of its texts."""

    def __init__(
        self, kind: h5py.h5t.TypeID, shape: tuple[int, ...], is_text: bool, offset: int | None, num_text_bytes: int
    ) -> None:
        self.shape, self.ndim, self.num_rows = shape, len(shape), shape[0]
        self.kind, self.is_text = kind, is_text
        self.dtype = STRING if is_text else kind.dtype
        self.offset = None if is_text else offset
        self.num_text_bytes = num_text_bytes
        self.block_rows = NO_SUMS

    def plain(self) -> Table:
        return Table(self.shape, self.dtype, self.offset, self.is_text, self.num_text_bytes, self.block_rows)

    def __str__(self) -> str:
        usual = self.kind == h5py.h5t.py_create(self.dtype.newbyteorder("<"), logical=True)
        return f"{_type_name(self.dtype)} {self.shape}" + ("" if usual else " in another layout of bits")


def _walk(h5: h5py.File, path: object) -> Iterator[tuple[str, h5py.h5d.DatasetID, dict[str, object]]]:
    """Every table of a file and its attributes, by hard links alone; each object must have one name."""
    seen: set[int] = set()
    waiting: list[tuple[str, h5py.h5g.GroupID, int]] = [("", h5py.h5g.open(h5.id, b"/"), 1)]
    while waiting:
        prefix, group, depth = waiting.pop()
        links = group.links
        for link in group:
            name = prefix + link.decode("utf-8", "replace")
            if links.get_info(link).type != h5py.h5l.TYPE_HARD:
                raise refused(path, f"'{shown(name)}' is a link to another place, which is never followed")
            item = h5py.h5o.open(group, link)
            address = h5py.h5o.get_info(item).addr
            if address in seen or len(seen) > MAX_OBJECTS or depth > MAX_DEPTH:
                raise refused(path, f"'{shown(name)}' is one name too many, or too deep")
            seen.add(address)
            if isinstance(item, h5py.h5g.GroupID):
                read_attributes(item, path, ())
                waiting.append((f"{name}/", item, depth + 1))
            elif isinstance(item, h5py.h5d.DatasetID):
                yield name, item, read_attributes(item, path, (b"block_rows",))
            else:
                raise refused(path, f"'{shown(name)}' is neither a table nor a group")


def _require_plain(name: str, dataset: h5py.h5d.DatasetID, file: BinaryIO, num_file_bytes: int, path: object) -> _Table:
    """A table must be numbers or texts, stored as they are within this file."""
    offset, kind, shape = dataset.get_offset(), dataset.get_type(), dataset.shape
    told = f"its table {shown(name)}"
    # HDF5 tells a place of what lies in one piece in this file alone; asking for it takes a tenth of asking how it is stored
    stored = dataset.get_create_plist() if offset is None else None
    if stored and (stored.get_layout() != h5py.h5d.CONTIGUOUS or stored.get_external_count() or stored.get_nfilters()):
        raise refused(
            path, f"{told} is stored in chunks, compressed, or in another file; featx stores plain tables only"
        )
    is_text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
    if not is_text and kind.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        raise refused(path, f"{told} holds neither numbers nor texts")
    if shape is None or not 1 <= len(shape) <= 3 or max(shape) >= 2**48:
        raise refused(path, f"{told} has the shape {shape}")
    num_bytes = math.prod(shape) * (_TEXT.itemsize if is_text else kind.get_size())
    if num_bytes and (offset is None or offset + num_bytes > num_file_bytes):
        raise refused(path, f"{told} claims {num_bytes:,} bytes that are not in the file, which has {num_file_bytes:,}")
    if not num_bytes:
        return _Table(kind, shape, is_text, None, 0)
    if not is_text:
        return _Table(kind, shape, is_text, offset, 0)
    if dataset.get_storage_size() != num_bytes:
        raise refused(path, f"{told} holds texts in another layout")
    if num_bytes <= SMALL_BYTES:  # mapping it takes longer
        places = np.frombuffer(os.pread(file.fileno(), num_bytes, offset), _TEXT)
    else:
        places = np.memmap(file, _TEXT, mode="r", offset=offset, shape=shape)
    return _Table(kind, shape, is_text, None, int(places["num_bytes"].sum(dtype=np.int64)))


def _type_name(dtype: np.dtype) -> str:
    return "texts" if dtype == STRING else dtype.name
