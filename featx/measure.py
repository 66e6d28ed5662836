"""A sample of the videos of a run: which ones, and what it takes to extract them, measured."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from featx.dry_run import Counted, size_bytes
from featx.errors import UsageError
from featx.estimate import MAX_BLOCKS, Sample
from featx.extractor import Extractor
from featx.features import Failure
from featx.part_writer import PartWriter
from featx.parts import Parts
from featx.plan import VideoItem
from featx.profile import Profile, Stopwatch
from featx.workers import ExtractorPool

__all__ = ["drawn", "measure"]

SAMPLE_VIDEOS = 500  # at most, and
SAMPLE_SECONDS = 20.0  # no video is begun later than that, where the number is not given
LEAST_VIDEOS = 4  # begun in any case
LONG_SECONDS = 30.0  # no video that takes longer is drawn then, where there are shorter ones
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class _Mark:
    """When a video of the sample was finished, and the clips of all that were."""

    seconds: float
    num_clips: int


def drawn(sizes: Sequence[int]) -> Iterator[int]:
    """All places in `sizes`, each once, so that the first few of them lie evenly over the order of sizes, for any few.

    Steps of the golden section: the same places every time.
    """
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    left = list(range(len(order)))  # ranks not yet drawn, in order
    at = 0.5
    while left:
        wanted = int(at * len(order))
        near = min(bisect.bisect_left(left, wanted), len(left) - 1)
        yield order[left.pop(near)]
        at = (at + GOLDEN) % 1


def measure(
    extractor: Extractor | ExtractorPool,
    videos: Sequence[tuple[VideoItem, Counted]],
    folder: Path,
    num_workers: int,
    opening_seconds: float,
    num_videos: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Extract some of `videos` into a file below `folder`, and tell how long it took.

    First the shortest, twice for every worker, so that decoders and memory are there; what it took the first time beyond the
    second counts for the start, with `opening_seconds`, and so does the last write. `num_videos`: how many are then
    measured; without, as many as are begun within SAMPLE_SECONDS. Raises UsageError where all videos are addresses, and where
    no clip comes.
    """
    local = [(item, each) for item, each in videos if not item.url]
    if not local:
        raise UsageError(
            "no video can be sampled, since all are addresses, and nothing is fetched to estimate; name files"
        )
    shortest = min(local, key=lambda video: (video[1].num_clips, video[0].key))
    cold_seconds, warm_seconds = _warm_up(extractor, shortest[0], num_workers, clock)
    drawable = local
    if num_videos is None:
        computed = num_workers * max(shortest[1].num_clips, extractor.engine.batch_size)  # a batch is always whole
        most = max(shortest[1].num_clips, LONG_SECONDS * computed / max(warm_seconds, 1e-6))
        drawable = [video for video in local if video[1].num_clips <= most]
        if len(drawable) < len(local):
            on_note(
                f"{len(local) - len(drawable)} of {len(local)} videos would take longer than {LONG_SECONDS:.0f} s each, and "
                "are not sampled; --sample N draws from all"
            )
    sizes = [size_bytes(item) for item, _ in drawable]
    chosen = [drawable[i] for _, i in zip(range(num_videos or SAMPLE_VIDEOS), drawn(sizes), strict=False)]
    begun: list[tuple[VideoItem, Counted]] = []
    began = clock()

    def some() -> Iterator[VideoItem]:
        for video in chosen:
            if num_videos is None and len(begun) >= LEAST_VIDEOS and clock() - began > SAMPLE_SECONDS:
                return
            begun.append(video)
            yield video[0]

    marks, num_frames, num_failed, took, ending_seconds = _extract(extractor, some(), folder, clock)
    num_clips, watch = marks[-1].num_clips, Stopwatch()
    for stage, seconds in took.items():
        watch.add(stage, seconds)
    profile = Profile.of(
        *(watch, opening_seconds + max(cold_seconds - warm_seconds, 0.0) + ending_seconds, marks[-1].seconds),
        num_decoders=extractor.num_decoders, num_frames=num_frames, num_clips=num_clips,
        beside=extractor.engine.is_beside,
    )  # fmt: skip
    told_clips = sum(each.num_clips for _, each in begun)
    return Sample(len(begun), num_failed, told_clips, profile, _blocks(marks))


def _warm_up(
    extractor: Extractor | ExtractorPool, item: VideoItem, num_workers: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds that a video takes, once for every worker, the first time and the second; the same where it is a long one."""
    took: list[float] = []
    while len(took) < 2:
        began = clock()
        list(extractor.extract_many(replace(item, key=f"{item.key}/{i}") for i in range(num_workers)))
        took.append(clock() - began)
        if took[0] >= SAMPLE_SECONDS:
            return took[0], took[0]
    return took[0], took[1]


def _extract(
    extractor: Extractor | ExtractorPool, items: Iterator[VideoItem], folder: Path, clock: Callable[[], float]
) -> tuple[list[_Mark], int, int, dict[str, float], float]:
    """As a run does it, with parts: marks, frames, failures, seconds a stage, and the seconds of the last write, which a run
    has once."""
    marks, num_frames, num_clips, num_failed = [], 0, 0, 0
    before, began = extractor.stopwatch.all_seconds(), clock()
    with Parts(folder / "sample.h5") as parts:
        writer, provenance = PartWriter(parts), extractor.provenance
        for result in extractor.extract_many(items):
            with extractor.stopwatch.time("write"):
                writer.add(result, provenance)
            if isinstance(result, Failure):
                num_failed += 1
            else:
                num_frames, num_clips = num_frames + result.num_frames, num_clips + result.num_clips
            marks.append(_Mark(clock() - began, num_clips))
        marks.append(_Mark(clock() - began, num_clips))
        took = {name: seconds - before.get(name, 0.0) for name, seconds in extractor.stopwatch.all_seconds().items()}
        writer.finish(provenance)
    return marks, num_frames, num_failed, took, clock() - began - marks[-1].seconds


def _blocks(marks: list[_Mark]) -> tuple[tuple[float, int], ...]:
    """The sample in at most MAX_BLOCKS stretches of about as many videos, (seconds, clips) each; the last mark is the end."""
    *marks, end = marks
    num_blocks = min(MAX_BLOCKS, len(marks))
    ends = [len(marks) * (i + 1) // num_blocks - 1 for i in range(num_blocks - 1)]
    cuts = [_Mark(0.0, 0), *(marks[i] for i in ends), end]
    blocks = ((b.seconds - a.seconds, b.num_clips - a.num_clips) for a, b in pairwise(cuts))
    return tuple(block for block in blocks if block[1])
