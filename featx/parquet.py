"""Tables in Parquet, the only importer of pyarrow: a column of keys, one of lists of float32, and those of clips."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.provenance import Provenance

__all__ = ["read", "require", "write"]

Block = tuple[list[str], dict[str, np.ndarray], np.ndarray]  # keys, columns of clips, rows (n, D)


def require() -> None:
    """Raise UsageError, with what to install, where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed; install it with \"pip install 'featx[parquet]'\", or take "
            "another format"
        ) from None


def write(path: Path, blocks: Iterable[Block], columns: Sequence[str], num_dims: int, made: Provenance) -> None:
    """Write blocks of rows: `key`, the `columns` of clips, and `features`, lists of `num_dims` float32.

    The metadata "featx" says in JSON how the features were made.
    """
    require()
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.int64() if name.endswith("_frame") else pa.float64() for name in columns}
    fields = [("key", pa.string()), *types.items(), ("features", pa.list_(pa.float32(), num_dims))]
    schema = pa.schema(fields, metadata={"featx": json.dumps(dataclasses.asdict(made), sort_keys=True)})
    with pq.ParquetWriter(path, schema) as writer:
        for keys, values, rows in blocks:
            flat = pa.array(np.ascontiguousarray(rows, np.float32).ravel())
            arrays = [pa.array(keys, pa.string()), *(pa.array(values[name], types[name]) for name in columns)]
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, num_dims))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def read(
    path: str | os.PathLike, key_name: str | None, feature_name: str, columns: Sequence[str]
) -> tuple[bool, Iterator[Block]]:
    """Whether a table has all the `columns` of clips, and its blocks; without a `key_name` keys are not read.

    Keys are what the column holds, which may be no texts.

    Raises UnknownNameError for a column that is not there, FeatureFileError for a file that cannot be read, or whose features
    are not lists of one length.
    """
    require()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise FeatureFileError(f"{path}: not a Parquet file, or cut short; name one, or its true --format") from error
    names = file.schema_arrow.names
    for name in (feature_name, *([key_name] if key_name is not None else [])):
        if name not in names:
            raise UnknownNameError(f"column in {path}:", name, names, "Name it, or give the keys with --keys.")
    clips = all(name in names for name in columns)
    wanted = [*([key_name] if key_name is not None else []), *(columns if clips else ()), feature_name]

    def blocks() -> Iterator[Block]:
        try:
            for batch in file.iter_batches(1024, columns=wanted):
                for name in {*wanted} - {feature_name}:
                    if batch.column(name).null_count:
                        raise FeatureFileError(f"{path}: the column {name} has gaps; leave such rows out")
                keys = batch.column(key_name).to_pylist() if key_name is not None else []
                values = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in columns if clips}
                yield keys, values, _matrix(batch.column(feature_name), path, feature_name)
        except (OSError, pa.ArrowException) as error:
            raise FeatureFileError(f"{path}: damaged: {str(error).splitlines()[0]}; write it again") from error

    return clips, blocks()


def _matrix(column, path: str | os.PathLike, name: str) -> np.ndarray:
    """A column of lists of numbers as (n, D)."""
    import pyarrow as pa

    lists = (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    )
    if not lists or not (pa.types.is_floating(column.type.value_type) or pa.types.is_integer(column.type.value_type)):
        raise FeatureFileError(
            f"{path}: the column {name} is {column.type}, but must be lists of numbers; name another"
        )
    values = column.flatten()
    if column.null_count or values.null_count:
        raise FeatureFileError(f"{path}: the column {name} has gaps; leave such rows out")
    num_rows = len(column)
    if num_rows and (len(values) % num_rows or set(column.value_lengths().to_pylist()) != {len(values) // num_rows}):
        raise FeatureFileError(f"{path}: the lists in {name} differ in length; a layer has one number of dimensions")
    return values.to_numpy(zero_copy_only=False).reshape(num_rows, -1 if num_rows else 0)
