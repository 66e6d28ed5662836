"""Caffe's binary files, read without Caffe. They are protocol buffers: fields, each a tag and a value, where

    tag    varint (number << 3) | wire type
    value  wire type 0: varint; 1: eight bytes; 2: varint length and so many bytes; 5: four bytes

Two dialects number their fields differently. Only these are read, and every other field is passed over:

    message           field           A: C3D-v1.0          B: BVLC, C3D-v1.1, P3D
    NetParameter      layers          2                    100, or 2 in older files (V1)
    LayerParameter    name, blobs     4, 6                 1, 7; V1 as A
                      V0 layer        1                    1 (in V1 only)
    V0LayerParameter  name, blobs     1, 50                1, 50
    BlobProto         shape           1 to 5 (5-D)         7 {dims 1}, or 1 to 4 in older files (4-D)
                      values          6 (float)            5 (float), 8 (double)

Field 5 of a BlobProto, a varint in A and numbers in B, tells which dialect it is. Numbers may be packed in one run, in
several, or stand alone, each with its tag.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from featx.errors import CheckpointError

__all__ = ["FIRST_TAGS", "read_caffe", "read_mean_cube"]

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types
WIDTHS = {EIGHT_BYTES: 8, FOUR_BYTES: 4}

# every tag that a NetParameter may begin with: name, layers, input, input_dim (two forms), force_backward, state,
# debug_info, input_shape, layer
FIRST_TAGS = (b"\x0a", b"\x12", b"\x1a", b"\x20", b"\x22", b"\x28", b"\x32", b"\x38", b"\x42", b"\xa2\x06")

# what no network comes near, so that a hostile file cannot fill the memory with empty pieces
MAX_PIECES = 100_000
MAX_NAME_BYTES = 1000
MAX_DIMENSIONS = 32  # Caffe's own limit

CHUNK = 1 << 20  # how many numbers that stand alone are taken at a time


class _Field(NamedTuple):
    """One field: `value` is the varint, or the bytes from `begin` to `end` are.

    Fields of four or eight bytes that follow each other under one tag come as one _Field of `value` numbers, of which the
    last ends at `end` and each begins `step` bytes after the one before.
    """

    number: int
    wire: int
    begin: int
    end: int
    value: int
    step: int = 0


def read_caffe(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Read the blobs of every layer that has any: layer name -> float32 arrays in the shapes that the file states.

    In shapes of dialect A a length of 0, or none, is 1. The arrays are the caller's own; nothing but them stays in
    memory. Raises CheckpointError, naming the byte, for a file that is damaged or no such file.
    """
    with _Wire(path, "weights", "Caffe weights") as wire:
        layers: dict[str, list[np.ndarray]] = {}
        for field in wire.fields(0, wire.size):
            if field.wire == LENGTH and field.number in (2, 100):
                name, blobs = _read_layer(wire, field)
                if blobs and name in layers:
                    wire.refuse(field.begin, f"is a second layer '{name}' with weights")
                if blobs:
                    layers[name] = blobs
        if not layers:
            wire.refuse(wire.size, "the file ends without a layer that has weights")
        return layers


def read_mean_cube(path: str | Path) -> np.ndarray:
    """Read a mean cube from a `.binaryproto`, a bare BlobProto (1, 3, T, h, w): float32 (3, T, h, w), BGR, 0 to 255.

    Raises CheckpointError for a file that is damaged or holds anything else.
    """
    with _Wire(path, "mean file", "Caffe mean cube") as wire:
        blob = _read_blob(wire, 0, wire.size)
        cube = blob[0] if blob.ndim == 5 and blob.shape[0] == 1 else blob
        if cube.ndim != 4 or cube.shape[0] != 3:
            wire.refuse(0, f"a blob of shape {blob.shape} begins, but must be (1, 3, T, h, w)")
        return cube


# ------------------------------------------------------------------------------------------------- messages


