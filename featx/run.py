"""One run of `featx extract`: plan, extract what is missing, write parts, merge; and `featx merge`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featx import store
from featx.clips import count_clips
from featx.errors import UsageError, VideoError
from featx.extractor import Extractor
from featx.features import Failure, Features
from featx.parts import Parts
from featx.plan import VideoItem, plan_videos
from featx.store import FeatureSet
from featx.video import count_frames, read_header

__all__ = ["Estimate", "Summary", "estimate", "extract_to", "merge"]


@dataclass
class Summary:
    """What a run did. `num_videos`, `num_clips` and `num_frames` count what this run extracted; `failures` are its own."""

    output: str
    num_planned: int
    num_videos: int = 0
    num_clips: int = 0
    num_frames: int = 0
    num_present: int = 0
    num_failed_before: int = 0
    num_zero_descriptors: int = 0
    failures: list[Failure] = field(default_factory=list)
    parts_left: int = 0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 where every planned video is in the output, 1 where some failed, now or in an earlier run."""
        return 1 if self.failures or self.num_failed_before else 0


def extract_to(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    overwrite: bool = False,
    retry_failed: bool = False,
    on_error: str = "skip",
    on_note: Callable[[str], None] = lambda note: None,
    on_planned: Callable[[Summary], None] = lambda summary: None,
    on_result: Callable[[Features | Failure], None] = lambda result: None,
    **options: object,
) -> Summary:
    """Extract the features of videos into a feature file; go on where an earlier run with the same output stopped.

    `inputs`, `lists`, `keys_from`: see `featx.plan.plan_videos`; `backbone` and `options`: see `featx.Extractor`. Videos that
    the output holds are passed over; so are those that failed before, unless `retry_failed` or their file changed.
    `overwrite` starts anew. `on_error`: "skip" a video that fails, or "stop" after it. `on_note` gets one-line remarks,
    `on_planned` the summary before the first video, `on_result` every result.

    Raises UsageError for wrong requests, ProvenanceError where the output was made in another way, CheckpointError for
    wrong weights. What a run wrote before it was interrupted stays, and counts for the next one.
    """
    if on_error not in ("skip", "stop"):
        raise UsageError(f"on_error is '{on_error}', but must be skip or stop")
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    started = time.monotonic()
    output = Path(output)
    if output.is_dir():
        raise UsageError(f"{output} is a folder; give -o the name of a file, such as {output / 'features.h5'}")
    items = plan_videos(inputs, lists, keys_from)
    with Parts(output) as parts:
        continues = parts.exists() and not overwrite
        if continues and options.get("batch_size") is None:
            with parts.open() as before:
                options["batch_size"] = before.provenance.batch_size
        with Extractor(backbone, **options) as extractor:
            provenance = extractor.provenance
            summary = Summary(str(output), len(items))
            if continues:
                with parts.open() as before:
                    _require_continuation(before, extractor, output, on_note)
                    items = _missing(before, items, retry_failed, summary)
            elif overwrite:
                parts.discard()
            on_planned(summary)
            try:
                for result in extractor.extract_many(items):
                    _count(summary, result)
                    parts.add(result, provenance)
                    on_result(result)
                    if isinstance(result, Failure) and on_error == "stop":
                        on_note(f"stopped at '{result.key}' (--on-error stop); the same command goes on")
                        break
            finally:
                parts.flush(provenance)
            if (
                not parts.exists()
            ):  # nothing to extract, nothing failed, nothing there: cannot be, a plan is never empty
                raise AssertionError("a run ended without an output")
            summary.parts_left = len(parts.finish())
    summary.seconds = time.monotonic() - started
    return summary


