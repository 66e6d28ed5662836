"""Features from elsewhere, most of them a matrix with a key a row, as a feature file.

    npy          float (V, D), the keys in a list of their own; or a folder with such a file a video, (D,) or (clips, D)
    npz          arrays `keys` (V,) and `features` (V, D); or one matrix, and the keys in a list
    csv          a line a video: the key, then D numbers; a first line without a number, or of columns' numbers, is passed over
    hdf5         two datasets, `keys` and `features` unless others are named; or one, and the keys in a list
    parquet      columns `key` and `features`, lists of D numbers, unless others are named
    activitynet  HDF5, a group a video with the dataset `c3d_features` (clips, D) unless another is named

npz, csv and parquet may have a row a clip, if they have the columns of `featx.exports` too, which tell where it lies.

Such a file says nothing of videos, clips and weights. Its provenance is empty but for the engine, "imported", and the name
that the user gives it in place of a checkpoint's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx import parquet, store
from featx.csv_lines import csv_reader
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.features import Features
from featx.layer_names import is_layer_name
from featx.lists import read_text
from featx.parts import Parts
from featx.per_video import (
    BROKEN,
    CLIP_COLUMNS,
    Grid,
    Video,
    check_key,
    clip_runs,
    imported,
    npy_folder,
    shown_path,
    unit_rows,
    write_videos,
)

__all__ = ["FORMATS", "VIDEO_FORMATS", "MatrixSummary", "import_matrix", "write_matrix"]

FEATURE_DATASET, KEY_DATASET = "features", "keys"
PARQUET_KEY = "key"


@dataclass(frozen=True)
class MatrixSummary:
    """What `import_matrix` wrote: V videos of D dimensions, of which `num_zero` descriptors are zero.

    `num_clips`: clip features that came with them; `averaged` says that there were some, but not where they lie, so that only
    their means were kept.
    """

    output: Path
    num_videos: int
    num_dims: int
    num_zero: int
    layer: str
    num_clips: int = 0
    averaged: bool = False


def import_matrix(
    path: str | os.PathLike,
    output: str | os.PathLike,
    format: str,
    *,
    keys: str | os.PathLike | None = None,
    name: str | None = None,
    layer: str = "features",
    key_dataset: str | None = None,
    feature_dataset: str | None = None,
    length: int | None = None,
    stride: int | None = None,
    overwrite: bool = False,
) -> MatrixSummary:
    """Read another program's features into a feature file; descriptors are L2-normalised, those of zeros stay zero.

    A descriptor of unit length, and every clip feature, stays as it is to the bit. `format`: one of FORMATS or VIDEO_FORMATS;
    with "npy" a folder has a file a video. `keys`: a list of keys, a line a row, where the file has none. `name` says what
    they are, in place of a checkpoint (default: the file's stem), and `layer` what the feature file is to call them.
    `key_dataset` and `feature_dataset` name the arrays of npz, the datasets of HDF5 and the columns of Parquet. `length` and
    `stride` say where clips lie that come without a table of them: of so many frames, the starts so many apart.

    Raises UsageError for keys that are missing, twice there, or not as many as rows; FeatureFileError for a file that
    cannot be read, is no matrix, or holds values that are not finite.
    """
    path = Path(path)
    if format not in (*FORMATS, *VIDEO_FORMATS):
        raise UnknownNameError("format", format, (*FORMATS, *VIDEO_FORMATS))
    folder = format == "npy" and os.path.isdir(path)
    if not os.path.isfile(path) and not folder:
        raise UsageError(f"no such file: {path}")
    _check_layer(layer)
    if (length is None) != (stride is None):
        raise UsageError("only one of length and stride is given, but clips lie by both; give both, or none")
    grid = None if length is None else Grid(length, stride)
    listed = None if keys is None else [line.rstrip("\r") for line in read_text(keys).splitlines()]
    if folder or format in VIDEO_FORMATS:
        if listed is not None:
            raise UsageError(f"{path} names its videos itself; leave --keys out")
        videos = npy_folder(path) if folder else VIDEO_FORMATS[format](path, feature_dataset)
        return _write_videos(output, videos, name or path.stem, layer, path, grid, overwrite)
    own, rows, columns = FORMATS[format](path, listed is None, key_dataset or "", feature_dataset or "")
    if columns and listed is None:
        if grid is not None:
            raise UsageError(f"{path} tells where its clips lie; leave --length and --stride out")
        if rows.ndim != 2 or len(own) != len(rows):
            raise FeatureFileError(
                f"{path}: {len(own)} keys and features {rows.shape} do not go together; save a row a clip"
            )
        return _write_videos(
            output, clip_runs(own, columns, rows, path), name or path.stem, layer, path, None, overwrite
        )
    if grid is not None:
        raise UsageError(f"{path} has a row a video, and no clips; leave --length and --stride out")
    return write_matrix(
        output,
        own if listed is None else listed,
        rows,
        name=name or path.stem,
        layer=layer,
        path=path,
        overwrite=overwrite,
    )


def write_matrix(
    output: str | os.PathLike,
    keys: Sequence[str],
    rows: np.ndarray,
    *,
    name: str,
    layer: str = "features",
    path: str | os.PathLike = "",
    overwrite: bool = False,
) -> MatrixSummary:
    """Write float (V, D) `rows`, L2-normalised, under `keys` as a feature file; see `import_matrix`."""
    output = Path(output)
    store.require_replaceable(output)
    what = os.fspath(path) or "the matrix"
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiu":
        raise FeatureFileError(
            f"{what}: {rows.dtype} {rows.shape}, but must be numbers (videos, dimensions); save a row a video"
        )
    _check_keys(keys, len(rows), what)
    _check_layer(layer)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise FeatureFileError(
            f"{what}: the row of '{keys[int(bad.argmax())]}' holds values that are not finite; "
            "leave it out, or compute it again"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        unit = unit_rows(rows)
    if not np.isfinite(unit).all():
        raise FeatureFileError(f"{what}: holds values too large for float32; scale them down")
    with Parts(output) as parts:  # no run may be writing it
        if parts.exists() and not overwrite:
            raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
        store.require_replaceable(output)
        parts.make_whole()
        store.write_features(
            output,
            imported(name, layer),
            (_video(key, shown_path(path), layer, row) for key, row in zip(keys, unit, strict=True)),
        )
        parts.drop_parts()
    return MatrixSummary(output, len(unit), unit.shape[1], int((~unit.any(axis=1)).sum()), layer)


def _write_videos(output, videos: Iterable[Video], name, layer, path: Path, grid, overwrite) -> MatrixSummary:
    output = Path(output)
    store.require_replaceable(output)
    options = {"name": name, "layer": layer, "path": path, "grid": grid, "overwrite": overwrite}
    done = write_videos(output, videos, **options)
    return MatrixSummary(output, done.num_videos, done.num_dims, done.num_zero, layer, done.num_clips, done.averaged)


def _check_layer(layer: str) -> None:
    if not is_layer_name(layer) or ":" in layer or " + " in layer:
        raise UsageError(
            f"layer is '{layer}', but must be a name in UTF-8 that does not begin with '.', without '/', ':' and ' + '; choose "
            "another"
        )


def _check_keys(keys: Sequence[str], num_rows: int, what: str) -> None:
    if len(keys) != num_rows:
        raise UsageError(f"{what} has {num_rows} rows, but there are {len(keys)} keys; give a key a row, in its order")
    seen: set[str] = set()
    for key in keys:
        check_key(key, seen, what)


def _video(key: str, path: str, layer: str, row: np.ndarray) -> Features:
    return Features(
        key=key,
        path=path,
        num_frames=0,
        num_clips=0,
        fps=np.nan,
        duration_seconds=np.nan,
        start_seconds=np.nan,
        end_seconds=np.nan,
        descriptors={layer: row},
    )


# readers: the file, whether it must give the keys, and what these and the matrix are called, "" for the usual names; keys are
# [] where not asked for, and the columns of clips {} where there are none

Read = tuple[list[str], np.ndarray, dict[str, np.ndarray]]


def _read_npy(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> Read:
    if wants_keys:
        raise UsageError(f"{path}: an npy file holds no keys; give a list of them, a line a row, with --keys")
    rows = _load(path)
    if not isinstance(rows, np.ndarray):
        raise FeatureFileError(f"{path}: an archive of arrays, not one array; read it with --format npz")
    return [], rows, {}


def _read_npz(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> Read:
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        raise FeatureFileError(f"{path}: one array, not an archive of arrays; read it with --format npy")
    with arrays:
        names = arrays.files
        if not feature_name and FEATURE_DATASET not in names and not wants_keys and len(names) == 1:
            feature_name = names[0]
        feature_name, key_name = feature_name or FEATURE_DATASET, key_name or KEY_DATASET
        for name in [feature_name] + [key_name] * wants_keys:
            if name not in names:
                raise UnknownNameError(f"array in {path}:", name, names, "Name it, or give the keys with --keys.")
        try:
            keys = _texts(arrays[key_name], path) if wants_keys else []
            clips = wants_keys and all(name in names for name in CLIP_COLUMNS)
            return keys, arrays[feature_name], {name: arrays[name] for name in CLIP_COLUMNS if clips}
        except ValueError as error:
            raise FeatureFileError(
                f"{path}: an array is damaged, or holds Python objects, which are not read; save numbers and text"
            ) from error
        except BROKEN as error:
            raise FeatureFileError(f"{path}: damaged, or larger than memory; save it again") from error


def _load(path: Path):
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, *BROKEN) as error:
        raise FeatureFileError(
            f"{path}: not a file of NumPy's, or one of Python objects, which are not read; save numbers, or name the "
            "true --format"
        ) from error


def _read_csv(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> Read:
    keys, rows, places = [], [], []
    num_before = 1  # columns before the numbers
    is_first = True  # of the lines that hold something
    for number, cells in enumerate(csv_reader(path), 1):
        if not cells:
            continue
        was_first, is_first = is_first, False
        if was_first and cells[1:5] == list(CLIP_COLUMNS):
            num_before = 5
        values = cells[num_before:] if wants_keys else cells
        if was_first and _is_header(cells[0] if wants_keys else "", values, path):
            continue
        try:
            row = np.array(values, dtype=np.float64)
            places += [[float(cell) for cell in cells[1:num_before]]]
        except ValueError:
            raise FeatureFileError(f"{path}: line {number} holds something that is no number") from None
        if rows and len(row) != len(rows[0]):
            raise FeatureFileError(f"{path}: line {number} has {len(row)} numbers, the ones before {len(rows[0])}")
        keys.append(cells[0])
        with np.errstate(over="ignore"):
            rows.append(row.astype(np.float32))
    if not rows:
        raise FeatureFileError(f"{path}: no line holds features; write a line a video: its key, then its numbers")
    clips = wants_keys and num_before == 5
    columns = dict(zip(CLIP_COLUMNS, np.array(places).reshape(len(rows), 4).T, strict=True)) if clips else {}
    return keys if wants_keys else [], np.array(rows, dtype=np.float32).reshape(len(rows), -1), columns


def _is_header(key: str, values: list[str], path: Path) -> bool:
    """Whether a first line names columns: none of its values is a number, or all are their columns' numbers.

    `key` is its first cell, "" where lines have no keys. Raises FeatureFileError where it could be a video as well: none may be
    lost, and no header become one. A first line 0, 1, 2, 3 … numbers all columns: no video "0" has such features.
    """
    named = key in ("", "key")
    if any(map(_is_number, values)):
        from_0, from_1 = (values == list(map(str, range(first, first + len(values)))) for first in (0, 1))
        if len(values) < 2 or not (from_0 or from_1) or (from_1 and not named and key != "0"):
            return False
        if named or from_1:
            return True
        raise FeatureFileError(
            f"{path}: line 1, '{key}' and 0, 1, 2 …, is a header or a video; begin a header with 'key', or write 0.0, 1.0"
        )
    if not named and len(values) > 1 and len(set(values)) == 1:  # such as blanks, or NA: names of columns differ
        raise FeatureFileError(
            f"{path}: line 1, '{key}', holds no number; leave the video out, or begin a header with 'key'"
        )
    return bool(values)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # 1_0 is the first dimension of a layer called 1


def _read_hdf5(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> Read:
    rows = store.read_array(path, feature_name or FEATURE_DATASET)
    keys = _texts(store.read_array(path, key_name or KEY_DATASET), path) if wants_keys else []
    return keys, rows, {}


def _read_parquet(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> Read:
    clips, blocks = parquet.read(
        path, (key_name or PARQUET_KEY) if wants_keys else None, feature_name or FEATURE_DATASET, CLIP_COLUMNS
    )
    found = list(blocks)
    keys = [_text(key, path) for block in found for key in block[0]]
    rows = np.concatenate([block[2] for block in found]) if found else np.zeros((0, 0), np.float32)
    return (
        keys,
        rows,
        {name: np.concatenate([block[1][name] for block in found]) for name in CLIP_COLUMNS if clips and found},
    )


def _read_activitynet(path: Path, feature_name: str | None) -> Iterator[Video]:
    named = {} if feature_name is None else {"dataset": feature_name}
    return ((key, values, None) for key, values in store.read_groups(path, **named))


def _texts(keys: np.ndarray, path: Path) -> list[str]:
    if keys.ndim != 1:
        raise FeatureFileError(
            f"{path}: the keys are {keys.dtype} {keys.shape}, but must be one a row; name what holds them"
        )
    return [_text(key, path) for key in keys.tolist()]


def _text(key: object, path: Path) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "surrogateescape")
    if not isinstance(key, str | int) or isinstance(key, bool):
        shown = repr(key)[:60]
        raise FeatureFileError(
            f"{path}: a key is {shown}, but must be text or a whole number; name what holds the keys"
        )
    return str(key)


Reader = Callable[[Path, bool, str, str], Read]
FORMATS: dict[str, Reader] = {
    "npy": _read_npy,
    "npz": _read_npz,
    "csv": _read_csv,
    "hdf5": _read_hdf5,
    "parquet": _read_parquet,
}
VIDEO_FORMATS: dict[str, Callable[[Path, str | None], Iterator[Video]]] = {"activitynet": _read_activitynet}
