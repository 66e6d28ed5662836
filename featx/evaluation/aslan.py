"""ASLAN's question: do two videos show the same action? Twelve numbers a layer and pair, then a linear SVM, fold by fold.

    pairs --> rows of the feature file --(12 measures a layer)--> numbers --standardised--> linear SVM --> accuracy, ROC

Scaling and SVM see the pairs of the training folds only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from featx.errors import FeatureFileError, UsageError
from featx.evaluation.measures import FLOOR, NORMS, NUM_MEASURES, measure_pairs
from featx.evaluation.metrics import accuracy, area_under_curve, roc_curve
from featx.evaluation.pairs import Fold, read_pairs
from featx.evaluation.published import far_off, foreign_weights, likely_causes, published_figure, published_source
from featx.evaluation.results import check_output, write_text
from featx.evaluation.svm import fit_linear_svm
from featx.lists import few, match_names
from featx.progress import Progress
from featx.store import FeatureSet, open_features, verify_set

__all__ = ["FoldResult", "SimilarityResult", "fit_scaling", "similarity"]

DATASET = "aslan"  # under which the cards keep the published figures
BLOCK_VALUES = 1 << 21  # of a vector's entries at a time: 16 MB of float64 in each of about ten arrays


@dataclass(frozen=True)
class FoldResult:
    """One fold as the test: accuracy and area under its own ROC curve, in %."""

    name: str
    num_train: int
    num_test: int
    accuracy: float
    auc: float
    converged: bool


@dataclass(frozen=True)
class SimilarityResult:
    """What the pairs of videos gave; accuracies and areas in %.

    `standard_error` is the folds' sample standard deviation (divisor folds - 1) over the square root of their number. `auc` is
    the area under the ROC curve of all pairs together, each with the score of the SVM that it tested; `roc` are that curve's
    corners, shares from 0 to 1. `published` holds "accuracy" and "auc" where a paper prints them for these layers.
    """

    features: str
    pairs: str
    backbone: str
    checkpoint: str
    layers: tuple[str, ...]
    norm: str
    floor: float
    scaling: str
    C: float
    seed: int
    num_numbers: int
    num_pairs: int
    accuracy: float
    standard_error: float
    auc: float
    folds: tuple[FoldResult, ...]
    roc: dict[str, list[float]]
    published: dict[str, float]
    published_source: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict:
        """All of it as plain JSON values."""
        return asdict(self)


def similarity(
    features_path: str | os.PathLike,
    pairs_path: str | os.PathLike,
    *,
    layers: Iterable[str] = (),
    norm: str = "sum",
    scaling: str = "standard",
    C: float = 1.0,
    seed: int = 0,
    allow_missing: bool = False,
    json_path: str | os.PathLike | None = None,
    progress: bool = False,
) -> SimilarityResult:
    """Tell pairs that show the same from pairs that do not, by cross-validation over the folds of a file of pairs.

    `pairs_path`: ASLAN's View2.mat, or a CSV file, see `featx.evaluation.pairs`. `layers`: none for all of the file. `norm`: of
    the vectors in the last four measures, "sum" (to one), "l2" or "none". `scaling`: of a pair's numbers, "standard" (mean 0
    and variance 1 over the training pairs) or "l2" (each pair's to length 1, as P3D's paper does). `allow_missing` leaves out
    pairs of videos that the file lacks. `json_path`: where to write the result. `progress`: a bar on stderr.

    Raises UsageError, with the remedy, where pairs, file and options do not fit together.
    """
    _check_options(norm, scaling, C, seed)
    if json_path is not None:
        check_output(json_path)
    with open_features(features_path) as features:
        verify_set(features)
        chosen = _choose_layers(features, tuple(layers))
        folds = read_pairs(Path(pairs_path), features.keys)
        folds, rows, num_left_out, notes = _find_pairs(folds, features, Path(features_path), allow_missing)
        bases = [layer for layer in chosen if layer in features.bases]
        warnings = _warnings(folds, [f"{layer}, on {features.bases[layer]['fitted_on']}" for layer in bases])
        for layer in chosen:
            _check_layer(features, layer, rows)
        total = len(rows) * len(chosen)
        with Progress("measures", total=total, unit="pair", show=progress) as bar:
            numbers = np.concatenate([_measure(features, layer, rows, norm, bar.advance) for layer in chosen], axis=1)
        provenance = features.provenance

    same = np.array([pair.same for fold in folds for pair in fold.pairs])
    fold_of = np.repeat(np.arange(len(folds)), [len(fold.pairs) for fold in folds])
    scores, results = np.empty(len(same)), []
    for n, fold in enumerate(folds):
        test = fold_of == n
        scale = fit_scaling(numbers[~test], scaling)
        model = fit_linear_svm(scale(numbers[~test]), same[~test].astype(np.int64), C=C, seed=seed)
        own = model.scores(scale(numbers[test]))
        scores[test] = own[:, 1]
        area = area_under_curve(*roc_curve(own[:, 1], same[test]))
        right = accuracy(same[test], own.argmax(axis=1) == 1)
        results.append(FoldResult(fold.name, int((~test).sum()), int(test.sum()), right, 100 * area, model.converged))

    accuracies = [fold.accuracy for fold in results]
    mean = float(np.mean(accuracies))
    slow = sum(not fold.converged for fold in results)
    if slow:
        notes.append(f"SVMs that stopped before they converged: {slow}; a smaller C converges sooner")
    together = "+".join(chosen)
    published = {
        metric: published_figure(provenance.checkpoint, DATASET, together, metric=metric)
        for metric in ("accuracy", "auc")
    }
    notes += foreign_weights(provenance)
    causes = [*likely_causes(provenance, DATASET, num_left_out)]
    if provenance.backbone.startswith("p3d") and scaling != "l2":
        causes.insert(min(num_left_out, 1), "the paper scales the numbers of each pair to length 1 (--scaling l2)")
    notes += far_off(f"{mean:.2f} %", mean, published["accuracy"], causes)
    x, y = roc_curve(scores, same)
    result = SimilarityResult(
        features=os.fspath(features_path),
        pairs=os.fspath(pairs_path),
        backbone=provenance.backbone,
        checkpoint=provenance.checkpoint,
        layers=chosen,
        norm=norm,
        floor=FLOOR,
        scaling=scaling,
        C=C,
        seed=seed,
        num_numbers=numbers.shape[1],
        num_pairs=len(same),
        accuracy=mean,
        standard_error=float(np.std(accuracies, ddof=1) / math.sqrt(len(accuracies))),
        auc=100 * area_under_curve(x, y),
        folds=tuple(results),
        roc={"false_positives": x.tolist(), "true_positives": y.tolist()},
        published={metric: figure for metric, figure in published.items() if figure is not None},
        published_source=published_source(provenance.checkpoint, DATASET, together),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )
    if json_path is not None:
        write_text(json_path, json.dumps(result.as_dict(), indent=2) + "\n")
    return result


def fit_scaling(train: np.ndarray, scaling: str) -> Callable[[np.ndarray], np.ndarray]:
    """What brings rows of numbers (n, k) to one scale, learned from the training rows where there is something to learn."""
    if scaling == "l2":
        lengths = np.linalg.norm
        return lambda rows: rows / np.maximum(lengths(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    # a number that never changes, but for rounding, tells nothing
    deviation = np.where(deviation > 1e-12 * np.abs(train).max(axis=0), deviation, np.inf)
    return lambda rows: (rows - mean) / deviation


def _check_options(norm: str, scaling: str, C: float, seed: int) -> None:
    for name, value, known in (("norm", norm, NORMS), ("scaling", scaling, ("standard", "l2"))):
        if value not in known:
            raise UsageError(f"{name} is '{value}', but must be one of {', '.join(known)}")
    if not (C > 0 and math.isfinite(C)):
        raise UsageError(f"C is {C}, but must be a number above 0")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}, but must be from 0 to {2**32 - 1}")


def _choose_layers(features: FeatureSet, layers: tuple[str, ...]) -> tuple[str, ...]:
    for layer in layers:
        features.num_dims(layer)  # raises for a layer that is not there
    return tuple(layer for layer in features.layers if not layers or layer in layers)


def _find_pairs(
    folds: tuple[Fold, ...], features: FeatureSet, path: Path, allow_missing: bool
) -> tuple[tuple[Fold, ...], np.ndarray, int, list[str]]:
    """The folds without pairs that cannot be, their pairs as rows of the file, int64 (pairs, 2), and what was left out: how
    many videos, and in words.
    """
    names = list(dict.fromkeys(name for fold in folds for pair in fold.pairs for name in pair[:2]))
    found = match_names(names, features.keys)
    missing = [name for name in names if name not in found]
    notes = []
    if missing:
        text = f"{len(missing)} of {len(names)} videos in pairs are not in {path}: {few(missing)}"
        if not found or not allow_missing:
            raise UsageError(f"{text}; extract them, or leave their pairs out with --allow-missing")
        total = sum(len(fold.pairs) for fold in folds)
        folds = tuple(
            Fold(fold.name, tuple(pair for pair in fold.pairs if pair.first in found and pair.second in found))
            for fold in folds
        )
        notes.append(f"{text}; pairs left out: {total - sum(len(fold.pairs) for fold in folds)} of {total}")
    rows = [(found[pair.first], found[pair.second]) for fold in folds for pair in fold.pairs]
    return folds, np.array(rows, np.int64).reshape(-1, 2), len(missing), notes


def _warnings(folds: tuple[Fold, ...], bases: list[str]) -> list[str]:
    warnings = []
    videos_of = [{name for pair in fold.pairs for name in pair[:2]} for fold in folds]
    several = sum(map(len, videos_of)) - len(set().union(*videos_of))
    if several:
        warnings.append(
            f"videos stand in the pairs of several folds ({several} times), so training knows videos of the test"
        )
    if bases:
        warnings.append(f"a PCA basis was fitted on videos that may be tested ({'; '.join(bases)})")
    return warnings


def _measure(
    features: FeatureSet, layer: str, rows: np.ndarray, norm: str, progress: Callable[[int], object]
) -> np.ndarray:
    """The twelve numbers of every pair, float64 (pairs, 12), in blocks of bounded size."""
    step = max(1, BLOCK_VALUES // features.num_dims(layer))
    out = np.empty((len(rows), NUM_MEASURES))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        a, b = features.rows(layer, block[:, 0]), features.rows(layer, block[:, 1])
        out[start : start + step] = measure_pairs(a, b, norm)
        progress(len(block))
    return out


def _check_layer(features: FeatureSet, layer: str, rows: np.ndarray) -> None:
    """Raise FeatureFileError or UsageError for descriptors of the pairs that the measures cannot take; before the first one."""
    used, step = np.unique(rows), max(1, BLOCK_VALUES // features.num_dims(layer))
    for start in range(0, len(used), step):
        block = used[start : start + step]
        _check_vectors(features.rows(layer, block), [features.keys[i] for i in block], layer)


def _check_vectors(vectors: np.ndarray, keys: list[str], layer: str) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise FeatureFileError(
            f"the {layer} descriptor of '{keys[finite.argmin()]}' is not finite; extract that video again"
        )
    negative = (vectors < 0).any(axis=1)
    if negative.any():
        raise UsageError(
            f"the {layer} descriptor of '{keys[negative.argmax()]}' has entries below 0, but the measures take roots "
            "and logarithms: use layers behind a ReLU or softmax, not after PCA"
        )
