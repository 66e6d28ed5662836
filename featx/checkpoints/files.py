"""Any file of weights that featx reads, as a flat table of tensors; nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from featx.checkpoints.caffe import FIRST_TAGS, read_caffe
from featx.checkpoints.caffe_names import caffe_tensors
from featx.checkpoints.pickles import read_pickle
from featx.checkpoints.safetensors import read_safetensors
from featx.errors import CheckpointError
from featx.small_files import is_special

__all__ = ["file_form", "file_sha1", "file_sha256", "read_tensors", "without_counters"]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors, Caffe or PyTorch file (zip or legacy pickle, tensors only), on the CPU.

    A ``state_dict`` wrapper, any number of ``module.`` prefixes and BatchNorm's counters of batches are taken off; what a
    wrapper holds besides is ignored. Tensors of a Caffe file are named as `caffe_tensors` says. Raises CheckpointError for
    any other file, and for one that would run code.
    """
    form = file_form(path)
    if form == "caffe":
        return caffe_tensors(read_caffe(path))
    if form == "safetensors":
        return _clean(read_safetensors(path), path)
    return _clean(read_pickle(path), path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    return _hash(path, hashlib.sha256())


def file_sha1(path: Path) -> str:
    """SHA-1 of a file in hexadecimal digits: some publishers state no other."""
    return _hash(path, hashlib.sha1(usedforsecurity=False))


def _hash(path: Path, digest: hashlib._Hash) -> str:
    with _open(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    if is_special(path):
        raise CheckpointError(f"weights '{path}' are a pipe or a device; name the file that holds them")
    try:
        return open(path, "rb")
    except OSError as error:
        raise CheckpointError(f"weights '{path}' cannot be read ({error.strerror}); check the path") from None


def file_form(path: Path) -> str:
    """Tell "safetensors", "torch" or "caffe" by the first bytes, never by the suffix: published files carry any.

    Raises CheckpointError for anything else.
    """
    with _open(path) as file:
        head = file.read(9)
    if head[8:] == b"{":
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    if head.startswith(FIRST_TAGS):
        return "caffe"
    if not head:
        raise CheckpointError(f"weights '{path}' are an empty file; fetch the published file again")
    if head.startswith(b"\x08\x01\x10\x03"):  # one times three channels
        raise CheckpointError(
            f"weights '{path}' look like a mean cube; give it with --mean, and the weights' own file here"
        )
    if head.lstrip().startswith(b"{"):
        raise CheckpointError(f"weights '{path}' are JSON; if it is a card of your own, name it with --card")
    raise CheckpointError(
        f"weights '{path}' begin with {head[:8]!r}, which is no form of weights that featx reads; take the authors' Caffe "
        "file (.caffemodel), a PyTorch port of it or safetensors"
    )


def _clean(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(
            f"weights '{path}' hold a {type(content).__name__}, but must hold a table of tensors; "
            "save the model's state_dict()"
        )
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = ", ".join(map(_shown_key, list(content)[:4]))
            raise CheckpointError(
                f"weights '{path}' hold {found}, where {_shown_key(key)} is a {type(value).__name__}, but only named "
                "tensors are taken, plain or under 'state_dict'; save the model's state_dict()"
            )
        name = key
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if _is_counter(name):
            continue
        if name in tensors:
            raise CheckpointError(
                f"weights '{path}' hold {name!r:.120} twice, with and without 'module.'; keep one of them"
            )
        tensors[name] = value
    return tensors


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without BatchNorm's counters of batches, which matter to training alone, and which many files lack."""
    return {name: tensor for name, tensor in state.items() if not _is_counter(name)}


def _is_counter(name: str) -> bool:
    return f".{name}".endswith(".num_batches_tracked")


def _shown_key(key: Any) -> str:
    return f"{key!r:.120}" if isinstance(key, str | int | float) else f"a {type(key).__name__}"  # which may be deep
