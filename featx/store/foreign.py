"""HDF5 files that are not ours: one dataset of one of them."""

from __future__ import annotations

import os

import h5py
import numpy as np

from featx.errors import FeatureFileError, UnknownNameError

__all__ = ["read_array"]


def read_array(path: str | os.PathLike, name: str) -> np.ndarray:
    """A dataset of any HDF5 file, as an array; text comes as bytes or str. Raises UnknownNameError where it is not there."""
    try:
        with h5py.File(path, "r") as h5:
            names: list[str] = []
            h5.visititems(lambda found, item: names.append(found) if isinstance(item, h5py.Dataset) else None)
            if name.strip("/") not in names:
                if str(h5.attrs.get("format", "")) == "featx":
                    raise FeatureFileError(
                        f"{path}: a feature file already; it needs no import, every command reads it"
                    )
                raise UnknownNameError(f"dataset in {path}:", name, names)
            return h5[name][...]
    except OSError as error:
        raise FeatureFileError(f"{path}: not an HDF5 file, or cut short; name one, or its true --format") from error
