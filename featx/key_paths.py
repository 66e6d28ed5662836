"""Keys as names of files below a folder: a key is a stranger's word, and no file may come to lie elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from featx.errors import UsageError

__all__ = ["check_key", "check_keys", "create"]

MAX_NAME_BYTES = 255  # what file systems take for one name


def check_key(key: str) -> None:
    """Raise UsageError for a key that as a path would not stay below the folder, or is no path of one line."""
    parts = PurePosixPath(key).parts
    if re.search(r"[\0-\x1f]", key):
        raise UsageError(
            f"the key {key!r} is no path of one line, and so no name of a file; choose a format of one file"
        )
    if not parts or key.startswith("/") or ".." in parts or key != "/".join(parts):
        raise UsageError(
            f"the key {key!r} would lead out of the folder, or is no plain path; extract with keys relative to a "
            "folder, without '--keys-from path'"
        )


def check_keys(keys: Iterable[str], suffix: str) -> None:
    """`check_key` for keys that become files `<key><suffix>`; UsageError too for names too long, and a file that is a folder.

    Raises UsageError before anything is written.
    """
    files, folders = set(), set()
    for key in keys:
        check_key(key)
        path = PurePosixPath(key + suffix)
        if path.name.startswith("."):
            raise UsageError(
                f"the key '{key}' would be a hidden file, which is passed over; choose a format of one file"
            )
        longest = max(path.parts, key=lambda part: len(part.encode()))
        if len(longest.encode()) > MAX_NAME_BYTES:
            raise UsageError(
                f"the key '{key[:60]}…' is too long for a file's name ({len(longest.encode())} bytes, of at most "
                f"{MAX_NAME_BYTES}); choose a format of one file"
            )
        files.add(str(path))
        folders.update(map(str, path.parents))
    both = files & folders
    if both:
        raise UsageError(f"'{min(both)}' would be a file and a folder at once; choose a format of one file")


def create(path: Path, key: str):
    """Open a new file for the bytes of a key, its folders made. Raises UsageError where the disk takes two names for one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"the key '{key}' and another one have the same file name on this disk, which does not tell case apart; choose a "
            "format of one file"
        ) from error
