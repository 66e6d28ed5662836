"""Any file of weights that featx reads, as a flat table of tensors; nothing in a file is ever executed."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from featx.checkpoints.safetensors import read_safetensors
from featx.errors import CheckpointError

__all__ = ["file_sha256", "read_tensors"]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or of a PyTorch one (zip or legacy pickle, tensors only), on the CPU.

    A ``state_dict`` wrapper, any number of ``module.`` prefixes and BatchNorm's counters of batches are taken off; what a
    wrapper holds besides is ignored. Raises CheckpointError for any other file, and for one that would run code.
    """
    form = _form(path)
    if form == "safetensors":
        return _clean(read_safetensors(path), path)
    content = _read_pickle(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    return _clean(content, path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with _open(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise CheckpointError(f"weights '{path}' cannot be read ({error.strerror}); check --weights") from None


def _form(path: Path) -> str:
    """Tell by the first bytes, never by the suffix: published files carry any."""
    with _open(path) as file:
        head = file.read(9)
    if head[8:] == b"{":
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    if not head:
        raise CheckpointError(f"weights '{path}' are an empty file; fetch the published file again")
    raise CheckpointError(
        f"weights '{path}' begin with {head[:8]!r}, which is neither PyTorch's form nor safetensors; "
        "Caffe files are not read by this version, so take a PyTorch port of them or convert them"
    )


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the storage classes of old files, which concern their authors
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can raise anything at all
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        if "weights only" in str(error).lower():
            reason = "it holds more than tensors: Python objects that would run code"
        raise CheckpointError(f"weights '{path}' are refused ({reason}); fetch the published file again") from None


def _clean(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(
            f"weights '{path}' hold a {type(content).__name__}, but must hold a table of tensors; "
            "save the model's state_dict()"
        )
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = ", ".join(map(repr, list(content)[:4]))
            raise CheckpointError(
                f"weights '{path}' hold {found}, where {key!r} is a {type(value).__name__}, but only named tensors are "
                "taken, plain or under 'state_dict'; save the model's state_dict()"
            )
        name = key
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if name.endswith(".num_batches_tracked"):
            continue
        if name in tensors:
            raise CheckpointError(f"weights '{path}' hold '{name}' twice, with and without 'module.'; keep one of them")
        tensors[name] = value
    return tensors
