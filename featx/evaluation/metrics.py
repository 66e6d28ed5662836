"""Figures of merit, from scores (n, classes) and the truth, bool (n, classes): a row may have several true classes.

    accuracy   the class of the highest score is a true one                                 (top-1)
    top-K      one of the K highest scores is a true class's
    map        mean over the classes of the average precision of their scores

Average precision is that of ActivityNet's untrimmed classification: the area under the precision-recall curve whose
precision at each recall is the best one at that recall or any higher ("interpolated" at every point). Without
interpolation it is scikit-learn's. Rows of one score are taken in together, so that their order has no say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from featx.errors import UsageError

__all__ = [
    "accuracy",
    "area_under_curve",
    "average_precision",
    "check_metrics",
    "mean_average_precision",
    "measure",
    "per_class_accuracy",
    "require_classes",
    "roc_curve",
    "top_k",
]


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of equal entries of two int (n,) arrays, in %."""
    return 100.0 * float(np.mean(labels == predictions))


def per_class_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Accuracy among the rows of each class, in %, float64 (num_classes,); NaN for a class without rows."""
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[labels == predictions], minlength=num_classes)
    return 100.0 * np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def top_k(scores: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of rows with a true class among their `k` highest scores, in %; of equal scores the lower class comes first."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return 100.0 * float(np.take_along_axis(truth, best, axis=1).any(axis=1).mean())


def average_precision(scores: np.ndarray, truth: np.ndarray, *, interpolated: bool = True) -> float:
    """Average precision of one class, from 0 to 1: `scores` (n,), `truth` bool (n,); NaN where nothing is true."""
    positives, negatives = _counts_by_threshold(scores, truth)
    if not truth.any():
        return float("nan")
    precision = positives / (positives + negatives)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(positives, prepend=0) / truth.sum() * precision))


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the interpolated average precisions of the classes that a row has, in %."""
    values = [average_precision(scores[:, c], truth[:, c]) for c in range(scores.shape[1]) if truth[:, c].any()]
    return 100.0 * float(np.mean(values))


def roc_curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of false and of true positives, 0 to 1, both (points,), from (0, 0) to (1, 1); corners only.

    `scores` (n,), `truth` bool (n,), both kinds present.
    """
    positives, negatives = _counts_by_threshold(scores, truth)
    x, y = np.append(0, negatives), np.append(0, positives)
    # a point on the line through its neighbours draws nothing
    corner = np.diff(x[:-1]) * np.diff(y[1:]) != np.diff(x[1:]) * np.diff(y[:-1])
    kept = np.concatenate([[True], corner, [True]])
    return x[kept] / negatives[-1], y[kept] / positives[-1]


def area_under_curve(x: np.ndarray, y: np.ndarray) -> float:
    """Area below the straight lines that join the points of a ROC curve, 0 to 1."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _counts_by_threshold(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many true and how many other rows score at least as much as each score that occurs, highest first."""
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each group of equal scores
    positives = np.cumsum(truth)[last]
    return positives, last + 1 - positives


# ---------------------------------------------------------------------------------------------------------------- by name


def check_metrics(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, "top-1" as "accuracy". Raises UsageError for one that is no metric."""
    names = dict.fromkeys("accuracy" if name == "top-1" else name for name in names)
    for name in names:
        _metric(name)
    return tuple(names)


def require_classes(name: str, num_classes: int) -> None:
    """Raise UsageError for a top-K of more classes than there are."""
    if name.startswith("top-") and _k_of(name) > num_classes:
        raise UsageError(f"metric is '{name}', but there are {num_classes} classes; take a smaller K")


def measure(names: Iterable[str], scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The metrics named, in %."""
    return {name: _metric(name)(scores, truth) for name in names}


def _metric(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    if name == "map":
        return mean_average_precision
    k = 1 if name == "accuracy" else _k_of(name)
    return lambda scores, truth: top_k(scores, truth, k)


def _k_of(name: str) -> int:
    match = re.fullmatch(r"top-([1-9]\d{0,5})", name)
    if not match:
        raise UsageError(f"metric is '{name}', but must be accuracy, map or top-K with a number K, such as top-3")
    return int(match[1])
