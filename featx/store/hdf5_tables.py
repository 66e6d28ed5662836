"""The tables of a stranger's HDF5 file, found before any of it is read: what the HDF5 library tells of them.

Only what featx itself writes is taken: groups and tables that lie in the file as plain bytes. Links to elsewhere, external and
virtual storage, compressed tables (whose filters are code) and references are refused, and so is every size that the file is
too short for: what is allocated never depends on a number that nothing backs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import BinaryIO

import h5py
import numpy as np

from featx.store.attributes import read_attributes, refused, shown
from featx.store.schema import STRING
from featx.store.tables import FoundTable

__all__ = ["find_tables"]

MAX_OBJECTS = 10_000
MAX_DEPTH = 4
SMALL_BYTES = 2**18

# how HDF5 stores a text of any length in a table: its bytes lie elsewhere in the file
_TEXT = np.dtype([("num_bytes", "<u4"), ("address", "<u8"), ("index", "<u4")])


def find_tables(h5: h5py.File, file: BinaryIO, num_file_bytes: int, path: object) -> dict[str, FoundTable]:
    """Every table of a file, by name. Raises FeatureFileError for one that does not lie in the file as plain bytes.

    `file`: the same file, to read what HDF5 does not tell.
    """
    tables = {}
    for name, dataset, attributes in _walk(h5, path):
        tables[name] = _require_plain(name, dataset, file, num_file_bytes, path)
        tables[name].set_block_rows(attributes)
    return tables


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


def _require_plain(
    name: str, dataset: h5py.h5d.DatasetID, file: BinaryIO, num_file_bytes: int, path: object
) -> FoundTable:
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
    dtype = STRING if is_text else kind.dtype
    num_bytes = math.prod(shape) * (_TEXT.itemsize if is_text else kind.get_size())
    if num_bytes and (offset is None or offset + num_bytes > num_file_bytes):
        raise refused(path, f"{told} claims {num_bytes:,} bytes that are not in the file, which has {num_file_bytes:,}")
    if not num_bytes:
        return FoundTable(kind, dtype, shape, None)
    if not is_text:
        return FoundTable(kind, dtype, shape, offset)
    if dataset.get_storage_size() != num_bytes:
        raise refused(path, f"{told} holds texts in another layout")
    if num_bytes <= SMALL_BYTES:  # mapping it takes longer
        places = np.frombuffer(os.pread(file.fileno(), num_bytes, offset), _TEXT)
    else:
        places = np.memmap(file, _TEXT, mode="r", offset=offset, shape=shape)
    return FoundTable(kind, dtype, shape, offset, int(places["num_bytes"].sum(dtype=np.int64)))
