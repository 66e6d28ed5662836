"""The feature file: what it holds (SCHEMA), reading, writing and merging; the only module that imports h5py.

    /                 attributes: the Provenance
    /videos/*         (V,)   one row a video, sorted by key
    /descriptors/*    (V, D) float32, one matrix a layer
    /clips/*          (M,) and (M, D), the clips of video i are rows first_clip[i] : first_clip[i] + num_clips[i]
    /failures/*       (F,)   videos that gave no features, and why
    /basis/*          after PCA
    /checksums/*      a CRC-32 for every block of rows of every dataset

A part written during a run, a shard's output and a final result are the same kind of file, and a *feature set* is one such
file, a file with its sibling parts (OUT.h5 + OUT.h5.parts/), or a folder of them. Files are written aside, synced, and
renamed: a file with its final name is whole.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from featx import provenance as _provenance
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.features import ClipTable, Failure, Features
from featx.provenance import Provenance

__all__ = [
    "FeatureSet",
    "Transform",
    "merge",
    "open_features",
    "parts_folder",
    "verify",
    "write_features",
    "write_transformed",
]

STRING = h5py.string_dtype("utf-8")

# group -> column -> dtype; first_clip is derived when a file is written
SCHEMA: dict[str, dict[str, object]] = {
    "videos": {
        "key": STRING,
        "path": STRING,
        "label": STRING,
        "size_bytes": np.dtype("<i8"),
        "mtime_ns": np.dtype("<i8"),
        "num_frames": np.dtype("<i8"),
        "fps": np.dtype("<f8"),
        "duration_seconds": np.dtype("<f8"),
        "start_seconds": np.dtype("<f8"),
        "end_seconds": np.dtype("<f8"),
        "num_clips": np.dtype("<i8"),
        "first_clip": np.dtype("<i8"),
    },
    "clips": {
        "start_frame": np.dtype("<i8"),
        "end_frame": np.dtype("<i8"),
        "start_seconds": np.dtype("<f8"),
        "end_seconds": np.dtype("<f8"),
    },
    "failures": {
        "key": STRING,
        "path": STRING,
        "reason": STRING,
        "size_bytes": np.dtype("<i8"),
        "mtime_ns": np.dtype("<i8"),
    },
}

BLOCK_BYTES = 4 * 2**20  # what is read, copied and checksummed at once
PARTS_SUFFIX = ".parts"


class Transform(Protocol):
    """What `write_transformed` needs of a projection such as a PCA basis."""

    num_dims: int

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Map float32 (n, D) to float32 (n, num_dims)."""


def parts_folder(path: str | os.PathLike) -> Path:
    """The folder beside a feature file that holds the parts not yet merged into it."""
    return Path(os.fspath(path) + PARTS_SUFFIX)


# ---------------------------------------------------------------------------------------------------------- reading


