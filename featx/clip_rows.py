"""The clip features of one video while they arrive: in memory while they are few, in an unnamed file when they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from featx.errors import FeatxError

__all__ = ["ClipRows"]

MEMORY_BYTES = 32 * 2**20  # a layer and video; about an hour of pool5, some minutes of C3D's fc6


class ClipRows:
    """Rows of `num_dims` numbers, appended one by one, so that an hour of video needs no more memory than a minute.

    Raises FeatxError where the folder of temporary files has no room.
    """

    def __init__(self, num_dims: int, dtype: np.dtype) -> None:
        self._num_dims, self._dtype = num_dims, dtype
        self._num_rows = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed with its last reader

    def append(self, row: np.ndarray) -> None:
        """Add a row (D,), as the dtype given."""
        with _room():
            self._file.write(row.astype(self._dtype, copy=False).tobytes())
        self._num_rows += 1

    def result(self) -> np.ndarray:
        """All rows, (M, D): in memory, or mapped from the file."""
        shape = (self._num_rows, self._num_dims)
        if self._num_rows * self._num_dims * self._dtype.itemsize <= MEMORY_BYTES:
            self._file.seek(0)
            return np.frombuffer(self._file.read(), self._dtype).reshape(shape)
        with _room():
            return np.memmap(self._file, self._dtype, mode="r", shape=shape)


@contextmanager
def _room() -> Iterator[None]:
    """Raise FeatxError for what the system says of the folder of temporary files."""
    try:
        yield
    except OSError as error:
        raise FeatxError(
            f"the clip features of a video cannot be kept in {tempfile.gettempdir()} until it ends: {error.strerror or error}; "
            "make room there, or name another folder with the variable TMPDIR; the same command goes on"
        ) from error
