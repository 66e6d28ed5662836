"""Descriptors, or clip features, on a plane, with the class of each: what a t-SNE picture is drawn from.

feature file --(sample)--> rows --L2--> PCA to 50 --t-SNE--> points (n, 2)
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from featx.basis import array_source, fit_basis
from featx.csv_lines import csv_writer
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UsageError
from featx.evaluation.protocol import clip_name
from featx.evaluation.results import check_output, write_text
from featx.evaluation.tables import read_mapping
from featx.layer_names import choose_layer, split_layer
from featx.lists import few, match_names
from featx.segments import video_of
from featx.store import FeatureSet, open_features, verify_set

__all__ = ["FOLDERS", "METHODS", "PCA_DIMS", "Embedding", "embed", "tsne"]

METHODS = ("tsne", "pca")
FOLDERS = "folders"
MAX_ROWS = 10_000  # a t-SNE of so many takes about a minute
MAX_VALUES = 1 << 28  # 1 GB of float32: fewer rows where they are long
MIN_ROWS = 5
PCA_DIMS = 50
PERPLEXITY = 30.0


@dataclass(frozen=True, eq=False)
class Embedding:
    """`points` float32 (n, 2), row i that of `names[i]`, a video's key or a clip's name, whose class is `labels[i]`.

    `unit` is "video" or "clip"; `num_rows` how many there were before a sample was drawn. `notes`: what a reader must know.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    points: np.ndarray
    checkpoint: str
    layer: str
    unit: str
    method: str
    seed: int
    num_rows: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.labels) == len(self.points) or self.points.shape[1:] != (2,):
            raise UsageError(
                f"{len(self.names)} names, {len(self.labels)} labels and points {self.points.shape} do not go together"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted(set(self.labels)))

    def save_csv(self, path: str | os.PathLike) -> None:
        """Write a table of name, label, x, y, and of the method, which tells the file from anybody else's."""
        text = io.StringIO()
        writer = csv_writer(text)
        writer.writerow(("name", "label", "x", "y", "method"))
        for name, label, (x, y) in zip(self.names, self.labels, self.points.tolist(), strict=True):
            writer.writerow((name, label, f"{x:.6g}", f"{y:.6g}", self.method))
        write_text(path, text.getvalue())


def embed(
    features_path: str | os.PathLike,
    *,
    layer: str | None = None,
    clips: bool = False,
    labels: str | os.PathLike = FOLDERS,
    method: str = "tsne",
    seed: int = 0,
    max_rows: int = MAX_ROWS,
    csv_path: str | os.PathLike | None = None,
) -> Embedding:
    """Bring the descriptors of a layer, or with `clips` its clip features, onto a plane; all have unit length before.

    `layer` may be left out where the file holds one, or stand in the path ("features.h5:fc6"). `labels`: "folders" for the
    folder that a key lies in, else a CSV file of key,label; videos that it does not list are left out. `method`: "tsne", of
    at most 50 principal components (perplexity 30, or a third of the rows where these are few), or "pca". Of more than
    `max_rows` rows a sample is drawn, by `seed`; nothing else is random. `csv_path`: where to write the coordinates.

    Raises UsageError, with the remedy, where file and options do not fit together.
    """
    if method not in METHODS:
        raise UsageError(f"method is '{method}', but must be one of {', '.join(METHODS)}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}, but must be from 0 to {2**32 - 1}")
    if max_rows < MIN_ROWS:
        raise UsageError(f"the number of rows is {max_rows}, but must be at least {MIN_ROWS}")
    if csv_path is not None:
        check_output(csv_path)
    path, own_layer = split_layer(features_path)
    with open_features(path) as features:
        verify_set(features)
        layer = choose_layer(features.layers, path, own_layer, layer)
        label_of, notes = _labels(features, labels)
        names, row_labels, rows, num_rows = _sample(features, layer, clips, label_of, max_rows, seed)
        checkpoint = features.provenance.checkpoint
    if num_rows > len(names):
        notes.append(f"{len(names)} of {num_rows} rows, drawn with seed {seed}")
    embedding = Embedding(
        names=names,
        labels=row_labels,
        points=_points(rows, method),
        checkpoint=checkpoint,
        layer=layer,
        unit="clip" if clips else "video",
        method=method,
        seed=seed,
        num_rows=num_rows,
        notes=tuple(notes),
    )
    if csv_path is not None:
        embedding.save_csv(csv_path)
    return embedding


