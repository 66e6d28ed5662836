"""Checking one feature file: its bytes against their checksums, and what it says against what every feature file must be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from featx.errors import FeatureFileError
from featx.store.member import Member, reading
from featx.store.reader import FeatureSet
from featx.store.record import Stamp
from featx.store.schema import BASIS, BLOCK_BYTES, crc

__all__ = ["problems", "verify", "verify_set"]

UNIT_TOLERANCE = 1e-3
SUMS = "checksums/"


def verify(path: str | os.PathLike, groups: tuple[str, ...] | None = None) -> Stamp:
    """Compare every block of one feature file with its checksum; raise FeatureFileError naming the first that differs.

    `groups`: the groups to read, such as "videos", None for all. The attributes are always compared. Returns which file it was.
    """
    member = Member.open(Path(path))
    try:
        _verify(member, groups)
        return member.record.stamp
    finally:
        member.close()


def verify_set(features: FeatureSet, names: tuple[str, ...] | None = None) -> None:
    """`verify` for the files of an open set, and for the tables and groups in `names`, such as "videos/key"; None for all."""
    for member in features._members:
        _verify(member, names)


def _verify(member: Member, names: tuple[str, ...] | None) -> None:
    with reading(member.path):
        for problem in _damage(member, names):
            raise FeatureFileError(f"{member.path}: damaged: {problem}; extract again")


def problems(path: str | os.PathLike, on_block: Callable[[], None] = lambda: None) -> list[str]:
    """Everything that is wrong with one feature file, a line each; none for a good one. Reads the whole file.

    `on_block` is called after every few megabytes.
    """
    try:
        member = Member.open(Path(path))
    except FeatureFileError as error:
        return [str(error).removeprefix(f"{path}: ")]
    found: list[str] = []
    try:
        with reading(member.path), member.opened() as h5:
            found.extend(_damage(member, None, on_block))
            found.extend(_untruths(member, h5, on_block))
    except FeatureFileError as error:
        found.append(str(error).removeprefix(f"{path}: "))
    finally:
        member.close()
    return found


def main(path: str) -> None:
    """The program of `featx.integrity`: a line a block, and at last the problems as JSON."""
    print(json.dumps(problems(path, on_block=lambda: print(flush=True))))


def _damage(
    member: Member, groups: tuple[str, ...] | None = None, on_block: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """What differs from its checksum, or has none."""
    if member.record.attributes_problem:
        yield member.record.attributes_problem
    held = set(member.record.tables)
    sums = {name.removeprefix(SUMS) for name in held if name.startswith(SUMS)}
    for name in sorted(sums | {name for name in held if not name.startswith(SUMS)}):
        if groups is not None and name not in groups and name.partition("/")[0] not in groups:
            continue
        if name not in sums or not member.table(SUMS + name).block_rows:
            yield f"{name} has no checksums"
        elif name not in held:
            yield f"{name} is missing"
        else:
            yield from _damaged_rows(member, name, on_block)


def _damaged_rows(member: Member, name: str, on_block: Callable[[], None]) -> Iterator[str]:
    step, recorded = member.table(SUMS + name).block_rows, member.rows(SUMS + name, slice(None))
    table = member.table(name)
    try:
        texts = member.array(name) if table.is_text else None
    except (UnicodeDecodeError, OSError, RuntimeError) as error:
        yield f"{name} cannot be read ({str(error).partition(chr(10))[0]})"
        return
    if len(recorded) != -(-table.num_rows // step):
        yield f"{name} has {table.num_rows} rows, but {len(recorded)} checksums of {step} rows"
        return
    for i, start in enumerate(range(0, table.num_rows, step)):
        rows = slice(start, start + step)
        if crc(texts[rows] if table.is_text else member.rows(name, rows)) != recorded[i]:
            yield f"rows {start} to {min(start + step, table.num_rows)} of {name}"
        on_block()


def _untruths(member: Member, h5: h5py.File, on_block: Callable[[], None]) -> Iterator[str]:
    """What no feature file says, whatever its checksums are."""
    made, counts = member.provenance, member.array("videos/num_clips")
    both = set(member.texts("videos/key")) & set(member.texts("failures/key"))
    if both:
        yield f"'{min(both)}' stands among the videos and among the failures"
    for name in ("size_bytes", "num_frames", "num_clips"):
        if (member.array(f"videos/{name}") < 0).any():
            yield f"videos/{name} holds numbers below 0"
    if made.has_clip_table:
        firsts = member.array("videos/first_clip")
        if not np.array_equal(firsts, np.cumsum(counts) - counts):
            yield "videos/first_clip: the clips of the videos do not follow one another"
        start, end = member.array("clips/start_frame"), member.array("clips/end_frame")
        if int(counts.sum()) != len(start):
            yield f"the videos have {int(counts.sum())} clips, the tables {len(start)}"
        if (start < 0).any() or (end <= start).any():
            yield "clips/start_frame: a clip starts before 0, or ends before it starts"
    names = [f"descriptors/{layer}" for layer in made.layers if made.save != "clips"]
    names += [f"clips/{layer}" for layer in made.layers if made.save != "descriptors"]
    names += [f"bins/{layer}" for layer in made.layers if made.bins]
    for name in names:
        unit = name.startswith("descriptors/") and not made.basis_sha256
        yield from _wrong_values(member.array(name), name, unit, on_block)
    for layer, entry in h5.get("basis", {}).items():
        for name in sorted(BASIS.keys() & entry.keys()):
            values = member.array(f"basis/{layer}/{name}")
            rows = values if values.ndim == 2 else values[:, None]
            yield from _wrong_values(rows, f"basis/{layer}/{name}", False, on_block)
    if made.basis_sha256 and not set(made.layers) <= set(h5.get("basis", {})):
        yield "it has gone through PCA, but lacks the basis"


def _wrong_values(values: np.ndarray, name: str, unit: bool, on_block: Callable[[], None]) -> Iterator[str]:
    """Values that are not finite, and with `unit` rows whose length is neither 1 nor 0."""
    step = max(1, BLOCK_BYTES // max(values[:1].nbytes, 1))
    for start in range(0, len(values), step):
        on_block()
        block = np.asarray(values[start : start + step], np.float64)
        block = block.reshape(len(block), -1)  # (n, T, D) -> (n, T * D)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            yield f"row {start + int(np.argmin(finite))} of {name} holds values that are not finite"
            return
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = (np.abs(lengths - 1) > UNIT_TOLERANCE) & (lengths > 0) if unit else np.zeros(len(block), bool)
        if wrong.any():
            row = int(np.argmax(wrong))
            yield f"row {start + row} of {name} has the length {lengths[row]:g}, but must have 1"
            return
