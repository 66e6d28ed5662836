"""Running batches on a GPU: the choice at the first batch, batches on their way, and what to do when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod

import numpy as np
import torch
from torch import Tensor

from featx.backbones.base import Backbone
from featx.engine.batches import batch_size_for, is_out_of_memory, may_be_out_of_memory, peak_bytes
from featx.engine.cuda import Forward, Plans, cuda_seconds, settle
from featx.engine.flight import CudaStreams, Done, Flight, Handle, Mark, Streams
from featx.errors import UsageError
from featx.preprocess import Preprocess

__all__ = ["Dispatch"]


class Dispatch:
    """A backbone on a GPU. `precision` and `plan` are "auto", or what was asked for, until the first batch has come.

    `batch_size` None: what the free memory holds. A batch that does not fit later is halved, and so are all after it, which
    `on_note` is told: the last bits of features depend on the size. `compiled`: torch.compile may be tried, which can
    take a minute.

    Raises UsageError where the device computes wrongly or not even one clip fits.
    """

    def __init__(
        self,
        backbone: Backbone,
        preprocess: Preprocess,
        layers: Sequence[str],
        *,
        length: int,
        device: torch.device,
        batch_size: int | None = None,
        precision: str = "auto",
        plan: str = "auto",
        streams: Streams | None = None,
        seconds_of: Callable = cuda_seconds,
    ) -> None:
        self.device, self.precision, self.plan = device, precision, plan
        self.on_note: Callable[[str], None] = lambda note: None
        self.compiled = False
        self._backbone, self._preprocess, self._layers = backbone, preprocess, tuple(layers)
        self.clip_shape = (length, preprocess.crop, preprocess.crop, 3)
        shapes = backbone.layer_shapes((preprocess.num_channels, length, preprocess.crop, preprocess.crop), layers)
        self._dims = {layer: prod(shape) for layer, shape in shapes.items()}
        self._streams, self._seconds_of = streams or CudaStreams(device), seconds_of
        self._flight: Flight | None = None
        self._batch_size = batch_size

    @property
    def batch_size(self) -> int:
        """Clips a batch; found when it is first asked for."""
        if self._batch_size is None:
            with self._at_device():
                self._batch_size = self._size_that_fits()
        return self._batch_size

    @property
    def settled(self) -> bool:
        return self._flight is not None

    def settle(self, clips: Sequence[Tensor]) -> None:
        """Choose precision and plan by these clips, at most as many as a batch has; with none, only what was asked for."""
        while not self.settled:
            try:
                with self._at_device():
                    self._settle(clips[: self.batch_size])
            except RuntimeError as error:
                if not may_be_out_of_memory(error):
                    raise
                self._halve(error)

    def submit(self, clips: Sequence[Tensor], ready: Sequence[Mark] = ()) -> Handle | Done:
        """Begin a batch: uint8 BGR (T, crop, crop, 3), CPU tensors, or tensors on the device with the marks to wait for."""
        for mark in ready if not self.settled else ():
            mark.synchronize()
        self.settle(clips)
        if len(clips) <= self.batch_size:
            try:
                return self._flight.submit(clips, ready)
            except RuntimeError as error:
                if not may_be_out_of_memory(error):
                    raise
                self._flight.drain()
                for mark in ready:
                    mark.synchronize()
                self._flight = None
                self._halve(error)
                self.settle(clips)
        parts = [
            self.submit(clips[i : i + self.batch_size], ready).result() for i in range(0, len(clips), self.batch_size)
        ]
        return Done({layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]})

    def _at_device(self) -> AbstractContextManager:
        """Within, what names no device means this one: events and streams do."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _settle(self, clips: Sequence[Tensor]) -> None:
        plans = self._plans(self.batch_size)
        batch = torch.zeros(plans.batch_shape, dtype=torch.uint8, device=self.device)
        for place, clip in zip(batch, clips, strict=False):
            place.copy_(clip)
        forward: Forward = settle(
            plans, batch, len(clips),
            precision=self.precision, plan=self.plan, compiled=self.compiled, seconds_of=self._seconds_of,
            on_note=self.on_note,
        )  # fmt: skip
        flight = Flight(self._streams, forward, plans.batch_shape, self._dims)
        if self.device.type == "cuda":  # what was freed on one stream is given to another from now on
            torch.cuda.synchronize(self.device)
            gc.collect()  # the nets that were not taken hold themselves
            torch.cuda.empty_cache()
        self.precision, self.plan, self._flight = forward.precision, forward.plan, flight

    def _plans(self, batch_size: int) -> Plans:
        return Plans(self._backbone, self._preprocess, self._layers, (batch_size, *self.clip_shape), self.device)

    def _halve(self, error: RuntimeError) -> None:
        if self.batch_size == 1 and not is_out_of_memory(error):
            raise UsageError(
                f"cuDNN {torch.backends.cudnn.version()} finds no way to compute one clip of {self.clip_shape[0]} frames on "
                f"'{self.device}', or its memory is full; use '--device cpu', or another version"
            ) from error
        if self.batch_size == 1:
            raise UsageError(
                f"one clip of {self.clip_shape[0]} frames does not fit into the memory of '{self.device}'; take a smaller "
                "--length, or '--device cpu'"
            ) from error
        self._batch_size = self.batch_size // 2
        held: BaseException | None = error
        while held is not None:
            held.__traceback__ = None  # which holds what filled the memory
            held = held.__context__
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.on_note(
            f"the memory of '{self.device}' is full; batches are of {self.batch_size} clips from here on, which changes the "
            "last bits of features"
        )

    def _size_that_fits(self) -> int:
        """Clips a batch, from what small ones take in fp32, the widest precision."""

        def peak_of(num_clips: int) -> int:
            plans = self._plans(num_clips)
            try:
                forward = plans.make("folded", "fp32")
            except NotImplementedError:  # its operations cannot be written down one by one
                forward = plans.make("torch", "fp32")
            clips = torch.zeros(plans.batch_shape, dtype=torch.uint8, device=plans.device)
            forward(clips)  # libraries take their own memory at the first call
            return peak_bytes(lambda: forward(clips), plans.device) + clips.nbytes

        if self.device.type != "cuda":
            raise UsageError(f"batch_size must be given for '{self.device}'")
        torch.cuda.empty_cache()
        free_bytes = torch.cuda.mem_get_info(self.device)[0]
        try:
            return batch_size_for(peak_of, free_bytes)
        except RuntimeError as error:
            if not may_be_out_of_memory(error):
                raise
            return 1  # and if that is too many, the first batch will say so
