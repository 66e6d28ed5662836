"""Feature files in the forms that other programs read: one layer, either descriptors of videos or clip features.

    npy          OUTPUT/<key>.npy: float32 (D,), or clip features (num_clips, D), with where these lie in OUTPUT/clips.csv
    npz          arrays `keys` (n,) and `features` (n, D), a row a video or a clip
    csv          a header, then key and D numbers a line
    parquet      columns `key` and `features`, a list of D float32
    activitynet  HDF5, a group a video, /v_<id>/c3d_features: clip features, float32 (num_clips, D)

Rows of clips go with the columns start_frame, end_frame, start_seconds, end_seconds. Every number reads back to the bit.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx import store
from featx.csv_lines import csv_writer
from featx.durable import new_file, new_folder, require_new
from featx.errors import UnknownNameError, UsageError
from featx.key_paths import check_keys, create
from featx.layer_names import choose_layer, split_layer
from featx.per_video import CLIP_COLUMNS, CLIPS_CSV
from featx.small_files import STDOUT
from featx.store import FeatureSet

__all__ = ["FORMATS", "Exported", "export"]

BLOCK_VALUES = 2**20  # of a matrix, at once


@dataclass(frozen=True)
class Exported:
    """What `export` wrote: `num_rows` rows of `num_dims` numbers, a row a video or a clip."""

    output: Path
    format: str
    layer: str
    unit: str
    num_videos: int
    num_rows: int
    num_dims: int


def export(
    features_path: str | os.PathLike,
    output: str | os.PathLike,
    format: str,
    *,
    layer: str | None = None,
    clips: bool | None = None,
) -> Exported:
    """Write a layer of a feature file in a form that other programs read: `format` is one of FORMATS.

    `layer` may be left out where the file holds one, or stand in the path ("features.h5:fc6"). `clips`: clip features, not
    descriptors; None takes what there is, descriptors where there are both, and clips for ActivityNet's layout. Numbers are
    those of the file to the bit; float16 stays so in npy and npz, and is widened elsewhere. The output is new, and whole or
    not there.

    Raises UsageError for an output that exists or has another suffix than the format's, what the file does not hold, and keys
    that are no names of files below a folder; FeatureFileError for a damaged file.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    output, (path, own) = Path(output), split_layer(features_path)
    form = FORMATS[format]
    _check_output(output, format, form)
    with store.open_features(path) as features:
        layer = choose_layer(features.layers, path, own, layer)
        if clips is None:
            clips = form.clips_only or not features.has_descriptors
        if form.clips_only and not clips:
            raise UsageError(
                f"{format} is a form of clip features, but descriptors are asked for; leave --descriptors out"
            )
        features.require_rows(layer, clips)
        table = Table(features, layer, clips)
        form.check(table)
        store.verify_set(features)
        form.write(table, output)
        return Exported(
            *(output, format, layer, "clip" if clips else "video"), len(features), table.num_rows, table.num_dims
        )


@dataclass(frozen=True)
class Form:
    """A format: the suffixes of its files, () for a folder, what it checks beforehand, and how it is written."""

    suffixes: tuple[str, ...]
    write: Callable[[Table, Path], None]
    check: Callable[[Table], None] = lambda table: None
    clips_only: bool = False


