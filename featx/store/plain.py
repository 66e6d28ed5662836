"""What a feature file says of itself, read without the HDF5 library, which takes many times as long; for folders of many.

Only the one form is read that featx's own files have: groups in the old style, tables in one piece, attributes and texts of the
types of SCHEMA. Of anything else, however valid, `read_plain` says None, and HDF5 is asked. The layout is that of the HDF5 File
Format Specification, version 2.0 (superblock 0, object headers 1).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from featx.store.attributes import MAX_ATTRIBUTE_VALUES
from featx.store.record import attributes_problem
from featx.store.schema import SCHEMA, STRING, values_crc
from featx.store.tables import FoundTable, stored_type

__all__ = ["Plain", "read_plain"]

NOWHERE = b"\xff" * 8
MAX_BLOCKS, MAX_FREE, MAX_DEPTH = 64, 64, 4
LEAF_AND_NODE = 4 + (
    16 << 16
)  # half of the links of a leaf, and half of the leaves of a node, that HDF5 keeps room for
MAX_LINKS, MAX_LEAVES = 8, 32

# messages of an object header
NIL, DATASPACE, DATATYPE, FILL_VALUE, LAYOUT, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 0, 1, 3, 5, 8, 12, 16, 17

# a text of any length: class 9, of the kind "string" in UTF-8; 16 bytes, which tell where its bytes lie
_TEXT = bytes.fromhex("1901010010000000 1000000001000000 0000080000000000")
_TEXT_PLACE = struct.Struct("<IQI")  # its length, the collection of texts, and which of them


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


# as stored, without the two bytes that H5Tencode puts before it
_TYPES = {
    _padded(stored_type(np.dtype(code)).encode()[2:]): np.dtype(code) for code in ("<i8", "<f8", "<f4", "<f2", "<u4")
} | {_TEXT: STRING}


class _Odd(Exception):
    """The file has another form."""


def read_plain(file: BinaryIO) -> Plain | None:
    """What an open file says of itself; None where it is not in featx's own form, or damaged."""
    try:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return Plain(data, os.fstat(file.fileno()).st_size)
    except (_Odd, struct.error, LookupError, OverflowError, ValueError, OSError):
        return None


