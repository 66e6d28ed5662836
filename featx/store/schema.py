"""What stands where in a feature file, and in which type: SCHEMA, and the small conversions that both sides use."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from featx.errors import FeatureFileError

STRING = h5py.string_dtype("utf-8")

# group -> column -> dtype; first_clip is derived when a file is written
SCHEMA: dict[str, dict[str, object]] = {
    "videos": {
        "key": STRING,
        "path": STRING,
        "label": STRING,
        "size_bytes": np.dtype("<i8"),
        "mtime_ns": np.dtype("<i8"),
        "sha256": STRING,
        "num_frames": np.dtype("<i8"),
        "fps": np.dtype("<f8"),
        "duration_seconds": np.dtype("<f8"),
        "start_seconds": np.dtype("<f8"),
        "end_seconds": np.dtype("<f8"),
        "num_clips": np.dtype("<i8"),
        "first_clip": np.dtype("<i8"),
        "damage": STRING,
    },
    "clips": {
        "start_frame": np.dtype("<i8"),
        "end_frame": np.dtype("<i8"),
        "start_seconds": np.dtype("<f8"),
        "end_seconds": np.dtype("<f8"),
    },
    "failures": {
        "key": STRING,
        "path": STRING,
        "reason": STRING,
        "size_bytes": np.dtype("<i8"),
        "mtime_ns": np.dtype("<i8"),
    },
}

# name -> dtype and dimensions of what /basis/<layer> holds; one column or matrix a layer
BASIS: dict[str, tuple[np.dtype, int]] = {
    "mean": (np.dtype("<f4"), 1),
    "components": (np.dtype("<f4"), 2),
    "explained_variance": (np.dtype("<f8"), 1),
    "explained_variance_ratio": (np.dtype("<f8"), 1),
}
CHECKSUM = np.dtype("<u4")

# columns that a file may lack, and what then stands for each of their values
OPTIONAL: dict[str, object] = {"videos/sha256": "", "videos/damage": ""}

BLOCK_BYTES = 4 * 2**20  # what is read, copied and checksummed at once
SPARE_BYTES = 8 * 2**20  # what a run leaves free of a disk
PARTS_SUFFIX = ".parts"
_PART = re.compile(r"part-[0-9]+\.h5")


def real_file(path: str | os.PathLike) -> Path:
    """The file that is read and written under a name: where that is a link, the one it leads to, else itself."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def parts_folder(path: str | os.PathLike) -> Path:
    """The folder beside a feature file, not beside a link to it, that holds the parts not yet merged into it."""
    return Path(os.fspath(real_file(path)) + PARTS_SUFFIX)


def is_part(name: str) -> bool:
    """Whether a file of this name in a parts folder is a part; all else there is not featx's, such as what a sync left."""
    return _PART.fullmatch(name) is not None


def parts_of(path: str | os.PathLike) -> list[Path]:
    """The parts beside a feature file, the oldest first. Raises FeatureFileError where their folder cannot be read."""
    folder = parts_folder(path)
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if is_part(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise FeatureFileError(
            f"{folder} cannot be read: {error.strerror}; the parts in it belong to {path}, so allow reading it"
        ) from error


def free_bytes(path: Path) -> int:
    """What the disk of a path, or of the nearest folder above it that exists, has room for."""
    while not os.path.exists(path):
        path = path.parent
    return shutil.disk_usage(path).free


def hdf5_version() -> str:
    """Of the library that reads and writes feature files."""
    return h5py.version.hdf5_version


def crc(values: np.ndarray) -> int:
    if values.dtype == object:
        return zlib.crc32("\0".join(values.tolist()).encode())
    return zlib.crc32(np.ascontiguousarray(values))


def attributes_crc(h5: h5py.File) -> int:
    """`values_crc` of what an open file holds."""
    return values_crc(h5.attrs, {layer: entry.attrs for layer, entry in h5.get("basis", {}).items()})


def values_crc(attributes: Mapping[str, object], bases: Mapping[str, Mapping[str, object]]) -> int:
    """One checksum for all attributes that carry meaning: those of the file, and those of every basis."""
    lines = [f"{name}={from_attribute(value)!r}" for name, value in sorted(attributes.items())]
    for layer, entry in sorted(bases.items()):
        lines += [f"{layer}/{name}={from_attribute(value)!r}" for name, value in sorted(entry.items())]
    return zlib.crc32("\n".join(lines).encode("utf-8", "backslashreplace"))


def to_attribute(value: object) -> object:
    if isinstance(value, tuple):
        return np.array(value, STRING) if value and isinstance(value[0], str) else np.array(value, "<f8")
    return value


def from_attribute(value: object) -> object:
    if isinstance(value, np.ndarray):
        return tuple(v.item() if isinstance(v, np.generic) else v for v in value)
    return value.item() if isinstance(value, np.generic) else value
