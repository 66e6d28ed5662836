"""Memory for what the native kernels read and write: on large pages, and used again instead of given back.

A Winograd convolution writes to a hundred and more places at once. On the usual pages of 4 KB each of them costs the
processor a look into its page table, and how the pages happen to fall on the cache decides whether a layer takes 30 ms or
100; on pages of 2 MB neither matters. Fresh memory besides costs about as much as the writing of it.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

__all__ = ["memory", "padded", "recycle", "recycled_for", "result_memory", "workspace"]

LARGE_PAGE_BYTES = 2**21


def memory(num_floats: int) -> Tensor:
    """Float32 memory of any content (num_floats,), on large pages where it fills some and the system has them."""
    num_bytes = 4 * num_floats
    if num_bytes < LARGE_PAGE_BYTES // 2 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(num_floats)
    pages = mmap.mmap(-1, num_bytes + LARGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a system without them
        pass
    whole = torch.frombuffer(pages, dtype=torch.float32)  # keeps `pages` alive
    first = -whole.data_ptr() % LARGE_PAGE_BYTES // 4
    return whole[first : first + num_floats]


class _Kept(threading.local):
    """What is kept from call to call. Every thread of Python has its own, since their calls may run at the same time."""

    def __init__(self) -> None:
        self.workspace = torch.empty(0)
        self.free: dict[int, list[Tensor]] = {}  # number of floats -> memory of that size
        self.free_of: WeakKeyDictionary[object, dict[int, list[Tensor]]] = WeakKeyDictionary()
        self.padded: dict[tuple, Tensor] = {}  # the last padded input, whose zeros are still there


_kept = _Kept()


def workspace(num_floats: int) -> Tensor:
    """Memory for the passing results of one call."""
    if _kept.workspace.numel() < num_floats:
        _kept.workspace = memory(num_floats)
    return _kept.workspace


def result_memory(shape: tuple[int, ...]) -> Tensor:
    """Memory for a result (N, C, T, H, W), in memory order N, T, H, W, C: recycled where there is some of that size."""
    n, c, t, h, w = shape
    free = _kept.free.get(math.prod(shape))
    flat = free.pop() if free else memory(math.prod(shape))
    return flat.view(n, t, h, w, c).permute(0, 4, 1, 2, 3)


@contextmanager
def recycled_for(owner: object) -> Iterator[None]:
    """Keep what is recycled within the block for other blocks of the same owner, and no longer than the owner lives."""
    before, _kept.free = _kept.free, _kept.free_of.setdefault(owner, {})
    try:
        yield
    finally:
        _kept.free = before


def recycle(result: Tensor) -> None:
    """Give back the memory of a result that nobody reads any more, for the next one of its size in this thread."""
    _kept.free.setdefault(result.numel(), []).append(result.permute(0, 2, 3, 4, 1).reshape(-1))


def padded(x: Tensor, before: tuple[int, int, int], after: tuple[int, int, int]) -> Tensor:
    """(N, C, T, H, W) -> (N, T, H, W, C) with zeros around it, valid until the next call in this thread."""
    n, c, *size = x.shape
    shape = (n, *(b + side + a for b, side, a in zip(before, size, after, strict=True)), c)
    kept = _kept.padded.get((shape, before, after))
    if kept is None:
        _kept.padded.clear()
        kept = _kept.padded[shape, before, after] = memory(math.prod(shape)).zero_().view(shape)
    t, h, w = (slice(b, b + side) for b, side in zip(before, size, strict=True))
    kept[:, t, h, w] = x.permute(0, 2, 3, 4, 1)
    return kept
