"""Videos from elsewhere, brought to files of the disk a bounded way ahead of who decodes them.

    plan ──▶ fetchers, NUM_FETCHERS threads ──▶ files, at most `limit_bytes` of them ──▶ decoders, which remove what they read

A file counts until it is gone. Its bytes are set aside before it is fetched, so what lies in the folder is never more. What our
own disk refuses ends the run: it is told of no video, which would count as failed from then on.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from featx import remote
from featx.checkpoints.download import OwnDiskError, download
from featx.content import content_sha256
from featx.errors import CheckpointError, FeatxError, UsageError, VideoError
from featx.features import Failure
from featx.plan import VideoItem
from featx.remote import Stop

__all__ = ["CACHE_BYTES", "FetchAhead", "Fetched"]

CACHE_BYTES = 4 * 2**30
NUM_FETCHERS = 8
MAX_SUFFIX = 16  # bytes of a name; more is none of a video, and might be too long for the disk
MAX_READY = 64  # files that wait for a decoder, however small they are
SPARE_BYTES = 64 * 2**20  # of the disk stay free
WAIT_SECONDS = 0.1  # files vanish in other processes, which tell nobody


@dataclass(frozen=True)
class Fetched:
    """A video that is here now: its item with the path of the file, what its store says of its time, 0 for nothing, and the
    SHA-256 of its content where it was asked for.
    """

    item: VideoItem
    mtime_ns: int = 0
    sha256: str = ""


class FetchAhead:
    """Fetches videos into `folder`; each file goes when it was read, and the folder with `close`.

    `limit_bytes`: of all files there at one time. `content_hash`: hash what was fetched. `stopped` is asked between blocks.
    """

    def __init__(
        self, folder: Path, limit_bytes: int, content_hash: bool = False, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._folder, self._content_hash, self._stopped = folder, content_hash, stopped
        self._room = _Room(folder, limit_bytes, self._go_on)
        self._changed = threading.Condition()
        self._items: Iterator[VideoItem] = iter(())
        self._taking = threading.Lock()
        self._ready: deque[Fetched | Failure | BaseException] = deque()
        self._num_begun, self._num_threads, self._left = 0, 0, False
        self._name = uuid4().hex[
            :8
        ]  # a transfer that a server holds may outlive its run, and must not meet the next one's
        shutil.rmtree(folder, ignore_errors=True)  # of a run that died

    def fetched(self, items: Iterable[VideoItem]) -> Iterator[Fetched | Failure]:
        """The videos, as they come, or why one cannot be had; it ends early when `stopped` says so.

        Raises FeatxError where the disk of the folder does not take them.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write {self._folder}: {error.strerror}; choose another place with --cache"
            ) from error
        self._items, self._num_threads = iter(items), NUM_FETCHERS
        for _ in range(NUM_FETCHERS):
            threading.Thread(target=self._fetch_all, name="featx-fetch", daemon=True).start()
        while True:
            with self._changed:
                while not self._ready and self._num_threads and not self._is_over():
                    self._changed.wait(WAIT_SECONDS)
                if not self._ready or self._is_over():
                    return
                result = self._ready.popleft()
                self._changed.notify_all()
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Fetched) and result.item.url:
                self._room.give(result.item.path)
            yield result

    def drop(self, path: Path) -> None:
        """A file is not needed any more."""
        self._room.drop(path)

    def end(self) -> None:
        """Fetch nothing more; what was handed on stays."""
        self._left = True

    def close(self) -> None:
        """Remove the folder; a transfer that is under way ends at its next block."""
        self._left = True
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_over(self) -> bool:
        return self._left or self._stopped()

    def _go_on(self) -> None:
        if self._is_over():
            raise Stop

    def _fetch_all(self) -> None:
        try:
            while (begun := self._next()) is not None:
                number, item = begun
                self._put(self._fetched(number, item))
        except Stop:
            pass
        except BaseException as error:
            self._put(error)
        with self._changed:
            self._num_threads -= 1
            self._changed.notify_all()

    def _next(self) -> tuple[int, VideoItem] | None:
        with self._changed:
            while len(self._ready) >= MAX_READY:
                self._go_on()
                self._changed.wait(WAIT_SECONDS)
        with self._taking:
            self._go_on()
            item = next(self._items, None)
            self._num_begun += 1
            return None if item is None else (self._num_begun, item)

    def _put(self, result: Fetched | Failure | BaseException) -> None:
        with self._changed:
            self._ready.append(result)
            self._changed.notify_all()

    def _fetched(self, number: int, item: VideoItem) -> Fetched | Failure:
        if not item.url:  # a file, among addresses
            return Fetched(item)
        suffix = item.path.suffix if len(os.fsencode(item.path.suffix)) <= MAX_SUFFIX else ""
        target = self._folder / f"{self._name}-{number}{suffix}"
        try:
            if remote.is_http(item.url) and not remote.has_settings(item.url):
                mtime_ns = self._download(remote.quoted(item.url), target)
            else:
                found = remote.fetch(item.url, target, lambda size: self._room.take(target, size), self._go_on)
                mtime_ns = found.mtime_ns
            sha256 = content_sha256(target) if self._content_hash else ""
            return Fetched(replace(item, path=target), mtime_ns, sha256)
        except Stop:
            self.drop(target)
            raise
        except VideoError as error:
            reason = str(error)
        except UsageError as error:
            reason = str(error).removeprefix(f"{item.path_text}: ")
        except FeatxError:
            self._go_on()  # the folder may just be going
            raise
        except ValueError as error:  # a server led to what is no address
            reason = f"cannot be fetched ({error})"
        except OSError as error:
            self._go_on()
            what = f"cannot be read or written ({error.strerror or error})"
            raise remote.own_disk_error(self._folder, what) from error
        self.drop(target)
        reason = remote.public_text(reason.replace(item.url, item.path_text))
        return Failure(item.key, item.path_text, reason, item.size_bytes, item.mtime_ns)

    def _download(self, url: str, target: Path) -> int:
        """Fetch a file of the web, whose length is known only when it comes: where it has no room, it is fetched later."""
        num_bytes = 0
        while True:
            self._room.take(target, num_bytes)
            try:
                download(url, target, need_length=True, on_progress=self._room_grows(target))
                self._room.settle(target)
                return 0
            except _NoRoom as error:
                self.drop(target)
                num_bytes = error.num_bytes
            except OwnDiskError as error:
                self._go_on()
                self.drop(target)
                num_bytes = error.num_bytes  # others may still be decoded, and go
                if not num_bytes:
                    what = str(error).partition("; ")[0].removeprefix(f"{target} ")
                    raise remote.own_disk_error(self._folder, what) from None
            except CheckpointError as error:
                raise VideoError(str(error).partition("; ")[0].removeprefix(f"{url} ")) from None

    def _room_grows(self, target: Path) -> Callable[[int, int | None], None]:
        def on_progress(num_bytes: int, total: int | None) -> None:
            self._go_on()
            self._room.grow(target, num_bytes if total is None else total, total is not None)

        return on_progress


