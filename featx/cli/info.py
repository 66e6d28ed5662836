"""`featx info`: what a feature file holds and how it was made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx.cli.durations import duration_text
from featx.cli.help import Command
from featx.errors import one_line
from featx.segments import is_segment_key

if TYPE_CHECKING:
    from featx.store import FeatureSet

# of a video, in the order of _video_line
COLUMNS = ("num_frames", "fps", "duration_seconds", "num_clips", "start_seconds", "end_seconds", "label")


@click.command("info", cls=Command, epilog="Example: featx info features.h5")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--videos", is_flag=True, help="One line a video too.")
@click.option("--engine", is_flag=True, help="Tell instead how this machine computes features, and why so.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(file: Path | None, videos: bool, engine: bool, as_json: bool) -> None:
    """Print what a feature file holds and how it was made; `featx check` tells whether it is whole."""
    if engine == (file is not None):
        said = f"{file} and --engine are given" if engine else "nothing is named"
        raise click.UsageError(f"{said}, but one of them is told of: name a feature file, or give --engine")
    if engine:
        _print_engines(as_json)
    else:
        _print_file(file, videos, as_json)


def _print_engines(as_json: bool) -> None:
    import torch

    from featx.doctor import engines

    found = engines()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    device, gpus = found["device"], found["gpus"]
    if gpus:
        click.echo(f"engine    the fastest on the first clips of a run, on {device}, torch {torch.__version__}")
        for gpu in gpus:
            click.echo(
                f"    {gpu['device']:<9} {gpu['name']}, {gpu['free_bytes'] / 2**30:.1f} of "
                f"{gpu['memory_bytes'] / 2**30:.1f} GiB free, compute capability {gpu['capability']}, cuDNN {gpu['cudnn']}"
            )
    else:
        threads = torch.get_num_threads()
        click.echo(f"engine    {found['engine']} on {device}, {threads} threads, torch {torch.__version__}")
    for name, reason in found["unavailable"].items():
        click.echo(f"    {name:<9} {reason or 'available'}")
    auto = "fp32" if device == "cpu" else "the fastest that agrees with fp32 on the first clips of a run"
    named = ", ".join(name for name, why in found["precisions"].items() if not why)
    click.echo(f"precision {auto}; with --precision {named}")


def _print_file(file: Path, videos: bool, as_json: bool) -> None:
    import numpy as np

    import featx

    with featx.open(file, warn=False) as features:
        provenance = dataclasses.asdict(features.provenance)
        facts = {
            "videos": len(features),
            "clips": features.num_clips,
            "frames": int(features.column("num_frames").sum()),
            "hours": float(np.nansum(features.column("duration_seconds"))) / 3600,
            "videos_without_times": int(np.isnan(features.column("fps")).sum()),
            "layers": {layer: features.num_dims(layer) for layer in features.layers},
            "descriptors": features.has_descriptors,
            "clip_features": features.has_clips,
            "bins": features.provenance.bins,
            "reduced_by_pca": {layer: basis.get("fitted_on", "") for layer, basis in features.bases.items()},
            "damaged": {
                key: damage for key, damage in zip(features.keys, features.column("damage"), strict=True) if damage
            },
            "failures": [dataclasses.asdict(failure) for failure in features.failures],
            "lacks": features.lacks,
            "files": [str(path) for path in features.paths],
        }
        if as_json:
            each = {"videos": _video_records(features)} if videos else {}
            click.echo(json.dumps({"made": provenance, "holds": facts, **each}, indent=2, default=list))
            return
        click.echo(
            f"{file}: {facts['videos']} videos, {facts['clips']} clips, {facts['frames']} frames, "
            + duration_text(3600 * facts["hours"])
            + f" ({facts['videos_without_times']} videos have no frame rate)" * bool(facts["videos_without_times"])
        )
        kept = " and ".join(
            ["descriptors"] * features.has_descriptors
            + ["clip features"] * features.has_clips
            + [f"{facts['bins']} bins of time"] * features.has_bins
        )
        click.echo(f"holds     {kept}: " + ", ".join(f"{layer} {dims}" for layer, dims in facts["layers"].items()))
        if facts["lacks"]:
            click.echo(one_line(f"lacks     {facts['lacks']}"))
        for layer, fitted_on in facts["reduced_by_pca"].items():
            click.echo(one_line(f"PCA       {layer}, fitted on {fitted_on}"))
        if facts["damaged"]:
            click.echo(f"damaged   {len(facts['damaged'])} videos, kept as far as they decode (--on-corrupt keep)")
        for key, damage in facts["damaged"].items():
            click.echo(one_line(f"    {key}: {damage}"))
        if len(features.paths) > 1:
            click.echo(f"files     {len(features.paths)}, read as one; 'featx merge {file} -o OUTPUT' joins them")
        click.echo("made with")
        for name, value in provenance.items():
            shown = (
                ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
                if isinstance(value, tuple)
                else value
            )
            if shown != "":  # what says nothing of this file
                click.echo(one_line(f"    {name:<18} {shown}"))
        if videos:
            for key, *values in zip(features.keys, *map(features.column, COLUMNS), strict=True):
                click.echo(one_line(_video_line(key, *values)))
        click.echo(f"failures  {len(features.failures)}")
        for failure in features.failures:
            click.echo(one_line(f"    {failure.key} ({failure.path}): {failure.reason}"))


def _video_records(features: FeatureSet) -> list[dict]:
    """A dict a video, for JSON, which knows no NaN."""
    columns = [features.column(name).tolist() for name in COLUMNS]
    return [
        {"key": key} | {name: None if value != value else value for name, value in zip(COLUMNS, values, strict=True)}
        for key, *values in zip(features.keys, *columns, strict=True)
    ]


def _video_line(
    key: str,
    num_frames: int,
    fps: float,
    duration_seconds: float,
    num_clips: int,
    start_seconds: float,
    end_seconds: float,
    label: str,
) -> str:
    frames = f"{num_frames} frames" if num_frames else "frames unknown"
    clock = f"{fps:g} fps, {duration_seconds:.2f} s" if fps == fps else "no frame rate"
    is_part = is_segment_key(key) and start_seconds == start_seconds  # an imported one has a key, and no times
    part = f", from {start_seconds:.3f} to {end_seconds:.3f} s" if is_part else ""
    return f"{key}: {frames}, {clock}, {num_clips} clips{part}" + f", {label}" * bool(label)
