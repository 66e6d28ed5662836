"""What the commands that `kill_driver` kills write: how each is begun anew, and judged after a kill.

Each has `begin()`, which takes away what is there; `check()`, which asserts that whatever has its final name is whole and equal
to what an uninterrupted run gave, and returns how much that is; `is_whole()`; and `left()`, the names of all that lies there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np

from featx import store


class FeatureFile:
    """A feature file with its parts; `template` is a folder whose content is there at the beginning."""

    exit_code_again = 0  # of the same command where all is done

    def __init__(self, place: str, reference: str, template: str | None = None) -> None:
        self.place, self.reference, self.template = Path(place), Path(reference), template
        self.expected = _videos_of(self.reference)

    def begin(self) -> None:
        shutil.rmtree(store.parts_folder(self.place), ignore_errors=True)
        self.place.unlink(missing_ok=True)
        if self.template:
            shutil.copytree(self.template, self.place.parent, dirs_exist_ok=True)

    def check(self) -> int:
        number, found = 0, set()
        for path in [self.place, *sorted(store.parts_folder(self.place).glob("part-*.h5"))]:
            if path.exists():
                for key, values in _videos_of(path).items():
                    assert _same(values, self.expected[key]), (str(path), key)
                    found.add(key)
                    number += 1
        assert not self.template or found == self.expected.keys(), "what was there at the beginning is gone"
        return number

    def is_whole(self) -> bool:
        if not self.place.exists() or list(_videos_of(self.place)) != list(self.expected):
            return False
        with h5py.File(self.place) as ours, h5py.File(self.reference) as theirs:
            made = [{n: v for n, v in file.attrs.items() if n != "featx_version"} for file in (ours, theirs)]
            return made[0].keys() == made[1].keys() and all(np.array_equal(made[0][n], made[1][n]) for n in made[1])

    def left(self) -> list[str]:
        return sorted(path.name for path in self.place.parent.iterdir() if self.place.name in path.name)


class Folder:
    """A folder of many files, which appears whole or not at all."""

    exit_code_again = 2  # it exists and holds something

    def __init__(self, place: str, reference: str) -> None:
        self.place = Path(place)
        self.expected = self._files(Path(reference))

    def begin(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    def check(self) -> int:
        if not self.place.exists():
            return 0
        assert self._files(self.place) == self.expected
        return len(self.expected)

    def is_whole(self) -> bool:
        return self.place.exists()

    def left(self) -> list[str]:
        return sorted(path.name for path in self.place.parent.iterdir() if self.place.name in path.name)

    @staticmethod
    def _files(folder: Path) -> dict[str, bytes]:
        """Files name their own folder: that is left out."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return {name: data.replace(bytes(folder), b"") for name, data in files.items()}


class Cache:
    """The cache folder with the weights of one card."""

    exit_code_again = 0
    MAX_FILES = (
        6  # the stored two, one that is written aside, the file that is fetched, a part of it and its validators
    )

    def __init__(self, place: str, reference: str) -> None:
        self.place, self.reference = Path(place), Path(reference)

    def begin(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    def check(self) -> int:
        assert len(self.left()) <= self.MAX_FILES, self.left()
        for record in self.place.glob("weights/*.json"):
            expected = self.reference / "weights" / record.name
            assert self._told(record) == self._told(expected)
            weights = self._told(record)["file"]
            assert (record.parent / weights).read_bytes() == (expected.parent / weights).read_bytes()
            return 1
        return 0

    def is_whole(self) -> bool:
        return self.check() == 1

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.place)) for path in self.place.rglob("*") if path.is_file())

    @staticmethod
    def _told(record: Path) -> dict:
        told = json.loads(record.read_text())
        del told["origin"]["added"]
        return told


OUTPUTS = {"features": FeatureFile, "folder": Folder, "cache": Cache}


def _videos_of(path: Path) -> dict[bytes, list]:
    """key -> everything that plain h5py finds of it."""
    with h5py.File(path) as h5:
        columns = {name: h5[f"videos/{name}"][:] for name in h5["videos"]}
        layers = {name: h5[f"descriptors/{name}"][:] for name in h5.get("descriptors", {})}
        clips = {name: h5[f"clips/{name}"][:] for name in h5.get("clips", {})}
    found = {}
    for i, key in enumerate(columns["key"]):
        first, count = int(columns["first_clip"][i]), int(columns["num_clips"][i])
        rows = [table[first : first + count] for table in clips.values()]
        row = [column[i] for name, column in columns.items() if name != "first_clip"]
        found[key] = [*row, *(m[i] for m in layers.values()), *rows]
    return found


def _same(one: list, two: list) -> bool:
    pairs = zip(one, two, strict=True)
    return all(np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray)) or a != a for a, b in pairs)
