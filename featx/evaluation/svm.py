"""The papers' classifier, a linear SVM, one class against the rest, by one of two solvers of the same problem."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from featx.errors import UnknownNameError
from featx.evaluation.liblinear import fit_liblinear
from featx.evaluation.linear_model import LinearModel
from featx.evaluation.newton_fit import fit_newton

__all__ = ["SOLVERS", "LinearModel", "fit_linear_svm", "settle_solver"]

SOLVERS = ("auto", "newton", "liblinear")
FEW_ROWS = (
    2000  # below them LinearSVC is the faster one: 420 rows, left out one by one, took it 22 s, Newton's steps 39
)


def settle_solver(name: str, num_rows: int) -> str:
    """The solver that is meant: for "auto", "newton" from FEW_ROWS training rows on. Raises UnknownNameError."""
    if name not in SOLVERS:
        raise UnknownNameError("solver", name, SOLVERS)
    return name if name != "auto" else "newton" if num_rows >= FEW_ROWS else "liblinear"


def fit_linear_svm(
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    C: float = 1.0,
    solver: str = "auto",
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
    if settle_solver(solver, len(rows)) == "newton":
        return fit_newton(rows, labels, C=C, start=start, device=device, progress=progress)
    return fit_liblinear(rows, labels, C=C, seed=seed, progress=progress)
