"""A small picture of every video, from its middle, by the decode workers; what cannot be shown has a reason instead."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from featx import decode_pool
from featx.decode_pool import DecodePool, Picture
from featx.segments import video_of
from featx.store import FeatureSet

__all__ = ["THUMBNAIL_BYTES", "Thumbnails", "find_video", "make_thumbnails"]

THUMBNAIL_BYTES = 19_000_000  # of all of them: 25 MB as text
LEAST_BYTES, MOST_BYTES = 900, 8_000  # of one
SECONDS_A_PICTURE = 20.0


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """`pictures`: video -> a WebP or JPEG file; `reasons`: video -> why it has none. A video is its place among the keys."""

    pictures: dict[int, bytes] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


def make_thumbnails(
    features: FeatureSet, near: Path, folder: Path | None = None, on_video: Callable[[], None] = lambda: None
) -> Thumbnails:
    """Take a picture of every video of a feature set from where the file says that it lies; none is an error.

    Paths are those of the extraction: relative ones are looked for below the current folder and below `near`, or all below
    `folder` instead, by key, path and name. A file whose size is not the recorded one is another video, and not shown.
    `on_video` is called after each.
    """
    columns = ("path", "size_bytes", "start_seconds", "end_seconds")
    made, wanted = Thumbnails(), []
    for i, (key, path, size, start, end) in enumerate(
        zip(features.keys, *(features.column(name).tolist() for name in columns), strict=True)
    ):
        found, reason = find_video(key, path, size, near, folder)
        if found is None:
            made.reasons[i] = reason
            on_video()
        else:
            middle = (start + end) / 2
            wanted.append((i, found, middle if math.isfinite(middle) else None))
    if wanted:
        most = min(MOST_BYTES, max(LEAST_BYTES, THUMBNAIL_BYTES // len(features)))
        flow = features.provenance.channel_order == "flow"
        num_workers = min(decode_pool.default_num_workers(), len(wanted))
        with DecodePool(num_workers, SECONDS_A_PICTURE) as pool:
            for event in pool.pictures(((path, seconds) for _, path, seconds in wanted), most, flow):
                i = wanted[event.index][0]
                if isinstance(event, Picture):
                    made.pictures[i] = event.data
                else:
                    made.reasons[i] = event.reason
                on_video()
    return made


def find_video(key: str, path: str, size_bytes: int, near: Path, folder: Path | None) -> tuple[Path | None, str]:
    """Where a video lies now, or None and why it is not taken. See `make_thumbnails`."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        return None, "an address; it is not fetched again"
    if not path:
        return None, "the feature file does not say where it lies"
    other_size = None
    for candidate in _candidates(key, path, near, folder):
        try:
            if not candidate.exists():
                continue
            found_bytes = candidate.stat().st_size
        except (OSError, ValueError):  # a name too long, or with a byte 0 in it
            continue
        if candidate.is_dir() or not size_bytes or found_bytes == size_bytes:
            return candidate, ""
        other_size = found_bytes
    if other_size is not None:
        return None, f"the file has {other_size} bytes, but had {size_bytes} when it was extracted"
    return None, "the video is not there" if folder is None else "the video is not in the folder given"


def _candidates(key: str, path: str, near: Path, folder: Path | None) -> list[Path]:
    """Places in the order in which they are tried; with `folder`, all of them lie in it."""
    spellings = [path] + ([_unescaped(path)] if "%" in path else [])
    if folder is None:
        return [
            place / text for text in spellings for place in ([Path(), near] if not os.path.isabs(text) else [Path()])
        ]
    suffix, key = PurePosixPath(path).suffix, video_of(key)
    names = [name for text in spellings for name in (text, PurePosixPath(text).name)]
    names = [name for k in dict.fromkeys((key, _unescaped(key))) for name in (k + suffix, k)] + names
    inside = [PurePosixPath(name) for name in dict.fromkeys(names)]
    return [folder / name for name in inside if not name.is_absolute() and ".." not in name.parts]


def _unescaped(text: str) -> str:
    """The path that `featx.plan.key_of` wrote as this text."""
    return re.sub("%([89A-F][0-9A-F])", lambda match: chr(0xDC00 + int(match[1], 16)), text).replace("%25", "%")
