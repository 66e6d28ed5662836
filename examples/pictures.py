"""The papers' pictures, of the example videos and the embedded checkpoint: a minute on two cores.

    python examples/pictures.py pictures
    python examples/pictures.py pictures --many

makes overview.png, curves.png, confusion.png, roc.png, tsne.png and filters.png; --many adds confusion-101.png and
tsne-101.png, of the 101 synthetic classes that make_descriptors.py makes. Those in examples/pictures were made by it. Needs
``featx[plots]``.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import make_descriptors
import numpy as np

import featx
from featx import plots
from featx.catalog import get_checkpoint
from featx.checkpoints.first_filters import first_filters
from featx.evaluation import compare, curve
from featx.matrices import write_matrix
from featx.video import read_frames

EXAMPLES = Path(__file__).parent
DIMS = (5, 10, 20, 30, 40, 50)
GROUPS_A_FOLD = 2
SHOWN = "CartwheelLeft/v_CartwheelLeft_g01_c01"  # the video of the overview


def write_pairs(path: Path, keys: list[str]) -> None:
    """A CSV file of pairs: of two groups of people and backgrounds, all that do the same and as many that do not, a fold."""
    by_group: dict[str, list[str]] = {}
    for key in keys:
        by_group.setdefault(re.search(r"_(g\d+)_", key)[1], []).append(key)
    rng = np.random.default_rng(0)
    lines = ["first,second,same,fold"]
    groups = sorted(by_group)
    for fold, start in enumerate(range(0, len(groups) - 1, GROUPS_A_FOLD)):
        ours, theirs = (by_group[group] for group in groups[start : start + GROUPS_A_FOLD])
        pairs = list(itertools.product(ours, theirs))
        same = [pair for pair in pairs if len({PurePosixPath(key).parent for key in pair}) == 1]
        other = [pair for pair in pairs if pair not in same]
        chosen = [other[i] for i in rng.choice(len(other), len(same), replace=False)]
        lines += [f"{a},{b},1,{fold + 1}" for a, b in same]
        lines += [f"{a},{b},0,{fold + 1}" for a, b in chosen]
    path.write_text("\n".join(lines) + "\n")


def draw_examples(folder: Path, dims: Sequence[int]) -> None:
    """Six pictures of the example videos, the curves at `dims` dimensions."""
    features = folder / "features.h5"
    featx.extract_to(EXAMPLES / "videos", features, layers=["pool5", "res5b", "prob"], save="both")
    layers = [f"{features}:pool5", f"{features}:res5b"]
    results = compare(layers, "folders", splits=EXAMPLES / "splits", dims=dims)
    plots.draw_curves(
        [curve(result) for result in results], folder / "curves.png", title="the example videos, 3 splits"
    )
    plots.draw_confusion(results[0], folder / "confusion.png")
    plots.draw_embedding(featx.embed(f"{features}:res5b", clips=True), folder / "tsne.png")
    plots.draw_filters(first_filters(get_checkpoint("res3d-mini")), folder / "filters.png")
    path = EXAMPLES / "videos" / f"{SHOWN}.mp4"
    frames = [frame.pixels[..., ::-1] for frame in read_frames(path)]  # BGR -> RGB
    shown = replace(featx.extract(path, layers=["pool5"], save="both"), key=SHOWN)
    plots.draw_overview(frames, shown, "pool5", featx.embed(f"{features}:res5b"), folder / "overview.png")
    pairs = folder / "pairs.csv"
    with featx.open(features) as file:
        write_pairs(pairs, file.keys)
    plots.draw_roc(
        [featx.similarity(features, pairs, layers=[layer]) for layer in ("pool5", "prob")], folder / "roc.png"
    )


def draw_many(folder: Path, num_dims: int) -> None:
    """Two pictures of 101 classes."""
    rng = np.random.default_rng(0)
    counts = make_descriptors.draw_counts(rng)
    make_descriptors.write_lists(folder, counts)
    descriptors = make_descriptors.make_descriptors(counts, num_dims, rng)
    features = folder / "descriptors.h5"
    write_matrix(
        features, make_descriptors.make_keys(counts), descriptors, name="synthetic", layer="fc6", overwrite=True
    )
    plots.draw_confusion(featx.svm_eval(features, "ucf101", splits=folder, numbers=[1]), folder / "confusion-101.png")
    plots.draw_embedding(featx.embed(features, max_rows=3000), folder / "tsne-101.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the papers' pictures of the example videos.")
    parser.add_argument(
        "folder", type=Path, help="where the pictures go, and the features and lists they are made from"
    )
    parser.add_argument(
        "--curve-dims", type=int, nargs="+", default=DIMS, help="dimensions at which the curves are drawn"
    )
    parser.add_argument("--many", action="store_true", help="also pictures of 101 synthetic classes")
    parser.add_argument("--dims", type=int, default=512, help="dimensions of the synthetic descriptors (default: 512)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    plots.check_picture(options.folder / "curves.png")
    draw_examples(options.folder, options.curve_dims)
    if options.many:
        draw_many(options.folder, options.dims)
    print(f"drawn: {', '.join(sorted(str(path) for path in options.folder.glob('*.png')))}")


if __name__ == "__main__":
    main()
