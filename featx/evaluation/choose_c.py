"""C by grouped cross-validation inside the training rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from featx.engine import choose_device
from featx.errors import UnknownNameError, UsageError
from featx.evaluation.metrics import accuracy
from featx.evaluation.svm import SOLVERS, fit_linear_svm

__all__ = ["CANDIDATES", "Settings", "choose_c"]

CANDIDATES = (0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 3


@dataclass(frozen=True)
class Settings:
    """How an SVM is trained: `C` is a number, or "auto" for the best of CANDIDATES on held-out groups."""

    C: float | str = 1.0
    solver: str = "auto"
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.C != "auto" and not (isinstance(self.C, int | float) and 0 < self.C < float("inf")):
            raise UsageError(f"C is {self.C}, but must be a number above 0, or auto; the papers' protocol uses 1")
        if self.solver not in SOLVERS:
            raise UnknownNameError("solver", self.solver, SOLVERS)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}, but must be from 0 to {2**32 - 1}")
        choose_device(self.device)  # raises for one that is not there


def choose_c(
    rows: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    settings: Settings,
    progress: Callable[[float], object] = lambda share: None,
) -> float:
    """The candidate of the best mean accuracy over three folds, the smallest of equals.

    `rows` float32 (n, D), `labels` int (n,) from 0 to k - 1, `groups` int (n,): rows of one group are never parted. Each
    candidate begins where the next smaller one ended. Raises UsageError where every class has one group only.
    """
    scores = np.zeros(len(CANDIDATES))
    folds = list(_folds(labels, groups, settings.seed))
    for train, test in folds:
        classes, own_labels = np.unique(labels[train], return_inverse=True)
        held, model = rows[train], None
        for i, C in enumerate(CANDIDATES):
            model = fit_linear_svm(
                held,
                own_labels,
                C=C,
                solver=settings.solver,
                seed=settings.seed,
                start=model,
                device=settings.device,
                progress=lambda share: progress(share / len(folds) / len(CANDIDATES)),
            )
            scores[i] += accuracy(labels[test], classes[model.predict(rows[test])])
    return CANDIDATES[int(np.flatnonzero(scores >= scores.max() - 1e-9)[0])]


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import StratifiedGroupKFold

    groups_of_class = [len(np.unique(groups[labels == c])) for c in np.unique(labels)]
    folds = min(FOLDS, max(groups_of_class))
    if folds < 2:
        raise UsageError("C is auto, but every class has one group of videos to train on; give C a number")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds is in some tests only
        for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups):
            if len(test) and len(np.unique(labels[train])) > 1:
                yield train, test
