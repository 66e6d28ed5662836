"""Whether a container file is as long as it says it is: a cut file often decodes without any error.

Only lengths are read, a few bytes each: RIFF chunks (AVI), boxes (MP4, MOV), the EBML segment (MKV, WebM). Other
formats have no length to compare with.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

__all__ = ["missing_bytes"]


def missing_bytes(path: str | os.PathLike) -> int:
    """How many bytes of the file's own declared length are not there; 0 for a whole file or an unknown format."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(12)
        if start[:4] == b"RIFF":
            return _riff_missing(file, size)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _boxes_missing(file, size)
        if start[:4] == b"\x1a\x45\xdf\xa3":
            return _ebml_missing(file, size)
    return 0


def _riff_missing(file: BinaryIO, size: int) -> int:
    """AVI: one RIFF chunk, or several of at most 1 GB in a row (OpenDML)."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or length in (0, 0xFFFFFFFF):  # something appended; a writer that could not seek back
            return 0
        position += 8 + length + length % 2
    # the padding byte of the last chunk is often left out
    return max(position - size - 1, 0)


def _boxes_missing(file: BinaryIO, size: int) -> int:
    """MP4, MOV: boxes of 32-bit or, marked by 1, 64-bit length; length 0 reaches to the end of the file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, _name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            wide = file.read(8)
            if len(wide) < 8:
                return 0
            length = struct.unpack(">Q", wide)[0]
        if length < 8:
            return 0
        position += length
    return max(position - size, 0)


def _ebml_missing(file: BinaryIO, size: int) -> int:
    """MKV, WebM: the EBML header, then one segment; a length of all ones is unknown (a live recording)."""
    position = 0
    for _ in range(2):
        file.seek(position)
        head = file.read(12)
        id_bytes = _leading_zeros(head[:1]) + 1
        length_bytes = _leading_zeros(head[id_bytes : id_bytes + 1]) + 1
        field = head[id_bytes : id_bytes + length_bytes]
        if id_bytes > 4 or length_bytes > 8 or len(field) < length_bytes:
            return 0
        length = int.from_bytes(field, "big") & ~(1 << (7 * length_bytes))
        if length == (1 << (7 * length_bytes)) - 1:
            return 0
        position += id_bytes + length_bytes + length
    return max(position - size, 0)


def _leading_zeros(byte: bytes) -> int:
    return 8 - byte[0].bit_length() if byte else 8
