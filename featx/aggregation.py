"""Step 6, aggregate: the clip features of one video, as they arrive, to what the feature file keeps of it.

views of a clip float32 (D,)  ->  their mean: the clip feature

clip features float32 (D,), in clip order  ->  mean or max, then L2: the descriptor (D,)
                                           ->  rows (M, D), where clip features are kept
                                           ->  bins (T, D), where they are asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from featx.bins import clip_centres, to_bins
from featx.clip_rows import ClipRows
from featx.descriptors import MaxAccumulator, MeanAccumulator, l2_normalise
from featx.errors import UsageError
from featx.features import Failure, Features
from featx.feeder import VideoEnded, VideoFailed

__all__ = ["AGGREGATES", "DEFAULT_BINS", "MAX_BINS", "Aggregation", "VideoInWork"]

SAVE_FORMS = ("descriptors", "clips", "both")
CLIP_DTYPES = ("float32", "float16")
AGGREGATES = {"mean": MeanAccumulator, "max": MaxAccumulator, "bins": MeanAccumulator}
DEFAULT_BINS = 100  # the length to which ActivityNet's videos are commonly rescaled
MAX_BINS = 100_000
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Aggregation:
    """What is kept of a video's clip features, and how they become its descriptor.

    `aggregate`: "mean" over the clips, or "max", the largest value of each dimension; both are L2-normalised then. "bins":
    the clip features interpolated at the centres of `bins` equal parts of the video (see `featx.bins.to_bins`; None stands for
    DEFAULT_BINS) beside the mean. `save`: "descriptors", "clips" or "both"; `dtype` of clip features and bins: "float32" or
    "float16". `clip_times` keeps the table of where clips lie even where clip features are not kept.

    Raises UsageError, which names the value, for others, for a maximum where no descriptors are kept, and for a number of bins
    where there are none.
    """

    aggregate: str = "mean"
    bins: int | None = None
    save: str = "descriptors"
    dtype: str = "float32"
    clip_times: bool = False

    def __post_init__(self) -> None:
        for name, known in (("save", SAVE_FORMS), ("dtype", CLIP_DTYPES), ("aggregate", tuple(AGGREGATES))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is '{getattr(self, name)}', but must be one of {', '.join(known)}")
        if self.aggregate == "max" and self.save == "clips":
            raise UsageError(
                "aggregate is 'max', but save is 'clips', which keeps no descriptors; save 'both', or leave aggregate out"
            )
        if self.aggregate != "bins" and self.bins is not None:
            raise UsageError(
                f"{self.bins} bins are asked for, but aggregate is '{self.aggregate}'; make it 'bins', or leave the number out"
            )
        if self.aggregate == "bins":
            num_bins = DEFAULT_BINS if self.bins is None else self.bins
            if not isinstance(num_bins, Integral) or isinstance(num_bins, bool) or not 1 <= num_bins <= MAX_BINS:
                raise UsageError(f"bins is {num_bins!r}, but must be a whole number from 1 to {MAX_BINS:,}")
            object.__setattr__(self, "bins", int(num_bins))

    @property
    def num_bins(self) -> int:
        """Bins a video, 0 where there are none."""
        return self.bins or 0


class VideoInWork:
    """One video in the forward pass: takes its clip features as they arrive, in clip order, and makes its Features of them.

    `num_dims`: layer -> D. `listed` says that the starts of its clips were. Of every clip `num_views` views come one after the
    other; the clip feature is their mean, summed in float64 in that order, so that it does not depend on batches.
    """

    def __init__(self, aggregation: Aggregation, num_dims: Mapping[str, int], listed: bool, num_views: int = 1) -> None:
        self._num_dims, self._num_views = num_dims, num_views
        self._views: dict[str, MeanAccumulator] = {}  # of the clip under way
        self.outcome: VideoEnded | VideoFailed | None = None
        self._kept, self._listed = aggregation, listed
        self._num_clips = 0
        self._sums = {layer: AGGREGATES[aggregation.aggregate](dims) for layer, dims in num_dims.items()}
        self._rows: dict[str, ClipRows] = {}
        if aggregation.save != "descriptors" or aggregation.num_bins:
            dtype = np.dtype(
                "float32" if aggregation.num_bins else aggregation.dtype
            )  # what is interpolated is not rounded
            self._rows = {layer: ClipRows(dims, dtype) for layer, dims in num_dims.items()}
        self._problem: str | None = None

    def add(self, features: dict[str, np.ndarray], precision: str = "fp32") -> None:
        """Take the features of the next clip, or of the next view of it, float32 (D,) a layer, computed in `precision`."""
        if self._num_views == 1:
            self._add_clip(features, precision)
            return
        views = self._views or {layer: MeanAccumulator(dims) for layer, dims in self._num_dims.items()}
        for layer, values in features.items():
            views[layer].add(values[None])
        is_whole = next(iter(views.values())).num_clips == self._num_views
        self._views = {} if is_whole else views
        if is_whole:
            self._add_clip({layer: mean.result() for layer, mean in views.items()}, precision)

    def _add_clip(self, clip_features: dict[str, np.ndarray], precision: str) -> None:
        self._num_clips += 1
        for layer, values in clip_features.items():
            if not np.isfinite(values).all():
                self._problem = f"clip {self._num_clips - 1} gives values that are not finite in {layer}"
                if precision == "fp16":
                    self._problem += ", which fp16 may not hold; take --precision bf16 or fp32 in another output"
                continue
            self._sums[layer].add(values[None])
            if layer in self._rows:
                if self._kept.dtype == "float16" and np.abs(values).max(initial=0) > HALF_MAX:
                    self._problem = f"{layer} has values beyond float16's range; keep clip features as float32"
                    continue
                self._rows[layer].append(values)

    def is_complete(self) -> bool:
        """Whether the video has failed, or every clip of it has come."""
        outcome = self.outcome
        return isinstance(outcome, VideoFailed) or (outcome is not None and self._num_clips == len(outcome.clip_table))

    def result(self) -> Features | Failure:
        """The video's features once every clip has come, or its failure."""
        outcome = self.outcome
        if isinstance(outcome, VideoFailed):
            return outcome.failure
        if self._problem is not None:
            f = outcome.features
            return Failure(f.key, f.path, self._problem, f.size_bytes, f.mtime_ns)
        if self._num_clips != len(outcome.clip_table):
            raise AssertionError(
                f"{self._num_clips} of {len(outcome.clip_table)} clips of {outcome.features.path} came back"
            )
        descriptors, clips, bins = {}, {}, {}
        rows_of = {layer: rows.result() for layer, rows in self._rows.items()}
        if self._kept.save != "clips":
            descriptors = {layer: l2_normalise(total.result()) for layer, total in self._sums.items()}
        if self._kept.save != "descriptors":
            clips = {layer: rows.astype(self._kept.dtype, copy=False) for layer, rows in rows_of.items()}
        if self._kept.num_bins:
            f = outcome.features
            clock = clip_centres(outcome.clip_table, f.start_seconds, f.end_seconds, f.num_frames)
            binned = {layer: to_bins(rows, *clock, self._kept.num_bins) for layer, rows in rows_of.items()}
            bins = {layer: rows.astype(self._kept.dtype, copy=False) for layer, rows in binned.items()}
        with_table = clips or self._listed or self._kept.clip_times  # the stride tells where other clips lie
        table = outcome.clip_table if with_table else None
        return replace(outcome.features, descriptors=descriptors, clips=clips, bins=bins, clip_table=table)
