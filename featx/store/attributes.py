"""The attributes of a stranger's HDF5 objects: few numbers and short texts, or refused before they are read."""

from __future__ import annotations

import math
from collections.abc import Container

import h5py
import numpy as np

from featx.errors import FeatureFileError
from featx.store.schema import from_attribute

__all__ = ["read_attributes", "refused", "require_attributes", "shown"]

MAX_ATTRIBUTE_BYTES = 2**16  # as stored; ours have a few, a basis' fitted_on some hundred
MAX_ATTRIBUTE_VALUES = 1024

_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)


def require_attributes(item: h5py.Group | h5py.Dataset, path: object) -> None:
    """Raise FeatureFileError unless the attributes of an object are few numbers and short texts."""
    for i in range(h5py.h5a.get_num_attrs(item.id)):
        _open(item.id, i, path)


def read_attributes(
    item: h5py.h5g.GroupID | h5py.h5d.DatasetID, path: object, names: Container[bytes] | None = None
) -> dict[str, object]:
    """The attributes of an object by name, as str, int, float, or tuples of them; of `names` alone where these are given.

    Raises FeatureFileError unless they are few numbers and short texts, and what h5py raises for one that cannot be read.
    """
    opened = [_open(item, i, path) for i in range(h5py.h5a.get_num_attrs(item))]
    return {
        attribute.name.decode("utf-8", "surrogateescape"): _value(attribute, kind, shape)
        for attribute, kind, shape in opened
        if names is None or attribute.name in names
    }


def _open(
    item: h5py.h5g.GroupID | h5py.h5d.DatasetID, number: int, path: object
) -> tuple[h5py.h5a.AttrID, h5py.h5t.TypeID, tuple[int, ...]]:
    attribute = h5py.h5a.open(item, index=number)
    kind, shape = attribute.get_type(), attribute.shape
    num_values = math.prod(shape)  # HDF5 reports an empty one's size as an error
    num_bytes = num_values * kind.get_size()
    if kind.get_class() not in _PLAIN or num_bytes > MAX_ATTRIBUTE_BYTES or num_values > MAX_ATTRIBUTE_VALUES:
        raise refused(
            path, f"its attribute '{shown(attribute.name)}' is no number and no short text ({num_bytes:,} bytes)"
        )
    return attribute, kind, shape


def _value(attribute: h5py.h5a.AttrID, kind: h5py.h5t.TypeID, shape: tuple[int, ...]) -> object:
    """The value of an attribute, as `from_attribute`."""
    dtype = kind.dtype
    values = np.zeros(shape, dtype)
    attribute.read(values)
    if dtype.kind == "O" and h5py.check_string_dtype(dtype):
        texts = [value.decode("utf-8", "surrogateescape") for value in values.flat]
        return tuple(texts) if values.ndim else texts[0]
    return from_attribute(values if values.ndim else values[()])


def refused(path: object, what: str) -> FeatureFileError:
    """The error for a file that holds what featx does not write."""
    return FeatureFileError(f"{path}: damaged, or not of featx: {what}; it is not read; extract again")


def shown(name: str | bytes) -> str:
    """A stranger's name for a message: short, and without control characters."""
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    return text[:80].encode("unicode_escape").decode()
