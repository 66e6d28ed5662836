"""HDF5 files that are not ours: their datasets as arrays."""

from __future__ import annotations

import os

import h5py
import numpy as np

from featx.errors import FeatureFileError, FeatxError, UnknownNameError

__all__ = ["BROKEN", "name_of", "read_array", "read_stored"]

BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)  # what HDF5 says of a damaged file

MOST_TIMES = 1100  # that gzip, the closest packing which HDF5 brings along, makes numbers smaller, at most


def read_array(path: str | os.PathLike, name: str) -> np.ndarray:
    """A dataset of any HDF5 file, as an array; text comes as bytes or str. Raises UnknownNameError where it is not there."""
    try:
        with h5py.File(path, "r") as h5:
            names: list[str] = []
            h5.visititems(lambda found, item: names.append(name_of(found)) if isinstance(item, h5py.Dataset) else None)
            if name.strip("/") not in names:
                if str(h5.attrs.get("format", "")) == "featx":
                    raise FeatureFileError(
                        f"{path}: a feature file already; it needs no import, every command reads it"
                    )
                raise UnknownNameError(f"dataset in {path}:", name, names)
            return read_stored(h5[name], path)
    except FeatxError:
        raise
    except BROKEN as error:
        raise FeatureFileError(f"{path}: not an HDF5 file, or damaged; name one, or its true --format") from error


def name_of(found: str | bytes) -> str:
    """The name of an object, which HDF5 gives in bytes where it is not UTF-8."""
    return found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else found


def read_stored(dataset: h5py.Dataset, path: str | os.PathLike) -> np.ndarray:
    """All of a dataset.

    Raises FeatureFileError where it lies in another file, claims more numbers than this one can hold, for HDF5 fills in what
    nobody wrote, or does not fit into memory.
    """
    if dataset.is_virtual or dataset.external:
        raise FeatureFileError(f"{path}: {dataset.name[1:]} lies in another file, which is never followed; copy it in")
    if dataset.dtype.kind != "O" and dataset.nbytes > MOST_TIMES * (dataset.id.get_storage_size() + 1024):
        raise FeatureFileError(
            f"{path}: {dataset.name[1:]} claims {dataset.dtype} {dataset.shape}, but the file holds less; save it again"
        )
    try:
        return dataset[...]
    except MemoryError as error:
        raise FeatureFileError(
            f"{path}: {dataset.name[1:]}, {dataset.dtype} {dataset.shape}, does not fit into memory; save a file a video"
        ) from error
