"""svm_eval: a feature file and a data set in, an accuracy a split out.

    list files --load--> Protocol --match--> rows of the feature file --(PCA)--> L2 --> linear SVM --> accuracy

Nothing is fitted on a test row: PCA and SVM see the training rows of their split only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from featx.basis import check_dims
from featx.errors import UsageError
from featx.evaluation.choose_c import Settings
from featx.evaluation.datasets import get_dataset
from featx.evaluation.fitting import evaluate_split, in_row_space, splits_at_once
from featx.evaluation.guards import leak_warnings
from featx.evaluation.metrics import check_metrics, require_classes
from featx.evaluation.protocol import Request
from featx.evaluation.published import (
    far_off,
    likely_causes,
    published_figure,
    published_figures,
    published_source,
)
from featx.evaluation.results import Run, SVMResult, check_output, pooled
from featx.evaluation.rows import find_rows, num_left_out
from featx.evaluation.sources import read_descriptors
from featx.evaluation.svm import settle_solver
from featx.layer_names import split_layer
from featx.progress import Progress
from featx.store import open_features

__all__ = ["compare", "svm_eval"]


def svm_eval(
    features_path: str | os.PathLike,
    dataset: str,
    *,
    splits: str | os.PathLike | None = None,
    numbers: Iterable[int] = (),
    layer: str | None = None,
    concat: Iterable[str | os.PathLike] = (),
    C: float | str = 1.0,
    dims: Iterable[int] = (),
    folds: int | None = None,
    metrics: Iterable[str] = (),
    allow_missing: bool = False,
    solver: str = "auto",
    seed: int = 0,
    device: str = "auto",
    json_path: str | os.PathLike | None = None,
    progress: bool = False,
) -> SVMResult:
    """Train a linear SVM on the L2-normalised descriptors of each split's training videos and test it on the others.

    `dataset` is one of DATASETS, `splits` the folder of its list files, `numbers` the splits (or folds) to evaluate, none for
    all. `layer` may be left out where the file holds one, or stand in the path ("features.h5:fc6"). The descriptors of each
    file in `concat` are joined to the file's. `C` "auto" is chosen in each split by cross-validation inside its training
    rows. Each of `dims` repeats it all after PCA to that many dimensions, fitted on the training rows. `folds`: for class
    folders without lists. `metrics`: see `featx.evaluation.metrics`; none for those of the data set's papers.
    `allow_missing` leaves out videos that are listed, or in one of the files, and not in another. `solver`: "newton" (on
    `device`), "liblinear", which is scikit-learn's LinearSVC, or "auto", by the number of rows; `seed` is for it and for folds.
    `json_path`: where to write the result. `progress`: a bar on stderr.

    Raises UsageError, with the remedy, where lists, file and options do not fit together.
    """
    dims = sorted(set(dims))
    settings = Settings(C, solver, seed, device)
    if json_path is not None:
        check_output(json_path)
    row = get_dataset(dataset)
    asked = check_metrics(metrics)
    metrics = tuple(name for name in asked or row.metrics if name != "accuracy")  # which is always there
    concat = tuple(concat)
    descriptors = read_descriptors(
        features_path, layer=layer, concat=concat, allow_missing=allow_missing, unit=row.unit
    )
    tables_of = descriptors.clip_tables
    request = Request(
        descriptors.keys,
        Path(splits) if splits else None,
        tuple(numbers),
        folds,
        seed,
        allow_missing,
        tables_of.__getitem__ if tables_of is not None else None,
        descriptors.sources[0].provenance.fps,
        descriptors.labels,
    )
    protocol = row.load(request)
    if protocol.leave_one_out and "map" in metrics:
        raise UsageError(
            "metric is 'map', but leaving one out trains an SVM a video, whose scores have no common scale"
        )
    tables, notes = find_rows(protocol, descriptors, descriptors.path, allow_missing, row.unit)
    for name in asked:
        require_classes(name, len(tables[0].classes))
    checkpoints = [source.provenance.checkpoint for source in descriptors.sources]
    warnings = leak_warnings(row, protocol, request, checkpoints, descriptors.fitted_on)
    num_dims = descriptors.rows.shape[1]
    for table in tables:
        for d in dims:
            check_dims(d, len(table.train), num_dims, table.name)

    settings = replace(settings, solver=settle_solver(solver, max(len(table.train) for table in tables)))
    rows = in_row_space(descriptors.rows) if protocol.leave_one_out else descriptors.rows
    bar = Progress("training", total=1.0, show=progress)
    with bar, ThreadPoolExecutor(splits_at_once(tables, rows.shape[1], settings.solver)) as pool:
        evaluate = partial(
            evaluate_split,
            descriptors=rows,
            dims=dims,
            settings=settings,
            metrics=metrics,
            progress=lambda share: bar.advance(share / len(tables)),
        )
        by_split = list(pool.map(evaluate, tables))
        bar.advance(1.0)  # what rounding left
    checkpoint, layer = descriptors.checkpoint, descriptors.layer
    runs = []
    for i, d in enumerate([None, *dims]):
        at_dims = d or (num_dims if descriptors.compact else None)
        published = published_figure(checkpoint, dataset, layer, at_dims)
        others = published_figures(checkpoint, dataset, layer, metrics, at_dims)
        results = tuple(results[i] for results in by_split)
        if protocol.leave_one_out:
            results = (pooled("leave one out", results),)
        runs.append(Run(d or num_dims, d is not None, published, results, others))

    slow = sum(not split.converged for run in runs for split in run.splits)
    if slow:
        notes.append(f"SVMs that gave up before they converged: {slow}; a smaller C converges sooner")
    num_classes = max(len(table.classes) for table in tables)
    if num_classes < len(protocol.classes) and any(run.published is not None for run in runs):
        notes.append(f"the published figures are for all {len(protocol.classes)} classes")
    for run in runs if num_classes == len(protocol.classes) else ():
        causes = likely_causes(descriptors.sources[0].provenance, dataset, num_left_out(protocol, tables))
        notes += far_off(f"{run.mean:.2f} % at {run.num_dims} dimensions", run.mean, run.published, causes)
    result = SVMResult(
        features=os.fspath(descriptors.path),
        joined=tuple(map(os.fspath, concat)),
        dataset=row.name,
        backbone=descriptors.backbone,
        checkpoint=checkpoint,
        layer=layer,
        C=C,
        solver=settings.solver,
        seed=seed,
        num_classes=num_classes,
        runs=tuple(runs),
        published_source=published_source(checkpoint, dataset, layer),
        notes=(*protocol.notes, *descriptors.notes, *notes),
        warnings=warnings,
        videos_sha256=hashlib.sha256(" ".join(table.sha256 for table in tables).encode()).hexdigest(),
    )
    if json_path is not None:
        result.save_json(json_path)
    return result


def compare(
    features_paths: Sequence[str | os.PathLike],
    dataset: str,
    *,
    outputs: Iterable[str | os.PathLike | None] = (),
    **options: object,
) -> list[SVMResult]:
    """`svm_eval` of several feature files, or layers ("c3d.h5:fc6"), one after the other, with the same options.

    `outputs`: files that are to be written afterwards. That they can be, and that every file can be read, is found out
    before the first training. Where the files do not train and test the same videos, a note of every result says so.
    """
    for output in outputs:
        if output is not None:
            check_output(output)
    for path in features_paths if len(features_paths) > 1 else ():
        with open_features(split_layer(path)[0]):
            pass
    results = [svm_eval(path, dataset, **options) for path in features_paths]
    if len({result.videos_sha256 for result in results}) > 1:
        note = "the feature files do not train and test the same videos, so their figures are of different tests"
        results = [replace(result, notes=(*result.notes, note)) for result in results]
    return results
