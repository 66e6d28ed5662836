from functools import partial

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score
from sklearn.svm import LinearSVC

from featx.errors import UnknownNameError, UsageError
from featx.evaluation.liblinear import fit_liblinear
from featx.evaluation.metrics import accuracy, per_class_accuracy
from featx.evaluation.svm import SOLVERS, fit_linear_svm


def make(n, d, k, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    rng.shuffle(labels)
    rows = rng.standard_normal((k, d))[labels] + noise * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("num_jobs", [1, 2, 3, None])
@pytest.mark.parametrize("shape", [(300, 20, 9), (60, 100, 9), (300, 20, 4), (300, 20, 3), (80, 10, 2), (40, 60, 2)])
def test_bit_for_bit_what_one_linear_svc_gives(shape, num_jobs):
    """Primal (more rows than dimensions) and dual, many classes and two, in one piece and in several."""
    rows, labels = make(*shape)
    fresh, _ = make(*shape, seed=1)
    reference = LinearSVC(C=0.7, dual="auto", random_state=3).fit(rows, labels)
    trained = []
    model = fit_liblinear(rows, labels, C=0.7, seed=3, num_jobs=num_jobs, progress=trained.append)
    np.testing.assert_array_equal(model.weights[-len(reference.coef_) :], reference.coef_)
    np.testing.assert_array_equal(model.bias[-len(reference.coef_) :], reference.intercept_)
    np.testing.assert_array_equal(model.predict(fresh), reference.predict(fresh))
    assert sum(trained) == pytest.approx(1) and model.converged


def test_a_solver_that_gives_up_is_reported(recwarn, monkeypatch):
    monkeypatch.setattr("sklearn.svm.LinearSVC", partial(LinearSVC, max_iter=1))
    rows, labels = make(90, 20, 6)
    assert not fit_linear_svm(rows, labels, solver="liblinear").converged
    assert not recwarn.list  # by the model, and not by a warning as well


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_class_is_refused(solver):
    with pytest.raises(UsageError, match="classes with training rows: 1, but an SVM needs 2"):
        fit_linear_svm(np.eye(3, dtype=np.float32), np.zeros(3, int), solver=solver)


def test_an_unknown_solver_is_refused():
    with pytest.raises(UnknownNameError, match="unknown solver 'netwon'; did you mean 'newton'"):
        fit_linear_svm(np.eye(3, dtype=np.float32), np.arange(3), solver="netwon")


def test_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 4, 50), rng.integers(0, 5, 50)
    assert accuracy(labels, predictions) == pytest.approx(100 * accuracy_score(labels, predictions))
    recall = recall_score(labels, predictions, labels=range(4), average=None)
    np.testing.assert_allclose(per_class_accuracy(labels, predictions, 5)[:4], 100 * recall)
    assert np.isnan(per_class_accuracy(labels, predictions, 5)[4])


def test_few_rows_are_liblinears_and_many_are_newtons():
    from featx.evaluation.svm import FEW_ROWS, settle_solver

    assert settle_solver("auto", FEW_ROWS - 1) == "liblinear" and settle_solver("auto", FEW_ROWS) == "newton"
    assert settle_solver("newton", 1) == "newton" and settle_solver("liblinear", 10**6) == "liblinear"
