"""What is searched for: a video of the feature file, by its key, or a video file, extracted just as the feature file's were."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from featx.basis import Basis
from featx.errors import UnknownNameError, UsageError
from featx.features import ClipTable, Failure
from featx.lists import match_names
from featx.provenance import Provenance
from featx.store import FeatureSet

__all__ = ["Query", "find_queries"]

NEAR_NAMES = 1000  # of so many keys the nearest are looked for where a name is unknown


@dataclass(frozen=True, eq=False)
class Query:
    """A query: its `vectors` float32 (m, D), one of a video or one a clip, none of them zero, and for clips where they lie.

    `key` is that of a video of the file, None for a video that was extracted; `made` then says how.
    """

    name: str
    vectors: np.ndarray
    key: str | None = None
    made: str = ""
    table: ClipTable | None = None


def find_queries(
    features: FeatureSet,
    path: Path,
    layer: str,
    names: Sequence[str | os.PathLike],
    *,
    clips: bool,
    at_seconds: float | None,
    **options: object,
) -> tuple[list[Query], list[Failure]]:
    """The queries that `names` mean, and the videos among them that failed.

    A name is a key of the file; else a video file or a folder of images; else a key in another spelling, see
    `featx.lists`. `options` are for `featx.Extractor`. Raises UnknownNameError for a name that is none of these.
    """
    keys = [_key_of(features, name) for name in names]
    videos = [os.fspath(name) for name, key in zip(names, keys, strict=True) if key is None]
    made = _extract(features, path, layer, videos, clips, **options) if videos else {}
    queries, failures = [], []
    for name, key in zip(map(os.fspath, names), keys, strict=True):
        if key is not None:
            table = features.clip_table(key) if clips else None
            query = Query(key, _rows_of(features, layer, key, clips), key, table=table)
        elif isinstance(made[name], Failure):
            failures.append(made[name])
            continue
        else:
            query = made[name]
        queries.append(_with_direction(_at(query, at_seconds), layer))
    return queries, failures


def _key_of(features: FeatureSet, name: str | os.PathLike) -> str | None:
    """The key that a name is, None for a video that lies at that path."""
    text = os.fspath(name)
    if isinstance(name, str) and text in features:
        return text
    if os.path.exists(text):
        return None
    found = match_names([text], features.keys, by_base_name=False)
    if not len(features):
        raise UsageError(f"the query '{text}' finds nothing, since the file holds no videos; extract some first")
    if not found:
        raise UnknownNameError(
            "query",
            text,
            _near(text, features.keys),
            "A query is a key ('featx info --videos' lists them) or a video file.",
        )
    return features.keys[found[text]]


def _near(name: str, keys: Sequence[str]) -> Sequence[str]:
    """The keys among which a mistyped one is looked for; all where they are not too many."""
    if len(keys) <= NEAR_NAMES:
        return keys
    start = PurePosixPath(name).name[:4].lower()
    return [key for key in keys if start in key.lower()][:NEAR_NAMES] or keys[:NEAR_NAMES]


def _rows_of(features: FeatureSet, layer: str, key: str, clips: bool) -> np.ndarray:
    """Of a video of the file, float32 (m, D)."""
    row = bisect_left(features.keys, key)
    if not clips:
        return features.rows(layer, [row])
    counts = features.column("num_clips")
    first = int(counts[:row].sum())
    return features.clip_rows(layer, np.arange(first, first + int(counts[row]))).astype(np.float32, copy=False)


def _at(query: Query, seconds: float | None) -> Query:
    """The query cut down to the one clip whose middle is nearest to a second."""
    if seconds is None:
        return query
    starts, ends = query.table.start_seconds, query.table.end_seconds
    if not len(starts) or not np.isfinite(starts).all():
        raise UsageError(f"'{query.name}' has no times, as folders of images have none; leave --at out")
    if not starts.min() <= seconds <= ends.max():
        raise UsageError(
            f"--at is {seconds:g}, but the clips of '{query.name}' lie between {starts.min():.2f} and {ends.max():.2f} s; "
            "name a second among them"
        )
    i = int(np.abs((starts + ends) / 2 - seconds).argmin())
    return _only(query, np.array([i]))


def _with_direction(query: Query, layer: str) -> Query:
    """The query without its zero vectors, whose cosine with anything is not defined."""
    if not np.isfinite(query.vectors).all():
        raise UsageError(f"the {layer} feature of '{query.name}' is not finite; extract that video again")
    kept = np.flatnonzero(query.vectors.any(axis=1))
    if not len(kept):
        raise UsageError(
            f"the {layer} feature of '{query.name}' is zero, and zero is near to nothing; search with another video or layer"
        )
    return query if len(kept) == len(query.vectors) else _only(query, kept)


def _only(query: Query, rows: np.ndarray) -> Query:
    table = query.table
    if table is not None:
        table = ClipTable(*(getattr(table, name)[rows] for name in table.__dataclass_fields__))
    return replace(query, vectors=query.vectors[rows], table=table)


# ------------------------------------------------------------------------------------------------ videos that are not in it


def _extract(
    features: FeatureSet,
    path: Path,
    layer: str,
    videos: Sequence[str],
    clips: bool,
    *,
    card: object = None,
    weights: str | os.PathLike | None = None,
    mean: str | os.PathLike | None = None,
    device: str = "auto",
    on_note: Callable[[str], None] = lambda note: None,
) -> dict[str, Query | Failure]:
    """Extract videos as those of the file were, and project them if these went through PCA; by their names."""
    recorded = features.provenance
    _require_known(recorded, path)
    from featx.extractor import Extractor
    from featx.plan import VideoItem

    options = _options(recorded, layer, "clips" if clips else "descriptors") | _plan(recorded, device)
    options |= {"weights": weights} | ({} if mean is None else {"mean": mean})
    items = [VideoItem(name, Path(name)) for name in dict.fromkeys(videos)]
    with Extractor(recorded.checkpoint if card is None else card, **options) as extractor:
        if extractor.engine.note:
            on_note(extractor.engine.note)
        now = extractor.provenance
        comparable = replace(
            recorded,
            layers=now.layers, save=now.save, dtype=now.dtype, basis_sha256="",
            aggregate=now.aggregate, bins=now.bins, clip_times=now.clip_times,
        )  # fmt: skip
        comparable.require_agreement(
            now, f"in {path}", "for the query", "Name the weights that it was made with, or search by a key."
        )
        results = {result.key: result for result in extractor.extract_many(items)}
    basis = Basis.from_dict(features.bases[layer]) if layer in features.bases else None
    made = _words(recorded, layer, path, basis)
    queries: dict[str, Query | Failure] = {}
    for name, found in results.items():
        if isinstance(found, Failure):
            queries[name] = found
            continue
        rows = found.clips[layer] if clips else found.descriptors[layer][None]
        if basis is not None:
            rows = basis.apply(rows.astype(np.float32, copy=False))
        if clips:  # rounded as the file's are
            rows = rows.astype(recorded.dtype).astype(np.float32)
        queries[name] = Query(name, rows, made=made, table=found.clip_table)
    return queries


def _require_known(recorded: Provenance, path: Path) -> None:
    """Raise UsageError where nobody can extract a video as those of the file were."""
    if not recorded.checkpoint_sha256:
        raise UsageError(
            f"{path} was imported ({recorded.engine}), so nobody can extract a video in its way; search by a key of it"
        )
    if recorded.stride == 0:
        raise UsageError(
            f"the clips in {path} were listed one by one, and a query has no such list; search by a key of it"
        )


def _options(recorded: Provenance, layer: str, save: str) -> dict[str, object]:
    """What an Extractor is told to make features as recorded; what it is not told, its provenance is compared for."""
    from featx.engine.precision import PRECISIONS

    options: dict[str, object] = {
        "variant": recorded.variant or None,
        "layers": [layer],
        "length": recorded.length,
        "frame_step": recorded.frame_step,
        "fps": recorded.fps,
        "short": recorded.short,
        "tail": recorded.tail,
        "save": save,
        "dtype": recorded.dtype,
        "precision": recorded.precision if recorded.precision in PRECISIONS else "auto",
        "crops": recorded.crops,
        "flip": bool(recorded.flip),
        # a table of bins lies beside the mean, which is what is searched; moments are clips, and not aggregated
        "aggregate": "max" if recorded.aggregate == "max" and save == "descriptors" else "mean",
    }
    even = recorded.num_clips_even
    options |= {"num_clips": even} if even else {"stride": recorded.stride}
    return options | ({} if recorded.mean_cube_sha256 else {"mean": "card"})


def _plan(recorded: Provenance, device: str) -> dict[str, object]:
    """Device, engine and batch size as recorded, where they are to be had here: without them the last bits differ."""
    from featx.engine import choose_device, described, unavailable

    engine, recorded_device = described(recorded.engine)
    if device == "auto" and recorded_device == "cpu":
        device = "cpu"
    plan: dict[str, object] = {"device": device}
    if choose_device(device).type != recorded_device:
        return plan
    if engine and not unavailable(engine, recorded_device):
        plan["engine"] = engine
    return plan | {"batch_size": recorded.batch_size}


def _words(recorded: Provenance, layer: str, path: Path, basis: Basis | None) -> str:
    """How a query's features were made, in words."""
    clips = f"{recorded.num_clips_even} clips" if recorded.num_clips_even else f"stride {recorded.stride}"
    variant = f" ({recorded.variant})" if recorded.variant else ""
    rate = f", {recorded.fps:g} frames/s" if recorded.fps else ""
    views = f", {recorded.crops} crops" * (recorded.crops > 1) + ", mirror images too" * recorded.flip
    projected = f", projected on the {basis.num_dims} components of its basis" if basis is not None else ""
    return (
        f"extracted as {path} records: {recorded.checkpoint}{variant} {layer}, {recorded.length} frames a clip, step "
        f"{recorded.frame_step}, {clips}{rate}, short {recorded.short}, tail {recorded.tail}{views}{projected}"
    )