class Plain:
    """The attributes, tables and texts of a file. Raises _Odd, or what reading over the file's end raises."""

    def __init__(self, data: mmap.mmap, num_bytes: int) -> None:
        self._data, self._num_bytes = data, num_bytes
        self._collections: dict[int, dict[int, tuple[int, int]]] = {}
        self._seen: set[int] = set()
        self.attributes: dict[str, object] = {}
        self.group_attributes: dict[str, dict[str, object]] = {}
        self.tables: dict[str, FoundTable] = {}
        self._walk("", self._root(), None, 1)
        if "basis" in self.group_attributes:  # which has attributes of its own
            raise _Odd
        # whatever needs the bytes is read now: the file is closed afterwards
        names = ("videos/key", *(f"failures/{name}" for name, dtype in SCHEMA["failures"].items() if dtype is STRING))
        self._texts = {name: self._read_texts(name) for name in names if name in self.tables}
        names = ("videos/first_clip", "videos/num_clips", "failures/size_bytes", "failures/mtime_ns")
        self._numbers = {name: self._read_numbers(name) for name in names if name in self.tables}

    def texts(self, name: str) -> list[bytes]:
        """The keys of the videos, or a column of texts of the failures."""
        return self._texts[name]

    def numbers(self, name: str) -> np.ndarray:
        """Where the clips of the videos lie, or a column of numbers of the failures."""
        return self._numbers[name]

    def attributes_problem(self) -> str:
        """What is wrong with the checksum of the attributes, "" if nothing."""
        recorded = self.group_attributes.get("checksums", {}).get("attributes")
        return attributes_problem(recorded, values_crc(self.attributes, {}))

    # the groups

    def _root(self) -> int:
        data = self._data
        head = bytes.fromhex("894844460d0a1a0a 0000000000080800")
        leaf_and_node, flags, base, free, end, driver = struct.unpack_from("<IIQ8sQ8s", data, 16)
        name, address, cached, _ = struct.unpack_from("<QQII", data, 56)
        wrong = flags or base or free != NOWHERE or driver != NOWHERE or end != self._num_bytes or name or cached != 1
        if data[:16] != head or wrong or leaf_and_node != LEAF_AND_NODE:
            raise _Odd
        self._root_places = data[80:96]
        return address

    def _walk(self, prefix: str, address: int, cached: bytes | None, depth: int) -> None:
        if address in self._seen or depth > MAX_DEPTH:
            raise _Odd
        self._seen.add(address)
        messages = list(self._messages(address))
        kinds = [kind for kind, _ in messages]
        attributes = dict(self._attribute(content) for kind, content in messages if kind == ATTRIBUTE)
        if len(attributes) != kinds.count(ATTRIBUTE):
            raise _Odd
        if kinds.count(SYMBOL_TABLE) == 1 and {*kinds} <= {NIL, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE}:
            if prefix:
                self.group_attributes[prefix[:-1]] = attributes
            else:
                self.attributes, cached = attributes, self._root_places
            places = next(content for kind, content in messages if kind == SYMBOL_TABLE)
            if cached is not None and cached != places:
                raise _Odd
            for name, child, its_places in self._links(*struct.unpack("<QQ", places)):
                self._walk(f"{prefix}{name}/", child, its_places, depth + 1)
        elif cached is None and prefix:
            self._table(prefix[:-1], messages, kinds, attributes)
        else:
            raise _Odd

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """The messages of an object, type and content."""
        data = self._data
        version, reserved, num_messages, _, size = struct.unpack_from("<BBHII", data, address)
        if version != 1 or reserved:
            raise _Odd
        blocks = [(address + 16, size)]
        for start, length in blocks:
            end = start + length
            if end > self._num_bytes or len(blocks) > MAX_BLOCKS:
                raise _Odd
            while start < end:
                kind, size, flags, *zeros = struct.unpack_from("<HHBBBB", data, start)
                content = data[start + 8 : start + 8 + size]
                if flags > 1 or any(zeros) or size % 8 or len(content) != size or start + 8 + size > end:
                    raise _Odd
                if kind == CONTINUATION:
                    blocks.append(struct.unpack("<QQ", content))
                yield kind, content
                num_messages -= 1
                start += 8 + size
        if num_messages:
            raise _Odd

    def _links(self, tree: int, heap: int) -> Iterator[tuple[str, int, bytes | None]]:
        """Name and address of what a group holds, and of a group, what is said of it here already."""
        data = self._data
        signature, heap_bytes, free, names = struct.unpack_from("<8sQQQ", data, heap)
        node, kind, level, num_leaves, left, right = struct.unpack_from("<4sBBH8s8s", data, tree)
        if signature != b"HEAP\0\0\0\0" or names + heap_bytes > self._num_bytes:
            raise _Odd
        if (node, kind, level, left, right) != (b"TREE", 0, 0, NOWHERE, NOWHERE) or num_leaves > MAX_LEAVES:
            raise _Odd
        self._require_free(free, names, heap_bytes)
        before, last = b"", 0
        for i in range(num_leaves):
            key, leaf, next_key = struct.unpack_from("<QQQ", data, tree + 24 + 16 * i)
            if key != last or (i == 0 and data[names] != 0):  # by these keys HDF5 looks for a name
                raise _Odd
            signature, version, _, num_links = struct.unpack_from("<4sBBH", data, leaf)
            if signature != b"SNOD" or version != 1 or num_links > MAX_LINKS:
                raise _Odd
            for place in range(leaf + 8, leaf + 8 + 40 * num_links, 40):
                offset, address, cached, _, places = struct.unpack_from("<QQII16s", data, place)
                if offset >= heap_bytes or cached > 1:  # 2 is a link to another place
                    raise _Odd
                end = data.find(b"\0", names + offset, names + heap_bytes)
                name = data[names + offset : max(end, 0)]
                if name <= before or b"/" in name or name == b".":  # HDF5 takes such a name for a way
                    raise _Odd
                before, last = name, offset
                yield name.decode(), address, places if cached else None
            if last != next_key:
                raise _Odd

    def _require_free(self, free: int, names: int, heap_bytes: int) -> None:
        """The list of what is free among a group's names, which HDF5 goes through before it reads one."""
        for _ in range(MAX_FREE):
            if free == 1:  # its end
                return
            if free + 16 > heap_bytes:
                break
            next_free, num_bytes = struct.unpack_from("<QQ", self._data, names + free)
            if not next_free or free + num_bytes > heap_bytes:
                break
            free = next_free
        raise _Odd

    # attributes and tables

    def _attribute(self, content: bytes) -> tuple[str, object]:
        version, _, name_bytes, type_bytes, space_bytes = struct.unpack_from("<BBHHH", content)
        ends = [8]
        for size in (name_bytes, type_bytes, space_bytes):
            ends.append(ends[-1] + size + -size % 8)
        name, kind, space, value = (content[a:b] for a, b in zip(ends, [*ends[1:], None], strict=True))
        if version != 1 or name[name_bytes - 1 :].strip(b"\0") or b"\0" in name[: name_bytes - 1]:
            raise _Odd
        dtype, shape = _TYPES.get(_padded(kind)), _shape(space)
        num_values = shape[0] if shape else 1
        if dtype is None or len(shape) > 1 or num_values > MAX_ATTRIBUTE_VALUES:
            raise _Odd
        if dtype is STRING:
            if 16 * num_values > len(value):
                raise _Odd
            places = (_TEXT_PLACE.unpack_from(value, 16 * i) for i in range(num_values))
            values = [self._text(*place).decode("utf-8", "surrogateescape") for place in places]
        else:
            values = np.frombuffer(value, dtype, num_values).tolist()
        return name[: name_bytes - 1].decode(), tuple(values) if shape else values[0]

    def _table(self, name: str, messages: list[tuple[int, bytes]], kinds: list[int], attributes: dict) -> None:
        held = {kind: content for kind, content in messages if kind not in (NIL, ATTRIBUTE, CONTINUATION)}
        if {*held} != {DATASPACE, DATATYPE, FILL_VALUE, LAYOUT} or any(kinds.count(kind) != 1 for kind in held):
            raise _Odd
        shape, dtype = _shape(held[DATASPACE]), _TYPES.get(held[DATATYPE])
        version, layout, offset, num_stored = struct.unpack_from("<BBQQ", held[LAYOUT])
        fill = held[FILL_VALUE]
        if dtype is None or not 1 <= len(shape) <= 3 or max(shape) >= 2**48 or (version, layout) != (3, 1):
            raise _Odd
        if len(fill) != 8 or fill[0] != 2 or any(fill[4:]) or any(held[LAYOUT][18:]):
            raise _Odd
        num_bytes = (16 if dtype is STRING else dtype.itemsize) * int(np.prod(shape, dtype=object))
        is_there = offset + num_bytes <= self._num_bytes if num_bytes else held[LAYOUT][2:10] == NOWHERE
        if num_stored != num_bytes or not is_there:
            raise _Odd
        self.tables[name] = FoundTable(stored_type(dtype), dtype, shape, offset if num_bytes else None)
        self.tables[name].set_block_rows(attributes)
        if dtype is STRING and num_bytes:
            places = np.frombuffer(self._data[offset : offset + num_bytes], "<u4").reshape(-1, 4)
            self.tables[name].num_text_bytes = int(places[:, 0].sum(dtype=np.int64))

    # texts

    def _text(self, num_bytes: int, collection: int, number: int) -> bytes:
        offset, size = self._collection(collection)[number]
        text = self._data[offset : offset + size]
        if size != num_bytes or len(text) != size or b"\0" in text:
            raise _Odd
        return text

    def _collection(self, address: int) -> dict[int, tuple[int, int]]:
        """Where the texts of a collection lie, and their sizes."""
        if address not in self._collections:
            signature, size = struct.unpack_from("<8sQ", self._data, address)
            if signature != b"GCOL\1\0\0\0" or address + size > self._num_bytes:
                raise _Odd
            places, start, end = {}, address + 16, address + size
            while start + 16 <= end:
                number, _, _, num_bytes = struct.unpack_from("<HHIQ", self._data, start)
                if number == 0:  # what is free, up to the end: HDF5 would go on behind it
                    if start + num_bytes != end:
                        raise _Odd
                    break
                if number in places or start + 16 + num_bytes > end:
                    raise _Odd
                places[number] = start + 16, num_bytes
                start += 16 + num_bytes + -num_bytes % 8
            self._collections[address] = places
        return self._collections[address]

    def _read_texts(self, name: str) -> list[bytes]:
        table = self.tables[name]
        if table.dtype is not STRING or table.offset is None:
            return []
        stored = self._data[table.offset : table.offset + 16 * table.num_rows]
        return [self._text(*place) for place in _TEXT_PLACE.iter_unpack(stored)]

    def _read_numbers(self, name: str) -> np.ndarray:
        table = self.tables[name]
        if table.dtype is STRING or table.offset is None:
            return np.zeros(0, np.int64)
        num_bytes = table.dtype.itemsize * table.num_rows
        return np.frombuffer(self._data[table.offset : table.offset + num_bytes], table.dtype)


def _shape(space: bytes) -> tuple[int, ...]:
    version, num_dims, flags, *zeros = struct.unpack_from("<BBBBI", space)
    if version != 1 or num_dims > 3 or flags > 1 or any(zeros) or len(space) != 8 + 8 * num_dims * (1 + flags):
        raise _Odd
    sizes = struct.unpack_from(f"<{num_dims * (1 + flags)}Q", space, 8)
    if flags and sizes[:num_dims] != sizes[num_dims:]:
        raise _Odd
    return sizes[:num_dims]
