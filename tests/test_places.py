"""Labels keep apart and near their places, whatever these are."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from featx.plots.places import place_boxes, spread


@pytest.mark.parametrize("seed", range(5))
def test_spread_is_the_nearest_arrangement_with_room(seed):
    wanted = np.random.default_rng(seed).uniform(0, 5, 7)
    places, order = spread(wanted, 1.0), np.argsort(wanted)
    assert (np.diff(places[order]) >= 1 - 1e-9).all()
    apart = [{"type": "ineq", "fun": lambda p, a=a, b=b: p[b] - p[a] - 1} for a, b in itertools.pairwise(order)]
    best = minimize(lambda p: np.square(p - wanted).sum(), places + 0.1, constraints=apart, tol=1e-10)
    np.testing.assert_allclose(places, best.x, atol=1e-4)


def test_spread_leaves_what_has_room_where_it_is():
    assert spread([3.0, 0.0, 1.5], 1.0).tolist() == [3.0, 0.0, 1.5]
    assert spread([2.0, 2.0], 1.0).tolist() == [1.5, 2.5]
    assert spread([], 1.0).tolist() == []


@pytest.mark.parametrize("spread_of_anchors", [0, 1, 40, 400])
def test_boxes_keep_apart_and_inside(spread_of_anchors):
    rng = np.random.default_rng(1)
    anchors = 400 + spread_of_anchors * rng.uniform(-1, 1, (80, 2))
    sizes = np.stack([rng.uniform(30, 150, 80), np.full(80, 12.0)], axis=1)
    centres = place_boxes(anchors, sizes, (800, 800), margin=2)
    for i in range(80):
        assert (sizes[i] / 2 - 1e-9 <= centres[i]).all() and (centres[i] <= 800 - sizes[i] / 2 + 1e-9).all()
        for j in range(i):
            assert (np.abs(centres[i] - centres[j]) >= (sizes[i] + sizes[j]) / 2 + 2 - 1e-9).any()
    assert np.array_equal(centres, place_boxes(anchors, sizes, (800, 800), margin=2))


def test_boxes_with_room_stay_where_they_are_wanted():
    anchors = np.array([[100.0, 100], [100, 130], [300, 100]])
    assert np.array_equal(place_boxes(anchors, np.full((3, 2), 20.0), (400, 400)), anchors)


def test_more_boxes_than_there_is_room_for_still_keep_apart():
    centres = place_boxes(np.full((60, 2), 50.0), np.tile((80.0, 12.0), (60, 1)), (100, 100))
    gaps = np.abs(centres[:, None] - centres[None])
    assert ((gaps[..., 0] >= 80) | (gaps[..., 1] >= 12) | np.eye(60, dtype=bool)).all()
