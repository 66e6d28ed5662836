"""The lists of the C3D tool for Caffe: a clip a line, as ``path start_frame label``.

    videos/a.avi 0 3            a video file: the first frame is 0
    videos/a.avi 16 3
    frames/b/ 1 7               a folder of images: the number in the name of the clip's first image

The lines of one video belong together wherever they stand; their label must be one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from featx.errors import UsageError
from featx.lists import read_text

__all__ = ["ListedVideo", "is_clip_line", "read_c3d_lists"]

_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<start>\d{1,18})\s+(?P<label>-?\d{1,18})")


@dataclass
class ListedVideo:
    """A video of a list: the starts of its clips, as the list numbers frames, rising; `label` is the number as written."""

    path: Path
    label: str
    starts: list[int] = field(default_factory=list)


def is_clip_line(line: str) -> bool:
    """Whether a line has the form of these lists."""
    return _LINE.fullmatch(line.strip()) is not None


def read_c3d_lists(lists: Iterable[str | os.PathLike]) -> list[ListedVideo]:
    """The videos of some lists, in the order in which they first come.

    Raises UsageError for a line of another form, a clip that is listed twice, and a video with two labels.
    """
    videos: dict[str, ListedVideo] = {}  # by what the path leads to: a/b and a/../a/b are one video
    places: dict[str, dict[int, str]] = {}  # path -> start -> where that clip is listed
    for list_file in map(Path, lists):
        for number, line in enumerate(read_text(list_file).split("\n"), start=1):
            if not line.strip():
                continue
            place = f"{list_file}, line {number}"
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise UsageError(
                    f"{place}: '{line.strip()}' is not 'path start_frame label', the last two whole numbers; "
                    "correct it, or name a list of "
                    "paths with --list"
                )
            path, start, label = Path(match["path"]), int(match["start"]), str(int(match["label"]))
            identity = os.path.abspath(path)
            video = videos.setdefault(identity, ListedVideo(path, label))
            listed = places.setdefault(identity, {})
            if start in listed:
                raise UsageError(
                    f"{place}: the clip of {path} from {start} on is listed already ({listed[start]}); drop one"
                )
            if label != video.label:
                first = next(iter(listed.values()))
                raise UsageError(
                    f"{place}: {path} has the label {label}, but {video.label} in {first}; a video has one"
                )
            listed[start] = place
    if not videos:
        raise UsageError("the list names no clips; it holds 'path start_frame label' a line")
    for identity, video in videos.items():
        video.starts = sorted(places[identity])
    return list(videos.values())
