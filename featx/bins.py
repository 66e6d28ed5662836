"""A video's clip features brought to a fixed number of bins in time, the form that temporal localisation takes.

clips    |----0----|        centres o of the clips, in seconds
              |----1----|   (a folder of images has no seconds: in frames)
o             o    o
bins     | 0 | 1 | 2 | 3 |  of equal length, together the whole video
o          o   o   o   o    their centres
"""

from __future__ import annotations

import numpy as np

from featx.features import ClipTable

__all__ = ["clip_centres", "to_bins"]


def to_bins(rows: np.ndarray, centres: np.ndarray, start: float, end: float, num_bins: int) -> np.ndarray:
    """Interpolate clip features (M, D) at the centres of `num_bins` equal bins between `start` and `end`; float32 (T, D).

    `centres` (M,), rising, are the middles of the clips on the same clock. Bin t takes the value at
    ``start + (t + 0.5) * (end - start) / num_bins``: between the centres of two clips on the line between their features,
    before the first centre the first clip's feature, after the last centre the last clip's: what numpy.interp gives in every
    dimension. Fewer clips than bins are interpolated in the same way, and one clip fills every bin. Where there are more clips
    than bins, a bin takes from the two clips beside its centre, and no mean over it. Nothing is normalised.
    Sums are in float64.
    """
    moments = start + (np.arange(num_bins) + 0.5) * ((end - start) / num_bins)
    last = len(centres) - 1
    left = np.clip(np.searchsorted(centres, moments, side="right") - 1, 0, last)
    right = np.minimum(left + 1, last)
    gaps = np.where(right > left, centres[right] - centres[left], 1.0)
    shares = np.clip((moments - centres[left]) / gaps, 0.0, 1.0)  # of the right one
    out = np.empty((num_bins, rows.shape[1]), np.float32)
    for t in range(num_bins):  # two rows at a time: the others may lie on the disk
        out[t] = rows[left[t]].astype(np.float64) * (1 - shares[t]) + rows[right[t]].astype(np.float64) * shares[t]
    return out


def clip_centres(
    table: ClipTable, start_seconds: float, end_seconds: float, num_frames: int
) -> tuple[np.ndarray, float, float]:
    """The middles of a video's clips, float64 (M,), and where the video starts and ends on the same clock.

    In seconds; in frames where a video has none.
    """
    if np.isnan(start_seconds):
        return (table.start_frame + table.end_frame) / 2, 0.0, float(num_frames)
    return (table.start_seconds + table.end_seconds) / 2, start_seconds, end_seconds
