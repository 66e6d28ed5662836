"""Rows and labels to a LinearModel with the Newton solver; where rows are few, in the space that they span.

The problem depends on the rows through their inner products only. Where there are far fewer rows than dimensions, the rows of
L take their place, with L L^T = X X^T: the same inner products in as few dimensions as there are rows. The weights come
back as X^T L^-T u.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from featx.engine import choose_device
from featx.evaluation.linear_model import LinearModel, check_labels
from featx.evaluation.newton_svm import TOLERANCE, minimise

__all__ = ["fit_newton"]

SPAN_ROWS = 5_000  # three matrices of 200 MB
COLUMNS = 4096  # that are turned into float64 at a time
RIDGE = 1e-10  # of a mean squared length: keeps L finite where rows are equal, or zero


def fit_newton(
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    C: float = 1.0,
    start: LinearModel | None = None,
    device: str = "auto",
    tolerance: float = TOLERANCE,
    progress: Callable[[float], object] = lambda share: None,
) -> LinearModel:
    """Train on float32 (n, D) `rows` of class int (n,), classes 0 to k - 1; see `fit_linear_svm`.

    Each class's objective is at most `tolerance` of itself above its minimum, or the model says that it has not converged.
    """
    num_classes = check_labels(labels)
    place = choose_device(device)
    x = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)).to(place)
    y = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(place)
    # of two classes one is the other's mirror image
    classes = torch.arange(num_classes if num_classes > 2 else 1, device=x.device)
    signs = torch.where(y[:, None] == classes, 1.0, -1.0)
    begin = None if start is None else _vectors(start)[:, : len(classes)].to(place)

    n, num_dims = x.shape
    if n <= SPAN_ROWS and 2 * n < num_dims:
        factor = _factor(x)
        # L^-1 X w: what the begin's weights are in the rows' span
        begin = None if begin is None else torch.cat([_project(x, factor, begin[:-1]), begin[-1:]])
        result = minimise(factor.float(), signs, C=C, start=begin, tolerance=tolerance, progress=progress)
        coefficients = torch.linalg.solve_triangular(factor.T, result.vectors[:-1], upper=True)
        weights = _by_columns(x, lambda columns: columns.T @ coefficients)
        vectors = torch.cat([weights, result.vectors[-1:]])
    else:
        result = minimise(x, signs, C=C, start=begin, tolerance=tolerance, progress=progress)
        vectors = result.vectors
    if num_classes == 2:
        vectors = torch.cat([vectors, -vectors], dim=1)
    vectors = vectors.cpu().numpy()
    return LinearModel(np.ascontiguousarray(vectors[:-1].T), vectors[-1].copy(), result.converged)


def _vectors(model: LinearModel) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([model.weights.T, model.bias[None]]))


def _factor(x: torch.Tensor) -> torch.Tensor:
    """L, float64 (n, n), lower triangular, with the inner products of the rows of `x`."""
    gram = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for first in range(0, x.shape[1], COLUMNS):
        columns = x[:, first : first + COLUMNS].double()
        gram += columns @ columns.T
    diagonal = gram.diagonal()
    diagonal += RIDGE * (float(diagonal.mean()) or 1.0)
    return torch.linalg.cholesky(gram)


def _project(x: torch.Tensor, factor: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    scores = sum(x[:, i : i + COLUMNS].double() @ weights[i : i + COLUMNS] for i in range(0, x.shape[1], COLUMNS))
    return torch.linalg.solve_triangular(factor, scores, upper=False)


def _by_columns(x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Join what a function of columns in float64, (n, d), gives: (d, k)."""
    return torch.cat([function(x[:, i : i + COLUMNS].double()) for i in range(0, x.shape[1], COLUMNS)])
