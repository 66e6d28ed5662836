"""One run of `featx extract`: plan, extract what is missing, write parts, merge; and `featx merge`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featx import store
from featx.clips import count_clips, plan_clips
from featx.engine import ENGINES, unavailable
from featx.errors import UsageError, VideoError
from featx.extractor import Extractor
from featx.features import Failure, Features
from featx.frame_folders import file_stamp, first_number
from featx.parts import Parts
from featx.plan import VideoItem, plan_videos
from featx.profile import Profile
from featx.provenance import Provenance
from featx.store import FeatureSet
from featx.video import read_header

__all__ = ["Estimate", "Summary", "estimate", "extract_to", "merge"]


@dataclass
class Summary:
    """What a run did.

    `num_videos`, `num_clips` and `num_frames` count what this run extracted; `failures` are its own, `failed_before` those of
    earlier runs that it did not try again; `changed` are keys whose file, or whose listed clips, are not those that were
    extracted. `damaged`: key -> what was wrong, of videos that this run kept though they are damaged, and `damaged_before` of
    those that an earlier run kept. These do not satisfy a run of the policy fail.
    `profile` says where the time went.
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
    profile: Profile | None = None

    @property
    def exit_code(self) -> int:
        """0 where every planned video is in the output, 1 where some failed, now or in an earlier run.

        A damaged video that an earlier run kept is one that failed where the policy is fail.
        """
        refused = self.on_corrupt == "fail" and self.damaged_before
        return 1 if self.failures or self.failed_before or refused else 0


def extract_to(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    c3d_lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    overwrite: bool = False,
    retry_failed: bool = False,
    refresh: bool = False,
    on_error: str = "skip",
    on_note: Callable[[str], None] = lambda note: None,
    on_planned: Callable[[Summary], None] = lambda summary: None,
    on_result: Callable[[Features | Failure], None] = lambda result: None,
    **options: object,
) -> Summary:
    """Extract the features of videos into a feature file; go on where an earlier run with the same output stopped.

    `inputs`, `lists`, `c3d_lists`, `keys_from`: see `featx.plan.plan_videos`; `backbone` and `options`: see `featx.Extractor`.
    Videos that the output holds are passed over, and with `refresh` redone where their file, or what a list says of their
    clips, changed; so are those that failed before, unless `retry_failed` or their file changed. `overwrite` starts anew.
    `on_error`: "skip" a video that fails, or "stop" after it. `on_note` gets one-line remarks, `on_planned` the summary
    before the first video, `on_result` every result.

    Raises UsageError for wrong requests, ProvenanceError where the output was made in another way, CheckpointError for
    wrong weights. What a run wrote before it was interrupted stays, and counts for the next one.
    """
    if on_error not in ("skip", "stop"):
        raise UsageError(f"on_error is '{on_error}', but must be skip or stop")
    started = time.monotonic()
    output = Path(output)
    if output.is_dir():
        raise UsageError(f"{output} is a folder; give -o the name of a file, such as {output / 'features.h5'}")
    items = plan_videos(inputs, lists, keys_from, c3d_lists)
    options["listed_clips"] = items[0].listed_starts is not None
    before, anew = None if overwrite else _recorded(output), False
    if before is not None:
        _require_own(before, output)
        _keep_plan(before, options)
    with Extractor(backbone, **options) as extractor:
        provenance = extractor.provenance
        if extractor.engine.note:
            on_note(extractor.engine.note)
        if before is not None and before.differences(provenance) and _holds_no_video(output):
            on_note(f"{output} held failed videos only, of other settings; it is begun anew")
            before, anew = None, True
        if before is not None:
            _require_continuation(before, provenance, output, on_note)
        with Parts(output) as parts:
            summary = Summary(str(output), len(items), on_corrupt=extractor.on_corrupt)
            if overwrite or (anew and _holds_no_video(output)):  # still: only now is it locked
                parts.discard()
            elif parts.exists():
                with parts.open() as done:
                    provenance.require_agreement(done.provenance, "in this run", f"in {output}", "Try again.")
                    items = _missing(done, items, retry_failed, refresh, summary)
                    _note_other_keys(done, items, on_note)
            on_planned(summary)
            stopwatch, began = extractor.stopwatch, time.monotonic()
            try:
                for result in extractor.extract_many(items):
                    _count(summary, result)
                    with stopwatch.time("write"):
                        parts.add(result, provenance)
                    on_result(result)
                    if isinstance(result, Failure) and on_error == "stop":
                        on_note(f"stopped at '{result.key}' (--on-error stop); the same command goes on")
                        break
            finally:
                with stopwatch.time("write"):
                    parts.flush(provenance)
            if not parts.exists():  # cannot be: a plan is never empty, and every video leaves a row or a failure
                raise AssertionError("a run ended without an output")
            with stopwatch.time("write"):
                summary.parts_left = len(parts.finish())
            ended, decoders = time.monotonic(), extractor.num_decoders
            summary.profile = Profile.of(
                *(stopwatch, began - started, ended - began),
                num_decoders=decoders, num_frames=summary.num_frames, num_clips=summary.num_clips,
            )  # fmt: skip
    summary.seconds = time.monotonic() - started
    return summary


