"""`check`: whether a feature file, with its parts, is whole, read in a process of its own that may crash or hang."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from featx import store
from featx.errors import FeatxError, UsageError

__all__ = ["CheckedFile", "Report", "check"]

TIMEOUT_SECONDS = 60.0  # without a sign of progress; a block of 4 MB takes milliseconds
# HDF5 reads the file's own index; a damaged one has been seen to send it round in circles
_PROGRAM = "import sys; sys.path[0] = sys.argv[1]; from featx.store.check import main; main(sys.argv[2])"
_OWN_FOLDER = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class CheckedFile:
    """One file of a feature set, and what is wrong with it, a line each."""

    path: Path
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `check` found: the files of the set, and in `problems` what is wrong between them."""

    files: tuple[CheckedFile, ...]
    problems: tuple[str, ...] = ()
    num_videos: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(file.problems for file in self.files)


def check(path: str | os.PathLike) -> Report:
    """Check a feature file with its parts, or a folder of feature files: every table against its checksums, and the values.

    Structure, checksums, offsets, order of keys, values that are finite, descriptors of unit length, provenance. Reads
    everything. Raises UsageError where there is no such file, FeatureFileError for a folder without feature files.
    """
    return store.while_joined(path, lambda groups: _report(path, groups))


def _report(path: str | os.PathLike, groups: list[list[Path]]) -> Report:
    if not any(file.exists() for group in groups for file in group):
        raise UsageError(f"no such feature file: {path}; a feature file is what 'featx extract -o' writes")
    files = tuple(CheckedFile(file, tuple(_problems_of(file))) for group in groups for file in group)
    gone = [file.path for file in files if store.is_part(file.path.name) and not file.path.exists()]
    if gone:
        raise store.Moved(f"{gone[0]} went while it was checked; check again")
    if any(file.problems for file in files):
        return Report(files)
    try:
        with store.open_features(path) as features:
            return Report(files, num_videos=len(features))
    except FeatxError as error:
        return Report(files, (str(error),))


def _problems_of(path: Path) -> list[str]:
    """What a process of its own finds; it says a line now and then, and its last one is the answer."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, _OWN_FOLDER, os.fspath(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            said = _read(process)
        finally:
            process.kill()
    try:
        return json.loads(said.splitlines()[-1])
    except (ValueError, IndexError, AttributeError):
        how = "goes round in circles" if said is None else "crashes"
        return [f"damaged: the HDF5 library {how} when it reads the file's index; extract again"]


def _read(process: subprocess.Popen) -> bytes | None:
    """All that a process says; None where it falls silent."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(TIMEOUT_SECONDS):
            data = os.read(process.stdout.fileno(), 2**16)
            if not data:
                return said
            said += data
    return None