class _Member:
    """One open file of a feature set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.h5 = h5py.File(path, "r")
        except OSError as error:
            why = "no such file" if not path.exists() else "not an HDF5 file, or damaged"
            raise FeatureFileError(f"{path}: {why}; a feature file is what 'featx extract -o' writes") from error
        self.provenance = self._read_provenance()
        self.keys: list[str] = self.strings("videos/key")

    def _read_provenance(self) -> Provenance:
        attributes = self.h5.attrs
        if attributes.get("format") != "featx":
            raise FeatureFileError(f"{self.path}: an HDF5 file, but not a feature file that 'featx extract' wrote")
        version = int(attributes.get("format_version", 0))
        if version != _provenance.FORMAT_VERSION:
            raise FeatureFileError(
                f"{self.path}: format version {version}, but this featx reads version {_provenance.FORMAT_VERSION}; "
                "use the featx that wrote it, or extract again"
            )
        missing = [f.name for f in fields(Provenance) if f.name not in attributes]
        if missing:
            raise FeatureFileError(f"{self.path}: damaged: its attribute '{missing[0]}' is missing; extract again")
        return Provenance(**{f.name: _from_attribute(attributes[f.name]) for f in fields(Provenance)})

    def strings(self, name: str) -> list[str]:
        return list(self.h5[name].asstr()[:]) if len(self.h5[name]) else []

    def array(self, name: str) -> np.ndarray:
        """A dataset as an array that is read when it is touched: contiguous datasets are memory-mapped."""
        dataset = self.h5[name]
        if dataset.dtype.kind == "O":
            return np.array(self.strings(name), dtype=object)
        offset = dataset.id.get_offset()
        if offset is None or not dataset.size:
            return dataset[...]
        return np.memmap(self.path, dataset.dtype, mode="r", offset=offset, shape=dataset.shape)


class FeatureSet:
    """The features of many videos, read lazily from one file, from a file with its parts, or from a folder of files.

    Rows are in the order of `keys`, which are sorted. Where a file and its parts hold the same key, the part written last
    counts. Use it in a ``with`` block, or call `close`.
    """

    def __init__(self, members: Sequence[Path], *, later_wins: bool = True) -> None:
        self._members: list[_Member] = []
        try:
            self._members = [_Member(path) for path in members]
            self.provenance = _provenance.common((str(m.path), m.provenance) for m in self._members)
            self._index(later_wins)
        except BaseException:
            self.close()
            raise

    def _index(self, later_wins: bool) -> None:
        """Find the member and row of every key, and what remains of the failures."""
        where: dict[str, tuple[int, int]] = {}
        failures: dict[str, Failure] = {}
        for m, member in enumerate(self._members):
            for key in member.keys if not later_wins else ():
                if key in where:
                    first = self._members[where[key][0]].path
                    raise UsageError(f"the video '{key}' stands in {first} and in {member.path}; leave one of them out")
            where.update((key, (m, row)) for row, key in enumerate(member.keys))
            for key in member.keys:
                failures.pop(key, None)
            columns = [member.array(f"failures/{name}").tolist() for name in SCHEMA["failures"]]
            for row in zip(*columns, strict=True):
                failure = Failure(**dict(zip(SCHEMA["failures"], row, strict=True)))
                failures[failure.key] = failure
                where.pop(failure.key, None)
        self.keys: list[str] = sorted(where)
        self.failures: list[Failure] = [failures[key] for key in sorted(failures)]
        self._row_of_key = {key: i for i, key in enumerate(self.keys)}
        places = np.array([where[key] for key in self.keys], np.int64).reshape(-1, 2)
        self._member_of, self._row_of = places[:, 0], places[:, 1]

    # what there is

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers held."""
        return self.provenance.layers

    @property
    def paths(self) -> list[Path]:
        """The files that make up the set."""
        return [member.path for member in self._members]

    @property
    def num_videos(self) -> int:
        return len(self.keys)

    @property
    def num_clips(self) -> int:
        return int(self.column("num_clips").sum())

    @property
    def has_descriptors(self) -> bool:
        return self.provenance.save != "clips"

    @property
    def has_clips(self) -> bool:
        return self.provenance.save != "descriptors"

    @property
    def bases(self) -> dict[str, dict[str, np.ndarray | float | int | str]]:
        """layer -> what PCA saved of its basis; empty before PCA."""
        group = self._members[0].h5.get("basis", {})
        return {
            layer: {name: _from_attribute(value) for name, value in entry.attrs.items()}
            | {name: dataset[...] for name, dataset in entry.items()}
            for layer, entry in group.items()
        }

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._row_of_key

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys)

    def __repr__(self) -> str:
        return f"FeatureSet({self.num_videos} videos, layers {', '.join(self.layers)}, {self.provenance.checkpoint})"

    # what it holds

    def num_dims(self, layer: str) -> int:
        """D of a layer."""
        self._check_layer(layer)
        group = "descriptors" if self.has_descriptors else "clips"
        # a part that holds only failures has no width to tell
        return max(int(member.h5[f"{group}/{layer}"].shape[1]) for member in self._members)

    def column(self, name: str) -> np.ndarray:
        """A column of /videos, (V,), in the order of `keys`; strings as an object array. See SCHEMA for the names."""
        if name not in SCHEMA["videos"]:
            raise UnknownNameError("video column", name, SCHEMA["videos"])
        return self._gather(f"videos/{name}", self._member_of, self._row_of)

    def descriptors(self, layer: str) -> np.ndarray:
        """The design matrix of a layer: float32 (V, D), rows in the order of `keys`.

        Memory-mapped (read-only) where the set is one file. Raises UsageError where only clip features were kept.
        """
        name = self._descriptor_name(layer)
        if len(self._members) == 1 and len(self) == len(self._members[0].keys):
            return self._members[0].array(name)
        return self.rows(layer, np.arange(len(self)))

    def rows(self, layer: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows of the design matrix, float32 (len(indices), D)."""
        indices = np.asarray(indices, np.int64)
        return self._gather(self._descriptor_name(layer), self._member_of[indices], self._row_of[indices])

    def blocks(self, layer: str, rows: int = 4096) -> Iterator[np.ndarray]:
        """The design matrix in blocks of at most `rows` rows, float32 (n, D), in the order of `keys`."""
        for start in range(0, len(self), rows):
            yield self.rows(layer, np.arange(start, min(start + rows, len(self))))

    def clip_blocks(self, layer: str, rows: int = 4096) -> Iterator[np.ndarray]:
        """The clip features of all videos in blocks of at most `rows` rows, (n, D), videos in the order of `keys`."""
        self._check_layer(layer)
        self._check_clips()
        return self._clip_column_blocks(layer, rows)

    def __getitem__(self, key: str) -> Features:
        """Everything held of one video."""
        if key not in self._row_of_key:
            raise UnknownNameError("video", key, self.keys if len(self) < 1000 else self.keys[:20])
        i = self._row_of_key[key]
        member, row = self._members[self._member_of[i]], int(self._row_of[i])
        values = {name: member.array(f"videos/{name}")[row] for name in SCHEMA["videos"]}
        first = int(values.pop("first_clip"))
        clips = slice(first, first + int(values["num_clips"]))
        table = None
        if self.has_clips:
            table = ClipTable(**{name: np.array(member.h5[f"clips/{name}"][clips]) for name in SCHEMA["clips"]})
        return Features(
            **{name: value if isinstance(value, str) else value.item() for name, value in values.items()},
            descriptors={n: member.h5[f"descriptors/{n}"][row] for n in self.layers} if self.has_descriptors else {},
            clips={n: member.h5[f"clips/{n}"][clips] for n in self.layers} if self.has_clips else {},
            clip_table=table,
        )

    def close(self) -> None:
        """Close the files. Arrays that were handed out stay valid."""
        for member in self._members:
            member.h5.close()

    def __enter__(self) -> FeatureSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # how it is found

    def _check_layer(self, layer: str) -> None:
        if layer not in self.layers:
            raise UnknownNameError("layer", layer, self.layers, f"The file holds {', '.join(self.layers)}.")

    def _check_clips(self) -> None:
        if not self.has_clips:
            raise UsageError("the feature file holds descriptors only; extract with '--save clips' or '--save both'")

    def _descriptor_name(self, layer: str) -> str:
        self._check_layer(layer)
        if not self.has_descriptors:
            raise UsageError(
                "the feature file holds clip features only; extract with '--save descriptors' or '--save both'"
            )
        return f"descriptors/{layer}"

    def _gather(self, name: str, members: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Rows of one dataset, each from its own member."""
        present = np.unique(members)
        if len(present) == 1:
            return np.asarray(self._members[present[0]].array(name)[rows])
        first = self._members[present[0] if len(present) else 0].h5[name]
        out = np.empty((len(rows), *first.shape[1:]), object if first.dtype.kind == "O" else first.dtype)
        for m in present:
            out[members == m] = self._members[m].array(name)[rows[members == m]]
        return out

    def _clip_column_blocks(self, name: str, rows: int) -> Iterator[np.ndarray]:
        counts, firsts = self.column("num_clips"), self.column("first_clip")
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, rows):
            positions = np.arange(start, min(start + rows, total))
            video = np.searchsorted(ends, positions, side="right")
            own_row = firsts[video] + positions - (ends[video] - counts[video])
            yield self._gather(f"clips/{name}", self._member_of[video], own_row)


