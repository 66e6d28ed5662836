"""What a network sees in a video: its classes with their scores, from the layer prob, for a video or for each of its clips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from featx.catalog import Checkpoint, get_checkpoint
from featx.descriptors import MeanAccumulator
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.features import Failure, Features
from featx.plan import plan_videos
from featx.urls import UrlVideos

__all__ = ["Classified", "Guess", "GuessedClip", "classify"]

LAYER = "prob"


class Guess(NamedTuple):
    """One class: its place in the layer prob, from 0; its name (the place again where names were not asked for); its score."""

    number: int
    label: str
    score: float


@dataclass(frozen=True)
class GuessedClip:
    """The best classes of one clip. `end_frame` is exclusive; seconds count from the first frame, NaN in a folder of images."""

    start_frame: int
    end_frame: int
    start_seconds: float
    end_seconds: float
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class Classified:
    """The best classes of one video, best first; `clips` in order of time, and empty unless they were asked for.

    `damage` tells what was wrong with a video that is kept all the same; empty for a whole one.
    """

    key: str
    path: str
    num_frames: int
    num_clips: int
    guesses: tuple[Guess, ...]
    clips: tuple[GuessedClip, ...] = ()
    damage: str = ""


def classify(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    backbone: str | os.PathLike | Checkpoint = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    allow_urls: bool = False,
    wanted: Callable[[str], bool] = lambda key: True,
    top: int = 5,
    each_clip: bool = False,
    numbers: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
    on_planned: Callable[[int], None] = lambda num_videos: None,
    on_result: Callable[[Classified | Failure], None] = lambda result: None,
    **options: object,
) -> list[Classified | Failure]:
    """The `top` classes of videos, with scores from 0 to 1: sorted by key, a Failure for a video that gives none.

    A clip's scores are the network's softmax, which add up to 1 over all classes; a video's are their mean over its clips.
    `inputs`, `lists`, `keys_from`, `allow_urls`: see `featx.plan.plan_videos`; videos whose key is not `wanted` are passed
    over; `backbone` and `options`: see `featx.Extractor`. With `each_clip` every clip's own classes come too. `numbers` names
    classes by their place in the layer prob, for a card that has no labels. `on_note` gets one-line remarks, `on_planned` the
    number of videos, `on_result` every result as it is finished.

    Raises UsageError for a card without labels, unless `numbers`, and for one without a layer prob; and what `Extractor`
    and `plan_videos` raise.
    """
    if top < 1:
        raise UsageError(f"top is {top}, but must be at least 1 class")
    card = get_checkpoint(backbone)
    labels = _labels(card, numbers)
    items = [item for item in plan_videos(inputs, lists, keys_from, allow_urls=allow_urls) if wanted(item.key)]
    results = []
    with (
        Extractor(card, layers=[LAYER], save="clips", **options) as extractor,
        tempfile.TemporaryDirectory(prefix="featx-") as folder,
    ):
        if extractor.engine.note:
            on_note(extractor.engine.note)
        extractor.engine.on_note = on_note
        on_planned(len(items))
        urls = UrlVideos(Path(folder) / "fetched")
        for features in urls.results(extractor.extract_many(urls.local(items))):
            result = features if isinstance(features, Failure) else _classified(features, labels, top, each_clip)
            results.append(result)
            on_result(result)
    return sorted(results, key=lambda result: result.key)


def _labels(card: Checkpoint, numbers: bool) -> tuple[str, ...]:
    if LAYER not in card.layers:
        raise UsageError(f"{card.name} offers no layer {LAYER}, so it names no classes; take a card that does")
    if numbers:
        return tuple(map(str, range(card.classes)))
    if card.labels is None:
        raise UsageError(
            f"{card.name} has no labels for its {card.classes} classes; take their numbers with --numbers, or give a card "
            "of your own that has 'labels' with --card"
        )
    return card.labels


def _classified(features: Features, labels: tuple[str, ...], top: int, each_clip: bool) -> Classified:
    scores = features.clips[LAYER]  # (M, classes)
    mean = MeanAccumulator(scores.shape[1])
    mean.add(scores)
    clips = []
    if each_clip:
        table = features.clip_table
        columns = (table.start_frame, table.end_frame, table.start_seconds, table.end_seconds)
        for *place, row in zip(*(column.tolist() for column in columns), scores, strict=True):
            clips.append(GuessedClip(*place, _best(row, labels, top)))
    guesses = _best(mean.result(), labels, top)
    f = features
    return Classified(f.key, f.path, f.num_frames, f.num_clips, guesses, tuple(clips), f.damage)


def _best(scores: np.ndarray, labels: tuple[str, ...], top: int) -> tuple[Guess, ...]:
    """The `top` classes, best first, equal ones in their order."""
    places = np.argsort(-scores, kind="stable")[:top]
    return tuple(Guess(int(i), labels[i], float(scores[i])) for i in places)
