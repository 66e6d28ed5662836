"""Compact feature files: PCA of the descriptors, fitted on a file or taken from an earlier one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.basis import Basis, Origin, block_rows, check_dims, fit_basis
from featx.errors import UnknownNameError, UsageError, one_line
from featx.lists import few, match_names, read_hashed_lines, split_label
from featx.parts import Parts
from featx.store import FeatureSet, open_features, require_replaceable, verify_set, write_transformed

__all__ = ["LayerSummary", "PCASummary", "pca"]


@dataclass(frozen=True)
class LayerSummary:
    """What PCA did to one layer: `num_features` D became `num_dims` d; `explained` is a share of the variance, 0 to 1.

    `explained` and `error` (see Basis) are of the fit, whatever rows the basis is applied to.
    """

    layer: str
    num_features: int
    num_dims: int
    num_rows: int
    fitted_on: str
    method: str
    explained: float
    error: float


@dataclass(frozen=True)
class PCASummary:
    """What `pca` wrote: `num_clips` is 0 where the file holds descriptors only."""

    output: Path
    num_videos: int
    num_clips: int
    layers: tuple[LayerSummary, ...]


def pca(
    features_path: str | os.PathLike,
    output_path: str | os.PathLike,
    *,
    dims: int | None = None,
    layers: Iterable[str] | None = None,
    fit_on: str | os.PathLike | None = None,
    basis: str | os.PathLike | None = None,
    whiten: bool | None = None,
    l2: bool | None = None,
    overwrite: bool = False,
) -> PCASummary:
    """Project the descriptors of a feature file, and its clip features where it has them, on `dims` principal components.

    `layers`: the ones to keep, None for all. The basis is fitted on all videos, or on those in `fit_on`, a file of keys
    or paths a line (a UCF101 train list will do), or taken from `basis`, a file that an earlier `pca` wrote; `dims`
    may then only be fewer. `whiten` gives each dimension unit variance, `l2` each row unit length afterwards (default:
    neither; with `basis`, as it was fitted). Raises UsageError, or ProvenanceError where a basis does not belong.
    """
    features_path, output_path = Path(features_path), Path(output_path)
    if os.path.realpath(output_path) == os.path.realpath(features_path):
        raise UsageError(f"{output_path} is the input too; give the output another name")
    require_replaceable(output_path)
    if output_path.exists() and not overwrite:
        raise UsageError(f"{output_path} exists; choose another name, or allow it with --overwrite")
    if basis is not None and fit_on is not None:
        raise UsageError(f"a list to fit on ({fit_on}) and a fitted basis ({basis}) are given; leave one of them out")
    if basis is None and dims is None:
        raise UsageError("dims is not given, but a new basis needs it; say --dims N, or reuse one with --basis")
    with open_features(features_path) as features:
        verify_set(features)
        if not len(features):
            raise UsageError(f"{features_path} holds no videos to project; extract some, or name another file")
        chosen = _choose_layers(features, tuple(layers or features.layers), features_path)
        bases, rows, fitted_on = {}, None, ""
        if basis is not None:
            bases = _saved_bases(Path(basis), features, chosen, dims, whiten, l2)
        else:
            rows, fitted_on = _rows_to_fit(features, fit_on, features_path)
            num_rows = len(features) if rows is None else len(rows)
            for layer in chosen:  # before the first long computation
                check_dims(dims, num_rows, features.num_dims(layer), layer)
        with Parts(output_path) as parts:  # no run may be writing it
            if parts.exists() and not overwrite:
                raise UsageError(f"{output_path} exists; choose another name, or allow it with --overwrite")
            bases = bases or {
                layer: fit_basis(
                    lambda layer=layer: _blocks(features, layer, rows),
                    dims,
                    whiten=bool(whiten),
                    l2=bool(l2),
                    fitted_on=fitted_on,
                    origin=_origin(features, layer),
                )
                for layer in chosen
            }
            saved = {layer: b.to_dict() for layer, b in bases.items()}
            parts.make_whole()
            write_transformed(features, output_path, bases, bases=saved, overwrite=overwrite)
            parts.drop_parts()
        num_clips = features.num_clips if features.has_clips else 0
        return PCASummary(output_path, len(features), num_clips, tuple(map(_summary, bases.values())))


def _choose_layers(features: FeatureSet, layers: Sequence[str], path: Path) -> tuple[str, ...]:
    for layer in layers:
        if layer not in features.layers:
            raise UnknownNameError("layer", layer, features.layers, f"{path} holds {', '.join(features.layers)}.")
    compact = [layer for layer in layers if layer in features.bases]
    if compact:
        raise UsageError(
            f"{path}: layer {compact[0]} has gone through PCA already ({features.num_dims(compact[0])} dimensions); "
            "start from the file that 'featx extract' wrote"
        )
    return tuple(layers)


def _origin(features: FeatureSet, layer: str) -> Origin:
    p = features.provenance
    return Origin(p.backbone, p.checkpoint, p.checkpoint_sha256, p.variant, layer)


def _rows_to_fit(features: FeatureSet, fit_on: str | os.PathLike | None, path: Path) -> tuple[np.ndarray | None, str]:
    """Indices of the rows to fit on, None for all, and the words that the basis keeps about them."""
    if fit_on is None:
        return None, f"all {len(features)} videos"
    lines, digest = read_hashed_lines(fit_on)
    names = list(dict.fromkeys(split_label(line)[0] for line in lines))
    found = match_names(names, features.keys)
    unmatched = [name for name in names if name not in found]
    if unmatched:
        raise UsageError(
            f"{len(unmatched)} of {len(names)} names in {fit_on} are not in {path}: {few(unmatched)}; "
            "take them out of the list, or extract them"
        )
    return np.sort(list(found.values())), f"{len(names)} videos of {one_line(Path(fit_on).name)} (sha256 {digest})"


def _blocks(features: FeatureSet, layer: str, rows: np.ndarray | None) -> Iterator[np.ndarray]:
    step = block_rows(features.num_dims(layer))
    if rows is None:
        yield from features.blocks(layer, step)
    else:
        for start in range(0, len(rows), step):
            yield features.rows(layer, rows[start : start + step])


def _saved_bases(
    path: Path, features: FeatureSet, layers: Sequence[str], dims: int | None, whiten: bool | None, l2: bool | None
) -> dict[str, Basis]:
    with open_features(path) as compact:
        verify_set(compact, ("basis",))
        held = compact.bases
    if not held:
        raise UsageError(f"{path} holds no basis; name a file that 'featx pca' wrote")
    bases = {}
    for layer in layers:
        if layer not in held:
            raise UnknownNameError("layer", layer, held, _only(path, held, layers))
        basis = Basis.from_dict(held[layer])
        basis.origin.check_equal(_origin(features, layer), "the features")
        for name, asked in (("whiten", whiten), ("l2", l2)):
            if asked is not None and asked != getattr(basis, name):
                raise UsageError(
                    f"{name} is {asked}, but the basis in {path} was made with {name} {getattr(basis, name)}; "
                    "leave the option out, or fit a new basis"
                )
        bases[layer] = basis.truncate(dims) if dims is not None else basis
    return bases


def _only(path: Path, held: Iterable[str], layers: Sequence[str]) -> str:
    """What to do where a basis is not for all layers."""
    shared = [layer for layer in layers if layer in held]
    keep = " ".join(f"--layer {layer}" for layer in shared)
    remedy = f"keep only what it is for, with '{keep}'" if shared else "fit a new basis with --dims"
    return f"The basis in {path} is for {', '.join(held)}; {remedy}."


def _summary(basis: Basis) -> LayerSummary:
    return LayerSummary(
        layer=basis.origin.layer,
        num_features=len(basis.mean),
        num_dims=basis.num_dims,
        num_rows=basis.num_rows,
        fitted_on=basis.fitted_on,
        method=basis.method,
        explained=float(basis.explained_variance_ratio.sum()),
        error=basis.error,
    )
