"""What an evaluation found, as records that print and save themselves."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from featx.csv_lines import csv_writer
from featx.small_files import check_output, write_bytes, write_text

__all__ = [
    "Curve",
    "Run",
    "SVMResult",
    "SplitResult",
    "check_output",
    "curve",
    "pooled",
    "save_csv",
    "save_json",
    "write_bytes",
    "write_text",
]

CSV_COLUMNS = ("name", "features", "dataset", "dims", "pca", "split", "C", "accuracy", "published")


@dataclass(frozen=True)
class SplitResult:
    """One split: accuracies in %; a class that no test video has is None in `per_class`, and `C` what was trained with.

    `figures`: the other metrics asked for, in %, see `featx.evaluation.metrics`. `C` is None of pooled splits that chose
    different ones. `confusion[true class][class found]` counts test videos; what is 0 is left out.
    """

    name: str
    num_train: int
    num_test: int
    accuracy: float
    per_class: dict[str, float | None]
    C: float | None
    converged: bool
    figures: dict[str, float] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """What guessing among the classes that were trained gives, in %."""
        return 100 / len(self.per_class)


def pooled(name: str, splits: Sequence[SplitResult]) -> SplitResult:
    """Splits that test one video each as one result: all of their videos are its test."""
    tested = [(c, value) for split in splits for c, value in split.per_class.items() if value is not None]
    per_class = {c: [value for label, value in tested if label == c] for c in splits[0].per_class}
    return SplitResult(
        name=name,
        num_train=splits[0].num_train,
        num_test=len(splits),
        accuracy=float(np.mean([split.accuracy for split in splits])),
        per_class={c: float(np.mean(values)) if values else None for c, values in per_class.items()},
        C=splits[0].C if len({split.C for split in splits}) == 1 else None,
        converged=all(split.converged for split in splits),
        figures=_means([split.figures for split in splits]),
        confusion=_sums([split.confusion for split in splits]),
    )


def _means(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([own[name] for own in figures])) for name in figures[0]}


def _sums(confusions: Iterable[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for confusion in confusions:
        for true, row in confusion.items():
            total = totals.setdefault(true, {})
            for found, count in row.items():
                total[found] = total.get(found, 0) + count
    return totals


@dataclass(frozen=True)
class Run:
    """All splits at one number of dimensions; `pca` is False for the descriptors as they are.

    `published` is the papers' figure for it in %, None where there is none; `published_figures` are those of other metrics.
    """

    num_dims: int
    pca: bool
    published: float | None
    splits: tuple[SplitResult, ...]
    published_figures: dict[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """The other metrics, each the mean over the splits, in %."""
        return _means([split.figures for split in self.splits])

    @property
    def mean(self) -> float:
        """Mean accuracy over the splits, in %."""
        return float(np.mean([split.accuracy for split in self.splits]))

    @property
    def per_class(self) -> dict[str, float | None]:
        """Each class's accuracy in %, the mean over the splits that test it; None where none does."""
        names = dict.fromkeys(name for split in self.splits for name in split.per_class)
        found = {n: [s.per_class[n] for s in self.splits if s.per_class.get(n) is not None] for n in names}
        return {name: float(np.mean(values)) if values else None for name, values in found.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that any split trained, in the data set's order."""
        return tuple(dict.fromkeys(name for split in self.splits for name in split.per_class))

    @property
    def confusion(self) -> np.ndarray:
        """Test videos of all splits by true class (row) and class found (column), int64 (n, n), as in `classes`."""
        place = {name: i for i, name in enumerate(self.classes)}
        counts = np.zeros((len(place), len(place)), np.int64)
        for true, row in _sums(split.confusion for split in self.splits).items():
            for found, count in row.items():
                counts[place[true], place[found]] = count
        return counts


@dataclass(frozen=True)
class SVMResult:
    """A data set evaluated on one layer: `runs[0]` on the descriptors as they are, the others after PCA.

    `joined`: the files whose descriptors were joined to those of `features`; `backbone`, `checkpoint` and `layer` then name
    one of each, as "fc6 + pool5". `C` may be "auto"; what it was is in the splits. `num_classes` is the most in a split.
    `warnings` say why the figures may be better than is fair; `notes` what else a reader must know. `videos_sha256` is that
    of what trains and tests in each split: results of the same one are of the same test.
    """

    features: str
    joined: tuple[str, ...]
    dataset: str
    backbone: str
    checkpoint: str
    layer: str
    C: float | str
    solver: str
    seed: int
    num_classes: int
    runs: tuple[Run, ...]
    published_source: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    videos_sha256: str = ""

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the splits on the descriptors as they are, in %."""
        return self.runs[0].mean

    @property
    def chance(self) -> float:
        """What guessing gives, in %: the mean over the splits, which may have trained fewer classes than the data set has."""
        return float(np.mean([split.chance for split in self.runs[0].splits]))

    @property
    def name(self) -> str:
        """The features in a word, for a table or a legend: "c3d-sports1m fc6"."""
        checkpoints, layers = self.checkpoint.split(" + "), self.layer.split(" + ")
        if len(checkpoints) != len(layers):  # imported features may be called "c3d + idt" by their maker
            return f"{self.checkpoint} {self.layer}"
        pairs = zip(checkpoints, layers, strict=True)
        return " + ".join(f"{checkpoint} {layer}" for checkpoint, layer in pairs)

    def as_dict(self) -> dict:
        """All of it as plain JSON values, with the means."""
        runs = [
            {**asdict(run), "mean": run.mean, "mean_figures": run.figures, "mean_per_class": run.per_class}
            for run in self.runs
        ]
        return {**asdict(self), "name": self.name, "accuracy": self.accuracy, "chance": self.chance, "runs": runs}

    def save_json(self, path: str | os.PathLike) -> None:
        """Write `as_dict` to a file, at once or not at all."""
        write_text(path, json.dumps(self.as_dict(), indent=2) + "\n")


@dataclass(frozen=True)
class Curve:
    """Accuracy against dimensions after PCA, of one layer: `accuracies` and `published` in %, None where nothing is printed.

    A descriptor as it is (`whole`) is a point of its own, not one of the curve.
    """

    name: str
    dims: tuple[int, ...]
    accuracies: tuple[float, ...]
    published: tuple[float | None, ...]
    whole_dims: int
    whole: float
    whole_published: float | None


def curve(result: SVMResult) -> Curve:
    """The curve of one evaluation; without points where it had no `dims`."""
    whole, *reduced = result.runs
    return Curve(
        name=result.name,
        dims=tuple(run.num_dims for run in reduced),
        accuracies=tuple(run.mean for run in reduced),
        published=tuple(run.published for run in reduced),
        whole_dims=whole.num_dims,
        whole=whole.mean,
        whole_published=whole.published,
    )


def save_csv(path: str | os.PathLike, results: Iterable[SVMResult]) -> None:
    """Write several evaluations as one table, a line a split and one for the mean; accuracies in %."""
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(CSV_COLUMNS)
    for result in results:
        for run in result.runs:
            head = (result.name, result.features, result.dataset, run.num_dims, int(run.pca))
            for split in run.splits:
                writer.writerow((*head, split.name, split.C, split.accuracy, ""))
            writer.writerow((*head, "mean", result.C, run.mean, "" if run.published is None else run.published))
    write_text(path, text.getvalue())


def save_json(path: str | os.PathLike, results: Sequence[SVMResult]) -> None:
    """Write several evaluations, in the form of `compared`."""
    write_text(path, json.dumps(compared(results), indent=2) + "\n")


def compared(results: Sequence[SVMResult]) -> dict:
    """Several evaluations as plain JSON values: {"results": [...], "curves": [...]}."""
    curves = [asdict(curve(result)) for result in results]
    return {"results": [result.as_dict() for result in results], "curves": curves}
