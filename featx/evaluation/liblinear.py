"""The reference: scikit-learn's LinearSVC, one against the rest, on all processor cores.

LinearSVC trains its classes one after the other on one core. Its primal solver uses no random numbers and never looks at
the labels but through "this class or not", so a run of neighbouring classes, with the ones below merged into one class and the
ones above into another, is trained to the same bits as in one piece; the runs go to threads (liblinear lets go of the
interpreter's lock). The dual solver, for fewer rows than dimensions, draws its order from one stream of random numbers
for all classes: it runs in one piece.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from featx.evaluation.linear_model import LinearModel, check_labels

__all__ = ["affordable_jobs", "fit_liblinear", "max_runs"]


def fit_liblinear(
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    C: float = 1.0,
    seed: int = 0,
    num_jobs: int | None = None,
    progress: Callable[[float], object] = lambda share: None,
) -> LinearModel:
    """Train LinearSVC (squared hinge, dual chosen by shape) on float (n, D) `rows` of class int (n,), classes 0 to k - 1.

    `num_jobs`: threads, None for as many as cores and memory allow. `progress` is called with shares of the work that
    add up to 1. The weights are those of one ``LinearSVC(C=C, dual="auto", random_state=seed)``.
    """
    num_classes = check_labels(labels)
    order = np.argsort(labels, kind="stable")  # liblinear sorts so itself; merged classes must keep that order
    rows, labels = rows[order].astype(np.float64), labels[order]

    jobs = num_jobs or affordable_jobs(rows.size)
    num_runs = min(jobs, max_runs(*rows.shape, num_classes))
    edges = np.linspace(0, num_classes, num_runs + 1).astype(int)

    weights, bias = np.empty((num_classes, rows.shape[1])), np.empty(num_classes)
    converged = True
    with warnings.catch_warnings(), ThreadPoolExecutor(num_runs) as pool:
        warnings.filterwarnings("ignore", "Liblinear failed to converge")  # told by `converged`
        futures = {
            pool.submit(_fit_run, rows, labels, first, end, C, seed): (first, end)
            for first, end in itertools.pairwise(edges)
        }
        for future in as_completed(futures):
            first, end = futures[future]
            weights[first:end], bias[first:end], run_converged = future.result()
            converged &= run_converged
            progress((end - first) / num_classes)
    return LinearModel(weights, bias, converged)


def _fit_run(rows: np.ndarray, labels: np.ndarray, first: int, end: int, C: float, seed: int) -> tuple:
    """Weights and bias of the classes `first` to `end` - 1, and whether the solver converged."""
    from sklearn.svm import LinearSVC

    merged = np.clip(labels, first - 1, end)
    svm = LinearSVC(C=C, dual="auto", random_state=seed).fit(rows, merged)
    weights, bias = svm.coef_, svm.intercept_
    if len(svm.classes_) == 2:  # scikit-learn keeps one vector then, the second class's
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    wanted = (svm.classes_ >= first) & (svm.classes_ < end)
    return weights[wanted], bias[wanted], svm.n_iter_ < svm.max_iter


def max_runs(num_rows: int, num_dims: int, num_classes: int) -> int:
    """In how many runs of classes a training can be divided without changing a bit."""
    return num_classes // 2 if num_rows >= num_dims and num_classes > 2 else 1


def affordable_jobs(num_values: int) -> int:
    """One training a core, but liblinear copies the rows at 16 bytes a number: no more than fit into half of the memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // 2 // (16 * max(num_values, 1))))
