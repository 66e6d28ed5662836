"""Descriptors from elsewhere, a matrix with a key a row, as a feature file: npy, npz, csv and HDF5.

    npy     float (V, D); the keys in a list of their own
    npz     arrays `keys` (V,) and `features` (V, D); or one matrix, and the keys in a list
    csv     a line a video: the key, then D numbers; a first line of names is passed over
    hdf5    two datasets, `keys` and `features` unless others are named; or one, and the keys in a list

Such a file says nothing of videos, clips and weights. Its provenance is empty but for the engine, "imported", and the name
that the user gives it in place of a checkpoint's.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx import __version__, store
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.features import Features
from featx.lists import read_text
from featx.parts import Parts
from featx.provenance import Provenance

__all__ = ["FORMATS", "MatrixSummary", "import_matrix", "write_matrix"]

ENGINE = "imported"
FEATURE_DATASET = "features"


@dataclass(frozen=True)
class MatrixSummary:
    """What `import_matrix` wrote: V videos of D dimensions, of which `num_zero` descriptors are zero."""

    output: Path
    num_videos: int
    num_dims: int
    num_zero: int
    layer: str


def import_matrix(
    path: str | os.PathLike,
    output: str | os.PathLike,
    format: str,
    *,
    keys: str | os.PathLike | None = None,
    name: str | None = None,
    layer: str = "features",
    key_dataset: str = "keys",
    feature_dataset: str = FEATURE_DATASET,
    overwrite: bool = False,
) -> MatrixSummary:
    """Read a matrix of descriptors into a feature file; every row is L2-normalised, a zero row stays zero.

    `format`: one of FORMATS. `keys`: a list of keys, a line a row, where the file has none. `name` says what they are, in
    place of a checkpoint (default: the file's stem), and `layer` what the feature file is to call them. `key_dataset` and
    `feature_dataset` name the arrays of npz and the datasets of HDF5.

    Raises UsageError for keys that are missing, twice there, or not as many as rows; FeatureFileError for a file that
    cannot be read, is no matrix, or holds values that are not finite.
    """
    path = Path(path)
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    listed = None if keys is None else [line.rstrip("\r") for line in read_text(keys).splitlines()]
    own, rows = FORMATS[format](path, listed is None, key_dataset, feature_dataset)
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
    if not layer or "/" in layer or ":" in layer or " + " in layer:
        raise UsageError(f"layer is '{layer}', but must be a name without '/', ':' and ' + '")
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise FeatureFileError(
            f"{what}: the row of '{keys[int(bad.argmax())]}' holds values that are not finite; "
            "leave it out, or compute it again"
        )
    unit = l2_normalise(rows)
    if not np.isfinite(unit).all():
        raise FeatureFileError(f"{what}: holds values too large for float32; scale them down")
    with Parts(output) as parts:  # no run may be writing it
        if parts.exists() and not overwrite:
            raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
        store.require_replaceable(output)
        store.write_features(
            output,
            _imported(name, layer),
            (_video(key, os.fspath(path), layer, row) for key, row in zip(keys, unit, strict=True)),
        )
        parts.drop_parts()
    return MatrixSummary(output, len(unit), unit.shape[1], int((~unit.any(axis=1)).sum()), layer)


def _check_keys(keys: Sequence[str], num_rows: int, what: str) -> None:
    if len(keys) != num_rows:
        raise UsageError(f"{what} has {num_rows} rows, but there are {len(keys)} keys; give a key a row, in its order")
    seen: set[str] = set()
    for i, key in enumerate(keys):
        if not key.strip() or "\n" in key:
            raise UsageError(f"the key of row {i + 1} of {what} is '{key}', but must be a line of text")
        if key in seen:
            raise UsageError(f"the key '{key}' is given twice for {what}, but a video has one row; drop the others")
        seen.add(key)


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


def _imported(name: str, layer: str) -> Provenance:
    """Nothing is known but the name; the empty words and zeros agree with those of no extracted file."""
    numbers = dict.fromkeys(("length", "frame_step", "num_clips_even", "crop", "batch_size"), 0)
    words = dict.fromkeys(
        (
            *("checkpoint_sha256", "variant", "short", "tail", "resize", "interpolation", "crop_offset"),
            *("mean_cube_sha256", "channel_order", "precision"),
        ),
        "",
    )
    return Provenance(
        backbone="",
        checkpoint=name,
        arguments="{}",
        stride=-1,
        layers=(layer,),
        fps=0.0,
        scale=0.0,
        mean=(),
        std=(),
        save="descriptors",
        dtype="float32",
        engine=ENGINE,
        featx_version=__version__,
        pixels_version=0,
        **numbers,
        **words,
    )


# readers: the file, whether it must give the keys, and what these and the matrix are called; keys are [] where not asked for


def _read_npy(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> tuple[list[str], np.ndarray]:
    if wants_keys:
        raise UsageError(f"{path}: an npy file holds no keys; give a list of them, a line a row, with --keys")
    return [], _load(path)


def _read_npz(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> tuple[list[str], np.ndarray]:
    with _load(path) as arrays:
        names = arrays.files
        if feature_name == FEATURE_DATASET and feature_name not in names and not wants_keys and len(names) == 1:
            feature_name = names[0]
        for name in [feature_name] + [key_name] * wants_keys:
            if name not in names:
                raise UnknownNameError(f"array in {path}:", name, names, "Name it, or give the keys with --keys.")
        try:
            keys = [_text(key) for key in arrays[key_name].tolist()] if wants_keys else []
            return keys, arrays[feature_name]
        except ValueError as error:
            raise FeatureFileError(f"{path}: an array holds Python objects, which are not read; save text") from error


def _load(path: Path):
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FeatureFileError(
            f"{path}: not a file of NumPy's, or one of Python objects, which are not read; save numbers, or name the "
            "true --format"
        ) from error


def _read_csv(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> tuple[list[str], np.ndarray]:
    keys, rows = [], []
    for number, cells in enumerate(csv.reader(read_text(path).splitlines()), 1):
        if not cells:
            continue
        values = cells[1:] if wants_keys else cells
        try:
            row = np.array(values, dtype=np.float64)
        except ValueError:
            if not rows and number == 1:
                continue  # a line of names
            raise FeatureFileError(f"{path}: line {number} holds something that is no number") from None
        if rows and len(row) != len(rows[0]):
            raise FeatureFileError(f"{path}: line {number} has {len(row)} numbers, the ones before {len(rows[0])}")
        keys.append(cells[0])
        rows.append(row.astype(np.float32))
    return keys if wants_keys else [], np.array(rows, dtype=np.float32).reshape(len(rows), -1)


def _read_hdf5(path: Path, wants_keys: bool, key_name: str, feature_name: str) -> tuple[list[str], np.ndarray]:
    rows = store.read_array(path, feature_name)
    keys = store.read_array(path, key_name).tolist() if wants_keys else []
    return [_text(key) for key in keys], rows


def _text(key: object) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


Reader = Callable[[Path, bool, str, str], tuple[list[str], np.ndarray]]
FORMATS: dict[str, Reader] = {"npy": _read_npy, "npz": _read_npz, "csv": _read_csv, "hdf5": _read_hdf5}