def _recorded(output: Path) -> Provenance | None:
    """How the output was made that a run is about to continue; None where there is none yet."""
    if not output.exists() and not any(store.parts_folder(output).glob("part-*.h5")):
        return None
    with store.open_features(output) as features:
        return features.provenance


def _holds_no_video(output: Path) -> bool:
    """Whether nothing would be lost with an output: every video in it failed."""
    with store.open_features(output) as features:
        return len(features) == 0


def _require_own(before: Provenance, output: Path) -> None:
    if not before.checkpoint_sha256:
        raise UsageError(
            f"{output} was imported ({before.engine}); a run cannot go on with features of another program, so choose "
            "another output, or '--overwrite' to start anew"
        )


def _keep_plan(before: Provenance, options: dict) -> None:
    """A run that goes on keeps batch size, device and engine, and with them the last bits of its numbers, where it can."""
    engine, _, device = before.engine.rpartition("-")
    if options.get("batch_size") is None:
        options["batch_size"] = before.batch_size
    if options.get("device", "auto") == "auto":
        options["device"] = device
    kept = engine in ENGINES and not unavailable(engine, device) and options["device"].startswith(device)
    if options.get("engine", "auto") == "auto" and kept:
        options["engine"] = engine


def _require_continuation(before: Provenance, now: Provenance, output: Path, on_note: Callable[[str], None]) -> None:
    before.require_agreement(
        now, f"in {output}", "in this run", "Use the same settings, another output, or '--overwrite' to start anew."
    )
    if before.batch_size != now.batch_size:
        raise UsageError(
            f"batch_size is {before.batch_size} in {output}, {now.batch_size} in this run; it changes the last bits of a "
            "feature, so leave --batch-size out to keep the recorded one"
        )
    if before.engine != now.engine:
        on_note(
            f"{output} was begun with the engine {before.engine}; {now.engine} agrees with it to rounding, not to the bit"
        )


def _missing(
    done: FeatureSet, items: list[VideoItem], retry_failed: bool, refresh: bool, summary: Summary
) -> list[VideoItem]:
    """The videos that are still to be done; counts the others in `summary`."""
    failed = {failure.key: failure for failure in done.failures}
    stamps = dict(zip(done.keys, zip(done.column("size_bytes"), done.column("mtime_ns"), strict=True), strict=True))
    labels = dict(zip(done.keys, done.column("label"), strict=True))
    damages = {key: damage for key, damage in zip(done.keys, done.column("damage"), strict=True) if damage}
    todo = []
    for item in items:
        if item.key in stamps:
            if _changed(item.path, *stamps[item.key]) or _listed_otherwise(item, done, labels[item.key]):
                summary.changed.append(item.key)
                if refresh:
                    todo.append(item)
                    continue
            if item.key in damages:
                if refresh and summary.on_corrupt == "fail":
                    todo.append(item)
                    continue
                summary.damaged_before[item.key] = damages[item.key]
            summary.num_present += 1
        elif item.key in failed:
            failure = failed[item.key]
            if retry_failed or _changed(item.path, failure.size_bytes, failure.mtime_ns):
                todo.append(item)
            else:
                summary.failed_before.append(failure)
        else:
            todo.append(item)
    return todo


def _note_other_keys(done: FeatureSet, todo: list[VideoItem], on_note: Callable[[str], None]) -> None:
    """Say so where a video is about to be extracted that the output holds under another key."""
    key_of_path = dict(zip(done.column("path"), done.keys, strict=True))
    twice = [(item, key_of_path[item.path_text]) for item in todo if item.path_text in key_of_path]
    twice = [(item, key) for item, key in twice if key != item.key]
    if twice:
        item, key = twice[0]
        on_note(
            f"{len(twice)} videos are in the output under other keys, such as {item.path} as '{key}', now '{item.key}': a "
            "key is relative to the folder named, or to what a list's paths share"
        )


def _changed(path: Path, size_bytes: int, mtime_ns: int) -> bool:
    try:
        return file_stamp(path) != (size_bytes, mtime_ns)
    except OSError:
        return False


