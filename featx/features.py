"""Features: everything that featx knows of one video once it has been through a backbone, as one checked record."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["ClipTable", "Failure", "Features"]


@dataclass(frozen=True, eq=False)
class ClipTable:
    """Where the clips of one video lie: four arrays of shape (M,), in order of time.

    `start_frame`, `end_frame` (exclusive): int64 source frames, after resampling to `fps` when that was asked for.
    `start_seconds`, `end_seconds`: float64, from the first frame of the video; NaN where frames have no times.
    """

    start_frame: np.ndarray
    end_frame: np.ndarray
    start_seconds: np.ndarray
    end_seconds: np.ndarray

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the columns of a clip table must have one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.start_frame)


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one video.

    `descriptors`: layer -> float32 (D,), the mean (or what else was asked for) of the clip features, L2-normalised (a zero
    vector stays zero); empty when only clip features were kept. `clips`: layer -> float32 or float16 (M, D), row i belongs to
    row i of `clip_table`; empty unless clip features were kept. `bins`: layer -> float32 or float16 (T, D), the clip features
    in T bins of time, see `featx.bins`; empty unless they were asked for. `clip_table` is None unless clip features were kept,
    or the starts of clips were listed. `size_bytes` and `mtime_ns` are the file's when it was read, of a folder of images their
    sum and the latest; `fps` in frames a second; `sha256` is of the content, "" where it was not asked for. `fps` and
    everything in seconds is NaN for a folder of images, and `num_frames` 0 for features that were imported. `damage` tells what
    was wrong with a video that is kept all the same (`--on-corrupt keep`); empty for a whole one.
    """

    key: str
    path: str
    num_frames: int
    num_clips: int
    fps: float
    duration_seconds: float
    size_bytes: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    label: str = ""
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    damage: str = ""
    descriptors: dict[str, np.ndarray] = field(default_factory=dict)
    clips: dict[str, np.ndarray] = field(default_factory=dict)
    bins: dict[str, np.ndarray] = field(default_factory=dict)
    clip_table: ClipTable | None = None

    def __post_init__(self) -> None:
        for layer, vector in self.descriptors.items():
            if vector.ndim != 1 or vector.dtype != np.float32:
                raise ValueError(
                    f"descriptor {layer} of '{self.key}' is {vector.dtype} {vector.shape}, not float32 (D,)"
                )
        num_rows = None if self.clip_table is None else len(self.clip_table)
        if num_rows != self.num_clips and (self.clips or num_rows is not None):
            raise ValueError(f"clip features of '{self.key}' need a clip table of {self.num_clips} rows")
        for layer, rows in self.clips.items():
            if rows.ndim != 2 or len(rows) != self.num_clips or rows.dtype not in (np.float32, np.float16):
                raise ValueError(
                    f"clip features {layer} of '{self.key}' are {rows.dtype} {rows.shape}, "
                    f"not float32 or float16 ({self.num_clips}, D)"
                )

        for layer, rows in self.bins.items():
            if rows.ndim != 2 or rows.dtype not in (np.float32, np.float16):
                raise ValueError(
                    f"bins {layer} of '{self.key}' are {rows.dtype} {rows.shape}, not float32 or float16 (T, D)"
                )

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers held, as descriptors, clip features or both."""
        return tuple(self.descriptors or self.clips)

    @property
    def num_bytes(self) -> int:
        """What its arrays take in memory."""
        arrays = (*self.descriptors.values(), *self.clips.values(), *self.bins.values())
        return sum(array.nbytes for array in arrays)

    def __repr__(self) -> str:
        held = [f"{layer} ({len(vector)},)" for layer, vector in self.descriptors.items()]
        held += [f"{layer} clips {rows.shape}" for layer, rows in self.clips.items()]
        held += [f"{layer} bins {rows.shape}" for layer, rows in self.bins.items()]
        return f"Features('{self.key}', {self.num_frames} frames, {self.num_clips} clips: {', '.join(held)})"


@dataclass(frozen=True)
class Failure:
    """A video that gave no features, and the one-line reason. `size_bytes` and `mtime_ns` tell whether it changed since."""

    key: str
    path: str
    reason: str
    size_bytes: int = 0
    mtime_ns: int = 0
