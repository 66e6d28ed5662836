"""The keys of many videos: a sequence of str that holds their bytes, since ten million Python texts would fill the memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

__all__ = ["Keys", "Texts"]

AT_ONCE = 4096  # texts that are made at once where all of them are gone through


class Texts:
    """Texts in UTF-8 behind one another: `data`, and in int64 (n + 1,) `starts` where each begins, the last being the end."""

    def __init__(self, data: bytes | memoryview, starts: np.ndarray) -> None:
        self.data, self.starts = memoryview(data), starts

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        """Those texts, in their order."""
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=starts[1:])
        return cls(b"".join(texts), starts)

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Those of several, behind one another."""
        if len(parts) == 1:
            return parts[0]
        starts, first = [np.zeros(1, np.int64)], 0
        for part in parts:
            starts.append(part.starts[1:] - part.starts[0] + first)
            first += part.num_bytes
        return cls(b"".join(part.bytes for part in parts), np.concatenate(starts))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> bytes:
        return bytes(self.data[self.starts[i] : self.starts[i + 1]])

    def part(self, first: int, end: int) -> Texts:
        """Those from `first` to before `end`, without a copy."""
        return Texts(self.data, self.starts[first : end + 1])

    @property
    def num_bytes(self) -> int:
        return int(self.starts[-1] - self.starts[0])

    @property
    def bytes(self) -> memoryview:
        """All of them, behind one another."""
        return self.data[self.starts[0] : self.starts[-1]]

    def take(self, places: np.ndarray) -> list[bytes]:
        """Some of them."""
        data, starts = self.data, self.starts
        return [bytes(data[a:b]) for a, b in zip(starts[places].tolist(), starts[places + 1].tolist(), strict=True)]

    def tolist(self) -> list[bytes]:
        data = bytes(self.bytes)
        return [data[a:b] for a, b in pairwise((self.starts - self.starts[0]).tolist())]


class Keys(Sequence[str]):
    """Keys in ascending order, each made a str when it is asked for; equal to a list of the same keys.

    `order`: int64 (V,), which of `texts` each of them is; None where they are all of them, in their order.
    """

    def __init__(self, texts: Texts, order: np.ndarray | None = None) -> None:
        self._texts, self._order = texts, order

    def __len__(self) -> int:
        return len(self._texts) if self._order is None else len(self._order)

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            places = np.arange(len(self))[i] if i.step not in (None, 1) else np.arange(*i.indices(len(self)))
            return self._take(places)
        number = range(len(self))[i]  # IndexError, and from behind
        return self._texts[number if self._order is None else int(self._order[number])].decode()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self._take(np.arange(start, min(start + AT_ONCE, len(self))))

    def __contains__(self, key: object) -> bool:
        return self.find(key) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keys | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Keys({shown}, … {len(self)} keys)" if len(self) > 3 else f"Keys({shown})"

    def find(self, key: object) -> int | None:
        """The place of a key; None where it is none of them."""
        if not isinstance(key, str):
            return None
        i = bisect_left(self, key)
        return i if i < len(self) and self[i] == key else None

    def _take(self, places: np.ndarray) -> list[str]:
        return [text.decode() for text in self._texts.take(places if self._order is None else self._order[places])]
