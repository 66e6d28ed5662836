"""Shards: a set of videos cut into N parts that are extracted apart, by a hash of their keys, and joined again.

    number of a key's shard = 1 + (the first 8 bytes of SHA-256 of the key in UTF-8, read as a big-endian integer) modulo N

A key's shard depends on nothing but the key and N, so adding videos moves none of the others. What a feature file holds of the
shards stands in its attribute `shard`: "" for all of them or none, "3/8" for the third of eight, "1-5,7/8" after some were
joined.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featx.errors import ProvenanceError, UsageError

__all__ = ["SLURM", "Shard", "joined", "missing_shards", "parse_held", "parse_shard", "shard_number"]

MAX_SHARDS = 100_000
SLURM = "slurm"
_ONE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)
_TASKS = re.compile(r"slurm/(?:([0-9]{1,9})|([0-9]{1,9})-([0-9]{1,9})(?::([0-9]{1,9}))?)", re.ASCII | re.IGNORECASE)
_HELD = re.compile(r"([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)/([0-9]{1,6})", re.ASCII)
MAX_NAMED = 6  # missing shards that a message names


def shard_number(key: str, num_shards: int) -> int:
    """Which of `num_shards` shards, from 1, a video's key belongs to."""
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % num_shards + 1


@dataclass(frozen=True)
class Shard:
    """Shard `number`, from 1, of `num_shards`. Raises UsageError for numbers that are none."""

    number: int
    num_shards: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_shards <= MAX_SHARDS:
            raise UsageError(f"{self.num_shards} shards are asked for, but there must be 1 to {MAX_SHARDS:,}; say K/N")
        if not 1 <= self.number <= self.num_shards:
            raise UsageError(
                f"shard {self.number} of {self.num_shards} is asked for, but shards count from 1 to {self.num_shards}; "
                f"say such as 1/{self.num_shards}"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.num_shards}"

    def holds(self, key: str) -> bool:
        """Whether a video, of this key, belongs to the shard."""
        return shard_number(key, self.num_shards) == self.number


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """A shard as "K/N", or as that of this task of a SLURM job array, from the variables of `environment`:

    "slurm"       the array tells all: K = (SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / SLURM_ARRAY_TASK_STEP + 1, and N is
                  SLURM_ARRAY_TASK_COUNT; for an array that is submitted whole
    "slurm/8"     the array was submitted as 1-8: K is the task's number, whatever tasks of it run again now
    "slurm/0-7"   … as 0-7; "slurm/10-80:10" in steps of 10

    SLURM tells a task of its own submission only: run again alone, task 3 of an array of 8 learns of an array that is 3-3. So
    an array of one task is refused where N is not given. Raises UsageError there, where the text is no shard, where a variable
    is missing, for an array with gaps, and for a task that is none of those given.
    """
    environment = os.environ if environment is None else environment
    if text.lower() == SLURM:
        return _from_slurm(environment)
    if (match := _TASKS.fullmatch(text)) is not None:
        count, least, greatest, step = (int(group) if group else None for group in match.groups())
        if count is not None:
            return _of_tasks(text, 1, count, 1, environment)
        return _of_tasks(text, least, greatest, 1 if step is None else step, environment)
    match = _ONE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"the shard is '{text}', but must be K/N, such as 1/8, or in a job array of SLURM {SLURM}/N, such as {SLURM}/8"
        )
    return Shard(int(match[1]), int(match[2]))


def _of_tasks(text: str, least: int, greatest: int, step: int, environment: Mapping[str, str]) -> Shard:
    """The shard of this task in an array that was submitted as `least`-`greatest`:`step`."""
    if step < 1 or greatest < least:
        raise UsageError(f"the shard is '{text}', but tasks are given as in sbatch --array, such as {SLURM}/1-8")
    task, count = _slurm_number("ID", environment), (greatest - least) // step + 1
    place, between = divmod(task - least, step)
    lowest = _slurm_number("MIN", environment, task)
    if between or not 0 <= place < count or lowest < least:
        tasks = f"{least} to {greatest}" + f" in steps of {step}" * (step != 1)
        other = lowest if lowest < least else task
        remedy = (
            f"say {SLURM}/0-{greatest - 1} for an array from 0" if (least, other) == (1, 0) else "say which they are"
        )
        raise UsageError(f"the array of SLURM has the task {other}, but '{text}' stands for tasks {tasks}; {remedy}")
    return Shard(place + 1, count)


