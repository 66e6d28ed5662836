"""`featx weights verify`: whether weights are what they claim to be, and whether two files hold the same ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.cli.help import Command
from featx.errors import CheckpointError, UnknownNameError

if TYPE_CHECKING:
    from featx.catalog import Checkpoint
    from featx.checkpoints.verify import Report

__all__ = ["say_findings", "verify"]

BULLETS = {"ok": "  ok       ", "warning": "  warning  ", "problem": "  problem  "}


@click.command(
    "verify",
    cls=Command,
    epilog="Example: featx weights verify c3d.pickle --against conv3d_deepnetA_sport1m_iter_1900000",
)
@click.argument("name_or_file", metavar="[NAME|FILE]", required=False)
@click.option("--backbone", help="The card to hold FILE against.  [default: the one that it fits]")
@click.option(
    "--card", type=click.Path(path_type=Path), help="A card of your own (JSON): verify it, with FILE or its own file."
)
@click.option("--variant", help="A variant of the card.")
@click.option(
    "--against", type=click.Path(path_type=Path), help="Another file of the same net, to compare tensor by tensor."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def verify(
    name_or_file: str | None,
    backbone: str | None,
    card: Path | None,
    variant: str | None,
    against: Path | None,
    as_json: bool,
) -> int:
    """Verify the weights of the card NAME, or those in FILE.

    Keys, shapes, finite values, checksums, plausible BatchNorm statistics, the range of pixels that the net expects, the
    card's dimensions, and a clip through the whole net. Exit codes: 0 good, 1 a problem or a difference, 2 wrong usage.
    """
    from featx.checkpoints import verify as verification

    chosen, weights = _chosen_weights(name_or_file, backbone, card)
    if variant:
        chosen = chosen.with_variant(variant)
    report = verification.verify(chosen, weights)
    comparison = None
    if against is not None and report.path and report.sha256:
        from featx.checkpoints.compare import compare

        comparison = compare(chosen, report.path, against)
    if as_json:
        facts = dataclasses.asdict(report) | {"good": report.is_good}
        if comparison is not None:
            facts["comparison"] = {"conclusion": comparison.conclusion(), "relations": comparison.relations}
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(f"{report.card}" + f", {report.path}" * bool(report.path))
        say_findings(report, only=tuple(BULLETS))
        if comparison is not None:
            click.echo(f"against {against}: {comparison.conclusion()}")
            for relation, names in comparison.groups().items():
                click.echo(f"  {relation}: {', '.join(names[:4])}" + f", … ({len(names)} in all)" * (len(names) > 4))
    return 0 if report.is_good and (comparison is None or comparison.is_equal) else 1


def _chosen_weights(
    name_or_file: str | None, backbone: str | None, card: Path | None
) -> tuple[Checkpoint, Path | None]:
    """The card that is meant, and the file; None stands for the card's own or stored one."""
    from featx.catalog import CHECKPOINTS, get_checkpoint, read_card_file

    if card is not None:
        if backbone is not None:
            raise click.UsageError("both --card and --backbone are given; leave one of them out")
        return read_card_file(card), None if name_or_file is None else Path(name_or_file)
    if name_or_file is None:
        raise click.UsageError("name a card or a file of weights, or a card of your own with --card")
    if name_or_file in CHECKPOINTS and backbone is None:
        return CHECKPOINTS[name_or_file], None
    if backbone is not None:
        return get_checkpoint(backbone), Path(name_or_file)
    if not Path(name_or_file).exists():
        raise UnknownNameError(
            "card or file of weights", name_or_file, CHECKPOINTS, "'featx weights list' lists the cards."
        )
    return _identified(Path(name_or_file)), Path(name_or_file)


def _identified(file: Path) -> Checkpoint:
    """The card that a file fits; of several the one whose file has that name, or as which it was stored, else the first."""
    from featx.catalog import CHECKPOINTS
    from featx.checkpoints.identify import identify
    from featx.checkpoints.identity import stored_card

    best = identify(file, CHECKPOINTS.values())[0]
    if not best.exact and 2 * best.num_matched < best.num_expected:
        raise CheckpointError(
            f"{file} fits no card of featx; if it is of a net of your own, name its card with --card, and if not, the card "
            "that is meant with --backbone, and it will say what does not fit"
        )
    if not best.exact:
        raise CheckpointError(
            f"{file} fits no card in every tensor; nearest is {best.cards[0]}, with {best.num_matched} of {best.num_expected} "
            f"tensors ({best.naming} names); name the card that is meant with --backbone, and it will say what does not fit"
        )
    cards = [CHECKPOINTS[name] for name in best.cards]
    stored_as = stored_card(file)
    named = [
        card
        for card in cards
        if card.name == stored_as or file.name in (card.file, *(source.file for source in card.source))
    ]
    chosen = (named or cards)[0]
    if len(cards) > 1:
        click.echo(
            f"{file} fits {', '.join(best.cards)} alike; taken as {chosen.name} (--backbone takes another)", err=True
        )
    return chosen


def say_findings(report: Report, only: tuple[str, ...]) -> None:
    for finding in report.findings:
        if finding.level in only:
            click.echo(BULLETS[finding.level] + finding.text)
