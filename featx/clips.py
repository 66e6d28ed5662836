"""Which frames make which clip: index arithmetic only, no pictures.

    frames   0 1 2 3 4 5 6 7 8 9 ...           length 4, frame_step 2, stride 3: span = (4 - 1) * 2 + 1 = 7
    clip 0   x . x . x . x
    clip 1         x . x . x . x               starts 3 frames later
             |<--- span -->|

A clip is *full* when its whole span lies inside the video. What happens at the two edges is a named policy:
`short` for a video that holds no full clip, `tail` for the frames after the last full one. Clips whose starts are *listed*
with the video know no edge: each must be full.

`plan_clips` is the definition, for a known number of frames. `ClipWindow` finds the same clips while frames arrive one
by one, and keeps no more than one span of them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Generic, NamedTuple, TypeVar

from featx.errors import UsageError, VideoError

__all__ = ["Clip", "ClipWindow", "Sampling", "count_clips", "plan_clips"]

SHORT_POLICIES = ("loop", "pad", "skip")
TAIL_POLICIES = ("drop", "pad")


@dataclass(frozen=True)
class Sampling:
    """How a video is cut into clips.

    `length` frames a clip, `frame_step` apart; `stride` frames between the starts of neighbouring clips, counted in
    source frames (after resampling to `fps`, when given, in frames a second). With `num_clips_even` N the clips are not
    `stride` apart but N evenly spread ones, the first at the first frame and the last ending at the last frame (a video
    with fewer than N possible starts gives each of them once). With `num_clips_random` N they are N different starts in order
    of time, drawn by `seed` and the number of frames. With `listed` every video comes with the starts of its
    clips, and neither the stride nor a policy has a say.

    `short`, for a video shorter than one span: "loop" repeats its frames from the start (3D ResNet papers), "pad"
    repeats its last frame, "skip" refuses the video. `tail`, for frames after the last full clip: "drop" (C3D), or
    "pad": one more clip, completed with the last frame.
    """

    length: int = 16
    stride: int = 8
    frame_step: int = 1
    num_clips_even: int | None = None
    fps: float | None = None
    short: str = "loop"
    tail: str = "drop"
    listed: bool = False
    num_clips_random: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("length", "stride", "frame_step", "num_clips_even", "num_clips_random"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
                raise UsageError(f"{name} is {value!r}, but must be a whole number of at least 1")
        if self.fps is not None and not (isinstance(self.fps, Real) and 0 < self.fps <= 1000):
            raise UsageError(f"fps is {self.fps!r}, but must be above 0 and at most 1000 frames a second")
        if self.short not in SHORT_POLICIES:
            raise UsageError(f"short is '{self.short}', but must be one of {', '.join(SHORT_POLICIES)}")
        if self.tail not in TAIL_POLICIES:
            raise UsageError(f"tail is '{self.tail}', but must be one of {', '.join(TAIL_POLICIES)}")
        if self.counts_first and self.tail == "pad":
            how = "evenly spread" if self.num_clips_even is not None else "random"
            raise UsageError(f"tail is 'pad', but {how} clips leave no tail; leave one of the two out")
        if None not in (self.num_clips_even, self.num_clips_random):
            raise UsageError(
                f"{self.num_clips_even} evenly spread and {self.num_clips_random} random clips are asked for; leave one out"
            )
        if self.listed:
            self._check_listed()

    def _check_listed(self) -> None:
        if self.num_clips_even is not None:
            raise UsageError(f"{self.num_clips_even} evenly spread clips are asked for, but their starts are listed")
        if self.num_clips_random is not None:
            raise UsageError(f"{self.num_clips_random} random clips are asked for, but their starts are listed")
        if self.fps is not None:
            raise UsageError(
                f"fps is {self.fps:g}, but the starts of clips are listed, in frames as filmed; leave one of the two out"
            )
        if self.tail == "pad" or self.short == "pad":
            raise UsageError("listed clips are never completed by repeating frames; leave 'pad' out of short and tail")

    @property
    def counts_first(self) -> bool:
        """Whether clips depend on the number of frames, which must then be known before the first one."""
        return self.num_clips_even is not None or self.num_clips_random is not None

    @property
    def span(self) -> int:
        """Source frames that a clip reaches over, first to last: (length - 1) * frame_step + 1."""
        return (self.length - 1) * self.frame_step + 1


class Clip(NamedTuple):
    """One clip of a video of known length.

    `frames` are the `length` source frame indices that go through the backbone, in order. `start_frame` is the first;
    `end_frame`, exclusive, is the first source frame after the clip, never beyond the video.
    """

    start_frame: int
    end_frame: int
    frames: tuple[int, ...]


def plan_clips(num_frames: int, sampling: Sampling, listed_starts: Sequence[int] | None = None) -> list[Clip]:
    """All clips of a video of `num_frames` frames, in order; `listed_starts`, rising, where they are listed.

    Raises VideoError where `sampling` gives the video no clip: it has no frames, or it is short and `short` is "skip"; and
    where a listed clip is not full.
    """
    if sampling.listed:
        for start in listed_starts:
            if start + sampling.span > num_frames:
                _refuse_listed(start, num_frames, sampling)
        return [_clip(start, num_frames, sampling) for start in listed_starts]
    starts = _starts(num_frames, sampling)
    if not starts:  # not one full clip
        _refuse_short(num_frames, sampling)
        starts = [0]
    return [_clip(start, num_frames, sampling) for start in starts]


def count_clips(num_frames: int, sampling: Sampling, listed_starts: Sequence[int] | None = None) -> int:
    """How many clips `plan_clips` gives, without making them; 0 where it refuses."""
    if sampling.listed:
        return len(listed_starts) if listed_starts[-1] + sampling.span <= num_frames else 0
    starts = _starts(num_frames, sampling)
    if starts:
        return len(starts)
    return 0 if num_frames < 1 or sampling.short == "skip" else 1


def _starts(num_frames: int, sampling: Sampling) -> range | list[int]:
    """First frames of the full clips, and of the padded one after them; empty for a short video."""
    last_start = num_frames - sampling.span
    if last_start < 0:
        return []
    if sampling.num_clips_even is not None:
        return _even_starts(last_start, sampling.num_clips_even)
    if sampling.num_clips_random is not None:
        draw = random.Random(f"{sampling.seed} {num_frames}")
        return sorted(draw.sample(range(last_start + 1), min(sampling.num_clips_random, last_start + 1)))
    starts = range(0, last_start + 1, sampling.stride)
    next_start = starts[-1] + sampling.stride
    if sampling.tail == "pad" and starts[-1] + sampling.span < num_frames and next_start < num_frames:
        starts = range(0, next_start + 1, sampling.stride)
    return starts


def _even_starts(last_start: int, num_clips: int) -> range | list[int]:
    if num_clips == 1:
        return [last_start // 2]
    if num_clips > last_start:
        return range(last_start + 1)  # each frame begins one
    return sorted({i * last_start // (num_clips - 1) for i in range(num_clips)})


def _clip(start: int, num_frames: int, sampling: Sampling) -> Clip:
    wanted = range(start, start + sampling.span, sampling.frame_step)
    if num_frames < sampling.span and sampling.short == "loop":
        frames = tuple(i % num_frames for i in wanted)
    else:
        frames = tuple(min(i, num_frames - 1) for i in wanted)
    return Clip(start, min(start + sampling.span, num_frames), frames)


def _refuse_short(num_frames: int, sampling: Sampling) -> None:
    if num_frames < 1:
        raise VideoError("no frames")
    if sampling.short == "skip":
        raise VideoError(f"short: {num_frames} frames, but one clip spans {sampling.span}, and --short is 'skip'")


def _refuse_listed(start: int, num_frames: int, sampling: Sampling) -> None:
    raise VideoError(
        f"a clip of {sampling.span} frames is listed from frame {start} (counted from 0) on, but there are {num_frames} frames"
    )


F = TypeVar("F")


class ClipWindow(Generic[F]):
    """Finds the clips of a stream of frames, in order, holding at most one span of frames.

    >>> window = ClipWindow(Sampling(length=2, stride=2))
    >>> [window.push(frame) for frame in "abc"], window.finish()
    ([None, (Clip(start_frame=0, end_frame=2, frames=(0, 1)), ['a', 'b']), None], None)

    Evenly spread and random clips need the number of frames beforehand: give `num_frames`, counted, not read from a header.
    Where starts are listed, give `listed_starts`, rising.
    """

    def __init__(
        self, sampling: Sampling, num_frames: int | None = None, listed_starts: Sequence[int] | None = None
    ) -> None:
        self._sampling = sampling
        self._known: Iterator[int] | None = None  # the starts still to come, where they do not follow from the stride
        if sampling.listed:
            if not listed_starts or listed_starts[0] < 0 or any(a >= b for a, b in pairwise(listed_starts)):
                raise ValueError(f"listed clips need rising listed_starts of at least 0, not {listed_starts}")
            self._known = iter(listed_starts)
        elif sampling.counts_first:
            if num_frames is None:
                raise ValueError("evenly spread and random clips need num_frames")
            self._known = iter(_starts(num_frames, sampling))
        self._next_start: int | None = 0 if self._known is None else next(self._known, None)
        self._held: deque[F] = deque()  # frames self._first .. self.num_frames - 1
        self._first = 0
        self.num_frames = 0

    def push(self, frame: F) -> tuple[Clip, list[F]] | None:
        """Take the next frame; return the clip that it completes, if any, with its frames."""
        self._held.append(frame)
        self.num_frames += 1
        complete = None
        start = self._next_start
        if start is not None and start + self._sampling.span == self.num_frames:
            complete = self._cut(start)
            self._next_start = start + self._sampling.stride if self._known is None else next(self._known, None)
        self._forget()
        return complete

    def finish(self) -> tuple[Clip, list[F]] | None:
        """Return the clip that the edge policies add after the last frame, if any.

        Raises VideoError as `plan_clips` does.
        """
        if self._sampling.listed:
            if self._next_start is not None:
                _refuse_listed(self._next_start, self.num_frames, self._sampling)
            return None
        if self.num_frames < self._sampling.span:
            _refuse_short(self.num_frames, self._sampling)
            return self._cut(0)
        if self._known is None and _starts(self.num_frames, self._sampling)[-1] == self._next_start:
            return self._cut(self._next_start)
        return None

    def _cut(self, start: int) -> tuple[Clip, list[F]]:
        clip = _clip(start, self.num_frames, self._sampling)
        return clip, [self._held[i - self._first] for i in clip.frames]

    def _forget(self) -> None:
        """Drop the frames that no later clip can reach."""
        if self.num_frames < self._sampling.span:
            return  # the video may yet turn out to be short, and a short one is looped from its first frame
        keep_from = self.num_frames - 1 if self._next_start is None else self._next_start
        while self._held and self._first < keep_from:
            self._held.popleft()
            self._first += 1
