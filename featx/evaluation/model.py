"""A classifier to keep: the SVM with its classes, its PCA, and where its features came from.

A descriptor goes the way it went in training: unit length (each joined part), PCA and unit length again where it was
fitted with one, then a score a class. Features that were made otherwise are refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from featx import __version__
from featx.basis import Basis
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, ProvenanceError, UsageError
from featx.evaluation.linear_model import LinearModel
from featx.evaluation.sources import Source
from featx.provenance import Provenance
from featx.store import read_model, write_model

__all__ = ["SVMModel"]

# what says how a file is kept, and not what its descriptors are
KEPT_OTHERWISE = {"layers", "save", "dtype"}


@dataclass(frozen=True, eq=False)
class SVMModel:
    """`classes` name the rows of `linear`; `basis` is None without PCA; `trained_on` says in words what it learned from."""

    classes: tuple[str, ...]
    linear: LinearModel
    basis: Basis | None
    sources: tuple[Source, ...]
    C: float
    solver: str
    num_train: int
    trained_on: str
    featx_version: str = __version__

    def __post_init__(self) -> None:
        num_features = sum(source.num_dims for source in self.sources)
        taken = len(self.basis.mean) if self.basis is not None else self.linear.weights.shape[1]
        num_dims = self.basis.num_dims if self.basis is not None else num_features
        if self.linear.weights.shape != (len(self.classes), num_dims) or taken != num_features:
            raise FeatureFileError(
                f"a model of {len(self.classes)} classes on {num_features} dimensions has weights "
                f"{self.linear.weights.shape} and a PCA of {taken}; they do not belong together"
            )
        if self.linear.bias.shape != (len(self.classes),):
            raise FeatureFileError(f"a model of {len(self.classes)} classes has biases {self.linear.bias.shape}")

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores of unit rows float32 (n, D), float64 (n, classes); above 0 lies what the SVM takes for the class."""
        if self.basis is not None:
            rows = l2_normalise(self.basis.apply(rows))
        return self.linear.scores(rows)

    def check_sources(self, sources: Sequence[Source], path: str | os.PathLike) -> None:
        """Raise ProvenanceError, naming the field and both values, unless the features of `path` were made as ours were."""
        if len(sources) != len(self.sources):
            raise ProvenanceError(
                f"the model was trained on {_names(self.sources)}, but {path} gives {_names(sources)}; "
                "give the files that it was trained on, in their order, with --concat"
            )
        for ours, theirs in zip(self.sources, sources, strict=True):
            if ours.layer != theirs.layer:
                raise ProvenanceError(
                    f"the model was trained on {ours.layer}, but {path} gives {theirs.layer}; choose it with --layer"
                )
            kept = {name: getattr(ours.provenance, name) for name in KEPT_OTHERWISE}
            ours.provenance.require_agreement(
                replace(theirs.provenance, **kept), "for the model", f"in {path}", "Fit a model on such features."
            )
            if ours.num_dims != theirs.num_dims:
                raise ProvenanceError(
                    f"{ours.layer} has {ours.num_dims} dimensions for the model, {theirs.num_dims} in {path}"
                )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the model to a file. Raises UsageError where it exists, unless `overwrite`, or cannot be written."""
        if os.path.exists(path) and not overwrite:
            raise UsageError(f"{path} exists; choose another name, or allow it with --overwrite")
        facts = {
            "classes": self.classes,
            "sources": [asdict(source) for source in self.sources],
            "C": self.C,
            "solver": self.solver,
            "converged": self.linear.converged,
            "num_train": self.num_train,
            "trained_on": self.trained_on,
            "featx_version": self.featx_version,
        }
        arrays = {"weights": self.linear.weights, "bias": self.linear.bias}
        if self.basis is not None:
            values = self.basis.to_dict()
            arrays |= {f"basis/{k}": v for k, v in values.items() if isinstance(v, np.ndarray)}
            facts["basis"] = {k: v for k, v in values.items() if not isinstance(v, np.ndarray)}
        arrays = {name.replace("/", "."): array for name, array in arrays.items()}
        write_model(path, facts, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> SVMModel:
        """Read a model. Raises FeatureFileError for a file that is none, or damaged."""
        facts, arrays = read_model(path)
        try:
            basis = None
            if "basis" in facts:
                own = {name.removeprefix("basis."): a for name, a in arrays.items() if name.startswith("basis.")}
                basis = Basis.from_dict({**facts["basis"], **own})
            return cls(
                classes=tuple(facts["classes"]),
                linear=LinearModel(arrays["weights"], arrays["bias"], facts["converged"]),
                basis=basis,
                sources=tuple(_source(values) for values in facts["sources"]),
                **{name: facts[name] for name in ("C", "solver", "num_train", "trained_on", "featx_version")},
            )
        except (KeyError, TypeError) as error:
            raise FeatureFileError(f"{path}: a model that lacks {error}; fit it again") from error


def _source(values: dict) -> Source:
    made = {name: tuple(v) if isinstance(v, list) else v for name, v in values["provenance"].items()}
    return Source(values["layer"], values["num_dims"], Provenance(**made))


def _names(sources: Sequence[Source]) -> str:
    return " + ".join(f"{source.provenance.checkpoint} {source.layer}" for source in sources)
