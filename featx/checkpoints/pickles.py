"""PyTorch's files, zip and legacy pickles, as plain tensors: nothing in them runs, hangs or hides that they are damaged."""

from __future__ import annotations

import os
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from featx.errors import CheckpointError

__all__ = ["read_pickle"]

ZIP_HEAD = b"PK\x03\x04"  # which torch goes by, too
NUM_LEGACY_PICKLES = 5  # a magic number, a version, a machine's facts, the content, the keys of its storages
LEGACY_MAGIC = (
    b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # with which a legacy file begins, as pickles of any protocol write it
)
# What the tuples of a pickle may hold, counted as often as they lead to it: one that holds itself twice, sixty times over,
# takes longer to hash than the universe will last
MAX_IN_TUPLE = 10_000
BLOCK_BYTES = 1 << 20


class _LargeTuple(ValueError):
    """A pickle's tuples hold more than MAX_IN_TUPLE."""


def read_pickle(path: Path) -> Any:
    """What torch.save wrote to a file, tensors only, on the CPU; of a table under ``state_dict`` that table.

    A table is a dict of its own whose tensors are plain ones: without gradients, subclasses, and attributes from the file.
    Raises CheckpointError for a file that is damaged (of a legacy one no checksum tells), and for one that would run code.
    """
    is_torchs = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the storage classes of old files, which concern their authors
            with open(path, "rb") as file:  # not by its name, whose suffix torch would believe
                head = file.read(64)
                is_zip = head.startswith(ZIP_HEAD)
                is_torchs = is_zip or LEGACY_MAGIC in head
                _require_sound_zip(file) if is_zip else _require_hashable(file)
                file.seek(0)
                return _plain(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged or hostile pickle can raise anything at all
        reason, remedy = _explain(error, is_torchs)
        raise CheckpointError(f"weights '{path}' are refused ({reason}); {remedy}") from None


def _explain(error: Exception, is_torchs: bool) -> tuple[str, str]:
    """What is wrong with a file, and what to do, by the error that reading it raised."""
    text = str(error)
    if "Unsupported operand" in text and is_torchs:  # else it is of pickle.dump, which no tensors alone go through
        remedy = "save the model's state_dict() again without the argument pickle_protocol"
        return "another pickle protocol than torch.save's own", remedy
    if "weights only" in text.lower():
        reason = "it holds more than tensors: Python objects that would run code"
        return reason, "save the model's state_dict() instead, or fetch the published file again"
    if isinstance(error, _LargeTuple):
        return text, "save the model's state_dict() instead"
    if "Bad CRC-32" in text:
        return text, "fetch the file again; of one that torch wrote without checksums, save its weights again with them"
    reason = (text.strip() or type(error).__name__).splitlines()[0].split(". ")[0]
    return reason, "fetch the published file again"


def _require_sound_zip(file: BinaryIO) -> None:
    """Refuse a zip that unpacks to more than it has, which torch never writes, and one whose checksums are not right."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        size = file.seek(0, os.SEEK_END)
        if unpacked > size:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, more than the {size:,} that it has")
        for entry in entries:
            with archive.open(entry) as content:  # by the entry: two may have one name
                while content.read(BLOCK_BYTES):  # a wrong checksum raises at the end; torch does not look at it
                    pass
            if entry.filename.lower().endswith(".pkl"):
                with archive.open(entry) as content:
                    _require_few_in_tuples(content)


def _require_hashable(file: BinaryIO) -> None:
    file.seek(0)
    for _ in range(NUM_LEGACY_PICKLES):
        _require_few_in_tuples(file)


def _require_few_in_tuples(stream: Any) -> None:
    """Refuse a pickle whose tuples hold more than MAX_IN_TUPLE; follows what torch does with each operation, by size alone.

    What it does not understand torch does not either, and says so better.
    """
    try:
        too_large = _has_large_tuple(stream)
    except (ValueError, IndexError, KeyError):
        return
    if too_large:
        raise _LargeTuple(f"its tuples hold more than {MAX_IN_TUPLE:,} things")


def _has_large_tuple(stream: Any) -> bool:
    stack: list[int] = []  # of each value, how many a tuple of it would hold
    below: list[list[int]] = []
    memo: dict[int, int] = {}
    num_taken = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2}
    num_dropped = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
    for operation, argument, _ in pickletools.genops(stream):
        name = operation.name
        if name == "MARK":
            below.append(stack)
            stack = []
        elif name == "TUPLE" or name in num_taken:
            if name == "TUPLE":
                taken, stack = stack, below.pop()
            else:
                taken = [stack.pop() for _ in range(num_taken[name])]
            stack.append(1 + sum(taken))
            if stack[-1] > MAX_IN_TUPLE:
                return True
        elif name in ("APPENDS", "SETITEMS"):
            stack = below.pop()
        elif name in num_dropped:
            del stack[-num_dropped[name] :]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "BINPERSID":
            stack[-1] = 1
        elif name == "STOP":
            return False
        elif name != "PROTO":
            stack.append(1)
    return False


def _plain(content: Any) -> Any:
    """The content by dict's and Tensor's own methods alone: a file can put others on its objects."""
    if not isinstance(content, dict):
        return content
    table = dict(dict.items(content))
    if isinstance(table.get("state_dict"), dict):
        table = dict(dict.items(table["state_dict"]))
    return {name: _plain_tensor(value) if isinstance(value, Tensor) else value for name, value in table.items()}


def _plain_tensor(tensor: Tensor) -> Tensor:
    plain = torch.Tensor.detach(tensor)
    if type(plain) is not Tensor:
        plain = plain.as_subclass(Tensor)
    if plain.is_nested:
        raise ValueError("it holds a tensor of tensors")
    return plain.resolve_conj().resolve_neg() if plain.layout == torch.strided else plain  # such as are refused later
