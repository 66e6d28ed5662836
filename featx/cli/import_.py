"""`featx import`: another program's features into a feature file."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.checkpoint_options import settle_backbone


@click.command("import", epilog="Example: featx import blobs/ -o features.h5 --backbone c3d-sports1m")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The feature file to write.")
@click.option("--backbone", help="The card of the net that made the features; 'featx weights list' lists them.")
@click.option("--card", type=click.Path(path_type=Path), help="A card of your own (JSON), in place of --backbone.")
@click.option("--layer", "layers", multiple=True, help="Layer to read; repeatable.  [default: all that are found]")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def command(folder: Path, output: Path, **options: object) -> None:
    """Read the features that the C3D tool for Caffe wrote into a feature file.

    FOLDER holds a folder a video, and in it a file a clip and layer, such as 000016.fc6-1. Descriptors are made from
    them; what such files do not tell, such as the frame rate, stays unknown. The output cannot be continued by 'featx extract'.
    """
    if options["backbone"] is None and options["card"] is None:
        raise click.UsageError("name the net that made the features with --backbone, such as '--backbone c3d-sports1m'")
    settle_backbone(options)
    from featx.c3d_blobs import import_c3d

    summary = import_c3d(folder, output, options.pop("backbone"), **options)
    click.echo(f"{output}: {summary.num_videos} videos, {summary.num_clips} clips, layers {', '.join(summary.layers)}")
