"""svm_eval: a feature file and a data set in, an accuracy a split out.

    list files --load--> Protocol --match--> rows of the feature file --(PCA)--> L2 --> LinearSVC --> accuracy

Nothing is fitted on a test row: PCA and SVM see the training rows of their split only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from featx.basis import array_source, check_dims, fit_basis
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UsageError
from featx.evaluation.datasets import get_dataset
from featx.evaluation.metrics import accuracy, per_class_accuracy
from featx.evaluation.protocol import Entry, Protocol, Request, Split
from featx.evaluation.published import foreign_weights, published_figure, published_source
from featx.evaluation.results import Run, SplitResult, SVMResult
from featx.evaluation.svm import affordable_jobs, fit_linear_svm, max_runs
from featx.lists import few, match_names
from featx.store import FeatureSet, open_features, verify

__all__ = ["svm_eval"]


@dataclass(frozen=True, eq=False)
class _Rows:
    """A split as rows of the feature file: int64 indices, and labels 0 to k - 1 that index `classes`."""

    name: str
    classes: tuple[str, ...]
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def svm_eval(
    features_path: str | os.PathLike,
    dataset: str,
    *,
    splits: str | os.PathLike | None = None,
    numbers: Iterable[int] = (),
    layer: str | None = None,
    C: float = 1.0,
    dims: Iterable[int] = (),
    folds: int | None = None,
    allow_missing: bool = False,
    seed: int = 0,
    json_path: str | os.PathLike | None = None,
    progress: bool = False,
) -> SVMResult:
    """Train a linear SVM on the L2-normalised descriptors of each split's training videos and test it on the others.

    `dataset` is one of DATASETS, `splits` the folder of its list files, `numbers` the splits (or folds) to evaluate, none for
    all. `layer` may be left out where the file holds one. Each of `dims` repeats it all after PCA to that many
    dimensions, fitted on the training rows. `folds`: for class folders without lists. `allow_missing` leaves out
    listed videos that the file lacks. `json_path`: where to write the result. `progress`: a bar on stderr.

    Raises UsageError, with the remedy, where lists, file and options do not fit together.
    """
    dims = sorted(set(dims))
    _check_options(C, seed, json_path)
    row = get_dataset(dataset)
    with open_features(features_path) as features:
        for path in features.paths:
            verify(path)
        layer = _choose_layer(features, layer, features_path)
        request = Request(tuple(features.keys), Path(splits) if splits else None, tuple(numbers), folds, seed)
        protocol = row.load(request)
        tables, notes = _find_rows(protocol, features, Path(features_path), allow_missing)
        for table in tables:
            for d in dims:
                check_dims(d, len(table.train), features.num_dims(layer), table.name)
        compact = layer in features.bases
        if compact:
            notes.append(f"the descriptors went through PCA fitted on {features.bases[layer]['fitted_on']}")
        notes += foreign_weights(features.provenance)
        descriptors = _read_descriptors(features, layer)
        checkpoint, backbone = features.provenance.checkpoint, features.provenance.backbone

    total = sum(len(table.classes) for table in tables) * (1 + len(dims))
    # Where one training cannot be divided over the cores, several splits share them.
    splits_at_once = _splits_at_once(tables, descriptors.shape[1])
    bar = tqdm(total=total, unit="class", desc="training", disable=not progress)
    with bar, ThreadPoolExecutor(splits_at_once) as pool:
        evaluate = partial(_evaluate, descriptors=descriptors, dims=dims, C=C, seed=seed, progress=bar.update)
        by_split = list(pool.map(evaluate, tables))
    num_dims = descriptors.shape[1]
    runs = []
    for i, d in enumerate([None, *dims]):
        published = published_figure(checkpoint, dataset, layer, d or (num_dims if compact else None))
        runs.append(Run(d or num_dims, d is not None, published, tuple(results[i] for results in by_split)))

    slow = sum(not split.converged for run in runs for split in run.splits)
    if slow:
        notes.append(
            f"SVMs that stopped at 1000 iterations before they converged: {slow}; a smaller C converges sooner"
        )
    num_classes = max(len(table.classes) for table in tables)
    if num_classes < len(protocol.classes) and any(run.published is not None for run in runs):
        notes.append(f"the published figures are for all {len(protocol.classes)} classes")
    result = SVMResult(
        features=os.fspath(features_path),
        dataset=row.name,
        backbone=backbone,
        checkpoint=checkpoint,
        layer=layer,
        C=C,
        seed=seed,
        num_classes=num_classes,
        chance=100 / num_classes,
        runs=tuple(runs),
        published_source=published_source(checkpoint, dataset, layer),
        notes=(*protocol.notes, *notes),
    )
    if json_path is not None:
        result.save_json(json_path)
    return result


def _check_options(C: float, seed: int, json_path: str | os.PathLike | None) -> None:
    if not (C > 0 and math.isfinite(C)):
        raise UsageError(f"C is {C}, but must be a number above 0; the papers' protocol uses 1")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}, but must be from 0 to {2**32 - 1}")
    if json_path is not None and not Path(json_path).absolute().parent.is_dir():
        raise UsageError(f"cannot write {json_path}: its folder does not exist; make it first")
    if json_path is not None and Path(json_path).is_dir():
        raise UsageError(f"cannot write {json_path}: it is a folder; name a file in it")


def _choose_layer(features: FeatureSet, layer: str | None, path: str | os.PathLike) -> str:
    if layer is not None:
        features.num_dims(layer)  # raises for a layer that is not there
        return layer
    if len(features.layers) > 1:
        raise UsageError(
            f"{path} holds {len(features.layers)} layers; choose one with --layer: {', '.join(features.layers)}"
        )
    return features.layers[0]


def _read_descriptors(features: FeatureSet, layer: str) -> np.ndarray:
    descriptors = l2_normalise(features.descriptors(layer))
    bad = ~np.isfinite(descriptors).all(axis=1)
    if bad.any():
        raise FeatureFileError(
            f"the {layer} descriptor of '{features.keys[int(bad.argmax())]}' is not finite; extract that video again"
        )
    return descriptors


def _find_rows(
    protocol: Protocol, features: FeatureSet, path: Path, allow_missing: bool
) -> tuple[list[_Rows], list[str]]:
    """Turn listed names into rows of the feature file; the notes say what was left out."""
    names = list(dict.fromkeys(name for split in protocol.splits for name, _ in (*split.train, *split.test)))
    found = match_names(names, features.keys)
    missing = [name for name in names if name not in found]
    notes = []
    if missing:
        text = f"{len(missing)} of {len(names)} listed videos are not in {path}: {few(missing)}" + _failed(
            missing, features
        )
        if not found or not allow_missing:
            remedy = (
                "check --splits and the keys ('featx info')"
                if not found
                else "extract them, or leave them out with --allow-missing"
            )
            raise UsageError(f"{text}; {remedy}")
        notes.append(f"{text}; left out")
    unlisted = len(features) - len(found)
    if unlisted:
        notes.append(f"{unlisted} of {len(features)} videos in {path} are in none of the lists; not used")
    tables = []
    for split in protocol.splits:
        table, split_notes = _split_rows(split, protocol.classes, found)
        tables.append(table)
        notes += split_notes
    return tables, notes


def _failed(missing: list[str], features: FeatureSet) -> str:
    failed = match_names(missing, [failure.key for failure in features.failures])
    if not failed:
        return ""
    name, i = next(iter(failed.items()))
    return f" ({len(failed)} of them failed in extraction; {name}: {features.failures[i].reason})"


def _split_rows(split: Split, classes: tuple[str, ...], found: dict[str, int]) -> tuple[_Rows, list[str]]:
    listed = {label for _, label in split.train}
    trained = {label for name, label in split.train if name in found}
    kept = tuple(label for label in classes if label in trained)
    dropped = [label for label in classes if label in listed - trained]
    notes = []
    if dropped:
        notes.append(f"{split.name}: classes without a training video, dropped: {len(dropped)}; left: {len(kept)}")
    if len(kept) < 2:
        raise UsageError(
            f"{split.name}: classes with training videos: {len(kept)}, but an SVM needs 2; extract more classes"
        )
    label_of = {label: i for i, label in enumerate(kept)}

    def rows(entries: Iterable[Entry]) -> tuple[np.ndarray, np.ndarray]:
        pairs = sorted((found[name], label_of[label]) for name, label in entries if name in found and label in label_of)
        return tuple(np.array(pairs, dtype=np.int64).reshape(-1, 2).T)

    table = _Rows(split.name, kept, *rows(split.train), *rows(split.test))
    if not len(table.test):
        raise UsageError(f"{split.name}: none of its test videos is in the feature file; extract some of them")
    untested = [kept[i] for i in sorted(set(range(len(kept))) - set(table.test_labels.tolist()))]
    if untested:
        notes.append(f"{split.name}: classes trained but without a test video: {few(untested)}")
    return table, notes


def _splits_at_once(tables: list[_Rows], num_dims: int) -> int:
    if any(max_runs(len(table.train), num_dims, len(table.classes)) > 1 for table in tables):
        return 1
    return affordable_jobs(max(len(table.train) for table in tables) * num_dims)


def _evaluate(
    table: _Rows, descriptors: np.ndarray, dims: list[int], C: float, seed: int, progress: Callable[[int], object]
) -> list[SplitResult]:
    """Results on the descriptors (V, D), then at each of `dims`."""
    train, test = descriptors[table.train], descriptors[table.test]
    results = [_train_and_test(table, train, test, C, seed, progress)]
    if dims:
        basis = fit_basis(array_source(train), max(dims), fitted_on=f"training rows of {table.name}")
        train, test = basis.apply(train), basis.apply(test)
    for d in dims:  # the first d columns are what a basis of d components gives
        results.append(_train_and_test(table, l2_normalise(train[:, :d]), l2_normalise(test[:, :d]), C, seed, progress))
    return results


def _train_and_test(
    table: _Rows, train: np.ndarray, test: np.ndarray, C: float, seed: int, progress: Callable[[int], object]
) -> SplitResult:
    model = fit_linear_svm(train, table.train_labels, C=C, seed=seed, progress=progress)
    predictions = model.predict(test)
    per_class = per_class_accuracy(table.test_labels, predictions, len(table.classes))
    return SplitResult(
        name=table.name,
        num_train=len(train),
        num_test=len(test),
        accuracy=accuracy(table.test_labels, predictions),
        per_class={c: None if np.isnan(v) else float(v) for c, v in zip(table.classes, per_class, strict=True)},
        converged=model.converged,
    )
