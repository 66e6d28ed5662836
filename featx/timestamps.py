"""Where every clip of a feature file lies, as a CSV file: its frames and its seconds.

    key,clip,start_frame,end_frame,start_seconds,end_seconds
    dog/000,0,0,16,0.0,0.64

Clips are counted from 0; ends are exclusive. Frames and seconds are those of the video, of the whole one where a key is a
segment; frames are counted after resampling, where frames a second were asked for. Seconds are written to the last bit, and are
empty where a video has no clock.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from featx import store
from featx.csv_lines import csv_writer
from featx.durable import sync
from featx.errors import UsageError
from featx.small_files import aside_of, require_place

__all__ = ["require_timestamps_place", "write_timestamps"]

HEADER = ("key", "clip", "start_frame", "end_frame", "start_seconds", "end_seconds")


def require_timestamps_place(path: str | os.PathLike, output: str | os.PathLike) -> None:
    """Raise UsageError where the table of the feature file `output` cannot be written, or would take another file's place."""
    path = Path(path)
    if os.path.realpath(path) == os.path.realpath(output):
        raise UsageError(f"{path} is the feature file itself; give --timestamps another name, such as {path}.csv")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder; give --timestamps the name of a file, such as {path / 'clips.csv'}")
    if require_place(path).is_file():
        try:
            with open(path, "rb") as file:
                first = file.read(len(",".join(HEADER)))
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}; choose another place") from error
        if first and first != ",".join(HEADER).encode():
            raise UsageError(f"{path} exists and is no table of clips that featx wrote; choose another name")


def write_timestamps(features_path: str | os.PathLike, path: str | os.PathLike) -> int:
    """Write the table for all videos of a feature set, at once or not at all; returns the number of clips.

    Raises UsageError for a file that does not say where its clips lie, and as `require_timestamps_place`.
    """
    path = Path(path)
    require_timestamps_place(path, features_path)
    place = require_place(path)
    aside, num_clips = aside_of(place), 0
    try:
        with (
            store.open_features(features_path, warn=False) as features,
            open(aside, "w", newline="", encoding="utf-8") as file,
        ):
            if not features.provenance.has_clip_table:
                raise UsageError(
                    f"{features_path} keeps no times of clips; extract with --timestamps, '--save clips' or '--save both'"
                )
            writer = csv_writer(file)
            writer.writerow(HEADER)
            for key in features.keys:
                table = features.clip_table(key)
                columns = (table.start_frame, table.end_frame, table.start_seconds, table.end_seconds)
                rows = zip(*(column.tolist() for column in columns), strict=True)
                for clip, (start_frame, end_frame, *seconds) in enumerate(rows):
                    shown = ("" if math.isnan(value) else repr(value) for value in seconds)
                    writer.writerow((key, clip, start_frame, end_frame, *shown))
                num_clips += len(table)
        sync(aside)
        os.replace(aside, place)
        sync(place.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another place") from error
    finally:
        aside.unlink(missing_ok=True)
    return num_clips
