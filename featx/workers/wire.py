"""Messages between processes of one machine: a pickle, and the arrays of it beside, written from where they lie.

    | length of the pickle | number of arrays | length of each … | pickle | array | array | …

Both ends are this very featx, so a pickle is as good as any form, and follows the records as they grow.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import struct
import tempfile
from typing import BinaryIO

__all__ = ["read_message", "write_message"]

MAPPED_BYTES = 32 * 2**20  # an array beyond this is kept in an unnamed file's pages, which the system may write out


def write_message(pipe: BinaryIO, message: object) -> None:
    """Write a message to an unbuffered pipe; waits while the reader is behind."""
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    sizes = [len(body), len(views), *(view.nbytes for view in views)]
    for view in (struct.pack(f"<{len(sizes)}Q", *sizes), body, *views):
        left = memoryview(view)
        while left:
            left = left[pipe.write(left) :]


def read_message(pipe: BinaryIO) -> object:
    """The next message of an unbuffered pipe. Raises EOFError where the writer has gone, be it within a message."""
    length, count = struct.unpack("<2Q", _read(pipe, 16))
    sizes = struct.unpack(f"<{count}Q", _read(pipe, 8 * count))
    body = _read(pipe, length)
    return pickle.loads(body, buffers=[_read(pipe, size) for size in sizes])


def _read(pipe: BinaryIO, size: int) -> bytearray | mmap.mmap:
    place = bytearray(size) if size <= MAPPED_BYTES else _mapped(size)
    with memoryview(place) as left:
        done = 0
        while done < size:
            got = pipe.readinto(left[done:])
            if not got:
                raise EOFError("the other end of the pipe is closed")
            done += got
    return place


def _mapped(size: int) -> mmap.mmap:
    try:
        with tempfile.TemporaryFile() as file:
            _reserve(file.fileno(), size)
            return mmap.mmap(file.fileno(), size)
    except OSError:  # the disk has no room: then it is memory that the system cannot write out
        return mmap.mmap(-1, size)


def _reserve(descriptor: int, size: int) -> None:
    """Make a file so large, with all of its space: pages that a full disk has none for would end the reader."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):  # of file systems without it
                raise
    os.truncate(descriptor, size)