def _read_layer(wire: _Wire, layer: _Field) -> tuple[str, list[np.ndarray]]:
    """The name and the blobs of a LayerParameter."""
    modern = layer.number == 100
    name_number, blobs_number = (1, 7) if modern else (4, 6)
    name, blobs = "", []
    for field in wire.fields(layer.begin, layer.end):
        if field.wire != LENGTH:
            continue
        if field.number == name_number:
            name = wire.text(field)
        elif field.number == blobs_number:
            blobs.append(_read_blob(wire, field.begin, field.end, modern))
        elif field.number == 1:
            for inner in wire.fields(field.begin, field.end):  # a V0LayerParameter
                if inner.wire == LENGTH and inner.number == 1:
                    name = wire.text(inner)
                elif inner.wire == LENGTH and inner.number == 50:
                    blobs.append(_read_blob(wire, inner.begin, inner.end))
    return name, blobs


def _read_blob(wire: _Wire, begin: int, end: int, modern: bool = False) -> np.ndarray:
    """A BlobProto's values as float32 in its shape; `modern` says B where neither shape nor values tell the dialect."""
    wire.count_piece(begin)
    sizes: dict[int, int] = {}  # fields 1 to 5, where they are varints
    shapes: list[_Field] = []
    runs: dict[int, list[_Field]] = {5: [], 6: [], 8: []}
    for field in wire.fields(begin, end):
        if field.wire == VARINT and field.number <= 5:
            sizes[field.number] = field.value
        elif field.wire == LENGTH and field.number == 7:
            shapes.append(field)
        elif field.wire in (LENGTH, EIGHT_BYTES if field.number == 8 else FOUR_BYTES) and field.number in runs:
            wire.count_piece(field.begin)
            runs[field.number].append(field)
    if 5 in sizes and runs[5]:
        wire.refuse(begin, "a blob begins whose field 5 is both a width and values")
    if 5 in sizes or not (runs[5] or runs[8] or modern):
        number, shape = 6, (sizes.get(1, 0), sizes.get(2, 0), sizes.get(3, 0) or 1, sizes.get(4, 0), sizes.get(5, 0))
    else:
        number = 8 if any(run.value for run in runs[8]) else 5
        if sizes:  # as in Caffe, the older form of the shape goes before the newer
            shape = tuple(sizes.get(n, 0) for n in (1, 2, 3, 4))
        else:
            shape = wire.dims(shapes)
    return wire.values(runs[number], 8 if number == 8 else 4, shape, begin)


# ------------------------------------------------------------------------------------------------- wire format


