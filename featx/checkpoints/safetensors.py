"""The safetensors format: tensors and nothing that could run. A file is

    8 bytes   N, the length of the header (unsigned, little endian)
    N bytes   JSON: {name: {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, "__metadata__": {str: str}}
    the rest  the tensors, little endian and row-major, offsets counted from here

in which the tensors leave no gap and do not overlap.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from featx.errors import CheckpointError

__all__ = ["read_metadata", "read_safetensors", "write_safetensors"]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_DIMENSIONS = 16


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a file, in the file's order; the file is read once, and all tensors share that memory.

    Raises CheckpointError for a file that is not exactly what the format says.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            text, num_bytes = _read_header(file, path)
            entries = _parse_header(text, num_bytes, path)[0]
            data = bytearray(num_bytes)
            if file.readinto(data) != len(data):
                raise CheckpointError(f"{path}: the file became shorter while it was read; try again")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    return {name: _view(data, *entry) for name, entry in entries.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """What the header says besides the tensors; raises CheckpointError as `read_safetensors` does."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _parse_header(*_read_header(file, path), path)[1]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors in the order given; equal input gives an equal file. The file appears complete or not at all."""
    path = Path(path)
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    aside = path.with_name(path.name + ".tmp")
    try:
        with open(aside, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors.values():
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                file.write(memoryview(flat.view(torch.uint8).numpy()))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)  # of a disk that is full


def _read_header(file: BinaryIO, path: Path) -> tuple[bytes, int]:
    """The header's text, and how many bytes of data come after it."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(f"{path}: the header claims {length:,} bytes, but the file has {size:,}; fetch it again")
    return file.read(length), size - 8 - length


def _parse_header(
    text: bytes, num_bytes: int, path: Path
) -> tuple[dict[str, tuple[torch.dtype, list[int], int, int]], dict[str, str]]:
    """Check the header against the data's length; return name -> (dtype, shape, begin, end), and the metadata."""
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not valid JSON ({error}); fetch the file again") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header must be a JSON object; fetch the file again")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: '__metadata__' must map names to texts; fetch the file again")
    entries = {name: _parse_entry(name, entry, path) for name, entry in header.items()}
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise CheckpointError(
                f"{path}: '{name}' begins at byte {begin}, but must at {position}; fetch the file again"
            )
        position = end
    if position != num_bytes:
        raise CheckpointError(
            f"{path}: {num_bytes:,} bytes of data, but the header tells of {position:,}; fetch it again"
        )
    return entries, metadata


def _parse_entry(name: str, entry: Any, path: Path) -> tuple[torch.dtype, list[int], int, int]:
    try:
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        valid = (
            len(shape) <= MAX_DIMENSIONS
            and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            and math.prod(shape) * dtype.itemsize == end - begin
            and math.prod(max(n, 1) for n in shape) < 2**60  # an empty tensor's other sizes may be anything
        )
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        described = json.dumps(entry)[:120]
        raise CheckpointError(f"{path}: '{name}' is {described}, which is no possible tensor; fetch the file again")
    return dtype, shape, begin, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _view(data: bytearray, dtype: torch.dtype, shape: list[int], begin: int, end: int) -> Tensor:
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    part = torch.frombuffer(data, dtype=torch.uint8, offset=begin, count=end - begin)
    if begin % dtype.itemsize:
        part = part.clone()  # a tensor's memory must be aligned
    return part.view(dtype).reshape(shape)
