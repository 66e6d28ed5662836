"""Features from elsewhere that come video by video: folders of npy files, HDF5 with a group a video, tables of clips.

(D,)              a descriptor; brought to unit length
(num_clips, D)    clip features, where it is told where they lie: by a table of clips, or by their length and stride;
                  else only their mean is kept, as a descriptor
"""

from __future__ import annotations

import itertools
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx import __version__
from featx.csv_lines import csv_reader
from featx.descriptors import l2_normalise, mean_descriptor
from featx.errors import FeatureFileError, UsageError
from featx.features import ClipTable, Features
from featx.parts import written_anew
from featx.plan import folders_below, key_of, utf8
from featx.provenance import ENDED, Provenance

__all__ = [
    "BROKEN",
    "CLIPS_CSV",
    "CLIP_COLUMNS",
    "Grid",
    "Video",
    "check_key",
    "clip_runs",
    "imported",
    "npy_folder",
    "shown_path",
    "unit_rows",
    "write_videos",
]

ENGINE = "imported"
# what NumPy raises for a file of its own that is cut, changed, or claims more than memory
BROKEN = (
    *(OSError, EOFError, MemoryError, KeyError, TypeError, OverflowError, SyntaxError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)
CLIP_COLUMNS = tuple(ClipTable.__dataclass_fields__)
CLIPS_CSV = "clips.csv"  # where the clips of a folder of npy files lie

Video = tuple[
    str, np.ndarray, ClipTable | None
]  # key, features (D,) or (num_clips, D), and where the clips lie if that is told


@dataclass(frozen=True)
class Grid:
    """Where clips lie that no table tells of: `length` frames each, and `stride` frames between the starts of neighbours."""

    length: int
    stride: int

    def __post_init__(self) -> None:
        for name in ("length", "stride"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, but must be a whole number of at least 1")

    def table(self, num_clips: int) -> ClipTable:
        """The places of the clips of one video; nothing is known of seconds."""
        starts, unknown = self.stride * np.arange(num_clips), np.full(num_clips, np.nan)
        return ClipTable(starts, starts + self.length, unknown, unknown)


@dataclass(frozen=True)
class Counts:
    """What `write_videos` wrote; `averaged` says that rows of clips became one descriptor."""

    num_videos: int
    num_clips: int
    num_dims: int
    num_zero: int
    averaged: bool


def write_videos(
    output: Path, videos: Iterable[Video], *, name: str, layer: str, path: Path, grid: Grid | None, overwrite: bool
) -> Counts:
    """Write videos as they come into a feature file, in bounded memory.

    Raises UsageError for keys that stand twice or are no line of text, where some videos have descriptors and some clip
    features, and for clip features that the type of the first ones would round; FeatureFileError for features of several
    lengths, and for values that are not finite.
    """
    videos = iter(videos)
    first = next(videos, None)
    if first is None:
        raise UsageError(f"no features in {path}; name what holds some")
    clips = first[1].ndim == 2
    if grid is not None and not (clips and first[2] is None):
        raise UsageError(f"{path} has descriptors, or tells where its clips lie; leave --length and --stride out")
    with_table = clips and (first[2] is not None or grid is not None)
    dtype = np.dtype(np.float16 if with_table and first[1].dtype == np.float16 else np.float32)
    where = {} if grid is None else {"length": grid.length, "stride": grid.stride, "frame_step": 1}
    made = imported(name, layer, save="both" if with_table else "descriptors", dtype=dtype.name, **where)
    num_videos = num_clips = num_zero = 0
    seen: set[str] = set()
    with written_anew(output, overwrite) as parts:
        for key, values, table in itertools.chain([first], videos):
            check_key(key, seen, path)
            _check_values(key, values, first, path)
            if dtype == np.float16 and not np.can_cast(values.dtype, dtype):
                raise UsageError(
                    f"{path}: '{key}' holds {values.dtype}, but '{first[0]}' float16, in which its values would be rounded; "
                    "save all videos in one type"
                )
            if with_table and table is None:
                table = grid.table(len(values))
            features = _features(key, values, table if with_table else None, layer, shown_path(path), dtype)
            parts.add(features, made)
            num_videos += 1
            num_clips += features.num_clips
            num_zero += not features.descriptors[layer].any()
        parts.flush(made)
    return Counts(num_videos, num_clips, first[1].shape[-1], num_zero, clips and not with_table)


def check_key(key: str, seen: set[str], what: str) -> None:
    """Raise UsageError for a key that is blank, no UTF-8 or stands among the `seen`, to which it is added."""
    if not key.strip() or "\0" in key:
        raise UsageError(f"the key of row {len(seen) + 1} of {what} is '{key}', but must be text; name the video")
    if not _is_utf8(key):
        raise UsageError(f"the key '{key}' of {what} is not UTF-8; save the keys as UTF-8 text")
    if key in seen:
        raise UsageError(f"the key '{key}' is given twice for {what}, but a video has one row; drop the others")
    seen.add(key)


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def shown_path(path: str | os.PathLike) -> str:
    """A path as feature files have it, always UTF-8; "" where there is none."""
    return key_of(path, keep_suffix=True) if os.fspath(path) else ""


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32: those that have it stay as they are, to the bit, and so do rows of zeros."""
    rows = np.asarray(rows, np.float32)
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    return np.where((np.abs(squares - 1) < 1e-6)[:, None], rows, l2_normalise(rows))


def imported(name: str, layer: str, **known: object) -> Provenance:
    """Nothing is known but the name; the empty words and zeros agree with those of no extracted file."""
    numbers = dict.fromkeys(("length", "frame_step", "num_clips_even", "crop", "batch_size"), 0)
    words = dict.fromkeys(
        (
            *("checkpoint_sha256", "variant", "short", "tail", "resize", "interpolation", "crop_offset"),
            *("mean_cube_sha256", "channel_order", "precision", "backbone"),
        ),
        "",
    )
    settled: dict[str, object] = {"stride": -1, "fps": 0.0, "scale": 0.0, "mean": (), "std": (), "arguments": "{}"}
    settled |= {"save": "descriptors", "dtype": "float32", "engine": ENGINE, "pixels_version": 0, "run": ENDED}
    return Provenance(
        checkpoint=utf8(name), layers=(layer,), featx_version=__version__, **{**numbers, **words, **settled, **known}
    )


def _check_values(key: str, values: np.ndarray, first: Video, path: str) -> None:
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiu" or not values.shape[-1]:
        raise FeatureFileError(
            f"{path}: the features of '{key}' are {values.dtype} {values.shape}, but must be numbers (dimensions) or (clips, "
            "dimensions)"
        )
    if values.ndim != first[1].ndim:
        raise UsageError(
            f"{path}: '{key}' has {values.ndim} axes, but '{first[0]}' {first[1].ndim}; read them one by one"
        )
    if values.shape[-1] != first[1].shape[-1]:
        raise FeatureFileError(
            f"{path}: '{key}' has {values.shape[-1]} dimensions, but '{first[0]}' {first[1].shape[-1]}; a layer has one number"
        )
    if not np.isfinite(values).all():
        raise FeatureFileError(
            f"{path}: the row of '{key}' holds values that are not finite; leave it out, or compute it again"
        )


def _features(
    key: str, values: np.ndarray, table: ClipTable | None, layer: str, path: str, dtype: np.dtype
) -> Features:
    with np.errstate(over="ignore"):
        kept = values.astype(dtype) if table is not None else values
        rows = values.astype(np.float32)
    if not np.isfinite(kept).all() or not np.isfinite(rows).all():
        raise FeatureFileError(f"{path}: '{key}' holds values too large for {dtype.name}; scale them down")
    if values.ndim == 1:
        descriptor = unit_rows(rows[None])[0]
    else:
        descriptor = mean_descriptor(rows) if len(rows) else np.zeros(rows.shape[1], np.float32)
    if not np.isfinite(descriptor).all():
        raise FeatureFileError(f"{path}: '{key}' holds values too large for float32; scale them down")
    if table is not None and len(table) != len(values):
        raise UsageError(f"{path}: '{key}' has {len(values)} rows, but {len(table)} clips are told of; they must agree")
    return Features(
        key=key,
        path=path,
        num_frames=0,
        num_clips=0 if table is None else len(table),
        fps=np.nan,
        duration_seconds=np.nan,
        start_seconds=np.nan,
        end_seconds=np.nan,
        descriptors={layer: descriptor},
        clips={} if table is None else {layer: kept},
        clip_table=table,
    )


# ---------------------------------------------------------------------------------------------------------- where they are


def npy_folder(folder: Path) -> Iterator[Video]:
    """The npy files of a folder and those below it, sorted; the key is the path without suffix. See CLIPS_CSV for clips."""
    paths, tables = [], {}
    # of a video without clips, which no line tells of
    nowhere = clip_table({name: np.zeros(0) for name in CLIP_COLUMNS}, folder)
    for at, names in folders_below(folder):
        paths += [at / name for name in names if name.lower().endswith(".npy") and not name.startswith(".")]
    if not paths:
        raise UsageError(f"no npy files in {folder}; name a folder that holds one a video")
    if (folder / CLIPS_CSV).exists():
        tables = _clip_tables(folder / CLIPS_CSV)
    with_tables = bool(tables)
    for path in sorted(paths):
        key = os.fspath(path.relative_to(folder).with_suffix(""))
        try:
            key.encode()
        except UnicodeEncodeError:
            key = key_of(key, keep_suffix=True)
        try:
            values = np.asarray(np.load(path, allow_pickle=False))
        except (ValueError, *BROKEN) as error:
            raise FeatureFileError(
                f"{path}: not a file of NumPy's, or one of Python objects, which are not read; save numbers"
            ) from error
        if with_tables and values.ndim == 2 and len(values) and key not in tables:
            raise UsageError(
                f"{folder / CLIPS_CSV} does not tell where the clips of '{key}' lie; add them, or take it away"
            )
        yield key, values, tables.pop(key, nowhere if with_tables and values.ndim == 2 else None)
    if tables:
        raise UsageError(
            f"{folder / CLIPS_CSV} tells where the clips of '{min(tables)}' lie, but there is no npy file of it; the folder is "
            "not whole: add the file, or take the lines away"
        )


def _clip_tables(path: Path) -> dict[str, ClipTable]:
    lines = csv_reader(path)
    if next(lines, None) != ["key", *CLIP_COLUMNS]:
        raise UsageError(
            f"{path}: its first line must be key,{','.join(CLIP_COLUMNS)}; write it so, or take the file away"
        )
    places: dict[str, list[list[float]]] = {}
    for number, line in enumerate(lines, 2):
        try:
            key, *cells = line
            start, end, first, last = cells
            places.setdefault(key, []).append([int(start), int(end), float(first), float(last)])
        except ValueError:
            raise UsageError(f"{path}, line {number}: is not key,{','.join(CLIP_COLUMNS)}; correct it") from None
    return {
        key: clip_table(dict(zip(CLIP_COLUMNS, map(np.array, zip(*rows, strict=True)), strict=True)), path)
        for key, rows in places.items()
    }


def clip_table(columns: dict[str, np.ndarray], path: str | os.PathLike) -> ClipTable:
    """Columns of any numbers as a clip table's. Raises FeatureFileError for frames that are none."""
    kinds = {name: np.int64 if name.endswith("_frame") else np.float64 for name in CLIP_COLUMNS}
    try:
        given = {name: np.asarray(columns[name]).astype(np.float64) for name in CLIP_COLUMNS}
    except (ValueError, TypeError):
        raise FeatureFileError(f"{path}: the places of clips are not all numbers; correct them") from None
    if len({values.shape for values in given.values()}) != 1:
        raise FeatureFileError(f"{path}: the columns that tell where clips lie differ in length; save them anew")
    starts, ends = given["start_frame"], given["end_frame"]
    good = (starts >= 0) & (starts < ends) & (ends < 2**53) & (starts % 1 == 0) & (ends % 1 == 0)  # nor NaN
    if not good.all():
        bad = int(good.argmin())
        raise FeatureFileError(
            f"{path}: a clip reaches from frame {starts[bad]:g} to {ends[bad]:g}, but frames are counted from 0, and the end "
            "comes after the start; correct it"
        )
    return ClipTable(**{name: given[name].astype(kinds[name]) for name in CLIP_COLUMNS})


def clip_runs(
    keys: Sequence[str], columns: dict[str, np.ndarray], rows: np.ndarray, path: str | os.PathLike
) -> Iterator[Video]:
    """The videos of the table in `path` with a row a clip: those of one key follow each other."""
    start = 0
    for key, run in itertools.groupby(keys):
        end = start + sum(1 for _ in run)
        yield key, rows[start:end], clip_table({name: values[start:end] for name, values in columns.items()}, path)
        start = end
