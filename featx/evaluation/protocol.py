"""What a protocol is: which listed videos train and which test, in checked records."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from featx.errors import UsageError
from featx.features import ClipTable

__all__ = ["Entry", "Protocol", "Request", "Split", "choose_numbers", "clip_name", "group_of", "mixed_groups"]


class Entry(NamedTuple):
    """One listed video, or clip: its name as the list has it (a clip's is `clip_name`), and its class."""

    name: str
    label: str


@dataclass(frozen=True)
class Split:
    """A train and a test list; no name stands twice, and every class that is tested is trained."""

    name: str
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name, _ in (*self.train, *self.test):
            if name in seen:
                raise UsageError(f"{self.name}: '{name}' is listed twice; a video trains or tests, once")
            seen.add(name)
        untrained = {label for _, label in self.test} - {label for _, label in self.train}
        if untrained:
            raise UsageError(f"{self.name}: class '{min(untrained)}' has test videos and none to train on; list some")


@dataclass(frozen=True)
class Protocol:
    """The splits of one evaluation; `classes` in the data set's order; `notes` say what a reader of the result must know.

    `other_labels`: the further true classes of videos that have several, by name; a hit on any of them counts.
    `leave_one_out`: every split tests one video, and the result is that of all of them together.
    """

    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    notes: tuple[str, ...] = ()
    other_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leave_one_out: bool = False


@dataclass(frozen=True)
class Request:
    """What a protocol's loader is given: the feature file's keys and the user's choices; `numbers` empty means all splits.

    `clip_table` tells where the clips of a key lie; None where the file holds no clip features; `fps` is
    what frames were resampled to before they were counted, 0 for as filmed. `labels`: what the file keeps of each key's, ""
    for none.
    """

    keys: tuple[str, ...]
    folder: Path | None = None
    numbers: tuple[int, ...] = ()
    folds: int | None = None
    seed: int = 0
    allow_missing: bool = False
    clip_table: Callable[[str], ClipTable] | None = None
    fps: float = 0.0
    labels: tuple[str, ...] = ()

    def list_folder(self, dataset: str, holds: str) -> Path:
        """The folder of list files. Raises UsageError where none was given, `folds` was, or it is no folder."""
        self.no_folds(dataset)
        if self.folder is None:
            raise UsageError(f"{dataset} needs its list files; give the folder of {holds} with --splits")
        if not os.path.isdir(self.folder):
            raise UsageError(f"{self.folder} is no folder; --splits takes the folder of {holds}")
        return self.folder

    def list_file(self, dataset: str, holds: str) -> Path:
        """The one file of a data set's lists. Raises UsageError where none was given, `folds` was, or it is no file."""
        self.no_folds(dataset)
        if self.folder is None:
            raise UsageError(f"{dataset} needs its list file; give {holds} with --splits")
        if not os.path.isfile(self.folder):
            raise UsageError(f"{self.folder} is no file; --splits takes {holds}")
        return self.folder

    def no_folds(self, dataset: str) -> None:
        """Raise UsageError where `folds` was given."""
        if self.folds is not None:
            raise UsageError(f"folds is {self.folds}, but {dataset} has fixed splits; leave --folds out")


def choose_numbers(available: Sequence[int], wanted: Iterable[int]) -> list[int]:
    """The wanted numbers in order, all if none is named. Raises UsageError for one that is not available."""
    wanted = sorted(set(wanted))
    for number in wanted:
        if number not in available:
            raise UsageError(f"split {number} does not exist; choose from {', '.join(map(str, available))}")
    return wanted or list(available)


def clip_name(key: str, start_frame: int) -> str:
    """The name of a clip: the key of its video and the frame that it starts at, from 0."""
    return f"{key} @{start_frame}"


def group_of(name: str) -> str | None:
    """The group that a UCF-style name carries, the same background and people: "07" of ``v_Archery_g07_c03``, else None."""
    match = re.search(r"_g(\d+)_", name)
    return match[1] if match else None


def mixed_groups(split: Split) -> list[str]:
    """The groups, as "Class g07", that stand on both sides of a split, sorted."""
    train, test = (
        {f"{label} g{group_of(name)}" for name, label in side if group_of(name)} for side in (split.train, split.test)
    )
    return sorted(train & test)
