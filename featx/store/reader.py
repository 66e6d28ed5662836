"""Reading feature sets: one file, a file with its parts, or a folder of files, as one."""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from featx import provenance as _provenance
from featx.errors import FeatureFileError, LacksWarning, ProvenanceError, UnknownNameError, UsageError
from featx.features import ClipTable, Failure, Features
from featx.provenance import BEGUN, ENDED
from featx.reachable import hindrance
from featx.remote import require_no_address
from featx.shards import joined, missing_shards
from featx.store.handles import Handles
from featx.store.index import Index
from featx.store.keys import Keys
from featx.store.member import Member, Moved, reading
from featx.store.order import arrange
from featx.store.outputs import holds_features
from featx.store.record import Stamp
from featx.store.schema import PARTS_SUFFIX, SCHEMA, from_attribute, is_part, parts_of

__all__ = ["FeatureSet", "find_files", "open_features", "while_joined"]

# of more files than this none stays open: a process may have 1,024, and each takes two, and one more while it is mapped
MAX_OPEN = 64
PIECE_BYTES, AHEAD_BYTES = (
    2**16,
    64 * 2**20,
)  # what is worth opening a file for, and what is read of all of them at most
MAX_NAMED = 3  # unfinished files that a message names
ROOM_BYTES = 2**20  # for rows on their way from a file to their places

MAX_LOOKS = 10  # for files that are joined between being listed and being opened

T = TypeVar("T")