def open_features(path: str | os.PathLike) -> FeatureSet:
    """Open a feature set: a file (with its sibling parts, if any), or a folder of feature files.

    Raises FeatureFileError where there is none or one is damaged, ProvenanceError where files do not belong together.
    """
    path = Path(path)
    if path.is_dir():
        members = sorted(p for p in path.glob("*.h5") if not p.name.startswith("."))
        if not members:
            raise FeatureFileError(f"{path}: a folder without feature files (*.h5)")
        return FeatureSet(members, later_wins=path.name.endswith(PARTS_SUFFIX))
    parts = sorted(parts_folder(path).glob("part-*.h5"))
    return FeatureSet([path, *parts] if path.exists() or not parts else parts)


def verify(path: str | os.PathLike) -> None:
    """Compare every block of one feature file with its checksum; raise FeatureFileError naming the first that differs."""
    member = _Member(Path(path))
    with member.h5 as h5:
        names: list[str] = []
        h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            if name.startswith("checksums/"):
                continue
            sums = h5.get(f"checksums/{name}")
            if sums is None:
                raise FeatureFileError(f"{path}: damaged: {name} has no checksums; extract again")
            values, step = member.array(name), int(sums.attrs["block_rows"])
            for i, start in enumerate(range(0, len(values), step)):
                if _crc(values[start : start + step]) != sums[i]:
                    raise FeatureFileError(f"{path}: damaged: rows {start} to {start + step} of {name}; extract again")


