"""What a search found, as records that print and save themselves."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from featx.csv_lines import csv_writer
from featx.features import Failure
from featx.small_files import write_text

__all__ = ["Answer", "Duplicates", "Hit", "Moment", "Pair", "SearchResult"]


@dataclass(frozen=True)
class Moment:
    """Where a clip lies: source frames, `end_frame` exclusive, and seconds from the video's first frame, NaN where unknown."""

    start_frame: int
    end_frame: int
    start_seconds: float
    end_seconds: float

    def as_dict(self) -> dict[str, int | float | None]:
        """For JSON, which knows no NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Hit:
    """One neighbour: the video's key and the cosine, -1 to 1.

    Where moments were searched, `moment` is that of the neighbour, and `query_moment` the one of the query that is nearest.
    """

    rank: int
    key: str
    cosine: float
    moment: Moment | None = None
    query_moment: Moment | None = None

    def as_dict(self) -> dict:
        record: dict = {"rank": self.rank, "key": self.key, "cosine": self.cosine}
        if self.moment is not None:
            record |= {"moment": self.moment.as_dict(), "query_moment": self.query_moment.as_dict()}
        return record


@dataclass(frozen=True)
class Answer:
    """The neighbours of one query, best first: `query` is a key of the file, or, with `made`, the path of a video.

    `made` says how that video's features were made; it is empty for a key. `num_clips`: how many clips of the query were
    compared, 0 where videos were.
    """

    query: str
    made: str
    num_clips: int
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class SearchResult:
    """The answers to all queries, in their order, without those of videos that failed; `unit` is "video" or "clip".

    `num_rows`: how many videos, or clips, were searched; `notes`: what a reader must know.
    """

    features: str
    checkpoint: str
    layer: str
    unit: str
    num_rows: int
    answers: tuple[Answer, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """All of it as plain JSON values."""
        head = {name: getattr(self, name) for name in ("features", "checkpoint", "layer", "unit", "num_rows")}
        answers = [
            {"query": a.query, "made": a.made, "num_clips": a.num_clips, "hits": [hit.as_dict() for hit in a.hits]}
            for a in self.answers
        ]
        failures = [{"key": f.key, "path": f.path, "reason": f.reason} for f in self.failures]
        return {**head, "answers": answers, "failures": failures, "notes": list(self.notes)}

    def save_csv(self, path: str | os.PathLike) -> None:
        """Write a table, a line a hit: query, rank, key, cosine, and for moments the frames and seconds of both."""
        places = ("start_frame", "end_frame", "start_seconds", "end_seconds") if self.unit == "clip" else ()
        header = ("query", "rank", "key", "cosine", *places, *(f"query_{name}" for name in places))
        rows = (
            (a.query, h.rank, h.key, h.cosine, *_values(h.moment, places), *_values(h.query_moment, places))
            for a in self.answers
            for h in a.hits
        )
        _save_csv(path, header, rows)


@dataclass(frozen=True)
class Pair:
    """Two videos and their cosine; `first` is the lesser key."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True)
class Duplicates:
    """All pairs of videos whose cosine is at least `threshold`, nearest first, and the groups that they join.

    A group holds every video that a chain of pairs leads to; its keys are sorted, and so are the groups, by their first keys.
    """

    features: str
    checkpoint: str
    layer: str
    threshold: float
    num_rows: int
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """All of it as plain JSON values."""
        return asdict(self)

    def save_csv(self, path: str | os.PathLike) -> None:
        """Write a table, a line a pair: group (its number, from 1), first, second, cosine."""
        number = {key: i for i, group in enumerate(self.groups, 1) for key in group}
        rows = ((number[pair.first], pair.first, pair.second, pair.cosine) for pair in self.pairs)
        _save_csv(path, ("group", "first", "second", "cosine"), rows)


def _values(moment: Moment | None, names: Sequence[str]) -> list:
    return ["" if value is None else value for value in moment.as_dict().values()] if names else []


def _save_csv(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
