"""Whether a container file is as long as it says it is: a cut file often decodes without any error.

Only lengths are read, a few bytes each: RIFF chunks (AVI), boxes (MP4, MOV), the EBML segment (MKV, WebM), tags (FLV), the
last packets of MPEG streams. These have no length as a whole, so a cut between two packets cannot be seen. Other formats
have no length to compare with.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from featx.container_faults import PACK_START, program_packet_bytes, transport_packet_bytes

__all__ = ["VIDEO_SUFFIXES", "missing_bytes", "num_indexed"]

VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .h264 .hevc .ivf .m1v .m2t .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts "
    ".mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m".split()
)

_TAIL_BYTES = 2**18  # a program stream has a pack header in every sector of a few kB


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
        if start[:4] == b"FLV\1":
            return _tags_missing(file, size)
        if start[:4] == PACK_START:
            return _program_missing(file, size)
        return _transport_missing(file, size)


def num_indexed(path: str | os.PathLike, stream: int) -> int | None:
    """How many chunks with something in them the index of an AVI lists of a stream, counted from 0; None without an index.

    It is written last, and counts what was written; the number in the header is often wrong.
    """
    with open(path, "rb") as file:
        start = file.read(12)
        if start[:4] != b"RIFF" or start[8:] != b"AVI ":
            return None
        size, position = os.fstat(file.fileno()).st_size, 12
        while position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack("<4sI", file.read(8))
            if name == b"idx1":
                entries = file.read(min(length, size - position - 8))
                found = struct.iter_unpack("<4s8xI", entries[: len(entries) // 16 * 16])
                return (
                    sum(length > 0 and kind in (b"%02ddc" % stream, b"%02ddb" % stream) for kind, length in found)
                    or None
                )
            position += 8 + length + length % 2
    return None


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


def _tags_missing(file: BinaryIO, size: int) -> int:
    """FLV: a header, then tags: 11 bytes, their data, and 4 bytes that repeat their length."""
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    while position < size:
        file.seek(position)
        head = file.read(4)
        if head[0] & 0xDF not in (8, 9, 18):  # sound, picture, facts; anything else is no tag
            return 0
        position += 11 + int.from_bytes(head[1:], "big") + 4
    return position - size


def _program_missing(file: BinaryIO, size: int) -> int:
    """MPEG program stream (MPG, VOB): the packets after the last pack header, each with its length."""
    file.seek(max(size - _TAIL_BYTES, 0))
    tail = file.read(_TAIL_BYTES)
    position = tail.rfind(PACK_START)
    while 0 <= position < len(tail):
        num_bytes = program_packet_bytes(tail[position : position + 14])
        if not num_bytes:  # the end code, or no packet
            return 0
        position += num_bytes
    return max(position - len(tail), 0)


def _transport_missing(file: BinaryIO, size: int) -> int:
    """MPEG transport stream (TS, M2TS): packets of one length."""
    file.seek(0)
    packet_bytes, _mark = transport_packet_bytes(file.read(1024))
    return -size % packet_bytes if packet_bytes else 0
