"""What frozen features are worth on labelled videos: a linear SVM on weights of the small network and on baselines.

    python examples/judge_mini.py VIDEOS --splits LISTS --weights run/res3d-mini.safetensors
    python examples/judge_mini.py VIDEOS --folds 5 --frame-step 1 --short pad     # the embedded weights

VIDEOS is a folder of class folders. `--splits` is a folder of lists in UCF101's format (videos that are not there are
left out); without it, every class is cut into `--folds` runs of videos that follow each other in number, so that
neighbours, often cut from the same film, stand on one side. `--train-only` cross-validates inside the first split's
training side, which is how recipes are compared: nothing of the test videos is seen. Prints percent for every split, and
their mean; with `--from-groups K` the mean over many draws of K groups (_gNN_) a class to learn from, all others judging,
which tells networks apart that cross-validation, with nearly all videos to learn from, calls equal.
"""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from baselines import BASELINES, random_network, write_baseline
from mini_net import ARGUMENTS
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

import featx
from featx import matrices
from featx.checkpoints.safetensors import write_safetensors
from featx.clips import SHORT_POLICIES, Sampling

LENGTH = 8  # frames of a clip
LAYERS = ("res4a", "res5b", "pool5")
JOINED = "res4a+pool5"  # averages of both over space and time, of equal length


def read_list(path: Path) -> list[str]:
    """The keys, "Class/name", of a list in UCF101's format."""
    return [str(Path(line.split()[0]).with_suffix("")) for line in path.read_text().splitlines() if line.strip()]


def natural(name: str) -> list:
    """The order in which 2 comes before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def neighbours_folds(keys: list[str], num_folds: int) -> dict[str, int]:
    """The fold, from 1, of every key: each class cut into runs of neighbours in number."""
    folds: dict[str, int] = {}
    for label in sorted({key.split("/")[0] for key in keys}):
        own = sorted((key for key in keys if key.split("/")[0] == label), key=natural)
        folds |= {key: 1 + i * num_folds // len(own) for i, key in enumerate(own)}
    return folds


def group_folds(keys: list[str], num_folds: int) -> dict[str, int]:
    """The fold, from 1, of every key, by the number of its group (_gNN_)."""
    groups = {key: re.search(r"_(g\d+)_", key)[1] for key in keys}
    numbers = {group: i for i, group in enumerate(sorted(set(groups.values())))}
    return {key: 1 + numbers[group] % num_folds for key, group in groups.items()}


def from_groups(file: Path, keys: set[str], num_groups: int, draws: int = 60) -> float:
    """Percent right, on the mean, of linear SVMs that learn from `num_groups` random groups of every class of `keys`."""
    with featx.open(file) as features:
        chosen = [i for i, key in enumerate(features.keys) if key in keys]
        names = [features.keys[i] for i in chosen]
        (layer,) = features.layers
        rows = normalize(np.asarray(features.descriptors(layer))[chosen])
    labels = np.array([name.split("/")[0] for name in names])
    groups = np.array([re.search(r"_(g\d+)_", name)[1] for name in names])
    random, right = np.random.default_rng(0), []
    for _ in range(draws):
        learnt = np.zeros(len(names), bool)
        for label in np.unique(labels):
            own = labels == label
            learnt |= own & np.isin(groups, random.choice(np.unique(groups[own]), num_groups, replace=False))
        right.append(LinearSVC(random_state=0).fit(rows[learnt], labels[learnt]).score(rows[~learnt], labels[~learnt]))
    return 100 * float(np.mean(right))


def write_folds(path: Path, folds: dict[str, int]) -> None:
    """Write `featx svm-eval --dataset csv`'s table."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label", "fold"])
        writer.writerows([key, key.split("/")[0], fold] for key, fold in folds.items())


def protocol(args: argparse.Namespace, keys: list[str], work: Path) -> tuple[dict, set[str]]:
    """The arguments of featx.svm_eval, and the keys that it needs."""
    if args.splits and not args.train_only:
        return {"dataset": "folders", "splits": args.splits, "allow_missing": True}, set(keys)
    if args.train_only:
        keys = sorted(set(read_list(args.splits / "trainlist01.txt")) & set(keys))
        folds = group_folds(keys, args.folds)
    else:
        folds = neighbours_folds(keys, args.folds)
    write_folds(work / "folds.csv", folds)
    return {"dataset": "csv", "splits": work / "folds.csv", "allow_missing": True}, set(keys)


