"""Searching a feature file: the videos, or the moments, whose features point in the most nearly same direction.

feature file --mapped--> rows ┐
queries: keys, video files ───┴-> cosines, k best (nearest.py) -> SearchResult
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

from featx.errors import UsageError
from featx.features import ClipTable
from featx.layer_names import choose_layer, split_layer
from featx.neighbours.duplicates import find_pairs
from featx.neighbours.nearest import Ranked, rank, scan
from featx.neighbours.queries import Query, find_queries
from featx.neighbours.records import Answer, Duplicates, Hit, Moment, SearchResult
from featx.provenance import Provenance
from featx.small_files import check_output
from featx.store import open_features, parts_folder, pieces, verify_set

__all__ = ["THRESHOLD", "Index", "find_duplicates", "search"]

# The embedded net's pool5 of the example videos: encoded anew at CRF 23 0.997 and more, frames left out at the start or
# half the size 0.93 to 0.997, different videos at most 0.959; a layer of another net spreads otherwise
THRESHOLD = 0.995
SCORE_BYTES = 2**28  # of float32 scores at once: more queries take turns

# where a moment lies
CLIP_TABLES = ("videos/num_clips", "videos/first_clip", *(f"clips/{name}" for name in ClipTable.__dataclass_fields__))

Names = str | os.PathLike | Sequence[str | os.PathLike]


class Index:
    """A layer of a feature file, open for searching; keep one for many searches.

    >>> with Index("features.h5") as index:                                        # doctest: +SKIP
    ...     index.search("Wave/v_Wave_g01_c01", k=5).answers[0].hits

    `features_path`: a feature file (with its parts), or a folder of them; it may end in ":LAYER". `layer` may be left out where
    it holds one. `clips`: search its clip features, moments, and not the descriptors of its videos. Rows are mapped, not read
    into memory, and each block of them is compared with its checksum whenever it is looked at.

    Raises UsageError, with the remedy, where file and options do not fit together, FeatureFileError for a damaged file.
    """

    def __init__(self, features_path: str | os.PathLike, *, layer: str | None = None, clips: bool = False) -> None:
        self.path, own = split_layer(features_path)
        self.clips = clips
        self._features = open_features(self.path)
        try:
            self.layer = choose_layer(self._features.layers, self.path, own, layer)
            self._pieces = pieces(self._features, self.layer, clips)
            verify_set(self._features, ("videos/key", "basis"))
            if clips:
                verify_set(self._features, CLIP_TABLES)
            counts = self._features.column("num_clips") if len(self._features) else np.zeros(0, np.int64)
            self._firsts = np.cumsum(counts) - counts if clips else None
        except BaseException:
            self.close()
            raise

    @property
    def keys(self) -> list[str]:
        """The keys of the videos, sorted."""
        return self._features.keys

    @property
    def num_rows(self) -> int:
        """How many videos, or clips, are searched."""
        return self._features.num_clips if self.clips and len(self._features) else len(self._features)

    @property
    def provenance(self) -> Provenance:
        """How the features were made."""
        return self._features.provenance

    def search(
        self,
        queries: Names,
        k: int = 10,
        *,
        at_seconds: float | None = None,
        per_video: bool = False,
        include_self: bool = False,
        **options: object,
    ) -> SearchResult:
        """The k nearest rows of each query by cosine, exactly; equal ones in the order of the keys.

        A query is a key of the file, or a video file (or a folder of images), which is extracted with the file's recorded
        settings, and projected by its basis if it went through PCA. `options` are for that: `weights`, `card` and `mean` as
        for `featx.Extractor`, `device`, and `on_note`, which gets one-line remarks. A key's own video is left
        out of its answer, unless `include_self`.

        Of moments, every clip of a query is compared with every clip of the file, and a hit tells the query's clip that it is
        nearest to; with `at_seconds` only the query's clip there. `per_video` gives each video's best moment alone.

        Raises UnknownNameError for a query that is neither a key nor a file, UsageError where options do not fit,
        ProvenanceError where the file's settings cannot be met, CheckpointError for weights.
        """
        names = [queries] if isinstance(queries, str | os.PathLike) else list(queries)
        if not names:
            raise UsageError("no query is named; name a key of the file, or a video")
        if k < 1:
            raise UsageError(f"k is {k}, but must be at least 1 neighbour")
        if not self.clips and (per_video or at_seconds is not None):
            raise UsageError("moments of videos are asked for, but videos are searched; search moments with --clips")
        found, failures = find_queries(
            *(self._features, self.path, self.layer, names), clips=self.clips, at_seconds=at_seconds, **options
        )
        groups = self._groups() if per_video else None
        answers, num_zero = [], 0
        at_once = max(1, SCORE_BYTES // (4 * max(self.num_rows, 1)))
        for start in range(0, len(found), at_once):
            part = found[start : start + at_once]
            scores = scan(self._pieces, [query.vectors for query in part], self.num_rows)
            num_zero = int(np.isneginf(scores[0]).sum())
            for query, row in zip(part, scores, strict=True):
                if query.key is not None and not include_self:
                    row[self._rows_of(query.key)] = -np.inf
                ranked = rank(row, query.vectors, k, self._read, self._name, groups)
                answers.append(self._answer(query, ranked))
        return SearchResult(
            features=os.fspath(self.path),
            checkpoint=self.provenance.checkpoint,
            layer=self.layer,
            unit="clip" if self.clips else "video",
            num_rows=self.num_rows,
            answers=tuple(answers),
            failures=tuple(failures),
            notes=tuple(self._notes(num_zero)),
        )

    def find_duplicates(self, threshold: float = THRESHOLD) -> Duplicates:
        """All pairs of videos whose cosine is at least `threshold`, exactly, each once, nearest first, and their groups.

        Raises UsageError for a threshold that is not above 0 and at most 1, where moments are indexed, and for more pairs than
        a reader wants.
        """
        if not 0 < threshold <= 1:
            raise UsageError(f"the threshold is {threshold:g}, but must be above 0 and at most 1, a cosine")
        if self.clips:
            raise UsageError("duplicates are looked for among videos, not moments; leave --clips out")
        zero = np.isneginf(scan(self._pieces, [np.ones((1, self._features.num_dims(self.layer)))], self.num_rows)[0])
        pairs, groups = find_pairs(self._read, np.flatnonzero(~zero), threshold, self._name)
        return Duplicates(
            features=os.fspath(self.path),
            checkpoint=self.provenance.checkpoint,
            layer=self.layer,
            threshold=threshold,
            num_rows=self.num_rows,
            pairs=pairs,
            groups=groups,
            notes=tuple(self._notes(int(zero.sum()))),
        )

    def close(self) -> None:
        """Close the files."""
        self._features.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Index({self.num_rows} {'clips' if self.clips else 'videos'}, {self.provenance.checkpoint} {self.layer})"
        )

    def _read(self, places: np.ndarray) -> np.ndarray:
        return self._features.clip_rows(self.layer, places) if self.clips else self._features.rows(self.layer, places)

    def _video_of(self, place: int) -> int:
        return int(np.searchsorted(self._firsts, place, side="right")) - 1 if self.clips else int(place)

    def _name(self, place: int) -> str:
        return self.keys[self._video_of(place)]

    def _rows_of(self, key: str) -> slice:
        """The rows of a video."""
        video = bisect_left(self.keys, key)
        if not self.clips:
            return slice(video, video + 1)
        end = int(self._firsts[video + 1]) if video + 1 < len(self.keys) else self.num_rows
        return slice(int(self._firsts[video]), end)

    def _groups(self) -> np.ndarray:
        """The first clip of every video that has any."""
        return np.unique(self._firsts[self._features.column("num_clips") > 0])

    def _answer(self, query: Query, ranked: Ranked) -> Answer:
        hits = []
        found = zip(ranked.places.tolist(), ranked.cosines.tolist(), ranked.vectors.tolist(), strict=True)
        for number, (place, cosine, vector) in enumerate(found, 1):
            key, moments = self._name(place), ()
            if self.clips:
                own = place - int(self._firsts[self._video_of(place)])
                moments = _moment(self._features.clip_table(key), own), _moment(query.table, vector)
            hits.append(Hit(number, key, cosine, *moments))
        return Answer(query.name, query.made, len(query.vectors) if self.clips else 0, tuple(hits))

    def _notes(self, num_zero: int) -> Iterable[str]:
        if num_zero:
            rows = "clips" if self.clips else "videos"
            yield f"{num_zero} of {self.num_rows} {rows} have a {self.layer} feature of zeros, near to nothing; left out"
        parts = [file for file in self._features.paths if file.parent == parts_folder(self.path)]
        if parts:
            yield (
                f"{self.path} is still in parts ({len(parts)} beside it): its extraction goes on, or was interrupted; the same "
                "'featx extract' ends it"
            )


def _moment(table: ClipTable, i: int) -> Moment:
    return Moment(
        int(table.start_frame[i]), int(table.end_frame[i]), float(table.start_seconds[i]), float(table.end_seconds[i])
    )


def search(
    features_path: str | os.PathLike,
    queries: Names,
    k: int = 10,
    *,
    layer: str | None = None,
    clips: bool = False,
    csv_path: str | os.PathLike | None = None,
    **options: object,
) -> SearchResult:
    """The k nearest videos of a feature file, or with `clips` the nearest moments, for each query: a key, or a video file.

    `layer` and `clips`: see `Index`; `options` are those of `Index.search`. `csv_path`: where to write the hits as a table.
    Raises what these two raise.
    """
    if csv_path is not None:
        check_output(csv_path)
    with Index(features_path, layer=layer, clips=clips) as index:
        result = index.search(queries, k, **options)
    if csv_path is not None:
        result.save_csv(csv_path)
    return result


def find_duplicates(
    features_path: str | os.PathLike,
    threshold: float = THRESHOLD,
    *,
    layer: str | None = None,
    csv_path: str | os.PathLike | None = None,
) -> Duplicates:
    """All pairs of videos of a feature file that are nearly the same: whose cosine is at least `threshold`.

    `layer`: see `Index`; `csv_path`: where to write the pairs as a table. Raises what `Index` and its `find_duplicates` raise.
    """
    if csv_path is not None:
        check_output(csv_path)
    with Index(features_path, layer=layer) as index:
        result = index.find_duplicates(threshold)
    if csv_path is not None:
        result.save_csv(csv_path)
    return result