# ---------------------------------------------------------------------------------------------------------- writing


def write_features(
    path: str | os.PathLike, provenance: Provenance, features: Iterable[Features], failures: Iterable[Failure] = ()
) -> None:
    """Write one whole feature file, aside and renamed; keys are sorted. An existing file is replaced."""
    videos = sorted(features, key=lambda f: f.key)
    counts = np.array([f.num_clips for f in videos], np.int64)
    first_clip = np.cumsum(counts) - counts if provenance.save != "descriptors" else np.zeros_like(counts)
    with _Writer(Path(path), provenance) as writer:
        for name in SCHEMA["videos"]:
            writer.column("videos", name, first_clip if name == "first_clip" else [getattr(f, name) for f in videos])
        failed = sorted(failures, key=lambda f: f.key)
        for name in SCHEMA["failures"]:
            writer.column("failures", name, [getattr(f, name) for f in failed])
        if provenance.save != "clips":
            for layer in provenance.layers:
                writer.matrix(f"descriptors/{layer}", len(videos), (f.descriptors[layer][None] for f in videos))
        if provenance.save != "descriptors":
            for name in SCHEMA["clips"]:
                columns = [getattr(f.clip_table, name) for f in videos]
                writer.column("clips", name, np.concatenate(columns) if columns else [])
            for layer in provenance.layers:
                writer.matrix(f"clips/{layer}", int(counts.sum()), (f.clips[layer] for f in videos))


def merge(sources: FeatureSet, output: str | os.PathLike) -> None:
    """Write a feature set as one file, in bounded memory; `output` may be a file of the set itself."""
    _rewrite(sources, Path(output), sources.provenance, {}, sources.bases)


