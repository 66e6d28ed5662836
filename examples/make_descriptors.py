"""Descriptors that were never extracted: a feature file of UCF101's size, and lists of its splits' sizes, from a seed.

    python examples/make_descriptors.py synthetic
    featx svm-eval synthetic/descriptors.h5 --dataset ucf101 --splits synthetic

makes 13,320 descriptors of 4,096 dimensions in 101 classes of 25 groups, 4 to 7 videos a group, and lists that part them
9,537/3,783, 9,586/3,734 and 9,624/3,696 without parting a group. A linear SVM gets about 80 % of them right.

A descriptor is made as a layer after a ReLU makes it. What a video shows is a point in a space of 200 dimensions of falling
weight: its class's place, its group's (the same people and background), its own. 4,096 random units look at it, each with
its own threshold, so that units are correlated, never negative, zero for most videos, and large for a few.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from featx.matrices import write_matrix

NUM_CLASSES, NUM_GROUPS = 101, 25
# the groups that test in each of the three splits, and how many videos they hold; the rest never test
TESTED = (((1, 7), 3783), ((8, 14), 3734), ((15, 21), 3696))
NUM_VIDEOS = 13_320
NUM_LATENTS = 200
GROUP_SPREAD, VIDEO_SPREAD = 2.6, 0.8  # beside 1 between classes


def draw_counts(rng: np.random.Generator) -> np.ndarray:
    """Videos of each group, int (classes, groups), from 4 to 7, that add up to the splits' sizes."""
    counts = np.zeros((NUM_CLASSES, NUM_GROUPS), dtype=int)
    rest = ((22, 25), NUM_VIDEOS - sum(total for _, total in TESTED))
    for (first, last), total in (*TESTED, rest):
        band = rng.integers(4, 8, (NUM_CLASSES, last - first + 1))
        while band.sum() != total:  # move one group at a time towards the total
            step = np.sign(total - band.sum())
            i = rng.integers(band.shape[0]), rng.integers(band.shape[1])
            band[i] = np.clip(band[i] + step, 4, 7)
        counts[:, first - 1 : last] = band
    return counts


def make_keys(counts: np.ndarray) -> list[str]:
    """The keys of all videos, "Class001/v_Class001_g01_c01" and so on, sorted."""
    return [
        f"Class{c + 1:03d}/v_Class{c + 1:03d}_g{g + 1:02d}_c{i + 1:02d}"
        for c in range(NUM_CLASSES)
        for g in range(NUM_GROUPS)
        for i in range(counts[c, g])
    ]


def make_descriptors(counts: np.ndarray, num_dims: int, rng: np.random.Generator) -> np.ndarray:
    """Descriptors of the videos in the order of their keys, float32 (videos, num_dims), not normalised."""
    weights = np.arange(1, NUM_LATENTS + 1) ** -0.35
    weights /= np.sqrt(np.mean(weights**2))

    def draw(rows: int) -> np.ndarray:
        return (rng.standard_normal((rows, NUM_LATENTS)) * weights).astype(np.float32)

    groups = np.repeat(draw(len(counts)), NUM_GROUPS, axis=0) + GROUP_SPREAD * draw(counts.size)
    units = rng.standard_normal((NUM_LATENTS, num_dims)).astype(np.float32) / np.sqrt(NUM_LATENTS)
    thresholds = rng.uniform(0.2, 2.5, num_dims).astype(np.float32)
    out = np.empty((counts.sum(), num_dims), dtype=np.float32)
    row = 0
    for group, size in zip(groups, counts.ravel(), strict=True):
        seen = group + VIDEO_SPREAD * draw(size)
        noise = 0.5 * rng.standard_normal((size, num_dims)).astype(np.float32)
        out[row : row + size] = np.maximum(seen @ units + noise - thresholds, 0) ** 1.5
        row += size
    return out


def write_lists(folder: Path, counts: np.ndarray) -> None:
    """``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``, in the form of UCF101's."""
    keys = make_keys(counts)
    group_of = np.repeat(np.tile(np.arange(1, NUM_GROUPS + 1), NUM_CLASSES), counts.ravel())
    class_of = np.repeat(np.arange(1, NUM_CLASSES + 1), counts.sum(axis=1))
    (folder / "classInd.txt").write_text("".join(f"{c} Class{c:03d}\n" for c in range(1, NUM_CLASSES + 1)))
    for n, ((first, last), _) in enumerate(TESTED, 1):
        tests = (group_of >= first) & (group_of <= last)
        train = [f"{key}.avi {c}\n" for key, c, is_test in zip(keys, class_of, tests, strict=True) if not is_test]
        test = [f"{key}.avi\n" for key, is_test in zip(keys, tests, strict=True) if is_test]
        (folder / f"trainlist{n:02d}.txt").write_text("".join(train))
        (folder / f"testlist{n:02d}.txt").write_text("".join(test))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a feature file and lists of UCF101's size from a seed.")
    parser.add_argument("folder", type=Path, help="where descriptors.h5 and the lists go")
    parser.add_argument("--dims", type=int, default=4096, help="dimensions of a descriptor (default: 4096)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    counts = draw_counts(rng)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_lists(options.folder, counts)
    descriptors = make_descriptors(counts, options.dims, rng)
    output = options.folder / "descriptors.h5"
    write_matrix(output, make_keys(counts), descriptors, name="synthetic", layer="fc6", overwrite=True)
    print(f"{output}: {len(descriptors)} descriptors of {options.dims} dimensions; lists of three splits beside it")


if __name__ == "__main__":
    main()
