"""`featx extract --dry-run`: what a run would make, and with `--estimate` what it would take, printed."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx import remote
from featx.cli.durations import duration_text
from featx.errors import one_line
from featx.scratch import require_cache

if TYPE_CHECKING:
    from featx.dry_run import DryRun
    from featx.estimate import Estimate, Times
    from featx.features import Failure

__all__ = ["failed_line", "print_dry_run"]

NOT_OF_AN_ESTIMATE = ("cache", "cache_bytes", "on_error", "repair", "timestamps")
NOT_OF_A_DRY_RUN = (*NOT_OF_AN_ESTIMATE, "retry_failed", "refresh", "overwrite")
OF_AN_ESTIMATE = ("machines", "price", "sample")
LARGE_BYTES = 1e9  # of an output whose parts take noticeable time to join


class Price(click.ParamType):
    """An amount an hour, with its currency or without: "2.5", "2.50 EUR"."""

    name = "amount"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, str]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([^\d\s.,+-]{0,8}) ?(\d{1,12}(?:\.\d{1,6})?) ?([^\d\s.,+-]{0,8})", str(value).strip())
        if match is None or (match[1] and match[3]):
            self.fail(f"'{value}' is no price of an hour; write a number such as 2.5, or '2.5 EUR'", param, ctx)
        return float(match[2]), match[1] or match[3]


def dry_run_options(command: Callable) -> Callable:
    """The options of a dry run."""
    options = (
        click.option("--dry-run", is_flag=True, help="Print the videos, clips and bytes expected; write nothing."),
        click.option(
            "--count", is_flag=True, help="With --dry-run: decode every video instead of believing its header."
        ),
        click.option(
            "--estimate",
            is_flag=True,
            help="With --dry-run: extract a few videos into a temporary folder, and print how long all that are left will "
            "take, and which part of the work is the slowest.",
        ),
        click.option(
            "--machines", type=int, metavar="N", help="With --estimate: also on N machines like this one. [default: 1]"
        ),
        click.option(
            "--price", type=Price(), metavar="AMOUNT", help="With --estimate: of one machine for an hour, such as 2.5."
        ),
        click.option(
            "--sample",
            type=int,
            metavar="N",
            help="With --estimate: videos to extract, drawn evenly over their sizes. [default: about 20 seconds of them]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def print_dry_run(options: dict, output: Path | None, say: Callable[[str], None], as_json: bool) -> int:
    """Print the videos, clips and bytes, and the estimate where one is asked for; returns the exit code."""
    from featx import store
    from featx.dry_run import dry_run

    with_estimate = options.pop("estimate")
    if output is not None and not remote.is_address(output):
        (store.require_replaceable if options["overwrite"] else store.require_output)(output)
    require_cache(options["cache"], options["cache_bytes"])
    settings = {name: options.pop(name) for name in OF_AN_ESTIMATE}
    for name in NOT_OF_AN_ESTIMATE if with_estimate else NOT_OF_A_DRY_RUN:
        options.pop(name)
    layers = options.pop("layers") or None
    estimate, currency = None, ""
    if with_estimate:
        from featx.estimate_run import estimate_run

        price, currency = settings["price"] or (None, "")
        result, estimate = estimate_run(
            options.pop("inputs"),
            layers=layers,
            output=output,
            machines=1 if settings["machines"] is None else settings["machines"],
            price_per_hour=price,
            sample=settings["sample"],
            on_note=lambda note: say(one_line(note)),
            **options,
        )
    else:
        result = dry_run(options.pop("inputs"), layers=layers, output=output, **options)
    for failure in result.failures:
        click.echo(failed_line("would fail", failure), err=True)
    if as_json:
        facts = dataclasses.asdict(result)
        if with_estimate:
            facts["estimate"] = None if estimate is None else dataclasses.asdict(estimate) | {"currency": currency}
        click.echo(json.dumps(facts, indent=2))
    else:
        _say_result(result, output, with_estimate, say)
        if with_estimate:
            _say_estimate(result, estimate, currency, say)
    return 1 if result.failures else 0


def _say_result(result: DryRun, output: Path | None, with_estimate: bool, say: Callable[[str], None]) -> None:
    if not with_estimate:
        for key, num_frames, num_clips in result.videos:
            say(one_line(f"{key}: {num_frames} frames, {num_clips} clips"))
    kind = "counted by decoding" if result.counted else "an estimate from the headers (--count decodes to be sure)"
    written = "nothing was written" if not with_estimate else f"nothing was written{f' to {output}' if output else ''}"
    say(
        f"{result.num_videos} videos, {result.num_frames} frames, {result.num_clips} clips, "
        f"{result.num_bytes / 1e3:,.1f} kB of feature file: {kind}; {written}"
    )
    if result.num_addresses:
        say(
            f"{result.num_addresses} videos of addresses are not among them: nothing is fetched to tell what is in them"
        )
    if result.free_bytes is not None:
        enough = "" if result.num_bytes <= result.free_bytes else ", which is too little"
        say(f"the disk of {output} has {result.free_bytes / 1e3:,.1f} kB free{enough}")


def _say_estimate(result: DryRun, estimate: Estimate | None, currency: str, say: Callable[[str], None]) -> None:
    if estimate is None:
        say("no video is left that could be extracted")
        return
    sample, profile = estimate.sample, estimate.sample.profile
    failed = f", {sample.num_failed} failed" * bool(sample.num_failed)
    say(
        f"measured: {sample.num_videos} videos{failed}, {profile.num_clips} clips of the {sample.told_clips} that headers "
        f"promise, in {profile.wall_seconds:.1f} s, besides {profile.start_seconds:.1f} s to begin and to end"
    )
    stages = ", ".join(f"{name} {_rate(rate)}" for name, rate in estimate.stages.items())
    say(f"clips/s that each stage would give on its own: {stages}; the bottleneck is {estimate.bottleneck}")
    say(
        f"left: {estimate.num_videos} videos, {estimate.num_clips} clips, at {_rate(estimate.clips_per_second)} clips/s; the "
        f"longest video takes {duration_text(estimate.longest_seconds)}"
    )
    say(f"1 machine like this one: {_times(estimate.one, currency)}")
    if estimate.machines > 1:
        fullest = f"the fullest has {estimate.imbalance:.2f} times its share"
        say(f"{estimate.machines} machines, a shard each: {_times(estimate.shards, currency)}; {fullest}")
        say(f"{estimate.machines} machines, one queue of videos: {_times(estimate.queue, currency)}")
    if result.num_bytes > LARGE_BYTES:
        say(f"not counted: joining the parts at the end, which reads and writes {result.num_bytes / 1e9:,.1f} GB once")


def _times(times: Times, currency: str) -> str:
    text = f"{duration_text(times.seconds)} ({duration_text(times.low_seconds)} to {duration_text(times.high_seconds)})"
    return text if times.cost is None else f"{text}, at a cost of {times.cost:,.2f} {currency}".rstrip()


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def failed_line(word: str, failure: Failure) -> str:
    """A failure in one line."""
    return one_line(f"{word}: {failure.key} ({failure.path}): {failure.reason}")
