"""Reading feature sets: one file, a file with its parts, or a folder of files, as one."""

from __future__ import annotations

import itertools
import operator
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from featx import provenance as _provenance
from featx.errors import FeatureFileError, ProvenanceError, UnknownNameError, UsageError
from featx.features import ClipTable, Failure, Features
from featx.remote import require_no_address
from featx.shards import joined
from featx.store.member import Member, reading
from featx.store.schema import PARTS_SUFFIX, SCHEMA, from_attribute, parts_folder

__all__ = ["FeatureSet", "find_files", "open_features"]

# of more files than this none stays open: a process may have 1,024, and each takes two, and one more while it is mapped
MAX_OPEN = 64


class FeatureSet:
    """The features of many videos, read lazily from one file, from a file with its parts, or from a folder of files.

    Rows are in the order of `keys`, which are sorted. `groups` are lists of files: within one, a file and its parts, the
    last word on a key counts; no key may stand in two of them. Use it in a ``with`` block, or call `close`.

    Up to MAX_OPEN files stay open, and are read as they were then; of more, each is opened when it is read, and a file that was
    replaced meanwhile is an error.

    Raises FeatureFileError for a file that is damaged, ProvenanceError where files do not belong together, and UsageError
    for a key in two groups.
    """

    def __init__(self, *groups: Sequence[Path]) -> None:
        self._members: list[Member] = []
        try:
            stays_open = sum(map(len, groups)) <= MAX_OPEN
            for path in itertools.chain(*groups):
                self._members.append(Member(path, stays_open))
            provenance = _provenance.common((str(m.path), m.provenance) for m in self._members)
            self.provenance = replace(provenance, shard=self._shard([len(group) for group in groups]))
            self._index([len(group) for group in groups])
            self._check_widths()
        except BaseException:
            self.close()
            raise

    def _shard(self, group_sizes: list[int]) -> str:
        """Which shards the files hold together. Raises ProvenanceError where they do not belong together."""
        members, named = iter(self._members), []
        for size in group_sizes:
            own = {member.provenance.shard: str(member.path) for member in itertools.islice(members, size)}
            named += [(path, shard) for shard, path in own.items()]
        return joined(named)

    def _index(self, group_sizes: list[int]) -> None:
        """Find the member and row of every key, and what remains of the failures."""
        keys: list[str] = []
        member_of, row_of, failures = [], [], {}
        members = iter(enumerate(self._members))
        for size in group_sizes:
            group = list(itertools.islice(members, size))
            if size == 1 and not group[0][1].num_failures:  # a million videos: 2 seconds less
                number, member = group[0]
                own_keys = member.keys
                places = np.stack([np.full(len(own_keys), number), np.arange(len(own_keys))], axis=1)
            else:
                where, own_failures = _last_words(group)
                own_keys, places = list(where), np.array(list(where.values()), np.int64).reshape(-1, 2)
                failures |= own_failures
            keys += own_keys
            member_of.append(places[:, 0])
            row_of.append(places[:, 1])
        self._member_of, self._row_of = (
            np.concatenate([np.zeros(0, np.int64), *column]) for column in (member_of, row_of)
        )
        self.keys = self._sorted(keys)
        # another shard may have had more luck with a video
        self.failures: list[Failure] = [failures[key] for key in sorted(failures) if key not in self]

    def _sorted(self, keys: list[str]) -> list[str]:
        """The keys in order, and with them members and rows. Raises UsageError for a key that is there twice."""
        if all(map(operator.lt, keys, itertools.islice(keys, 1, None))):
            return keys
        order = sorted(range(len(keys)), key=keys.__getitem__)
        keys = [keys[i] for i in order]
        self._member_of, self._row_of = self._member_of[order], self._row_of[order]
        twice = next((i for i, pair in enumerate(itertools.pairwise(keys)) if pair[0] == pair[1]), None)
        if twice is not None:
            first, second = (self._members[m].path for m in self._member_of[twice : twice + 2])
            raise UsageError(f"the video '{keys[twice]}' stands in {first} and in {second}; leave one of them out")
        return keys

    def _check_widths(self) -> None:
        for layer in self.layers:
            group = "descriptors" if self.has_descriptors else "clips"
            widths = {m.shape(f"{group}/{layer}")[1]: m.path for m in self._members if m.keys}
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
        return int(self._clip_counts[0].sum())

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
        with reading(member.path), member.opened() as h5:
            return {
                layer: {name: from_attribute(value) for name, value in entry.attrs.items()}
                | {name: dataset[...] for name, dataset in entry.items()}
                for layer, entry in h5.get("basis", {}).items()
            }

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

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
        return max(member.shape(f"{group}/{layer}")[1] for member in self._members)

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
            descriptors={n: member.rows(f"descriptors/{n}", row) for n in self.layers} if self.has_descriptors else {},
            clips={n: member.rows(f"clips/{n}", clips) for n in self.layers} if self.has_clips else {},
            bins={n: member.rows(f"bins/{n}", row) for n in self.layers} if self.has_bins else {},
            clip_table=self.clip_table(key),
        )

    def clip_table(self, key: str) -> ClipTable | None:
        """Where the clips of a video lie; None where the file does not say. Raises UnknownNameError for an absent key."""
        member, row = self._place(key)
        if not self.provenance.has_clip_table:
            return None
        first, count = (member.value(f"videos/{name}", row) for name in ("first_clip", "num_clips"))
        own = slice(first, first + count)
        return ClipTable(**{name: member.rows(f"clips/{name}", own) for name in SCHEMA["clips"]})

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
        i = self._find(key)
        if i is None:
            raise UnknownNameError("video", key, self.keys if len(self) < 1000 else self.keys[:20])
        return self._members[self._member_of[i]], int(self._row_of[i])

    def _find(self, key: str) -> int | None:
        """The place of a key among `keys`."""
        i = bisect_left(self.keys, key)
        return i if i < len(self.keys) and self.keys[i] == key else None

    @cached_property
    def _clip_counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every video: how many clips, the first one's row in its own file, and how many up to its last one."""
        counts = self.column("num_clips")
        return counts, self.column("first_clip"), np.cumsum(counts)

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
        if not len(members):
            return np.asarray(self._members[0].array(name)[rows])
        order = np.argsort(members, kind="stable")
        ends = np.flatnonzero(np.diff(members[order], append=-1)) + 1
        out = None
        for first, end in zip([0, *ends[:-1]], ends, strict=True):  # the rows of one member
            places = order[first:end]
            values = self._members[members[places[0]]].array(name)
            if end - first == len(rows):
                return np.asarray(values[rows])
            if out is None:
                out = np.empty((len(rows), *values.shape[1:]), values.dtype)
            out[places] = values[rows[places]]
        return out

    def _clip_column_blocks(self, name: str, rows: int) -> Iterator[np.ndarray]:
        total = self.num_clips if len(self) else 0
        for start in range(0, total, rows):
            yield self._clip_values(name, np.arange(start, min(start + rows, total)))

    def _clip_values(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Rows of one dataset of clips, by their places in the order of all videos' clips."""
        counts, firsts, ends = self._clip_counts
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
    require_no_address(path, "fetch it first, with the folder of its parts if it has one")
    path = Path(path)
    if not path.is_dir():
        return [_with_parts(path)]
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    if path.name.endswith(PARTS_SUFFIX):
        groups = [[path / name for name in names if name.endswith(".h5")]]
    else:  # a shard whose run is not over lies in its parts alone
        present = set(names)
        shards = sorted({name for name in map(_whole_name, names) if name.endswith(".h5")})
        groups = [_with_parts(path / name) if name + PARTS_SUFFIX in present else [path / name] for name in shards]
        groups = [group for group in groups if group[0].exists()]
    if not any(groups):
        raise FeatureFileError(
            f"{path}: a folder without feature files (*.h5); a feature file is what 'featx extract -o' writes"
        )
    return groups


def _whole_name(name: str) -> str:
    return name.removesuffix(PARTS_SUFFIX)


def _with_parts(path: Path) -> list[Path]:
    """A file, and behind it its parts."""
    parts = sorted(parts_folder(path).glob("part-*.h5"))
    return [path, *parts] if path.exists() or not parts else parts


def open_features(path: str | os.PathLike) -> FeatureSet:
    """Open a feature set: a file (with its sibling parts, if any), or a folder of feature files.

    Raises FeatureFileError where there is none or one is damaged, ProvenanceError where files do not belong together.
    """
    return FeatureSet(*find_files(path))
