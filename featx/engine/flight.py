"""Batches on their way through a device: copied in, computed and copied back side by side, a bounded number at a time.

    lane "copy"       pinned memory -> device           batch 3
    lane "compute"    the network                       batch 2
    lane "results"    device -> pinned memory           batch 1

What is given to a lane is done in order, at some later time. A mark is a place in a lane: other lanes, and the program,
can wait for it. Every batch on its way has memory of its own, which is used again only once its results have been fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["CudaStreams", "Done", "Flight", "Handle", "Streams"]

DEPTH = 3  # batches on their way
LANES = ("copy", "compute", "results")


class Mark(Protocol):
    """A place in a lane; the methods are those of torch.cuda.Event."""

    def synchronize(self) -> None: ...
    def query(self) -> bool: ...
    def elapsed_time(self, end: Mark) -> float: ...  # milliseconds


class Streams(Protocol):
    """The lanes of a device, and memory on either side."""

    def run(self, lane: str, work: Callable[[], None]) -> None:
        """Do `work` in a lane, now or later."""

    def mark(self, lane: str) -> Mark:
        """The place that the lane has reached with what it was given so far."""

    def wait(self, lane: str, mark: Mark) -> None:
        """Let what the lane is given from now on wait for a mark of another."""

    def host_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor: ...
    def device_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor: ...


class CudaStreams:
    """The lanes of a GPU: a CUDA stream each. `Streams`, with CUDA events as marks."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lanes = {lane: torch.cuda.Stream(device) for lane in LANES}

    def run(self, lane: str, work: Callable[[], None]) -> None:
        with torch.cuda.device(self.device), torch.cuda.stream(self._lanes[lane]):
            work()

    def mark(self, lane: str) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # who waits for it sleeps
        event.record(self._lanes[lane])
        return event

    def wait(self, lane: str, mark: torch.cuda.Event) -> None:
        self._lanes[lane].wait_event(mark)

    def host_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)

    def device_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, device=self.device)


class Handle:
    """The results of a batch, which come later. `taken`: a mark after which the clips given may be written over."""

    def __init__(self, slot: _Slot, num_clips: int, marks: dict[str, Mark]) -> None:
        self._slot: _Slot | None = slot
        self._num_clips, self._marks = num_clips, marks
        self._values: dict[str, np.ndarray] | None = None
        self.taken = marks["taken"]
        self.copy_seconds = self.forward_seconds = 0.0  # of the device, by its own clock, once the results are there

    def done(self) -> bool:
        """Whether `result` would not wait."""
        return self._values is not None or self._marks["returned"].query()

    def result(self) -> dict[str, np.ndarray]:
        """Wait for the batch: float32 (num_clips, D) a layer, in the order of the clips given."""
        if self._values is None:
            slot, self._slot = self._slot, None  # whose memory may be given back from now on
            self._marks["returned"].synchronize()
            self._values = {layer: x[: self._num_clips].numpy().copy() for layer, x in slot.returned.items()}
            self.copy_seconds = self._marks["copy begun"].elapsed_time(self._marks["copied"]) / 1000
            self.forward_seconds = self._marks["begun"].elapsed_time(self._marks["computed"]) / 1000
            slot.handle = None
        return self._values


class Done:
    """The results of a batch that was computed at once; as a Handle."""

    taken = None

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        self._values, self.copy_seconds, self.forward_seconds = values, 0.0, 0.0

    def done(self) -> bool:
        return True

    def result(self) -> dict[str, np.ndarray]:
        return self._values


class _Slot:
    """Memory of one batch on its way."""

    def __init__(self, streams: Streams, batch_shape: Sequence[int], dims: dict[str, int]) -> None:
        self.host = streams.host_memory(batch_shape, torch.uint8)
        self.device = streams.device_memory(batch_shape, torch.uint8)
        sizes = {layer: (batch_shape[0], dim) for layer, dim in dims.items()}
        self.computed = {layer: streams.device_memory(size, torch.float32) for layer, size in sizes.items()}
        self.returned = {layer: streams.host_memory(size, torch.float32) for layer, size in sizes.items()}
        self.handle: Handle | None = None


