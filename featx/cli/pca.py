"""`featx pca`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json

__all__ = ["command"]


@click.command(
    "pca", cls=Command, epilog="Example: featx pca features.h5 -o compact.h5 --dims 500 --fit-on trainlist01.txt"
)
@click.argument("features", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Feature file to write.")
@click.option("--dims", type=int, help="Dimensions to keep; with --basis at most as many as it has.")
@click.option("--layer", "layers", multiple=True, help="Layer to keep; repeatable.  [default: all of the file]")
@click.option(
    "--fit-on", type=click.Path(), metavar="LIST", help="Fit on the videos in LIST only: keys, paths or a train list."
)
@click.option(
    "--basis", type=click.Path(), metavar="FILE", help="Reuse the basis in FILE, written by an earlier 'featx pca'."
)
@click.option("--whiten/--no-whiten", default=None, help="Scale every dimension to unit variance.  [default: no]")
@click.option("--l2/--no-l2", default=None, help="L2-normalise the projected rows.  [default: no]")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@json_option
def command(features, output, as_json, **options) -> None:
    """Make the descriptors of a feature file compact by PCA; clip features go along.

    It is exact up to 10,000 dimensions, and of any number where it is fitted on up to 16,000 videos. Beyond both it is
    randomised, and its error is printed.
    The basis is saved in the output and can be reused on other files with --basis.
    """
    from featx.compact import pca

    summary = pca(features, output, **options)
    if as_json:
        print_json(summary)
        return
    for layer in summary.layers:
        click.echo(
            f"{layer.layer}: {layer.num_features} -> {layer.num_dims} dimensions, "
            f"{layer.explained:.2%} of the variance explained"
        )
        error = f", error at most {layer.error:.1e} of a variance" if layer.method == "randomised" else ", exact"
        click.echo(f"  fitted on {layer.fitted_on} by the {layer.method} method{error}")
    clips = f" and {summary.num_clips} clips" if summary.num_clips else ""
    click.echo(f"{summary.num_videos} videos{clips} written to {summary.output}")
