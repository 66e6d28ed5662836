"""Which row of which file each video of a set is: the keys of many files in one order, and what failed and still does."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from featx.errors import UsageError
from featx.features import Failure
from featx.store.keys import Keys, Texts
from featx.store.record import Record

__all__ = ["Order", "arrange"]


@dataclass(frozen=True, eq=False)
class Order:
    """The videos of a set. The rows of its files are numbered through, file by file.

    `first_row`: int64 (files + 1,), the number of each file's first row, and of all. `rows`: int64 (V,), which row each video
    is, or None where they are all the rows, in their order. `failures` are sorted by key.
    """

    texts: Texts
    first_row: np.ndarray
    rows: np.ndarray | None
    failures: tuple[Failure, ...]

    @property
    def keys(self) -> Keys:
        return Keys(self.texts, self.rows)

    @property
    def num_videos(self) -> int:
        return len(self.texts) if self.rows is None else len(self.rows)

    def places(self, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The file, and the row in it, of each of these videos; both int64 (n,)."""
        rows = videos if self.rows is None else self.rows[videos]
        files = np.searchsorted(self.first_row, rows, side="right") - 1
        return files, rows - self.first_row[files]

    def video_of_row(self) -> np.ndarray:
        """Which video each row is, int64 (rows,); -1 for one that a later file has taken the place of."""
        if self.rows is None:
            return np.arange(len(self.texts))
        videos = np.full(len(self.texts), -1, np.int64)
        videos[self.rows] = np.arange(len(self.rows))
        return videos


def arrange(groups: Sequence[Sequence[tuple[Path, Record]]]) -> Order:
    """The order of the videos of a set: within a group the last word on a key counts, and no key may stand in two.

    Raises UsageError for a key that does.
    """
    files = [file for group in groups for file in group]
    first_row = np.zeros(len(files) + 1, np.int64)
    np.cumsum([record.num_videos for _, record in files], out=first_row[1:])
    texts = Texts.joined([record.keys for _, record in files]) if files else Texts.of([])
    if len(files) == 1 and not files[0][1].failures:
        return Order(texts, first_row, None, ())
    keys = texts.tolist()
    rows: list[int] = []
    failures: dict[bytes, Failure] = {}
    number = 0
    for group in groups:
        if len(group) == 1 and not group[0][1].failures:
            rows += range(first_row[number], first_row[number + 1])
        else:
            where, own_failures = _last_words(group, keys, first_row[number : number + len(group)].tolist())
            rows += where.values()
            failures |= own_failures
        number += len(group)
    in_order = all(map(operator.lt, (keys[row] for row in rows), (keys[row] for row in islice(rows, 1, None))))
    if not in_order:
        rows.sort(key=keys.__getitem__)
        _require_once(rows, keys, first_row, [path for path, _ in files])
    every_row = in_order and len(rows) == len(keys)  # and so each in its place
    order = Order(texts, first_row, None if every_row else np.array(rows, np.int64), ())
    held = order.keys
    # another shard may have had more luck with a video
    kept = tuple(failures[key] for key in sorted(failures) if failures[key].key not in held)
    return Order(texts, first_row, order.rows, kept)


def _require_once(rows: list[int], keys: list[bytes], first_row: np.ndarray, paths: list[Path]) -> None:
    for a, b in pairwise(rows):
        if keys[a] == keys[b]:
            first, second = (paths[int(np.searchsorted(first_row, row, side="right")) - 1] for row in (a, b))
            raise UsageError(f"the video '{keys[a].decode()}' stands in {first} and in {second}; leave one of them out")


def _last_words(
    group: Sequence[tuple[Path, Record]], keys: list[bytes], first_rows: list[int]
) -> tuple[dict[bytes, int], dict[bytes, Failure]]:
    """key -> row, and key -> failure, of a file and its parts: what is written later takes the place of both."""
    where: dict[bytes, int] = {}
    failures: dict[bytes, Failure] = {}
    for (_, record), first in zip(group, first_rows, strict=True):
        for row in range(first, first + record.num_videos):
            where[keys[row]] = row
            failures.pop(keys[row], None)
        for failure in record.failures:
            key = failure.key.encode()
            failures[key] = failure
            where.pop(key, None)
    return where, failures
