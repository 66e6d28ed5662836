"""Segments: parts of longer videos that are extracted as videos of their own, and the CSV files that list them.

    path,start_seconds,end_seconds,label
    matches/final.mp4,12.5,20,HighJump        ->  the key final/000012.500-000020.000
    matches/final.mp4,18.2,31.04,LongJump

A segment holds the frames with ``start_seconds <= t < end_seconds``, where t are the seconds after the video's first frame, and
is cut into clips as if it were the whole video. Segments of one video may overlap.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from featx.errors import UsageError, VideoError
from featx.lists import read_text

__all__ = ["ListedSegment", "Segment", "is_segment_key", "read_segments", "unique_names", "video_of"]

COLUMNS = ("path", "start_seconds", "end_seconds")
MICROSECOND = 1e-6  # to which times are compared: stamps of a container are fractions, and a CSV has decimals
SLACK_SECONDS = 0.5  # that a listed end may be behind the video's: the lengths that lists go by count the sound too
MAX_SECONDS = 1e7

_KEY = re.compile(r".+/\d{6,}\.\d{3}-\d{6,}\.\d{3}")


@dataclass(frozen=True)
class Segment:
    """A part of a video, in seconds after its first frame. Raises UsageError unless 0 <= start < end, by 1 ms at least."""

    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        start, end = self.start_seconds, self.end_seconds
        if not (0 <= start < MAX_SECONDS and 0 <= end < MAX_SECONDS):  # nor NaN
            raise UsageError(f"a segment is from {start:g} to {end:g} s, but times are from 0 to {MAX_SECONDS:,.0f} s")
        if end - start < 0.001:
            raise UsageError(
                f"a segment is from {start:g} to {end:g} s, but must end after it starts, by 1 ms at least"
            )

    @property
    def name(self) -> str:
        """Its part of the key, to the millisecond: "000012.500-000020.000"."""
        return f"{self.start_seconds:010.3f}-{self.end_seconds:010.3f}"

    def holds(self, seconds: float) -> bool:
        """Whether a frame that is shown at this time belongs to it. Raises VideoError for a frame without a time."""
        _require_clock(seconds)
        return self.start_seconds - MICROSECOND <= seconds < self.end_seconds - MICROSECOND

    def end_within(self, duration_seconds: float) -> float:
        """Its end, or the video's where that comes up to SLACK_SECONDS before. Raises VideoError where it comes earlier."""
        if self.end_seconds > duration_seconds + SLACK_SECONDS:
            raise VideoError(
                f"the segment ends at {self.end_seconds:.3f} s, but the video at {duration_seconds:.3f} s; correct the list"
            )
        return min(self.end_seconds, duration_seconds)

    def require_frames(self, num_frames: int) -> None:
        """Raise VideoError for a segment without any."""
        if not num_frames:
            raise VideoError(f"no frame is shown from {self.start_seconds:.3f} to {self.end_seconds:.3f} s")

    def num_frames(self, fps: float, duration_seconds: float, most: float = math.inf) -> int:
        """How many frames it holds of a video of constant rate that begins at 0 and has at most `most`.

        Raises VideoError as an extraction would.
        """
        _require_clock(fps)
        end = self.end_within(duration_seconds)
        first, stop = (min(math.ceil((t - MICROSECOND) * fps), most) for t in (self.start_seconds, end))
        self.require_frames(stop - max(first, 0))
        return stop - max(first, 0)


def _require_clock(seconds: float) -> None:
    if math.isnan(seconds):
        raise VideoError("a folder of images has no times, so no segment in seconds can be taken from it")


@dataclass(frozen=True)
class ListedSegment:
    """A row of a list of segments; `place` says where it stands, for messages; `label` "" where there is none."""

    path: Path
    segment: Segment
    label: str
    place: str


def is_segment_key(key: str) -> bool:
    """Whether a key has the form of a segment's."""
    return _KEY.fullmatch(key) is not None


def read_segments(list_file: str | os.PathLike) -> list[ListedSegment]:
    """The rows of a CSV file of segments, in its order.

    The first line names the columns, path, start_seconds and end_seconds among them, label if there are labels; others are
    passed over, and so are empty lines. Raises UsageError, with the line, for a row that is none.
    """
    wanted = ",".join((*COLUMNS, "label"))
    try:
        reader = csv.reader(io.StringIO(read_text(list_file), newline=""), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except csv.Error as error:
        raise UsageError(f"{list_file}, line {reader.line_num}: no CSV ({error}); write {wanted} a line") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = [cell.lower() for cell in lines[0][1]] if lines else []
    if missing := [name for name in COLUMNS if header.count(name) != 1]:
        found = f"'{','.join(header)}'" if lines else "nothing"
        raise UsageError(
            f"{list_file}: its first line is {found}, but must name the columns once, here {missing[0]}; write {wanted}"
        )
    if len(lines) == 1:
        raise UsageError(f"{list_file} lists no segments; write {wanted} a line")
    return [_row(dict(zip(header, cells, strict=False)), cells, len(header), f"{list_file}, line {number}")
            for number, cells in lines[1:]]  # fmt: skip


def _row(row: dict[str, str], cells: list[str], num_columns: int, place: str) -> ListedSegment:
    if len(cells) != num_columns:
        raise UsageError(
            f"{place}: '{','.join(cells)}' has {len(cells)} cells, but the first line names {num_columns}; a path with a comma "
            "stands in quotes"
        )
    if not row["path"]:
        raise UsageError(f"{place}: '{','.join(cells)}' names no video; write its path")
    if "://" in row["path"] and not os.path.exists(row["path"]):
        raise UsageError(f"{place}: {row['path']} is an address, and segments are cut from files; fetch it yourself")
    seconds = []
    for name in COLUMNS[1:]:
        try:
            seconds.append(float(row[name]))
        except ValueError:
            raise UsageError(f"{place}: {name} is '{row[name]}', but must be a number of seconds; correct it") from None
    try:
        segment = Segment(*seconds)
    except UsageError as error:
        raise UsageError(f"{place}: {error}; correct it") from None
    return ListedSegment(Path(row["path"]), segment, row.get("label", ""), place)


def video_of(key: str) -> str:
    """The key of the video that a segment is of; other keys as they are."""
    return key.rpartition("/")[0] if is_segment_key(key) else key


def unique_names(segments: Iterable[tuple[str, ListedSegment]]) -> Iterator[tuple[str, ListedSegment]]:
    """The same pairs of key and segment. Raises UsageError for a segment of a video that is listed twice."""
    places: dict[tuple[str, Path], str] = {}
    for key, listed in segments:
        first = places.setdefault((key, listed.path), listed.place)
        if first != listed.place:
            raise UsageError(
                f"{listed.place}: the segment '{key}' is listed already ({first}); times are told apart to the millisecond, so "
                "drop one"
            )
        yield key, listed
