"""One file from a store to the disk or back, whole or not at all."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from featx.errors import FeatxError, VideoError
from featx.remote.addresses import public_address
from featx.remote.system import Found, Store, open_store, reason_of

__all__ = ["Stop", "fetch", "own_disk_error", "put"]

BLOCK_BYTES = 8 * 2**20  # a request each
PAUSES = (0.5, 3.0)  # seconds before the second and the third try; the stores' own packages try again, too
ATOMIC = ("s3", "s3a", "gs", "gcs")  # where a file has its name once all of it is there


class Stop(Exception):
    """Raised by who is asked whether a transfer is to go on, and means no."""


class _Short(Exception):
    """A transfer that brought another number of bytes than the store told."""


def fetch(
    address: str,
    target: Path,
    on_size: Callable[[int], None] = lambda num_bytes: None,
    go_on: Callable[[], None] = lambda: None,
) -> Found:
    """Fetch the file of an address to `target`, and return what the store tells of it: as many bytes, of one version of it.

    `on_size` gets the bytes that it has before the first is fetched; `go_on` is called between blocks. Both end the transfer
    by raising Stop or a FeatxError. Raises VideoError where the file cannot be had, after three tries, and where it changes
    meanwhile; another FeatxError where our own disk does not take it, which is no fault of the file.
    """
    store = open_store(address)
    for pause in (*PAUSES, None):
        seen: list[Found] = []  # what the store told when the transfer began
        try:
            _copy(store, target, seen, on_size, go_on)
            _require_same(store, seen)
            return seen[0]
        except (FeatxError, Stop):
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise VideoError(f"cannot be fetched: {reason_of(error)}") from None
        except Exception as error:  # of the network or the store, which its package tells in its own way
            reason = reason_of(error)
            try:
                _require_same(store, seen)
            except FeatxError:
                raise
            except Exception:  # the next try will tell
                pass
        if pause is not None:
            _wait(pause, go_on)
    raise VideoError(f"cannot be fetched, in {len(PAUSES) + 1} tries: {reason}; --retry-failed tries again")


def _copy(
    store: Store, target: Path, seen: list[Found], on_size: Callable[[int], None], go_on: Callable[[], None]
) -> None:
    """Block by block, each a request that S3 answers only while it holds the version that was opened."""
    with store.system.open(store.path, "rb", block_size=BLOCK_BYTES, cache_type="none") as source:
        details = getattr(source, "details", None)
        seen.append(Found.of(details) if isinstance(details, dict) else store.look())
        size = seen[0].size_bytes
        if size is None:
            raise VideoError("its server does not say how long it is, so that a part could pass for the whole")
        on_size(size)
        num_bytes = 0
        with _Written(target) as write:
            while num_bytes <= size:
                go_on()
                block = source.read(BLOCK_BYTES)
                if not block:
                    break
                num_bytes += len(block)
                write(block)
        if num_bytes != size:
            raise _Short(f"{num_bytes:,} bytes came of {size:,}")


def own_disk_error(folder: Path, what: str) -> FeatxError:
    """What ends a run whose fetched videos cannot be kept here: it is no fault of theirs, and none is taken for failed."""
    return FeatxError(
        f"{folder}, where fetched files lie, {what}; make room, or choose another folder, with --cache or for a command "
        "without it with $TMPDIR; the same command goes on"
    )


class _Written:
    """A new file, whose errors are those of our disk, and not of a store that tells its own as OSError too."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Callable[[bytes], None]:
        try:
            self._file = open(self._target, "wb", buffering=0)
        except OSError as error:
            raise self._told(error) from None
        return self._write

    def _write(self, block: bytes) -> None:
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._told(error) from None

    def _told(self, error: OSError) -> FeatxError:
        return own_disk_error(self._target.parent, f"cannot be written ({error.strerror or error})")

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _require_same(store: Store, seen: list[Found]) -> None:
    if seen and store.look().stamp != seen[0].stamp:
        raise VideoError("changed while it was fetched; --retry-failed takes it again")


def _wait(seconds: float, go_on: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        go_on()
        time.sleep(min(left, 0.2))


def put(path: Path, address: str) -> Found:
    """Write a file of the disk to an address, and return what is there then.

    At any time the address names the old file or the whole new one. Raises FeatxError where that fails, after three tries.
    """
    store = open_store(address)
    for pause in (*PAUSES, None):
        try:
            if address.partition(":")[0].lower() in ATOMIC:
                store.system.put_file(str(path), store.path)
            else:
                aside = posixpath.join(posixpath.dirname(store.path), f".{path.name}.{uuid4().hex}.tmp")
                store.system.put_file(str(path), aside)
                store.system.mv(aside, store.path)
            found = store.look()
            if found.size_bytes == path.stat().st_size:
                return found
            reason = f"{found.size_bytes} of {path.stat().st_size} bytes are there"
        except Exception as error:  # of the network or the store, which its package tells in its own way
            reason = reason_of(error)
            if isinstance(error, PermissionError):
                break
        if pause is not None:
            time.sleep(pause)
    raise FeatxError(
        f"{public_address(address)} cannot be written: {reason}; what is finished is kept on this disk, and the same "
        "command goes on"
    )
