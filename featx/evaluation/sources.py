"""The descriptors that an evaluation, or a model, works on: one layer of a feature file, or those of several files joined."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UsageError
from featx.evaluation.published import foreign_weights
from featx.evaluation.rows import read_rows, row_names
from featx.features import ClipTable, Failure
from featx.layer_names import choose_layer, split_layer
from featx.lists import few, match_names
from featx.provenance import Provenance
from featx.store import open_features, parts_folder, verify_set

__all__ = ["Descriptors", "Source", "read_descriptors"]


@dataclass(frozen=True)
class Source:
    """Where (part of) a descriptor comes from: a layer of features that were made in one way."""

    layer: str
    num_dims: int
    provenance: Provenance


@dataclass(frozen=True, eq=False)
class Descriptors:
    """`rows` float32 (n, D), row i called `names[i]`; each source's part of a row has unit length, or is zero.

    Names are the keys, where rows are videos, or those of clips. `clip_tables`: key -> its clips, where rows are clips.
    `fitted_on`: what the PCA of each source that went through one was fitted on. `notes`: what a reader must know of them.
    `labels`: of the keys, as the feature file keeps them, "" for none.
    """

    path: Path
    keys: tuple[str, ...]
    names: tuple[str, ...]
    rows: np.ndarray
    sources: tuple[Source, ...]
    failures: tuple[Failure, ...]
    fitted_on: tuple[str, ...]
    notes: tuple[str, ...]
    clip_tables: dict[str, ClipTable] | None = None
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def compact(self) -> bool:
        """Whether it is a single source that went through PCA."""
        return len(self.sources) == len(self.fitted_on) == 1

    @property
    def backbone(self) -> str:
        return " + ".join(source.provenance.backbone for source in self.sources)

    @property
    def checkpoint(self) -> str:
        return " + ".join(source.provenance.checkpoint for source in self.sources)

    @property
    def layer(self) -> str:
        return " + ".join(source.layer for source in self.sources)


def read_descriptors(
    features: str | os.PathLike,
    *,
    layer: str | None = None,
    concat: Iterable[str | os.PathLike] = (),
    allow_missing: bool = False,
    unit: str = "video",
) -> Descriptors:
    """Read a layer's descriptors, each L2-normalised, and join those of the files in `concat` behind them.

    A path may end in ":LAYER"; `layer` is for the first file. With `unit` "clip" the rows are clip
    features, which are not joined. Videos are joined by key, or by the base name where that is
    unique. Raises UsageError where a layer must be chosen, and for videos that one of the files lacks, unless they are
    to be left out (`allow_missing`); FeatureFileError for damaged files and values that are not finite.
    """
    whole = _read_one(features, layer, unit)
    for other in concat:
        if unit != "video":
            raise UsageError(f"{other} is to be joined, but clips are evaluated one by one; leave --concat out")
        whole = _join(whole, _read_one(other, None, unit), allow_missing)
    return whole


def _read_one(named: str | os.PathLike, layer: str | None, unit: str) -> Descriptors:
    path, own_layer = split_layer(named)
    with open_features(path) as features:
        verify_set(features)
        if not len(features):
            raise UsageError(
                f"{path} holds no videos, only {len(features.failures)} that failed; 'featx extract --retry-failed' tries "
                "these again"
            )
        layer = choose_layer(features.layers, path, own_layer, layer)
        rows = l2_normalise(read_rows(features, layer, unit))
        names = tuple(row_names(features, unit))
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise FeatureFileError(
                f"the {layer} descriptor of '{names[int(bad.argmax())]}' is not finite; extract that video again"
            )
        notes = []
        fitted_on = (str(features.bases[layer]["fitted_on"]),) if layer in features.bases else ()
        notes += [f"the descriptors went through PCA fitted on {words}" for words in fitted_on]
        notes += foreign_weights(features.provenance)
        num_zero = int((~rows.any(axis=1)).sum())
        if num_zero:
            notes.append(f"{num_zero} of {len(rows)} {unit}s in {path} are all zeros at {layer}, which tell no class")
        parts = [file for file in features.paths if file.parent == parts_folder(path)]
        if parts:
            notes.append(
                f"{path} is still in parts ({len(parts)} beside it): its extraction goes on, or was interrupted; "
                "the same 'featx extract' ends it"
            )
        source = Source(layer, rows.shape[1], features.provenance)
        tables = {key: features.clip_table(key) for key in features.keys} if unit == "clip" else None
        return Descriptors(
            path=path,
            keys=tuple(features.keys),
            names=names,
            rows=rows,
            sources=(source,),
            failures=tuple(features.failures),
            fitted_on=fitted_on,
            notes=tuple(notes),
            clip_tables=tables,
            labels=tuple(features.column("label").tolist()),
        )


def _join(whole: Descriptors, other: Descriptors, allow_missing: bool) -> Descriptors:
    found = match_names(whole.keys, other.keys)
    missing = [key for key in whole.keys if key not in found]
    notes: Sequence[str] = ()
    if missing:
        text = f"{len(missing)} of {len(whole)} videos of {whole.path} are not in {other.path}: {few(missing)}"
        if not found:
            raise UsageError(f"{text}; its keys must be those of {whole.path} ('featx info' prints them)")
        if not allow_missing:
            raise UsageError(f"{text}; add them, or leave them out with --allow-missing")
        notes = (f"{text}; left out",)
    kept = [i for i, key in enumerate(whole.keys) if key in found]
    keys = tuple(whole.keys[i] for i in kept)
    rows = np.empty((len(kept), whole.rows.shape[1] + other.rows.shape[1]), dtype=np.float32)
    rows[:, : whole.rows.shape[1]] = whole.rows[kept]
    rows[:, whole.rows.shape[1] :] = other.rows[[found[key] for key in keys]]
    return Descriptors(
        path=whole.path,
        keys=keys,
        names=keys,
        rows=rows,
        sources=(*whole.sources, *other.sources),
        failures=whole.failures,
        fitted_on=(*whole.fitted_on, *other.fitted_on),
        notes=(*whole.notes, *other.notes, *notes),
        labels=tuple(whole.labels[i] for i in kept),
    )
