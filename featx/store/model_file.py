"""Model files: arrays, words and nothing that runs, in HDF5, with a checksum an array."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from featx.durable import sync
from featx.errors import FeatureFileError, UsageError
from featx.small_files import aside_of, is_special, require_place
from featx.store.outputs import MODEL, require_replaceable
from featx.store.schema import crc

__all__ = ["read_model", "write_model"]

MODEL_VERSION = 1


def write_model(path: str | os.PathLike, facts: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `facts` (what JSON can hold) and `arrays` (numbers) as one file, aside and renamed; an existing one is replaced.

    Raises UsageError where the file cannot be written.
    """
    require_replaceable(path, MODEL)
    place = require_place(path)
    aside = aside_of(place)
    text = json.dumps(facts)
    try:
        with h5py.File(aside, "w", libver=("earliest", "v110")) as h5:
            h5.attrs["format"], h5.attrs["format_version"] = MODEL, MODEL_VERSION
            h5["facts"] = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
            h5["facts"].attrs["crc32"] = crc(h5["facts"][...])
            for name, array in arrays.items():
                h5[f"arrays/{name}"] = array
                h5[f"arrays/{name}"].attrs["crc32"] = crc(array)
        sync(aside)
        os.replace(aside, place)
        sync(place.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        aside.unlink(missing_ok=True)


def read_model(path: str | os.PathLike) -> tuple[dict, dict[str, np.ndarray]]:
    """The facts and arrays of a model file. Raises FeatureFileError where it is none, of another version, or damaged."""
    if is_special(path):
        raise FeatureFileError(f"{path}: not a regular file; a model is what 'featx svm-fit -o' writes")
    try:
        with h5py.File(path, "r") as h5:
            if h5.attrs.get("format") != MODEL:
                raise FeatureFileError(f"{path}: not a model; a model is what 'featx svm-fit -o' writes")
            if h5.attrs["format_version"] != MODEL_VERSION:
                raise FeatureFileError(
                    f"{path}: model version {h5.attrs['format_version']}, but this featx reads {MODEL_VERSION}; fit it again"
                )
            facts = json.loads(_checked(path, h5, "facts").tobytes().decode("utf-8", "surrogateescape"))
            return facts, {name: _checked(path, h5, f"arrays/{name}") for name in h5.get("arrays", ())}
    except FileNotFoundError as error:
        raise FeatureFileError(f"{path}: no such file; a model is what 'featx svm-fit -o' writes") from error
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and not h5py.is_hdf5(path):
            what = "a folder" if Path(path).is_dir() else "not an HDF5 file, or damaged"
            raise FeatureFileError(f"{path}: {what}; a model is what 'featx svm-fit -o' writes") from error
        raise FeatureFileError(f"{path}: not a model, or damaged ({error}); fit it again") from error


def _checked(path: str | os.PathLike, h5: h5py.File, name: str) -> np.ndarray:
    array = h5[name][...]
    if crc(array) != h5[name].attrs["crc32"]:
        raise FeatureFileError(f"{path}: damaged: {name}; fit it again")
    return array
