"""Which weights a run takes, and from where, in a line: what the user should know before the first feature."""

from __future__ import annotations

import os
from pathlib import Path

from featx.catalog import Checkpoint
from featx.checkpoints.cache import read_record
from featx.checkpoints.files import file_sha256
from featx.checkpoints.mean_cube import CARD_MEAN, mean_note, stored_cube

__all__ = ["describe"]


def describe(card: Checkpoint, weights: str | os.PathLike | None = None, mean: str | os.PathLike | None = None) -> str:
    """ "backbone c3d-sports1m, weights stored from c3d.pickle, mean cube stored from sport1m_….binaryproto", and the like."""
    parts = [f"backbone {card.name}" + f" {card.variant}" * bool(card.variant)]
    record = read_record(card.name) if card.folder is None else None
    if weights is not None:
        others = card.sha256 is not None and file_sha256(Path(weights)) != card.sha256
        parts.append(f"weights {weights}" + ", which are not those whose SHA-256 the card has" * others)
    elif card.embedded:
        parts.append("the small embedded checkpoint; for published figures name a published one (--backbone)")
    elif card.folder is not None and card.file:
        parts.append(f"weights {card.folder / card.file}")
    elif record is not None:
        parts.append(f"weights stored from {record.origin.file} ({record.origin.naming} names)")
    cube = stored_cube(card) if mean is None else None
    if mean is not None and os.fspath(mean) == CARD_MEAN:
        parts.append("the card's constant mean")
    elif mean is not None:
        parts.append(f"mean cube {mean}{_odd(card, mean)}")
    elif cube is not None:
        odd = _odd(card, cube.checked_mean_path())
        parts.append(f"mean cube stored from {cube.mean.origin.file} (--mean card for the card's constants){odd}")
    return ", ".join(parts)


def _odd(card: Checkpoint, mean: str | os.PathLike) -> str:
    note = mean_note(card, mean)
    return note and f" ({note})"
