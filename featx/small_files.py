"""Small files that a command writes besides features: tables, JSON, pictures; each at once or not at all.

Also which names an output may have: not those of devices and pipes, and no name twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from featx.errors import UsageError

__all__ = [
    "STDOUT",
    "aside_of",
    "check_output",
    "is_special",
    "print_text",
    "require_different",
    "require_place",
    "write_bytes",
    "write_text",
]

STDOUT = "-"
TEXT_SUFFIXES = (".json", ".csv", ".tsv", ".txt")
MAX_NAME_BYTES = 200  # of the name of a file that is written aside, besides what is added; file systems take 255
OPEN_FILES = (
    "/dev/std",
    "/dev/fd/",
    "/proc/self/fd/",
)  # a file that is open already would lose its name, and what is in it

# What the tables of svm-eval, embed and search begin with: these are replaced, since the same command makes them again
TABLES = (
    b"name,features,dataset,dims,",
    b"name,label,x,y,method\n",
    b"query,rank,key,cosine",
    b"group,first,second,cosine",
)
# and the names in the JSON of svm-eval, and of similarity
SVM_NAMES = {"features", "dataset", "backbone", "checkpoint", "layer", "C", "solver", "runs", "accuracy", "chance"}
JSON_NAMES = (
    SVM_NAMES,
    {
        "features",
        "pairs",
        "backbone",
        "checkpoint",
        "layers",
        "norm",
        "scaling",
        "C",
        "folds",
        "roc",
        "published_source",
    },
)


def check_output(path: str | os.PathLike, text: bool = True) -> None:
    """Raise UsageError where a file cannot be written: better now than after an hour's work.

    `text` says that it is to be a table or JSON, which replaces only what begins as one of TABLES, or is JSON with the names
    of ours: no list of the user's, no video.
    """
    if text and os.fspath(path) == STDOUT:
        return
    place = require_place(path)
    ours = _head(place).startswith(TABLES) or _is_our_json(place)
    if text and place.is_file() and place.stat().st_size and not ours:
        raise UsageError(
            f"{path} exists and is no table or JSON that featx wrote; it is not replaced: choose another name"
        )
    try:
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def is_special(path: str | os.PathLike) -> bool:
    """Whether a path leads to a pipe, a device or a socket, whose reader may wait, or read, without an end."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def require_place(path: str | os.PathLike) -> Path:
    """Where a file named `path` comes to lie, links followed. Raises UsageError where only something else could lie there.

    That is a folder, a device, a pipe or a socket, and whatever is in no folder or cannot be looked at.
    """
    if os.fspath(path) == STDOUT:
        raise UsageError("cannot write '-': only --csv and --json take it, for stdout; name a file")
    place = Path(os.path.realpath(path))
    found, folder = _mode(path, path), _mode(place.parent, path)
    if folder is None or not stat.S_ISDIR(folder):
        raise UsageError(f"cannot write {path}: its folder does not exist; make it first")
    if found is not None and stat.S_ISDIR(found):
        raise UsageError(f"cannot write {path}: it is a folder; name a file in it")
    if (found is not None and not stat.S_ISREG(found)) or os.path.abspath(path).startswith(OPEN_FILES):
        raise UsageError(f"cannot write {path}: it is a device, a pipe or a socket, and no file; choose another place")
    return place


def require_different(outputs: Mapping[str, str | os.PathLike | None]) -> None:
    """Raise UsageError where two of a command's outputs, option -> path, are one file: the first would be lost."""
    option_of: dict[str, str] = {}
    for option, path in outputs.items():
        if path is not None:
            other = option_of.setdefault(os.path.realpath(path), option)
            if other != option:
                raise UsageError(
                    f"{other} and {option} both name {path}, where one would be lost; give each its own name"
                )


def aside_of(place: Path) -> Path:
    """The name, of a file beside it, under which `place` is written before it takes its own; never longer than one may be."""
    name = os.fsdecode(os.fsencode(place.name)[:MAX_NAME_BYTES])
    return place.with_name(f".{name}.{os.getpid()}.tmp")


def _mode(path: str | os.PathLike, named: str | os.PathLike) -> int | None:
    """What lies at a path, as the system tells it, None where nothing does. Raises UsageError where that cannot be told."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot write {named}: {error.strerror}; choose another place") from None


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(128)
    except OSError:
        return b""


def _is_our_json(path: Path) -> bool:
    if not os.path.isfile(path) or not _head(path).startswith(b"{"):
        return False
    try:
        held = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError):
        return False
    if held.keys() >= {"results", "curves"}:  # several results of svm-eval
        results = held["results"] if isinstance(held["results"], list) else []
        return bool(results) and all(isinstance(each, dict) and each.keys() >= SVM_NAMES for each in results)
    return any(held.keys() >= names for names in JSON_NAMES)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a small file, at once or not at all; "-" is stdout. Raises UsageError where that fails."""
    if os.fspath(path) == STDOUT:
        print_text(text)
    else:
        write_bytes(path, text.encode(errors="surrogateescape"))


def print_text(text: str) -> None:
    """Write to stdout. Raises OSError where that fails."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a small file, at once or not at all; a link stays, and what it names is written.

    Raises UsageError where that fails.
    """
    place = require_place(path)
    aside = aside_of(place)
    try:
        aside.write_bytes(data)
        os.replace(aside, place)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another place") from None
