"""Small data sets in the forms of the official ones, with features that tell their classes apart, for the README's commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feature_files import write_file
from scipy.io import savemat

from featx.evaluation import activitynet, objects

D = 16
CLASSES = ("surfing", "ironing", "waxing")


def rows_of(labels: dict[str, int], seed: int, num_rows: int = 1) -> dict[str, np.ndarray]:
    """name -> (num_rows, D), without entries below 0, near the centre of its class."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1 + max(labels.values()), D))
    return {name: np.maximum(centres[c] + rng.standard_normal((num_rows, D)), 0) for name, c in labels.items()}


def write_activitynet(place: Path) -> None:
    """activitynet.h5 and its annotation file: 18 training and 9 validation videos, of which one is missing."""
    subsets = {f"{i:011d}": "training" if i < 18 else "validation" for i in range(27)}
    labels = {name: int(name) % 3 for name in subsets}
    database = {
        name: {"subset": subset, "annotations": [{"segment": [0.5, 4.0], "label": CLASSES[labels[name]]}]}
        for name, subset in subsets.items()
    }
    text = json.dumps({"version": "VERSION 1.3", "taxonomy": [], "database": database})
    (place / "activity_net.v1-3.min.json").write_text(text)
    held = {f"v_{name}": row[0] for name, row in rows_of(labels, 0).items() if name != f"{20:011d}"}
    write_file(place / "activitynet.h5", {"pool5": held}, checkpoint="p3d199-sports1m", backbone="p3d199")


def write_objects(place: Path) -> None:
    """objects.h5 with five clips of each of six videos, and the folder of lists egocentric/."""
    folder = place / "egocentric"
    folder.mkdir()
    labels = {f"desk/{i}": i % 2 for i in range(6)}
    (folder / "labels.csv").write_text("".join(f"{name},0,24,{('cup', 'jar')[c]}\n" for name, c in labels.items()))
    (folder / "train.txt").write_text("".join(f"desk/{i}\n" for i in range(4)))
    (folder / "test.txt").write_text("desk/4\ndesk/5\n")
    clips = {name: rows.astype(np.float32) for name, rows in rows_of(labels, 1, 5).items()}
    write_file(place / "objects.h5", {"fc6": {name: r.mean(axis=0) for name, r in clips.items()}}, clips={"fc6": clips})


def write_aslan(place: Path) -> None:
    """aslan.h5 with all samples, four to an action, and View2.mat, whose fold n has actions of its own."""
    rng = np.random.default_rng(2)
    action_of = {f"{i:04d}": i // 4 for i in range(1, 3698)}
    layers = {
        layer: {k: v[0] for k, v in rows_of(action_of, seed).items()} for seed, layer in enumerate(("fc6", "prob"))
    }
    write_file(place / "aslan.h5", layers)
    table = np.empty((600, 5, 10))
    for n in range(10):
        actions = 1 + 92 * n + rng.integers(0, 92, (600, 2))
        actions[:300, 1] = actions[:300, 0]
        actions[300:, 1] += actions[300:, 0] == actions[300:, 1]
        table[:, :2, n] = 4 * actions + np.stack([rng.integers(0, 2, 600), rng.integers(2, 4, 600)], axis=1)
        table[:, 2, n], table[:, 3:, n] = np.arange(600) < 300, 1 + actions
    savemat(place / "View2.mat", {"action_splits_pairs": table})


def write_folds(place: Path) -> None:
    """folds.csv for the example videos, whose groups it keeps together."""
    videos = sorted((place / "examples/videos").glob("*/*.mp4"))
    lines = [f"{v.parent.name}/{v.stem},{v.parent.name},{int(v.stem.split('_g')[1][:2]) % 3 + 1}\n" for v in videos]
    (place / "folds.csv").write_text("key,label,fold\n" + "".join(lines))


STAND_INS: dict[str, Callable[[Path], None]] = {
    "activitynet.h5": write_activitynet,
    "objects.h5": write_objects,
    "aslan.h5": write_aslan,
    "folds.csv": write_folds,
}


def set_small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loaders expect as many videos as there are here."""
    monkeypatch.setattr(activitynet, "NUM_CLASSES", len(CLASSES))
    monkeypatch.setattr(activitynet, "COUNTS", {"training": 18, "validation": 9})
    monkeypatch.setattr(objects, "NUM_CLASSES", 2)
