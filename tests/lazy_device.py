"""A device that does nothing until it is waited for: the worst that an asynchronous one may do, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LazyMark:
    device: LazyStreams
    lane: str
    place: int

    def synchronize(self) -> None:
        self.device.advance(self.lane, self.place)

    def query(self) -> bool:
        return self.device.num_done[self.lane] >= self.place

    def elapsed_time(self, end: LazyMark) -> float:
        assert self.query() and end.query(), "times are asked for before there are any"
        return 1000.0 * (self.device.times[end.lane, end.place] - self.device.times[self.lane, self.place])


class LazyStreams:
    """Lanes of work that is put off; each piece counts as a second of the clock. As `featx.engine.flight.Streams`."""

    def __init__(self) -> None:
        lanes = ("copy", "compute", "results")
        self.num_done = dict.fromkeys(lanes, 0)
        self.times = {(lane, 0): 0 for lane in lanes}
        self.log: list[str] = []
        self._given: dict[str, list] = {lane: [] for lane in lanes}
        self._now = 0

    def run(self, lane: str, work: Callable[[], None]) -> None:
        self._given[lane].append(work)

    def mark(self, lane: str) -> LazyMark:
        return LazyMark(self, lane, len(self._given[lane]))

    def wait(self, lane: str, mark: LazyMark) -> None:
        self._given[lane].append(mark)

    def advance(self, lane: str, place: int) -> None:
        while self.num_done[lane] < place:
            work = self._given[lane][self.num_done[lane]]
            self.num_done[lane] += 1  # also where it fails
            if isinstance(work, LazyMark):
                work.synchronize()
            else:
                work()
                self._now += 1
                self.log.append(lane)
            self.times[lane, self.num_done[lane]] = self._now

    def host_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.full(tuple(shape), 77, dtype=dtype)  # of any content

    device_memory = host_memory


class EagerStreams(LazyStreams):
    """The same device, which does everything at once."""

    def run(self, lane: str, work: Callable[[], None]) -> None:
        super().run(lane, work)
        self.advance(lane, len(self._given[lane]))
