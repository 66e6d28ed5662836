"""Label lists: which classes of a network are true of which videos.

A text file has a line a video: its name, and behind a file suffix the numbers of its classes as they stand in the layer prob,
from 0, joined by commas (``a.mp4 12,301``); a name alone is of the class that its folder is called. A CSV file has the columns
``key,label``, with names or numbers; a video of several classes has several lines, or labels joined by ";".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from featx.errors import UnknownNameError, UsageError
from featx.evaluation.tables import read_table
from featx.lists import read_lines

__all__ = ["read_labels"]

_NUMBERED = re.compile(r"(?P<name>.*\.\w{2,5})\s+(?P<numbers>\d+(\s*,\s*\d+)*)")


def read_labels(path: Path, names: Sequence[str] | None, num_classes: int) -> dict[str, frozenset[int]]:
    """Listed name -> numbers of its classes, 0 to `num_classes` - 1; `names` are the classes', None where nobody knows them.

    Raises UsageError, naming the video, for a class that the network has not.
    """
    number_of = {_plain(name): i for i, name in enumerate(names or ())}
    if len(number_of) < len(names or ()):  # names that differ by case or spaces only
        number_of = {name: i for i, name in enumerate(names)}
    labels: dict[str, set[int]] = {}
    for name, label in _csv_lines(path) if path.suffix.lower() == ".csv" else _text_lines(path):
        folder = PurePosixPath(name).parent.name
        by_folder = number_of.get(folder, number_of.get(_plain(folder)))
        if label is None:
            if by_folder is None:
                raise _unknown(path, name, folder, names)
            number = by_folder
        elif re.fullmatch(r"[0-9]{1,18}", label):  # not isdigit, which takes "²" for a number
            number = int(label)
            if number >= num_classes:
                raise UsageError(
                    f"{path}: '{name}' has the label {number}, but classes are numbered from 0 to {num_classes - 1}, as in prob"
                )
            if path.suffix.lower() != ".csv" and by_folder not in (None, number):
                raise UsageError(
                    f"{path}: '{name}' has the label {number}, which is {names[number]}, but lies in {folder}, number "
                    f"{by_folder}: classes are numbered from 0; leave the numbers out where folders name the classes"
                )
        else:
            number = number_of.get(label, number_of.get(_plain(label)))
            if number is None:
                raise _unknown(path, name, label, names)
        labels.setdefault(name, set()).add(number)
    return {name: frozenset(numbers) for name, numbers in labels.items()}


def _text_lines(path: Path) -> Iterator[tuple[str, str | None]]:
    for line in read_lines(path):
        match = _NUMBERED.fullmatch(line)
        if match is None:
            yield line, None
        else:
            yield from ((match["name"], number.strip()) for number in match["numbers"].split(","))


def _csv_lines(path: Path) -> Iterator[tuple[str, str]]:
    for row in read_table(path, ("key", "label")):
        yield from ((row["key"], label.strip()) for label in row["label"].split(";"))


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name).casefold()


def _unknown(path: Path, name: str, label: str, names: Sequence[str] | None) -> UsageError:
    if names is None:
        return UsageError(
            f"{path}: '{name}' has no numbers, and the card knows no names of classes; write numbers, from 0"
        )
    return UnknownNameError(f"class of '{name}' in {path}:", label, names)