class _NoRoom(Exception):
    """A file of the web needs so many bytes, which are not free now."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(num_bytes)
        self.num_bytes = num_bytes


class _Room:
    """The bytes that files may take together, some of which are gone before anybody says so."""

    def __init__(self, folder: Path, limit_bytes: int, go_on: Callable[[], None]) -> None:
        self._folder, self._limit, self._go_on = folder, limit_bytes, go_on
        self._held: dict[Path, int] = {}
        self._made: set[Path] = set()  # that were complete: they count until they are gone
        self._changed = threading.Condition()

    def take(self, path: Path, num_bytes: int) -> None:
        """Set bytes aside for a file that is to come, once there is room.

        Raises VideoError where it is more than all may take together, FeatxError where the disk has no room and none will come.
        """
        self._require_fit(num_bytes)
        with self._changed:
            self._held.pop(path, None)  # of a transfer that broke off
            while not self._fits(num_bytes):
                self._go_on()
                self._changed.wait(WAIT_SECONDS)
            self._held[path] = num_bytes

    def grow(self, path: Path, num_bytes: int, is_all: bool) -> None:
        """A file needs so many bytes, or without `is_all` at least so many. Raises _NoRoom where they are not free."""
        with self._changed:
            if num_bytes <= self._held.get(path, 0):
                return
            self._require_fit(num_bytes)
            before = self._held.pop(path, 0)
            if not self._fits(num_bytes):
                self._held[path] = before
                raise _NoRoom(num_bytes if is_all else self._limit)
            self._held[path] = num_bytes

    def settle(self, path: Path) -> None:
        """A file has its final size."""
        with self._changed:
            self._held[path] = path.stat().st_size
            self._changed.notify_all()

    def drop(self, path: Path) -> None:
        for suffix in ("", ".part", ".part.json"):  # the downloader's names
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with self._changed:
            self._held.pop(path, None)
            self._changed.notify_all()

    def give(self, path: Path) -> None:
        """A file was handed on: who reads it removes it."""
        with self._changed:
            self._made.add(path)

    def _require_fit(self, num_bytes: int) -> None:
        if num_bytes > self._limit:
            raise VideoError(
                f"has {num_bytes:,} bytes, more than the {self._limit:,} that fetched videos may take; allow more with "
                "--cache-size, and try it again with --retry-failed"
            )

    @staticmethod
    def _size_of(path: Path) -> int:
        for name in (path, path.with_name(path.name + ".part")):
            try:
                return name.stat().st_size
            except OSError:
                pass
        return 0

    def _fits(self, num_bytes: int) -> bool:
        for path in [path for path in self._made if not path.exists()]:
            self._made.discard(path)
            self._held.pop(path, None)
        if sum(self._held.values()) + num_bytes > self._limit:
            return False
        to_come = sum(max(size - self._size_of(path), 0) for path, size in self._held.items())  # of other transfers
        if num_bytes + to_come <= shutil.disk_usage(self._folder).free - SPARE_BYTES:
            return True
        if not self._held:
            video = f"a video of {num_bytes:,} bytes" if num_bytes else "the next video"
            raise remote.own_disk_error(self._folder, f"lies on a disk that has no room for {video}")
        return False
