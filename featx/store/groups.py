"""HDF5 with a group a video, the layout of ActivityNet's C3D features: /v_<id>/c3d_features, (num_clips, D)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from featx.errors import FeatureFileError, FeatxError, UnknownNameError, UsageError
from featx.store.foreign import BROKEN, name_of, read_stored

__all__ = ["group_names", "read_groups", "write_groups"]

DATASET = "c3d_features"
KEY = "key"  # an attribute: the key that the group's name was made of
GROUP_BYTES = 4096  # what HDF5 needs besides for one group, at most


def group_names(keys: Iterable[str]) -> list[str]:
    """The groups of videos: the last part of each key, with "v_" before it where it has none.

    Raises UsageError where two keys get one name.
    """
    key_of: dict[str, str] = {}
    for key in keys:
        name = PurePosixPath(key).name
        name = name if name.startswith("v_") else f"v_{name}"
        other = key_of.setdefault(name, key)
        if other != key:
            raise UsageError(
                f"'{other}' and '{key}' would both be the group {name} of ActivityNet's layout; choose another format"
            )
    return list(key_of)


def write_groups(path: Path, videos: Iterable[tuple[str, np.ndarray]], num_bytes: int) -> None:
    """Write key and clip features (num_clips, D) of every video to the file `path`, as float32; `num_bytes` in all.

    The disk's space is taken first, as the HDF5 library does not survive a disk that fills up under it.
    """
    try:
        with h5py.File(path, "w", libver=("earliest", "v110"), locking=False) as h5:
            descriptor = os.open(path, os.O_RDWR)
            try:
                reserved = num_bytes
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, max(reserved, 1))
                for key, rows in videos:
                    (name,) = group_names([key])
                    reserved += GROUP_BYTES
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(descriptor, 0, reserved)
                    group = h5.create_group(name)
                    group.attrs[KEY] = key
                    group.create_dataset(DATASET, data=np.ascontiguousarray(rows, np.float32))
                h5.flush()
                size = h5.id.get_filesize()
            finally:
                os.close(descriptor)
        os.truncate(path, size)
    except RuntimeError as error:
        raise FeatxError(f"cannot write {path.parent}: {error}; make room, or choose another place") from error


def read_groups(path: str | os.PathLike, dataset: str = DATASET) -> Iterator[tuple[str, np.ndarray]]:
    """Key and features of every group of a file, by name; the key is the group's name unless the group tells another.

    Raises UnknownNameError for a group without the dataset, FeatureFileError for a file that cannot be read.
    """
    try:
        with h5py.File(path, "r") as h5:
            if str(h5.attrs.get("format", "")) == "featx":
                raise FeatureFileError(f"{path}: a feature file already; it needs no import, every command reads it")
            for name in h5:
                if not isinstance(h5.get(name, getlink=True), h5py.HardLink) or not isinstance(h5[name], h5py.Group):
                    raise FeatureFileError(
                        f"{path}: '{name_of(name)}' is no group of a video; give the file's true --format"
                    )
                group = h5[name]
                link = group.get(dataset, getlink=True)
                if not isinstance(link, h5py.HardLink) or not isinstance(group[dataset], h5py.Dataset):
                    known = map(name_of, group)
                    raise UnknownNameError(f"dataset in {path}, group {name_of(name)}:", dataset, known, "Name it.")
                key = group.attrs.get(KEY)
                yield key if isinstance(key, str) else name_of(name), read_stored(group[dataset], path)
    except BROKEN as error:
        if isinstance(error, FeatxError):
            raise
        raise FeatureFileError(f"{path}: not an HDF5 file, or damaged; name one, or its true --format") from error
