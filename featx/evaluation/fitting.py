"""One split: PCA and SVM are fitted on its training rows, and the SVM is tested on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from featx.basis import array_source, fit_basis
from featx.descriptors import l2_normalise
from featx.evaluation.metrics import accuracy, measure, per_class_accuracy
from featx.evaluation.results import SplitResult
from featx.evaluation.rows import Rows
from featx.evaluation.svm import affordable_jobs, fit_linear_svm, max_runs

__all__ = ["evaluate_split", "in_row_space", "splits_at_once"]


def in_row_space(rows: np.ndarray) -> np.ndarray:
    """Turn rows (n, D) of more dimensions than rows into float32 (n, n) of the same lengths, distances and angles.

    Nothing is learned from them: PCA and linear SVMs, which see no more than these, give the same scores in less time.
    """
    if rows.shape[1] <= rows.shape[0]:
        return rows
    return np.linalg.qr(rows.T.astype(np.float64), mode="r").T.astype(np.float32)  # rows.T = Q R, so rows = R.T Q.T


def splits_at_once(tables: list[Rows], num_dims: int) -> int:
    if any(max_runs(len(table.train), num_dims, len(table.classes)) > 1 for table in tables):
        return 1
    return affordable_jobs(max(len(table.train) for table in tables) * num_dims)


def evaluate_split(
    table: Rows,
    descriptors: np.ndarray,
    dims: list[int],
    C: float,
    seed: int,
    progress: Callable[[int], object],
    metrics: Iterable[str] = (),
) -> list[SplitResult]:
    """Results on the descriptors (V, D), then at each of `dims`."""
    train, test = descriptors[table.train], descriptors[table.test]
    results = [_train_and_test(table, train, test, C, seed, progress, metrics)]
    if dims:
        basis = fit_basis(array_source(train), max(dims), fitted_on=f"training rows of {table.name}")
        train, test = basis.apply(train), basis.apply(test)
    for d in dims:  # the first d columns are what a basis of d components gives
        rows = l2_normalise(train[:, :d]), l2_normalise(test[:, :d])
        results.append(_train_and_test(table, *rows, C, seed, progress, metrics))
    return results


def _train_and_test(
    table: Rows,
    train: np.ndarray,
    test: np.ndarray,
    C: float,
    seed: int,
    progress: Callable[[int], object],
    metrics: Iterable[str],
) -> SplitResult:
    model = fit_linear_svm(train, table.train_labels, C=C, seed=seed, progress=progress)
    scores = model.scores(test)
    predictions = scores.argmax(axis=1)
    hits = np.take_along_axis(table.truth, predictions[:, None], axis=1)[:, 0]
    predictions = np.where(hits, table.test_labels, predictions)  # any of several true classes will do
    per_class = per_class_accuracy(table.test_labels, predictions, len(table.classes))
    return SplitResult(
        name=table.name,
        num_train=len(train),
        num_test=len(test),
        accuracy=accuracy(table.test_labels, predictions),
        per_class={c: None if np.isnan(v) else float(v) for c, v in zip(table.classes, per_class, strict=True)},
        converged=model.converged,
        figures=measure(metrics, scores, table.truth),
    )
