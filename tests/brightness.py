"""A stand-in for a network that tells which frames it saw: number t of a feature is the brightness of frame t of the clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featx.catalog import get_checkpoint
from featx.engine import Engine
from featx.engine.flight import Done
from featx.video import read_frames

__all__ = ["NUM_DIMS", "frames_of", "see_brightness"]

NUM_DIMS = get_checkpoint("res3d-mini").layers["pool5"]


def see_brightness(monkeypatch) -> None:
    """Let every Engine give mean brightnesses for every layer, behind them zeros."""

    def submit(self, clips, ready=()):
        rows = np.zeros((len(clips), NUM_DIMS), np.float32)
        for row, clip in zip(rows, clips, strict=True):
            row[: len(clip)] = clip.numpy().mean((1, 2, 3))
        return Done({layer: rows.copy() for layer in self.layers})

    monkeypatch.setattr(Engine, "submit", submit)


def frames_of(rows: np.ndarray, path: Path, length: int = 8) -> list[list[int]]:
    """The numbers of the frames that each clip of (M, D) was cut from, of a video whose frames differ in brightness."""
    levels = np.array([frame.pixels.mean() for frame in read_frames(path)])
    distances = np.abs(rows[:, :length, None] - levels)  # (M, length, frames)
    assert distances.min(axis=2).max() < 0.5 and np.diff(levels).min() > 1
    return distances.argmin(axis=2).tolist()
