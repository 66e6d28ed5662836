"""Where the time of a run goes: seconds a stage, from threads and processes that work side by side.

decode workers    one thread    the caller's thread, whose parts add up to the whole    a GPU
input, decode     resize        wait (for clips), forward, write, other                 -
                                wait, launch, results, write, other                     copy, forward
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Profile", "Stopwatch"]

STAGES = ("decode", "decode_processor", "resize", "wait", "forward", "write")  # in the order of Profile's fields

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the seconds of stages. One stage is timed by one thread; different threads may time different ones."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def seconds(self, stage: str) -> float:
        """So far."""
        return self._seconds.get(stage, 0.0)

    def all_seconds(self) -> dict[str, float]:
        """So far, of every stage that was timed."""
        return dict(self._seconds)

    def add(self, stage: str, seconds: float) -> None:
        """Add what was timed elsewhere."""
        self._seconds[stage] = self.seconds(stage) + seconds

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time the ``with`` block, however it is left."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def time_each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with the time that each takes to come."""
        iterator, end = iter(items), object()
        while True:
            with self.time(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item


@dataclass(frozen=True)
class Profile:
    """Where the time of a run went, in seconds.

    `start_seconds` passed before the first video: listing, loading, checking the engine; `wall_seconds` since. Of these the
    forward pass's thread spent `wait_seconds` waiting for clips, `forward_seconds` computing, `write_seconds` writing, and
    the rest, `other_seconds`, adding up features and the like. Beside it, `num_decoders` processes together had videos in hand,
    and room for their frames, for `decode_seconds`, of which they were on a processor for `decode_processor_seconds`; for
    `input_seconds`, on the mean of them, there was no video yet that they could begin; and a thread took `resize_seconds` to
    resize and to put clips together.

    With a GPU (`beside`) the thread spent `launch_seconds` giving it batches and `results_seconds` waiting for what comes
    back, and `copy_seconds` and `forward_seconds` are the GPU's, by its own clock, beside the thread and beside each other.
    """

    start_seconds: float
    wall_seconds: float
    decode_seconds: float
    decode_processor_seconds: float
    resize_seconds: float
    wait_seconds: float
    forward_seconds: float
    write_seconds: float
    num_decoders: int
    num_frames: int
    num_clips: int
    launch_seconds: float = 0.0
    results_seconds: float = 0.0
    copy_seconds: float = 0.0
    beside: bool = False
    input_seconds: float = 0.0

    @property
    def other_seconds(self) -> float:
        """What the forward pass's thread did besides."""
        parts = [self.wait_seconds, self.write_seconds, self.launch_seconds, self.results_seconds]
        return max(0.0, self.wall_seconds - sum(parts) - (0.0 if self.beside else self.forward_seconds))

    @property
    def bottleneck(self) -> str:
        """What to make faster first: "input", "decode", "resize", "copy", "forward", "launch", "write" or "other".

        "input": the decoders themselves wait, for videos that are fetched.
        """
        names = ("launch", "results") if self.beside else ("forward",)
        parts = {name: getattr(self, f"{name}_seconds") for name in (*names, "wait", "write", "other")}
        longest = max(parts, key=parts.__getitem__)
        if longest == "results":
            return "forward" if self.forward_seconds >= self.copy_seconds else "copy"
        if longest != "wait":
            return longest
        if self.input_seconds >= self.wait_seconds / 2:
            return "input"
        is_busy = self.resize_seconds >= self.wait_seconds / 2  # else it waits for frames most of the time
        return (
            "resize" if is_busy and self.resize_seconds > self.decode_seconds / max(self.num_decoders, 1) else "decode"
        )

    @classmethod
    def of(
        cls,
        stopwatch: Stopwatch,
        start_seconds: float,
        wall_seconds: float,
        *,
        num_decoders: int,
        num_frames: int,
        num_clips: int,
        beside: bool = False,
    ) -> Profile:
        """What a stopwatch has of a run's stages; its "start" went by after the first video had begun, and counts before."""
        late = min(stopwatch.seconds("start"), wall_seconds)
        start_seconds, wall_seconds = start_seconds + late, wall_seconds - late
        stages = (stopwatch.seconds(name) for name in STAGES)
        on_gpu = (stopwatch.seconds(name) for name in ("launch", "results", "copy"))
        begun = (start_seconds, wall_seconds, *stages, num_decoders, num_frames, num_clips, *on_gpu, beside)
        return cls(*begun, input_seconds=stopwatch.seconds("input"))

    def lines(self) -> list[str]:
        """For people: a line a stage, the rates, and the bottleneck."""
        notes = {
            "input": "no video to begin, on the mean of the processes that decode",
            "decode": f"{self.num_decoders} process{'es' * (self.num_decoders != 1)} beside, each so much of the time; "
            f"{self.decode_processor_seconds:.2f} s on processors",
            "resize": "a thread beside: resize, crop, clips",
            "wait": "the forward pass waits for clips",
            "forward": "the network",
            "write": "the forward pass waits for the disk; at the end, the output",
            "other": "sums, means and the rest",
        }
        if self.beside:
            notes |= {
                "wait": "the thread that feeds the GPU waits for clips",
                "launch": "it puts batches together and starts them",
                "results": "it waits for the GPU",
                "copy": "the GPU beside: batches come in",
                "forward": "the GPU beside: the network",
            }
        lines = [f"where {self.wall_seconds:.2f} s went, after {self.start_seconds:.2f} s to start:"]
        wall = self.wall_seconds or 1.0
        for name, note in notes.items():
            seconds = getattr(self, f"{name}_seconds")
            share = seconds / wall / (max(self.num_decoders, 1) if name == "decode" else 1)
            lines.append(f"  {name:<8}{seconds:9.2f} s {share:6.1%}   {note}")
        rates = f"{self.num_frames / wall:,.0f} frames/s, {self.num_clips / wall:,.1f} clips/s"
        return [*lines, f"{rates}; the bottleneck is {self.bottleneck}"]
