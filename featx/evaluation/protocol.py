"""What a protocol is: which listed videos train and which test, in checked records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from featx.errors import UsageError

__all__ = ["Entry", "Protocol", "Request", "Split", "choose_numbers", "group_of"]


class Entry(NamedTuple):
    """One listed video: its name as the list has it, and its class."""

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
    """The splits of one evaluation; `classes` in the data set's order; `notes` say what a reader of the result must know."""

    classes: tuple[str, ...]
    splits: tuple[Split, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a protocol's loader is given: the feature file's keys and the user's choices; `numbers` empty means all splits."""

    keys: tuple[str, ...]
    folder: Path | None = None
    numbers: tuple[int, ...] = ()
    folds: int | None = None
    seed: int = 0

    def list_folder(self, dataset: str, holds: str) -> Path:
        """The folder of list files. Raises UsageError where none was given, `folds` was, or it is no folder."""
        if self.folds is not None:
            raise UsageError(f"folds is {self.folds}, but {dataset} has fixed splits; leave --folds out")
        if self.folder is None:
            raise UsageError(f"{dataset} needs its list files; give the folder of {holds} with --splits")
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder} is no folder; --splits takes the folder of {holds}")
        return self.folder


def choose_numbers(available: Sequence[int], wanted: Iterable[int]) -> list[int]:
    """The wanted numbers in order, all if none is named. Raises UsageError for one that is not available."""
    wanted = sorted(set(wanted))
    for number in wanted:
        if number not in available:
            raise UsageError(f"split {number} does not exist; choose from {', '.join(map(str, available))}")
    return wanted or list(available)


def group_of(name: str) -> str | None:
    """The group that a UCF-style name carries, the same background and people: "07" of ``v_Archery_g07_c03``, else None."""
    match = re.search(r"_g(\d+)_", name)
    return match[1] if match else None
