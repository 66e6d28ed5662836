"""A feature file in a store: made in a folder of this disk, and written to its address part by part.

    s3://bucket/out.h5                       whole, or not there: a store shows a file once all of it is there
    s3://bucket/out.h5.parts/part-*.h5       the parts so far, each a complete feature file
    s3://bucket/out.h5.parts/writer          which run writes there

After every part the store holds what the disk does, so a run that ends in any way is gone on with from here, where its folder
is, and from any other machine, which first fetches what is there. The new is written before the old is removed: whoever reads
between the two sees videos twice, of which the later word counts, and never too few. The old is removed there before it is
here, and only what Parts says went into another file: whatever else is missing here was lost, and the store keeps it.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from featx import remote, store
from featx.checkpoints.cache import cache_folder
from featx.errors import FeatxError, UsageError, VideoError
from featx.interrupt import Interrupts
from featx.scratch import require_cache
from featx.small_files import write_text

__all__ = ["RemoteOutput", "to_a_store"]

STATE, WRITER, LOCK = "uploaded.json", "writer", ".lock"

Result = TypeVar("Result")


def to_a_store(extract_to: Callable[..., Result]) -> Callable[..., Result]:
    """Let the function's `output` be an address of a store: it works on a file of the disk, which is written there."""

    @functools.wraps(extract_to)
    def extract(inputs: object, output: str | os.PathLike, *args: Any, **options: Any) -> Result:
        if not (remote.is_address(output) and not os.path.lexists(output)):
            return extract_to(inputs, output, *args, **options)
        on_note, cache = options.get("on_note", lambda note: None), options.get("cache")
        require_cache(cache)
        interrupts = options["interrupts"] = options.get("interrupts") or Interrupts()
        with interrupts.told(), RemoteOutput(output, cache, on_note) as place:
            options["on_note"] = lambda note: on_note(place.told(note))
            summary = extract_to(inputs, place.output, *args, on_written=place.write, **options)
            place.write()
            if not summary.stopped_by:
                place.finish()
        summary.output = output
        return summary

    return extract


