"""Whether a file that the user names is the card's: by published names and hashes, and by what featx's own files tell.

Some cards have the same tensors in every shape, so that nothing else tells their files apart.
"""

from __future__ import annotations

import re
from pathlib import Path

from featx import catalog
from featx.catalog import Checkpoint, Source
from featx.checkpoints.cache import Origin, read_sound_record
from featx.checkpoints.files import file_form, file_sha1
from featx.checkpoints.safetensors import read_metadata
from featx.errors import CheckpointError

__all__ = ["is_published", "require_own_file", "stored_card"]


def require_own_file(card: Checkpoint, path: Path, sha256: str) -> Origin | None:
    """Raise CheckpointError where a file, whose SHA-256 is given, is told to be another card's, or not the published one.

    Returns what the file was made from, where featx stored it and it is unchanged, else None. A card of the user's own may
    name any card's file, as other weights of the same net may be given under a name of their own.
    """
    if card.folder is None:
        _require_no_other_name(card, path)
    _require_as_published(card, path, sha256)
    return _stored_origin(card, path, sha256)


def is_published(source: Source, path: Path, sha256: str) -> bool:
    """Whether a file has the hash that is published for a source; False where none is."""
    if source.sha256_prefix:
        return sha256.startswith(source.sha256_prefix)
    return bool(source.sha1) and file_sha1(path) == source.sha1


def _require_no_other_name(card: Checkpoint, path: Path) -> None:
    named = [
        other.name
        for other in catalog.CHECKPOINTS.values()
        if path.name in (other.file, *(source.file for source in other.source))
    ]
    if named and card.name not in named:
        raise CheckpointError(
            f"{path} has the name of the file of {' and '.join(named)}, not of {card.name}; take it for that card, or "
            "rename it if it is something else"
        )


def _require_as_published(card: Checkpoint, path: Path, sha256: str) -> None:
    sources = [s for s in card.source if s.file == path.name and (s.sha256_prefix or s.sha1)]
    if not sources or any(is_published(source, path, sha256) for source in sources):
        return
    source = sources[0]
    if source.sha256_prefix:
        wrong = f"SHA-256 {sha256} does not begin with {source.sha256_prefix}"
    else:
        wrong = f"SHA-1 {file_sha1(path)} is not {source.sha1}"
    raise CheckpointError(
        f"weights '{path}': {wrong}, as published for {source.file}; get it again, or rename it if it is something else"
    )


def stored_card(path: Path) -> str:
    """The name of the card as which featx stored a file, "" for another file."""
    return _told(path).get("card", "")


def _told(path: Path) -> dict[str, str]:
    """What one of featx's own files tells of itself, nothing for another file."""
    told = read_metadata(path) if file_form(path) == "safetensors" else {}
    return told if {"card", "origin_file", "origin_sha256", "origin_num_bytes", "origin_form"} <= told.keys() else {}


def _stored_origin(card: Checkpoint, path: Path, sha256: str) -> Origin | None:
    """What one of featx's own files was made from; None for another file, and for one of which nothing proves it unchanged."""
    told = _told(path)
    if not told:
        return None
    owner = told["card"]
    if card.folder is None and owner != card.name:
        raise CheckpointError(
            f"weights '{path}' are those of {owner}, as featx stores them, not of {card.name}; take them for that card"
        )
    digits = re.fullmatch(rf"{re.escape(owner)}\.([0-9a-f]{{8}})\.safetensors", path.name)
    if digits and not sha256.startswith(digits[1]):
        raise CheckpointError(
            f"weights '{path}' are damaged: their SHA-256 begins with {sha256[:8]}, not as their name; "
            "copy them again, or take the published file"
        )
    record = read_sound_record(card.name) if digits is None and card.folder is None else None
    num_bytes = told["origin_num_bytes"]
    if not (digits or (record is not None and record.sha256 == sha256)) or not re.fullmatch(r"\d{1,18}", num_bytes):
        return None
    names = ("file", "sha256", "num_bytes", "form", "naming", "url")
    fields = {name: told.get(f"origin_{name}", "") for name in names}
    return Origin(**{**fields, "num_bytes": int(num_bytes)})
