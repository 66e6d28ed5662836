"""The papers' classifier, a linear SVM, one class against the rest, by one of two solvers of the same problem."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featx.errors import UnknownNameError
from featx.evaluation.liblinear import fit_liblinear
from featx.evaluation.linear_model import LinearModel
from featx.evaluation.newton_fit import fit_newton

__all__ = ["SOLVERS", "LinearModel", "fit_linear_svm"]

SOLVERS = ("newton", "liblinear")


def fit_linear_svm(
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    C: float = 1.0,
    solver: str = "newton",
    seed: int = 0,
    start: LinearModel | None = None,
    device: str = "auto",
    progress: Callable[[float], object] = lambda share: None,
) -> LinearModel:
    """Train on float32 (n, D) `rows` of class int (n,), classes 0 to k - 1: squared hinge, L2, penalty `C`.

    "newton" is fast, on `device` ("auto": the GPU where there is one), and may begin at a trained `start`, say of another
    C; "liblinear" is scikit-learn's LinearSVC, for which `seed` is. `progress` is called with shares of the work that add
    up to 1. Raises UsageError where there is one class only, UnknownNameError for another solver.
    """
    if solver == "newton":
        return fit_newton(rows, labels, C=C, start=start, device=device, progress=progress)
    if solver == "liblinear":
        return fit_liblinear(rows, labels, C=C, seed=seed, progress=progress)
    raise UnknownNameError("solver", solver, SOLVERS)
