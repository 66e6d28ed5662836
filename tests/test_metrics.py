"""Figures of merit against scikit-learn, against a slow reading of their definitions, and by hand."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, top_k_accuracy_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from featx.errors import UsageError
from featx.evaluation.metrics import (
    area_under_curve,
    average_precision,
    check_metrics,
    mean_average_precision,
    measure,
    roc_curve,
    top_k,
)


def draw(seed, n=40, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    truth[:2] = True, False
    scores = truth + rng.normal(0, 1.2, n)
    return (np.round(scores) if ties else scores), truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_without_interpolation_is_scikit_learns(seed, ties):
    scores, truth = draw(seed, ties=ties)
    expected = average_precision_score(truth, scores)
    assert average_precision(scores, truth, interpolated=False) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_interpolated_precision_is_the_best_at_that_recall_or_higher(seed, ties):
    scores, truth = draw(seed, ties=ties)
    precision, recall, _ = precision_recall_curve(truth, scores)
    steps = sorted(set(recall))
    expected = sum(
        (b - a) * max(p for p, r in zip(precision, recall, strict=True) if r >= b) for a, b in itertools.pairwise(steps)
    )
    assert average_precision(scores, truth) == pytest.approx(expected, abs=1e-12)


def test_average_precision_by_hand():
    """In order of score: true, other, true, true, other. Precisions at the true ones 1, 2/3, 3/4; interpolated 1, 3/4, 3/4."""
    scores, truth = np.array([9.0, 8, 7, 6, 5]), np.array([True, False, True, True, False])
    assert average_precision(scores, truth, interpolated=False) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(scores, truth) == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    shuffled = [3, 0, 4, 2, 1]
    assert average_precision(scores[shuffled], truth[shuffled]) == average_precision(scores, truth)
    assert average_precision(np.zeros(5), truth) == pytest.approx(3 / 5)  # no order at all
    assert np.isnan(average_precision(scores, np.zeros(5, bool)))


def test_map_is_the_mean_over_the_classes_that_a_row_has():
    scores = np.array([[3.0, 1, 0], [2, 2, 0], [1, 3, 0]])
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], bool)
    first = (1 + 2 / 3) / 2  # true, other, true
    second = 1 / 2  # other, true, other
    assert mean_average_precision(scores, truth) == pytest.approx(100 * (first + second) / 2)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_equals_scikit_learns(k):
    rng = np.random.default_rng(k)
    labels, scores = np.r_[np.arange(6), rng.integers(0, 6, 60)], rng.normal(size=(66, 6))
    truth = labels[:, None] == np.arange(6)
    assert top_k(scores, truth, k) == pytest.approx(100 * top_k_accuracy_score(labels, scores, k=k))


def test_top_k_of_several_true_classes_by_hand():
    scores = np.array([[5.0, 4, 3, 2], [5, 4, 3, 2], [1, 1, 1, 1]])
    truth = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 0]], bool)
    assert [top_k(scores, truth, k) for k in (1, 2, 3)] == pytest.approx([0, 200 / 3, 100])
    assert top_k(scores, truth, 99) == 100


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_roc_equals_scikit_learns(seed, ties):
    scores, truth = draw(seed, 60, ties)
    x, y = roc_curve(scores, truth)
    assert area_under_curve(x, y) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    expected_x, expected_y, _ = sklearn_roc_curve(truth, scores)  # which drops points on a line too
    np.testing.assert_allclose(np.interp(expected_y, y, y), expected_y)
    assert {(round(a, 9), round(b, 9)) for a, b in zip(x, y, strict=True)} <= {
        (round(a, 9), round(b, 9)) for a, b in zip(expected_x, expected_y, strict=True)
    }


def test_roc_by_hand():
    x, y = roc_curve(np.array([4.0, 3, 2, 1]), np.array([True, True, False, True]))
    assert x.tolist() == [0, 0, 1, 1] and y.tolist() == pytest.approx([0, 2 / 3, 2 / 3, 1])
    assert area_under_curve(x, y) == pytest.approx(2 / 3)
    assert [axis.tolist() for axis in roc_curve(np.zeros(4), np.array([True, False, True, False]))] == [[0, 1], [0, 1]]


def test_metrics_by_name():
    scores, truth = np.array([[2.0, 1], [2, 1]]), np.array([[True, False], [False, True]])
    assert check_metrics(["top-1", "accuracy", "map", "top-2"]) == ("accuracy", "map", "top-2")
    assert measure(("accuracy", "top-2"), scores, truth) == {"accuracy": 50, "top-2": 100}
    for name in ("top-0", "top-", "top3", "mAP", ""):
        with pytest.raises(UsageError, match=f"metric is '{name}', but must be accuracy, map or top-K"):
            check_metrics([name])
