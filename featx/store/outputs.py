"""What may be written where: a slip of the keyboard must not cost a video, a list, or features of another kind."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import h5py

from featx.containers import VIDEO_SUFFIXES
from featx.errors import FeatureFileError, UsageError
from featx.frame_folders import IMAGE_SUFFIXES
from featx.reachable import hindrance
from featx.remote import require_no_address
from featx.store.attributes import require_attributes

__all__ = ["FEATURES", "MODEL", "holds_features", "require_output", "require_replaceable"]

FEATURES, MODEL = "featx", "featx-model"  # the attribute `format` of our files
_WORDS = {FEATURES: "a feature file", MODEL: "a model"}

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SET_ASIDE = re.compile(r"\.damaged\d*$")  # by a run with --repair
ASIDE = "..1234567.tmp"  # what the name of a file is longer by while it is written: the number of a process at most

# names that say that a file is something else
OTHER_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES | frozenset({".txt", ".csv", ".json", ".lst", ".npy", ".npz"})


def require_output(path: str | os.PathLike, form: str = FEATURES, num_more_bytes: int = 0) -> None:
    """Raise UsageError where `path` is no place for a file of the format `form`.

    That is a folder, a name such as of a video, an HDF5 file of another format, and wherever nothing can be written.
    `num_more_bytes`: by how much longer a name it has until it is whole, besides what every file has.
    """
    require_no_address(path, "write to one, and send it there; 'featx extract' alone writes to stores itself")
    path = Path(path)
    if str(path) == "-":
        raise UsageError(f"{_WORDS[form]} does not go to stdout, which '-' would be; give -o the name of a file")
    if why := hindrance(path):
        raise UsageError(f"cannot write {path}: {why}; choose another place for -o")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give -o the name of a file, such as {path / 'features.h5'}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"cannot write {path}: it is a device, a pipe or a socket; choose another place for -o")
    if path.suffix.lower() in OTHER_SUFFIXES:
        raise UsageError(
            f"the output {path} is {_WORDS[form]}, but is named as a {path.suffix} file; name it such as "
            f"{path.with_suffix('.h5').name} (-o is what is written)"
        )
    if path.is_file() and h5py.is_hdf5(path):
        found = _format(path)
        if found is not None and found != form:
            what = _WORDS.get(found, "an HDF5 file of another program")
            raise UsageError(
                f"{path} exists and is {what}; {_WORDS[form]} does not replace it: choose another name for -o"
            )
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    size, allowed, more = len(os.fsencode(path.name)), _longest_name(above), len(ASIDE) + num_more_bytes
    if size + more > allowed:
        raise UsageError(
            f"cannot write {path}: its name has {size} bytes, and {more} more while it is written, but its disk allows "
            f"{allowed}; choose a name of at most {allowed - more}"
        )
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UsageError(f"cannot write beside {path}: {error.strerror}; choose another place for -o") from error


def _longest_name(folder: Path) -> int:
    """The bytes that a name in a folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return 255


def require_replaceable(path: str | os.PathLike, form: str = FEATURES) -> None:
    """`require_output`, and UsageError where a file that is not HDF5 has the name."""
    path = Path(path)
    require_output(path, form)
    if path.is_file() and path.stat().st_size and not h5py.is_hdf5(path):
        raise UsageError(
            f"{path} exists and is not an HDF5 file; it is not replaced: choose another name for the output"
        )


def holds_features(path: Path) -> bool:
    """Whether a file in a folder is one of its feature files: any that is called so, *.h5, and any that is one by its content.

    One that was set aside as damaged is none. Only the first bytes of files of other names are read, and few of those further.
    """
    if path.name.endswith(".h5"):
        return os.path.exists(path)
    if _SET_ASIDE.search(path.name) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            begins = file.read(len(_SIGNATURE))
    except OSError:  # what opens it next says why
        return path.suffix.lower() in (".h5", ".hdf5")
    return begins == _SIGNATURE and _format(path) in (FEATURES, None)


def _format(path: Path) -> str | None:
    """The attribute `format` of an HDF5 file, "" where it has none; None where that cannot be read."""
    try:
        with h5py.File(path, "r") as h5:
            require_attributes(h5, path)
            return str(h5.attrs.get("format", ""))
    except (OSError, RuntimeError, KeyError, ValueError, FeatureFileError):
        return None
