"""A table of a feature file: its shape and type, and where in the file it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import h5py
import numpy as np

from featx.store.schema import STRING

__all__ = ["NO_SUMS", "FoundTable", "Table", "stored_type", "type_name"]

NO_SUMS = 0  # rows of a block where a table has no checksums, or is none of them


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


class FoundTable:
    """A table as it was found in a file, before it is known to be one of featx.

    `kind`: its type as HDF5 stores it. `offset`: where its numbers, or the places of its texts, lie.
    """

    def __init__(
        self,
        kind: h5py.h5t.TypeID,
        dtype: np.dtype,
        shape: tuple[int, ...],
        offset: int | None,
        num_text_bytes: int = 0,
    ) -> None:
        self.kind, self.dtype, self.shape, self.offset = kind, dtype, shape, offset
        self.ndim, self.num_rows, self.is_text = len(shape), shape[0], dtype is STRING
        self.num_text_bytes, self.block_rows = num_text_bytes, NO_SUMS

    def set_block_rows(self, attributes: Mapping[str, object]) -> None:
        """Take from its attributes how many rows a checksum is of."""
        rows = attributes.get("block_rows")
        self.block_rows = rows if isinstance(rows, int) and 0 < rows < 2**48 else NO_SUMS

    def plain(self) -> Table:
        """What is kept of it. What HDF5 tells of types is let go: closing a file takes the longer, the more of it is held."""
        offset = None if self.is_text else self.offset
        return Table(self.shape, self.dtype, offset, self.is_text, self.num_text_bytes, self.block_rows)

    def __str__(self) -> str:
        usual = self.kind == h5py.h5t.py_create(self.dtype.newbyteorder("<"), logical=True)
        return f"{type_name(self.dtype)} {self.shape}" + ("" if usual else " in another layout of bits")


@cache
def stored_type(dtype: np.dtype) -> h5py.h5t.TypeID:
    """How HDF5 stores a type."""
    return h5py.h5t.py_create(dtype, logical=True)


def type_name(dtype: np.dtype) -> str:
    """A type, for a message."""
    return "texts" if dtype == STRING else dtype.name
