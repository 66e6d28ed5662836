"""In which order several workers get videos: the largest first, so that the last ones to be finished are small."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featx.plan import VideoItem

__all__ = ["largest_first"]

NUM_THREADS = 16  # a disk of the network answers many questions at a time
AT_ONCE = 4096


def largest_first(items: Sequence[VideoItem]) -> list[VideoItem]:
    """The same videos by the size of their files, those of one size, and parts of one video, in their order.

    A folder of images counts by its images; what cannot be looked at, and what is still to be fetched, comes last.
    """
    sizes: list[int] = []
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for start in range(0, len(items), AT_ONCE):  # a question that waits takes a thousand bytes and more
            sizes += threads.map(_num_bytes, items[start : start + AT_ONCE])
    order = sorted(range(len(items)), key=lambda i: -sizes[i])
    return [items[i] for i in order]


def _num_bytes(item: VideoItem) -> int:
    if item.url:
        return 0
    try:
        status = os.stat(item.path)
        return _of_folder(item.path) if stat.S_ISDIR(status.st_mode) else status.st_size
    except OSError:
        return 0


def _of_folder(folder: Path) -> int:
    """About as many bytes as its images have: those of the first, as often as there are entries."""
    with os.scandir(folder) as scan:
        entries = list(scan)
    return entries[0].stat().st_size * len(entries) if entries else 0
