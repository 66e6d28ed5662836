"""HMDB51: three official splits, 70 train and 30 test videos a class, in 51 classes.

``<class>_test_split<N>.txt`` has "name.avi flag" a line: 1 trains, 2 tests, 0 is not used in that split.
Source of the counts: the data set's own lists (test_train_splits.rar).
"""

from __future__ import annotations

import re
from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split, choose_numbers
from featx.lists import read_lines

__all__ = ["load"]

NUM_CLASSES = 51
COUNTS = (3570, 1530)  # train, test; the same in each split
SUBFOLDER = "testTrainMulti_7030_splits"  # what the archive unpacks into


def load(request: Request) -> Protocol:
    """Read and check the official lists, in the folder given or in its SUBFOLDER."""
    folder = request.list_folder("hmdb51", "the files <class>_test_split<N>.txt")
    if (folder / SUBFOLDER).is_dir():
        folder /= SUBFOLDER
    names = [re.fullmatch(r"(.+)_test_split\d\.txt", path.name) for path in folder.iterdir()]
    classes = sorted({match[1] for match in names if match})
    if len(classes) != NUM_CLASSES:
        raise UsageError(
            f"{folder} has lists <class>_test_split<N>.txt of {len(classes)} classes, but HMDB51 has {NUM_CLASSES}; "
            "unpack the official lists there"
        )
    splits = [_read_split(folder, n, classes) for n in choose_numbers((1, 2, 3), request.numbers)]
    return Protocol(tuple(classes), tuple(splits))


def _read_split(folder: Path, number: int, classes: list[str]) -> Split:
    sides: dict[str, list[Entry]] = {"0": [], "1": [], "2": []}
    for label in classes:
        path = folder / f"{label}_test_split{number}.txt"
        for line in read_lines(path):
            name, _, flag = line.rpartition(" ")
            if not name or flag not in sides:
                raise UsageError(f"{path}: '{line}' is not 'name flag' with flag 0 (unused), 1 (train) or 2 (test)")
            sides[flag].append(Entry(f"{label}/{name.strip()}", label))
    found = len(sides["1"]), len(sides["2"])
    if found != COUNTS:
        raise UsageError(
            f"split {number} lists {found[0]} train and {found[1]} test videos, but HMDB51 has {COUNTS[0]} and {COUNTS[1]}; "
            "use the official lists unchanged (--allow-missing copes with videos you do not have)"
        )
    return Split(f"split {number}", tuple(sides["1"]), tuple(sides["2"]))
