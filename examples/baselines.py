"""Baselines that a checkpoint has to beat: descriptors by hand, and the same network with random weights.

    python examples/baselines.py histogram VIDEOS histogram.h5
    python examples/baselines.py random random.safetensors --seed 1

`histogram` (colours), `differences` (how much changes between frames, and where), `hog` (scikit-image's histograms of
oriented gradients; pip install scikit-image) and `cells` (local_descriptors.py, averaged) write a feature file for
`featx svm-eval`. `random` writes weights for `featx extract --weights`: seeded, its BatchNorm statistics taken from a
few rendered clips, without which a random network's activations would mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from local_descriptors import local_descriptors
from mini_net import equalise, new_net, to_input
from rendering.scene import Renderer

from featx.backbones.res3d import Res3D
from featx.checkpoints.safetensors import write_safetensors
from featx.clips import Sampling, plan_clips
from featx.matrices import write_matrix
from featx.video import read_frames

BINS = 8  # a colour channel
GRID = 8  # cells a side of a frame
EVERY = 4  # of single frames, so many
CLIPS = Sampling(length=8, frame_step=2, stride=15)  # that follow each other


def colour_histogram(path: Path) -> np.ndarray:
    """The joint BGR histogram of every fourth frame of a video: float64 (512,), square roots of the shares."""
    counts = np.zeros(BINS**3)
    for frame in read_frames(path):
        if frame.index % EVERY == 0:
            bins = frame.pixels.reshape(-1, 3).astype(np.int64) * BINS // 256
            counts += np.bincount(bins @ [BINS * BINS, BINS, 1], minlength=BINS**3)
    return np.sqrt(counts / counts.sum())


def frame_differences(path: Path) -> np.ndarray:
    """The mean change of grey from frame to frame in 8 x 8 cells: float64 (64,), 0-255."""
    last, total, count = None, np.zeros((GRID, GRID)), 0
    for grey in _small_greys(path, 1):
        if last is not None:
            total += _cells(np.abs(grey - last))
            count += 1
        last = grey
    return (total / max(count, 1)).reshape(-1)


def oriented_gradients(path: Path) -> np.ndarray:
    """scikit-image's HOG of every fourth frame at 128 x 128, averaged: float64 (1764,)."""
    from skimage.feature import hog

    found = [
        hog(grey, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
        for grey in _small_greys(path, EVERY)
    ]
    return np.mean(found, axis=0)


def cells(path: Path, sampling: Sampling = CLIPS) -> np.ndarray:
    """The local descriptors that teach the network, averaged over cells and the clips of `sampling`: float64 (147,).

    Frames are resized to 112 x 112.
    """
    frames = _resized(np.stack([frame.pixels for frame in read_frames(path)]), 112)  # (T, 3, 112, 112)
    clips = [frames[list(clip.frames)].transpose(0, 1) for clip in plan_clips(len(frames), sampling)]
    return sum(local_descriptors(clip[None] / 255).mean((0, 2, 3)) for clip in clips).double().numpy() / len(clips)


def _resized(frames: np.ndarray, side: int) -> torch.Tensor:
    """uint8 (T, H, W, 3) -> float32 (T, 3, side, side), 0-255."""
    return F.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), (side, side), mode="area")


def _small_greys(path: Path, every: int) -> Iterator[np.ndarray]:
    """Every n-th frame in grey, float32 (128, 128), 0-255."""
    for frame in read_frames(path):
        if frame.index % every == 0:
            yield _resized(frame.pixels[None], 128)[0].mean(0).numpy()


def _cells(grey: np.ndarray) -> np.ndarray:
    side = len(grey) // GRID
    return grey.reshape(GRID, side, GRID, side).mean((1, 3))


BASELINES: dict[str, Callable[[Path], np.ndarray]] = {
    "histogram": colour_histogram,
    "differences": frame_differences,
    "hog": oriented_gradients,
    "cells": cells,
}


def write_baseline(
    name: str, videos: Path, output: Path, only: set[str] | None = None, sampling: Sampling = CLIPS
) -> None:
    """Write the descriptors of the videos in class folders, or of those whose keys are in `only`, as a feature file.

    `sampling` says which clips "cells" describes; the others see frames.
    """
    describe = partial(cells, sampling=sampling) if name == "cells" else BASELINES[name]
    paths = {p.relative_to(videos).with_suffix("").as_posix(): p for p in sorted(videos.glob("*/*")) if p.is_file()}
    chosen = {key: path for key, path in paths.items() if only is None or key in only}
    rows = np.stack([describe(path) for path in chosen.values()])
    write_matrix(output, list(chosen), rows, name=name, layer=name, overwrite=True)


def random_network(seed: int, num_clips: int = 32) -> Res3D:
    """The small Res3D with seeded random weights, BatchNorm statistics of rendered clips, and equalised over others."""
    torch.manual_seed(seed)
    net = new_net()
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0  # the statistics of the one batch below, as they are
    scenes = Renderer((seed, 0), pictures=num_clips)
    with torch.no_grad():
        net.train()(to_input(scenes.batch(0, num_clips, 112).clips), ("pool5",))
    equalise(net, [scenes.batch(number, num_clips, 112).clips for number in (1, 2, 3)])
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, baseline in BASELINES.items():
        command = commands.add_parser(name, help=baseline.__doc__.splitlines()[0])
        command.add_argument("videos", type=Path, help="a folder of class folders")
        command.add_argument("output", type=Path, help="the feature file")
    random = commands.add_parser("random", help="write the random network's weights")
    random.add_argument("output", type=Path)
    random.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.command == "random":
        write_safetensors(args.output, random_network(args.seed).state_dict())
    else:
        write_baseline(args.command, args.videos, args.output)


if __name__ == "__main__":
    main()
