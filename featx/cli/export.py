"""`featx export`: features in the forms of other programs."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json

FORMATS = ("npy", "npz", "csv", "parquet", "activitynet", "c3d")

EXAMPLES = """\b
Examples:
  featx export features.h5 --format npy -o npy/
  featx export features.h5 --format csv -o features.csv
  featx export clips.h5 --format parquet --clips -o clips.parquet
  featx export clips.h5 --format c3d -o blobs/
"""


@click.command("export", cls=Command, epilog=EXAMPLES)
@click.argument("features", type=click.Path(path_type=Path))
@click.option("--format", "form", required=True, type=click.Choice(FORMATS), help="What to write.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The file or folder to write; a new one."
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="Layer to write; may be left out where the file holds one.  c3d: repeatable.  [default: all of the file]",
)
@click.option(
    "--clips/--descriptors",
    default=None,
    help="Clip features, or descriptors.  [default: descriptors where there are both]",
)
@json_option
def command(
    features: Path, form: str, output: Path, layers: tuple[str, ...], clips: bool | None, as_json: bool
) -> None:
    """Write the features of a feature file in a form that other programs read.

    \b
    npy          OUTPUT/<key>.npy, a file a video; where clips lie, in OUTPUT/clips.csv
    npz          arrays 'keys' and 'features', a row a video or a clip
    csv          a header, then the key and the numbers, a line a video or a clip
    parquet      columns 'key' and 'features'; needs pip install 'featx[parquet]'
    activitynet  HDF5 of clip features, a group a video: /v_<id>/c3d_features
    c3d          the C3D tool's files, one a clip and layer: OUTPUT/<key>/000016.fc6-1

    All numbers read back to the bit, and 'featx import' takes every form back. The number in a name of the C3D tool is that
    of the clip's first frame, counted from 0, for folders of images too. For clip features extract with '--save clips' or
    '--save both'.
    """
    if form == "c3d":
        if clips is False:
            raise click.UsageError("--format c3d is of clip features; leave --descriptors out")
        from featx.c3d_blobs import export_c3d

        summary = export_c3d(features, output, layers=layers or None)
        if as_json:
            print_json(summary)
            return
        click.echo(
            f"{output}: {summary.num_files} files of {summary.num_clips} clips of {summary.num_videos} videos; "
            f"their prefixes are listed in {summary.prefix_list}"
        )
        return
    if len(layers) > 1:
        raise click.UsageError(f"{len(layers)} layers are named, but {form} holds one; export them one by one")
    from featx.exports import export

    done = export(features, output, form, layer=layers[0] if layers else None, clips=clips)
    if as_json:
        print_json(done)
        return
    of_clips = f"{done.num_rows} clips of " if done.unit == "clip" else ""
    click.echo(f"{output}: {of_clips}{done.num_videos} videos, layer {done.layer}, {done.num_dims} dimensions")
