"""Which layer of a feature file is meant: named in the path ("features.h5:fc6"), by an option, or the only one there is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from featx.errors import UnknownNameError, UsageError

__all__ = ["choose_layer", "is_layer_name", "split_layer"]


def is_layer_name(name: str) -> bool:
    """Whether a feature file can hold a layer so called, as a table of that name in HDF5."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def split_layer(path: str | os.PathLike) -> tuple[Path, str | None]:
    """Take "features.h5:fc7" apart; a path that exists as it stands has no layer."""
    path = Path(path)
    head, colon, layer = os.fspath(path).rpartition(":")
    if not colon or not head or not layer or "/" in layer or os.path.exists(path):
        return path, None
    return Path(head), layer


def choose_layer(held: Sequence[str], path: Path, own: str | None, asked: str | None) -> str:
    """The layer of the file at `path`, which holds those in `held`, that is meant: `own` of the path, or the one asked for.

    Raises UsageError where the two differ and where one must be chosen, UnknownNameError for one that is not held.
    """
    if None not in (own, asked) and own != asked:
        raise UsageError(f"{path}:{own} names layer {own}, but --layer says {asked}; leave one of them out")
    chosen = own or asked
    if chosen is None and len(held) > 1:
        raise UsageError(
            f"{path} holds {len(held)} layers; choose one with --layer, or as {path}:{held[0]}: {', '.join(held)}"
        )
    if chosen is not None and chosen not in held:
        raise UnknownNameError("layer", chosen, held, f"The file holds {', '.join(held)}.")
    return chosen or held[0]
