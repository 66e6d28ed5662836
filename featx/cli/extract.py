"""`featx extract`: videos in, a feature file out."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featx import remote
from featx.cli.checkpoint_options import checkpoint_options, settle_backbone
from featx.cli.clip_options import (
    clip_options,
    decode_options,
    device_options,
    input_options,
    keys_option,
    view_options,
)
from featx.cli.dry_run import OF_AN_ESTIMATE, dry_run_options, failed_line, print_dry_run
from featx.cli.help import Command
from featx.cli.ray_options import ray_options
from featx.cli.streams import tell
from featx.cli.types import ByteCount, PathOrAddress
from featx.errors import one_line

if TYPE_CHECKING:
    from featx.run import Summary

EXAMPLES = """\b
Examples:
  featx extract examples/videos -o features.h5
  featx extract a.mp4 b.mp4 -o ab.h5 --layer res5b --layer pool5 --save both
  featx extract ucf101/ -o c3d.h5 --backbone c3d-sports1m --weights c3d.pickle
  featx extract examples/videos --dry-run --estimate --machines 8 --price 2.5
"""


@click.command("extract", cls=Command, epilog=EXAMPLES)
@click.option(
    "-o",
    "--output",
    type=PathOrAddress(path_type=Path),
    help="The feature file to write, or to continue; s3:// and gs:// addresses too, which are written part by part.",
)
@input_options
@click.option(
    "--c3d-list",
    "c3d_lists",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A list of the C3D tool for Caffe, a clip a line: path start_frame label.",
)
@click.option(
    "--segments",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Parts of videos, by a file with the header path,start_seconds,end_seconds,label (the label may be left out; paths as "
    "in --list). A part gets the key NAME/000012.500-000020.000, holds the frames with start <= t < end, and keeps its label.",
)
@checkpoint_options
@click.option("--layer", "layers", multiple=True, help="Layer to take; repeatable. Default: the card's.")
@clip_options
@view_options
@click.option(
    "--aggregate",
    type=click.Choice(["mean", "max", "bins"]),
    default="mean",
    show_default=True,
    help="How clip features become a video's descriptor, before it gets unit length. bins: the mean, and besides a table "
    "/bins/LAYER of the clip features in --bins equal parts of the video.",
)
@click.option(
    "--bins",
    type=int,
    metavar="T",
    help="Parts of a video for '--aggregate bins': clip features are interpolated linearly between the middles of clips. "
    " [default: 100]",
)
@click.option("--save", type=click.Choice(["descriptors", "clips", "both"]), default="descriptors", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of clip features and bins.",
)
@click.option(
    "--timestamps",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Write where every clip of the output lies: key,clip,start_frame,end_frame,start_seconds,end_seconds, ends exclusive.",
)
@decode_options
@device_options
@ray_options
@keys_option
@click.option(
    "--on-error", type=click.Choice(["skip", "stop"]), default="skip", show_default=True, help="When a video fails."
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--refresh", is_flag=True, help="Redo the videos whose files changed since they were extracted.")
@click.option(
    "--hash",
    "content_hash",
    is_flag=True,
    help="Store a SHA-256 of every video, and tell changed videos by it where it is stored.",
)
@click.option("--repair", is_flag=True, help="Set damaged files of the output aside, and extract their videos again.")
@click.option(
    "--shard",
    metavar="K/N",
    help="Take the K-th of N shards of the videos, by a hash of their keys, for 'featx merge' to join; adding videos moves "
    "none to another. slurm/N: K is the task's number in a job array (sbatch --array=1-N), also where a few of its tasks run "
    "again; slurm/0-7: the array is 0-7. slurm: N, too, is the array's.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where videos of addresses lie while they are decoded, and an output until it is in its store. Default: beside the "
    "output; for one in a store, featx's own cache.",
)
@click.option(
    "--cache-size",
    "cache_bytes",
    type=ByteCount(),
    default="4GiB",
    show_default=True,
    metavar="SIZE",
    help="What fetched videos may take of the disk, such as 500MB or 20GiB.",
)
@click.option("--overwrite", is_flag=True, help="Start anew instead of continuing the output.")
@dry_run_options
@click.option("--profile", is_flag=True, help="Print where the time went: decode, resize, wait, forward, write.")
@click.option("--quiet", is_flag=True, help="Print failures and errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print the closing summary as JSON on stdout.")
def command(**options: object) -> int:
    """Extract features from videos into a feature file.

    INPUT is any mix of video files and folders, which are searched, also in stores (s3://bucket/videos/); a folder of numbered
    JPEG or PNG images is a video too. A second run with the same output does what is missing.
    Ctrl-C finishes the videos in flight, at most for a minute; pressed again, it stops at once. What is finished is kept, and
    the same command goes on.

    Exit codes: 0 all done, 1 some videos failed (listed), 2 wrong usage, 130 and 143 ended by Ctrl-C or SIGTERM.
    """
    output, dry_run = options.pop("output"), options.pop("dry_run")
    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    profile = options.pop("profile")
    if not options["inputs"] and not options["lists"] and not options["c3d_lists"] and not options["segments"]:
        raise click.UsageError("no videos are named; name video files or folders, or a list with --list")
    card = settle_backbone(options)
    card.ordered_layers(options["layers"])  # a wrong name is told at once, before torch is loaded
    told = click.echo if dry_run else tell  # what a dry run prints is all that it makes
    say = (lambda text: None) if quiet else (lambda text: told(text, err=as_json))
    if dry_run:
        if options["timestamps"]:
            raise click.UsageError("--timestamps is of a run, but --dry-run makes none; leave one of the two out")
        if profile:
            raise click.UsageError("--profile is of a run, but --dry-run makes none; leave one of the two out")
        for name in OF_AN_ESTIMATE if not options["estimate"] else ():
            if options[name] is not None:
                raise click.UsageError(
                    f"--{name} is given without --estimate, to which it belongs; give both, or leave it out"
                )
        return print_dry_run(options, output, say, as_json)
    for name in ("count", "estimate", *OF_AN_ESTIMATE):
        if options.pop(name) not in (None, False):
            raise click.UsageError(
                f"--{name} is given without --dry-run, to which it belongs; give both, or leave it out"
            )
    if output is None:
        raise click.UsageError("name the feature file to write with -o, such as '-o features.h5'")
    _say_backbone(card, options, say)
    summary = _extract(options, output, quiet, say, as_json)
    if profile:
        tell("\n".join(summary.profile.lines()), err=as_json)
    return summary.exit_code


def _say_backbone(card, options: dict, say) -> None:
    from featx.checkpoints.describe import describe

    say(describe(card, options["weights"], options["mean"]))


def _extract(options: dict, output: Path | str, quiet: bool, say, as_json: bool) -> Summary:
    from featx.run import extract_to

    def note(text: str) -> None:
        say(one_line(text))

    def planned(summary) -> None:
        num_before = len(summary.failed_before)
        if summary.num_present or num_before:
            note(
                f"{output} holds {summary.num_present} of {summary.num_planned} videos"
                + f"; {num_before} failed before (--retry-failed tries them again)" * bool(num_before)
            )
        if summary.changed and not options.get("refresh"):
            note(
                f"{len(summary.changed)} of them are not what they were extracted from: other or changed files, or other "
                f"clips listed, such as '{summary.changed[0]}' (--refresh redoes them)"
            )
        if summary.damaged_before:
            num_damaged, first = len(summary.damaged_before), next(iter(summary.damaged_before))
            note(
                f"{num_damaged} of them were kept though they are damaged, such as '{first}'"
                + " (--refresh redoes them, and they fail)" * (summary.on_corrupt == "fail")
            )

    layers = options.pop("layers") or None
    summary = extract_to(
        options.pop("inputs"),
        output,
        layers=layers,
        interrupts=click.get_current_context().obj,
        progress=not quiet,
        on_note=note,
        on_planned=planned,
        **options,
    )
    for word, failed in (("failed", summary.failures), ("failed before", summary.failed_before)):
        for failure in failed:
            tell(failed_line(word, failure), err=True)
    for word, damaged in (("damaged", summary.damaged), ("damaged before", summary.damaged_before)):
        for key, damage in damaged.items():
            tell(one_line(f"{word}, kept: {key}: {damage}"), err=True)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary) | {"exit_code": summary.exit_code}, indent=2))
        return summary
    if summary.stopped_by:
        left = summary.num_planned - summary.num_present - len(summary.failed_before)
        left -= summary.num_videos + len(summary.failures)
        tell(
            f"featx: interrupted; {summary.num_videos} videos of this run are kept, {left} are left: "
            f"{click.get_current_context().obj.goes_on}, "
            f"and {output} can be read as it is",
            err=True,
        )
        return summary
    if summary.num_planned and not summary.num_videos and not summary.failures:
        say(
            f"{output}: nothing to do; {summary.num_present} videos present, {len(summary.failed_before)} failed before"
        )
        return summary
    frames_per_second = summary.num_frames / summary.seconds if summary.seconds else 0
    say(
        f"{output}: {summary.num_videos} videos done, {summary.num_clips} clips, {frames_per_second:.0f} frames/s, "
        f"{len(summary.failures)} failures"
        + f" and {len(summary.failed_before)} before" * bool(summary.failed_before)
        + f", {len(summary.damaged)} kept damaged" * bool(summary.damaged)
        + f", {summary.seconds:.1f} s"
    )
    if summary.num_zero_descriptors:
        say(f"{summary.num_zero_descriptors} descriptors are zero vectors: no unit of the layer responds")
    if summary.parts_left:
        say(parts_line(output, summary.parts_left))
    return summary


def parts_line(output: str | os.PathLike, num_parts: int) -> str:
    """Where parts lie that were not joined, and what joins them; merge reads no store."""
    from featx import store

    if remote.is_address(output):
        name, place = os.path.basename(output), f"{output}.parts"
        how = f"where both are fetched into a folder of a disk, 'featx merge {name} -o {name}' joins them"
    else:
        place = store.parts_folder(output)
        how = f"'featx merge {output} -o {output}' joins them"
    return f"{num_parts} new parts lie in {place} and are read with the file; {how}"
