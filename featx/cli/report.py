"""`featx report`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json
from featx.errors import one_line

__all__ = ["command"]


@click.command("report", cls=Command, epilog="Example: featx report features.h5 -o report.html")
@click.argument("features", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Page to write (.html).")
@click.option("--layer", "layers", multiple=True, help="Layer to show; repeatable.  [default: all of the file]")
@click.option(
    "--method", default="pca", show_default=True, metavar="NAME", help="How to draw descriptors: pca, or tsne."
)
@click.option("--title", default="", help="Title of the page.  [default: the name of the file]")
@click.option(
    "--videos",
    type=click.Path(),
    metavar="FOLDER",
    help="Where the videos lie now.  [default: where they were, by the file]",
)
@click.option("--no-thumbnails", is_flag=True, help="Take no pictures of the videos.")
@click.option("--overwrite", is_flag=True, help="Replace the page if it exists.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(features, output, no_thumbnails, quiet, as_json, **options) -> None:
    """Show what a feature file holds as one page for a browser, which needs no network and no other file.

    How the features were made, failures, clips a video, and the descriptors on a plane: with a thumbnail, the name and the
    nearest neighbours at the pointer, a filter by class folder, and the cosine of any two videos.
    """
    from featx.report import write_report

    summary = write_report(features, output, thumbnails=not no_thumbnails, progress=not quiet, **options)
    if as_json:
        print_json(summary)
        return
    click.echo(
        f"{summary.output}: {summary.num_videos} videos, {summary.num_classes} classes, {summary.num_failures} failures, "
        f"{summary.num_thumbnails} thumbnails, {' and '.join(summary.layers)}, {summary.num_bytes / 1e6:.1f} MB"
    )
    for note in summary.notes:
        click.echo(one_line(f"note: {note}"))
