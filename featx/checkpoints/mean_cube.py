"""A mean cube from the user's file into a card's preprocessing, in place of the card's constants."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from featx.catalog import Checkpoint
from featx.checkpoints.cache import Record, read_record
from featx.checkpoints.caffe import read_mean_cube
from featx.errors import CheckpointError, UsageError
from featx.small_files import is_special

__all__ = ["CARD_MEAN", "mean_note", "stored_cube", "with_chosen_mean", "with_mean_cube"]

CARD_MEAN = "card"  # in place of a file's name: the card's constants, even where a cube is stored

# A published cube's averages lie within a level of its card's constants, that of other videos about ten off
NEAR_LEVELS = 3.0
MAX_LEVELS = 32.0  # no videos' mean is so far from another's; values of 0 to 1 are, and zeros


def with_chosen_mean(checkpoint: Checkpoint, mean: str | Path | None, length: int) -> Checkpoint:
    """The checkpoint with the mean that `mean` stands for, for clips of `length` frames.

    A file's name: that cube; "card": the card's constants; None: the cube that is stored with the card's weights, as the
    authors did, else the constants. Raises as `with_mean_cube` does, and CheckpointError for a stored cube that is damaged.
    """
    if mean is None:
        record = stored_cube(checkpoint)
        if record is None:
            return checkpoint
        try:
            return with_mean_cube(checkpoint, record.checked_mean_path(), length)
        except CheckpointError:  # another process may have stored it anew
            again = stored_cube(checkpoint)
            if again in (record, None):
                raise
            mean = again.checked_mean_path()
    return checkpoint if os.fspath(mean) == CARD_MEAN else with_mean_cube(checkpoint, mean, length)


def stored_cube(checkpoint: Checkpoint) -> Record | None:
    """The cache's record of a checkpoint whose mean cube is used unasked; None where there is none."""
    record = read_record(checkpoint.name) if checkpoint.folder is None and _takes_cube(checkpoint) else None
    return record if record is not None and record.mean is not None else None


def with_mean_cube(checkpoint: Checkpoint, path: str | Path, length: int) -> Checkpoint:
    """The checkpoint with the mean cube of a file, for clips of `length` frames.

    The file is Caffe's `.binaryproto`, or NumPy's `.npy` of shape (3, T, h, w) or (1, 3, T, h, w): grey levels, BGR. Raises
    CheckpointError for any other file and for one whose averages are far from the card's constants, and UsageError where the
    card takes no cube or the cube's size is not the clips'.
    """
    preprocess = checkpoint.preprocess
    if not _takes_cube(checkpoint):
        raise UsageError(
            f"--mean '{path}' is given, but {checkpoint.name} {checkpoint.variant}".rstrip()
            + " subtracts no mean in grey levels of BGR that a cube could replace; leave --mean out"
        )
    cube = _read(path)
    if cube.shape[2:] != preprocess.resize:
        size = "x".join(map(str, preprocess.resize)) if isinstance(preprocess.resize, tuple) else preprocess.resize
        raise UsageError(
            f"mean file '{path}' holds frames of {cube.shape[2]}x{cube.shape[3]}, but {checkpoint.name} resizes to {size}; "
            "take the mean cube of these weights"
        )
    if cube.shape[1] != length:
        raise UsageError(
            f"mean file '{path}' holds {cube.shape[1]} frames, but a clip has {length}; "
            f"leave --length out, take the mean cube of these weights, or --mean {CARD_MEAN} for the card's constants"
        )
    changed = dataclasses.replace(checkpoint, preprocess=dataclasses.replace(preprocess, mean_cube=cube))
    if _levels_off(changed) > MAX_LEVELS:
        raise CheckpointError(
            f"mean file '{path}' is {_compared(changed)}, which is too far for a mean in grey levels of BGR; "
            "take the cube that was published with the weights"
        )
    return changed


def mean_note(checkpoint: Checkpoint, path: str | Path) -> str:
    """What is odd about a mean cube that can be taken: that it seems to be of other videos than the weights; else ""."""
    changed = with_mean_cube(checkpoint, path, _read(path).shape[1])
    return f"it is {_compared(changed)}" if _levels_off(changed) > NEAR_LEVELS else ""


def _levels_off(checkpoint: Checkpoint) -> float:
    preprocess = checkpoint.preprocess
    return max(abs(a - b) for a, b in zip(preprocess.mean_cube_averages(), preprocess.mean, strict=True))


def _compared(checkpoint: Checkpoint) -> str:
    preprocess = checkpoint.preprocess
    found, card = (
        ", ".join(f"{v:.1f}" for v in values) for values in (preprocess.mean_cube_averages(), preprocess.mean)
    )
    return f"on average {found} (B, G, R), but the constants of {checkpoint.name} are {card}"


def _takes_cube(checkpoint: Checkpoint) -> bool:
    preprocess = checkpoint.preprocess
    return any(preprocess.mean) and preprocess.scale == 1 and preprocess.channel_order == "bgr"


def _read(path: str | Path) -> np.ndarray:
    """The cube as float32 (3, T, h, w), of 0 to 255."""
    if is_special(path):
        raise CheckpointError(f"mean file '{path}' is a pipe or a device; name the file that holds the cube")
    try:
        with open(path, "rb") as file:
            numpy_form = file.read(6) == b"\x93NUMPY"
    except OSError as error:
        raise CheckpointError(f"mean file '{path}' cannot be read ({error.strerror}); check --mean") from None
    cube = _read_npy(path) if numpy_form else read_mean_cube(path)
    if not np.isfinite(cube).all():
        raise CheckpointError(f"mean file '{path}' holds values that are not finite; fetch the published file again")
    if cube.size and (cube.min() < 0 or cube.max() > 255):
        raise CheckpointError(
            f"mean file '{path}' holds values from {cube.min():g} to {cube.max():g}, but grey levels are 0 to 255; "
            "take the cube that was published with the weights"
        )
    return cube


def _read_npy(path: str | Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a false shape costs no memory
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"mean file '{path}' is no intact .npy file ({reason}); save it again") from None
    if array.dtype.kind not in "fiu":
        raise CheckpointError(f"mean file '{path}' holds {array.dtype}, but must hold numbers; save it as float32")
    cube = array[0] if array.ndim == 5 and array.shape[0] == 1 else array
    if cube.ndim != 4 or cube.shape[0] != 3:
        raise CheckpointError(
            f"mean file '{path}' holds an array of shape {array.shape}, but must be (3, T, h, w) or (1, 3, T, h, w); "
            "take the cube that was published with the weights"
        )
    return np.array(cube, dtype=np.float32)
