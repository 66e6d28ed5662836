"""Two baselines that a checkpoint has to beat: a colour histogram, and the same network with random weights.

    python examples/baselines.py histogram VIDEOS SPLITS
    python examples/baselines.py random random.safetensors --seed 1

The first prints the accuracy of a linear SVM on L2-normalised colour histograms for every split in SPLITS (lists in
UCF101's format; videos listed but not in VIDEOS are left out). The second writes weights for
`featx extract --weights`: seeded, its BatchNorm statistics taken from a few rendered clips, without which a random
network's activations would mean nothing.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC
from train_mini import CLASSES, HELD_OUT, WIDTHS, render_sample, start_weights, to_input

from featx.backbones.res3d import Res3D
from featx.checkpoints.safetensors import write_safetensors
from featx.video import read_frames

BINS = 8  # a channel


def colour_histogram(path: Path, every: int = 4) -> np.ndarray:
    """The joint BGR histogram of every fourth frame of a video: float64 (512,), square roots of the shares."""
    counts = np.zeros(BINS**3)
    for frame in read_frames(path):
        if frame.index % every == 0:
            bins = frame.pixels.reshape(-1, 3).astype(np.int64) * BINS // 256
            counts += np.bincount(bins @ [BINS * BINS, BINS, 1], minlength=BINS**3)
    return np.sqrt(counts / counts.sum())


def read_splits(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """The training and test videos, as "Class/v_x", of every trainlistNN.txt and testlistNN.txt."""

    def names(path: Path) -> list[str]:
        return [str(Path(line.split()[0]).with_suffix("")) for line in path.read_text().splitlines() if line.strip()]

    numbers = sorted(re.findall(r"\d+", path.stem)[-1] for path in folder.glob("trainlist*.txt"))
    return {n: (names(folder / f"trainlist{n}.txt"), names(folder / f"testlist{n}.txt")) for n in numbers}


def svm_accuracy(descriptors: dict[str, np.ndarray], train: list[str], test: list[str]) -> float:
    """Accuracy of a linear SVM (C = 1) on L2-normalised descriptors; the class is the folder in the name."""

    def table(names: list[str]) -> tuple[np.ndarray, list[str]]:
        names = [name for name in names if name in descriptors]
        return normalize(np.stack([descriptors[name] for name in names])), [name.split("/")[0] for name in names]

    return LinearSVC(C=1, random_state=0).fit(*table(train)).score(*table(test))


def random_network(seed: int, num_clips: int = 32) -> Res3D:
    """The small Res3D with seeded random weights, BatchNorm statistics averaged over rendered clips."""
    torch.manual_seed(seed)
    net = Res3D(num_classes=len(CLASSES), widths=WIDTHS)
    start_weights(net)
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0  # the statistics of the one batch below, as they are
    clips = torch.stack([render_sample(seed, HELD_OUT, i, 112)[0] for i in range(num_clips)])
    with torch.no_grad():
        net.train()(to_input(clips), ("pool5",))
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    histogram = commands.add_parser("histogram", help="accuracy of a colour histogram on a folder of class folders")
    histogram.add_argument("videos", type=Path)
    histogram.add_argument("splits", type=Path)
    random = commands.add_parser("random", help="write the random network's weights")
    random.add_argument("output", type=Path)
    random.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.command == "random":
        write_safetensors(args.output, random_network(args.seed).state_dict())
        return
    splits = read_splits(args.splits)
    wanted = {name for sides in splits.values() for side in sides for name in side}
    descriptors = {}
    for path in sorted(args.videos.rglob("*.*")):
        key = str(path.relative_to(args.videos).with_suffix(""))
        if key in wanted:
            descriptors[key] = colour_histogram(path)
    for number, (train, test) in splits.items():
        print(f"split {number}: {100 * svm_accuracy(descriptors, train, test):.1f} %")


if __name__ == "__main__":
    main()
