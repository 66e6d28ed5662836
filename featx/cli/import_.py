"""`featx import`: another program's features into a feature file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from featx.cli.checkpoint_options import settle_backbone
from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json
from featx.errors import UsageError

FORMATS = ("c3d", "npy", "npz", "csv", "hdf5", "parquet", "activitynet")


MATRIX_OPTIONS = ("keys", "name", "key_dataset", "feature_dataset", "length", "stride")


@click.command("import", cls=Command, epilog="Example: featx import idt.npz --format npz -o idt.h5 --name idt")
@click.argument("source", metavar="PATH", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The feature file to write.")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="What PATH is.  [default: of a folder npy where it holds such files, else c3d; of a file by the suffix]",
)
@click.option("--backbone", help="c3d: the card of the net that made the features; 'featx weights list' lists them.")
@click.option("--card", type=click.Path(path_type=Path), help="c3d: a card of your own (JSON), in place of --backbone.")
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="c3d: layer to read; repeatable.  [default: all that are found]  Others: what to call the features.",
)
@click.option("--keys", type=click.Path(path_type=Path), metavar="LIST", help="Keys, a line a row of the matrix.")
@click.option("--name", help="What made the features, such as idt.  [default: the file's name]")
@click.option(
    "--key-dataset", metavar="NAME", help="npz, hdf5, parquet: where the keys are.  [default: keys; parquet: key]"
)
@click.option(
    "--feature-dataset",
    metavar="NAME",
    help="npz, hdf5, parquet, activitynet: where the features are.  [default: features; activitynet: c3d_features]",
)
@click.option("--length", type=int, help="npy folder, activitynet: frames a clip, where rows are clips.")
@click.option("--stride", type=int, help="npy folder, activitynet: frames between the starts of clips.")
@click.option(
    "--first-frame",
    type=int,
    help="c3d: the number of a video's first frame in the names: 1 of a folder of images, 0 of a video file.  [default: 0, "
    "unless a video's first clip is 1]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@json_option
def command(source: Path, output: Path, format: str | None, as_json: bool, **options: object) -> None:
    """Read features that another program made into a feature file, to evaluate them or to join them to others.

    PATH is a matrix with a row a video (npy, npz, csv, hdf5, parquet), its keys in the file or in a list of their own; a
    folder of npy files, one a video, or ActivityNet's HDF5 of a group a video, each a descriptor or a row a clip; or the
    folder of the C3D tool for Caffe, which holds a folder a video, and in it a file a clip and layer, such as 000016.fc6-1.
    What 'featx export' wrote is read back to the bit. Where nothing tells where clips lie, give --length and --stride, or only
    the mean of a video's rows is kept.
    What such files do not tell, such as the frame rate, stays unknown. The output cannot be continued by 'featx extract'.
    """
    if not os.path.exists(source):
        raise UsageError(f"no such file or folder: {source}; check the path")
    format = format or _guess(source)
    matrix_only = {name: options.pop(name) for name in MATRIX_OPTIONS}
    if format == "c3d":
        _refuse(matrix_only, "a matrix, and this is a folder of the C3D tool")
        _import_c3d(source, output, options, as_json)
        return
    _refuse(
        {name: options.pop(name) for name in ("backbone", "card", "first_frame")},
        "--format c3d; what made a matrix is its --name",
    )
    layers = options.pop("layers")
    if len(layers) > 1:
        raise click.UsageError(f"{len(layers)} layers are named, but a matrix is one; name it once")
    from featx.matrices import import_matrix

    given = {name: value for name, value in matrix_only.items() if value is not None}
    if layers:
        given["layer"] = layers[0]
    summary = import_matrix(source, output, format, **given, **options)
    if as_json:
        print_json(summary)
        return
    zero = f", {summary.num_zero} of them zero" if summary.num_zero else ""
    clips = f", {summary.num_clips} clips" if summary.num_clips else ""
    click.echo(
        f"{output}: {summary.num_videos} videos{zero}{clips}, layer {summary.layer}, {summary.num_dims} dimensions"
    )
    if summary.averaged:
        click.echo("nothing tells where the clips lie (--length and --stride can), so that only their means are kept")


def _guess(source: Path) -> str:
    if os.path.isdir(source):
        return "npy" if next(source.rglob("*.npy"), None) is not None else "c3d"
    suffix = {".h5": "hdf5", ".hdf5": "hdf5"}.get(source.suffix.lower(), source.suffix.lower().lstrip("."))
    if suffix not in FORMATS[1:]:
        raise click.UsageError(
            f"{source}: the suffix does not tell what it is; say it with --format, {', '.join(FORMATS)}"
        )
    return suffix


def _refuse(options: dict[str, object], rule: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is for {rule}; leave it out")


def _import_c3d(folder: Path, output: Path, options: dict, as_json: bool) -> None:
    if options["backbone"] is None and options["card"] is None:
        raise click.UsageError("name the net that made the features with --backbone, such as '--backbone c3d-sports1m'")
    settle_backbone(options)
    from featx.c3d_blobs import import_c3d

    summary = import_c3d(folder, output, options.pop("backbone"), **options)
    if as_json:
        print_json(summary)
        return
    click.echo(f"{output}: {summary.num_videos} videos, {summary.num_clips} clips, layers {', '.join(summary.layers)}")
