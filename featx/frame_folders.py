"""Folders of numbered images that stand for a video: which they are, and which images make which frame. No pictures here.

    000001.jpg 000002.jpg ...                    frames
    image_00000.png image_00001.png ...          frames
    flow_x_00001.jpg flow_y_00001.jpg ...        optical flow: two prefixes that differ in one letter, x and y
    img_00001.jpg flow_x_00001.jpg ...           both; the checkpoint takes its own

An image belongs to a video where its name is a prefix and a number. Frames come in the order of their numbers, which start
at 0 or 1 and leave no gap. Whatever else is found among them is an error, so that no frame is lost in silence.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from featx.errors import VideoError

__all__ = ["IMAGE_SUFFIXES", "FrameFolder", "file_stamp", "first_number", "holds_frames", "read_frame_folder"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)", re.DOTALL)


@dataclass(frozen=True)
class FrameFolder:
    """The frames of a folder in order: the one image of each, or the two of optical flow, x before y.

    `first_number` is the number in the name of the first one, 0 or 1.
    """

    path: Path
    first_number: int
    frames: tuple[tuple[Path, ...], ...]


def holds_frames(names: Iterable[str], at_least: int = 1) -> bool:
    """Whether a folder with files of these names is one of numbered images, of which there must be `at_least` so many."""
    return sum(_number(name) is not None for name in names) >= at_least


def read_frame_folder(folder: str | os.PathLike, flow: bool = False) -> FrameFolder:
    """Find the frames in a folder, or with `flow` those of its optical flow, by names alone.

    Raises VideoError for a folder without them, images that belong to no or to another numbering, and gaps.
    """
    folder = Path(folder)
    series: dict[str, list[str]] = defaultdict(list)
    for name in sorted(_image_names(folder)):
        prefix, number = _number(name) or (name, None)
        series[prefix] += [] if number is None else [name]
    if not any(series.values()):
        raise VideoError("a folder without numbered images, such as 000001.jpg or frame-12.png")
    for stranger in (prefix for prefix, names in series.items() if not names):
        raise VideoError(f"holds {stranger} among its numbered images; move what is no frame elsewhere")
    pairs = [(x, y) for x in series for y in series if _is_flow_pair(x, y)]
    if len(pairs) > 1:
        raise VideoError(f"holds two optical flows, {pairs[0][0]}… and {pairs[1][0]}…; keep one")
    in_flow = pairs[0] if pairs else ()
    plain = [prefix for prefix in series if prefix not in in_flow]
    if len(plain) > 1:
        raise VideoError(
            f"holds images of two namings, such as {series[plain[0]][0]} and {series[plain[1]][0]}; keep one"
        )
    if flow and not pairs:
        raise VideoError(
            "holds frames, but this checkpoint takes optical flow: images such as flow_x_00001.jpg with flow_y_00001.jpg"
        )
    if not flow and not plain:
        raise VideoError(f"holds optical flow ({in_flow[0]}…, {in_flow[1]}…), but this checkpoint takes frames")
    if not flow and _is_half_a_flow(plain[0]):
        raise VideoError(f"holds one half of an optical flow only, {plain[0]}…; the other is missing")
    columns = [_in_order(series[prefix]) for prefix in (in_flow if flow else plain)]
    if len({(column[0][0], len(column)) for column in columns}) > 1:
        x, y = columns
        ranges = [f"{column[0][1]} to {column[-1][1]}" for column in (x, y)]
        raise VideoError(f"holds flow from {ranges[0]}, but from {ranges[1]}; each frame needs both")
    frames = zip(*([folder / name for _, name in column] for column in columns), strict=True)
    return FrameFolder(folder, columns[0][0][0], tuple(frames))


def first_number(path: str | os.PathLike, flow: bool = False) -> int:
    """The number of a video's first frame: of the first image in a folder, 0 in a file. Raises as `read_frame_folder`."""
    return read_frame_folder(path, flow).first_number if os.path.isdir(path) else 0


def file_stamp(path: str | os.PathLike) -> tuple[int, int]:
    """(size in bytes, time of change in ns) of a file; of a folder, the sum and the latest of its images'.

    Raises OSError where there is none.
    """
    if not os.path.isdir(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    with os.scandir(path) as entries:
        found = [entry.stat() for entry in entries if _is_image(entry.name)]
    return sum(status.st_size for status in found), max((status.st_mtime_ns for status in found), default=0)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _image_names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if _is_image(name)]
    except OSError as error:
        raise VideoError(f"the folder cannot be read: {error.strerror}") from error


def _number(name: str) -> tuple[str, int] | None:
    """Prefix and number of an image's name; None for other files."""
    match = _NUMBERED.fullmatch(os.path.splitext(name)[0]) if _is_image(name) else None
    return (match["prefix"], int(match["number"])) if match else None


def _is_flow_pair(x: str, y: str) -> bool:
    """Whether two prefixes differ in one letter only, x in the first and y in the second."""
    different = [pair for pair in zip(x, y, strict=False) if pair[0] != pair[1]]
    return len(x) == len(y) and different in ([("x", "y")], [("X", "Y")])


def _is_half_a_flow(prefix: str) -> bool:
    """Whether a prefix without its partner is that of optical flow, such as flow_x_ or x_."""
    return re.fullmatch(r"(.*[^a-z])?(flow)?[xy][^a-z0-9]*", prefix.lower(), re.DOTALL) is not None


def _in_order(names: list[str]) -> list[tuple[int, str]]:
    """(number, name) of the images of one naming, by number. Raises VideoError unless they are whole and alike."""
    numbered = sorted((_number(name)[1], name) for name in names)
    suffixes = {os.path.splitext(name)[1].lower(): name for name in names}
    if len(suffixes) > 1:
        first, second = list(suffixes.values())[:2]
        raise VideoError(f"holds images of two kinds, such as {first} and {second}; keep one")
    start, first = numbered[0]
    if start > 1:
        raise VideoError(f"its first image is {first}; numbers start at 0 or 1, so those before it are missing")
    for expected, (number, name) in enumerate(numbered, start):
        if number < expected:
            raise VideoError(f"two images have the number {number}: {numbered[expected - start - 1][1]} and {name}")
        if number > expected:
            raise VideoError(f"a gap in the numbers: {name} comes after {numbered[expected - start - 1][1]}")
    return numbered
