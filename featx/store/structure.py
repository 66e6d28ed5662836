"""Whether the tables and attributes found in a stranger's file are those of a feature file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np

from featx.layer_names import is_layer_name
from featx.provenance import Provenance
from featx.store.attributes import refused, shown
from featx.store.schema import BASIS, CHECKSUM, OPTIONAL, SCHEMA
from featx.store.tables import FoundTable, Table, stored_type, type_name

__all__ = ["require_tables", "require_types"]

_TYPES = {"str": str, "int": int, "float": float, "tuple[str, ...]": str, "tuple[float, ...]": float}


def require_types(provenance: dict[str, object], path: object) -> None:
    """Raise FeatureFileError unless every field given of a Provenance-to-be has its type."""
    for f in fields(Provenance):
        if f.name not in provenance:
            continue
        value = provenance[f.name]
        values = value if f.type.startswith("tuple") else (value,)
        if not isinstance(values, tuple) or not all(type(v) is _TYPES[f.type] for v in values):
            raise refused(path, f"its attribute '{f.name}' is {str(value)[:80]!r}, which is no {f.type}")


def require_tables(
    tables: dict[str, FoundTable],
    numbers: Callable[[str], np.ndarray],
    provenance: Provenance,
    num_file_bytes: int,
    path: object,
) -> dict[str, Table]:
    """Where every table lies. Raises FeatureFileError unless `tables` are those of SCHEMA, whole, and go together.

    `numbers` reads a column of them.
    """
    if sum(table.num_text_bytes for table in tables.values()) > num_file_bytes:
        raise refused(path, "its texts claim more bytes than the file has")
    for layer in provenance.layers:
        if not is_layer_name(layer):
            raise refused(path, f"'{shown(layer)}' is no name of a layer")
    expected = {f"{group}/{name}": dtype for group in ("videos", "failures") for name, dtype in SCHEMA[group].items()}
    if provenance.has_clip_table:
        expected |= {f"clips/{name}": dtype for name, dtype in SCHEMA["clips"].items()}
    for name, dtype in expected.items():
        if name not in tables and name not in OPTIONAL:
            raise refused(path, f"its table {name} is missing")
        if name in tables:
            _require_type(name, tables[name], dtype, 1, path)
    matrices = {}
    if provenance.save != "clips":
        matrices |= {f"descriptors/{layer}": np.dtype("<f4") for layer in provenance.layers}
    if provenance.dtype not in ("float32", "float16") and (provenance.save != "descriptors" or provenance.bins):
        raise refused(path, f"its attribute 'dtype' is '{provenance.dtype}', not float32 or float16")
    if provenance.save != "descriptors":
        matrices |= {f"clips/{layer}": np.dtype(provenance.dtype).newbyteorder("<") for layer in provenance.layers}
    if provenance.bins:
        matrices |= {f"bins/{layer}": np.dtype(provenance.dtype).newbyteorder("<") for layer in provenance.layers}
    for name, dtype in matrices.items():
        if name not in tables:
            raise refused(path, f"its table {name} is missing")
        # a part that holds only failures has no rows that would tell
        binned = name.startswith("bins/")
        _require_type(
            name, tables[name], dtype if tables[name].num_rows else tables[name].dtype, 3 if binned else 2, path
        )
        if binned and tables[name].num_rows and tables[name].shape[1] != provenance.bins:
            raise refused(path, f"its table {name} has {tables[name].shape[1]:,} bins a video, not {provenance.bins:,}")
    _require_one_width([(name, tables[name]) for name in matrices if tables[name].num_rows], path)
    for name, table in tables.items():
        group, _, rest = name.partition("/")
        if group == "checksums":
            _require_type(name, table, CHECKSUM, 1, path)
        elif group == "basis":
            layer, _, column = rest.partition("/")
            if not layer or column not in BASIS:
                raise refused(path, f"its table {shown(name)} is no part of a basis")
            _require_type(name, table, *BASIS[column], path)
    first_of: dict[str, str] = {}
    for name in (*expected, *matrices):
        if name in tables:
            group = name.partition("/")[0]
            group = "videos" if group in ("descriptors", "bins") else group  # a row a video
            first = tables[first_of.setdefault(group, name)]
            if tables[name].shape[0] != first.shape[0]:
                raise refused(
                    path, f"its table {name} has {tables[name].shape[0]:,} rows, {first_of[group]} {first.shape[0]:,}"
                )
    if provenance.has_clip_table:
        _require_clip_rows(
            numbers("videos/first_clip"), numbers("videos/num_clips"), tables["clips/start_frame"].num_rows, path
        )
    return {name: table.plain() for name, table in tables.items()}


def _require_one_width(matrices: list[tuple[str, FoundTable]], path: object) -> None:
    """Descriptors, clip features and bins of a layer have one number of dimensions."""
    first_of: dict[str, tuple[str, int]] = {}
    for name, table in matrices:
        first, width = first_of.setdefault(name.partition("/")[2], (name, table.shape[-1]))
        if table.shape[-1] != width:
            raise refused(path, f"its table {name} has {table.shape[-1]:,} dimensions, but {first} {width:,}")


def _require_type(name: str, table: FoundTable, dtype: np.dtype, ndim: int, path: object) -> None:
    """A table must be stored bit for bit as featx does: its checksums are of the bytes, and say nothing of what they mean."""
    if table.ndim != ndim or table.kind != stored_type(dtype):
        shape = {1: "column", 2: "matrix", 3: "table of three dimensions"}[ndim]
        raise refused(path, f"its table {shown(name)} is {table}, not a {shape} of {type_name(dtype)}")


def _require_clip_rows(first: np.ndarray, count: np.ndarray, num_clips: int, path: object) -> None:
    """The clips of every video must be rows of the clip tables."""
    wrong = (first < 0) | (count < 0) | (first > num_clips) | (count > num_clips - np.clip(first, 0, num_clips))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise refused(path, f"video {i} has clips {first[i]} to {first[i] + count[i]} of {num_clips:,}")
