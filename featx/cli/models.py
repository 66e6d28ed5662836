"""`featx models`: the architectures that can be built, and how large they are."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator

import click

from featx.cli.help import Command

__all__ = ["command"]

NUM_LAYERS_LISTED = 3


@click.command("models", cls=Command, epilog="Example: featx models resnet34")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with all layers of every architecture.")
def command(name: str | None, as_json: bool) -> None:
    """List the architectures, their size and last layers; with NAME, all layers of one.

    Numbers are those of the published form, for the clip shown (channels x frames x height x width). 'featx weights list' tells
    for which of them there are weights.
    """
    from featx.backbones import ARCHITECTURES
    from featx.errors import UnknownNameError, UsageError

    if name is not None:
        if name not in ARCHITECTURES:
            raise UnknownNameError("architecture", name, ARCHITECTURES, "'featx models' lists them.")
        facts = _facts(name)
        if as_json:
            click.echo(json.dumps(facts, indent=2))
        else:
            _show(facts)
        return
    problems = [problem for problem in ARCHITECTURES.problems() if "is passed over" in problem]

    def usable() -> Iterator[dict]:
        for each in ARCHITECTURES:
            try:
                yield _facts(each)
            except UsageError as error:  # another package's, which must not hide the others
                problems.append(str(error))

    if as_json:
        click.echo(json.dumps({facts["name"]: facts for facts in usable()}, indent=2))
    else:
        _list(ARCHITECTURES, usable())
    for problem in problems:
        click.echo(f"featx: warning: {problem}", err=True)


def _facts(name: str) -> dict:
    """What there is to say of an architecture; it is built without memory for its weights."""
    import torch

    from featx.backbones import ARCHITECTURES, build
    from featx.backbones.counting import survey
    from featx.catalog import CHECKPOINTS

    row = ARCHITECTURES[name]
    with torch.device("meta"):
        net = build(name).eval()
    counts, shapes = survey(net, row.clip_shape)
    return {
        "name": name,
        "source": row.source,
        "package": ARCHITECTURES.package_of(name) or "featx",
        "class": f"{row.module}.{row.kind}",
        "arguments": dict(row.arguments),
        "clip_shape": row.clip_shape,
        **dataclasses.asdict(counts),
        "layers": {layer: {"shape": shape, "dimensions": math.prod(shape)} for layer, shape in shapes.items()},
        "cards": [card.name for card in CHECKPOINTS.values() if card.architecture == name],
    }


def _list(names, rows: Iterator[dict]) -> None:
    """One line as soon as it is known: counting all takes seconds."""
    width = max(map(len, names))
    click.echo(f"{'name':<{width}}  {'clip':<14}  {'params/M':>8}  {'madds/G':>8}  last layers and their dimensions")
    for facts in rows:
        layers = list(facts["layers"].items())[-NUM_LAYERS_LISTED:]
        shown = ", ".join(f"{layer} {found['dimensions']}" for layer, found in layers)
        click.echo(
            f"{facts['name']:<{width}}  {_times(facts['clip_shape']):<14}  {facts['parameters'] / 1e6:>8.2f}  "
            f"{facts['multiply_adds'] / 1e9:>8.2f}  {shown}"
        )


def _show(facts: dict) -> None:
    lines = {
        "name": facts["name"],
        "source": facts["source"],
        "class": facts["class"] + f", of the package {facts['package']}" * (facts["package"] != "featx"),
        "built with": ", ".join(f"{key} {value}" for key, value in facts["arguments"].items()) or "its own defaults",
        "clip": f"{_times(facts['clip_shape'])} (channels x frames x height x width)",
        "parameters": f"{facts['parameters']:,}",
        "mult-adds": f"{facts['multiply_adds']:,} a clip",
        "cards": ", ".join(facts["cards"]) or "none: featx knows of no published weights",
    }
    for word, text in lines.items():
        click.echo(f"{word:<12}{text}")
    click.echo("layers")
    width = max(map(len, facts["layers"]))
    for layer, found in facts["layers"].items():
        click.echo(f"    {layer:<{width}}  {_times(found['shape']):<16}  {found['dimensions']:>9}")


def _times(shape) -> str:
    return "x".join(map(str, shape))
