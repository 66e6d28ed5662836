"""The feature file: what it holds (schema), reading and writing; the only room that imports h5py.

    /                 attributes: the Provenance
    /videos/*         (V,)   one row a video, sorted by key
    /descriptors/*    (V, D) float32, one matrix a layer
    /clips/*          (M,) and (M, D), the clips of video i are rows first_clip[i] : first_clip[i] + num_clips[i]
    /bins/*           (V, T, D), one table a layer, where bins of time were asked for
    /failures/*       (F,)   videos that gave no features, and why
    /basis/*          after PCA
    /checksums/*      a CRC-32 for every block of rows of every dataset

A part written during a run, a shard's output and a final result are the same kind of file, and a *feature set* is one such
file, a file with its sibling parts (OUT.h5 + OUT.h5.parts/), or a folder of them. Files are written aside, synced, and
renamed: a file with its final name is whole.
"""

from featx.store.check import problems, verify, verify_set
from featx.store.foreign import read_array
from featx.store.groups import group_names, read_groups, write_groups
from featx.store.member import Moved
from featx.store.model_file import read_model, write_model
from featx.store.outputs import MODEL, require_output, require_replaceable
from featx.store.pieces import Piece, pieces
from featx.store.reader import FeatureSet, find_files, open_features, while_joined
from featx.store.schema import SCHEMA, SPARE_BYTES, free_bytes, hdf5_version, is_part, parts_folder, parts_of, real_file
from featx.store.writer import Transform, merge, write_features, write_transformed

__all__ = [
    "MODEL",
    "SCHEMA",
    "SPARE_BYTES",
    "FeatureSet",
    "Moved",
    "Piece",
    "Transform",
    "find_files",
    "free_bytes",
    "group_names",
    "hdf5_version",
    "is_part",
    "merge",
    "open_features",
    "parts_folder",
    "parts_of",
    "pieces",
    "problems",
    "read_array",
    "read_groups",
    "read_model",
    "real_file",
    "require_output",
    "require_replaceable",
    "verify",
    "verify_set",
    "while_joined",
    "write_features",
    "write_groups",
    "write_model",
    "write_transformed",
]
