"""The Newton solver against scikit-learn's LinearSVC, by the objective, and against what must hold of a minimum."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from featx.descriptors import l2_normalise
from featx.evaluation.newton_fit import fit_newton
from featx.evaluation.newton_svm import minimise
from featx.evaluation.svm import fit_linear_svm


def make(n, d, k, seed=0, noise=1.5, shares=None):
    """Unit rows float32 (n, d) around k centres, non-negative like a layer after a ReLU; every class has a row."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(k), rng.choice(k, n - k, p=shares)]
    rows = np.maximum(rng.standard_normal((k, d))[labels] + noise * rng.standard_normal((n, d)), 0)
    return l2_normalise(rows), labels


def objective(rows, labels, weights, bias, C):
    """f of each class, written out, float64 (k,)."""
    values = []
    for c, (w, b) in enumerate(zip(weights, bias, strict=True)):
        y = np.where(labels == c, 1.0, -1.0)
        hinge = np.maximum(0, 1 - y * (rows.astype(np.float64) @ w + b))
        values.append((w @ w + b * b) / 2 + C * (hinge**2).sum())
    return np.array(values)


def reference(rows, labels, C):
    """LinearSVC at a tolerance far below its default, one vector a class also where there are two."""
    svm = LinearSVC(C=C, dual=False, tol=1e-8, max_iter=20_000).fit(rows.astype(np.float64), labels)
    weights, bias = svm.coef_, svm.intercept_
    if len(bias) == 1:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return weights, bias


CASES = {
    "more rows than dimensions": make(300, 20, 9),
    "as many": make(60, 60, 5),
    "fewer": make(60, 100, 9),
    "far fewer": make(40, 300, 6),
    "two classes": make(80, 10, 2),
    "two classes, few rows": make(30, 90, 2),
    "unbalanced": make(400, 15, 4, shares=[0.94, 0.04, 0.01, 0.01]),
    "separable": make(120, 40, 5, noise=0.1),
    "hopeless": make(300, 8, 6, noise=20),
}


def cases():
    """Every case with every C; what takes seconds is long."""
    for case in CASES:
        for C in (1e-4, 1.0, 1e4):
            is_slow = C == 1e4 and case in ("fewer", "far fewer")
            yield pytest.param(case, C, marks=pytest.mark.long if is_slow else ())


@pytest.mark.parametrize(("case", "C"), list(cases()))
def test_objectives_and_predictions_are_linear_svcs(case, C):
    rows, labels = CASES[case]
    model = fit_linear_svm(rows, labels, C=C, solver="newton")
    weights, bias = reference(rows, labels, C)
    ours, theirs = objective(rows, labels, model.weights, model.bias, C), objective(rows, labels, weights, bias, C)
    assert model.converged
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    scores = rows.astype(np.float64) @ weights.T + bias
    best = np.sort(scores, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.02 * scores.std()  # a tie may fall to either side
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(model.predict(rows)[clear], scores.argmax(axis=1)[clear])


@pytest.mark.parametrize("case", CASES)
def test_the_gap_bounds_the_error(case):
    """At any tolerance the objective is above the minimum by the stated gap at most."""
    rows, labels = CASES[case]
    signs = torch.from_numpy(np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)).float()
    best = minimise(torch.from_numpy(rows), signs, C=3.0, tolerance=1e-10)
    for tolerance in (0.5, 1e-2, 1e-4):
        rough = minimise(torch.from_numpy(rows), signs, C=3.0, tolerance=tolerance)
        above = rough.objectives - best.objectives
        assert (above <= rough.gaps + 1e-6 * best.objectives).all()
        assert (rough.gaps <= tolerance * rough.objectives).all()


def test_duplicates_and_zero_rows():
    """A row twice counts twice; rows without any feature know the bias only."""
    rows, labels = make(50, 200, 4)
    rows[::7] = 0
    twice, twice_labels = np.concatenate([rows, rows]), np.concatenate([labels, labels])
    model, doubled = fit_newton(rows, labels, C=2.0), fit_newton(twice, twice_labels, C=1.0)
    np.testing.assert_allclose(
        objective(rows, labels, doubled.weights, doubled.bias, 2.0),
        objective(rows, labels, model.weights, model.bias, 2.0),
        rtol=1e-4,
    )
    zeros = fit_newton(np.zeros((10, 30), np.float32), np.arange(10) % 3)
    assert zeros.converged and not zeros.weights.any() and np.isfinite(zeros.bias).all()


@pytest.mark.parametrize("shape", [(300, 20, 9), (40, 300, 6)])
def test_the_same_bits_twice_and_the_same_minimum_from_anywhere(shape):
    rows, labels = make(*shape)
    model, again = fit_newton(rows, labels), fit_newton(rows, labels)
    np.testing.assert_array_equal(model.weights, again.weights)
    np.testing.assert_array_equal(model.bias, again.bias)
    other = fit_newton(rows, labels, start=fit_newton(rows, labels, C=50.0))
    np.testing.assert_allclose(*(objective(rows, labels, m.weights, m.bias, 1.0) for m in (model, other)), rtol=1e-4)


def test_a_warm_start_saves_passes():
    rows, labels = make(600, 40, 8)
    signs = torch.from_numpy(np.where(labels[:, None] == np.arange(8), 1.0, -1.0)).float()
    cold = minimise(torch.from_numpy(rows), signs, C=1.2)
    warm = minimise(torch.from_numpy(rows), signs, C=1.2, start=minimise(torch.from_numpy(rows), signs, C=1.0).vectors)
    done = minimise(torch.from_numpy(rows), signs, C=1.2, start=cold.vectors)
    assert done.num_passes == 2 < warm.num_passes < cold.num_passes


def test_progress_adds_up_to_one():
    shares = []
    fit_newton(*make(300, 20, 9), progress=shares.append)
    assert min(shares) > 0 and sum(shares) == pytest.approx(1) and len(shares) > 2


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_finds_the_same_minimum(case):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rows, labels = CASES[case]
    models = [fit_newton(rows, labels, device=device) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(*(objective(rows, labels, m.weights, m.bias, 1.0) for m in models), rtol=1e-4)
