"""`featx classify`: videos in, the names of what a network sees in them out."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import click

from featx.cli.checkpoint_options import checkpoint_options, settle_backbone
from featx.cli.clip_options import (
    clip_options,
    decode_options,
    device_options,
    input_options,
    keys_option,
    view_options,
)
from featx.cli.dry_run import failed_line
from featx.cli.help import Command
from featx.errors import one_line

EXAMPLES = """\b
Examples:
  featx classify examples/videos/Wave
  featx classify a.mp4 --top 1 --each-clip
  featx classify videos/ --backbone c3d-sports1m --weights c3d.pickle --json
  featx classify videos/ --backbone c3d-sports1m --eval labels.txt --random-clips 10 --seed 1
"""


@click.command("classify", cls=Command, epilog=EXAMPLES)
@input_options
@click.option("--top", type=int, default=5, show_default=True, help="How many classes.")
@click.option("--each-clip", is_flag=True, help="The best classes of every clip too.")
@click.option("--numbers", is_flag=True, help="Classes by their place in the layer prob, for a card without labels.")
@click.option(
    "--eval",
    "labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Count hits on true classes: 'path n[,n]' (from 0) or a path in its class's folder a line, or CSV of key,label.",
)
@click.option("--allow-missing", is_flag=True, help="With --eval: leave out listed videos that are not there.")
@checkpoint_options
@clip_options
@view_options
@decode_options
@click.option(
    "--random-clips", "num_clips_random", type=int, metavar="N", help="N clips drawn at random instead of a stride."
)
@click.option("--seed", "clips_seed", type=int, default=0, show_default=True, help="Seed of the random clips.")
@device_options
@keys_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(**options: object) -> int:
    """Name what a network sees in videos: its best classes, with scores from 0 to 1.

    INPUT is any mix of video files and folders, which are searched; a folder of numbered JPEG or PNG images is a video
    too. A video's scores are the mean of its clips' scores; over all classes they add up to 1. With --eval the result is how
    many clips and videos were right, of the videos that the file lists.

    Exit codes: 0 all done, 1 some videos failed (listed), 2 wrong usage.
    """
    as_json, labels, allow_missing = (options.pop(name) for name in ("as_json", "labels", "allow_missing"))
    if not options["inputs"] and not options["lists"]:
        raise click.UsageError("no videos are named; name video files or folders, or a list with --list")
    if labels is not None and (options["each_clip"] or options["numbers"]):
        raise click.UsageError("--eval counts hits and prints no classes; leave --each-clip and --numbers out")
    if labels is None and allow_missing:
        raise click.UsageError("--allow-missing is about the list of --eval; leave it out")
    card = settle_backbone(options)
    from featx.checkpoints.describe import describe
    from featx.classification import Classified, classify
    from featx.progress import Progress

    taken = describe(card, options["weights"], options["mean"])

    def planned(num_videos: int) -> None:  # all is right so far: a mistake is a line of its own
        click.echo(taken, err=True)
        bar.start(num_videos)

    with Progress("classify", unit="video", keep=False) as bar:
        options |= {
            "on_note": lambda note: click.echo(one_line(note), err=True),
            "on_planned": planned,
            "on_result": lambda result: bar.advance(),
        }
        if labels is not None:
            from featx.evaluation.hits import hits

            for name in ("top", "each_clip", "numbers"):
                del options[name]
            return _tell_hits(hits(options.pop("inputs"), labels, allow_missing=allow_missing, **options), as_json)
        results = classify(options.pop("inputs"), **options)
    done = [result for result in results if isinstance(result, Classified)]
    failed = [result for result in results if not isinstance(result, Classified)]
    if as_json:
        records = [_record(result) for result in done]
        failures = [{"key": f.key, "path": f.path, "reason": f.reason} for f in failed]
        named = {"backbone": card.name, "variant": card.variant, "videos": records, "failures": failures}
        click.echo(json.dumps(named, indent=2))
    else:
        for i, result in enumerate(done):
            click.echo("\n" * bool(i) + "\n".join(_lines(result)))
    for failure in failed:
        click.echo(failed_line("failed", failure), err=True)
    for result in done:
        if result.damage:
            click.echo(one_line(f"damaged, kept: {result.key}: {result.damage}"), err=True)
    return 1 if failed else 0


def _tell_hits(result, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        click.echo(
            f"{result.backbone}: {result.num_videos} videos, {result.num_clips} clips ({result.clips}), "
            f"{result.num_classes} classes"
        )
        ours = {"clip-top-1": result.clip_hit_1, "top-1": result.video_hit_1, "top-5": result.video_hit_5}
        for name, title in (("clip-top-1", "clip hit@1"), ("top-1", "video hit@1"), ("top-5", "video hit@5")):
            printed = [
                f"{figures[name]:.2f} % on {data}" for data, figures in result.published.items() if name in figures
            ]
            published = f"   (published: {', '.join(printed)})" if printed else ""
            click.echo(f"  {title:<11} {ours[name]:6.2f} %{published}")
        for data, source in result.published_sources.items():
            click.echo(f"published on {data}: {source}")
        for note in result.notes:
            click.echo(one_line(f"note: {note}"))
    for failure in result.failures:
        click.echo(failed_line("failed", failure), err=True)
    return 1 if result.failures else 0


def _record(result) -> dict:
    """A result for JSON, which knows no NaN."""
    record = dataclasses.asdict(result)
    record["guesses"] = [guess._asdict() for guess in result.guesses]
    for clip, guessed in zip(record["clips"], result.clips, strict=True):
        clip["guesses"] = [guess._asdict() for guess in guessed.guesses]
        for name in ("start_seconds", "end_seconds"):
            clip[name] = None if math.isnan(clip[name]) else clip[name]
    return record


def _lines(result) -> list[str]:
    """A video: its key, a line a class, and a line a clip, in columns."""
    clips = f"{result.num_clips} clip" + "s" * (result.num_clips != 1)
    lines = [f"{one_line(result.key)}  ({result.num_frames} frames, {clips})"]
    lines += [f"  {guess.score:.3f}  {one_line(guess.label)}" for guess in result.guesses]
    places = [_place(clip) for clip in result.clips]
    width = max(map(len, places), default=0)
    for place, clip in zip(places, result.clips, strict=True):
        lines.append(
            f"  {place:<{width}}  " + ", ".join(f"{guess.score:.3f} {one_line(guess.label)}" for guess in clip.guesses)
        )
    return lines


def _place(clip) -> str:
    frames = f"frames {clip.start_frame}-{clip.end_frame - 1}"
    return frames if math.isnan(clip.start_seconds) else f"{frames}, {clip.start_seconds:.2f}-{clip.end_seconds:.2f} s"