def network_rows(name: str, weights: Path | None, args: argparse.Namespace, keys: set[str], work: Path) -> list:
    """(row's name, feature file) of each layer, and of two joined; layers before pool5 are averaged over space and time."""
    file = work / f"{name}.h5"
    options = {"weights": weights} if weights else {}
    summary = featx.extract_to(
        args.videos,
        file,
        layers=LAYERS,
        progress=True,
        stride=args.stride,
        frame_step=args.frame_step,
        short=args.short,
        **options,
    )
    if summary.failures:  # left out, they would make the figures better or worse unnoticed
        first = summary.failures[0]
        raise SystemExit(
            f"{len(summary.failures)} videos fail, such as {first.path}: {first.reason}; mend or remove them"
        )
    rows, averages = [], {}
    with featx.open(file) as features:
        chosen = [i for i, key in enumerate(features.keys) if key in keys]
        names = [features.keys[i] for i in chosen]
        for layer in LAYERS:
            matrix = np.asarray(features.descriptors(layer))[chosen]
            if layer != "res5b":  # (V, C * T * h * w) -> (V, C)
                channels = ARGUMENTS["widths"][2] if layer == "res4a" else matrix.shape[1]
                matrix = matrix.reshape(len(matrix), channels, -1).mean(2)
                averages[layer] = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
            matrices.write_matrix(work / f"{name}.{layer}.h5", names, matrix, name=name, layer=layer, overwrite=True)
            rows.append((f"{name} {layer}", work / f"{name}.{layer}.h5"))
    joined = np.concatenate(list(averages.values()), axis=1)
    matrices.write_matrix(work / f"{name}.joined.h5", names, joined, name=name, layer="joined", overwrite=True)
    return [*rows, (f"{name} {JOINED}", work / f"{name}.joined.h5")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="a folder of class folders")
    parser.add_argument("--splits", type=Path, help="lists in UCF101's format")
    parser.add_argument("--train-only", action="store_true", help="inside the first split's training side")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--from-groups", type=int, action="append", metavar="K", help="learn from K groups a class; repeatable"
    )
    parser.add_argument("--weights", type=Path, action="append", default=[], help="repeatable  [default: embedded]")
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--frame-step", type=int, default=2)
    parser.add_argument(
        "--short", choices=SHORT_POLICIES, default="loop", help="what is done with videos shorter than a clip"
    )
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--seed", type=int, default=1, help="of the random network")
    args = parser.parse_args()
    if args.train_only and not args.splits:
        parser.error("--train-only is given without --splits, whose first split it is about; give both")
    if args.from_groups and not args.train_only:
        parser.error("--from-groups is given without --train-only, whose videos are drawn from; give both")
    found = [p.relative_to(args.videos).with_suffix("").as_posix() for p in args.videos.glob("*/*") if p.is_file()]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        evaluation, keys = protocol(args, found, work)
        sampling = Sampling(LENGTH, args.stride, args.frame_step, short=args.short)
        rows = []
        for weights in args.weights or [None]:
            rows += network_rows(weights.stem if weights else "embedded", weights, args, keys, work)
        if not args.no_baselines:
            write_safetensors(work / "random.safetensors", random_network(args.seed).state_dict())
            rows += network_rows("random", work / "random.safetensors", args, keys, work)
            for name in BASELINES:
                if name == "hog" and find_spec("skimage") is None:
                    print("hog is left out: pip install scikit-image")
                    continue
                write_baseline(name, args.videos, work / f"{name}.h5", keys, sampling)
                rows.append((name, work / f"{name}.h5"))
        for name, file in rows:
            if args.from_groups:
                found = (f"{from_groups(file, keys, num):5.1f} from {num}" for num in args.from_groups)
                print(f"{name:24s} " + "  ".join(found), flush=True)
                continue
            result = featx.svm_eval(file, **evaluation)
            accuracies = " ".join(f"{split.accuracy:5.1f}" for split in result.runs[0].splits)
            print(f"{name:24s} {accuracies}   mean {result.accuracy:5.1f}", flush=True)


if __name__ == "__main__":
    main()
