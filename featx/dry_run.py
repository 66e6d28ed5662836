"""What a run would make, told before it: frames and clips, from the headers of videos or counted, and bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featx import store
from featx.clips import count_clips, plan_clips
from featx.devices import worker_devices
from featx.engine import check_engine, choose_device
from featx.errors import VideoError
from featx.extractor import Extractor
from featx.features import Failure
from featx.feeder import check_item
from featx.plan import VideoItem, listed_start_frames, of_shard, plan_videos
from featx.remote import is_address
from featx.shards import parse_shard
from featx.store.sizes import FileSizes, row_bytes
from featx.video import read_header
from featx.workers import ExtractorPool

__all__ = ["Counted", "DryRun", "count_items", "dry_run", "file_sizes", "only_counting", "size_bytes", "videos_bytes"]

SHA256_TEXT = "0" * 64


@dataclass
class DryRun:
    """What a run would make. From the headers alone it is an estimate; `counted` says that every video was decoded.

    `num_bytes`: of the feature file, with the rows of videos that would fail, right to within `featx.store.sizes.TOLERANCE`
    where the clips are; of it `clip_bytes` a clip. `free_bytes`: what the output's disk has room for, None where no output was
    named. `videos` holds (key, num_frames, num_clips). `num_addresses`: videos of addresses, which are in none of the sums,
    since nothing is fetched to tell.
    """

    counted: bool
    num_videos: int = 0
    num_frames: int = 0
    num_clips: int = 0
    num_bytes: int = 0
    clip_bytes: int = 0
    free_bytes: int | None = None
    videos: list[tuple[str, int, int]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    num_addresses: int = 0

    @classmethod
    def of(
        cls,
        items: Sequence[VideoItem],
        found: Sequence[Counted],
        sizes: FileSizes,
        counted: bool = False,
        hashes: bool = False,
    ) -> DryRun:
        """The sum over `items`, of each of which `found` tells; `hashes`: the run would store one of every video."""
        total = cls(counted, num_bytes=sizes.fixed_bytes, clip_bytes=sizes.clip_bytes)
        for item, each in zip(items, found, strict=True):
            if item.url:
                total.num_addresses += 1
            elif each.reason:
                failure = Failure(item.key, item.path_text, each.reason)
                total.failures.append(failure)
                total.num_bytes += row_bytes("failures", (failure.key, failure.path, failure.reason))
            elif each.num_clips:
                total.videos.append((item.key, each.num_frames, each.num_clips))
                total.num_frames += each.num_frames
                total.num_clips += each.num_clips
                total.num_bytes += videos_bytes([item], sizes, hashes) + each.num_clips * sizes.clip_bytes
        total.num_videos = len(total.videos)
        return total


@dataclass(frozen=True)
class Counted:
    """Frames and clips of one video, or the reason why it would fail."""

    num_frames: int
    num_clips: int
    reason: str = ""


def dry_run(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    c3d_lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    segments: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    allow_urls: bool = False,
    output: str | os.PathLike | None = None,
    shard: str | None = None,
    content_hash: bool = False,
    count: bool = False,
    on_video: Callable[[], None] = lambda: None,
    **options: object,
) -> DryRun:
    """Frames, clips and bytes that `extract_to` with the same arguments would give; writes nothing.

    With `count` every video is decoded, else the headers are believed.
    """
    planned = plan_videos(inputs, lists, keys_from, c3d_lists, allow_urls, segments)
    items = of_shard(planned, parse_shard(shard) if shard is not None else None)
    options["listed_clips"] = planned[0].listed_starts is not None
    with only_counting(backbone, options) as extractor:
        found = count_items(items, extractor, count, on_video)
        result = DryRun.of(items, found, file_sizes(extractor), count, content_hash)
    if output is not None and not is_address(output):
        result.free_bytes = max(store.free_bytes(Path(output).absolute().parent) - store.SPARE_BYTES, 0)
    return result


def only_counting(backbone: str, options: dict[str, object]) -> Extractor:
    """An Extractor of which only the counts are asked: what computes is not made ready, but what a run refuses is refused."""
    options = dict(options)
    of_ray = [options.pop(name, None) for name in ("ray", "ray_workers", "ray_cpus", "ray_gpus")]
    if of_ray[0] is not None:
        options |= {"device": "cpu", "engine": "auto", "precision": "auto"}  # other machines' are not asked
    device = worker_devices(str(options.get("device", "auto")))[0]
    check_engine(options.get("engine", "auto"), options.get("precision", "auto"), choose_device(device))
    return Extractor(backbone, **{**options, "device": device, "engine": "torch", "precision": "auto"})


def file_sizes(extractor: Extractor | ExtractorPool) -> FileSizes:
    """What a file of this extractor's features takes."""
    with_table = extractor.save != "descriptors" or extractor.sampling.listed or extractor.aggregation.clip_times
    dims = extractor.num_dims.values()
    return FileSizes(
        sum(dims), len(dims), extractor.save, extractor.dtype.name, extractor.aggregation.num_bins, with_table
    )


def videos_bytes(items: Sequence[VideoItem], sizes: FileSizes, hashes: bool = False) -> int:
    """What videos take in a file, their clips left out."""
    hash_text = SHA256_TEXT if hashes else ""
    texts = sum(row_bytes("videos", (item.key, item.path_text, item.label, hash_text)) for item in items)
    return texts + len(items) * sizes.video_bytes


def size_bytes(item: VideoItem) -> int:
    """Of a video's file; 0 where there is none."""
    try:
        return os.stat(item.path).st_size
    except OSError:
        return 0


def count_items(
    items: Sequence[VideoItem],
    extractor: Extractor | ExtractorPool,
    count: bool,
    on_video: Callable[[], None] = lambda: None,
    decode: bool = True,
) -> list[Counted]:
    """Frames and clips of each video, by its header; by decoding it with `count`, or, unless not to `decode`, where the header
    tells nothing."""
    sampling = extractor.sampling
    flow = extractor.checkpoint.preprocess.channel_order == "flow"
    found: dict[int, int | str] = {}  # place in items -> number of frames, or why there are none
    for i, item in enumerate(items):
        check_item(item, sampling)
        if item.url:
            found[i] = "an address, and nothing is fetched to estimate"
        elif not count:
            try:
                header = read_header(item.path, sampling.fps, flow)
                found[i] = header.num_frames
                if item.segment is not None and found[i]:
                    most = header.num_frames if sampling.fps else math.inf  # of a resampled one whole slots alone come
                    found[i] = item.segment.num_frames(sampling.fps or header.fps, header.duration_seconds, most)
            except VideoError as error:
                found[i] = str(error)
            on_video()
    uncounted = [i for i in range(len(items)) if decode and not found.get(i)]  # some headers tell nothing
    for place, num_frames in extractor.count_frames([items[i] for i in uncounted]) if uncounted else ():
        found[uncounted[place]] = num_frames
        on_video()
    return [_clips_of(item, found[i], extractor, flow) for i, item in enumerate(items)]


def _clips_of(item: VideoItem, found: int | str, extractor: Extractor | ExtractorPool, flow: bool) -> Counted:
    if isinstance(found, str):
        return Counted(0, 0, found)
    try:
        starts = listed_start_frames(item, flow)
        num_clips = count_clips(found, extractor.sampling, starts)
        if not num_clips:
            plan_clips(found, extractor.sampling, starts)  # tells why
    except VideoError as error:
        return Counted(found, 0, str(error))
    return Counted(found, num_clips)
