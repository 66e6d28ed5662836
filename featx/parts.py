"""Steps 7 and 8, write and merge: the parts of one output while a run is on, and who may write them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from featx import store
from featx.durable import sync
from featx.errors import FeatureFileError, FeatxError, UsageError
from featx.features import Failure, Features
from featx.provenance import Provenance
from featx.store import FeatureSet

__all__ = ["Parts", "is_being_written", "written_anew"]

PART_SECONDS = 5.0  # what was finished longer ago is not repeated after a crash
PART_BYTES = 64 * 2**20  # and no more than this waits in memory
MERGE_PARTS = 16  # so many parts of about one size become one
LEAVE_AS_PART_BYTES = 2**30  # an output larger than this is not rewritten for a few more videos
LOCK, FETCHED = ".lock", "fetched"  # what lies in the parts folder besides parts


class Parts:
    """The only writer of an output: collects results, writes them as parts, and merges the parts into the output.

    Holds a lock on the output's parts folder while it is open; a lock dies with its owner. Raises UsageError where another
    run holds it. It knows which files it found or wrote: before every write and at the end they must all be there, or it
    raises FeatxError, since what others removed would be missing from a result that looks whole.

    `on_written` is called after a part was written, and after several were merged, with the names of those that went into
    another file and are about to be removed; what it raises ends the run.
    """

    def __init__(self, output: Path, on_written: Callable[[Collection[str]], None] = lambda leaving: None) -> None:
        self.output, self._on_written = store.real_file(output), on_written
        self.folder = store.parts_folder(output)
        self._waiting: list[Features] = []
        self._failed: list[Failure] = []
        self._waiting_bytes = 0
        self._written_at = time.monotonic()
        self._write_failed = False
        self._provenance: Provenance | None = None
        self._guard = threading.RLock()  # the thread that writes in time is started with the first result
        self._closing, self._thread = threading.Event(), None
        self._lock = self._take_lock()
        self._remove_leftovers()
        self._held = set(self._files())  # the ledger: what must be there until we remove it
        self._discarded: set[str] = set()  # names that `on_written` has not been told of

    def _remove_leftovers(self) -> None:
        """Remove what runs that died had half written, and nothing else."""
        beside = re.compile(re.escape(f".{self.output.name}.") + r"\d+\.tmp")
        inside = re.compile(r"\.part-\d+\.h5\.(\d+|fetched)\.tmp")
        for folder, ours in ((self.output.parent, beside), (self.folder, inside)):
            for name in os.listdir(folder):
                if ours.fullmatch(name):
                    (folder / name).unlink()

    def _take_lock(self) -> int:
        path = self.folder / LOCK
        for attempt in range(10):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and attempt < 9:
                    continue  # the run before us is just removing its folder
                raise UsageError(
                    f"cannot write beside {self.output}: {error.strerror}; choose another place for -o"
                ) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), os.stat(path)):
                    return lock
            except FileNotFoundError:
                pass
            except OSError as error:
                os.close(lock)
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                    raise UsageError(
                        f"cannot lock {path}: {error.strerror}; its file system has no locks, so choose another place for -o"
                    ) from error
                raise UsageError(
                    f"another run is writing {self.output}; wait for it, or choose another output"
                ) from error
            os.close(lock)  # we hold the lock of a folder that is gone
        raise UsageError(
            f"cannot write beside {self.output}: its parts folder comes and goes; choose another place for -o"
        )

    def exists(self) -> bool:
        """Whether anything has been written for this output."""
        return self.output.exists() or bool(self._paths())

    def count(self) -> int:
        """How many parts lie beside the output."""
        return len(self._paths())

    def open(self) -> FeatureSet:
        """Everything written so far."""
        return store.open_features(self.output, warn=False)

    def discard(self) -> None:
        """Remove the output, its parts and what waits. Raises UsageError where the output is a file of another kind."""
        store.require_replaceable(self.output)
        with self._guard:
            self._waiting, self._failed, self._waiting_bytes = [], [], 0
            files = self._files()
            self._discarded |= {path.name for path in files}
            self._held.clear()
            for path in files:
                path.unlink(missing_ok=True)

    def drop_parts(self) -> None:
        """Remove the parts of an output that has been written anew without them."""
        self._remove(self._paths())

    def _remove(self, merged: Sequence[Path]) -> None:
        """Remove files that went into another one, once that was told."""
        self._on_written({path.name for path in merged} | self._discarded)
        self._discarded = set()
        for path in merged:
            self._held.discard(path)
            path.unlink(missing_ok=True)

    def add(self, result: Features | Failure, provenance: Provenance) -> None:
        """Take a result; a part is written when enough have come in bytes, and when PART_SECONDS have gone by."""
        with self._guard:
            self._provenance = provenance
            if isinstance(result, Failure):
                self._failed.append(result)
            else:
                self._waiting.append(result)
                self._waiting_bytes += result.num_bytes
            overdue = time.monotonic() - self._written_at >= PART_SECONDS
            if self._waiting_bytes >= PART_BYTES or overdue or self._write_failed:
                self.flush(provenance)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_in_time, name="featx-parts", daemon=True)
            self._thread.start()

    def _write_in_time(self) -> None:
        """Write what waits though no further result comes: the next video may take an hour."""
        while not self._closing.wait(max(PART_SECONDS, 1)):
            with self._guard:
                if (self._waiting or self._failed) and time.monotonic() - self._written_at >= PART_SECONDS:
                    try:
                        self.flush(self._provenance)
                    except Exception:  # the next result tries again, where an error can be told
                        self._write_failed = True

    def write_empty(self, provenance: Provenance) -> None:
        """Write a part that holds no video: it counts for what it tells of the run, as the last word."""
        with self._guard:
            self._write(provenance)
            self._remove([])

    def _write(self, provenance: Provenance) -> None:
        """Write what waits as the newest part."""
        self._require_lock()
        parts = {*self._paths(), *(path for path in self._held if path != self.output)}
        number = max((int(path.stem.removeprefix("part-")) for path in parts), default=-1) + 1
        path = self.folder / f"part-{number:08d}.h5"
        store.write_features(path, provenance, self._waiting, self._failed)
        self._own(path)
        self._waiting, self._failed, self._waiting_bytes = [], [], 0

    def _own(self, path: Path) -> None:
        self._held.add(path)
        self._discarded.discard(path.name)

    def _require_lock(self) -> None:
        """Raise FeatxError where the parts folder is no longer the one that was locked: another run may write there now."""
        if not self._has_lock():
            raise FeatxError(
                f"{self.folder} was removed or replaced while this run wrote there; let it be until a run ends; the same "
                "command goes on"
            )

    def _has_lock(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock), os.stat(self.folder / LOCK))
        except OSError:
            return False

    def _require_kept(self) -> None:
        """Raise FeatxError where a file is gone that was there, or was written, and that this run did not remove."""
        self._require_lock()
        lost = sorted(self._held.difference(self._files()))
        if lost:
            raise FeatxError(
                f"{lost[0]} was removed by others while this run was on, and with it the videos that it held; let the output "
                "and its parts be until a run ends; the same command goes on, and extracts them again"
            )

    def flush(self, provenance: Provenance) -> None:
        """Write what waits as one part, and merge parts where they have become many."""
        with self._guard:
            if self._waiting or self._failed:
                self._write(provenance)
            self._written_at, self._write_failed = time.monotonic(), False
            self._require_kept()
            self._remove(self._join_small())

    def flush_all(self, provenance: Provenance) -> None:
        """As `flush`, at the end of a run: what waits is written even if that is interrupted, which is raised afterwards."""
        try:
            self.flush(provenance)
        except KeyboardInterrupt:
            self.flush(
                provenance
            )  # a part that was half-written is gone; one that was whole counts once though it is there twice
            raise

    def _join_small(self) -> list[Path]:
        """Merge the newest parts where MERGE_PARTS of about one size have come together, so that few files stay open.

        Returns those that are of no more use.
        """
        limit = PART_BYTES
        paths = self._paths()
        sizes = [path.stat().st_size for path in paths]
        while len(paths) >= MERGE_PARTS:
            tail = next((i for i in reversed(range(len(paths))) if sizes[i] >= limit), -1) + 1
            least = limit // MERGE_PARTS if limit > PART_BYTES else 0
            if sum(size >= least for size in sizes[tail:]) >= MERGE_PARTS and self._has_room(sum(sizes[tail:])):
                # The newest name is taken, so that the merged part still counts after the older ones.
                self._merge(paths[tail:], paths[-1])
                return paths[tail:-1]
            if limit > max(sizes):
                break
            limit *= MERGE_PARTS
        return []

    def finish(self) -> list[Path]:
        """Merge all parts into the output; return those left beside it.

        They are left where the output is large and they are few, and where the disk has no room for both.
        """
        self._require_kept()
        parts = self._paths()
        if not parts:
            return []
        size = self.output.stat().st_size if self.output.exists() else 0
        new = sum(path.stat().st_size for path in parts)
        if (size > LEAVE_AS_PART_BYTES and new < size) or not self._has_room(size + new):
            return parts
        self.compact()
        return []

    def _has_room(self, num_bytes: int) -> bool:
        return store.free_bytes(self.folder) >= num_bytes + store.SPARE_BYTES

    def compact(self) -> None:
        """Merge all parts into the output, whatever their size."""
        self._require_kept()
        parts = self._paths()
        if parts:
            self._merge(self._files(), self.output)
            self._own(self.output)
            self._remove(parts)

    def make_whole(self) -> None:
        """Take the parts into the output that a file is about to replace, which then is one rename: no reader, and nobody who
        comes after a kill, finds the new file with the old parts, which would have the last word.

        Parts that are damaged, or do not belong together, stay: with them nothing was whole, nor can be read unsaid. So do
        those for which the disk has no room a second time: what is about to be replaced is not to stand in the way.
        """
        if self._has_room(sum(path.stat().st_size for path in self._files())):
            with suppress(FeatureFileError, UsageError):
                self.compact()

    def require_sound(self, set_aside: bool, on_note: Callable[[str], None]) -> None:
        """Compare what was written with its checksums, of a large output only the columns that a run goes by.

        A damaged file raises FeatureFileError, which names it; with `set_aside` it is given another name instead.
        """
        for path in self._files():
            large = path == self.output and path.stat().st_size > LEAVE_AS_PART_BYTES
            try:
                store.verify(path, ("videos", "failures") if large else None)
            except FeatureFileError as error:
                told = str(error).removesuffix("; extract again")
                if not set_aside:
                    raise FeatureFileError(
                        f"{told}; '--repair' sets this one file aside, keeps the others and extracts its videos again"
                    ) from error
                aside = self._free_name(self.output if path == self.output else path)
                os.rename(path, aside)
                self._held.discard(path)
                self._discarded.add(path.name)
                sync(aside.parent)
                on_note(f"{told}; it is now {aside}, and its videos are extracted again")
        if self._discarded:
            self._remove([])

    def _free_name(self, damaged: Path) -> Path:
        name = self.output.name if damaged == self.output else f"{self.output.name}.{damaged.name}"
        names = (f"{name}.damaged{number or ''}" for number in range(1000))
        return next(path for path in map(self.output.with_name, names) if not path.exists())

    def close(self) -> None:
        """Let go of the output; the parts folder goes when nothing is left in it but what runs need while they are on."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        if self._has_lock() and not self._paths():
            with suppress(OSError):  # files of others stay, and the folder with them
                self._remove_leftovers()
                shutil.rmtree(self.folder / FETCHED, ignore_errors=True)
                (self.folder / LOCK).unlink()
                self.folder.rmdir()
        os.close(self._lock)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _paths(self) -> list[Path]:
        return store.parts_of(self.output)

    def _files(self) -> list[Path]:
        """The output, where it is there, and its parts."""
        return [*([self.output] if self.output.exists() else []), *self._paths()]

    @staticmethod
    def _merge(members: list[Path], output: Path) -> None:
        verified = {path: store.verify(path) for path in members}
        with FeatureSet(members) as features:
            features.require_unchanged(verified)
            store.merge(features, output)


def is_being_written(output: Path) -> bool:
    """Whether a run holds the lock of an output."""
    try:
        lock = os.open(store.parts_folder(output) / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    finally:
        os.close(lock)


@contextmanager
def written_anew(output: Path, overwrite: bool) -> Iterator[Parts]:
    """Yield Parts that take the name `output` when the ``with`` block ends well, or vanish; until then nothing of them shows.

    So nobody reads half of them, nor mixes them with what stood there before. Raises UsageError where the output, or parts of
    it, exist, unless `overwrite`; where it is a file of another kind; and while another run is writing it.
    """
    store.require_output(output, num_more_bytes=len(_unfinished("")))
    with Parts(output) as old:  # no run may be writing it
        if old.exists() and not overwrite:
            raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
        store.require_replaceable(output)
        old.make_whole()
        output = old.output
        with Parts(output.with_name(_unfinished(output.name))) as new:
            new.discard()  # of a run that died
            try:
                yield new
                new.compact()
                os.replace(new.output, output)
                sync(output.absolute().parent)
                old.drop_parts()
            finally:
                new.discard()


def _unfinished(name: str) -> str:
    """What a file is called until it is whole."""
    return f".{name}.unfinished"
