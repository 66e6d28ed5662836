from itertools import pairwise

import numpy as np
import pytest
from sklearn.decomposition import PCA

from featx import basis as basis_module
from featx.basis import Basis, Origin, array_source, choose_method, fit_basis
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, ProvenanceError, UsageError

SHAPES = {"covariance": (300, 40), "gram": (60, 200), "randomised": (200, 120)}


def make_rows(shape, seed=0, offset=0.5, decay=0.8):
    """Rows whose principal directions are well apart, far from the origin."""
    rng = np.random.default_rng(seed)
    n, d = shape
    rank = min(n - 1, d)
    directions = np.linalg.qr(rng.standard_normal((d, rank)))[0]
    return ((rng.standard_normal((n, rank)) * decay ** np.arange(rank)) @ directions.T + offset).astype(np.float32)


def ragged(rows):
    """A source with blocks of uneven sizes."""
    edges = [0, 1, 8, len(rows) // 2, len(rows)]
    return lambda: (rows[a:b] for a, b in pairwise(edges))


def sklearn_pca(rows, dims, **options):
    return PCA(dims, svd_solver="full", **options).fit(rows.astype(np.float64))


def signed_like(ours, theirs):
    return ours * np.sign((ours * theirs).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("offset", [0.5, 100.0])
@pytest.mark.parametrize("method", SHAPES)
def test_equals_scikit_learn_full_solver(method, offset, monkeypatch):
    monkeypatch.setattr(basis_module, "PANEL_VALUES", 25 * 200)  # several panels of the Gram matrix
    rows = make_rows(SHAPES[method], offset=offset)
    ours, theirs = fit_basis(ragged(rows), 12, method=method), sklearn_pca(rows, 12)
    assert (ours.method, ours.num_rows, ours.num_dims) == (method, len(rows), 12)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-6)
    np.testing.assert_allclose(signed_like(ours.components, theirs.components_), theirs.components_, atol=1e-4)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(ours.explained_variance_ratio, theirs.explained_variance_ratio_, rtol=1e-4)

    fresh = make_rows(SHAPES[method], seed=1, offset=offset)
    signs = np.sign((ours.components * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.apply(fresh) * signs, theirs.transform(fresh.astype(np.float64)), atol=1e-4)
    assert (ours.error == 0) == (method != "randomised") and ours.error < 1e-6


def test_the_methods_agree_sign_included():
    rows = make_rows((90, 100))
    fits = [fit_basis(array_source(rows), 8, method=method) for method in basis_module.METHODS]
    for other in fits[1:]:
        np.testing.assert_allclose(other.components, fits[0].components, atol=1e-5)
    largest = np.abs(fits[0].components).argmax(axis=1)
    assert (fits[0].components[np.arange(8), largest] > 0).all()


def test_the_stated_error_of_the_randomised_method_bounds_the_true_one(monkeypatch):
    monkeypatch.setattr(basis_module, "MAX_PASSES", 1)
    rows = make_rows((400, 300), decay=0.99)  # a flat spectrum, and one pass: a bad fit that must say so
    ours, theirs = fit_basis(array_source(rows), 10, method="randomised"), sklearn_pca(rows, 10)
    true_error = np.abs(ours.explained_variance / theirs.explained_variance_ - 1).max()
    assert 0.01 < true_error <= ours.error


def test_all_dims_of_few_rows_and_of_rows_without_variance():
    rows = make_rows((5, 30))
    basis = fit_basis(array_source(rows), 5)  # 5 rows have 4 directions
    assert basis.explained_variance[4] == 0 and not basis.components[4].any()
    np.testing.assert_allclose(basis.explained_variance_ratio.sum(), 1, rtol=1e-6)
    whitened = fit_basis(array_source(rows), 5, whiten=True).apply(rows)
    assert np.isfinite(whitened).all()
    constant = fit_basis(array_source(np.ones((6, 3), np.float32)), 2)
    assert not constant.components.any() and not constant.apply(np.ones((1, 3), np.float32)).any()
    assert constant.explained_variance_ratio.sum() == 0


def test_whiten_equals_scikit_learn_and_l2_follows():
    rows = make_rows((300, 40))
    theirs = sklearn_pca(rows, 6, whiten=True).transform(rows.astype(np.float64))
    ours = fit_basis(array_source(rows), 6, whiten=True).apply(rows)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    unit = fit_basis(array_source(rows), 6, whiten=True, l2=True).apply(rows)
    np.testing.assert_allclose(unit, l2_normalise(ours), atol=1e-6)


def test_a_basis_of_unit_rows_takes_the_scale_off_clip_features():
    rows = l2_normalise(make_rows((50, 20)))
    basis = fit_basis(array_source(rows), 4)
    assert basis.unit_rows
    np.testing.assert_allclose(basis.apply(70 * rows), basis.apply(rows), atol=1e-6)
    assert not fit_basis(array_source(2 * rows), 4).unit_rows


def test_truncate_is_the_smaller_fit():
    rows = make_rows((60, 30))
    large, small = fit_basis(array_source(rows), 9), fit_basis(array_source(rows), 4)
    np.testing.assert_array_equal(large.truncate(4).components, small.components)
    with pytest.raises(UsageError, match="dims is 10, but the basis has 9"):
        large.truncate(10)


@pytest.mark.parametrize(
    ("shape", "method"),
    [
        ((13_320, 4_096), "covariance"),
        ((9_537, 25_088), "gram"),
        ((250, 4_096), "gram"),
        ((1_000_000, 8_192), "covariance"),
        ((12_000, 10_000), "covariance"),
        ((12_000, 11_000), "gram"),
        ((16_000, 16_000), "gram"),
        ((16_001, 10_001), "randomised"),
        ((30_000, 25_088), "randomised"),
        ((20_000, 204_800), "randomised"),
    ],
)
def test_the_cheapest_exact_method_that_fits(shape, method):
    assert choose_method(*shape) == method


def test_the_gram_matrix_serves_rows_that_are_more_than_their_dimensions(monkeypatch):
    monkeypatch.setattr(basis_module, "COVARIANCE_DIMS", 10)
    rows = make_rows((60, 20))
    ours, theirs = fit_basis(array_source(rows), 6), sklearn_pca(rows, 6)
    assert (ours.method, ours.error) == ("gram", 0)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-6)


def test_refusals():
    rows = make_rows((20, 8))
    with pytest.raises(UsageError, match=r"dims is 9 for fc6, but PCA of 20 rows x 8 .* 1 to 8 dimensions"):
        fit_basis(array_source(rows), 9, origin=Origin(layer="fc6"))
    with pytest.raises(UsageError, match="dims is 0, .*; ask for 1 or more"):
        fit_basis(array_source(rows), 0)
    with pytest.raises(UsageError, match="at least 2 rows .*; fit on more videos"):
        fit_basis(array_source(rows[:1]), 1)
    rows[13, 2] = np.nan
    with pytest.raises(FeatureFileError, match="row 13 "):
        fit_basis(ragged(rows), 3)
    with pytest.raises(UsageError, match=r"\(2, 7\).*\(rows, 8\)"):
        fit_basis(array_source(make_rows((20, 8))), 3).apply(np.zeros((2, 7), np.float32))


def test_dict_round_trip_and_origin():
    origin = Origin("c3d", "c3d-sports1m", "ab" * 32, "", "fc6")
    basis = fit_basis(array_source(make_rows((20, 8))), 3, whiten=True, fitted_on="all 20 videos", origin=origin)
    values = basis.to_dict()
    assert set(map(type, values.values())) <= {np.ndarray, float, int, str}
    again = Basis.from_dict(values)
    for name in ("mean", "components", "explained_variance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(basis, name))
    assert (again.origin, again.whiten, again.l2, again.fitted_on) == (origin, True, False, "all 20 videos")
    with pytest.raises(FeatureFileError, match="lacks mean"):
        Basis.from_dict({name: value for name, value in values.items() if name != "mean"})
    with pytest.raises(FeatureFileError, match="must have"):
        Basis.from_dict({**values, "mean": np.zeros(7)})
    with pytest.raises(ProvenanceError, match="layer of the basis is 'fc6', of the features 'fc7'"):
        origin.check_equal(Origin("c3d", "c3d-sports1m", "ab" * 32, "", "fc7"), "the features")
