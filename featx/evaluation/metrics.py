"""Figures of merit."""

from __future__ import annotations

import numpy as np

__all__ = ["accuracy", "per_class_accuracy"]


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of equal entries of two int (n,) arrays, in %."""
    return 100.0 * float(np.mean(labels == predictions))


def per_class_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Accuracy among the rows of each class, in %, float64 (num_classes,); NaN for a class without rows."""
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels[labels == predictions], minlength=num_classes)
    return 100.0 * np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)
