"""Writing feature files, always aside and renamed: from records, from a set (merge), and mapped (after PCA)."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from featx.durable import sync
from featx.errors import FeatxError, UsageError
from featx.features import Failure, Features
from featx.provenance import Provenance
from featx.store import schema
from featx.store.outputs import require_replaceable
from featx.store.reader import FeatureSet
from featx.store.schema import (
    BASIS,
    CHECKSUM,
    PARTS_SUFFIX,
    SCHEMA,
    STRING,
    attributes_crc,
    crc,
    free_bytes,
    real_file,
    to_attribute,
)

__all__ = ["Transform", "merge", "write_features", "write_transformed"]

CLIP_ROWS = 2**16  # of a column of clips, read and written at once


class Transform(Protocol):
    """What `write_transformed` needs of a projection such as a PCA basis."""

    num_dims: int

    def apply(self, block: np.ndarray) -> np.ndarray:
        """Map float32 (n, D) to float32 (n, num_dims)."""


def write_features(
    path: str | os.PathLike, provenance: Provenance, features: Iterable[Features], failures: Iterable[Failure] = ()
) -> None:
    """Write one whole feature file, aside and renamed; keys are sorted. An existing file is replaced."""
    videos = sorted(features, key=lambda f: f.key)
    counts = np.array([f.num_clips for f in videos], np.int64)
    first_clip = np.cumsum(counts) - counts if provenance.has_clip_table else np.zeros_like(counts)
    with _Writer(Path(path), provenance) as writer:
        for name in SCHEMA["videos"]:
            writer.column("videos", name, first_clip if name == "first_clip" else [getattr(f, name) for f in videos])
        failed = sorted(failures, key=lambda f: f.key)
        for name in SCHEMA["failures"]:
            writer.column("failures", name, [getattr(f, name) for f in failed])
        if provenance.save != "clips":
            for layer in provenance.layers:
                writer.matrix(f"descriptors/{layer}", len(videos), (f.descriptors[layer][None] for f in videos))
        if provenance.has_clip_table:
            for name in SCHEMA["clips"]:
                columns = [getattr(f.clip_table, name) for f in videos]
                writer.column("clips", name, np.concatenate(columns) if columns else [])
        if provenance.save != "descriptors":
            for layer in provenance.layers:
                writer.matrix(f"clips/{layer}", int(counts.sum()), (f.clips[layer] for f in videos))
        for layer in provenance.layers if provenance.bins else ():
            empty = np.zeros((0, provenance.bins, 0), np.float32)
            writer.matrix(f"bins/{layer}", len(videos), (f.bins[layer][None] for f in videos), empty)


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

    `bases[layer]`: arrays, named as in BASIS, and scalars, kept under /basis/<layer>. Raises UsageError where `output`
    exists, unless `overwrite`.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
    kept = tuple(layer for layer in source.layers if layer in transforms)
    provenance = replace(source.provenance, layers=kept, basis_sha256=_sha256(bases))
    _rewrite(source, output, provenance, transforms, bases)


def _rewrite(
    source: FeatureSet, output: Path, provenance: Provenance, transforms: dict[str, Transform], bases: dict[str, dict]
) -> None:
    counts = source.column("num_clips") if len(source) else np.zeros(0, np.int64)
    first_clip = np.cumsum(counts) - counts if provenance.has_clip_table else np.zeros_like(counts)
    total = int(counts.sum())
    with _Writer(output, provenance) as writer:
        for name in SCHEMA["videos"]:
            values = [] if not len(source) else first_clip if name == "first_clip" else source.column(name)
            writer.column("videos", name, values)
        for name in SCHEMA["failures"]:
            writer.column("failures", name, [getattr(f, name) for f in source.failures])
        for layer in provenance.layers if source.has_descriptors else ():
            apply, rows, empty = _mapping(source, layer, transforms)
            writer.matrix(f"descriptors/{layer}", len(source), map(apply, source.blocks(layer, rows)), empty)
        if provenance.has_clip_table:
            for name in SCHEMA["clips"]:
                empty = np.zeros(0, SCHEMA["clips"][name])
                writer.matrix(f"clips/{name}", total, source._clip_column_blocks(name, CLIP_ROWS), empty)
        if source.has_clips:
            dtype = np.dtype(provenance.dtype)
            for layer in provenance.layers:
                apply, rows, empty = _mapping(source, layer, transforms)
                blocks = (
                    _as_stored(apply(b.astype(np.float32, copy=False)), dtype, layer)
                    for b in source.clip_blocks(layer, rows)
                )
                writer.matrix(f"clips/{layer}", total, blocks, empty.astype(dtype))
        for layer in provenance.layers if source.has_bins else ():
            apply, rows, empty = _mapping(source, layer, transforms)
            writer.matrix(f"bins/{layer}", len(source), *_mapped_bins(source, layer, apply, rows, empty))
        for layer, values in bases.items():
            writer.basis(layer, values)
        source.require_unchanged()  # what was verified is what was copied


def _as_stored(rows: np.ndarray, dtype: np.dtype, layer: str) -> np.ndarray:
    """Rows in the type of clip features and bins. Raises UsageError for values beyond float16's range, as extraction does."""
    most = float(np.finfo(dtype).max)
    if dtype == np.float16 and (largest := np.abs(rows).max(initial=0, where=np.isfinite(rows))) > most:
        raise UsageError(
            f"{layer} has values up to {largest:.3g} once it is mapped, beyond float16's range of {most:g}, in which its clips "
            "or bins are kept; map it with --l2 or without --whiten, or extract with '--dtype float32'"
        )
    return rows.astype(dtype)


