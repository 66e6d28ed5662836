"""Going on with an output: what it holds, whether this run may continue it, and what of the plan is still to be done."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featx import store
from featx.content import content_sha256
from featx.engine import described, unavailable
from featx.engine.precision import PRECISIONS
from featx.errors import UsageError, VideoError
from featx.features import Failure
from featx.frame_folders import file_stamp
from featx.parts import Parts
from featx.plan import VideoItem, listed_start_frames
from featx.provenance import Provenance
from featx.segments import SLACK_SECONDS, is_segment_key
from featx.store import FeatureSet

__all__ = [
    "Todo",
    "holds_no_video",
    "keep_plan",
    "missing",
    "note_other_keys",
    "recorded",
    "require_continuation",
    "require_own",
]


@dataclass
class Todo:
    """What of a plan is still to be done: `items`.

    Of the others `num_present` are in the output and `failed_before` failed in an earlier run; `changed` are the keys whose
    file, or whose listed clips, are not those that were extracted. `damaged_before`: key -> what was wrong, of videos that an
    earlier run kept though they are damaged.
    """

    items: list[VideoItem]
    num_present: int = 0
    failed_before: list[Failure] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    damaged_before: dict[str, str] = field(default_factory=dict)


def recorded(
    output: Path,
    repair: bool,
    on_note: Callable[[str], None],
    on_written: Callable[[Collection[str]], None] = lambda leaving: None,
) -> Provenance | None:
    """How the output was made that a run is about to continue; None where there is none yet.

    Raises FeatureFileError where a file of it is damaged; with `repair` that file is set aside, and `on_written` told of it,
    see `featx.parts`. Raises UsageError while another run is writing it.
    """
    if not _exists(output):
        return None
    _require_no_other_file(output)
    with Parts(output, on_written) as parts:  # nobody writes meanwhile
        parts.require_sound(repair, on_note)
    if not _exists(output):
        return None
    with store.open_features(output, warn=False) as features:
        return features.provenance


def _require_no_other_file(output: Path) -> None:
    """Raise UsageError for a file that was never a feature file: it is not to be repaired, but somebody's own.

    One of ours begins as HDF5 does, or, where the disk or the machine failed, with zeros or not at all.
    """
    if output.is_file():
        try:
            with open(output, "rb") as file:
                first = file.read(8)
        except OSError as error:
            raise UsageError(
                f"{output} cannot be read: {error.strerror}; check who may read it, or choose another name for -o"
            ) from error
        if first.strip(b"\0") and first != b"\x89HDF\r\n\x1a\n":
            raise UsageError(f"{output} exists and is no feature file; it is not replaced: choose another name for -o")


def holds_no_video(output: Path) -> bool:
    """Whether nothing would be lost with an output: every video in it failed."""
    with store.open_features(output, warn=False) as features:
        return len(features) == 0


def _exists(output: Path) -> bool:
    return output.exists() or bool(store.parts_of(output))


def require_own(before: Provenance, output: Path) -> None:
    """Raise UsageError where an output was imported from another program."""
    if not before.checkpoint_sha256:
        raise UsageError(
            f"{output} was imported ({before.engine}); a run cannot go on with features of another program, so choose "
            "another output, or '--overwrite' to start anew"
        )


def keep_plan(before: Provenance, options: dict) -> None:
    """Let a run that goes on keep batch size, precision, device and engine, and with them the last bits of its numbers.

    It keeps the times of clips, too, where the output has them.
    """
    engine, device = described(before.engine)
    if before.clip_times:
        options["clip_times"] = True
    if options.get("batch_size") is None:
        options["batch_size"] = before.batch_size
    if options.get("precision", "auto") == "auto" and before.precision in PRECISIONS:
        options["precision"] = before.precision
    if options.get("device", "auto") == "auto":
        options["device"] = device
    kept = engine and not unavailable(engine, device) and options["device"].startswith(device)
    if options.get("engine", "auto") == "auto" and kept:
        options["engine"] = engine


def require_continuation(before: Provenance, now: Provenance, output: Path, on_note: Callable[[str], None]) -> None:
    """Raise ProvenanceError or UsageError where a run makes features otherwise than the output it continues."""
    if before.shard != now.shard:
        raise UsageError(
            f"{output} holds {_shard_words(before.shard)}, and this run makes {_shard_words(now.shard)}; give --shard as "
            "before, or another output to every shard, or '--overwrite' to start anew"
        )
    if now.clip_times and not before.has_clip_table:
        raise UsageError(
            f"{output} keeps no times of clips, which --timestamps asks for; name another output, or use --overwrite"
        )
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


def _shard_words(shard: str) -> str:
    return f"shard {shard}" if shard else "all videos, no shard of them"


def missing(
    done: FeatureSet,
    items: list[VideoItem],
    *,
    retry_failed: bool,
    refresh: bool,
    compare_hashes: bool,
    on_corrupt: str,
    on_note: Callable[[str], None],
) -> Todo:
    """The videos that are still to be done, changed ones among them with `refresh`, failed ones with `retry_failed`.

    A damaged video that was kept is one that failed where `on_corrupt` is now fail: `refresh` redoes it.

    With `compare_hashes` the content of a video decides whether it changed, where its hash is stored, and not its time.
    """
    failed = {failure.key: failure for failure in done.failures}
    names = ("size_bytes", "mtime_ns", "sha256", "label", "damage", "start_seconds", "end_seconds")
    stamps = zip(*(done.column(name) for name in names), strict=True)
    rows = dict(zip(done.keys, stamps, strict=True))
    todo, num_without_hash = Todo([]), 0
    for item in items:
        if item.key in rows:
            size_bytes, mtime_ns, sha256, label, damage, *seconds = rows[item.key]
            num_without_hash += compare_hashes and not sha256 and not item.url
            changed = _changed(item, size_bytes, mtime_ns, sha256 if compare_hashes else "")
            if changed or _listed_otherwise(item, done, label, *seconds):
                todo.changed.append(item.key)
                if refresh:
                    todo.items.append(item)
                    continue
            if damage:
                if refresh and on_corrupt == "fail":
                    todo.items.append(item)
                    continue
                todo.damaged_before[item.key] = damage
            todo.num_present += 1
        elif item.key in failed:
            failure = failed[item.key]
            if retry_failed or _changed(item, failure.size_bytes, failure.mtime_ns):
                todo.items.append(item)
            else:
                todo.failed_before.append(failure)
        else:
            todo.items.append(item)
    if num_without_hash:
        on_note(
            f"{num_without_hash} videos were extracted without --hash; whether they changed is told from size and time alone"
        )
    return todo


def note_other_keys(done: FeatureSet, todo: list[VideoItem], on_note: Callable[[str], None]) -> None:
    """Say so where a video is about to be extracted that the output holds under another key."""
    whole = [(path, key) for path, key in zip(done.column("path"), done.keys, strict=True) if not is_segment_key(key)]
    key_of_path = dict(whole)
    videos = [item for item in todo if item.segment is None]
    twice = [(item, key_of_path[item.path_text]) for item in videos if item.path_text in key_of_path]
    twice = [(item, key) for item, key in twice if key != item.key]
    if twice:
        item, key = twice[0]
        on_note(
            f"{len(twice)} videos are in the output under other keys, such as {item.path_text} as '{key}', now '{item.key}': a "
            "key is relative to the folder named, or to what a list's paths share"
        )


def _changed(item: VideoItem, size_bytes: int, mtime_ns: int, sha256: str = "") -> bool:
    """Whether a video is another one than was extracted: by its content where `sha256` is known, else by size and time.

    Of an address what a store's listing told decides; where there was none, it is taken for the same: its path is only a name.
    """
    if item.url:
        told = ((item.size_bytes, size_bytes), (item.mtime_ns, mtime_ns))
        return any(now and now != before for now, before in told)
    try:
        return content_sha256(item.path) != sha256 if sha256 else file_stamp(item.path) != (size_bytes, mtime_ns)
    except OSError:
        return False


def _listed_otherwise(item: VideoItem, done: FeatureSet, label: str, start_seconds: float, end_seconds: float) -> bool:
    """Whether a list now names other clips of a video, other times or another label, than the output holds."""
    if (item.listed_starts is None and item.segment is None) or not os.path.exists(item.path):
        return False
    if item.label != label:
        return True
    if item.segment is not None:
        same_end = 0 <= item.segment.end_seconds - end_seconds <= SLACK_SECONDS  # it was cut to the video's
        return item.segment.start_seconds != start_seconds or not same_end
    try:
        starts = listed_start_frames(item, done.provenance.channel_order == "flow")
    except VideoError:  # the video is gone, or the list is not right: not what was extracted
        return True
    return not np.array_equal(starts, done.clip_table(item.key).start_frame)
