"""svm_eval: a feature file and a data set in, an accuracy a split out.

    list files --load--> Protocol --match--> rows of the feature file --(PCA)--> L2 --> LinearSVC --> accuracy

Nothing is fitted on a test row: PCA and SVM see the training rows of their split only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from featx.basis import check_dims
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UsageError
from featx.evaluation.datasets import get_dataset
from featx.evaluation.fitting import evaluate_split, in_row_space, splits_at_once
from featx.evaluation.guards import leak_warnings
from featx.evaluation.metrics import check_metrics
from featx.evaluation.protocol import Request
from featx.evaluation.published import (
    far_off,
    foreign_weights,
    likely_causes,
    published_figure,
    published_figures,
    published_source,
)
from featx.evaluation.results import Run, SVMResult, check_output, pooled
from featx.evaluation.rows import find_rows, num_left_out, read_rows, row_names
from featx.store import FeatureSet, open_features, verify

__all__ = ["svm_eval"]


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
    metrics: Iterable[str] = (),
    allow_missing: bool = False,
    seed: int = 0,
    json_path: str | os.PathLike | None = None,
    progress: bool = False,
) -> SVMResult:
    """Train a linear SVM on the L2-normalised descriptors of each split's training videos and test it on the others.

    `dataset` is one of DATASETS, `splits` the folder of its list files, `numbers` the splits (or folds) to evaluate, none for
    all. `layer` may be left out where the file holds one. Each of `dims` repeats it all after PCA to that many
    dimensions, fitted on the training rows. `folds`: for class folders without lists. `metrics`: see
    `featx.evaluation.metrics`; none for those of the data set's papers. `allow_missing` leaves out
    listed videos that the file lacks. `json_path`: where to write the result. `progress`: a bar on stderr.

    Raises UsageError, with the remedy, where lists, file and options do not fit together.
    """
    dims = sorted(set(dims))
    _check_options(C, seed, json_path)
    row = get_dataset(dataset)
    metrics = tuple(
        name for name in check_metrics(metrics) or row.metrics if name != "accuracy"
    )  # which is always there
    with open_features(features_path) as features:
        for path in features.paths:
            verify(path)
        layer = _choose_layer(features, layer, features_path)
        request = Request(
            tuple(features.keys),
            Path(splits) if splits else None,
            tuple(numbers),
            folds,
            seed,
            allow_missing,
            features.clip_table if features.has_clips else None,
            features.provenance.fps,
        )
        protocol = row.load(request)
        if protocol.leave_one_out and "map" in metrics:
            raise UsageError(
                "metric is 'map', but leaving one out trains an SVM a video, whose scores have no common scale"
            )
        tables, notes = find_rows(protocol, features, Path(features_path), allow_missing, row.unit)
        for table in tables:
            for d in dims:
                check_dims(d, len(table.train), features.num_dims(layer), table.name)
        compact = layer in features.bases
        if compact:
            notes.append(f"the descriptors went through PCA fitted on {features.bases[layer]['fitted_on']}")
        notes += foreign_weights(features.provenance)
        fitted_on = [str(features.bases[layer]["fitted_on"])] if compact else []
        warnings = leak_warnings(row, protocol, request, [features.provenance.checkpoint], fitted_on)
        descriptors = _read_descriptors(features, layer, row.unit)
        provenance = features.provenance
        checkpoint, backbone = provenance.checkpoint, provenance.backbone
    num_dims = descriptors.shape[1]
    if protocol.leave_one_out:
        descriptors = in_row_space(descriptors)

    total = sum(len(table.classes) for table in tables) * (1 + len(dims))
    # Where one training cannot be divided over the cores, several splits share them.
    bar = tqdm(total=total, unit="class", desc="training", disable=not progress)
    with bar, ThreadPoolExecutor(splits_at_once(tables, descriptors.shape[1])) as pool:
        evaluate = partial(
            evaluate_split, descriptors=descriptors, dims=dims, C=C, seed=seed, progress=bar.update, metrics=metrics
        )
        by_split = list(pool.map(evaluate, tables))
    runs = []
    for i, d in enumerate([None, *dims]):
        at_dims = d or (num_dims if compact else None)
        published = published_figure(checkpoint, dataset, layer, at_dims)
        others = published_figures(checkpoint, dataset, layer, metrics, at_dims)
        results = tuple(results[i] for results in by_split)
        if protocol.leave_one_out:
            results = (pooled("leave one out", results),)
        runs.append(Run(d or num_dims, d is not None, published, results, others))

    slow = sum(not split.converged for run in runs for split in run.splits)
    if slow:
        notes.append(
            f"SVMs that stopped at 1000 iterations before they converged: {slow}; a smaller C converges sooner"
        )
    num_classes = max(len(table.classes) for table in tables)
    if num_classes < len(protocol.classes) and any(run.published is not None for run in runs):
        notes.append(f"the published figures are for all {len(protocol.classes)} classes")
    for run in runs if num_classes == len(protocol.classes) else ():
        causes = likely_causes(provenance, dataset, num_left_out(protocol, tables))
        notes += far_off(f"{run.mean:.2f} % at {run.num_dims} dimensions", run.mean, run.published, causes)
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
        warnings=warnings,
    )
    if json_path is not None:
        result.save_json(json_path)
    return result


def _check_options(C: float, seed: int, json_path: str | os.PathLike | None) -> None:
    if not (C > 0 and math.isfinite(C)):
        raise UsageError(f"C is {C}, but must be a number above 0; the papers' protocol uses 1")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}, but must be from 0 to {2**32 - 1}")
    if json_path is not None:
        check_output(json_path)


def _choose_layer(features: FeatureSet, layer: str | None, path: str | os.PathLike) -> str:
    if layer is not None:
        features.num_dims(layer)  # raises for a layer that is not there
        return layer
    if len(features.layers) > 1:
        raise UsageError(
            f"{path} holds {len(features.layers)} layers; choose one with --layer: {', '.join(features.layers)}"
        )
    return features.layers[0]


def _read_descriptors(features: FeatureSet, layer: str, unit: str) -> np.ndarray:
    descriptors = l2_normalise(read_rows(features, layer, unit))
    bad = ~np.isfinite(descriptors).all(axis=1)
    if bad.any():
        raise FeatureFileError(
            f"the {layer} descriptor of '{row_names(features, unit)[int(bad.argmax())]}' is not finite; "
            "extract that video again"
        )
    return descriptors
