"""What is written to last: forced onto the disk, and folders of many files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featx.errors import UsageError
from featx.small_files import MAX_NAME_BYTES

__all__ = ["locked", "new_file", "new_folder", "require_new", "sync"]


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold an existing folder for this process alone; another one's ``with`` block is waited for. Yields whether it had to be.

    `on_wait` is called before the wait. A lock dies with its owner. Raises OSError where the folder cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        waited = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield waited
    finally:
        os.close(handle)


def require_new(folder: Path) -> None:
    """Raise UsageError where a folder that is to be written exists already, unless it is empty."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and holds something; name a new folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; it takes that name when the ``with`` block ends well, and vanishes otherwise.

    What a run that died left is removed first. Raises UsageError for a folder that holds something, while another run is
    writing it, and where it cannot be written.
    """
    require_new(folder)
    place = Path(os.path.realpath(folder))  # a link that the user names is theirs to name; below it there are none
    aside = unfinished(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if aside.is_symlink():
            raise UsageError(f"{aside} is a link; remove it")
        aside.mkdir(exist_ok=True)
        lock = os.open(aside, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        _lock(lock, aside, folder)
    except BaseException:
        os.close(lock)
        raise
    try:
        for left in aside.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield aside
        os.sync()  # thousands of small files: one by one it would take minutes
        require_new(folder)
        os.rename(aside, place)
        sync(place.parent)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        if aside.exists() and _is(lock, aside):
            shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


def _lock(lock: int, aside: Path, folder: Path) -> None:
    busy = UsageError(f"another run is writing {folder}; wait for it, or name another folder")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    if not _is(lock, aside):  # it was finished, and renamed, between our two looks
        raise busy


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _cannot_write(folder: Path, error: OSError) -> UsageError:
    why, remedy = error.strerror or error, "choose another place"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(next(path for path in folder.absolute().parents if path.exists())).free
        why, remedy = f"{why} ({free:,} bytes are free)", f"make room, or {remedy}"
    return UsageError(f"cannot write below {folder}: {why}; {remedy}")


def unfinished(place: Path) -> Path:
    """The name, beside it, that `place` has until it is whole; never longer than one may be."""
    return place.with_name(f".{os.fsdecode(os.fsencode(place.name)[:MAX_NAME_BYTES])}.unfinished")


@contextmanager
def new_file(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield the name of an empty file beside `path`; it takes that name when the ``with`` block ends well, or vanishes.

    What a run that died left is taken over. Raises UsageError where `path` exists, unless it is to `replace` that, while
    another run is writing it, and where it cannot be written.
    """
    require = (lambda path: None) if replace else _require_no_file
    require(path)
    place = Path(os.path.realpath(path))
    aside = unfinished(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        _lock(lock, aside, path)
    except BaseException:
        os.close(lock)
        raise
    try:
        os.ftruncate(lock, 0)
        yield aside
        os.fsync(lock)
        require(path)
        os.rename(aside, place)
        sync(place.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if aside.exists() and _is(lock, aside):
            aside.unlink()
        os.close(lock)


def _require_no_file(path: Path) -> None:
    if os.path.lexists(path):
        raise UsageError(f"{path} exists; it is not replaced: name a new file")
