"""UCF101: three official splits of 13,320 videos in 101 classes.

``classInd.txt`` has "number class" a line, ``trainlist0N.txt`` "Class/v_x.avi number", ``testlist0N.txt`` "Class/v_x.avi".
Source of the counts: the data set's own lists (UCF101TrainTestSplits-RecognitionTask).
"""

from __future__ import annotations

from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.protocol import Entry, Protocol, Request, Split, choose_numbers, mixed_groups
from featx.lists import few, read_lines, split_label

__all__ = ["load", "read_split"]

NUM_CLASSES = 101
COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}  # split -> train, test


def load(request: Request) -> Protocol:
    """Read and check the official lists."""
    folder = request.list_folder("ucf101", "classInd.txt, trainlist0N.txt and testlist0N.txt")
    numbers = _read_class_numbers(folder / "classInd.txt")
    splits = []
    for n in choose_numbers(tuple(COUNTS), request.numbers):
        split = read_split(folder, n, numbers, COUNTS[n])
        mixed = mixed_groups(split)
        if mixed:
            raise UsageError(
                f"{split.name}: {few(mixed)} stands on both sides, but UCF101 never parts a group; use the official lists"
            )
        splits.append(split)
    return Protocol(tuple(numbers), tuple(splits))


def read_split(
    folder: Path,
    number: int,
    class_numbers: dict[str, int] | None = None,
    counts: tuple[int | None, int | None] = (None, None),
) -> Split:
    """Read ``trainlist0N.txt`` and ``testlist0N.txt``.

    Raises UsageError where classes and train labels are not those of `class_numbers`, or videos not as many as `counts`.
    """
    sides = []
    for side, count in zip(("train", "test"), counts, strict=True):
        path = folder / f"{side}list{number:02d}.txt"
        entries = []
        for line in read_lines(path):
            name, label = split_label(line)
            class_name = Path(name).parent.name
            if not class_name:
                raise UsageError(f"{path}: '{line}' names no class; write Class/video.avi")
            if class_numbers is not None and class_name not in class_numbers:
                raise UsageError(f"{path}: '{line}' is of class '{class_name}', which classInd.txt does not have")
            if class_numbers is not None and side == "train" and label != class_numbers[class_name]:
                raise UsageError(
                    f"{path}: '{line}' has label {label}, but classInd.txt gives {class_name} "
                    f"{class_numbers[class_name]}; use the official lists"
                )
            entries.append(Entry(name, class_name))
        if count is not None and len(entries) != count:
            raise UsageError(
                f"{path.name} lists {len(entries)} videos, but UCF101 has {count} there; "
                "use the official list unchanged (--allow-missing copes with videos you do not have)"
            )
        sides.append(tuple(entries))
    return Split(f"split {number}", *sides)


def _read_class_numbers(path: Path) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for line in read_lines(path):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name or name in numbers or int(number) != len(numbers) + 1:
            raise UsageError(f"{path}: '{line}' is not the line 'number class' of class {len(numbers) + 1}")
        numbers[name] = int(number)
    if len(numbers) != NUM_CLASSES:
        raise UsageError(f"{path} has {len(numbers)} classes, but UCF101 has {NUM_CLASSES}; use the official list")
    return numbers