def write_transformed(
    source: FeatureSet,
    output: str | os.PathLike,
    transforms: dict[str, Transform],
    *,
    bases: dict[str, dict[str, np.ndarray | float | int | str]],
    overwrite: bool = False,
) -> None:
    """Write the layers in `transforms` of a feature set, each mapped by its transform, with everything else as it was.

    `bases[layer]`: arrays and scalars kept under /basis/<layer>. Raises UsageError where `output` exists, unless `overwrite`.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
    attributes = {f.name: getattr(source.provenance, f.name) for f in fields(Provenance)}
    provenance = Provenance(**attributes | {"layers": tuple(n for n in source.layers if n in transforms)})
    _rewrite(source, output, provenance, transforms, bases)


def _rewrite(
    source: FeatureSet, output: Path, provenance: Provenance, transforms: dict[str, Transform], bases: dict[str, dict]
) -> None:
    counts = source.column("num_clips") if len(source) else np.zeros(0, np.int64)
    first_clip = np.cumsum(counts) - counts if source.has_clips else np.zeros_like(counts)
    total = int(counts.sum())
    with _Writer(output, provenance) as writer:
        for name in SCHEMA["videos"]:
            values = [] if not len(source) else first_clip if name == "first_clip" else source.column(name)
            writer.column("videos", name, values)
        for name in SCHEMA["failures"]:
            writer.column("failures", name, [getattr(f, name) for f in source.failures])
        for layer in provenance.layers:
            apply = transforms[layer].apply if layer in transforms else _unchanged
            rows = max(1, BLOCK_BYTES // (4 * source.num_dims(layer)))
            empty = apply(np.zeros((0, source.num_dims(layer)), np.float32))  # tells the width where there are no rows
            if source.has_descriptors:
                blocks = (apply(block) for block in source.blocks(layer, rows))
                writer.matrix(f"descriptors/{layer}", len(source), blocks, empty)
            if source.has_clips:
                dtype = np.dtype(provenance.dtype)
                blocks = (
                    apply(b.astype(np.float32, copy=False)).astype(dtype) for b in source.clip_blocks(layer, rows)
                )
                writer.matrix(f"clips/{layer}", total, blocks, empty.astype(dtype))
        if source.has_clips:
            for name in SCHEMA["clips"]:
                columns = list(source._clip_column_blocks(name, 2**20)) if total else []
                writer.column("clips", name, np.concatenate(columns) if columns else [])
        for layer, values in bases.items():
            writer.basis(layer, values)


def _unchanged(block: np.ndarray) -> np.ndarray:
    return block


class _Writer:
    """Writes one feature file aside; on leaving the ``with`` block it is synced and takes its name, or vanishes."""

    def __init__(self, path: Path, provenance: Provenance) -> None:
        self.path = path
        self.aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.h5 = h5py.File(self.aside, "w", libver=("earliest", "v110"))
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
        for f in fields(provenance):
            self.h5.attrs[f.name] = _to_attribute(getattr(provenance, f.name))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.h5.close()
        if kind is not None:
            self.aside.unlink(missing_ok=True)
            return
        sync(self.aside)
        os.replace(self.aside, self.path)
        sync(self.path.parent)

    def column(self, group: str, name: str, values: Sequence | np.ndarray) -> None:
        """One value a row, all in memory."""
        dtype = SCHEMA[group][name]
        if dtype is STRING:
            array = np.array(list(values), dtype=object)
        else:
            array = np.asarray(values, dtype)
        self.h5.create_dataset(f"{group}/{name}", data=array, shape=(len(array),), dtype=dtype)
        self._checksums(f"{group}/{name}", array, max(1, BLOCK_BYTES // 8))

    def matrix(self, name: str, num_rows: int, blocks: Iterable[np.ndarray], empty: np.ndarray | None = None) -> None:
        """Rows in blocks of any size, stored contiguously; `empty` (0, D) gives width and dtype where there are no rows."""
        dataset, filled, sums = None, 0, None
        for block in blocks:
            if dataset is None:
                dataset, sums = self._create(name, num_rows, block)
            dataset[filled : filled + len(block)] = block
            sums.add(block)
            filled += len(block)
        if dataset is None:
            dataset, sums = self._create(name, num_rows, np.zeros((0, 0), np.float32) if empty is None else empty)
        if filled != num_rows:
            raise ValueError(f"{name}: {filled} rows came for {num_rows}")
        self._store_checksums(name, sums.finish(), sums.block_rows)

    def basis(self, layer: str, values: dict[str, np.ndarray | float | int | str]) -> None:
        group = self.h5.create_group(f"basis/{layer}")
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.ndim:
                group[name] = value
                self._checksums(f"basis/{layer}/{name}", value, max(1, BLOCK_BYTES // max(value[:1].nbytes, 1)))
            else:
                group.attrs[name] = _to_attribute(value)

    def _create(self, name: str, num_rows: int, like: np.ndarray) -> tuple[h5py.Dataset, _BlockSums]:
        dataset = self.h5.create_dataset(name, (num_rows, like.shape[1]), like.dtype.newbyteorder("<"))
        return dataset, _BlockSums(max(1, BLOCK_BYTES // max(like.shape[1] * like.dtype.itemsize, 1)))

    def _checksums(self, name: str, array: np.ndarray, block_rows: int) -> None:
        sums = [_crc(array[i : i + block_rows]) for i in range(0, len(array), block_rows)]
        self._store_checksums(name, sums, block_rows)

    def _store_checksums(self, name: str, sums: list[int], block_rows: int) -> None:
        dataset = self.h5.create_dataset(f"checksums/{name}", data=np.array(sums, "<u4"))
        dataset.attrs["block_rows"] = block_rows


class _BlockSums:
    """CRC-32 of every `block_rows` rows of a matrix that arrives in blocks of any other size."""

    def __init__(self, block_rows: int) -> None:
        self.block_rows = block_rows
        self._sums: list[int] = []
        self._open_rows = self._open_sum = 0

    def add(self, block: np.ndarray) -> None:
        while len(block):
            taken = block[: self.block_rows - self._open_rows]
            self._open_sum = zlib.crc32(np.ascontiguousarray(taken), self._open_sum)
            self._open_rows += len(taken)
            block = block[len(taken) :]
            if self._open_rows == self.block_rows:
                self._close()

    def finish(self) -> list[int]:
        if self._open_rows:
            self._close()
        return self._sums

    def _close(self) -> None:
        self._sums.append(self._open_sum)
        self._open_rows = self._open_sum = 0


def _crc(values: np.ndarray) -> int:
    if values.dtype == object:
        return zlib.crc32("\0".join(values.tolist()).encode())
    return zlib.crc32(np.ascontiguousarray(values))


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_attribute(value: object) -> object:
    if isinstance(value, tuple):
        return np.array(value, STRING) if value and isinstance(value[0], str) else np.array(value, "<f8")
    return value


def _from_attribute(value: object) -> object:
    if isinstance(value, np.ndarray):
        return tuple(v.item() if isinstance(v, np.generic) else v for v in value)
    return value.item() if isinstance(value, np.generic) else value
