"""One layer's vectors as a page can hold them: a plane, the nearest neighbours, and reduced vectors for any two videos."""

from __future__ import annotations

import base64
import tempfile

import numpy as np

from featx.basis import array_source, fit_basis
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError
from featx.evaluation.embedding import PCA_DIMS, tsne
from featx.report.neighbours import nearest
from featx.store import FeatureSet

__all__ = ["NUM_NEIGHBOURS", "VECTOR_BYTES", "layer_data", "unit_rows"]

NUM_NEIGHBOURS = 8
VECTOR_BYTES = 4_800_000  # of reduced vectors, all layers together
LEAST_DIMS, MOST_DIMS = 16, 256  # of reduced vectors that are not exact
EXACT_SIDE = 1500  # up to which a basis is computed exactly: seconds
MIN_TSNE_ROWS = 5
IN_MEMORY_BYTES = 1 << 30
SAMPLED_PAIRS = 20_000


def unit_rows(features: FeatureSet, layer: str) -> np.ndarray:
    """The descriptors of a layer, float32 (V, D), each of unit length or zero; on disk where they are many.

    Of a file of clip features alone, the mean of each video's clips. Raises FeatureFileError for values that are not finite.
    """
    shape = (len(features), features.num_dims(layer))
    if 4 * shape[0] * shape[1] <= IN_MEMORY_BYTES:
        rows = np.zeros(shape, np.float32)
    else:
        with tempfile.TemporaryFile() as file:  # the map keeps it alive
            rows = np.memmap(file, np.float32, "w+", shape=shape)
    if features.has_descriptors:
        start = 0
        for block in features.blocks(layer, max(1, (1 << 24) // max(1, shape[1]))):
            rows[start : start + len(block)] = l2_normalise(block)
            start += len(block)
    else:
        _mean_of_clips(features, layer, rows)
    for start in range(0, len(rows), 1024):
        finite = np.isfinite(rows[start : start + 1024]).all(axis=1)
        if not finite.all():
            key = features.keys[start + int(finite.argmin())]
            raise FeatureFileError(f"the {layer} feature of '{key}' is not finite; extract that video again")
    return rows


def _mean_of_clips(features: FeatureSet, layer: str, rows: np.ndarray) -> None:
    """Fill `rows` with the means of clip features, which come in the order of the videos."""
    counts = features.column("num_clips")
    video_of, place = np.repeat(np.arange(len(features)), counts), 0
    sums, current = np.zeros(rows.shape[1]), 0
    for block in features.clip_blocks(layer, max(1, (1 << 24) // max(1, rows.shape[1]))):
        for row in block:
            if video_of[place] != current:
                rows[current], current = sums / max(counts[current], 1), video_of[place]
                sums[:] = 0
            sums += row
            place += 1
    if len(rows):
        rows[current] = sums / max(counts[current], 1)
    for start in range(0, len(rows), 1024):
        rows[start : start + 1024] = l2_normalise(rows[start : start + 1024])


def layer_data(rows: np.ndarray, method: str, budget_bytes: int, num_neighbours: int = NUM_NEIGHBOURS) -> dict:
    """What the page holds of one layer, as JSON can: arrays are base64 of little-endian numbers, in the order of rows.

    `points` float32 (V, 2); `neighbours` uint32 (V, n) and `cosines` float32 (V, n), exact. The cosine of rows x and y is
    `vectors`[x] . `vectors`[y] + `offsets`[x] + `offsets`[y], with `vectors` (V, d) in `dtype` and `offsets` float32 (V,);
    `pair_error` is the largest error of it met among sampled pairs of two rows, and `exact` says that it is mere rounding.
    `explained` is the share of the variance that the first two components hold, None unless `method` is "pca".
    """
    num_rows, num_dims = rows.shape
    vectors, offsets, explained = _reduce(rows, _dims(num_rows, num_dims, budget_bytes))
    exact = vectors.shape[1] >= min(num_rows, num_dims)
    stored = vectors if exact else vectors.astype(np.float16)
    if method == "tsne" and num_rows >= MIN_TSNE_ROWS:
        points, explained = tsne(vectors[:, :PCA_DIMS], _plane(vectors)), None
    else:
        method, points = "pca", _plane(vectors)
    indices, cosines = nearest(rows, num_neighbours)
    return {
        "dims": num_dims,
        "method": method,
        "explained": explained,
        "num_zero": int((~rows.any(axis=1)).sum()),
        "num_neighbours": indices.shape[1],
        "vector_dims": vectors.shape[1],
        "dtype": "float32" if exact else "float16",
        "exact": exact,
        "pair_error": _pair_error(rows, stored.astype(np.float32), offsets),
        "points": _base64(points, "<f4"),
        "neighbours": _base64(indices, "<u4"),
        "cosines": _base64(cosines, "<f4"),
        "vectors": _base64(stored, "<f4" if exact else "<f2"),
        "offsets": _base64(offsets, "<f4"),
    }


def _dims(num_rows: int, num_dims: int, budget_bytes: int) -> int:
    """All dimensions that the rows span where they fit into the budget as float32, else as many as fit as float16."""
    rank = min(num_rows, num_dims)
    if 4 * num_rows * rank <= budget_bytes:
        return rank
    return min(rank, max(LEAST_DIMS, min(MOST_DIMS, budget_bytes // (2 * num_rows))))


def _reduce(rows: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray, list[float] | None]:
    """Principal components float32 (V, d), what to add for a cosine float32 (V,), and shares of the variance of the first two.

    With m the mean and x' the components of x - m, x . y is x' . y' + x . m + y . m - m . m, less what the components leave.
    """
    if len(rows) < 2 or dims < 1:
        mean, vectors, explained = rows.mean(axis=0) if len(rows) else None, np.zeros((len(rows), 1), np.float32), None
    else:
        mean, vectors, explained = _components(rows, dims)
    if mean is None:
        return vectors, np.zeros(0, np.float32), None
    mean = mean.astype(np.float64)
    offsets = np.concatenate([rows[i : i + 1024] @ mean for i in range(0, len(rows), 1024)]) - mean @ mean / 2
    return vectors, offsets.astype(np.float32), explained


def _components(rows: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The mean float32 (D,), components float32 (V, dims) and the shares of the first two; exact where that takes seconds."""
    if min(rows.shape) <= EXACT_SIDE:
        basis = fit_basis(array_source(rows), dims)
        shares = basis.explained_variance_ratio[:2].tolist()
        return basis.mean, np.concatenate([basis.apply(block) for block in array_source(rows)()]), shares
    from sklearn.utils.extmath import randomized_svd

    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = rows - mean
    total = float(np.einsum("nd,nd->", centred, centred, dtype=np.float64))
    left, scales, _ = randomized_svd(centred, dims, n_oversamples=16, n_iter=4, random_state=0)
    return mean, left * scales, (scales[:2].astype(np.float64) ** 2 / max(total, 1e-30)).tolist()


def _plane(vectors: np.ndarray) -> np.ndarray:
    return np.pad(vectors[:, :2], ((0, 0), (0, max(0, 2 - vectors.shape[1]))))


def _pair_error(rows: np.ndarray, vectors: np.ndarray, offsets: np.ndarray) -> float:
    """The largest error of a cosine from reduced vectors, of pairs drawn at random."""
    if len(rows) < 2:
        return 0.0
    rng, worst = np.random.default_rng(0), 0.0
    firsts, seconds = rng.integers(0, len(rows), (2, min(SAMPLED_PAIRS, len(rows) ** 2)))
    seconds = np.where(firsts == seconds, (seconds + 1) % len(rows), seconds)  # of two, not of one with itself
    for start in range(0, len(firsts), 1024):
        i, j = firsts[start : start + 1024], seconds[start : start + 1024]
        true = np.einsum("nd,nd->n", rows[i], rows[j], dtype=np.float64)
        told = np.einsum("nd,nd->n", vectors[i], vectors[j], dtype=np.float64) + offsets[i] + offsets[j]
        worst = max(worst, float(np.abs(true - told).max()))
    return worst


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
