"""The options with which a command is told its weights; the same words in every command that runs a backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from featx.catalog import Checkpoint

__all__ = ["checkpoint_options", "settle_backbone"]

DEFAULT_BACKBONE = "res3d-mini"

OPTIONS = (
    click.option("--backbone", help=f"A card's name; 'featx weights list' lists them.  [default: {DEFAULT_BACKBONE}]"),
    click.option("--card", type=click.Path(path_type=Path), help="A card of your own (JSON), in place of --backbone."),
    click.option(
        "--weights",
        type=click.Path(path_type=Path),
        help="The card's file on disk, if 'featx weights' has not stored it.",
    ),
    click.option(
        "--mean",
        type=click.Path(path_type=Path),
        help="The mean cube of a C3D card (.binaryproto or .npy); 'card' for the card's constants.",
    ),
    click.option("--variant", help="A variant of the card, such as 'port' of the P3D cards."),
)


def checkpoint_options(command: Callable) -> Callable:
    """Give a command --backbone, --card, --weights, --mean and --variant."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def settle_backbone(options: dict) -> Checkpoint:
    """Put what --backbone and --card say together into options["backbone"], as `featx.Extractor` takes it.

    Returns the card, of the variant asked for. Raises UsageError and UnknownNameError before torch is loaded.
    """
    card = options.pop("card")
    if card is not None and options["backbone"] is not None:
        raise click.UsageError(
            f"both --card {card} and --backbone {options['backbone']} are given; leave one of them out"
        )
    from featx.catalog import get_checkpoint, read_card_file

    if card is not None:
        options["backbone"] = read_card_file(card)
    elif options["backbone"] is None:
        options["backbone"] = DEFAULT_BACKBONE
    chosen = get_checkpoint(options["backbone"])
    return chosen.with_variant(options["variant"]) if options.get("variant") else chosen
