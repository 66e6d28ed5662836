"""One split: PCA and SVM are fitted on its training rows, and the SVM is tested on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from featx.basis import array_source, fit_basis
from featx.descriptors import l2_normalise
from featx.evaluation.choose_c import CANDIDATES, Settings, choose_c
from featx.evaluation.liblinear import affordable_jobs, max_runs
from featx.evaluation.linear_model import LinearModel
from featx.evaluation.metrics import accuracy, measure, per_class_accuracy
from featx.evaluation.results import SplitResult
from featx.evaluation.rows import Rows
from featx.evaluation.svm import fit_linear_svm

__all__ = ["evaluate_split", "fit_with_c", "in_row_space", "splits_at_once"]

Progress = Callable[[float], object]  # called with shares of the work that add up to 1


def in_row_space(rows: np.ndarray) -> np.ndarray:
    """Turn rows (n, D) of more dimensions than rows into float32 (n, n) of the same lengths, distances and angles.

    Nothing is learned from them: PCA and linear SVMs, which see no more than these, give the same scores in less time.
    """
    if rows.shape[1] <= rows.shape[0]:
        return rows
    return np.linalg.qr(rows.T.astype(np.float64), mode="r").T.astype(np.float32)  # rows.T = Q R, so rows = R.T Q.T


def splits_at_once(tables: Sequence[Rows], num_dims: int, solver: str) -> int:
    """How many splits share the cores: one, but for LinearSVC where it cannot divide a training over them."""
    if solver != "liblinear":
        return 1
    if any(max_runs(len(table.train), num_dims, len(table.classes)) > 1 for table in tables):
        return 1
    return affordable_jobs(max(len(table.train) for table in tables) * num_dims)


def evaluate_split(
    table: Rows,
    descriptors: np.ndarray,
    dims: Sequence[int],
    settings: Settings,
    progress: Progress,
    metrics: Iterable[str] = (),
) -> list[SplitResult]:
    """Results on the descriptors (V, D), then at each of `dims`, ascending."""
    num_dims = descriptors.shape[1]
    costs = [_fit_cost(len(table.classes), d, settings) for d in (num_dims, *dims)]
    pca_cost = float(num_dims * min(num_dims, len(table.train))) if dims else 0.0
    whole = sum(costs) + pca_cost

    def part(cost: float) -> Progress:
        return lambda share: progress(share * cost / whole)

    train, test = descriptors[table.train], descriptors[table.test]
    results = [_train_and_test(table, train, test, settings, part(costs[0]), metrics)]
    if dims:
        basis = fit_basis(array_source(train), max(dims), fitted_on=f"training rows of {table.name}")
        train, test = basis.apply(train), basis.apply(test)
        part(pca_cost)(1.0)
    for d, cost in zip(dims, costs[1:], strict=True):  # the first d columns are what a basis of d components gives
        rows = l2_normalise(train[:, :d]), l2_normalise(test[:, :d])
        results.append(_train_and_test(table, *rows, settings, part(cost), metrics))
    return results


def _fit_cost(num_classes: int, num_dims: int, settings: Settings) -> float:
    """About how long a training takes, in products of the rows with a vector."""
    trainings = 2 * len(CANDIDATES) + 1 if settings.C == "auto" else 1
    return 150.0 * trainings * num_classes * (num_dims + 100)


def _train_and_test(
    table: Rows,
    train: np.ndarray,
    test: np.ndarray,
    settings: Settings,
    progress: Progress,
    metrics: Iterable[str],
) -> SplitResult:
    model, C = fit_with_c(train, table.train_labels, table.train_groups, settings, progress)
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
        C=C,
        converged=model.converged,
        figures=measure(metrics, scores, table.truth),
        confusion=_confusion(table, predictions),
    )


def _confusion(table: Rows, predictions: np.ndarray) -> dict[str, dict[str, int]]:
    """How many test rows of a class were taken for which, without what is 0."""
    pairs, counts = np.unique(np.stack([table.test_labels, predictions]), axis=1, return_counts=True)
    confusion: dict[str, dict[str, int]] = {}
    for true, found, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        confusion.setdefault(table.classes[true], {})[table.classes[found]] = count
    return confusion


def fit_with_c(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, settings: Settings, progress: Progress
) -> tuple[LinearModel, float]:
    """Train on float32 (n, D) `rows`, with C chosen on held-out `groups` where it is "auto"; the model and its C."""
    C, left = settings.C, 1.0
    if C == "auto":
        left = 1 / (2 * len(CANDIDATES) + 1)
        C = choose_c(rows, labels, groups, settings, lambda share: progress(share * (1 - left)))
    model = fit_linear_svm(
        rows,
        labels,
        C=C,
        solver=settings.solver,
        seed=settings.seed,
        device=settings.device,
        progress=lambda share: progress(share * left),
    )
    return model, C
