"""`featx embed`."""

from __future__ import annotations

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json
from featx.small_files import STDOUT, require_different

__all__ = ["command"]


@click.command("embed", cls=Command, epilog="Example: featx embed features.h5 -o tsne.png --labels classes.csv")
@click.argument("features", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Picture to write (.png, .svg or .pdf).")
@click.option("--layer", help="Layer to draw; may be left out where the file holds one, or stand in FEATURES.")
@click.option("--clips", is_flag=True, help="Clip features, not descriptors of videos.")
@click.option(
    "--labels",
    type=click.Path(),
    default="folders",
    show_default=True,
    metavar="folders|FILE",
    help="Classes: the folders of the videos, or a CSV file of key,label.",
)
@click.option("--method", default="tsne", show_default=True, metavar="NAME", help="tsne, or pca.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sample.")
@click.option(
    "--max",
    "max_rows",
    type=int,
    default=10_000,
    show_default=True,
    metavar="N",
    help="Of more rows draw a sample of N.",
)
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(),
    metavar="FILE",
    help="Write the coordinates to FILE, which replaces one of before; -: to stdout, instead of the text.",
)
@json_option
def command(features, output, as_json, **options) -> None:
    """Draw the descriptors of videos, or clip features, as points on a plane, each class named where it lies.

    Rows have unit length; t-SNE sees their first 50 principal components.
    """
    require_different({"--output": output, "--csv": options["csv_path"], "--json": STDOUT if as_json else None})
    from featx.plots import check_picture

    check_picture(output)
    from featx.evaluation import embed
    from featx.plots import draw_embedding

    embedding = embed(features, **options)
    draw_embedding(embedding, output)
    if as_json:
        told = ("checkpoint", "layer", "unit", "method", "seed", "num_rows", "classes", "notes")
        facts = {name: getattr(embedding, name) for name in told}
        print_json({"output": output, "num_points": len(embedding.names), **facts})
        return
    if options["csv_path"] == STDOUT:
        return
    click.echo(
        f"{len(embedding.names)} {embedding.unit}s of {len(embedding.classes)} classes, {embedding.checkpoint} "
        f"{embedding.layer}, by {embedding.method}, drawn to {output}"
    )
    for note in embedding.notes:
        click.echo(f"note: {note}")
