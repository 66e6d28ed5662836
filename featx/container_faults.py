"""Where a container stops making sense: readers skip such places in silence, and the frames there are lost.

The elements of MKV and WebM, the tags of FLV and the packets of MPEG streams are followed from the first to the last; only
their heads are read. MP4, MOV and AVI have an index, with which what came is compared instead.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np

__all__ = ["PACK_START", "broken_at", "program_packet_bytes", "transport_packet_bytes"]

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# what may stand in a segment: seek head, facts, tracks, cues, chapters, attachments, tags; nothing, or a checksum, anywhere
_IN_SEGMENT = {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, 0xEC, 0xBF}
# in a cluster: time, silent tracks, position, size of the one before, blocks of three kinds
_IN_CLUSTER = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF}

PACK_START = b"\0\0\1\xba"

_BLOCK_BYTES = 2**22


def broken_at(path: str | os.PathLike) -> int | None:
    """The first byte at which a container is not what its format allows; None for a sound one, or another format."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(1024)
        if start[:4] == b"\x1a\x45\xdf\xa3":
            return _ebml_broken(file, size)
        if start[:4] == b"FLV\1":
            return _tags_broken(file, size)
        if start[:4] == PACK_START:
            return _program_broken(file, size)
        packet_bytes, mark = transport_packet_bytes(start)
        return _packets_broken(file, packet_bytes, mark) if packet_bytes else None


def transport_packet_bytes(start: bytes) -> tuple[int, int]:
    """(bytes a packet, place of its mark in it) by the first 600 bytes of a file; (0, 0) for no MPEG transport stream."""
    for packet_bytes, mark in ((188, 0), (192, 4)):
        if start[mark::packet_bytes][:3] == b"GGG":
            return packet_bytes, mark
    return 0, 0


def program_packet_bytes(head: bytes) -> int:
    """How long the packet of an MPEG program stream is, or its pack header, that begins with these 14 bytes; 0 for none."""
    if len(head) < 6 or head[:3] != b"\0\0\1" or head[3] < 0xBA:
        return 0
    if head[3] > 0xBA:
        return 6 + int.from_bytes(head[4:6], "big")
    return 14 + (head[13:14] or b"\0")[0] % 8 if head[4] >> 6 == 1 else 12  # of MPEG-2, with stuffing; of MPEG-1


def _ebml_broken(file: BinaryIO, size: int) -> int | None:
    position, allowed, ends = 0, None, size  # of the file's two parts, then of the segment, then of a cluster
    while position < ends:
        file.seek(position)
        head = file.read(12)
        kind, length, head_bytes = _element(head)
        if allowed is _IN_CLUSTER and kind not in _IN_CLUSTER:  # the cluster, whose length need not be told, is over
            allowed = _IN_SEGMENT
        if not head_bytes or (allowed and kind not in allowed):
            return position
        position += head_bytes
        if kind in (_SEGMENT, _CLUSTER):
            allowed = _IN_SEGMENT if kind == _SEGMENT else _IN_CLUSTER
            if kind == _SEGMENT and length is not None:
                ends = min(size, position + length)  # something may be appended
        elif length is None:
            return position - head_bytes
        else:
            position += length
    return None


def _element(head: bytes) -> tuple[int, int | None, int]:
    """(identity, length or None where it is not told, bytes of the head); the last is 0 for what is none."""
    id_bytes = 9 - head[0].bit_length() if head else 9
    if id_bytes > 4 or len(head) <= id_bytes:
        return 0, None, 0
    length_bytes = 9 - head[id_bytes].bit_length()
    field = head[id_bytes : id_bytes + length_bytes]
    if length_bytes > 8 or len(field) < length_bytes:
        return 0, None, 0
    unknown = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(field, "big") & unknown
    return int.from_bytes(head[:id_bytes], "big"), None if length == unknown else length, id_bytes + length_bytes


def _tags_broken(file: BinaryIO, size: int) -> int | None:
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    while position + 11 <= size:
        file.seek(position)
        head = file.read(11)
        if head[0] & 0xDF not in (8, 9, 18) or head[8:] != b"\0\0\0":  # sound, picture, facts; of stream 0
            return position
        position += 11 + int.from_bytes(head[1:4], "big") + 4
    return None


def _program_broken(file: BinaryIO, size: int) -> int | None:
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(14)
        num_bytes = program_packet_bytes(head)
        if not num_bytes:
            at_end = head[:4] == b"\0\0\1\xb9" or not any(head)  # the end code, or padding
            return None if at_end else position
        position += num_bytes
    return None


def _packets_broken(file: BinaryIO, packet_bytes: int, mark: int) -> int | None:
    file.seek(0)
    position = 0
    while block := file.read(_BLOCK_BYTES // packet_bytes * packet_bytes):
        wrong = np.flatnonzero(np.frombuffer(block, np.uint8)[mark::packet_bytes] != 0x47)
        if len(wrong):
            return position + int(wrong[0]) * packet_bytes
        position += len(block)
    return None
