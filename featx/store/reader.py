"""Reading feature files: one of them (Member), and a set of them (FeatureSet)."""

from __future__ import annotations

import errno
import itertools
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from featx import provenance as _provenance
from featx.errors import FeatureFileError, FeatxError, ProvenanceError, UnknownNameError, UsageError
from featx.features import ClipTable, Failure, Features
from featx.provenance import Provenance
from featx.store.schema import OPTIONAL, PARTS_SUFFIX, SCHEMA, from_attribute, parts_folder
from featx.store.structure import require_attributes, require_tables, require_types

__all__ = ["FeatureSet", "Member", "find_files", "open_features"]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise FeatureFileError for whatever HDF5 says of a part of the file that cannot be read."""
    try:
        yield
    except FeatxError:
        raise
    except (KeyError, ValueError, RuntimeError, OSError, TypeError, OverflowError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise FeatureFileError(f"{path}: damaged: it cannot be read ({why}); extract again") from error


class Member:
    """One open file of a feature set; its structure has been checked, its checksums have not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file, self.h5 = _open_pair(path)
        try:
            with reading(path):
                self.provenance = self._read_provenance()
                num_bytes = os.fstat(self._file.fileno()).st_size
                require_tables(self.h5, self.provenance, num_bytes, path)
                self.keys: list[str] = self.strings("videos/key")
            if not all(map(operator.lt, self.keys, itertools.islice(self.keys, 1, None))):
                raise FeatureFileError(
                    f"{path}: damaged: its keys are not in order, or one stands twice; extract again"
                )
        except BaseException:
            self.close()
            raise

    def _read_provenance(self) -> Provenance:
        require_attributes(self.h5, self.path)
        attributes = self.h5.attrs
        if attributes.get("format") != "featx":
            raise FeatureFileError(
                f"{self.path}: an HDF5 file, but not a feature file; that is what 'featx extract -o' writes"
            )
        version = from_attribute(attributes.get("format_version", 0))
        if version != _provenance.FORMAT_VERSION:
            raise FeatureFileError(
                f"{self.path}: format version {version}, but this featx reads version {_provenance.FORMAT_VERSION}; "
                "use the featx that wrote it, or extract again"
            )
        names = [f.name for f in fields(Provenance)]
        missing = [name for name in names if name not in attributes and name not in _provenance.ADDED_LATER]
        if missing:
            raise FeatureFileError(
                f"{self.path}: its attribute '{missing[0]}' is missing: damaged, or written by an earlier featx; extract again"
            )
        values = {name: from_attribute(attributes[name]) for name in names if name in attributes}
        require_types(values, self.path)
        return Provenance(**values)

    def strings(self, name: str) -> list[str]:
        return list(self.h5[name].asstr()[:]) if len(self.h5[name]) else []

    def value(self, name: str, row: int) -> object:
        """One row of a column, a str or a number, without the others."""
        if name in OPTIONAL and name not in self.h5:
            return OPTIONAL[name]
        dataset = self.h5[name]
        return dataset.asstr()[row] if dataset.dtype.kind == "O" else dataset[row].item()

    def array(self, name: str) -> np.ndarray:
        """A dataset as an array that is read when it is touched: contiguous datasets are memory-mapped."""
        if name in OPTIONAL and name not in self.h5:
            return np.full(len(self.keys), OPTIONAL[name], object)
        if name == "videos/key":
            return np.array(self.keys, dtype=object)
        dataset = self.h5[name]
        if dataset.dtype.kind == "O":
            return np.array(self.strings(name), dtype=object)
        offset = dataset.id.get_offset()
        if offset is None or not dataset.size:
            return dataset[...]
        return np.memmap(self._file, dataset.dtype, mode="r", offset=offset, shape=dataset.shape)

    def close(self) -> None:
        self.h5.close()
        self._file.close()


def _open_pair(path: Path) -> tuple[BinaryIO, h5py.File]:
    """A file, opened for mapping and by HDF5. Mapped arrays are read from this very file, also when a run renames a new one
    into its place meanwhile."""
    file = None
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without an end
            raise FeatureFileError(f"{path}: not a regular file; a feature file is what 'featx extract -o' writes")
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        h5 = h5py.File(path, "r")
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            h5.close()
            raise FeatureFileError(f"{path} was replaced while it was opened; open it again")
        return file, h5
    except (OSError, FeatureFileError, RuntimeError, KeyError, ValueError) as error:
        if file is not None:
            file.close()
        if isinstance(error, FeatureFileError):
            raise
        what = _why_not_opened(path, error)
        raise FeatureFileError(f"{path}: {what}; a feature file is what 'featx extract -o' writes") from error


def _why_not_opened(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM):
        return f"cannot be opened ({os.strerror(number)})"
    return "not an HDF5 file, or damaged"


