"""Folders for what is of no use after a run, in a place that many runs share: what a killed run left goes with the next."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx.errors import UsageError
from featx.remote import require_no_address

__all__ = ["require_cache", "scratch_folder"]

PREFIX, LOCK, VIDEOS = "featx-run-", ".lock", "videos"
_OWN = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")  # as mkdtemp names folders


def require_cache(cache: str | os.PathLike | None, num_bytes: int = 1) -> None:
    """Raise UsageError where a folder named for scratch cannot be one, or has no bytes."""
    if cache is not None:
        require_no_address(cache, "name a folder with --cache")
        if os.path.lexists(cache) and not os.path.isdir(cache):
            raise UsageError(f"the cache {cache} is a file, but must be a folder; name one with --cache")
    if num_bytes < 1:
        raise UsageError(f"the cache has {num_bytes} bytes, but must have room for a video; give --cache-size more")


@contextmanager
def scratch_folder(place: str | os.PathLike) -> Iterator[Path]:
    """Yield the name of a folder in `place`, which may be made, and is removed afterwards; those of runs that are gone are
    removed first. A run's lock lies beside its folder, so that whoever empties that does not let go of it.

    Raises UsageError where nothing can be written there.
    """
    place = Path(place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name in os.listdir(place):
            if _OWN.fullmatch(name):
                _remove_unless_used(place / name)
        own = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))
        lock = os.open(own / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        own = own.rename(place / own.name[1:])  # only now does it look like one that could be left over
    except OSError as error:
        raise UsageError(
            f"cannot write to {place}: {error.strerror or error}; choose another folder for --cache"
        ) from None
    try:
        yield own / VIDEOS
    finally:
        _remove(own)
        os.close(lock)


def _remove_unless_used(folder: Path) -> None:
    """A file is locked, and for writing: a disk of the network locks no folder, and nothing that is open for reading."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # gone by now, another user's, or no folder that featx made
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    except OSError:
        pass
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a run's folder, and of what lies in it only what featx put there."""
    shutil.rmtree(folder / VIDEOS, ignore_errors=True)
    with suppress(OSError):  # files of others stay, and the folder with them
        if os.listdir(folder) == [LOCK]:
            (folder / LOCK).unlink()
        folder.rmdir()
