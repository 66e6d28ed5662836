"""Where prepared frames wait for their clips: in the memory of the CPU, or on the device that computes.

    HostFrames    chunk of planes or of BGR  -> colours, resize, crop on the CPU -> frames -> clip: a copy of its frames
    DeviceFrames  chunk of planes or of BGR  -> device -> colours, resize, crop there -> block of frames
                                                                             -> clip: a part of a block, mostly without a copy

On a device a frame travels once, though clips overlap, and what is done is only begun: all of it goes through one CUDA stream
of the feeder's thread, beside the forward pass. A clip comes with an event; who reads it on another stream waits for that, and
tells the memory's owner (`Tensor.record_stream`). A slot of the shared memory goes back to its decoder once its copy is done,
and a block of frames goes back to the device when no frame and no clip refers to it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featx.decode_pool import Chunk
from featx.engine import native
from featx.engine.page_lock import page_lock
from featx.engine.pixels import Preparer, layouts_of
from featx.engine.resize import PlanarFrames, resize
from featx.preprocess import Preprocess
from featx.views import Views

__all__ = ["DeviceFrames", "FrameOnDevice", "HostFrames"]

ALL = slice(None)


class HostFrames:
    """Frames uint8 (crop, crop, 3), prepared on the CPU.

    `planar`: let decoders give planes, half as many bytes, where the native kernels are there to make BGR of them; else
    they give BGR. The pixels are the same.
    """

    def __init__(self, preprocess: Preprocess, views: Views | None = None, planar: bool = True) -> None:
        self._preprocess, self._views = preprocess, views or Views()
        self.planar = planar and native.kernels() is not None

    def at_work(self) -> AbstractContextManager:
        """The thread that calls the other methods does so in this context."""
        return nullcontext()

    def prepare(self, chunk: Chunk, taken: slice = ALL) -> Sequence[Tensor]:
        """The frames of a chunk, or some, resized and cropped. Raises VideoError where they are smaller than the crop."""
        frames: Tensor | PlanarFrames = torch.from_numpy(chunk.frames[taken])
        if chunk.yuv is not None:
            frames = PlanarFrames(frames, chunk.size, chunk.yuv)
        if self._views.crops > 1:  # (n, H, W, 3) -> (n, crops, crop, crop, 3)
            return self._preprocess.prepare_crops(frames, self._views.crops, resize)
        return self._preprocess.prepare_frames(frames, resize)

    def views(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """The views of the clip of these frames: uint8 (T, crop, crop, 3) each."""
        # numpy's, since torch would take threads of its own beside those of the forward pass
        clip = np.stack([frame.numpy() for frame in frames])
        return [torch.from_numpy(view) for view in self._views.of_clip(clip)]

    def mark(self) -> None:
        """What must have happened before a clip may be read: nothing."""


class FrameOnDevice(NamedTuple):
    """Row `row` of the frames that were prepared together: uint8 (n, crop, crop, 3), or (n, crops, crop, crop, 3)."""

    block: Tensor
    row: int


class DeviceFrames:
    """Frames prepared on `device`, which may be the CPU: as HostFrames, with the same pixels.

    `sparse`: clips are few and far
    between, so that each is copied, and does not keep the frames around it. One thread at a time may use it. Where the
    device's memory is full it raises what PyTorch raises, and what was asked for can be asked for again.
    """

    planar = True

    def __init__(
        self, preprocess: Preprocess, device: torch.device, views: Views | None = None, sparse: bool = False
    ) -> None:
        self._device, self._views, self._sparse = device, views or Views(), sparse
        self._layouts = lru_cache(maxsize=64)(lambda size: layouts_of(preprocess, size, self._views.crops, device))
        self._preparer = Preparer(device)
        self._stream = None
        if device.type == "cuda":  # first in line beside the forward pass's large kernels, which wait for what it makes
            self._stream = torch.cuda.Stream(device, priority=-1)
        self._event: torch.cuda.Event | None = None
        self._is_marked = True
        self._lock_note = ""

    @property
    def note(self) -> str:
        """Why frames do not come to a GPU by the fastest means, in one line; "" where they do, and on the CPU."""
        reasons = [self._preparer.note if self._stream is not None else "", self._lock_note]
        return "; ".join(reason for reason in reasons if reason)

    def at_work(self) -> AbstractContextManager:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def prepare(self, chunk: Chunk, taken: slice = ALL) -> Sequence[FrameOnDevice]:
        layouts = self._layouts(chunk.size)
        self._is_marked = False
        frames = self._copied(chunk, taken)
        blocks = [self._preparer(frames, layout, chunk.yuv) for layout in layouts]
        block = blocks[0] if self._views.crops == 1 else torch.stack(blocks, dim=1)
        return [FrameOnDevice(block, row) for row in range(len(block))]

    def views(self, frames: Sequence[FrameOnDevice]) -> list[Tensor]:
        parts = [block[rows] for block, rows in _runs(frames)]
        if len(parts) == 1 and not self._sparse:
            clip = parts[0]
        else:
            self._is_marked = False
            clip = torch.cat(parts)
        crops = clip.unbind(dim=1) if clip.ndim == 5 else [clip]  # (T, crops, crop, crop, 3) -> (T, crop, crop, 3)
        return [view for crop in crops for view in self._with_mirror(crop)]

    def _with_mirror(self, view: Tensor) -> list[Tensor]:
        if not self._views.flip:
            return [view]
        self._is_marked = False
        mirrored = view.flip(2)
        if self._views.is_flow:  # what moved to the left moves to the right
            mirrored[..., 0] = 255 - mirrored[..., 0]
        return [view, mirrored]

    def mark(self) -> torch.cuda.Event | None:
        """The event after which all clips made so far may be read; None on the CPU."""
        if self._stream is not None and not self._is_marked:
            self._event = torch.cuda.Event()
            self._event.record(self._stream)
            self._is_marked = True
        return self._event

    def _copied(self, chunk: Chunk, taken: slice) -> Tensor:
        """The chunk on the device; on the CPU, where it lies."""
        frames = torch.from_numpy(chunk.frames[taken])
        if self._stream is None:
            return frames.to(self._device)
        if self._is_locked(chunk):
            on_device = frames.to(self._device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(self._stream)
            chunk.held_until = copied.query
            return on_device
        staged = torch.empty(
            frames.shape, dtype=torch.uint8, pin_memory=True
        )  # torch keeps it until it has been copied
        return staged.copy_(frames).to(self._device, non_blocking=True)

    def _is_locked(self, chunk: Chunk) -> bool:
        """Whether the device may read the worker's memory by itself, which it is asked at the first chunk from there."""
        arena = chunk.arena
        if arena is None:
            return False
        if arena.is_locked is None:
            unlock = page_lock(arena.memory, self._device)
            arena.is_locked = unlock is not None
            if unlock is None:
                self._lock_note = "the decoders' memory cannot be page-locked, and each frame is copied once more"
            else:
                arena.before_closing += [unlock, self._finish_copies]  # the last one first
        return arena.is_locked

    def _finish_copies(self) -> None:
        try:
            self._stream.synchronize()
        except RuntimeError:  # the device has failed, as whoever waits for results is told; nothing is copied any more
            pass


def _runs(frames: Sequence[FrameOnDevice]) -> list[tuple[Tensor, slice]]:
    """The frames as parts of blocks, as few as rows at even distances allow."""
    runs: list[tuple[Tensor, slice]] = []
    start = 0
    while start < len(frames):
        block, first = frames[start]
        step, end = 1, start + 1
        if end < len(frames) and frames[end].block is block and frames[end].row > first:
            step = frames[end].row - first
        while end < len(frames) and frames[end].block is block and frames[end].row == first + step * (end - start):
            end += 1
        runs.append((block, slice(first, frames[end - 1].row + 1, step)))
        start = end
    return runs
