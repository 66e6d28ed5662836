"""hits: how often a network's own classes are right, as Sports-1M and Kinetics are evaluated.

clip hit@1     share of clips whose best class is a true one of their video
video hit@k    share of videos with a true class among the k best, by the mean of their clips' scores
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from featx.catalog import Checkpoint, get_checkpoint
from featx.classification import LAYER, Classified, classify
from featx.errors import UsageError
from featx.evaluation.labels import read_labels
from featx.features import Failure
from featx.lists import few, match_names
from featx.plan import plan_videos

__all__ = ["HitResult", "count_hits", "hits"]

TOP = 5


@dataclass(frozen=True)
class HitResult:
    """How often a network was right, in %; videos that failed count neither way.

    `clips` says which were taken. `published`: data set -> what is printed for the network's own classes there, under
    "clip-top-1", "top-1" and "top-5", and `published_sources` where.
    """

    backbone: str
    variant: str
    labels: str
    clips: str
    num_classes: int
    num_videos: int
    num_clips: int
    clip_hit_1: float
    video_hit_1: float
    video_hit_5: float
    published: dict[str, dict[str, float]]
    published_sources: dict[str, str]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict:
        """All of it as plain JSON values."""
        return asdict(self)


def hits(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    labels_path: str | os.PathLike,
    backbone: str | os.PathLike | Checkpoint = "res3d-mini",
    *,
    lists: Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    allow_missing: bool = False,
    on_note: Callable[[str], None] = lambda note: None,
    on_planned: Callable[[int], None] = lambda num_videos: None,
    on_result: Callable[[Classified | Failure], None] = lambda result: None,
    **options: object,
) -> HitResult:
    """Classify the videos that a label list names, and count the hits.

    `inputs`, `lists`, `keys_from`, and what is told on the way: see `featx.classify`. `labels_path`: see
    `featx.evaluation.labels`. `options`: see `featx.Extractor`; all clips are taken unless they say otherwise, with `num_clips`
    (evenly spread) or `num_clips_random` and `clips_seed`. `allow_missing` leaves out listed videos that are not
    among the inputs.

    Raises UsageError where list, videos and network do not fit together, and what `featx.classify` raises.
    """
    card = get_checkpoint(backbone)
    if LAYER not in card.layers:
        raise UsageError(f"{card.name} offers no layer {LAYER}, so it names no classes; take a card that does")
    listed = read_labels(Path(labels_path), card.labels, card.classes)
    keys = [item.key for item in plan_videos(inputs, lists, keys_from)]
    found = match_names(list(listed), keys)
    notes = []
    missing = [name for name in listed if name not in found]
    if missing:
        text = f"{len(missing)} of {len(listed)} listed videos are not among the inputs: {few(missing)}"
        if not found or not allow_missing:
            raise UsageError(f"{text}; name their folder, or leave them out with --allow-missing")
        notes.append(f"{text}; left out")
    truth = {keys[i]: listed[name] for name, i in found.items()}
    if len(truth) < len(keys):
        notes.append(f"{len(keys) - len(truth)} of {len(keys)} videos are not listed; left out")
    results = classify(
        inputs,
        card,
        lists=lists,
        keys_from=keys_from,
        wanted=truth.__contains__,
        top=TOP,
        each_clip=True,
        numbers=True,
        on_note=on_note,
        on_planned=on_planned,
        on_result=on_result,
        **options,
    )
    done = [result for result in results if isinstance(result, Classified)]
    if not done:
        first = results[0]
        raise UsageError(f"none of {len(results)} listed videos could be classified; {first.key}: {first.reason}")
    clip_hit_1, video_hit_1, video_hit_5 = count_hits(done, truth)
    own = {
        data: {k.partition(":")[2]: v for k, v in f.items() if k.startswith("prob:")}
        for data, f in card.published.items()
    }
    published = {data: figures for data, figures in own.items() if figures}
    return HitResult(
        backbone=card.name,
        variant=str(options.get("variant") or card.variant),
        labels=os.fspath(labels_path),
        clips=_clips(options),
        num_classes=card.classes,
        num_videos=len(done),
        num_clips=sum(result.num_clips for result in done),
        clip_hit_1=clip_hit_1,
        video_hit_1=video_hit_1,
        video_hit_5=video_hit_5,
        published=published,
        published_sources={data: card.published_source[data] for data in published},
        failures=tuple(result for result in results if isinstance(result, Failure)),
        notes=tuple(notes),
    )


def count_hits(results: Sequence[Classified], truth: dict[str, frozenset[int]]) -> tuple[float, float, float]:
    """Clip hit@1, video hit@1 and video hit@5 in %, of videos with their clips; `truth` maps keys to numbers of classes."""
    clips = [clip.guesses[0].number in truth[video.key] for video in results for clip in video.clips]
    at = {k: [any(g.number in truth[v.key] for g in v.guesses[:k]) for v in results] for k in (1, TOP)}
    return tuple(100 * sum(hit) / len(hit) for hit in (clips, at[1], at[TOP]))


def _clips(options: dict[str, object]) -> str:
    if options.get("num_clips_random"):
        return f"{options['num_clips_random']} random clips a video, seed {options.get('clips_seed') or 0}"
    if options.get("num_clips"):
        return f"{options['num_clips']} evenly spread clips a video"
    return "all clips"