class FeatureSet:
    """The features of many videos, read lazily from one file, from a file with its parts, or from a folder of files.

    Rows are in the order of `keys`, which are sorted. `groups` are lists of files: within one, a file and its parts, the
    last word on a key counts; no key may stand in two of them. Use it in a ``with`` block, or call `close`.

    Up to MAX_OPEN files stay open, and are read as they were then; of more, each is opened when it is read, and a file that was
    replaced meanwhile is an error. `place`, the folder of so many, is remembered, see `featx.store.index`.

    `outputs` names what each group is called by, `unfinished` those whose run has not come to its end.

    Raises FeatureFileError for a file that is damaged, ProvenanceError where files do not belong together, and UsageError
    for a key in two groups.
    """

    def __init__(self, *groups: Sequence[Path], place: Path | None = None) -> None:
        self._members: list[Member] = []
        self._handles = Handles()
        sizes = [len(group) for group in groups]
        began_ns = time.time_ns()
        index = Index.load(place) if place is not None and sum(sizes) > MAX_OPEN else None
        try:
            num_new = self._open(list(itertools.chain(*groups)), index)
            provenance = _provenance.common((str(m.path), m.provenance) for m in self._members)
            files_of = {_output_of(group): group for group in _grouped(self._members, sizes) if group}
            self.outputs = tuple(files_of)
            self.unfinished = tuple(output for output, group in files_of.items() if _is_unfinished(group))
            all_ended = all(group[-1].provenance.run == ENDED for group in files_of.values())
            run = BEGUN if self.unfinished else ENDED if all_ended else ""
            self.provenance = replace(provenance, shard=self._shard(sizes), run=run)
            known_order = index.order(sizes) if index is not None and not num_new else None
            files = [(member.path, member.record) for member in self._members]
            self._order = known_order or arrange(_grouped(files, sizes))
            self._check_widths()
        except BaseException:
            self.close()
            raise
        if index is not None and known_order is None:
            index.save(files, sizes, self._order, began_ns)

    def _open(self, paths: list[Path], index: Index | None) -> int:
        """Open the files, and return how many of them had to be examined."""
        handles = self._handles if len(paths) > MAX_OPEN else None
        num_new = 0
        for path in paths:
            known = index.record(path) if index is not None else None
            num_new += known is None
            self._members.append(
                Member.open(path, handles) if known is None else Member(path, known, handles=self._handles)
            )
        return num_new

    def _shard(self, group_sizes: list[int]) -> str:
        """Which shards the files hold together. Raises ProvenanceError where they do not belong together."""
        named = []
        for group in _grouped(self._members, group_sizes):
            own = {member.provenance.shard: str(member.path) for member in group}
            named += [(path, shard) for shard, path in own.items()]
        return joined(named)

    def _check_widths(self) -> None:
        for layer in self.layers:
            group = "descriptors" if self.has_descriptors else "clips"
            widths = {m.shape(f"{group}/{layer}")[1]: m.path for m in self._members if m.num_videos}
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
    def lacks(self) -> str:
        """What is not there of what the runs were to write, in a line: unfinished files, missing shards; "" for nothing."""
        names = [str(path) for path in self.unfinished]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        which = f"{', '.join(names[:MAX_NAMED])}{more}: " if len(self.outputs) > 1 else ""
        said = f"{which}the run has not come to its end" if names else ""
        return "; ".join(filter(None, (said, missing_shards(self.provenance.shard))))

    @cached_property
    def keys(self) -> Keys:
        """The keys of the videos, sorted; a sequence of str, which is made of them as they are asked for."""
        return self._order.keys

    @cached_property
    def failures(self) -> list[Failure]:
        """What was tried and gave no features, by key."""
        return list(self._order.failures)

    @property
    def num_videos(self) -> int:
        return self._order.num_videos

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
        return self.num_videos

    def __contains__(self, key: object) -> bool:
        return key in self.keys

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
        """A column of /videos, (V,), in the order of `keys`; strings as an object array. See SCHEMA for the names.

        "first_clip" counts the clips of the whole set, as `clip_rows` and `clip_column` do, however many files it has.
        """
        if name not in SCHEMA["videos"]:
            raise UnknownNameError("video column", name, SCHEMA["videos"])
        if name == "first_clip" and self.provenance.has_clip_table:
            counts = self._own_column("num_clips")
            return np.cumsum(counts) - counts
        return self._own_column(name)

    def _own_column(self, name: str) -> np.ndarray:
        """A column of /videos as its files have it: the first clips are rows of each video's own file."""
        return self._gather(f"videos/{name}", *self._places())

    def descriptors(self, layer: str) -> np.ndarray:
        """The design matrix of a layer: float32 (V, D), rows in the order of `keys`.

        Memory-mapped (read-only) where the set is one file. Raises UsageError where only clip features were kept.
        """
        name = self._descriptor_name(layer)
        if self._is_one_file:
            return self._members[0].array(name)
        return self.rows(layer, np.arange(len(self)))

    def rows(self, layer: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows of the design matrix, float32 (len(indices), D); `indices` may be a mask of V truth values."""
        return self._gather(self._descriptor_name(layer), *self._places(_within(indices, len(self))))

    def blocks(self, layer: str, rows: int = 4096) -> Iterator[np.ndarray]:
        """The design matrix in blocks of at most `rows` rows, float32 (n, D), in the order of `keys`."""
        name = self._descriptor_name(layer)
        yield from self._row_blocks(name, len(self), rows, self._places)

    def bins(self, layer: str) -> np.ndarray:
        """The clip features of a layer in bins of time, (V, T, D), videos in the order of `keys`; see `featx.bins`.

        Memory-mapped (read-only) where the set is one file. Raises UsageError where there are none.
        """
        name = self._bins_name(layer)
        if self._is_one_file:
            return self._members[0].array(name)
        return self._gather(name, *self._places())

    def bin_blocks(self, layer: str, rows: int = 64) -> Iterator[np.ndarray]:
        """The bins of a layer in blocks of at most `rows` videos, (n, T, D), in the order of `keys`."""
        name = self._bins_name(layer)
        yield from self._row_blocks(name, len(self), rows, self._places)

    def clip_blocks(self, layer: str, rows: int = 4096) -> Iterator[np.ndarray]:
        """The clip features of all videos in blocks of at most `rows` rows, (n, D), videos in the order of `keys`."""
        self.require_rows(layer, clips=True)
        return self._clip_column_blocks(layer, rows)

    def clip_rows(self, layer: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some rows of the clip features of all videos, (len(indices), D); videos are in the order of `keys`."""
        self.require_rows(layer, clips=True)
        return self._clip_values(layer, _within(indices, self.num_clips if len(self) else 0))

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

    def require_unchanged(self, since: Mapping[Path, Stamp] | None = None) -> None:
        """Raise FeatureFileError where somebody wrote to a file since it was opened, or since it was as `since` tells.

        One that took its name after it was opened is another file.
        """
        for member in self._members:
            member.require_unchanged(since[member.path] if since is not None else None)

    def close(self) -> None:
        """Close the files. Arrays that were handed out stay valid."""
        for member in self._members:
            member.close()
        self._handles.close()

    def __enter__(self) -> FeatureSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # how it is found

    @property
    def _is_one_file(self) -> bool:
        return len(self._members) == 1 and self._order.rows is None

    def _places(self, videos: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The member and row of videos, by their places among `keys`; None for all of them."""
        return self._order.places(np.arange(len(self)) if videos is None else videos)

    def _place(self, key: str) -> tuple[Member, int]:
        """The member and row of a video."""
        i = self.keys.find(key)
        if i is None:
            raise UnknownNameError("video", key, list(self.keys) if len(self) < 1000 else self.keys[:20])
        members, rows = self._order.places(np.array([i]))
        return self._members[members[0]], int(rows[0])

    @cached_property
    def _clip_counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every video: how many clips, the first one's row in its own file, and how many up to its last one."""
        counts = self._own_column("num_clips")
        return counts, self._own_column("first_clip"), np.cumsum(counts)

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
        if len(self._members) == 1:
            one = self._members[0]
            follow = rows.ndim == 1 and rows.size > 0 and bool((np.diff(rows) == 1).all())
            if follow and not one.is_text(name):
                return one.rows(name, slice(int(rows[0]), int(rows[-1]) + 1))
            return np.asarray(one.array(name)[rows])
        if not len(members):
            return self._member_with_rows().new(name, 0)
        order = np.argsort(members.astype(np.int16 if len(self._members) < 2**15 else np.int64), kind="stable")
        sorted_members, rows = members[order], rows[order]
        ends = np.flatnonzero(np.diff(sorted_members, append=-1)) + 1
        out, first = self._members[sorted_members[0]].new(name, len(rows)), 0
        room = np.empty(ROOM_BYTES, np.uint8)
        for end in ends.tolist():  # the rows of one member
            self._members[sorted_members[first]].take(name, rows[first:end], out, order[first:end], room)
            first = end
        return out

    def _member_with_rows(self) -> Member:
        """A file that tells the widths: one of failures alone does not."""
        return next((member for member in self._members if member.num_videos), self._members[0])

    def _row_blocks(
        self, name: str, num_rows: int, rows: int, places: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[np.ndarray]:
        """All rows of one dataset in blocks; of many files, several blocks are read at once, since each touches every file."""
        rows = max(1, rows)
        table = self._member_with_rows().table(name)
        row_bytes = max(1, table.dtype.itemsize * math.prod(table.shape[1:]))
        ahead = min(AHEAD_BYTES, PIECE_BYTES * len(self._members)) // row_bytes
        at_once = rows * max(1, ahead // rows)
        for start in range(0, num_rows, at_once):
            read = self._gather(name, *places(np.arange(start, min(start + at_once, num_rows))))
            for first in range(0, len(read), rows):
                yield read[first : first + rows]

    def _clip_column_blocks(self, name: str, rows: int) -> Iterator[np.ndarray]:
        yield from self._row_blocks(f"clips/{name}", self.num_clips if len(self) else 0, rows, self._clip_places)

    def _clip_values(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Rows of one dataset of clips, by their places in the order of all videos' clips."""
        return self._gather(f"clips/{name}", *self._clip_places(positions))

    def _clip_places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts, firsts, ends = self._clip_counts
        video = np.searchsorted(ends, positions, side="right")
        own_row = firsts[video] + positions - (ends[video] - counts[video])
        return self._order.places(video)[0], own_row


def _within(indices: Sequence[int] | np.ndarray, num_rows: int) -> np.ndarray:
    """Places among so many, those below 0 counted from behind; of a mask of so many truth values, where it is true.

    Raises IndexError for one that is none, UsageError for what are no places.
    """
    indices = np.asarray(indices)
    if indices.dtype == bool and indices.shape == (num_rows,):
        return np.flatnonzero(indices)
    if indices.size and indices.dtype.kind not in "iu":
        raise UsageError(
            f"rows are asked for by {indices.dtype} {indices.shape}, but must be whole numbers, or a mask of {num_rows} truth "
            "values"
        )
    indices = indices.astype(np.int64)
    outside = (indices < -num_rows) | (indices >= num_rows)
    if outside.any():
        raise IndexError(f"row {indices[outside][0]} of {num_rows}")
    return np.where(indices < 0, indices + num_rows, indices)


def _grouped(files: Sequence[T], group_sizes: Sequence[int]) -> list[list[T]]:
    """The files of each group."""
    left = iter(files)
    return [list(itertools.islice(left, size)) for size in group_sizes]


def _is_unfinished(group: Sequence[Member]) -> bool:
    """Whether the run that writes a file and its parts has not come to its end: the last of them tells.

    Earlier versions told nothing; a file of theirs counts as whole, parts alone do not.
    """
    run = group[-1].provenance.run
    return run != ENDED and (run != "" or _lies_in_parts(group[0].path))


def _output_of(group: Sequence[Member]) -> Path:
    """What a file and its parts, or parts alone, are called by."""
    folder = group[0].path.parent
    return folder.with_name(_whole_name(folder.name)) if _lies_in_parts(group[0].path) else group[0].path


def _lies_in_parts(path: Path) -> bool:
    """Whether a file is a part of an output; a user's folder may be called as those of parts are."""
    return path.parent.name.endswith(PARTS_SUFFIX) and is_part(path.name)


def find_files(path: str | os.PathLike) -> list[list[Path]]:
    """The files of a feature set, as the groups that `FeatureSet` takes: a file, and behind it its parts.

    `path`: a file, or a folder of files, see `holds_features`. Raises FeatureFileError for a folder without any.
    """
    require_no_address(path, "fetch it first, with the folder of its parts if it has one")
    path = Path(path)
    if why := hindrance(path):
        raise FeatureFileError(f"{path} cannot be read: {why}; check the path, and who may read it")
    if not path.is_dir():
        return [_with_parts(path)]
    names = _names_in(path)
    if path.name.endswith(PARTS_SUFFIX) and any(map(is_part, names)):
        groups = [[path / name for name in names if is_part(name)]]
    else:  # a shard whose run is not over lies in its parts alone
        shards = sorted(set(map(_whole_name, names)))
        groups = [
            _with_parts(path / name) if name + PARTS_SUFFIX in names or names.get(name) else [path / name]
            for name in shards
        ]
        groups = [group for group in groups if group[0].parent != path or holds_features(group[0])]
    if not any(groups):
        raise FeatureFileError(
            f"{path}: a folder without feature files; a feature file is what 'featx extract -o' writes"
        )
    return groups


def _names_in(folder: Path) -> dict[str, bool]:
    """The names in a folder, in their order, but hidden ones -> whether it is a link, whose parts lie elsewhere."""
    try:
        with os.scandir(folder) as entries:
            return dict(sorted((entry.name, entry.is_symlink()) for entry in entries if not entry.name.startswith(".")))
    except OSError as error:
        raise FeatureFileError(f"{folder} cannot be read: {error.strerror}; check who may read it") from error


def _whole_name(name: str) -> str:
    return name.removesuffix(PARTS_SUFFIX)


def _with_parts(path: Path) -> list[Path]:
    """A file, and behind it its parts."""
    parts = parts_of(path)
    return [path, *parts] if path.exists() or not parts else parts


def open_features(path: str | os.PathLike, *, warn: bool = True) -> FeatureSet:
    """Open a feature set: a file (with its sibling parts, if any), or a folder of feature files.

    `warn`: give a LacksWarning where a shard is missing, or a run has not come to its end.
    Raises FeatureFileError where there is none or one is damaged, ProvenanceError where files do not belong together.
    """
    features = while_joined(path, lambda groups: FeatureSet(*groups, place=Path(path)))
    if warn and features.lacks:
        warnings.warn(LacksWarning(f"{path} is not all there: {features.lacks}"), stacklevel=2)
    return features


def while_joined(paths: str | os.PathLike | Sequence[str | os.PathLike], use: Callable[[list[list[Path]]], T]) -> T:
    """What `use` makes of the groups that `find_files` finds in a path, or in several; it is asked again where it raises Moved
    since a run has just joined files."""

    def look() -> list[list[Path]]:
        return [group for path in each for group in find_files(path)]

    each = [paths] if isinstance(paths, str | os.PathLike) else paths
    for _ in range(MAX_LOOKS - 1):
        groups = look()
        try:
            return use(groups)
        except Moved:
            if all(file.exists() for group in groups for file in group) or look() != groups:
                continue
            raise
    return use(look())