class FeatureSet:
    """The features of many videos, read lazily from one file, from a file with its parts, or from a folder of files.

    Rows are in the order of `keys`, which are sorted. `groups` are lists of files: within one, a file and its parts, the
    last word on a key counts; no key may stand in two of them. Use it in a ``with`` block, or call `close`.

    Raises FeatureFileError for a file that is damaged, ProvenanceError where files do not belong together, and UsageError
    for a key in two groups.
    """

    def __init__(self, *groups: Sequence[Path]) -> None:
        self._members: list[Member] = []
        try:
            self._members += [Member(path) for group in groups for path in group]
            self.provenance = _provenance.common((str(m.path), m.provenance) for m in self._members)
            self._index([len(group) for group in groups])
            self._check_widths()
        except BaseException:
            self.close()
            raise

    def _index(self, group_sizes: list[int]) -> None:
        """Find the member and row of every key, and what remains of the failures."""
        if group_sizes == [1] and not len(self._members[0].h5["failures/key"]):  # a million videos: 2 seconds less
            self.keys: list[str] = self._members[0].keys
            self.failures: list[Failure] = []
            self._row_of_key = dict(zip(self.keys, range(len(self.keys)), strict=True))
            self._member_of, self._row_of = np.zeros(len(self), np.int64), np.arange(len(self))
            return
        where: dict[str, tuple[int, int]] = {}
        failures: dict[str, Failure] = {}
        members = iter(enumerate(self._members))
        for size in group_sizes:
            own_where, own_failures = _last_words(list(itertools.islice(members, size)))
            for key in own_where.keys() & where.keys():
                first, second = (self._members[place[key][0]].path for place in (where, own_where))
                raise UsageError(f"the video '{key}' stands in {first} and in {second}; leave one of them out")
            where |= own_where
            failures |= own_failures
        self.keys = sorted(where)
        # another shard may have had more luck with a video
        self.failures = [failures[key] for key in sorted(failures) if key not in where]
        self._row_of_key = {key: i for i, key in enumerate(self.keys)}
        places = np.array([where[key] for key in self.keys], np.int64).reshape(-1, 2)
        self._member_of, self._row_of = places[:, 0], places[:, 1]

    def _check_widths(self) -> None:
        for layer in self.layers:
            group = "descriptors" if self.has_descriptors else "clips"
            widths = {m.h5[f"{group}/{layer}"].shape[1]: m.path for m in self._members if m.keys}
            if len(widths) > 1:
                found = ", ".join(f"{width} in {path}" for width, path in widths.items())
                raise ProvenanceError(f"{layer} has different dimensions: {found}; leave one of them out")

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
    def has_bins(self) -> bool:
        return self.provenance.bins > 0

    @property
    def bases(self) -> dict[str, dict[str, np.ndarray | float | int | str]]:
        """layer -> what PCA saved of its basis; empty before PCA. Raises FeatureFileError where it cannot be read."""
        member = self._members[0]
        with reading(member.path):
            return {
                layer: {name: from_attribute(value) for name, value in entry.attrs.items()}
                | {name: dataset[...] for name, dataset in entry.items()}
                for layer, entry in member.h5.get("basis", {}).items()
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

    def bins(self, layer: str) -> np.ndarray:
        """The clip features of a layer in bins of time, (V, T, D), videos in the order of `keys`; see `featx.bins`.

        Memory-mapped (read-only) where the set is one file. Raises UsageError where there are none.
        """
        name = self._bins_name(layer)
        if len(self._members) == 1 and len(self) == len(self._members[0].keys):
            return self._members[0].array(name)
        return self._gather(name, self._member_of, self._row_of)

    def bin_blocks(self, layer: str, rows: int = 64) -> Iterator[np.ndarray]:
        """The bins of a layer in blocks of at most `rows` videos, (n, T, D), in the order of `keys`."""
        name = self._bins_name(layer)
        for start in range(0, len(self), rows):
            block = slice(start, start + rows)
            yield self._gather(name, self._member_of[block], self._row_of[block])

    def clip_blocks(self, layer: str, rows: int = 4096) -> Iterator[np.ndarray]:
        """The clip features of all videos in blocks of at most `rows` rows, (n, D), videos in the order of `keys`."""
        self.require_rows(layer, clips=True)
        return self._clip_column_blocks(layer, rows)

    def clip_rows(self, layer: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows of the clip features of all videos, (len(indices), D); videos are in the order of `keys`."""
        self.require_rows(layer, clips=True)
        return self._clip_values(layer, np.asarray(indices, np.int64))

    def clip_column(self, name: str) -> np.ndarray:
        """A column of /clips, (M,), of all videos in the order of `keys`. Raises UsageError where clips were not kept."""
        if name not in SCHEMA["clips"]:
            raise UnknownNameError("clip column", name, SCHEMA["clips"])
        self._check_clips()
        return self._clip_values(name, np.arange(self.num_clips if len(self) else 0))

    def require_rows(self, layer: str, clips: bool = False) -> None:
        """Raise UnknownNameError for a layer that is not held, UsageError where descriptors, or clips, were not kept."""
        self._check_layer(layer)
        if clips:
            self._check_clips()
        else:
            self._descriptor_name(layer)

    def __getitem__(self, key: str) -> Features:
        """Everything held of one video."""
        member, row = self._place(key)
        values = {name: member.value(f"videos/{name}", row) for name in SCHEMA["videos"]}
        first = values.pop("first_clip")
        clips = slice(first, first + values["num_clips"])
        return Features(
            **values,
            descriptors={n: member.h5[f"descriptors/{n}"][row] for n in self.layers} if self.has_descriptors else {},
            clips={n: member.h5[f"clips/{n}"][clips] for n in self.layers} if self.has_clips else {},
            bins={n: member.h5[f"bins/{n}"][row] for n in self.layers} if self.has_bins else {},
            clip_table=self.clip_table(key),
        )

    def clip_table(self, key: str) -> ClipTable | None:
        """Where the clips of a video lie; None where the file does not say. Raises UnknownNameError for an absent key."""
        member, row = self._place(key)
        if not self.provenance.has_clip_table:
            return None
        first, count = (member.value(f"videos/{name}", row) for name in ("first_clip", "num_clips"))
        return ClipTable(**{name: member.h5[f"clips/{name}"][first : first + count] for name in SCHEMA["clips"]})

    def close(self) -> None:
        """Close the files. Arrays that were handed out stay valid."""
        for member in self._members:
            member.close()

    def __enter__(self) -> FeatureSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # how it is found

    def _place(self, key: str) -> tuple[Member, int]:
        """The member and row of a video."""
        if key not in self._row_of_key:
            raise UnknownNameError("video", key, self.keys if len(self) < 1000 else self.keys[:20])
        i = self._row_of_key[key]
        return self._members[self._member_of[i]], int(self._row_of[i])

    def _check_layer(self, layer: str) -> None:
        if layer not in self.layers:
            raise UnknownNameError("layer", layer, self.layers, f"The file holds {', '.join(self.layers)}.")

    def _check_clips(self) -> None:
        if not self.has_clips:
            raise UsageError("the feature file holds descriptors only; extract with '--save clips' or '--save both'")

    def _bins_name(self, layer: str) -> str:
        self._check_layer(layer)
        if not self.has_bins:
            raise UsageError("the feature file holds no bins; extract with '--aggregate bins'")
        return f"bins/{layer}"

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
        first = self._members[present[0] if len(present) else 0].array(name)
        out = np.empty((len(rows), *first.shape[1:]), object if first.dtype.kind == "O" else first.dtype)
        for m in present:
            out[members == m] = self._members[m].array(name)[rows[members == m]]
        return out

    def _clip_column_blocks(self, name: str, rows: int) -> Iterator[np.ndarray]:
        total = self.num_clips if len(self) else 0
        for start in range(0, total, rows):
            yield self._clip_values(name, np.arange(start, min(start + rows, total)))

    def _clip_values(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Rows of one dataset of clips, by their places in the order of all videos' clips."""
        counts, firsts = self.column("num_clips"), self.column("first_clip")
        ends = np.cumsum(counts)
        video = np.searchsorted(ends, positions, side="right")
        own_row = firsts[video] + positions - (ends[video] - counts[video])
        return self._gather(f"clips/{name}", self._member_of[video], own_row)


def _last_words(members: list[tuple[int, Member]]) -> tuple[dict[str, tuple[int, int]], dict[str, Failure]]:
    """key -> (member, row), and key -> failure, of a file and its parts: what is written later takes the place of both."""
    where: dict[str, tuple[int, int]] = {}
    failures: dict[str, Failure] = {}
    for m, member in members:
        for row, key in enumerate(member.keys):
            where[key] = (m, row)
            failures.pop(key, None)
        columns = [member.array(f"failures/{name}").tolist() for name in SCHEMA["failures"]]
        for values in zip(*columns, strict=True):
            failure = Failure(**dict(zip(SCHEMA["failures"], values, strict=True)))
            failures[failure.key] = failure
            where.pop(failure.key, None)
    return where, failures


def find_files(path: str | os.PathLike) -> list[list[Path]]:
    """The files of a feature set, as the groups that `FeatureSet` takes: a file, and behind it its parts.

    `path`: a file, or a folder of files. Raises FeatureFileError for a folder without any.
    """
    path = Path(path)
    if not path.is_dir():
        parts = sorted(parts_folder(path).glob("part-*.h5"))
        return [[path, *parts] if path.exists() or not parts else parts]
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    if path.name.endswith(PARTS_SUFFIX):
        groups = [[path / name for name in names if name.endswith(".h5")]]
    else:  # a shard whose run is not over lies in its parts alone
        shards = sorted(
            {name.removesuffix(PARTS_SUFFIX) for name in names if name.removesuffix(PARTS_SUFFIX).endswith(".h5")}
        )
        groups = [group for name in shards for group in find_files(path / name) if group[0].exists()]
    if not any(groups):
        raise FeatureFileError(
            f"{path}: a folder without feature files (*.h5); a feature file is what 'featx extract -o' writes"
        )
    return groups


def open_features(path: str | os.PathLike) -> FeatureSet:
    """Open a feature set: a file (with its sibling parts, if any), or a folder of feature files.

    Raises FeatureFileError where there is none or one is damaged, ProvenanceError where files do not belong together.
    """
    return FeatureSet(*find_files(path))
