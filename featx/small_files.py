"""Small files that a command writes besides features: tables, JSON, pictures; each at once or not at all.

And what has a name but is no file.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from featx.errors import UsageError

__all__ = ["check_output", "is_special", "write_bytes", "write_text"]

TEXT_SUFFIXES = (".json", ".csv", ".tsv", ".txt")

# What the tables of svm-eval, embed and search begin with: these are replaced, since the same command makes them again
TABLES = (
    b"name,features,dataset,dims,",
    b"name,label,x,y,method\n",
    b"query,rank,key,cosine",
    b"group,first,second,cosine",
)
# and the names in the JSON of svm-eval, of several results of it, and of similarity
JSON_NAMES = (
    {"features", "dataset", "backbone", "checkpoint", "layer", "C", "solver", "runs", "accuracy", "chance"},
    {"results", "curves"},
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


def check_output(path: str | os.PathLike, text: bool = True, own: tuple[bytes, ...] = TABLES) -> None:
    """Raise UsageError where a file cannot be written: better now than after an hour's work.

    `text` says that it is to be a table, JSON or a picture, which replaces only what begins as one of `own`, or is JSON
    with the names of ours: no list of the user's, no video.
    """
    path = Path(path)
    if not os.path.isdir(path.absolute().parent):
        raise UsageError(f"cannot write {path}: its folder does not exist; make it first")
    if os.path.isdir(path):
        raise UsageError(f"cannot write {path}: it is a folder; name a file in it")
    ours = _head(path).startswith(own) or (own == TABLES and _is_our_json(path))
    if text and os.path.isfile(path) and path.stat().st_size and not ours:
        what = "table or JSON that featx wrote" if own == TABLES else "picture"
        raise UsageError(f"{path} exists and is no {what}; it is not replaced: choose another name")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def is_special(path: str | os.PathLike) -> bool:
    """Whether a path leads to a pipe, a device or a socket, whose reader may wait, or read, without an end."""
    path = Path(path)
    return path.exists() and not path.is_file() and not path.is_dir()


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
    return any(held.keys() >= names for names in JSON_NAMES)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a small file, at once or not at all. Raises UsageError where that fails."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a small file, at once or not at all. Raises UsageError where that fails."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another place") from None
