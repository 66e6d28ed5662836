"""The first clips of a run, which come before it: by them a GPU's engine chooses its precision and its plan."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import torch

from featx.errors import FeatxError
from featx.feeder import ClipReady, Feeder, MemoryFull
from featx.fetch_ahead import FetchAhead, Fetched
from featx.plan import VideoItem
from featx.scratch import scratch_folder

__all__ = ["first_clips"]

PROBED_VIDEOS = 64  # at most
PROBED_ADDRESSES, PROBED_BYTES = 4, 256 * 2**20  # the same, where all have to be fetched, and their files together
PROBED_SECONDS = 20.0  # for which these are waited for
SMALL_BYTES = 2 * 2**20

Feed = Callable[[Iterable[VideoItem]], Feeder]


def first_clips(
    items: Sequence[VideoItem], feed: Feed, wanted: int, on_note: Callable[[str], None]
) -> list[torch.Tensor]:
    """At most `wanted` clips of the first videos, uint8 BGR (T, crop, crop, 3), fewer or none where they give no more.

    `feed` makes the Feeder of some of the videos. Files are taken where there are any; else the first addresses are fetched
    for it, and `on_note` is told where they do not come: the run fetches them again, and says what is wrong with them.
    """
    if files := [item for item in items if not item.url][:PROBED_VIDEOS]:
        return _clips_of(files, feed, wanted, read_on=all(_is_small(item.path) for item in files))
    return _fetched_clips(items[:PROBED_ADDRESSES], feed, wanted, on_note) if items else []


def _clips_of(items: Iterable[VideoItem], feed: Feed, wanted: int, read_on: bool) -> list[torch.Tensor]:
    """`read_on`: wait for the end of the videos begun, and so keep the decode workers."""
    clips: list[torch.Tensor] = []
    with feed(takewhile(lambda item: len(clips) < wanted, items)) as feeder:
        for event in feeder.events():
            if isinstance(event, MemoryFull):  # these few will do
                event.freed.set()
                break
            if isinstance(event, ClipReady) and len(clips) < wanted:
                clips.append(event.frames)
            if len(clips) == wanted and not read_on:
                break
    return clips


def _fetched_clips(
    items: Sequence[VideoItem], feed: Feed, wanted: int, on_note: Callable[[str], None]
) -> list[torch.Tensor]:
    """What is not there in time is done without."""
    until = time.monotonic() + PROBED_SECONDS
    try:
        with scratch_folder(tempfile.gettempdir()) as folder:
            ahead = FetchAhead(folder, PROBED_BYTES, stopped=lambda: time.monotonic() > until)
            try:
                fetched = (each.item for each in ahead.fetched(items) if isinstance(each, Fetched))
                clips = _clips_of(fetched, feed, wanted, read_on=False)
            finally:
                ahead.close()
    except FeatxError as error:
        on_note(f"of the first addresses no clip could be had: {error}")
        return []
    if time.monotonic() > until and len(clips) < wanted:
        on_note(
            f"the first addresses are slow: after {PROBED_SECONDS:g} s the choice is made by {len(clips)} clips of theirs"
        )
    return clips


def _is_small(path: Path) -> bool:
    """Whether a video is decoded to its end sooner than a worker starts."""
    return os.path.isfile(path) and os.path.getsize(path) <= SMALL_BYTES