def _from_slurm(environment: Mapping[str, str]) -> Shard:
    task = _slurm_number("ID", environment)
    count, least = _slurm_number("COUNT", environment), _slurm_number("MIN", environment)
    step = _slurm_number("STEP", environment, 1)
    greatest = _slurm_number("MAX", environment, least + (count - 1) * step)
    place, between = divmod(task - least, max(step, 1))
    if between or greatest - least != (count - 1) * step or not least <= task <= greatest:
        raise UsageError(
            f"the array of SLURM has {count} tasks from {least} to {greatest} in steps of {step}, with task {task}: shards "
            f"need an array without gaps, such as --array=1-{max(count, 1)}; if it runs some tasks of a larger one again, say "
            f"--shard {SLURM}/N with the larger one's number of tasks, or --shard K/N"
        )
    if count == 1:
        raise UsageError(
            f"the array of SLURM has the task {task} alone, which may be one of a larger array that runs again: say --shard "
            f"{SLURM}/N with that one's number of tasks, such as {SLURM}/8 for --array=1-8, or leave --shard out"
        )
    return Shard(place + 1, count)


def _slurm_number(name: str, environment: Mapping[str, str], default: int | None = None) -> int:
    variable = f"SLURM_ARRAY_TASK_{name}"
    text = environment.get(variable, "")
    if not text and default is not None:
        return default
    if not re.fullmatch("[0-9]{1,9}", text, re.ASCII):
        raise UsageError(
            f"{variable} is '{text}', but --shard {SLURM} needs its number; run in a job array (sbatch --array=1-8), "
            "or say --shard K/N"
        )
    return int(text)


def parse_held(text: str) -> tuple[frozenset[int], int]:
    """The attribute `shard` of a feature file: the numbers of the shards that it holds, and of how many.

    Raises ValueError for a text that is none.
    """
    match = _HELD.fullmatch(text)
    num_shards = int(match[2]) if match else 0
    if not 1 <= num_shards <= MAX_SHARDS:
        raise ValueError(f"its attribute 'shard' is {text[:80]!r}, which is no K/N")
    numbers: set[int] = set()
    for piece in match[1].split(","):
        first, _, last = piece.partition("-")
        if not 1 <= int(first) <= int(last or first) <= num_shards:
            raise ValueError(f"its attribute 'shard' is {text[:80]!r}, which is no K/N")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers), num_shards


def joined(files: Sequence[tuple[str, str]]) -> str:
    """The attribute `shard` of several named files together; "" where they hold all shards. That of one file stays as it is.

    Raises ProvenanceError, which names the files, for a shard that two of them hold, for shards of different N, and for shards
    beside files that are none.
    """
    if len(files) == 1:
        return files[0][1]
    if not any(text for _, text in files):
        return ""
    without = next((name for name, text in files if not text), None)
    if without is not None:
        name, text = next((name, text) for name, text in files if text)
        raise ProvenanceError(
            f"{name} holds shard {text}, {without} is no shard; join the shards first, with 'featx merge', or leave one of "
            "them out"
        )
    (first_name, first), of, file_of = files[0], 0, {}
    for name, text in files:
        numbers, num_shards = parse_held(text)
        of = of or num_shards
        if num_shards != of:
            raise ProvenanceError(
                f"{first_name} holds shard {first}, {name} shard {text}: shards of one N belong together; leave one of them out"
            )
        for number in sorted(numbers & file_of.keys()):
            raise ProvenanceError(
                f"shard {number}/{of} stands in {file_of[number]} and in {name}; leave one of them out"
            )
        file_of.update(dict.fromkeys(numbers, name))
    return "" if len(file_of) == of else f"{_ranges(file_of)}/{of}"


def missing_shards(held: str) -> str:
    """The shards that an attribute `shard` lacks, in words; "" where it lacks none."""
    if not held:
        return ""
    numbers, num_shards = parse_held(held)
    absent = [number for number in range(1, num_shards + 1) if number not in numbers]
    if not absent:
        return ""
    shown = ", ".join(f"{number}/{num_shards}" for number in absent[:MAX_NAMED])
    more = f" and {len(absent) - MAX_NAMED} more" if len(absent) > MAX_NAMED else ""
    return f"shard {shown}{more} {'is' if len(absent) == 1 else 'are'} missing"


def _ranges(numbers: Iterable[int]) -> str:
    """1, 2, 3, 5 -> "1-3,5"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
