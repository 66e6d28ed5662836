"""How many clips go through a GPU together: what its free memory holds, found from two small batches."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = [
    "CPU_BATCH_SIZE",
    "MAX_BATCH_SIZE",
    "batch_size_for",
    "is_out_of_memory",
    "may_be_out_of_memory",
    "peak_bytes",
]

CPU_BATCH_SIZE = 4  # a CPU gains nothing beyond a few
MAX_BATCH_SIZE = 128  # a large GPU's last layers are busy with so many
SHARE = 0.6  # of the free memory; the rest is for workspaces, frames on their way and other programs
PROBES = (2, 4)  # clips


def batch_size_for(peak_of: Callable[[int], int], free_bytes: int, most: int = MAX_BATCH_SIZE) -> int:
    """The largest batch, a multiple of 8 or below that a power of two, that SHARE of the free memory holds; at least 1.

    `peak_of` gives the bytes that a forward pass of so many clips takes at most. They are taken to grow in a straight line;
    where two small batches hardly differ, since a workspace hides the clips, by a tenth of what a clip takes there.
    """
    few, more = PROBES
    low, high = peak_of(few), peak_of(more)
    per_clip = max((high - low) / (more - few), high / more / 10, 1.0)
    fixed = max(low - few * per_clip, 0.0)
    clips = int(min((free_bytes * SHARE - fixed) / per_clip, most))
    if clips >= 8:
        return clips // 8 * 8
    return next(size for size in (4, 2, 1) if size <= max(clips, 1))


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call takes on a CUDA device, at its peak, beyond what was taken before."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory is full; libraries have words of their own for it."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text
        for words in ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
    )


def may_be_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may help: PyTorch says no more of a convolution where all of cuDNN's ways want too much memory
    than of one that cuDNN has no way for.
    """
    return is_out_of_memory(error) or (isinstance(error, RuntimeError) and "unable to find an engine" in str(error))