def _sha256(bases: dict[str, dict]) -> str:
    """One number for all that was saved of the bases, so that files of different ones are never joined."""
    digest = hashlib.sha256()
    for layer in sorted(bases):
        for name in sorted(bases[layer]):
            value = bases[layer][name]
            digest.update(f"{layer}/{name}=".encode())
            digest.update(
                np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            )
    return digest.hexdigest()


def _mapping(source: FeatureSet, layer: str, transforms: dict[str, Transform]) -> tuple:
    """How a layer's blocks are mapped, their rows, and an empty mapped block, which tells the width where there are no rows."""
    apply = transforms[layer].apply if layer in transforms else lambda block: block
    num_dims = max(source.num_dims(layer), 1)
    return apply, max(1, schema.BLOCK_BYTES // (4 * num_dims)), apply(np.zeros((0, source.num_dims(layer)), np.float32))


def _mapped_bins(
    source: FeatureSet, layer: str, apply: Callable[[np.ndarray], np.ndarray], rows: int, empty: np.ndarray
) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """The bins of a layer, each mapped as a row of its own, in blocks (n, T, d), and an empty block."""
    num_bins, dtype = source.provenance.bins, np.dtype(source.provenance.dtype)

    def mapped(block: np.ndarray) -> np.ndarray:
        flat = block.reshape(-1, block.shape[2]).astype(np.float32, copy=False)  # (n, T, D) -> (n * T, D)
        return _as_stored(apply(flat), dtype, layer).reshape(len(block), num_bins, -1)

    blocks = map(mapped, source.bin_blocks(layer, max(1, rows // num_bins)))
    return blocks, np.zeros((0, num_bins, empty.shape[1]), dtype)


class _Writer:
    """Writes one feature file aside; on leaving the ``with`` block it is synced and takes its name, or vanishes.

    Disk space is taken before it is written to, since the HDF5 library does not survive a disk that fills up under it.
    """

    def __init__(self, path: Path, provenance: Provenance) -> None:
        require_replaceable(path)
        self.path = path = real_file(path)  # a link that the user names stays one
        self.aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            if not path.parent.name.endswith(
                PARTS_SUFFIX
            ):  # which is made by who holds it, and must not come back unheld
                path.parent.mkdir(parents=True, exist_ok=True)
            self.h5 = h5py.File(self.aside, "w", libver=("earliest", "v110"))
            self._descriptor = os.open(self.aside, os.O_RDWR)
        except OSError as error:
            self.aside.unlink(missing_ok=True)
            why = os.strerror(error.errno) if error.errno else error  # HDF5's own text is of several lines
            raise UsageError(f"cannot write {path}: {why}; choose another place") from error
        self._reserved_bytes = 0
        try:
            self._reserve(2**17)
            for f in fields(provenance):
                self.h5.attrs[f.name] = to_attribute(getattr(provenance, f.name))
        except BaseException as error:
            self.__exit__(type(error), error)
            raise

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        if error is not None:
            traceback.clear_frames(error.__traceback__)  # a dataset must not outlive its file
        try:
            if kind is None:
                self.h5["checksums"].attrs["attributes"] = np.uint32(attributes_crc(self.h5))
            self.h5.flush()
            size = self.h5.id.get_filesize()
            self.h5.close()
            if kind is None:
                os.ftruncate(self._descriptor, size)  # give back what was reserved and not used
                os.fsync(self._descriptor)
                os.replace(self.aside, self.path)
                sync(self.path.parent)
        except OSError as failure:
            raise self._cannot_write(failure) from failure
        finally:
            os.close(self._descriptor)
            self.aside.unlink(missing_ok=True)

    def _reserve(self, num_bytes: int) -> None:
        """Take so much more space from the disk, with what HDF5 needs besides for one dataset."""
        self._reserved_bytes += num_bytes + 2**13
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._descriptor, 0, self._reserved_bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):  # of file systems without it
                    raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> FeatxError:
        why = error.strerror or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = free_bytes(self.path.parent)
            why = f"{why}: it needs {self._reserved_bytes:,} bytes or more, and the disk has {free:,} free; make room"
        return FeatxError(
            f"cannot write {self.path}: {why}; what was written before stays, and the same command goes on"
        )

    def column(self, group: str, name: str, values: Sequence | np.ndarray) -> None:
        """One value a row, all in memory."""
        dtype = SCHEMA[group][name]
        if dtype is STRING:
            array = np.array(list(values), dtype=object)
        else:
            array = np.asarray(values, dtype)
        text_bytes = sum(len(text.encode()) + 32 for text in array) if dtype is STRING else 0
        self._reserve(array.nbytes + 2 * text_bytes)
        self.h5.create_dataset(f"{group}/{name}", data=array, shape=(len(array),), dtype=dtype)
        self._checksums(f"{group}/{name}", array, max(1, schema.BLOCK_BYTES // 8))

    def matrix(self, name: str, num_rows: int, blocks: Iterable[np.ndarray], empty: np.ndarray | None = None) -> None:
        """Rows (n,), (n, D) or (n, T, D) in blocks of any size, stored contiguously.

        `empty` (0,), (0, D) or (0, T, D) gives widths and dtype where there are no rows.
        """
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
                value = np.asarray(value, BASIS[name][0])
                self._reserve(value.nbytes)
                group[name] = value
                self._checksums(f"basis/{layer}/{name}", value, max(1, schema.BLOCK_BYTES // max(value[:1].nbytes, 1)))
            else:
                group.attrs[name] = to_attribute(value)

    def _create(self, name: str, num_rows: int, like: np.ndarray) -> tuple[h5py.Dataset, _BlockSums]:
        row_bytes = math.prod(like.shape[1:]) * like.dtype.itemsize
        self._reserve(num_rows * row_bytes)
        dataset = self.h5.create_dataset(name, (num_rows, *like.shape[1:]), like.dtype.newbyteorder("<"))
        return dataset, _BlockSums(max(1, schema.BLOCK_BYTES // max(row_bytes, 1)))

    def _checksums(self, name: str, array: np.ndarray, block_rows: int) -> None:
        sums = [crc(array[i : i + block_rows]) for i in range(0, len(array), block_rows)]
        self._store_checksums(name, sums, block_rows)

    def _store_checksums(self, name: str, sums: list[int], block_rows: int) -> None:
        self._reserve(4 * len(sums))
        dataset = self.h5.create_dataset(f"checksums/{name}", data=np.array(sums, CHECKSUM))
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
