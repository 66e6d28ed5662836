"""`featx weights`: the published weights that featx knows, which of them are here, and how the others get here."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.cli.help import Group
from featx.cli.json_output import json_option, print_json
from featx.cli.weights_verify import say_findings, verify
from featx.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from featx.catalog import Checkpoint, Source
    from featx.checkpoints.verify import Report

PAGE_COLUMNS = 100
UNTOLD = {"base", "folder", "variant"}  # of a card: what its JSON has not

EXAMPLES = """\b
Examples:
  featx weights list
  featx weights get tv-r3d18-kinetics
  featx weights add c3d-sports1m c3d.pickle
  featx weights verify c3d-sports1m
"""


@click.group("weights", cls=Group, epilog=EXAMPLES)
def command() -> None:
    """List, fetch, store and verify published weights.

    What is fetched or added is converted once and kept in the cache folder: $FEATX_HOME, else the platform's place for caches.
    """


command.add_command(verify)


# ------------------------------------------------------------------------------------------------------- list and show


@command.command("list", epilog="Example: featx weights list")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def list_cards(as_json: bool) -> None:
    """List every card: what it is, and whether its weights are here."""
    from featx.catalog import CHECKPOINTS
    from featx.checkpoints.cache import cache_folder

    rows = [_row(card) for card in CHECKPOINTS.values()]
    if as_json:
        click.echo(json.dumps({row["name"]: row for row in rows}, indent=2))
        return
    titles = {
        "name": "name",
        "architecture": "architecture",
        "classes": "classes",
        "size_mb": "MB",
        "licence": "licence",
        "get": "from",
        "here": "here",
        "data": "data",
    }
    table = [titles] + [{name: _cell(row[name]) for name in titles} for row in rows]
    widths = {name: max(len(line[name]) for line in table) for name in titles if name != "data"}
    indent = sum(widths.values()) + 2 * len(widths)
    for line in table:
        cells = [
            line[name].rjust(width) if name in ("classes", "size_mb") else line[name].ljust(width)
            for name, width in widths.items()
        ]
        click.echo(
            textwrap.fill(
                line["data"], PAGE_COLUMNS, initial_indent="  ".join([*cells, ""]), subsequent_indent=" " * indent
            )
        )
    click.echo(
        "\nfrom   get: 'featx weights get NAME' fetches it; browser: 'featx weights show NAME' says from where, and\n"
        "       'featx weights add NAME FILE' stores what you saved\n"
        f"here   embedded in featx, or stored in {cache_folder()}"
    )


def _row(card: Checkpoint) -> dict[str, object]:
    """What the list tells of a card."""
    from featx.checkpoints import cache

    if card.embedded:
        here, way = "yes", "featx"
    else:
        try:
            here = "yes" if cache.find(card) else "no"
        except CheckpointError:
            here = "damaged"
        way = "get" if card.downloads else "browser"
    return {
        "name": card.name,
        "architecture": card.architecture,
        "data": card.data,
        "classes": card.classes,
        "size_mb": card.size_mb,
        "licence": card.licence,
        "get": way,
        "urls": list(card.urls),
        "here": here,
    }


def _cell(value: object) -> str:
    if value is None:
        return "?"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


@command.command("show", epilog="Example: featx weights show c3d-sports1m")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Tell everything that featx knows of the weights NAME.

    NAME is a card's name, or a card's JSON file.
    """
    from featx.catalog import get_checkpoint
    from featx.checkpoints import cache

    card = get_checkpoint(name)
    if as_json:
        stored = None if card.embedded or card.folder is not None else cache.read_record(card.name)
        path = stored.path if stored is not None else card.folder / card.file if card.folder and card.file else None
        facts = {
            field.name: getattr(card, field.name) for field in dataclasses.fields(card) if field.name not in UNTOLD
        }
        print_json(facts, clip_shape=card.clip_shape, stored=stored, path=path)
        return
    sampling, pixels = card.sampling, card.preprocess
    labels = "" if card.labels is None else f": {', '.join(card.labels[:3])}, …"
    _tell("name", card.name)
    _tell("architecture", card.architecture + "".join(f", {k} {v}" for k, v in card.arguments.items()))
    _tell("data", f"{card.data}, {card.classes} classes{labels}")
    _tell("licence", card.licence)
    _tell("layers", ", ".join(f"{k} {v}" + " (default)" * (k == card.default_layer) for k, v in card.layers.items()))
    _tell("clips", f"{sampling.length} frames, stride {sampling.stride}, frame step {sampling.frame_step}")
    _tell("pixels", _pixels(pixels))
    for variant, changes in card.variants.items():
        _tell("variant", f"{variant}: {changes.get('note', '')}".rstrip(": "))
    for data, figures in card.published.items():
        _tell("published", f"{data}: " + ", ".join(f"{layer} {figure} %" for layer, figure in figures.items()))
        _tell("printed in", card.published_source[data])
    _tell("note", card.note)
    for number, source in enumerate(card.source, 1):
        _tell(f"source {number}", _source(source))
    if card.embedded:
        _tell("here", "embedded in featx")
        return
    if card.folder is not None:
        _tell("here", f"{card.folder / card.file}" if card.file else "give the weights with --weights FILE")
        return
    record = cache.read_record(card.name)
    if record is not None:
        origin = record.origin
        _tell("here", str(record.path))
        _tell(
            "made from",
            f"{origin.file} ({origin.form}, {origin.naming} names), {origin.num_bytes:,} bytes, {origin.added}",
        )
        _tell("", f"SHA-256 {origin.sha256}" + f", fetched from {origin.url}" * bool(origin.url))
        if record.mean is not None:
            _tell("mean cube", f"made from {record.mean.origin.file}, used unless --mean says otherwise")
    elif card.downloads:
        _tell("here", f"no; 'featx weights get {card.name}' fetches source {card.source.index(card.downloads[0]) + 1}")
    else:
        _tell("here", f"no; save it with a browser, then 'featx weights add {card.name} {card.file or 'FILE'}'")