class RemoteOutput:
    """The feature file of an address, as `output`, a file of this disk. Use it in a ``with`` block.

    On entry it becomes what the store holds, unless it is ahead of it already; `write` brings the store to what it has become.
    Errors that name the file name the address instead. Raises UsageError for an address where nothing can be written, and
    while another run of this machine is writing it; FeatxError where the store fails.
    """

    def __init__(self, address: str, place: str | os.PathLike | None, on_note: Callable[[str], None]) -> None:
        name = posixpath.basename(_require_store(address))
        self.address, self._on_note = address, on_note
        digest = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.folder = (Path(place) if place is not None else cache_folder()) / "outputs" / digest
        self.output = self.folder / name
        self._store = remote.open_store(address)
        self._leaving: set[str] = set()  # what a run that died was about to remove there
        self._own_id = ""  # kept here with the files: nobody else has written there while the store tells it
        self._written: dict[
            str, list[int]
        ] = {}  # what the store holds: name -> stamp of the file here that was written

    def __enter__(self) -> RemoteOutput:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / LOCK
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.folder}: {error.strerror}; choose another folder with --cache"
            ) from error
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(self._lock), os.stat(path)):
                    raise OSError  # the other run is just removing its folder
            except OSError:
                raise UsageError(
                    f"another run is writing {self.address}; wait for it, or choose another output"
                ) from None
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        os.close(self._lock)
        if isinstance(error, FeatxError):
            error.args = (self.told(str(error)), *error.args[1:])

    def told(self, text: str) -> str:
        """A message about the file, as one about the address."""
        return text.replace(str(self.output), self.address)

    def write(self, leaving: Collection[str] = ()) -> None:
        """Bring the store to what the disk has without `leaving`, the names of files that went into others.

        Raises FeatxError where that fails, where another run has taken over, and where anything else is gone from here.
        """
        self._require_own()
        here = {name: path for name, path in self._here().items() if name not in leaving}
        leaving = self._leaving.union(leaving)
        lost = [name for name in self._written if name not in here and name not in leaving]
        if lost:
            raise FeatxError(
                f"{self._file_of(lost[0])} was removed by others while this run was on; {self._address_of(lost[0])} stays, and "
                "the same command goes on with it"
            )
        for name, path in here.items():
            stamp = _stamp(path)
            if self._written.get(name) != stamp:
                remote.put(path, self._address_of(name))
                self._written[name] = stamp
                self._keep_state()
        gone = [name for name in self._written if name not in here]
        if gone:
            self._keep_state(without=gone)  # first: what it names and is missing here was lost
        for name in gone:
            self._remove(name)
            del self._written[name]
        self._leaving = set()

    def finish(self) -> None:
        """Everything is in the store: nothing stays here."""
        self._remove(WRITER)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------- what is here, what is there

    def _begin(self) -> None:
        own_id, written = self._read_state()
        there = self._there()
        if own_id and own_id == self._owner() and not self._has_lost(written, there):
            self._own_id, self._written = own_id, {name: written.get(name, []) for name in there}
            self._leaving = set(there).difference(written, self._here())
            return
        if self._here():
            self._on_note(
                f"{self.address} was written elsewhere meanwhile, or deleted here in part; what lies here gives way "
                "to what is there"
            )
        (self.folder / STATE).unlink(missing_ok=True)
        for path in self._here().values():
            path.unlink()
        for name in there:
            self._fetch(name)
        self._own_id = uuid4().hex
        try:
            self._ask("written", self._store.system.pipe_file, self._path_of(WRITER), self._own_id.encode())
        except FileNotFoundError:
            raise UsageError(
                f"{self.address} cannot be written: its store has no such bucket; make it first, or correct -o"
            ) from None
        self._keep_state()

    def _has_lost(self, written: dict[str, list[int]], there: list[str]) -> bool:
        """Whether files that the store still has were deleted here, by someone who made room: it would lose them, too."""
        here = self._here()
        return any(name in there and name not in here for name in written)

    def _fetch(self, name: str) -> None:
        path = self._file_of(name)
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f".{path.name}.fetched.tmp")
        try:
            remote.fetch(self._address_of(name), aside)
        except FeatxError as error:
            aside.unlink(missing_ok=True)
            if isinstance(error, VideoError):
                raise FeatxError(f"{self._address_of(name)} {error}") from None
            raise
        os.replace(aside, path)
        self._written[name] = _stamp(path)

    def _here(self) -> dict[str, Path]:
        """The file, then its parts, by name."""
        parts = store.parts_of(self.output)
        files = [self.output, *parts] if self.output.exists() else parts
        return {path.name: path for path in files}

    def _there(self) -> list[str]:
        """The names of what the store holds."""
        try:
            listed = self._ask("read", self._store.system.ls, f"{self._store.path}{self._suffix}", detail=False)
        except FileNotFoundError:
            listed = []
        parts = sorted(name for name in map(posixpath.basename, listed) if store.is_part(name))
        try:  # after the parts, which another run may just be joining; and `exists` takes any error for an absence
            self._ask("read", self._store.look)
        except FileNotFoundError:
            return parts
        return [self.output.name, *parts]

    def _owner(self) -> str:
        try:
            return self._ask("read", self._store.system.cat_file, self._path_of(WRITER)).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _require_own(self) -> None:
        if self._owner() != self._own_id:
            raise FeatxError(
                f"{self.address} is being written by another run, which was started after this one; this one ends. Let one "
                "finish, or give each its own output"
            )

    def _remove(self, name: str) -> None:
        try:
            self._ask("changed", self._store.system.rm_file, self._path_of(name))
        except FileNotFoundError:
            pass

    def _ask(self, what: str, method: Callable[..., Result], *args: Any, **options: Any) -> Result:
        """Call a method of the store. Raises FileNotFoundError where it says that, and FeatxError for all else."""
        try:
            return method(*args, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # of the store's package, whatever it is
            raise FeatxError(
                f"{self.address} cannot be {what}: {remote.reason_of(error)}; check the address and who may write there; the "
                "same command goes on"
            ) from None

    @property
    def _suffix(self) -> str:
        return store.parts_folder(self.output).name.removeprefix(self.output.name)

    def _is_part(self, name: str) -> bool:
        return name != self.output.name

    def _file_of(self, name: str) -> Path:
        return store.parts_folder(self.output) / name if self._is_part(name) else self.output

    def _address_of(self, name: str) -> str:
        return f"{self.address}{self._suffix}/{name}" if self._is_part(name) else self.address

    def _path_of(self, name: str) -> str:
        return f"{self._store.path}{self._suffix}/{name}" if self._is_part(name) else self._store.path

    def _read_state(self) -> tuple[str, dict[str, list[int]]]:
        try:
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            return str(state["writer"]), {str(name): list(stamp) for name, stamp in state["written"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "", {}

    def _keep_state(self, without: Collection[str] = ()) -> None:
        written = {name: stamp for name, stamp in self._written.items() if name not in without}
        write_text(self.folder / STATE, json.dumps({"writer": self._own_id, "written": written}))


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _require_store(address: str) -> str:
    """The address, where a feature file can be written to it."""
    if address.partition(":")[0].lower() in remote.SCHEMES and remote.is_http(address):
        raise UsageError(
            f"{remote.public_address(address)}: nothing is written to the web; write to a file, or to a store such as s3://"
        )
    name = posixpath.basename(remote.require_address(address))
    if not name or name in (".", "..") or "/" not in remote.address_name(address):
        raise UsageError(f"{address} names no file; give -o one, such as {address.rstrip('/')}/features.h5")
    return address
