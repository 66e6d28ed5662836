"""The rows of a layer as they lie in the files of a set, mapped and read in small steps, for whoever reads all of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from featx.errors import FeatureFileError
from featx.store.member import Member
from featx.store.reader import FeatureSet

__all__ = ["Piece", "pieces"]


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows that one file of a set holds of a layer.

    `read` gives them as a matrix of `shape` (n, D) and `dtype`, memory-mapped; `places` int64 (n,): which row of the set each
    of them is, -1 for one that a later file has taken the place of. `sums` are the checksums of every `block_rows` rows.
    """

    path: Path
    name: str
    read: Callable[[], np.ndarray]
    shape: tuple[int, int]
    dtype: np.dtype
    places: np.ndarray
    block_rows: int
    sums: np.ndarray

    @property
    def num_blocks(self) -> int:
        return len(self.sums)

    def steps(self, block: int, max_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """One block as (rows (m, D), places (m,)), at most `max_rows` rows at a time.

        Raises FeatureFileError at its end where the block is not what was written; nothing may be told of it before.
        """
        first, end = block * self.block_rows, min((block + 1) * self.block_rows, self.shape[0])
        matrix = self.read()  # mapped for this block only: of many files, few are open at once
        crc = 0
        for start in range(first, end, max_rows):
            rows = slice(start, min(start + max_rows, end))
            values = np.ascontiguousarray(matrix[rows])
            crc = zlib.crc32(values, crc)
            yield values, self.places[rows]
        if crc != self.sums[block]:
            raise FeatureFileError(f"{self.path}: damaged: rows {first} to {end} of {self.name}; extract again")


def pieces(features: FeatureSet, layer: str, clips: bool = False) -> list[Piece]:
    """Where the descriptors of a layer, or with `clips` its clip features, lie; together they have every row of the set once.

    Raises UnknownNameError and UsageError for what the set does not hold, FeatureFileError where checksums are missing.
    """
    features.require_rows(layer, clips)
    found, places_of = [], _Places(features, clips)
    for number, member in enumerate(features._members):
        name = f"{'clips' if clips else 'descriptors'}/{layer}"
        table = member.table(name)
        if not table.num_rows:
            continue
        recorded = member.record.tables.get(f"checksums/{name}")
        if (
            recorded is None
            or not recorded.block_rows
            or recorded.num_rows != -(-table.num_rows // recorded.block_rows)
        ):
            raise FeatureFileError(f"{member.path}: damaged: {name} has no checksums of its rows; extract again")
        places = places_of.member(number, member, table.num_rows)
        sums = member.rows(f"checksums/{name}", slice(None))
        found.append(
            Piece(
                *(member.path, name, partial(member.array, name), table.shape, table.dtype, places),
                recorded.block_rows,
                sums,
            )
        )
    return found


class _Places:
    """The rows of the set that the rows of its files are."""

    def __init__(self, features: FeatureSet, clips: bool) -> None:
        self._first_row, self._video_of_row = features._order.first_row, features._order.video_of_row()
        self._counts = features.column("num_clips") if clips and len(features) else None
        self._firsts = np.cumsum(self._counts) - self._counts if self._counts is not None else None

    def member(self, number: int, member: Member, num_rows: int) -> np.ndarray:
        """The row of the set that each row of a file is, int64 (num_rows,), -1 for none."""
        videos = self._video_of_row[self._first_row[number] : self._first_row[number + 1]]
        if self._counts is None:
            return videos if num_rows == len(videos) else np.full(num_rows, -1, np.int64)
        places = np.full(num_rows, -1, np.int64)
        held = np.flatnonzero(videos >= 0)
        videos = videos[held]
        own_firsts, own_counts = member.array("videos/first_clip")[held], self._counts[videos]
        inside = np.arange(own_counts.sum()) - np.repeat(np.cumsum(own_counts) - own_counts, own_counts)
        places[np.repeat(own_firsts, own_counts) + inside] = np.repeat(self._firsts[videos], own_counts) + inside
        return places
