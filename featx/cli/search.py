"""`featx search`: the nearest videos or moments of a query, and videos that are there twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from featx.cli.help import Command
from featx.errors import one_line
from featx.small_files import STDOUT, require_different

if TYPE_CHECKING:
    from featx.neighbours import Duplicates, Hit, Moment, SearchResult

EXAMPLES = """\b
Examples:
  featx search features.h5 --query Wave/v_Wave_g01_c01 -k 5
  featx search features.h5 --query new.mp4 --query other.mp4 --json
  featx search clips.h5 --clips --query Wave/v_Wave_g01_c01 --at 0.5 --per-video
  featx search features.h5 --duplicates --threshold 0.9995
"""


@click.command("search", cls=Command, epilog=EXAMPLES)
@click.argument("features", type=click.Path())
@click.option("--query", "queries", multiple=True, metavar="VIDEO|KEY", help="What to search for; repeatable.")
@click.option("-k", type=int, help="How many neighbours.  [default: 10]")
@click.option("--layer", help="Layer to compare; may be left out where the file holds one, or stand in FEATURES.")
@click.option(
    "--clips", is_flag=True, help="Search moments: the clip features of a file made with --save clips or both."
)
@click.option("--at", "at_seconds", type=float, metavar="SECONDS", help="With --clips: only the query's clip there.")
@click.option("--per-video", is_flag=True, help="With --clips: only the best moment of each video.")
@click.option("--include-self", is_flag=True, help="Keep the video of a query KEY in its own answer.")
@click.option("--duplicates", is_flag=True, help="List the videos that are nearly the same, instead of a query.")
@click.option("--threshold", type=float, help="With --duplicates: the least cosine of a pair.  [default: 0.995]")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="For a query VIDEO: the weights, if they are not stored."
)
@click.option(
    "--card", type=click.Path(path_type=Path), help="For a query VIDEO: the card of your own that made FEATURES."
)
@click.option("--mean", type=click.Path(path_type=Path), help="For a query VIDEO: the mean cube that made FEATURES.")
@click.option("--device", default="auto", show_default=True, help="For a query VIDEO: auto, cpu, cuda or cuda:N.")
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(),
    metavar="FILE",
    help="Write the hits, or the pairs, to FILE; -: to stdout, instead of the text.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(features: str, as_json: bool, duplicates: bool, **options: object) -> int:
    """Find the videos of a feature file that are nearest to a query, by cosine.

    A query is a key of the file, or a video, which is extracted with the settings that the file records, and projected if the
    file is compact. The answer is exact: every row is looked at. With --clips moments are searched: every clip of the query is
    held against every clip of the file, and a hit says which of the two are near. With --duplicates all pairs of
    videos are compared.

    Exit codes: 0 all done, 1 a query video failed (listed), 2 wrong usage.
    """
    require_different({"--json": STDOUT if as_json else None, "--csv": options["csv_path"]})
    if duplicates:
        return _duplicates(features, as_json, options)
    if options.pop("threshold") is not None:
        raise click.UsageError("--threshold is for --duplicates, which is not given; leave it out")
    if not options["queries"]:
        raise click.UsageError("nothing is searched for; name a key or a video with --query, or give --duplicates")
    given = {name: options.pop(name) for name in ("k", "card")}
    options |= {name: value for name, value in given.items() if value is not None}
    if "card" in options:
        from featx.catalog import read_card_file

        options["card"] = read_card_file(options["card"])
    from featx.neighbours import search

    options["on_note"] = lambda note: click.echo(one_line(note), err=True)
    result = search(features, options.pop("queries"), **options)
    _print(result, _lines, as_json, options["csv_path"])
    for failure in result.failures:
        click.echo(one_line(f"failed: {failure.path}: {failure.reason}"), err=True)
    return 1 if result.failures else 0


def _duplicates(features: str, as_json: bool, options: dict) -> int:
    given = click.get_current_context().get_parameter_source
    others = ("queries", "k", "clips", "at_seconds", "per_video", "include_self", "weights", "card", "mean", "device")
    for name in others:
        if given(name) is ParameterSource.COMMANDLINE:
            named = {"queries": "--query", "k": "-k", "at_seconds": "--at"}.get(name, f"--{name.replace('_', '-')}")
            raise click.UsageError(f"--duplicates compares all videos of the file with each other; leave {named} out")
    from featx.neighbours import THRESHOLD, find_duplicates

    threshold = THRESHOLD if options["threshold"] is None else options["threshold"]
    result = find_duplicates(features, threshold, layer=options["layer"], csv_path=options["csv_path"])
    _print(result, _pair_lines, as_json, options["csv_path"])
    return 0


def _print(result: SearchResult | Duplicates, lines: Callable, as_json: bool, csv_path: str | None) -> None:
    if csv_path != STDOUT:  # which has been written there
        click.echo(json.dumps(result.as_dict(), indent=2) if as_json else "\n".join(lines(result)))


def _lines(result: SearchResult) -> list[str]:
    """A head, and for each query its name and a line a hit, in columns."""
    lines = [
        one_line(f"{result.features}: {result.num_rows} {result.unit}s, {result.checkpoint} {result.layer}; cosine")
    ]
    for answer in result.answers:
        clips = f" ({_count(answer.num_clips, 'clip')})" * bool(answer.num_clips)
        lines += ["", one_line(f"query {answer.query}{clips}")]
        if answer.made:
            lines.append(one_line(f"  {answer.made}"))
        width = max((len(one_line(hit.key)) for hit in answer.hits), default=0)
        lines += [f"  {hit.rank:>3}  {hit.cosine:.4f}  {_place(hit, width)}" for hit in answer.hits] or ["  nothing"]
    return lines + [f"note: {note}" for note in result.notes]


def _place(hit: Hit, width: int) -> str:
    if hit.moment is None:
        return one_line(hit.key)
    return f"{one_line(hit.key):<{width}}  {_span(hit.moment)}  (query {_span(hit.query_moment)})"


def _span(moment: Moment) -> str:
    if math.isnan(moment.start_seconds):
        return f"frames {moment.start_frame}-{moment.end_frame - 1}"
    return f"{moment.start_seconds:.2f}-{moment.end_seconds:.2f} s"


def _pair_lines(result: Duplicates) -> list[str]:
    """A head, the groups, and a line a pair."""
    found = f"{_count(len(result.pairs), 'pair')} of cosine {result.threshold:g} or more"
    if result.groups:
        found += f": {_count(sum(map(len, result.groups)), 'video')} in {_count(len(result.groups), 'group')}"
    head = f"{result.features}: {_count(result.num_rows, 'video')}, {result.checkpoint} {result.layer}; {found}"
    lines = [one_line(head)]
    if result.pairs:
        lines.append("")
    for i, group in enumerate(result.groups, 1):
        lines.append(one_line(f"group {i}: {', '.join(group)}"))
    if result.pairs:
        lines.append("")
    lines += [f"  {pair.cosine:.6f}  {one_line(pair.first)}  {one_line(pair.second)}" for pair in result.pairs]
    return lines + [f"note: {note}" for note in result.notes]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
