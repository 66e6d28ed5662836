"""Steps 7 and 8, write and merge: the parts of one output while a run is on, and who may write them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from pathlib import Path

from featx import store
from featx.errors import UsageError
from featx.features import Failure, Features
from featx.provenance import Provenance
from featx.store import FeatureSet

__all__ = ["Parts"]

PART_SECONDS = 10.0  # at most so much work is repeated after a crash
PART_BYTES = 64 * 2**20  # and no more than this waits in memory
MERGE_PARTS = 16  # so many small parts become one
LEAVE_AS_PART_BYTES = 2**30  # an output larger than this is not rewritten for a few more videos


class Parts:
    """The only writer of an output: collects results, writes them as parts, and merges the parts into the output.

    Holds a lock on the output's parts folder while it is open; a lock dies with its owner. Raises UsageError where another
    run holds it.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = store.parts_folder(output)
        self._waiting: list[Features] = []
        self._failed: list[Failure] = []
        self._waiting_bytes = 0
        self._written_at = time.monotonic()
        self._lock = self._take_lock()
        own_leftover = re.compile(re.escape(f".{output.name}.") + r"\d+\.tmp")
        beside = [path for path in output.parent.iterdir() if own_leftover.fullmatch(path.name)]
        for leftover in [*self.folder.glob(".*.tmp"), *beside]:
            leftover.unlink()  # half-written by a run that died

    def _take_lock(self) -> int:
        path = self.folder / ".lock"
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

    def open(self) -> FeatureSet:
        """Everything written so far."""
        return store.open_features(self.output)

    def discard(self) -> None:
        """Remove the output and its parts. Raises UsageError where the output is a file of another kind."""
        store.require_replaceable(self.output)
        for path in [*self._paths(), self.output]:
            path.unlink(missing_ok=True)

    def drop_parts(self) -> None:
        """Remove the parts of an output that has been written anew without them."""
        for path in self._paths():
            path.unlink()

    def add(self, result: Features | Failure, provenance: Provenance) -> None:
        """Take a result; write a part when enough have come, in bytes or in time."""
        if isinstance(result, Failure):
            self._failed.append(result)
        else:
            self._waiting.append(result)
            arrays = [*result.descriptors.values(), *result.clips.values()]
            self._waiting_bytes += sum(a.nbytes for a in arrays)
        if self._waiting_bytes >= PART_BYTES or time.monotonic() - self._written_at >= PART_SECONDS:
            self.flush(provenance)

    def flush(self, provenance: Provenance) -> None:
        """Write what waits as one part, and merge parts where they have become many."""
        if self._waiting or self._failed:
            store.write_features(self._next_path(), provenance, self._waiting, self._failed)
            self._waiting, self._failed, self._waiting_bytes = [], [], 0
        self._written_at = time.monotonic()
        small = [path for path in self._paths() if path.stat().st_size < PART_BYTES]
        if len(small) >= MERGE_PARTS and small == self._paths()[-len(small) :]:
            # The newest name is taken, so that the merged part still counts after the older ones.
            self._merge(small, small[-1])
            for path in small[:-1]:
                path.unlink()

    def finish(self) -> list[Path]:
        """Merge all parts into the output; return those left beside it because the output is large and they are few."""
        parts = self._paths()
        if not parts:
            return []
        if self.output.exists():
            size = self.output.stat().st_size
            if size > LEAVE_AS_PART_BYTES and sum(path.stat().st_size for path in parts) < size:
                return parts
        self.compact()
        return []

    def compact(self, replace: bool = False) -> None:
        """Merge all parts into the output, whatever their size; with `replace`, in the place of what it held."""
        parts = self._paths()
        if parts:
            self._merge([self.output, *parts] if self.output.exists() and not replace else parts, self.output)
            self.drop_parts()

    def close(self) -> None:
        """Let go of the output; the parts folder goes when it is empty."""
        if not self._paths():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.h5"))

    def _next_path(self) -> Path:
        paths = self._paths()
        number = int(paths[-1].stem.removeprefix("part-")) + 1 if paths else 0
        return self.folder / f"part-{number:08d}.h5"

    @staticmethod
    def _merge(members: list[Path], output: Path) -> None:
        for path in members:
            store.verify(path)
        with FeatureSet(members) as features:
            store.merge(features, output)