class Table:
    """A layer of a feature file as rows, of videos or of clips, read block by block."""

    def __init__(self, features: FeatureSet, layer: str, clips: bool) -> None:
        self.features, self.layer, self.clips = features, layer, clips
        self.keys = features.keys
        self.counts = features.column("num_clips") if clips and self.keys else np.ones(len(self.keys), np.int64)
        self.num_rows, self.num_dims = int(self.counts.sum()), features.num_dims(layer)
        self.dtype = np.dtype(features.provenance.dtype if clips else np.float32)
        self.columns = {name: features.clip_column(name) for name in CLIP_COLUMNS} if clips else {}

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows, (n, D) at a time."""
        for _, _, rows in self._chunks():
            yield rows

    def videos(self) -> Iterator[tuple[str, np.ndarray]]:
        """Key and rows of every video: clip features (num_clips, D), or the descriptor (D,)."""
        for first, counts, rows in self._chunks():
            start = 0
            for i, count in enumerate(counts.tolist()):
                yield self.keys[first + i], rows[start : start + count] if self.clips else rows[start]
                start += count

    def row_keys(self) -> Iterator[str]:
        """The key of every row."""
        for key, count in zip(self.keys, self.counts.tolist(), strict=True):
            for _ in range(count):
                yield key

    def _chunks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """First video, numbers of rows and rows of videos that follow each other; one at least, however many rows it has."""
        ends, limit, first = np.cumsum(self.counts), max(1, BLOCK_VALUES // max(self.num_dims, 1)), 0
        read = self.features.clip_rows if self.clips else self.features.rows
        while first < len(self.keys):
            start = int(ends[first] - self.counts[first])
            last = max(first + 1, int(np.searchsorted(ends, start + limit, side="right")))
            yield first, self.counts[first:last], read(self.layer, np.arange(start, int(ends[last - 1])))
            first = last
        self.features.require_unchanged()  # what was verified is what was copied


def _check_output(output: Path, format: str, form: Form) -> None:
    if str(output) == STDOUT:
        raise UsageError("an export does not go to stdout, which '-' would be; give -o a name")
    if not form.suffixes:
        require_new(output)
    elif output.suffix.lower() not in form.suffixes:
        raise UsageError(
            f"the output {output} is a file of the format {format}; name it such as {output.with_suffix(form.suffixes[0]).name}"
        )
    elif os.path.lexists(output):
        raise UsageError(f"{output} exists; it is not replaced: name a new file")


# ------------------------------------------------------------------------------------------------------------ the formats


def _write_npy(table: Table, folder: Path) -> None:
    with new_folder(folder) as aside:
        for key, rows in table.videos():
            with create(aside / f"{key}.npy", key) as file:
                np.save(file, np.ascontiguousarray(rows), allow_pickle=False)
        if table.clips:
            with open(aside / CLIPS_CSV, "x", encoding="utf-8", newline="") as file:
                writer = csv_writer(file)
                writer.writerow(("key", *CLIP_COLUMNS))
                columns = [table.columns[name].tolist() for name in CLIP_COLUMNS]
                writer.writerows(zip(table.row_keys(), *columns, strict=True))


def _write_npz(table: Table, path: Path) -> None:
    with new_file(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        small = {"keys": np.array(list(table.row_keys()) or [""], str)[: table.num_rows], **table.columns}
        for name, values in small.items():
            with archive.open(_member(name), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        with archive.open(_member("features"), "w", force_zip64=True) as file:
            shape = (table.num_rows, table.num_dims)
            header = {"descr": table.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in table.blocks():
                file.write(np.ascontiguousarray(rows).tobytes())


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # of 1980: the same features are the same bytes


def _write_csv(table: Table, path: Path) -> None:
    with new_file(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv_writer(file)
        writer.writerow(("key", *table.columns, *(f"{table.layer}_{i}" for i in range(table.num_dims))))
        places = zip(table.row_keys(), *(values.tolist() for values in table.columns.values()), strict=True)
        for rows in table.blocks():
            for values in rows.astype(
                np.float64
            ).tolist():  # float64 is written to its last digit, float32 stands in it
                writer.writerow((*next(places), *values))


def _write_parquet(table: Table, path: Path) -> None:
    from featx import parquet

    keys, start = table.row_keys(), 0

    def blocks() -> Iterator[tuple[list[str], dict[str, np.ndarray], np.ndarray]]:
        nonlocal start
        for rows in table.blocks():
            columns = {name: values[start : start + len(rows)] for name, values in table.columns.items()}
            start += len(rows)
            yield [next(keys) for _ in range(len(rows))], columns, rows

    with new_file(path) as aside:
        parquet.write(aside, blocks(), tuple(table.columns), table.num_dims, table.features.provenance)


def _check_parquet(table: Table) -> None:
    from featx import parquet

    parquet.require()


def _write_activitynet(table: Table, path: Path) -> None:
    num_bytes = 4 * table.num_rows * table.num_dims
    with new_file(path) as aside:
        store.write_groups(aside, table.videos(), num_bytes)


FORMATS: dict[str, Form] = {
    "npy": Form((), _write_npy, lambda table: check_keys(table.keys, ".npy")),
    "npz": Form((".npz",), _write_npz),
    "csv": Form((".csv",), _write_csv),
    "parquet": Form((".parquet",), _write_parquet, _check_parquet),
    "activitynet": Form(
        (".h5", ".hdf5"), _write_activitynet, lambda table: store.group_names(table.keys), clips_only=True
    ),
}
