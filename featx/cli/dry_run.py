"""`featx extract --dry-run`: what a run would make, printed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.errors import one_line

if TYPE_CHECKING:
    from featx.features import Failure

__all__ = ["failed_line", "print_dry_run"]

OF_A_RUN = ("on_error", "retry_failed", "refresh", "overwrite", "repair", "timestamps")


def print_dry_run(options: dict, output: Path | None, count: bool, say: Callable[[str], None], as_json: bool) -> int:
    """Print the videos, clips and bytes; returns the exit code."""
    from featx.dry_run import dry_run

    for name in OF_A_RUN:
        options.pop(name)
    layers = options.pop("layers") or None
    result = dry_run(options.pop("inputs"), layers=layers, output=output, count=count, **options)
    for failure in result.failures:
        click.echo(failed_line("would fail", failure), err=True)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        for key, num_frames, num_clips in result.videos:
            say(one_line(f"{key}: {num_frames} frames, {num_clips} clips"))
        kind = "counted by decoding" if count else "an estimate from the headers (--count decodes to be sure)"
        say(
            f"{result.num_videos} videos, {result.num_frames} frames, {result.num_clips} clips, "
            f"{result.num_bytes / 1e3:,.1f} kB of feature file: {kind}; nothing was written"
        )
        if result.free_bytes is not None:
            enough = "" if result.num_bytes <= result.free_bytes else ", which is too little"
            say(f"the disk of {output} has {result.free_bytes / 1e3:,.1f} kB free{enough}")
    return 1 if result.failures else 0


def failed_line(word: str, failure: Failure) -> str:
    """A failure in one line."""
    return one_line(f"{word}: {failure.key} ({failure.path}): {failure.reason}")
