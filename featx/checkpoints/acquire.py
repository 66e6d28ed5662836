"""Weights into the cache: from a file of the user's, or fetched from where they are published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from featx.catalog import Checkpoint, Source
from featx.checkpoints import cache, load, with_mean_cube
from featx.checkpoints.download import Progress, download
from featx.checkpoints.files import file_form, file_sha256
from featx.checkpoints.mean_cube import mean_note
from featx.checkpoints.verify import Finding, Report, inspect
from featx.durable import locked
from featx.errors import CheckpointError, UsageError

__all__ = ["add", "browser_instructions", "get"]


def add(
    card: Checkpoint, path: str | Path, mean: str | Path | None = None, *, url: str = ""
) -> tuple[cache.Record, Report]:
    """Convert a published file of a card to safetensors and keep it in the cache, with its mean cube if one is given.

    The file must load as `load` demands, and pass `inspect` without a problem. One that featx stored keeps its origin.
    `url` is where it was fetched, "" for a file of the user's. Without `mean` a cube that was stored before stays, which must
    be in order. Returns what is stored and what `inspect` found. Raises CheckpointError, and UsageError for a card that
    brings its own file or takes no mean cube.
    """
    path = Path(path)
    _require_storable(card)
    cube, odd = None, ""
    if mean is None:
        cache.kept_cube(card.name)
    else:
        odd = mean_note(card, mean)
        cube = with_mean_cube(card, mean, card.sampling.length).preprocess.mean_cube
        cube = (cube, cache.Origin.of(Path(mean), file_sha256(Path(mean)), "mean cube"))
    loaded = load(card, path)
    report = inspect(card, loaded)
    if not report.is_good:
        raise CheckpointError(
            f"{path} loads as {card.name}, but is not sound: {'; '.join(report.problems)}; nothing is stored"
        )
    origin = loaded.origin or cache.Origin.of(path, loaded.sha256, file_form(path), loaded.naming, url)
    record = cache.store(card.name, loaded.backbone.state_dict(), origin, cube)
    if odd:
        report = replace(report, findings=(*report.findings, Finding("warning", f"mean cube {mean}: {odd}")))
    return record, report


def get(
    card: Checkpoint,
    source: Source | None = None,
    mean: str | Path | None = None,
    *,
    on_progress: Progress = lambda num_bytes, total: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> tuple[cache.Record, Report]:
    """Fetch a card's weights from a plain URL (default: the card's first) and `add` them, with a mean cube if one is given.

    Another process that fetches them is waited for, and what it stored is taken; `on_note` is told so. Raises CheckpointError
    where the card has no plain URL, with what to do instead, and as `download` and `add` do.
    """
    _require_storable(card)
    if source is None and not card.downloads:
        raise CheckpointError(" ".join(browser_instructions(card)))
    source = source or card.downloads[0]
    if mean is not None:
        with_mean_cube(card, mean, card.sampling.length)  # what is wrong with it is told before the long download
    else:
        cache.kept_cube(card.name)
    target = cache.downloads_folder() / card.name / source.file
    with _alone(card, target.parent, on_note) as waited:
        record = cache.read_sound_record(card.name) if waited and mean is None else None
        if record is not None and record.origin.url == source.url:
            return record, inspect(card, load(card))
        download(source.url, target, sha256_prefix=source.sha256_prefix, sha1=source.sha1, on_progress=on_progress)
        try:
            return add(card, target, mean, url=source.url)
        finally:
            target.unlink(missing_ok=True)


@contextmanager
def _alone(card: Checkpoint, folder: Path, on_note: Callable[[str], None]) -> Iterator[bool]:
    """From the first byte until it is stored, a card's file is one process's; yields whether another one was waited for."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            note = f"another process is fetching {card.name}; it is waited for"
            waited = stack.enter_context(locked(folder, lambda: on_note(note)))
        except OSError as error:
            raise CheckpointError(
                f"{folder} cannot be written ({error.strerror or error}); make room, or set $FEATX_HOME to another folder"
            ) from None
        yield waited


def _require_storable(card: Checkpoint) -> None:
    if card.embedded or card.folder is not None:
        where = "is embedded in featx" if card.embedded else "is a card of your own, which names its file itself"
        raise UsageError(f"{card.name} {where}, so nothing is stored for it; use --weights FILE for other weights")


def browser_instructions(card: Checkpoint) -> list[str]:
    """How to get a card's file from hosts that no program can fetch from, in lines."""
    file = card.file or "FILE"
    return [
        f"{card.name} is published on hosts that need a browser. Save the file from one of:",
        *(f"    {source.url}" + f"  ({source.form})" * bool(source.form) for source in card.source),
        "then store it with:",
        f"    featx weights add {card.name} {file}",
    ]
