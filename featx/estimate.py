"""What a whole run will take, reckoned from a sample of its videos: arithmetic on what was measured, and nothing else.

    a video's seconds = its clips x busy seconds a clip + its frames x waiting seconds a frame

*Busy* is what the thread of the forward pass did, computing, adding up and writing, and *waiting* is what it spent without
clips, because decoding or resizing had none ready. The sample gives both rates. A video is decoded by one process, so it takes
no less than its frames x the processor seconds of a decoded frame, however many machines there are.

    one machine           start + the larger of: the sum over the videos, the longest video
    N machines, shards    start + the largest such figure of the shards 1/N to N/N, which the keys decide
    N machines, a queue   start + the larger of: the sum / N, the longest video
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.errors import UsageError
from featx.profile import Profile
from featx.shards import MAX_SHARDS

__all__ = ["Estimate", "Sample", "Times", "reckon", "require_machines", "spread_of"]

# Student's t, two-sided 95 %, for 1, 2, 3 … degrees of freedom
T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36)
MAX_BLOCKS = len(T_95) + 1
LEAST_SPREAD = 0.05  # no machine is steadier from one run to the next
MOST_SPREAD = 1.0  # and where a sample says nothing of its spread: from half to twice


@dataclass(frozen=True)
class Sample:
    """What was measured. `profile`: where the seconds went; its `start_seconds` are all that come once in a run.

    `num_videos` were extracted, `num_failed` of them in vain; `told_clips` are the clips that their headers promise, of which
    `profile.num_clips` came. `blocks`: (seconds, clips) of the sample in up to MAX_BLOCKS stretches of time.
    """

    num_videos: int
    num_failed: int
    told_clips: int
    profile: Profile
    blocks: tuple[tuple[float, int], ...]

    def __post_init__(self) -> None:
        if self.profile.num_clips < 1 or self.told_clips < 1 or self.profile.wall_seconds <= 0:
            raise UsageError(
                f"{self.num_videos} videos were sampled, {self.num_failed} failed, and {self.profile.num_clips} clips came: "
                "nothing can be reckoned from that; take a larger --sample"
            )

    @property
    def came(self) -> float:
        """Clips that came for each that the headers promised."""
        return self.profile.num_clips / self.told_clips

    @property
    def busy_seconds_per_clip(self) -> float:
        return (self.profile.wall_seconds - self._wait_seconds) / self.profile.num_clips

    @property
    def wait_seconds_per_frame(self) -> float:
        return self._wait_seconds / self.profile.num_frames

    @property
    def _wait_seconds(self) -> float:
        return min(self.profile.wait_seconds, self.profile.wall_seconds)

    @property
    def decode_seconds_per_frame(self) -> float:
        """Of one process that has its core to itself."""
        return self.profile.decode_processor_seconds / self.profile.num_frames

    @property
    def stages(self) -> dict[str, float]:
        """Clips a second that each stage would give on its own, all decode workers together, where its time is known."""
        p = self.profile
        seconds = {
            "decode": p.decode_processor_seconds / max(p.num_decoders, 1),
            "resize": p.resize_seconds,
            "copy": p.copy_seconds,
            "forward": p.forward_seconds,
            "write": p.write_seconds,
        }
        return {name: p.num_clips / took for name, took in seconds.items() if took > 0}


@dataclass(frozen=True)
class Times:
    """Seconds from the start to the end, and the range in which they lie by the spread of the sample, about 95 % of the time.

    `cost` of all machines, each paid for until the last has ended; None without a price.
    """

    seconds: float
    low_seconds: float
    high_seconds: float
    cost: float | None


@dataclass(frozen=True)
class Estimate:
    """What is left of a run, and what it will take. `num_clips` and `num_frames` are those of the headers, corrected by the
    sample.

    `clips_per_second` once it is running; `bottleneck` is the stage to make faster first, `stages` what each would give on its
    own. `one`: one machine like this one; `shards` and `queue`: `machines` of them, each with a shard, or all with one queue.
    `imbalance`: the fullest shard, over an even share. `longest_seconds`: of the longest video. `spread`: of the range, as a
    ratio. `price_per_hour` of a machine.
    """

    num_videos: int
    num_clips: int
    num_frames: int
    start_seconds: float
    clips_per_second: float
    stages: dict[str, float]
    bottleneck: str
    longest_seconds: float
    spread: float
    one: Times
    machines: int
    shards: Times
    queue: Times
    imbalance: float
    price_per_hour: float | None
    sample: Sample


def require_machines(machines: int) -> None:
    """Raise UsageError for a number of machines that is none."""
    if not 1 <= machines <= MAX_SHARDS:
        raise UsageError(f"{machines} machines are asked for, but must be from 1 to {MAX_SHARDS:,}")


def spread_of(blocks: Sequence[tuple[float, int]]) -> float:
    """How far seconds a clip may be off, as a ratio, from `blocks`, (seconds, clips) each.

    Student's t times the jackknife's standard error of sum of seconds / sum of clips, between LEAST_SPREAD and MOST_SPREAD.
    """
    count = len(blocks)
    if count < 2:
        return MOST_SPREAD
    seconds, clips = (np.array(column, np.float64) for column in zip(*blocks, strict=True))
    rate = seconds.sum() / clips.sum()
    without = (seconds.sum() - seconds) / (clips.sum() - clips)
    error = math.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    return float(np.clip(T_95[min(count - 1, len(T_95)) - 1] * error / rate, LEAST_SPREAD, MOST_SPREAD))


def reckon(
    sample: Sample,
    clips: Sequence[int],
    frames: Sequence[int],
    *,
    machines: int = 1,
    shard_numbers: Sequence[int] | None = None,
    price_per_hour: float | None = None,
) -> Estimate:
    """The estimate for videos of so many `clips` and `frames` each, as their headers tell.

    `shard_numbers`: the shard of each, from 1 to `machines`; without, shards are taken to be even. Raises UsageError for
    a number of machines, or a price, that is none.
    """
    require_machines(machines)
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise UsageError(f"the price of an hour is {price_per_hour:g}, but must be a number of at least 0")
    clips, frames = np.asarray(clips, np.float64) * sample.came, np.asarray(frames, np.float64) * sample.came
    start, spread = sample.profile.start_seconds, spread_of(sample.blocks)
    seconds = clips * sample.busy_seconds_per_clip + frames * sample.wait_seconds_per_frame
    alone = np.maximum(seconds, frames * sample.decode_seconds_per_frame)
    total, longest = float(seconds.sum()), float(alone.max(initial=0.0))
    fullest, fullest_load = max(total / machines, longest), total / machines
    if shard_numbers is not None and len(seconds):
        numbers = np.asarray(shard_numbers) - 1
        loads = np.bincount(numbers, seconds, machines)
        ends = loads.copy()
        np.maximum.at(ends, numbers, alone)
        fullest, fullest_load = float(ends.max()), float(loads.max())

    def times(running: float, count: int) -> Times:
        if not len(seconds):
            return Times(0.0, 0.0, 0.0, None if price_per_hour is None else 0.0)
        whole = start + running
        cost = None if price_per_hour is None else price_per_hour * count * whole / 3600
        return Times(whole, start + running / (1 + spread), start + running * (1 + spread), cost)

    return Estimate(
        num_videos=len(seconds),
        num_clips=round(clips.sum()),
        num_frames=round(frames.sum()),
        start_seconds=start,
        clips_per_second=float(clips.sum() / total)
        if total
        else sample.profile.num_clips / sample.profile.wall_seconds,
        stages=sample.stages,
        bottleneck=sample.profile.bottleneck,
        longest_seconds=longest,
        spread=spread,
        one=times(max(total, longest), 1),
        machines=machines,
        shards=times(fullest, machines),
        queue=times(max(total / machines, longest), machines),
        imbalance=fullest_load * machines / total if total else 1.0,
        price_per_hour=price_per_hour,
        sample=sample,
    )
