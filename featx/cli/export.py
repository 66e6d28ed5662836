"""`featx export`: clip features in the form of another program."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json


@click.command("export", cls=Command, epilog="Example: featx export clips.h5 --format c3d -o blobs/")
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--format", "form", required=True, type=click.Choice(["c3d"]), help="c3d: the C3D tool for Caffe.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write; a new one.")
@click.option("--layer", "layers", multiple=True, help="Layer to write; repeatable.  [default: all of the file]")
@json_option
def command(features: Path, form: str, output: Path, layers: tuple[str, ...], as_json: bool) -> None:
    """Write the clip features of a feature file in the form of another program.

    c3d: one file a clip and layer, OUTPUT/<key>/000016.fc6-1 (five int32, then float32), and the list of their prefixes.
    The number in a name is that of the clip's first frame, counted from 0, for folders of images too.
    FEATURES must hold clip features: extract with '--save clips' or '--save both'.
    """
    from featx.c3d_blobs import export_c3d

    summary = export_c3d(features, output, layers=layers or None)
    if as_json:
        print_json(summary)
        return
    click.echo(
        f"{output}: {summary.num_files} files of {summary.num_clips} clips of {summary.num_videos} videos; "
        f"their prefixes are listed in {summary.prefix_list}"
    )
