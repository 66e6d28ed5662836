"""What an evaluation found, as records that print and save themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from featx.errors import UsageError

__all__ = ["Run", "SVMResult", "SplitResult", "check_output", "pooled", "write_text"]


@dataclass(frozen=True)
class SplitResult:
    """One split: accuracies in %; a class that no test video has is None in `per_class`.

    `figures`: the other metrics asked for, in %, see `featx.evaluation.metrics`.
    """

    name: str
    num_train: int
    num_test: int
    accuracy: float
    per_class: dict[str, float | None]
    converged: bool
    figures: dict[str, float] = field(default_factory=dict)


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
        converged=all(split.converged for split in splits),
        figures=_means([split.figures for split in splits]),
    )


def _means(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([own[name] for own in figures])) for name in figures[0]}


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


@dataclass(frozen=True)
class SVMResult:
    """A data set evaluated on one layer: `runs[0]` on the descriptors as they are, the others after PCA; `chance` in %.

    `warnings` say why the figures may be better than is fair; `notes` what else a reader must know.
    """

    features: str
    dataset: str
    backbone: str
    checkpoint: str
    layer: str
    C: float
    seed: int
    num_classes: int
    chance: float
    runs: tuple[Run, ...]
    published_source: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the splits on the descriptors as they are, in %."""
        return self.runs[0].mean

    def as_dict(self) -> dict:
        """All of it as plain JSON values, with the means."""
        runs = [
            {**asdict(run), "mean": run.mean, "mean_figures": run.figures, "mean_per_class": run.per_class}
            for run in self.runs
        ]
        return {**asdict(self), "accuracy": self.accuracy, "runs": runs}

    def save_json(self, path: str | os.PathLike) -> None:
        """Write `as_dict` to a file, at once or not at all."""
        write_text(path, json.dumps(self.as_dict(), indent=2) + "\n")


def check_output(path: str | os.PathLike) -> None:
    """Raise UsageError where a file cannot be written: better now than after an hour's work."""
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}: its folder does not exist; make it first")
    if Path(path).is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file in it")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a small file, at once or not at all. Raises UsageError where that fails."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text, encoding="utf-8", errors="surrogateescape")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another place") from None
