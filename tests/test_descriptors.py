import numpy as np
import pytest

from featx.descriptors import MeanAccumulator, l2_normalise, mean_descriptor
from featx.errors import UsageError


def test_l2_by_hand_and_zero_stays_zero():
    rows = l2_normalise(np.array([[3, 4], [0, 0], [-2, 0]], np.float32))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    np.testing.assert_allclose(l2_normalise(np.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


def test_lengths_do_not_overflow():
    np.testing.assert_allclose(l2_normalise(np.full((1, 4), 1e30, np.float32)), 0.5 * np.ones((1, 4)), rtol=1e-6)


def test_rows_of_any_length_get_unit_length_and_the_others_keep_their_bits():
    ordinary = np.array([[1, 2, 3], [1e-30, 0, 2e-30], [0, 0, 0]], np.float32)
    extreme = np.array([[3e38, 3e38, 0], [1e-45, 1e-45, 1e-45], [3e-42, 0, 4e-42]], np.float32)
    together = l2_normalise(np.concatenate([ordinary, extreme]))
    assert np.array_equal(together[:3], l2_normalise(ordinary)) and together.dtype == np.float32
    exact = extreme.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(together[3:], exact, rtol=1e-6)
    np.testing.assert_allclose(l2_normalise(extreme[0]), exact[0], rtol=1e-6)
    assert np.isnan(l2_normalise(np.array([[np.nan, 1]], np.float32))).any()


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_mean_is_the_float64_mean_whatever_the_batches(batch):
    features = np.random.default_rng(0).gamma(1, 100, (40, 9)).astype(np.float32)
    accumulator = MeanAccumulator(9)
    for start in range(0, 40, batch):
        accumulator.add(features[start : start + batch])
    expected = np.array([sum(float(v) for v in column) / 40 for column in features.T])
    assert accumulator.num_clips == 40
    np.testing.assert_array_equal(accumulator.result(), expected.astype(np.float32))


def test_mean_descriptor_is_mean_then_unit_length():
    np.testing.assert_allclose(mean_descriptor(np.array([[6, 0], [0, 8]], np.float32)), [0.6, 0.8], rtol=1e-6)


def test_refusals():
    with pytest.raises(UsageError, match=r"\(2, 3\).*\(clips, 4\)"):
        MeanAccumulator(4).add(np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match="at least 1"):
        MeanAccumulator(4).result()
