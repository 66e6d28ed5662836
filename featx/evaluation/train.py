"""svm_fit and svm_predict: a model from labelled descriptors, and labels for new ones from a model."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from featx.basis import array_source, check_dims, fit_basis
from featx.csv_lines import csv_reader, csv_writer
from featx.descriptors import l2_normalise
from featx.errors import UsageError
from featx.evaluation.choose_c import Settings
from featx.evaluation.datasets import get_dataset
from featx.evaluation.fitting import fit_with_c
from featx.evaluation.model import SVMModel
from featx.evaluation.protocol import Request
from featx.evaluation.rows import find_rows, group_numbers
from featx.evaluation.sources import Descriptors, read_descriptors
from featx.evaluation.svm import settle_solver
from featx.lists import few, match_names
from featx.progress import Progress
from featx.segments import video_of
from featx.small_files import TEXT_SUFFIXES, check_output, write_text
from featx.store import MODEL, require_replaceable

__all__ = ["Prediction", "check_predictions", "svm_fit", "svm_predict", "write_predictions"]

_JSON = re.compile(rb'\[\]|\[\s*\{\s*"key":')  # how predictions begin as JSON


@dataclass(frozen=True)
class Prediction:
    """One video: its best classes, best first, and their scores, which are distances and no probabilities."""

    key: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Examples:
    rows: np.ndarray  # int64 (n,), into the descriptors
    labels: np.ndarray  # int64 (n,), into classes
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()


def svm_fit(
    features_path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    labels: str | os.PathLike | None = None,
    dataset: str | None = None,
    splits: str | os.PathLike | None = None,
    number: int | None = None,
    layer: str | None = None,
    concat: Iterable[str | os.PathLike] = (),
    dims: int | None = None,
    C: float | str = 1.0,
    solver: str = "auto",
    seed: int = 0,
    device: str = "auto",
    allow_missing: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[SVMModel, tuple[str, ...]]:
    """Train a linear SVM on labelled descriptors and write it, with its PCA, to a model file; the model, and notes.

    `labels`: "folders" (the class is the key's parent folder), "stored" (as the feature file keeps them), or a CSV file of
    lines "key,label"; or else `dataset`, its list files `splits` and the `number` of the split whose training videos are
    learned. `dims`: PCA first, fitted on the same rows. The other options are those of `svm_eval`. Raises
    UsageError where they do not fit together.
    """
    settings = Settings(C, solver, seed, device)
    check_output(output, text=False)
    require_replaceable(output, MODEL)
    if os.path.exists(output) and not overwrite:
        raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")
    if (labels is None) == (dataset is None):
        said = "no labels are named" if labels is None else f"labels are {labels} and those of {dataset}"
        raise UsageError(
            f"{said}, but one kind is learned; give either --labels (folders, stored, or a CSV file) or --dataset"
        )
    if dataset is None and (splits is not None or number is not None):
        given = f"--split {number}" if number is not None else f"--splits {splits}"
        raise UsageError(f"{given} is of a data set, but the labels are given with --labels; leave one of the two out")
    descriptors = read_descriptors(features_path, layer=layer, concat=concat, allow_missing=allow_missing)
    if dataset is not None:
        examples = _from_dataset(descriptors, dataset, splits, number, seed, allow_missing)
    elif os.fspath(labels) == "folders":
        examples = _from_folders(descriptors)
    elif os.fspath(labels) == "stored":
        examples = _from_file(descriptors)
    else:
        examples = _from_csv(descriptors, Path(labels), allow_missing)

    rows = descriptors.rows[examples.rows]
    keys = [descriptors.keys[i] for i in examples.rows]
    groups = group_numbers(keys, [examples.classes[i] for i in examples.labels])
    basis = None
    if dims is not None:
        check_dims(dims, *rows.shape, "the model")
        basis = fit_basis(array_source(rows), dims, fitted_on=f"{len(rows)} training videos")
        rows = l2_normalise(basis.apply(rows))
    settings = replace(settings, solver=settle_solver(solver, len(rows)))
    with Progress("training", total=1.0, show=progress) as bar:
        linear, chosen = fit_with_c(rows, examples.labels, groups, settings, bar.advance)
    model = SVMModel(
        classes=examples.classes,
        linear=linear,
        basis=basis,
        sources=descriptors.sources,
        C=chosen,
        solver=settings.solver,
        num_train=len(rows),
        trained_on=examples.source,
    )
    model.save(output, overwrite=overwrite)
    notes = (*descriptors.notes, *examples.notes)
    if not linear.converged:
        notes += ("the SVM gave up before it converged; a smaller C converges sooner",)
    return model, notes


def svm_predict(
    features_path: str | os.PathLike,
    model: str | os.PathLike | SVMModel,
    *,
    layer: str | None = None,
    concat: Iterable[str | os.PathLike] = (),
    top: int = 1,
    allow_missing: bool = False,
) -> list[Prediction]:
    """Label every video of a feature file with the `top` best classes of a model, in the order of the keys.

    Raises ProvenanceError for features of another checkpoint, layer or way of extracting than the model's.
    """
    if not isinstance(model, SVMModel):
        model = SVMModel.load(model)
    if not 1 <= top <= len(model.classes):
        raise UsageError(f"top is {top}, but the model has {len(model.classes)} classes; ask for 1 to that many")
    if layer is None and len(model.sources) > 0 and ":" not in os.path.basename(os.fspath(features_path)):
        layer = model.sources[0].layer
    descriptors = read_descriptors(features_path, layer=layer, concat=concat, allow_missing=allow_missing)
    model.check_sources(descriptors.sources, features_path)
    scores = model.scores(descriptors.rows)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        Prediction(key, tuple(model.classes[c] for c in order), tuple(float(row[c]) for c in order))
        for key, row, order in zip(descriptors.keys, scores, best, strict=True)
    ]


def check_predictions(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Raise UsageError where `write_predictions` is not to write: labels may have been corrected by hand since."""
    path = Path(path)
    check_output(path, text=False)
    if os.path.isfile(path) and path.stat().st_size:
        if path.suffix.lower() not in TEXT_SUFFIXES:
            raise UsageError(
                f"{path} exists and is not named as a table or JSON ({', '.join(TEXT_SUFFIXES)}); it is not replaced: choose "
                "another name"
            )
        if not overwrite:
            raise UsageError(f"{path} exists; choose another name, or allow it with --overwrite")
        with open(path, "rb") as file:
            first = file.read(128)
        if not first.startswith(b"key,label,score") and not _JSON.match(first):
            raise UsageError(f"{path} exists and holds no predictions; it is not replaced: choose another name")


def write_predictions(path: str | os.PathLike, predictions: Iterable[Prediction]) -> None:
    """Write predictions as JSON (by the suffix .json), else as CSV: key, label, score, label_2, score_2 …"""
    predictions = list(predictions)
    if Path(path).suffix.lower() == ".json":
        write_text(path, json.dumps(as_entries(predictions), indent=2) + "\n")
    else:
        write_text(path, as_csv(predictions))


def as_entries(predictions: list[Prediction]) -> list[dict[str, object]]:
    """For JSON: {"key": …, "classes": [{"label": …, "score": …}, …]} a video."""
    return [
        {
            "key": p.key,
            "classes": [{"label": c, "score": s} for c, s in zip(p.labels, p.scores, strict=True)],
        }
        for p in predictions
    ]


def as_csv(predictions: list[Prediction]) -> str:
    """The text of a CSV file, a line a video."""
    text = io.StringIO()
    writer = csv_writer(text)
    top = len(predictions[0].labels) if predictions else 1
    names = [(f"label_{i}", f"score_{i}") if i > 1 else ("label", "score") for i in range(1, top + 1)]
    writer.writerow(["key", *(name for pair in names for name in pair)])
    for p in predictions:
        pairs = zip(p.labels, p.scores, strict=True)
        writer.writerow([p.key, *(value for label, score in pairs for value in (label, f"{score:.6f}"))])
    return text.getvalue()


def _from_dataset(
    descriptors: Descriptors,
    dataset: str,
    splits: str | os.PathLike | None,
    number: int | None,
    seed: int,
    allow_missing: bool,
) -> _Examples:
    if number is None:
        raise UsageError(f"a model of {dataset} learns the training videos of one split; choose it with --split N")
    row = get_dataset(dataset)
    if row.unit != "video":
        raise UsageError(f"{dataset} is of {row.unit}s, but a model learns videos; give --labels a CSV file")
    request = Request(
        descriptors.keys,
        Path(splits) if splits else None,
        (number,),
        seed=seed,
        allow_missing=allow_missing,
        labels=descriptors.labels,
    )
    protocol = row.load(request)
    (table,), notes = find_rows(protocol, descriptors, descriptors.path, allow_missing)
    return _Examples(
        table.train, table.train_labels, table.classes, f"{dataset}, training videos of {table.name}", tuple(notes)
    )


def _from_folders(descriptors: Descriptors) -> _Examples:
    pairs = [(i, PurePosixPath(video_of(key)).parent.name) for i, key in enumerate(descriptors.keys)]
    for i, label in pairs:
        if not label:
            raise UsageError(
                f"'{descriptors.keys[i]}' has no parent folder to name its class; give --labels a CSV file"
            )
    return _examples(pairs, f"{descriptors.path.name}, class folders")


def _from_file(descriptors: Descriptors) -> _Examples:
    pairs = [(i, label) for i, label in enumerate(descriptors.labels) if label]
    if not pairs:
        raise UsageError(
            f"no video of {descriptors.path} has a label; labels are those of 'featx extract --segments' and '--c3d-list'; "
            "give --labels folders, or a CSV file"
        )
    num_bare = len(descriptors) - len(pairs)
    notes = (f"{num_bare} of {len(descriptors)} videos have no label; not used",) if num_bare else ()
    return _examples(pairs, f"{descriptors.path.name}, its labels", notes)


def _from_csv(descriptors: Descriptors, path: Path, allow_missing: bool) -> _Examples:
    label_of: dict[str, str] = {}
    for number, cells in enumerate(csv_reader(path), 1):
        if not cells or (number == 1 and cells[:2] == ["key", "label"]):
            continue
        if len(cells) < 2 or not cells[0].strip() or not cells[1].strip():
            raise UsageError(f"{path}: line {number}, '{','.join(cells)}', is not 'key,label'; write such lines")
        key, label = cells[0].strip(), cells[1].strip()
        if label_of.setdefault(key, label) != label:
            raise UsageError(
                f"{path}: line {number} labels '{key}' {label}, an earlier one {label_of[key]}; a video has one, so drop a line"
            )
    if not label_of:
        raise UsageError(f"{path} labels no video; write lines 'key,label'")
    found = match_names(list(label_of), descriptors.keys)
    missing = [key for key in label_of if key not in found]
    notes: tuple[str, ...] = ()
    if missing:
        text = f"{len(missing)} of {len(label_of)} labelled videos are not in {descriptors.path}: {few(missing)}"
        if not found or not allow_missing:
            raise UsageError(f"{text}; extract them, or leave them out with --allow-missing")
        notes = (f"{text}; left out",)
    pairs = sorted((i, label_of[name]) for name, i in found.items())
    return _examples(pairs, path.name, notes)


def _examples(pairs: list[tuple[int, str]], source: str, notes: tuple[str, ...] = ()) -> _Examples:
    classes = tuple(sorted({label for _, label in pairs}))
    if len(classes) < 2:
        raise UsageError(
            f"{source}: all videos are of class {classes[0]}, but an SVM needs 2 classes; label videos of another"
        )
    index = {label: c for c, label in enumerate(classes)}
    rows = np.array([i for i, _ in pairs], dtype=np.int64)
    return _Examples(rows, np.array([index[label] for _, label in pairs], dtype=np.int64), classes, source, notes)
