"""`write_report`: everything that a feature file tells, as one page."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featx import __version__
from featx.durable import sync
from featx.errors import UnknownNameError, UsageError
from featx.evaluation.embedding import METHODS
from featx.evaluation.sources import split_layer
from featx.progress import Progress
from featx.report.gather import gather
from featx.report.layers import NUM_NEIGHBOURS, VECTOR_BYTES, layer_data, unit_rows
from featx.report.page import page_text
from featx.report.thumbnails import Thumbnails, make_thumbnails
from featx.small_files import aside_of, check_output, require_place
from featx.store import FeatureSet, open_features, verify_set

__all__ = ["ReportSummary", "write_report"]

SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class ReportSummary:
    """What `write_report` wrote; `notes`: what a reader of the page must know."""

    output: Path
    num_videos: int
    num_classes: int
    num_failures: int
    num_thumbnails: int
    num_bytes: int
    layers: tuple[str, ...]
    notes: tuple[str, ...] = ()


def write_report(
    features_path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    layers: str | Iterable[str] = (),
    method: str = "pca",
    title: str = "",
    thumbnails: bool = True,
    videos: str | os.PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> ReportSummary:
    """Write what a feature file holds as one page of HTML, which needs no network and no other file.

    It tells how the features were made, what failed, how many clips the videos have, and puts the descriptors on a plane by
    `method`, "pca" or "tsne" (of at most 50 principal components), with thumbnails, exact nearest neighbours by cosine, and
    the cosine of any two. `layers`: those to show, all if none is named (one may stand in the path, "features.h5:fc6").
    Of a file of clip features alone, descriptors are the means of the clips. `thumbnails`: whether pictures are taken of the
    videos, from where the file says that they lie, or below the folder `videos`; one that cannot be taken is left out, and
    the page says why. `title`: of the page, the file's name if empty. `progress` shows a bar for the thumbnails.

    Raises UsageError for an output that exists (unless `overwrite`), is not named .html or cannot be written, and for a
    folder that is not there; UnknownNameError for a layer or method; FeatureFileError for a damaged file, and for values that
    are not finite.
    """
    output, folder = Path(output), None if videos is None else Path(videos)
    _check(output, overwrite)
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    if folder is not None and not thumbnails:
        raise UsageError(f"videos is {folder}, but without thumbnails no video is looked for; leave one of them out")
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(f"no such folder: {folder}; name the one that the videos lie in")
    path, own_layer = split_layer(features_path)
    with open_features(path) as features:
        chosen = _choose_layers(features, own_layer, [layers] if isinstance(layers, str) else list(layers), path)
        verify_set(features)
        data = gather(features, path)
        budget = VECTOR_BYTES // len(chosen)
        data["layers"] = {
            name: layer_data(unit_rows(features, name), method, budget, NUM_NEIGHBOURS) for name in chosen
        }
        taken = _take_thumbnails(features, path, folder, progress) if thumbnails else Thumbnails()
        notes = _notes(features, data, taken if thumbnails else None, method)
        data |= {
            "title": title or path.name or str(path),
            "featx_version": __version__,
            "picture_reasons": [[video, reason] for video, reason in sorted(taken.reasons.items())],
            "with_pictures": thumbnails,
            "notes": notes,
        }
        num_videos, num_failures = len(features), len(features.failures)
    num_bytes = _write(output, page_text(str(data["title"]), data, taken.pictures), overwrite)
    return ReportSummary(
        output=output,
        num_videos=num_videos,
        num_classes=len(data["classes"]),
        num_failures=num_failures,
        num_thumbnails=len(taken.pictures),
        num_bytes=num_bytes,
        layers=tuple(chosen),
        notes=tuple(notes),
    )


def _check(output: Path, overwrite: bool) -> None:
    if os.path.isdir(output):
        raise UsageError(f"{output} is a folder; name a file, such as {output / 'report.html'}")
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the output {output} is a page of HTML; name it such as {output.with_suffix('.html').name}")
    check_output(output, text=False)
    if os.path.lexists(output) and not overwrite:
        raise UsageError(f"{output} exists; choose another name, or allow it with --overwrite")


def _choose_layers(features: FeatureSet, own: str | None, named: Sequence[str], path: Path) -> list[str]:
    if own is not None and named and list(named) != [own]:
        raise UsageError(f"{path}:{own} names layer {own}, but --layer says {named[0]}; leave one of them out")
    chosen = list(dict.fromkeys(named)) or ([own] if own else list(features.layers))
    for layer in chosen:
        features.num_dims(layer)  # raises for a layer that is not there
    return chosen


def _take_thumbnails(features: FeatureSet, path: Path, folder: Path | None, progress: bool) -> Thumbnails:
    with Progress("thumbnails", total=len(features), unit="video", show=progress, keep=False) as bar:
        return make_thumbnails(features, path.absolute().parent, folder, on_video=bar.advance)


def _notes(features: FeatureSet, data: dict, taken: Thumbnails | None, method: str) -> list[str]:
    notes = []
    if not features.has_descriptors:
        notes.append("the file holds clip features only; a descriptor here is the mean of a video's clips")
    shown = {layer["method"] for layer in data["layers"].values()}
    if method not in shown:
        notes.append(f"{len(features)} videos are too few for t-SNE; shown by PCA")
    for name, layer in data["layers"].items():
        if layer["num_zero"]:
            notes.append(f"{layer['num_zero']} descriptors of {name} are zero; their cosines are 0")
    if data["file"]["num_parts"]:
        notes.append("the file is still in parts: its extraction goes on, or was interrupted")
    if taken is not None and taken.reasons:
        first = next(iter(taken.reasons))
        notes.append(
            f"{len(taken.reasons)} of {len(features)} videos have no thumbnail, such as {features.keys[first]}: "
            f"{taken.reasons[first]}; --videos FOLDER says where they lie"
        )
    return notes


def _write(output: Path, pieces: Iterable[str], overwrite: bool) -> int:
    """Write the page aside, onto the disk, and rename it; return its bytes."""
    place = require_place(output)
    aside = aside_of(place)
    try:
        with open(aside, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(pieces)
        num_bytes = aside.stat().st_size
        sync(aside)
        if os.path.lexists(place) and not overwrite:
            raise UsageError(f"{output} was made meanwhile; choose another name, or allow it with --overwrite")
        os.replace(aside, place)
        sync(place.parent)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}; choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    return num_bytes
