"""One run of `featx extract`: plan, extract what is missing, write parts, merge; and `featx merge`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from featx import resume, store
from featx.content import content_sha256
from featx.dry_run import DryRun, count_items, file_sizes, videos_bytes
from featx.errors import FeatxError, UsageError
from featx.extractor import Extractor
from featx.features import Failure, Features
from featx.fetch_ahead import CACHE_BYTES
from featx.frame_folders import file_stamp
from featx.interrupt import Interrupts
from featx.part_writer import PartWriter
from featx.parts import FETCHED, Parts, is_being_written
from featx.plan import VideoItem, of_shard, plan_videos
from featx.profile import Profile
from featx.provenance import BEGUN, ENDED, Provenance
from featx.run_progress import RunProgress
from featx.scratch import require_cache, scratch_folder
from featx.shards import missing_shards, parse_shard
from featx.store import FeatureSet
from featx.timestamps import require_timestamps_place, write_timestamps
from featx.uploads import to_a_store
from featx.urls import UrlVideos
from featx.workers import ExtractorPool, largest_first, open_extractor

__all__ = ["Summary", "extract_to", "merge"]


SAMPLED_HEADERS = 64  # so many videos stand for the others where clips are counted before a run


@dataclass
class Summary:
    """What a run did.

    `num_videos`, `num_clips` and `num_frames` count what this run extracted; `failures` are its own, `failed_before` those of
    earlier runs that it did not try again; `changed` are keys whose file, or whose listed clips, are not those that were
    extracted. `damaged`: key -> what was wrong, of videos that this run kept though they are damaged, and `damaged_before` of
    those that an earlier run kept. These do not satisfy a run of the policy fail. `profile` says where the time went;
    `stopped_by` is the signal that ended the run early, 0 for none.
    """

    output: str
    num_planned: int
    num_videos: int = 0
    num_clips: int = 0
    num_frames: int = 0
    num_present: int = 0
    num_zero_descriptors: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed_before: list[Failure] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    on_corrupt: str = "fail"
    damaged: dict[str, str] = field(default_factory=dict)
    damaged_before: dict[str, str] = field(default_factory=dict)
    parts_left: int = 0
    seconds: float = 0.0
    stopped_by: int = 0
    profile: Profile | None = None

    @property
    def exit_code(self) -> int:
        """0 where every planned video is in the output, 1 where some failed, now or in an earlier run; 128 and its number
        where a signal ended the run early.

        A damaged video that an earlier run kept is one that failed where the policy is fail.
        """
        if self.stopped_by:
            return 128 + self.stopped_by
        refused = self.on_corrupt == "fail" and self.damaged_before
        return 1 if self.failures or self.failed_before or refused else 0


@to_a_store
def extract_to(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    c3d_lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    segments: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    allow_urls: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
    refresh: bool = False,
    content_hash: bool = False,
    repair: bool = False,
    timestamps: str | os.PathLike | None = None,
    shard: str | None = None,
    cache: str | os.PathLike | None = None,
    cache_bytes: int = CACHE_BYTES,
    progress: bool = False,
    on_error: str = "skip",
    interrupts: Interrupts | None = None,
    on_note: Callable[[str], None] = lambda note: None,
    on_planned: Callable[[Summary], None] = lambda summary: None,
    on_result: Callable[[Features | Failure], None] = lambda result: None,
    on_written: Callable[[Collection[str]], None] = lambda leaving: None,
    **options: object,
) -> Summary:
    """Extract the features of videos into a feature file; go on where an earlier run with the same output stopped.

    `inputs`, `lists`, `c3d_lists`, `segments`, `keys_from`, `allow_urls`: see `featx.plan.plan_videos`; `backbone` and
    `options`: see `featx.Extractor`.
    Videos that the output holds are passed over, and with `refresh` redone where their file, or what a list says of their
    clips, changed; so are those that failed before, unless `retry_failed` or their file changed. `content_hash` stores the
    SHA-256 of every video, and compares it, where it is stored, instead of size and time. `repair` sets damaged files of
    the output aside; their videos are extracted again. `overwrite` starts anew. `timestamps`: a CSV file that every run writes
    at its end, with the frames and seconds of all clips of the output, see `featx.timestamps`; the output then keeps them.
    `shard`: "K/N" takes the K-th of N shards of the videos, "slurm" that of this task of a job array, see `featx.shards`; a
    shard without videos gives a file without any, so that merging can tell it from one that is missing.
    `ray`, `ray_workers`, `ray_cpus`, `ray_gpus`: extract on a Ray cluster, see `featx.workers.ray_cluster.RayRequest`.
    `cache`: the folder where videos of addresses lie while they are decoded, in place of the output's own, and `cache_bytes`
    what they may take of it. An `output` that is an address of a store (``s3://bucket/features.h5``) is made in a folder below
    `cache`, or of featx's, and written there part by part, see `featx.uploads`; `on_written`: see
    `featx.parts`.
    `interrupts`: handlers of signals, by which a run ends early, after the videos in flight, with `stopped_by` in the summary.
    `on_error`: "skip" a video that fails, or "stop" after it. `on_note` gets one-line remarks, `on_planned` the summary
    before the first video, `on_result` every result. `progress` shows a bar, see `featx.progress`.

    Raises UsageError for wrong requests, ProvenanceError where the output was made in another way, CheckpointError for
    wrong weights. What a run wrote before it was interrupted stays, and counts for the next one.
    """
    if on_error not in ("skip", "stop"):
        raise UsageError(f"on_error is '{on_error}', but must be skip or stop")
    started = time.monotonic()
    output = Path(output)
    bar, interrupts = RunProgress(progress), interrupts or Interrupts()
    on_note, on_planned, on_result = bar.around(on_note, on_planned, on_result)
    (store.require_replaceable if overwrite else store.require_output)(output)
    if timestamps is not None:
        require_timestamps_place(timestamps, output)
        options["clip_times"] = True
    own = parse_shard(shard) if shard is not None else None
    planned = plan_videos(inputs, lists, keys_from, c3d_lists, allow_urls, segments)
    items = of_shard(planned, own)
    if own is not None and str(own) != shard:
        on_note(f"--shard {shard} is shard {own} here, {len(items)} of {len(planned)} videos")
    _require_shared_cache(items, options.get("ray"), cache)
    options["listed_clips"] = planned[0].listed_starts is not None
    before, anew = None if overwrite else resume.recorded(output, repair, on_note, on_written), False
    if before is not None:
        resume.require_own(before, output)
        resume.keep_plan(before, options)
    require_cache(cache, cache_bytes)
    left = items
    if options.get("decode") == "auto":
        if before is not None:
            left = _left_to_do(output, items, options, retry_failed, refresh)
        if not left:  # nobody is to be tried
            options["decode"] = "cpu"
    with bar, open_extractor(backbone, **options) as extractor:
        extractor.prepare(left or items or planned, on_note)
        provenance = replace(extractor.provenance, shard=str(own or ""), run=BEGUN)
        if extractor.engine.note:
            on_note(extractor.engine.note)
        if before is not None and before.differences(provenance) and resume.holds_no_video(output):
            on_note(f"{output} held failed videos only, of other settings; it is begun anew")
            before, anew = None, True
        if before is not None:
            asked = replace(provenance, batch_size=options["batch_size"])
            resume.require_continuation(before, asked, output, on_note)
        with interrupts.told(), Parts(output, on_written) as parts:
            summary = Summary(str(output), len(items), on_corrupt=extractor.on_corrupt)
            is_ended = False
            if overwrite or (anew and resume.holds_no_video(output)):  # still: only now is it locked
                parts.discard()
                interrupts.begun_anew = overwrite
            elif parts.exists():
                with parts.open() as done:
                    is_ended = not done.unfinished
                    if done.provenance != before:  # another run began it, or went on with it, since we looked
                        asked = replace(provenance, batch_size=options.get("batch_size") or provenance.batch_size)
                        resume.require_continuation(done.provenance, asked, output, on_note)
                    todo = resume.missing(
                        done,
                        items,
                        retry_failed=retry_failed,
                        refresh=refresh,
                        compare_hashes=content_hash,
                        on_corrupt=extractor.on_corrupt,
                        on_note=on_note,
                    )
                    items = todo.items
                    summary.num_present, summary.changed = todo.num_present, todo.changed
                    summary.failed_before, summary.damaged_before = todo.failed_before, todo.damaged_before
                    resume.note_other_keys(done, items, on_note)
            _require_room(output, items, extractor, on_note)
            on_planned(summary)
            if items and is_ended:
                parts.write_empty(provenance)  # so that it tells from now on that it is not all there
                is_ended = False
            items = largest_first(items) if isinstance(extractor, ExtractorPool) else items
            flight, stopwatch, began = _Flight(interrupts), extractor.stopwatch, time.monotonic()
            is_stopped = False
            writer = PartWriter(parts)
            with _fetched_folder(cache, parts, items) as folder, flight.interrupts.graceful(flight.keys, on_note):
                urls = UrlVideos(folder, content_hash, flight.is_to_end, cache_bytes, on_error == "stop")
                try:
                    for result in urls.results(extractor.extract_many(flight.begun(urls.local(items)))):
                        if content_hash and isinstance(result, Features) and not result.sha256:
                            result = _with_hash(result, flight.path_of(result.key))
                        _count(summary, result)
                        with stopwatch.time("write"):
                            writer.add(result, made_by(extractor, provenance))
                        flight.land(result.key)
                        on_result(result)
                        if isinstance(result, Failure) and on_error == "stop":
                            is_stopped = True
                            on_note(f"stopped at '{result.key}' (--on-error stop); {interrupts.goes_on}")
                            break
                finally:
                    with stopwatch.time("write"):
                        writer.finish(made_by(extractor, provenance))
            summary.stopped_by = flight.interrupts.asked
            if summary.stopped_by:
                summary.parts_left = parts.count()
            else:
                with stopwatch.time("write"):
                    if not (is_ended or is_stopped):
                        parts.write_empty(replace(made_by(extractor, provenance), run=ENDED))
                    summary.parts_left = len(parts.finish())
            ended, decoders = time.monotonic(), extractor.num_decoders
            summary.profile = Profile.of(
                *(stopwatch, began - started, ended - began),
                num_decoders=decoders, num_frames=summary.num_frames, num_clips=summary.num_clips,
                beside=extractor.engine.is_beside,
            )  # fmt: skip
    if timestamps is not None and not summary.stopped_by:
        write_timestamps(output, timestamps)
    summary.seconds = time.monotonic() - started
    return summary


def made_by(extractor: Extractor, provenance: Provenance) -> Provenance:
    """How results are made now: as at first, but a GPU whose memory became full goes on with smaller batches."""
    return replace(provenance, batch_size=extractor.engine.batch_size)


def _left_to_do(
    output: Path, items: list[VideoItem], options: dict, retry_failed: bool, refresh: bool
) -> list[VideoItem]:
    """The videos that the output seems to be without, before a run has locked it; hashes are not looked at."""
    how = {"retry_failed": retry_failed, "refresh": refresh, "on_corrupt": options.get("on_corrupt", "fail")}
    with store.open_features(output, warn=False) as done:
        return resume.missing(done, items, compare_hashes=False, on_note=lambda note: None, **how).items


def _require_shared_cache(items: Sequence[VideoItem], ray: object, cache: str | os.PathLike | None) -> None:
    address = next((item.path_text for item in items if item.url), None)
    if address is not None and ray not in (None, "local") and cache is None:
        raise UsageError(
            f"'{address}' is fetched by this machine, but decoded by those of the cluster; name a folder that all of them "
            "share with --cache"
        )


def _fetched_folder(
    cache: str | os.PathLike | None, parts: Parts, items: Sequence[VideoItem]
) -> AbstractContextManager[Path]:
    """Where videos of addresses lie while they are decoded."""
    if cache is None or not any(item.url for item in items):
        return nullcontext(parts.folder / FETCHED)
    return scratch_folder(cache)


class _Flight:
    """The videos of a run that have been begun and are not finished; once `interrupts` asks, no further one is begun."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        self._under_way: dict[str, VideoItem] = {}

    def is_to_end(self) -> bool:
        return bool(self.interrupts.asked or self.interrupts.raised)

    def begun(self, items: Iterable[VideoItem]) -> Iterator[VideoItem]:
        """The videos, each asked for when a decoder is free."""
        for item in items:
            if self.interrupts.asked:
                return
            self._under_way[item.key] = item
            yield item

    def path_of(self, key: str) -> Path:
        return self._under_way[key].path

    def land(self, key: str) -> None:
        """Note that a video is finished; one that could not be fetched was never begun."""
        self._under_way.pop(key, None)

    def keys(self) -> list[str]:
        """The videos in flight, in the order in which they were begun."""
        return list(self._under_way)


def _with_hash(features: Features, path: Path) -> Features | Failure:
    """The same with the hash of the video's content; a Failure where the file is no longer the one that was decoded."""
    try:
        sha256 = content_sha256(path)
        if file_stamp(path) == (features.size_bytes, features.mtime_ns):
            return replace(features, sha256=sha256)
        reason = "it changed while it was read"
    except OSError as error:
        reason = f"it cannot be read again for its hash: {error.strerror}"
    return Failure(features.key, features.path, reason, features.size_bytes, features.mtime_ns)


def _require_room(
    output: Path, items: list[VideoItem], extractor: Extractor | ExtractorPool, on_note: Callable[[str], None]
) -> None:
    """Raise FeatxError where the disk has no room for what `items` give at least; say so where it hardly has."""
    sizes = file_sizes(extractor)
    needed = videos_bytes(items, sizes) + len(items) * sizes.clip_bytes  # a clip a video, at least
    free = max(store.free_bytes(store.real_file(output).absolute().parent) - store.SPARE_BYTES, 0)
    if needed > free:
        raise FeatxError(
            f"{output} needs {_megabytes(needed)} for {len(items)} videos, but its disk has {_megabytes(free)} free; "
            "make room, or choose another place for -o; '--dry-run' tells what a run needs"
        )
    if sizes.clip_bytes and items:
        sample = items[:: max(1, len(items) // SAMPLED_HEADERS)]
        found = DryRun.of(sample, count_items(sample, extractor, count=False, decode=False), sizes)
        expected = (found.num_bytes - sizes.fixed_bytes) * len(items) / len(sample)
        if expected > free:
            on_note(
                f"about {_megabytes(expected)} are expected, from the headers of {len(sample)} videos, but the disk of "
                f"{output} has {_megabytes(free)} free; if it fills up, the run ends and can go on elsewhere"
            )


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def _count(summary: Summary, result: Features | Failure) -> None:
    if isinstance(result, Failure):
        summary.failures.append(result)
        return
    summary.num_videos += 1
    summary.num_clips += result.num_clips
    summary.num_frames += result.num_frames
    if result.damage:
        summary.damaged[result.key] = result.damage
    summary.num_zero_descriptors += sum(not vector.any() for vector in result.descriptors.values())


def merge(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    overwrite: bool = False,
    partial: bool = False,
) -> int:
    """Join feature sets into one feature file and return the number of videos; in bounded memory.

    Shards must be all there, and every run must have come to its end, unless `partial`; the file then tells which shards it
    holds, so that the others may be joined to it, and that it is not finished.

    One input that is the output itself is compacted: its parts go into it. Raises UsageError where a video stands in two
    inputs, for a missing shard, for an input that is not finished, and where `output` exists and is no input, unless
    `overwrite`; ProvenanceError where inputs do not belong together, or hold one shard twice.
    """
    output = Path(output)
    paths = [Path(path) for path in inputs]
    store.require_output(output)
    with Parts(output) as parts:
        if paths == [output]:
            if not parts.exists():
                raise UsageError(f"no such feature file: {output}; a feature file is what 'featx extract -o' writes")
            parts.compact()
        else:
            if parts.exists() and output not in paths and not overwrite:
                raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
            parts.make_whole()

            def join(groups: list[list[Path]]) -> None:
                verified = {file: store.verify(file) for group in groups for file in group}
                with FeatureSet(*groups) as features:
                    features.require_unchanged(verified)
                    if not partial:
                        _require_whole(features, output)
                    store.merge(features, output)

            store.while_joined(paths, join)  # with `partial`, runs may still be writing them
            parts.drop_parts()
    with store.open_features(output, warn=paths == [output]) as merged:  # else it was refused, or asked for
        return len(merged)


def _require_whole(features: FeatureSet, output: Path) -> None:
    """Raise UsageError unless all shards are there, and every run that makes a part of it has come to its end."""
    missing = missing_shards(features.provenance.shard)
    if missing:
        raise UsageError(f"{missing}; name its file too, or join what there is with '--partial'")
    remedy = "or join what there is with '--partial'"
    for path in features.outputs:
        if os.path.realpath(path) != os.path.realpath(output) and is_being_written(path):  # our own lock is no other's
            raise UsageError(f"a run is writing {path}; wait for it, {remedy}")
    if features.unfinished:
        raise UsageError(
            f"{features.unfinished[0]} is not finished: its run has not come to its end; go on with the same 'featx extract', "
            f"{remedy}"
        )
