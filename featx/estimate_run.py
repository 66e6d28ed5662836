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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from featx import resume, store
from featx.devices import worker_devices
from featx.dry_run import Counted, DryRun, count_items, file_sizes, only_counting, size_bytes
from featx.errors import UsageError
from featx.estimate import Estimate, reckon, require_machines
from featx.extractor import Extractor
from featx.measure import measure
from featx.plan import VideoItem, of_shard, plan_videos
from featx.reachable import hindrance
from featx.remote import is_address
from featx.shards import parse_shard, shard_number
from featx.workers import open_extractor

__all__ = ["estimate_run", "stands_for"]

MAX_HEADERS = 10_000


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
    figure besides; `price_per_hour` of one. `sample`: videos to extract; without, about `featx.measure.SAMPLE_SECONDS` of
    them. Nothing is written but into a temporary folder. Raises what `extract_to` raises, and UsageError where no video can
    be sampled.
    """
    if sample is not None and sample < 1:
        raise UsageError(f"sample is {sample}, but must be at least 1 video")
    require_machines(machines)
    if options.get("ray") is not None:
        raise UsageError(
            f"ray is {options['ray']}, but an estimate measures the machine it runs on; leave ray out, and give the number "
            "of machines"
        )
    if machines > 1 and shard is not None:
        raise UsageError(
            f"{machines} machines and shard {shard} are given, but a shard is the part of one machine; leave one of the two out"
        )
    if output is not None and is_address(output):
        on_note(f"what {output} may hold is not looked at; all videos are estimated")
    began = time.monotonic()
    planned = plan_videos(inputs, lists, keys_from, c3d_lists, allow_urls, segments)
    own = parse_shard(shard) if shard is not None else None
    items = of_shard(planned, own)
    options["listed_clips"] = planned[0].listed_starts is not None
    before, todo = (None, items) if output is None or overwrite or is_address(output) else _left(
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
    if output is not None and not is_address(output):
        told.free_bytes = max(store.free_bytes(Path(output).absolute().parent) - store.SPARE_BYTES, 0)
    found_of = dict(zip((item.key for item in items), found, strict=True))
    if todo and all(item.url for item in todo):
        raise UsageError(
            f"all videos that are left are addresses, such as {todo[0].path_text}, and nothing is fetched to estimate; name "
            "files, a few of the videos"
        )
    left = [(item, found_of[item.key]) for item in todo if found_of[item.key].num_clips and not item.url]
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
    if why := hindrance(output):
        raise UsageError(f"cannot write {output}: {why}; choose another place for -o")
    if not (os.path.exists(output) or store.parts_of(output)):
        return None, items
    with store.open_features(output, warn=False) as done:
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
    sizes = [size_bytes(item) for item in items]
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
