"""engine/filtering.py: minimal filtering against the sliding sum that it stands for."""

from __future__ import annotations

import pytest
import torch

from featx.engine.filtering import MAX_POINTS, minimal_filtering

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 9) if 2 <= m + r - 1 <= MAX_POINTS]


@pytest.mark.parametrize(("num_outputs", "num_taps"), SIZES)
def test_it_is_the_sliding_sum(num_outputs, num_taps):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_outputs + num_taps - 1, generator=generator, dtype=torch.float64)
    taps = torch.randn(num_taps, generator=generator, dtype=torch.float64)
    f = minimal_filtering(num_outputs, num_taps)
    got = f.output @ ((f.filter @ taps) * (f.input @ inputs))
    expected = [float(inputs[i : i + num_taps] @ taps) for i in range(num_outputs)]
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=0)


def test_the_matrices_of_lavin_and_gray():
    """F(2, 3) as printed ("Fast Algorithms for Convolutional Neural Networks", section 4.1), up to signs and powers of two."""
    f = minimal_filtering(2, 3)
    assert f.output.tolist() == [[1, 1, 1, 0], [0, 1, -1, 1]]
    products = [[sorted(map(abs, row)) for row in m.tolist()] for m in (f.input, f.filter)]
    scales = [max(row) for row in products[0]]
    assert scales == [1, 1, 1, 1] and products[0] == [[0, 0, 1, 1]] * 4
    assert products[1] == [[0, 0, 1], [0.5] * 3, [0.5] * 3, [0, 0, 1]]


@pytest.mark.parametrize(("num_outputs", "num_taps"), [(5, 7), (1, 1), (0, 3), (3, 0)])
def test_sizes_that_it_has_no_points_for(num_outputs, num_taps):
    with pytest.raises(ValueError, match="points, but must have 2 to 10"):
        minimal_filtering(num_outputs, num_taps)