def _labels(features: FeatureSet, labels: str | os.PathLike) -> tuple[dict[str, str], list[str]]:
    """Key -> label of the videos that have one, and what was left out."""
    if os.fspath(labels) == FOLDERS:
        label_of = {key: PurePosixPath(video_of(key)).parent.name for key in features.keys}
        bare = [key for key, label in label_of.items() if not label]
        if bare:
            raise UsageError(
                f"'{bare[0]}' has no parent folder to name its class; give the classes in a CSV file of key,label with --labels"
            )
        return label_of, []
    listed = read_mapping(Path(labels), "key", "label")
    found = match_names(list(listed), features.keys)
    if not found:
        raise UsageError(
            f"{labels} lists none of the videos in the feature file; its keys are those of 'featx info --videos'"
        )
    label_of = {features.keys[i]: listed[name] for name, i in found.items()}
    notes = []
    if len(found) < len(listed):
        absent = [name for name in listed if name not in found]
        notes.append(f"{len(absent)} of {len(listed)} videos in {labels} are not in the feature file: {few(absent)}")
    if len(label_of) < len(features):
        notes.append(f"{len(features) - len(label_of)} of {len(features)} videos are not in {labels}; left out")
    return label_of, notes


def _sample(
    features: FeatureSet, layer: str, clips: bool, label_of: dict[str, str], max_rows: int, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray, int]:
    """Names, labels and rows float32 (n, D) of unit length, of all that have a label or of a sample, and how many have one."""
    has_label = np.array([key in label_of for key in features.keys], bool)
    counts = features.column("num_clips") if clips else np.ones(len(features), np.int64)
    owner = np.repeat(np.arange(len(features)), counts)
    candidates = np.flatnonzero(has_label[owner])
    if len(candidates) < MIN_ROWS:
        unit = "clips" if clips else "videos"
        raise UsageError(f"{len(candidates)} {unit} have a label, but a picture needs at least {MIN_ROWS}; add some")
    chosen = candidates
    max_rows = min(max_rows, max(MIN_ROWS, MAX_VALUES // features.num_dims(layer)))
    if len(candidates) > max_rows:
        chosen = np.sort(np.random.default_rng(seed).choice(candidates, max_rows, replace=False))
    keys = [features.keys[i] for i in owner[chosen]]
    if clips:
        rows = features.clip_rows(layer, chosen)
        first = np.cumsum(counts) - counts
        names = _clip_names(features, keys, chosen - first[owner[chosen]])
    else:
        rows, names = features.rows(layer, chosen), keys
    rows = l2_normalise(rows)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise FeatureFileError(
            f"the {layer} feature of '{names[int(finite.argmin())]}' is not finite; extract that video again"
        )
    return tuple(names), tuple(label_of[key] for key in keys), rows, len(candidates)


def _clip_names(features: FeatureSet, keys: list[str], positions: np.ndarray) -> list[str]:
    """The name of a clip, of those whose video is `keys[i]` the one at `positions[i]`."""
    starts: dict[str, np.ndarray] = {}
    names: list[str] = []
    for key, position in zip(keys, positions.tolist(), strict=True):
        if key not in starts:
            starts[key] = features.clip_table(key).start_frame
        names.append(clip_name(key, int(starts[key][position])))
    return names


def _points(rows: np.ndarray, method: str) -> np.ndarray:
    """Points on the plane, float32 (n, 2)."""
    dims = min(2 if method == "pca" else PCA_DIMS, *rows.shape)
    reduced = fit_basis(array_source(rows), dims).apply(rows)
    plane = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - dims))))
    return plane if method == "pca" else tsne(reduced, plane)


def tsne(rows: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """t-SNE of rows (n, d), n at least 3: float32 (n, 2), the same every time.

    It begins at the first two components `plane` (n, 2), small as scikit-learn's own beginning is; its source is Kobak and
    Berens 2019, on what keeps the large structure.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    width = plane[:, 0].std()
    if not width > 0:  # all rows are equal, and no program for t-SNE survives that
        return plane
    tsne = TSNE(
        perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
        init=(1e-4 / width * plane).astype(np.float32),
        learning_rate="auto",
        random_state=0,  # nothing is drawn: it begins where it is told to
    )
    with threadpool_limits(1):  # what several threads add up depends on their order, and t-SNE on the last digit
        return tsne.fit_transform(rows).astype(np.float32)