def _tell(word: str, text: str) -> None:
    """One line of `show`, wrapped under its word."""
    if text:
        click.echo(
            textwrap.fill(
                text,
                PAGE_COLUMNS,
                initial_indent=f"{word:<14}",
                subsequent_indent=" " * 14,
                break_long_words=False,
                break_on_hyphens=False,  # so that a URL or a command can be copied
            )
        )


def _pixels(pixels) -> str:
    if pixels.resize is None:
        resize = "not resized"
    else:
        size = "x".join(map(str, pixels.resize)) if isinstance(pixels.resize, tuple) else f"short side {pixels.resize}"
        resize = f"resized to {size} ({pixels.interpolation})"
    place = "the centre" if pixels.crop_offset is None else "y {}, x {}".format(*pixels.crop_offset)
    numbers = ", ".join(f"{value:g}" for value in pixels.mean)
    text = f"{resize}, cropped to {pixels.crop} at {place}, {pixels.channel_order.upper()}"
    text += f", times {pixels.scale:g}" * (pixels.scale != 1) + f", minus {numbers}"
    return text + (
        f", divided by {', '.join(f'{value:g}' for value in pixels.std)}" if any(v != 1 for v in pixels.std) else ""
    )


def _source(source: Source) -> str:
    words = [
        source.form,
        source.file * (source.file not in source.url),
        "plain URL" if source.plain else "needs a browser",
    ]
    words.append(f"SHA-256 {source.sha256_prefix}…" * bool(source.sha256_prefix))
    words.append(f"SHA-1 {source.sha1}" * bool(source.sha1))
    return f"{source.url} ({', '.join(word for word in words if word)})"


# ------------------------------------------------------------------------------------------------------- get and add


