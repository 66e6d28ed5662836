"""`featx info`: what a feature file holds and how it was made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click


@click.command("info", epilog="Example: featx info features.h5")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--backbones", is_flag=True, help="List the checkpoints that 'featx extract --backbone' takes.")
@click.option("--videos", is_flag=True, help="One line a video too.")
@click.option("--verify", is_flag=True, help="Compare every block of the file with its checksum.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(file: Path | None, backbones: bool, videos: bool, verify: bool, as_json: bool) -> None:
    """Print what a feature file holds and how it was made."""
    if backbones == (file is not None):
        raise click.UsageError("name a feature file, or give --backbones")
    if backbones:
        _print_backbones(as_json)
    else:
        _print_file(file, videos, verify, as_json)


def _print_backbones(as_json: bool) -> None:
    from featx.catalog import get_checkpoint, list_backbones

    cards = [get_checkpoint(name) for name in list_backbones()]
    if as_json:
        rows = {c.name: {"layers": c.layers, "default_layer": c.default_layer, "licence": c.licence} for c in cards}
        click.echo(json.dumps(rows, indent=2))
        return
    for card in cards:
        layers = ", ".join(
            f"{name} {dims}" + " (default)" * (name == card.default_layer) for name, dims in card.layers.items()
        )
        sampling = card.sampling
        click.echo(f"{card.name}\n    layers   {layers}")
        click.echo(f"    clips    {sampling.length} frames, stride {sampling.stride}, frame step {sampling.frame_step}")
        file = "embedded" if card.embedded else f"{card.file or 'a published file'}, with --weights FILE"
        click.echo(f"    weights  {file}; {card.licence}")
        for url in card.source:
            click.echo(f"    from     {url}")


def _print_file(file: Path, videos: bool, verify: bool, as_json: bool) -> None:
    import featx
    from featx import store

    with featx.open(file) as features:
        for path in features.paths if verify else ():
            store.verify(path)
        provenance = dataclasses.asdict(features.provenance)
        facts = {
            "videos": len(features),
            "clips": features.num_clips,
            "frames": int(features.column("num_frames").sum()),
            "hours": float(features.column("duration_seconds").sum()) / 3600,
            "layers": {layer: features.num_dims(layer) for layer in features.layers},
            "descriptors": features.has_descriptors,
            "clip_features": features.has_clips,
            "reduced_by_pca": {layer: basis.get("fitted_on", "") for layer, basis in features.bases.items()},
            "failures": [dataclasses.asdict(failure) for failure in features.failures],
            "files": [str(path) for path in features.paths],
        }
        if as_json:
            click.echo(json.dumps({"made": provenance, "holds": facts}, indent=2, default=list))
            return
        click.echo(
            f"{file}: {facts['videos']} videos, {facts['clips']} clips, {facts['frames']} frames, {facts['hours']:.2f} h"
        )
        kept = " and ".join(["descriptors"] * features.has_descriptors + ["clip features"] * features.has_clips)
        click.echo(f"holds     {kept}: " + ", ".join(f"{layer} {dims}" for layer, dims in facts["layers"].items()))
        for layer, fitted_on in facts["reduced_by_pca"].items():
            click.echo(f"PCA       {layer}, fitted on {fitted_on}")
        if len(features.paths) > 1:
            click.echo(f"files     {len(features.paths)}, read as one; 'featx merge {file} -o OUTPUT' joins them")
        if verify:
            click.echo("checksums right")
        click.echo("made with")
        for name, value in provenance.items():
            shown = (
                ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
                if isinstance(value, tuple)
                else value
            )
            click.echo(f"    {name:<18} {shown}")
        if videos:
            for key in features.keys:
                f = features[key]
                click.echo(
                    f"{key}: {f.num_frames} frames, {f.fps:g} fps, {f.duration_seconds:.2f} s, {f.num_clips} clips"
                )
        click.echo(f"failures  {len(features.failures)}")
        for failure in features.failures:
            click.echo(f"    {failure.key} ({failure.path}): {failure.reason}")