class Flight:
    """Sends batches of at most `batch_shape`[0] clips, uint8 (T, crop, crop, 3), through `forward`, at most `depth` at a time.

    `forward` takes the whole batch on the device, filled up with zeros, and gives a tensor (N, ...) a layer; `dims` are the
    numbers of a clip in each.
    """

    def __init__(
        self,
        streams: Streams,
        forward: Callable[[Tensor], dict[str, Tensor]],
        batch_shape: Sequence[int],
        dims: dict[str, int],
        depth: int = DEPTH,
    ) -> None:
        self._streams, self._forward, self._size = streams, forward, batch_shape[0]
        self._slots = [_Slot(streams, batch_shape, dims) for _ in range(depth)]
        self._next = 0

    def submit(self, clips: Sequence[Tensor], ready: Sequence[Mark] = ()) -> Handle:
        """Begin a batch. Clips are CPU tensors, which may be changed afterwards, or tensors on the device, all of one kind.

        `ready`: marks that clips on the device are to be waited for. Where all memory is in use, the oldest batch is waited
        for; its handle keeps its results.
        """
        slot = self._slots[self._next]
        if slot.handle is not None:
            slot.handle.result()
        streams, num = self._streams, len(clips)
        marks: dict[str, Mark] = {}
        if clips[0].device.type == slot.device.device.type and clips[0].device.type != "cpu":
            for mark in dict.fromkeys(ready):  # many clips share one
                streams.wait("compute", mark)
            marks["copy begun"] = streams.mark(
                "compute"
            )  # all of a time's marks in one lane: only there they have an order
            streams.run("compute", lambda: self._gather(slot, list(clips)))
            marks["copied"] = marks["taken"] = marks["begun"] = streams.mark("compute")
        else:
            for place, clip in zip(slot.host, clips, strict=False):
                place.copy_(clip)
            marks["copy begun"] = streams.mark("copy")
            streams.run("copy", lambda: self._copy_in(slot, num))
            marks["copied"] = streams.mark("copy")
            streams.wait("compute", marks["copied"])
            marks["taken"] = marks["begun"] = streams.mark("compute")
        streams.run("compute", lambda: self._compute(slot))
        marks["computed"] = streams.mark("compute")
        streams.wait("results", marks["computed"])
        streams.run("results", lambda: self._copy_out(slot, num))
        marks["returned"] = streams.mark("results")
        slot.handle = Handle(slot, num, marks)
        self._next = (self._next + 1) % len(self._slots)
        return slot.handle

    def drain(self) -> None:
        """Wait for all batches on their way, whose handles keep their results, and for what was begun of one that failed."""
        for slot in self._slots:
            if slot.handle is not None:
                slot.handle.result()
        for lane in LANES:
            self._streams.mark(lane).synchronize()

    def _gather(self, slot: _Slot, clips: list[Tensor]) -> None:
        torch.stack(clips, out=slot.device[: len(clips)])
        slot.device[len(clips) :].zero_()
        for clip in clips:  # whose memory another stream gave: it must not be given out again before this is done
            clip.record_stream(torch.cuda.current_stream(clip.device))

    def _copy_in(self, slot: _Slot, num: int) -> None:
        slot.device[:num].copy_(slot.host[:num], non_blocking=True)
        slot.device[num:].zero_()

    def _compute(self, slot: _Slot) -> None:
        for layer, x in self._forward(slot.device).items():
            slot.computed[layer].view(x.shape).copy_(x)  # (N, ...) -> (N, D), to float32

    def _copy_out(self, slot: _Slot, num: int) -> None:
        for layer, x in slot.computed.items():
            slot.returned[layer][:num].copy_(x[:num], non_blocking=True)
