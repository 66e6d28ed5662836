"""A trained linear classifier: weights, biases, scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.errors import UsageError

__all__ = ["LinearModel", "check_labels"]


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A one-against-the-rest linear classifier: `weights` float64 (classes, D), `bias` float64 (classes,)."""

    weights: np.ndarray
    bias: np.ndarray
    converged: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.weights)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Signed distances to the classes' boundaries, times the weights' lengths: float64 (n, classes)."""
        return rows.astype(np.float64) @ self.weights.T + self.bias

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The class of the highest score of each row, int64 (n,)."""
        return self.scores(rows).argmax(axis=1)


def check_labels(labels: np.ndarray) -> int:
    """The number k of classes of int labels (n,). Raises UsageError unless k is 2 or more and all of 0 to k - 1 occur."""
    num_classes = int(labels.max()) + 1
    if num_classes < 2 or len(np.unique(labels)) != num_classes:
        raise UsageError(
            f"classes with training rows: {len(np.unique(labels))}, but an SVM needs 2; add videos of another"
        )
    return num_classes