class _Wire:
    """A file, memory-mapped, as nested runs of fields; reads nothing beyond the run that it is asked for."""

    def __init__(self, path: str | Path, what: str, form: str) -> None:
        self.path, self.what, self.form = path, what, form
        self.num_pieces = 0

    def __enter__(self) -> _Wire:
        try:
            with contextlib.ExitStack() as opened:
                self.file = opened.enter_context(open(self.path, "rb"))
                self.data = opened.enter_context(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
                self._opened = opened.pop_all()
        except OSError as error:
            raise CheckpointError(
                f"{self.what} '{self.path}' cannot be read ({error.strerror}); check the path"
            ) from None
        except ValueError:  # what mmap raises where there are no bytes at all
            raise CheckpointError(f"{self.what} '{self.path}' is empty; fetch the published file again") from None
        self.size = len(self.data)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def refuse(self, at: int, problem: str) -> NoReturn:
        raise CheckpointError(
            f"{self.what} '{self.path}' cannot be read as a {self.form} file: at byte {at:,} {problem}; "
            "fetch the published file again"
        )

    def count_piece(self, at: int) -> None:
        """Called for whatever stays in memory beside the values."""
        self.num_pieces += 1
        if self.num_pieces > MAX_PIECES:
            self.refuse(at, f"begins more than blob or run number {MAX_PIECES:,}")

    def read(self, at: int, size: int) -> bytes:
        """Bytes from the file instead of its map, whose pages would count as this program's memory."""
        self.file.seek(at)
        data = self.file.read(size)
        if len(data) != size:
            self.refuse(at, "the file became shorter while it was read")
        return data

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The varint at `at` and where it ends."""
        value = 0
        for i in range(10):  # 64 bits, seven a byte
            if at + i >= end:
                self.refuse(at, "a number is cut off")
            byte = self.data[at + i]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value, at + i + 1
        self.refuse(at, "a number has more than 64 bits")

    def fields(self, begin: int, end: int) -> Iterator[_Field]:
        """Yield the fields of the message from `begin` to `end`."""
        at = begin
        while at < end:
            tag_at = at
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                self.refuse(tag_at, f"is a field of number {number}")
            if wire == VARINT:
                value, stop = self.varint(at, end)
                yield _Field(number, wire, at, stop, value)
            elif wire == LENGTH:
                length, at = self.varint(at, end)
                if length > end - at:
                    self.refuse(tag_at, f"field {number} claims {length:,} bytes, but {end - at:,} are left")
                stop = at + length
                yield _Field(number, wire, at, stop, length)
            elif wire in WIDTHS:
                width = WIDTHS[wire]
                if width > end - at:
                    self.refuse(tag_at, f"field {number} claims {width} bytes, but {end - at:,} are left")
                step = at - tag_at + width
                count = 1 + (self._num_repeats(tag_at, at + width, step, end) if at == tag_at + 1 else 0)
                stop = at + width + (count - 1) * step
                yield _Field(number, wire, at, stop, count, step)
            else:
                self.refuse(tag_at, f"field {number} is of wire type {wire}, which Caffe does not use")
            at = stop

    def _num_repeats(self, tag_at: int, begin: int, step: int, end: int) -> int:
        """How often the tag at `tag_at` comes again, every `step` bytes from `begin`: found without a Python loop."""
        room, count, chunk = (end - begin) // step, 0, 64
        while count < room:
            first = begin + count * step
            rows = min(chunk, room - count)
            tags = np.frombuffer(self.read(first, rows * step), np.uint8)[::step]
            other = np.flatnonzero(tags != self.data[tag_at])
            if other.size:
                return count + int(other[0])
            count += rows
            chunk = min(2 * chunk, CHUNK)
        return count

    def text(self, field: _Field) -> str:
        """A layer's name."""
        if field.value > MAX_NAME_BYTES:
            self.refuse(field.begin, f"is a name of {field.value:,} bytes")
        name = self.data[field.begin : field.end].decode("utf-8", "backslashreplace")
        if not name.isprintable():
            self.refuse(field.begin, f"is the name {name!r}")
        return name

    def dims(self, shapes: list[_Field]) -> tuple[int, ...]:
        """The dimensions that BlobShapes hold, packed or one by one."""
        dims: list[int] = []
        for shape in shapes:
            for field in self.fields(shape.begin, shape.end):
                if field.number != 1 or field.wire not in (VARINT, LENGTH):
                    continue
                at, end = field.begin, field.end
                while at < end:
                    dim, at = self.varint(at, end)
                    dims.append(dim)
                    if len(dims) > MAX_DIMENSIONS:
                        self.refuse(field.begin, f"is a shape of more than {MAX_DIMENSIONS} dimensions")
        return tuple(dims)

    def values(self, runs: list[_Field], width: int, shape: tuple[int, ...], blob_at: int) -> np.ndarray:
        """The numbers of `runs` as one float32 array of `shape`; nothing is allocated before their count is right."""
        counts = []
        for run in runs:
            if run.wire == LENGTH and run.value % width:
                self.refuse(run.begin, f"are {run.value:,} bytes of values, which is no multiple of {width}")
            counts.append(run.value // width if run.wire == LENGTH else run.value)
        # an empty array's other sizes may be anything, but NumPy must be able to multiply them
        if math.prod(shape) != sum(counts) or math.prod(max(n, 1) for n in shape) >= 1 << 60:
            dims = "x".join(map(str, shape))
            self.refuse(blob_at, f"a blob of shape ({dims}) begins, but it holds {sum(counts):,} values")
        values = np.empty(sum(counts), f"<f{width}")
        done = 0
        for run, count in zip(runs, counts, strict=True):
            target = values[done : done + count]
            if run.wire == LENGTH:
                self.file.seek(run.begin)
                if self.file.readinto(target.view(np.uint8)) != run.value:
                    self.refuse(run.begin, "the file became shorter while it was read")
            else:
                for start in range(0, count, CHUNK):
                    part = target[start : start + CHUNK]
                    raw = self.read(run.begin + start * run.step, (len(part) - 1) * run.step + width)
                    part[:] = np.ndarray(len(part), target.dtype, raw, strides=(run.step,))
            done += count
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and that is refused later on
            return values.astype(np.float32, copy=False).reshape(shape)