def _listed_otherwise(item: VideoItem, done: FeatureSet, label: str) -> bool:
    """Whether a list now names other clips of a video, or another label, than the output holds."""
    if item.listed_starts is None or not item.path.exists():
        return False
    if item.label != label:
        return True
    try:
        starts = _start_frames(item, done.provenance.channel_order == "flow")
    except VideoError:  # the video is gone, or the list is not right: not what was extracted
        return True
    return not np.array_equal(starts, done.clip_table(item.key).start_frame)


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


@dataclass
class Estimate:
    """What a run would make. From the headers alone it is an estimate; `counted` says that every video was decoded."""

    counted: bool
    num_videos: int = 0
    num_frames: int = 0
    num_clips: int = 0
    num_bytes: int = 0
    videos: list[tuple[str, int, int]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, key: str, num_frames: int, num_clips: int, extractor: Extractor) -> None:
        """Count a video in, with the bytes that the extractor would write for it."""
        dims = sum(extractor.num_dims.values())
        self.videos.append((key, num_frames, num_clips))
        self.num_videos += 1
        self.num_frames += num_frames
        self.num_clips += num_clips
        if extractor.save != "clips":
            self.num_bytes += 4 * dims
        if extractor.save != "descriptors":
            self.num_bytes += num_clips * dims * extractor.dtype.itemsize


def estimate(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    c3d_lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    count: bool = False,
    on_video: Callable[[], None] = lambda: None,
    **options: object,
) -> Estimate:
    """Frames, clips and bytes that `extract_to` with the same arguments would give; writes nothing.

    With `count` every video is decoded, else the headers are believed. `videos` holds (key, num_frames, num_clips).
    """
    items = plan_videos(inputs, lists, keys_from, c3d_lists)
    options["listed_clips"] = items[0].listed_starts is not None
    with Extractor(backbone, **{**options, "engine": "torch"}) as extractor:
        return _estimate(items, extractor, count, on_video)


def _estimate(items: list[VideoItem], extractor: Extractor, count: bool, on_video: Callable[[], None]) -> Estimate:
    sampling = extractor.sampling
    flow = extractor.checkpoint.preprocess.channel_order == "flow"
    found: dict[int, int | str] = {}  # place in items -> number of frames, or why there are none
    for i, item in enumerate(items):
        if not count:
            try:
                found[i] = read_header(item.path, sampling.fps, flow).num_frames
            except VideoError as error:
                found[i] = str(error)
            on_video()
    uncounted = [i for i in range(len(items)) if not found.get(i)]  # some headers tell nothing
    for place, num_frames in extractor.count_frames(items[i].path for i in uncounted):
        found[uncounted[place]] = num_frames
        on_video()
    total = Estimate(counted=count)
    for i, item in enumerate(items):
        reason = found[i] if isinstance(found[i], str) else ""
        num_clips = 0
        if not reason:
            try:
                starts = _start_frames(item, flow)
                num_clips = count_clips(found[i], sampling, starts)
                if not num_clips:
                    plan_clips(found[i], sampling, starts)  # tells why
            except VideoError as error:
                reason = str(error)
        if reason:
            total.failures.append(Failure(item.key, item.path_text, reason))
        else:
            total.add(item.key, found[i], num_clips, extractor)
    return total


def _start_frames(item: VideoItem, flow: bool) -> tuple[int, ...] | None:
    """The listed starts of a video, counted from 0; None where none are listed. Raises VideoError as the extraction would."""
    if item.listed_starts is None:
        return None
    return item.start_frames(first_number(item.path, flow))


def merge(inputs: Sequence[str | os.PathLike], output: str | os.PathLike, *, overwrite: bool = False) -> int:
    """Join feature sets into one feature file and return the number of videos; in bounded memory.

    One input that is the output itself is compacted: its parts go into it. Raises UsageError where a video stands in two
    inputs, or `output` exists and is no input, unless `overwrite`; ProvenanceError where inputs do not belong together.
    """
    output = Path(output)
    paths = [Path(path) for path in inputs]
    with Parts(output) as parts:
        if paths == [output]:
            if not parts.exists():
                raise UsageError(f"no such feature file: {output}")
            parts.compact()
        else:
            if parts.exists() and output not in paths and not overwrite:
                raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
            groups = [group for path in paths for group in store.find_files(path)]
            for file in (file for group in groups for file in group):
                store.verify(file)
            with FeatureSet(*groups) as features:
                store.merge(features, output)
            parts.drop_parts()
    with store.open_features(output) as merged:
        return len(merged)
