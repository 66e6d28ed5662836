"""`featx filters`."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json

__all__ = ["command"]


@click.command("filters", cls=Command, epilog="Example: featx filters c3d-sports1m -o filters.png")
@click.argument("backbone", required=False)
@click.option("-o", "--output", required=True, type=click.Path(), help="Picture to write (.png, .svg or .pdf).")
@click.option("--card", type=click.Path(path_type=Path), help="A card of your own (JSON), in place of BACKBONE.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="The card's file on disk, if 'featx weights' has not stored it."
)
@json_option
def command(backbone: str | None, output: str, card: Path | None, weights: Path | None, as_json: bool) -> None:
    """Draw the filters of the first convolution of the card BACKBONE, each with its time from left to right.

    'featx weights list' lists the cards. Filters are in true colours, whatever order the net takes its channels in.
    """
    if (backbone is None) == (card is None):
        raise click.UsageError("name a card, such as c3d-sports1m, or a file of your own with --card; one of the two")
    from featx.plots import check_picture

    check_picture(output)
    from featx.catalog import get_checkpoint, read_card_file

    chosen = get_checkpoint(backbone) if card is None else read_card_file(card)
    from featx.checkpoints.first_filters import first_filters
    from featx.plots import draw_filters

    filters = first_filters(chosen, weights)
    draw_filters(filters, output)
    if as_json:
        shape = filters.weights.shape
        print_json(
            {"output": output, "name": filters.name, "layer": filters.layer, "num_filters": shape[0], "shape": shape}
        )
        return
    click.echo(f"{len(filters.weights)} filters of {filters.name}, {filters.layer}, drawn to {output}")
