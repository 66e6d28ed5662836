"""Small feature files for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from featx.features import ClipTable, Failure, Features
from featx.provenance import Provenance
from featx.store import write_features


def make_provenance(**changes) -> Provenance:
    values = dict(
        backbone="c3d",
        checkpoint="c3d-sports1m",
        checkpoint_sha256="ab" * 32,
        variant="",
        arguments='{"num_classes": 487}',
        layers=("fc6",),
        length=16,
        stride=8,
        frame_step=1,
        num_clips_even=0,
        fps=0.0,
        short="loop",
        tail="drop",
        resize="128x171",
        interpolation="bilinear",
        crop=112,
        crop_offset="centre",
        scale=1.0,
        mean=(1.0, 2.0, 3.0),
        mean_cube_sha256="",
        std=(1.0, 1.0, 1.0),
        channel_order="bgr",
        precision="float32",
        save="descriptors",
        dtype="float32",
        engine="eager",
        batch_size=4,
        featx_version="0.1.0",
    )
    return Provenance(**{**values, **changes})


def write_file(path: Path, layers: dict[str, dict[str, np.ndarray]], *, clips=None, failures=(), **provenance) -> Path:
    """Write layers[layer][key] = descriptor, and clips[layer][key] = clip features where given."""
    layers = {layer: {k: np.asarray(v, np.float32) for k, v in rows.items()} for layer, rows in layers.items()}
    keys = list(next(iter(layers.values())))
    videos = []
    for key in keys:
        own = {layer: rows[key] for layer, rows in (clips or {}).items()}
        count = len(next(iter(own.values()))) if own else 1
        starts = 8 * np.arange(count)
        table = ClipTable(starts, starts + 16, starts / 25, (starts + 16) / 25) if own else None
        videos.append(
            Features(
                key=key,
                path=f"/videos/{key}.avi",
                num_frames=8 * count + 8,
                num_clips=count,
                fps=25.0,
                duration_seconds=(8 * count + 8) / 25,
                descriptors={layer: rows[key] for layer, rows in layers.items()},
                clips=own,
                clip_table=table,
            )
        )
    failures = [Failure(key, f"/videos/{key}.avi", reason) for key, reason in failures]
    save = provenance.pop("save", "both" if clips else "descriptors")
    write_features(path, make_provenance(layers=tuple(layers), save=save, **provenance), videos, failures)
    return path
