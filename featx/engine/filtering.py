"""Winograd's minimal filtering F(m, r) in one dimension for any m and r: m outputs of a filter of r taps by m + r - 1 products.

    outputs = A^T [ (G filter) * (B^T inputs) ]         * number by number

The construction is that of Toom and Cook (Winograd, "Arithmetic Complexity of Computations", 1980): both sides are taken as
polynomials, evaluated at m + r - 2 points and at infinity, multiplied there, and the result is interpolated. Exact in
fractions; in float32 the points decide the error. Those here are the ones that Barabasz and others ("Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020) find best for ten points and fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

__all__ = ["MAX_POINTS", "Filtering", "minimal_filtering"]

POINTS = [Fraction(point) for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "4", "-1/4")]
MAX_POINTS = len(POINTS) + 1  # one more is infinity


@dataclass(frozen=True, eq=False)
class Filtering:
    """The matrices of F(m, r), float64: `output` A^T (m, n), `filter` G (n, r) and `input` B^T (n, n); n = m + r - 1."""

    output: Tensor
    filter: Tensor
    input: Tensor


def minimal_filtering(num_outputs: int, num_taps: int) -> Filtering:
    """F(num_outputs, num_taps). Raises ValueError where it would need more than MAX_POINTS points."""
    n = num_outputs + num_taps - 1
    if min(num_outputs, num_taps) < 1 or not 2 <= n <= MAX_POINTS:
        raise ValueError(f"F({num_outputs}, {num_taps}) needs {n} points, but must have 2 to {MAX_POINTS}")
    points = POINTS[: n - 1]
    output = [[p**i for p in points] + [Fraction(i == num_outputs - 1)] for i in range(num_outputs)]
    filters = [[p**j / _distances(points, p) for j in range(num_taps)] for p in points]
    filters.append([Fraction(j == num_taps - 1) for j in range(num_taps)])
    inputs = [[*_polynomial([q for q in points if q != p]), Fraction(0)] for p in points] + [_polynomial(points)]
    # What a point's inputs are divided by, its filter is multiplied by. Powers of two that make both about equally large
    # halve the error, and are exact.
    for row_in, row_filter in zip(inputs, filters, strict=True):
        factor = _power_of_two(sum(map(abs, row_in)), sum(map(abs, row_filter)))
        row_in[:] = [x / factor for x in row_in]
        row_filter[:] = [x * factor for x in row_filter]
    matrices = ([[float(x) for x in row] for row in matrix] for matrix in (output, filters, inputs))
    return Filtering(*(torch.tensor(matrix, dtype=torch.float64) for matrix in matrices))


def _distances(points: list[Fraction], p: Fraction) -> Fraction:
    """The product of the distances from `p` to the other points."""
    product = Fraction(1)
    for q in points:
        if q != p:
            product *= p - q
    return product


def _polynomial(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of the product of (x - root), that of 1 first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def _power_of_two(large: Fraction, small: Fraction) -> Fraction:
    """About the square root of large / small."""
    ratio, factor = large / small, Fraction(1)
    while factor * factor * 2 < ratio:
        factor *= 2
    while factor * factor > ratio * 2:
        factor /= 2
    return factor
