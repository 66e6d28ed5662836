"""A dry run that measures: a few videos are extracted into a temporary place, and the rest is reckoned from them.

measured      seconds to start, and of every stage, of the sample; the clips that came of those that its headers promised
from headers  frames and clips of the videos; of more than MAX_HEADERS videos only of so many, evenly over their sizes in
              bytes, each of which stands for those of about its size
reckoned      everything else, by `featx.estimate`
"""

from __future__ import annotations

import bisect
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from featx import resume, store
from featx.devices import worker_devices
from featx.dry_run import Counted, DryRun, count_items, file_sizes, only_counting
from featx.errors import UsageError
from featx.estimate import MAX_BLOCKS, Estimate, Sample, reckon, require_machines
from featx.extractor import Extractor
from featx.features import Failure
from featx.part_writer import PartWriter
from featx.parts import Parts
from featx.plan import VideoItem, of_shard, plan_videos
from featx.profile import Profile, Stopwatch
from featx.shards import parse_shard, shard_number
from featx.workers import ExtractorPool, open_extractor

__all__ = ["drawn", "estimate_run", "measure", "stands_for"]

MAX_HEADERS = 10_000
SAMPLE_VIDEOS = 500  # at most, and
SAMPLE_SECONDS = 20.0  # no video is begun later than that, where the number is not given
LEAST_VIDEOS = 4  # begun in any case
LONG_SHARE = 0.25  # of SAMPLE_SECONDS: no longer video is drawn where there are shorter ones
GOLDEN = 0.6180339887498949


def estimate_run(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    c3d_lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    segments: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    allow_urls: bool = False,
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    refresh: bool = False,
    content_hash: bool = False,
    shard: str | None = None,
    count: bool = False,
    machines: int = 1,
    price_per_hour: float | None = None,
    sample: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    **options: object,
) -> tuple[DryRun, Estimate | None]:
    """What `extract_to` with the same arguments would make, and what it would take; None where none is left to be done.

    The estimate is of the videos that `output` does not hold, the DryRun of all. `machines`: of how many there is to be a
    figure besides; `price_per_hour` of one. `sample`: videos to extract; without, about SAMPLE_SECONDS of them. Nothing is
    written but into a temporary folder. Raises what `extract_to` raises, and UsageError where no video can be sampled.
    """
    if sample is not None and sample < 1:
        raise UsageError(f"sample is {sample}, but must be at least 1 video")
    require_machines(machines)
    if machines > 1 and shard is not None:
        raise UsageError(
            f"{machines} machines and shard {shard} are given, but a shard is the part of one machine; leave one of the two out"
        )
    began = time.monotonic()
    planned = plan_videos(inputs, lists, keys_from, c3d_lists, allow_urls, segments)
    own = parse_shard(shard) if shard is not None else None
    items = of_shard(planned, own)
    options["listed_clips"] = planned[0].listed_starts is not None
    before, todo = (None, items) if output is None or overwrite else _left(
        Path(output), items, options.get("on_corrupt", "fail"), retry_failed, refresh, content_hash, on_note
    )  # fmt: skip
    if before is not None:
        resume.require_own(before, Path(output))
        resume.keep_plan(before, options)
    listing_seconds = time.monotonic() - began
    with only_counting(backbone, options) as counting:
        if before is not None:  # told before anything is measured, and also where nothing is left
            now = replace(counting.provenance, precision=before.precision)
            before.require_agreement(now, f"in {output}", "in this run", "Use the same settings, or another output.")
        found = _counted(items, counting, count, on_note)
        told = DryRun.of(items, found, file_sizes(counting), count, content_hash)
    if output is not None:
        told.free_bytes = max(store.free_bytes(Path(output).absolute().parent) - store.SPARE_BYTES, 0)
    found_of = dict(zip((item.key for item in items), found, strict=True))
    left = [(item, found_of[item.key]) for item in todo if found_of[item.key].num_clips]
    if not left:
        return told, None
    began = time.monotonic()
    with open_extractor(backbone, **options) as extractor, tempfile.TemporaryDirectory(prefix="featx-") as folder:
        extractor.prepare([item for item, _ in left], on_note)
        if before is not None:
            asked = replace(extractor.provenance, shard=str(own or ""), batch_size=options["batch_size"])
            resume.require_continuation(before, asked, Path(output), on_note)
        opening_seconds = time.monotonic() - began + listing_seconds
        num_workers = len(worker_devices(str(options.get("device", "auto"))))
        measured = measure(extractor, left, Path(folder), num_workers, opening_seconds, sample, on_note)
    estimate = reckon(
        measured,
        [each.num_clips for _, each in left],
        [each.num_frames for _, each in left],
        machines=machines,
        shard_numbers=[shard_number(item.video_key, machines) for item, _ in left],
        price_per_hour=price_per_hour,
    )
    told.num_bytes += round((measured.came - 1) * told.num_clips * told.clip_bytes)
    return told, estimate


def _left(
    output: Path,
    items: list[VideoItem],
    on_corrupt: str,
    retry_failed: bool,
    refresh: bool,
    content_hash: bool,
    on_note: Callable[[str], None],
) -> tuple[object, list[VideoItem]]:
    """How the output was made, None without one, and the videos that it does not hold; it is only read."""
    if not (output.exists() or any(store.parts_folder(output).glob("part-*.h5"))):
        return None, items
    with store.open_features(output) as done:
        if len(done) == 0:  # of failed videos only, which bind no settings
            return None, items
        flags = {"retry_failed": retry_failed, "refresh": refresh, "compare_hashes": content_hash}
        todo = resume.missing(done, items, on_corrupt=on_corrupt, on_note=on_note, **flags)
        on_note(f"{output} holds {todo.num_present} of {len(items)} videos; what is left is estimated")
        return done.provenance, todo.items