@command.command("get", epilog="Example: featx weights get tv-r3d18-kinetics")
@click.argument("name")
@click.option(
    "--source",
    "number",
    type=int,
    help="Which of the sources of 'featx weights show NAME'.  [default: the first plain]",
)
@click.option("--mean", type=click.Path(path_type=Path), help="The mean cube of these weights (.binaryproto or .npy).")
@click.option("--quiet", is_flag=True, help="Show no bar.")
@json_option
def get(name: str, number: int | None, mean: Path | None, quiet: bool, as_json: bool) -> int:
    """Fetch the weights NAME and store them in the cache folder.

    A broken download goes on where it ended when the command is run again. Where the file is published on hosts that need a
    browser, it says what to do, and exits with 2. Weights that are here already are left as they are.
    """
    from featx.catalog import get_checkpoint
    from featx.checkpoints import acquire, cache
    from featx.progress import Progress

    card = get_checkpoint(name)
    source = _chosen_source(card, number)
    here = cache.read_sound_record(card.name) if number is None and card.folder is None else None
    if here is not None and mean is not None:
        here, report = acquire.add(card, here.path, mean)
        if as_json:
            print_json(here, path=here.path, fetched=False, findings=report.findings)
        else:
            _say_stored(here, report)
        return 0
    if here is not None and as_json:
        print_json(here, path=here.path, fetched=False, findings=())
        return 0
    if here is not None:
        click.echo(
            f"{card.name} is here already: {here.path} ('featx weights get {card.name} --source N' fetches it anew)"
        )
        return 0
    if not card.embedded and card.folder is None and (source is None or not source.plain):
        for line in acquire.browser_instructions(card):
            click.echo(line, err=as_json)
        return 2
    with Progress(name, unit="B", show=not quiet) as bar:

        def progress(num_bytes: int, total: int | None) -> None:
            if total != bar.total:
                bar.start(total)
            bar.advance(num_bytes - bar.done)

        try:
            note = partial(click.echo, err=True)
            record, report = acquire.get(card, source, mean, on_progress=progress, on_note=note)
        except CheckpointError as error:
            others = [n for n, other in enumerate(card.source, 1) if other.plain and other is not source]
            if others:
                raise CheckpointError(f"{error} (or try --source {' or '.join(map(str, others))})") from None
            raise
    if as_json:
        print_json(record, path=record.path, fetched=True, findings=report.findings)
        return 0
    _say_stored(record, report)
    taken = source or card.downloads[0]
    if not taken.sha256_prefix and not taken.sha1:
        click.echo(f"  note     no checksum of it is published, so nobody knows that it is {taken.file} as it was made")
    return 0


def _chosen_source(card: Checkpoint, number: int | None) -> Source | None:
    if number is None:
        return card.downloads[0] if card.downloads else None
    if not 1 <= number <= len(card.source):
        raise UsageError(
            f"--source is {number}, but {card.name} has {len(card.source)}; see 'featx weights show {card.name}'"
        )
    return card.source[number - 1]


@command.command(
    "add", epilog="Example: featx weights add c3d-sports1m c3d.pickle --mean sport1m_train16_128_mean.binaryproto"
)
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--mean", type=click.Path(path_type=Path), help="The mean cube of these weights (.binaryproto or .npy).")
@json_option
def add(name: str, file: Path, mean: Path | None, as_json: bool) -> None:
    """Store a published FILE as the weights NAME.

    FILE is in any known form, and must fit the card in every tensor. It is converted once, checked, and kept as safetensors
    with the SHA-256 of FILE; FILE itself is not needed any more.
    """
    from featx.catalog import get_checkpoint
    from featx.checkpoints import acquire, cache

    card = get_checkpoint(name)
    before = cache.read_sound_record(card.name)
    record, report = acquire.add(card, file, mean)
    if as_json:
        print_json(record, path=record.path, findings=report.findings)
        return
    _say_stored(record, report)
    if before is not None and before.origin.sha256 != record.origin.sha256:
        click.echo(f"  instead  of the weights from {before.origin.file}, which are no longer stored")


def _say_stored(record, report: Report) -> None:
    origin = record.origin
    click.echo(f"{record.card} is stored: {record.path}")
    click.echo(f"  from     {origin.file}, {origin.num_bytes:,} bytes ({origin.form}, {origin.naming} names)")
    click.echo(f"  SHA-256  {origin.sha256}")
    if record.mean is not None:
        click.echo(f"  mean     {record.mean.origin.file}, subtracted before the crop")
    say_findings(report, only=("warning", "problem"))