def _require_continuation(
    before: FeatureSet, extractor: Extractor, output: Path, on_note: Callable[[str], None]
) -> None:
    old, new = before.provenance, extractor.provenance
    old.require_agreement(
        new, f"in {output}", "in this run", "Use the same settings, another output, or '--overwrite' to start anew."
    )
    if old.batch_size != new.batch_size:
        raise UsageError(
            f"batch_size is {old.batch_size} in {output}, {new.batch_size} in this run; it changes the last bits of a "
            "feature, so leave --batch-size out to keep the recorded one"
        )
    if old.engine != new.engine:
        on_note(
            f"{output} was begun with the engine {old.engine}; {new.engine} agrees with it to rounding, not to the bit"
        )


def _missing(before: FeatureSet, items: list[VideoItem], retry_failed: bool, summary: Summary) -> list[VideoItem]:
    """The videos that are still to be done; counts the others in `summary`."""
    failed = {failure.key: failure for failure in before.failures}
    todo = []
    for item in items:
        if item.key in before:
            summary.num_present += 1
        elif item.key in failed and not retry_failed and not _changed(item.path, failed[item.key]):
            summary.num_failed_before += 1
        else:
            todo.append(item)
    return todo


def _changed(path: Path, failure: Failure) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) != (failure.size_bytes, failure.mtime_ns)


def _count(summary: Summary, result: Features | Failure) -> None:
    if isinstance(result, Failure):
        summary.failures.append(result)
        return
    summary.num_videos += 1
    summary.num_clips += result.num_clips
    summary.num_frames += result.num_frames
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


def estimate(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    backbone: str = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    count: bool = False,
    on_video: Callable[[], None] = lambda: None,
    **options: object,
) -> Estimate:
    """Frames, clips and bytes that `extract_to` with the same arguments would give; writes nothing.

    With `count` every video is decoded, else the headers are believed. `videos` holds (key, num_frames, num_clips).
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    items = plan_videos(inputs, lists, keys_from)
    with Extractor(backbone, **options) as extractor:
        return _estimate(items, extractor, count, on_video)


def _estimate(items: list[VideoItem], extractor: Extractor, count: bool, on_video: Callable[[], None]) -> Estimate:
    total = Estimate(counted=count)
    sampling = extractor.sampling
    dims = sum(extractor.num_dims.values())
    for item in items:
        on_video()
        try:
            if count:
                num_frames = count_frames(item.path, sampling.fps)
            else:
                header = read_header(item.path)
                num_frames = round(header.duration_seconds * sampling.fps) if sampling.fps else header.num_frames
            num_clips = count_clips(num_frames, sampling)
            if not num_clips:
                raise VideoError(f"{num_frames} frames give no clip of {sampling.span}")
        except VideoError as error:
            total.failures.append(Failure(item.key, str(item.path), str(error)))
            continue
        total.videos.append((item.key, num_frames, num_clips))
        total.num_videos += 1
        total.num_frames += num_frames
        total.num_clips += num_clips
        if extractor.save != "clips":
            total.num_bytes += 4 * dims
        if extractor.save != "descriptors":
            total.num_bytes += num_clips * dims * extractor.dtype.itemsize
    return total


def merge(inputs: Sequence[str | os.PathLike], output: str | os.PathLike, *, overwrite: bool = False) -> int:
    """Join feature sets into one feature file and return the number of videos; in bounded memory.

    One input that is the output itself is compacted: its parts go into it. Raises UsageError where a video stands in two
    inputs, or `output` exists and is no input, unless `overwrite`; ProvenanceError where inputs do not belong together.
    """
    output = Path(output)
    paths = [Path(path) for path in inputs]
    if paths == [output]:
        with Parts(output) as parts:
            if not parts.exists():
                raise UsageError(f"no such feature file: {output}")
            parts.compact()
    else:
        if output.exists() and output not in paths and not overwrite:
            raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
        for path in paths:
            if not path.is_dir() and store.parts_folder(path).exists():
                raise UsageError(f"{path} has parts not yet merged into it; first run 'featx merge {path} -o {path}'")
        members = [member for path in paths for member in (sorted(path.glob("*.h5")) if path.is_dir() else [path])]
        with FeatureSet(members, later_wins=False) as features:
            store.merge(features, output)
    with store.open_features(output) as merged:
        return len(merged)