# ------------------------------------------------------------------------------------------------------------ what headers tell


def _counted(items: list[VideoItem], counting: Extractor, count: bool, on_note: Callable[[str], None]) -> list[Counted]:
    """Frames and clips of every video: told by its own header, by that of another of its size, or counted."""
    if count or len(items) <= MAX_HEADERS:
        return count_items(items, counting, count)
    sizes = [_size_bytes(item) for item in items]
    readers = stands_for(sizes, MAX_HEADERS)
    read = sorted(set(readers))
    on_note(
        f"the headers of {len(read):,} of {len(items):,} videos are read; each stands for those of about its size in bytes"
    )
    found = dict(zip(read, count_items([items[i] for i in read], counting, count), strict=True))
    return [found[i] if i == place else replace(found[i], reason="") for place, i in enumerate(readers)]


def stands_for(sizes: Sequence[int], num_read: int) -> list[int]:
    """For each place in `sizes` the place that stands for it: of `num_read`, evenly over the order of sizes, the nearest."""
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    chosen = [int((i + 0.5) * len(order) / num_read) for i in range(num_read)]  # ranks
    nearest = [0] * len(order)
    for rank, place in enumerate(order):
        right = min(bisect.bisect_left(chosen, rank), num_read - 1)
        left = max(right - 1, 0)
        nearest[place] = order[min(chosen[left], chosen[right], key=lambda each: abs(each - rank))]
    return nearest


def _size_bytes(item: VideoItem) -> int:
    try:
        return os.stat(item.path).st_size
    except OSError:
        return 0


# ---------------------------------------------------------------------------------------------------------------- the sample


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

    First the shortest, for every worker once, so that decoders and memory are there; what that took beyond what it takes
    afterwards counts for the start, with `opening_seconds`. `num_videos`: how many are then measured; without, as many as are
    begun within SAMPLE_SECONDS.
    """
    local = [(item, each) for item, each in videos if not item.url]
    if not local:
        raise UsageError(
            "no video can be sampled, since all are addresses, and nothing is fetched to estimate; name files"
        )
    shortest, its = min(local, key=lambda video: (video[1].num_clips, video[0].key))
    began = clock()
    list(extractor.extract_many(replace(shortest, key=f"{shortest.key}/{i}") for i in range(num_workers)))
    first_seconds = clock() - began
    if num_videos is None:
        most = max(its.num_clips, LONG_SHARE * SAMPLE_SECONDS * num_workers * its.num_clips / first_seconds)
        drawable = [video for video in local if video[1].num_clips <= most]
        if len(drawable) < len(local):
            on_note(
                f"{len(local) - len(drawable)} of {len(local)} videos would take longer than "
                f"{LONG_SHARE * SAMPLE_SECONDS:.0f} s each, and are not sampled; --sample N draws from all"
            )
    else:
        drawable = local
    sizes = [_size_bytes(item) for item, _ in drawable]
    chosen = [drawable[i] for _, i in zip(range(num_videos or SAMPLE_VIDEOS), drawn(sizes), strict=False)]
    begun: list[tuple[VideoItem, Counted]] = []
    before, began = extractor.stopwatch.all_seconds(), clock()

    def some() -> Iterator[VideoItem]:
        for video in chosen:
            if num_videos is None and len(begun) >= LEAST_VIDEOS and clock() - began > SAMPLE_SECONDS:
                return
            begun.append(video)
            yield video[0]

    marks, num_frames, num_failed = _extract(extractor, some(), folder, began, clock)
    wall_seconds, num_clips = clock() - began, marks[-1].num_clips
    watch = Stopwatch()
    for stage, seconds in extractor.stopwatch.all_seconds().items():
        watch.add(stage, seconds - before.get(stage, 0.0))
    late_start = first_seconds - wall_seconds * num_workers * its.num_clips / max(num_clips, 1)
    profile = Profile.of(
        *(watch, opening_seconds + max(late_start, 0.0), wall_seconds),
        num_decoders=extractor.num_decoders, num_frames=num_frames, num_clips=num_clips,
        beside=extractor.engine.is_beside,
    )  # fmt: skip
    told_clips = sum(each.num_clips for _, each in begun)
    return Sample(len(begun), num_failed, told_clips, profile, _blocks(marks, wall_seconds))


def _extract(
    extractor: Extractor | ExtractorPool,
    items: Iterator[VideoItem],
    folder: Path,
    began: float,
    clock: Callable[[], float],
) -> tuple[list[_Mark], int, int]:
    """As a run does it, with parts and their writing: marks, frames, failures."""
    marks, num_frames, num_clips, num_failed = [], 0, 0, 0
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
        with extractor.stopwatch.time("write"):
            writer.finish(provenance)
    return marks, num_frames, num_failed


def _blocks(marks: list[_Mark], wall_seconds: float) -> tuple[tuple[float, int], ...]:
    """The sample in stretches of about as many clips, at most MAX_BLOCKS: (seconds, clips) of each."""
    num_blocks = min(MAX_BLOCKS, len(marks))
    ends = [*(len(marks) * (i + 1) // num_blocks - 1 for i in range(num_blocks - 1)), len(marks) - 1]
    cuts = [_Mark(0.0, 0), *(marks[i] for i in ends[:-1]), _Mark(wall_seconds, marks[-1].num_clips)]
    blocks = ((b.seconds - a.seconds, b.num_clips - a.num_clips) for a, b in pairwise(cuts))
    return tuple(block for block in blocks if block[1])
