"""How many bytes a feature file takes, before there is one.

What rows hold is exact; what HDF5 adds to them was measured. Over the kinds of files that there are the sum is right to within
TOLERANCE of the file and TOLERANCE_BYTES.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.store.schema import SCHEMA, STRING

__all__ = ["TOLERANCE", "TOLERANCE_BYTES", "FileSizes", "row_bytes"]

TOLERANCE, TOLERANCE_BYTES = 0.01, 4_000

TEXT_CELL_BYTES = 16  # that lie in the table
TEXT_HEAP_BYTES = 16  # and elsewhere before the text itself, which is padded to 8
FILE_BYTES = 25_200  # of a file without rows and matrices: attributes, columns, checksums, groups
GROUP_BYTES = 2_000  # descriptors, clips, bins
TABLE_BYTES = 700  # a table of such a group, with its checksums
CLIP_COLUMNS_BYTES = sum(dtype.itemsize for dtype in SCHEMA["clips"].values())


def row_bytes(group: str, texts: Sequence[str]) -> int:
    """What a row of the columns of `group` takes with these texts; those that are not given are empty."""
    columns = SCHEMA[group].values()
    numbers = sum(dtype.itemsize for dtype in columns if dtype is not STRING)
    num_texts = sum(dtype is STRING for dtype in columns)
    padded = sum(-(-len(text.encode()) // 8) * 8 for text in texts)
    return numbers + num_texts * (TEXT_CELL_BYTES + TEXT_HEAP_BYTES) + padded


@dataclass(frozen=True)
class FileSizes:
    """What is kept of a video and of a clip: `num_dims` of all of `num_layers` layers together.

    `save` and `dtype` as `featx.aggregation.Aggregation` has them; `num_bins` a video, 0 without; `has_clip_table`: the file
    says where clips lie, also where their features are not kept.
    """

    num_dims: int
    num_layers: int
    save: str
    dtype: str
    num_bins: int
    has_clip_table: bool

    @property
    def clip_bytes(self) -> int:
        """What a clip takes."""
        features = self.num_dims * np.dtype(self.dtype).itemsize if self.save != "descriptors" else 0
        return features + CLIP_COLUMNS_BYTES * self.has_clip_table

    @property
    def video_bytes(self) -> int:
        """What the descriptors and the bins of a video take: what `row_bytes` and its clips do not count."""
        descriptors = 4 * self.num_dims if self.save != "clips" else 0
        return descriptors + self.num_bins * self.num_dims * np.dtype(self.dtype).itemsize

    @property
    def fixed_bytes(self) -> int:
        """What a file takes besides its rows."""
        with_descriptors, with_clips = self.save != "clips", self.save != "descriptors"
        num_matrices = (with_descriptors + with_clips + bool(self.num_bins)) * self.num_layers
        num_tables = num_matrices + len(SCHEMA["clips"]) * self.has_clip_table
        num_groups = with_descriptors + self.has_clip_table + bool(self.num_bins)
        return FILE_BYTES + GROUP_BYTES * num_groups + TABLE_BYTES * num_tables
