"""Does a dry run's estimate hold? A part of examples/benchmark.py, `--only estimate`: a sample is measured, then all is run.

The videos, where none are given, are rendered in two codecs and three lengths, under many names. Estimate and run take turns,
round by round, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmark_inputs import first_clips, link_many, made_up_weights, render

from featx.catalog import get_checkpoint
from featx.estimate_run import estimate_run
from featx.plan import plan_videos
from featx.run import extract_to

__all__ = ["measure_estimates"]

NUM_FRAMES = (24, 90, 250)  # of the rendered videos
NUM_NAMES = 30  # a codec and length


def measure_estimates(args: argparse.Namespace) -> None:
    """Print estimated and real seconds, bytes and clips, and what the sample was, for each backbone."""
    with tempfile.TemporaryDirectory() as folder:
        videos = args.videos or _videos(Path(folder), args.quick)
        for name in args.backbone:
            card = get_checkpoint(name)
            clips = first_clips(card, plan_videos([videos])[0].path, 4)
            weights = None if card.embedded else made_up_weights(card, clips, Path(folder))
            print(f"\nestimate and run of {name}, with clip features: estimated / real", flush=True)
            ratios, hits = [], 0
            for _ in range(args.rounds):
                seconds_ratio, inside = _one_round(videos, name, weights, Path(folder) / "run.h5", args)
                ratios.append(seconds_ratio)
                hits += inside
            print(
                f"  seconds: median {statistics.median(ratios):.2f} of {args.rounds} rounds, {min(ratios):.2f} to "
                f"{max(ratios):.2f}; the range held the real time {hits} times",
                flush=True,
            )


def _one_round(
    videos: Path, backbone: str, weights: Path | None, output: Path, args: argparse.Namespace
) -> tuple[float, bool]:
    """Seconds estimated / real, and whether the real ones lay in the range."""
    options = {"weights": weights, "device": args.device, "save": "both"}
    told, estimate = estimate_run(videos, backbone, sample=3 if args.quick else None, **options)
    made = extract_to(videos, output, backbone, **options)
    num_bytes = output.stat().st_size
    output.unlink()
    one, profile = estimate.one, made.profile
    print(
        f"  seconds {one.seconds:.1f} ({one.low_seconds:.1f} to {one.high_seconds:.1f}) / {made.seconds:.1f} = "
        f"{one.seconds / made.seconds:.2f}   to start {estimate.start_seconds:.1f} / {profile.start_seconds:.1f}   "
        f"clips {told.num_clips} / {made.num_clips} = {told.num_clips / made.num_clips:.3f}   "
        f"bytes {told.num_bytes / num_bytes:.4f}   bottleneck {estimate.bottleneck} / {profile.bottleneck}   "
        f"sample: {estimate.sample.num_videos} of {told.num_videos} videos in {estimate.sample.profile.wall_seconds:.1f} s",
        flush=True,
    )
    return one.seconds / made.seconds, one.low_seconds <= made.seconds <= one.high_seconds


def _videos(folder: Path, quick: bool) -> Path:
    whole = folder / "videos"
    whole.mkdir()
    for num_frames in NUM_FRAMES[:1] if quick else NUM_FRAMES:
        (folder / str(num_frames)).mkdir()
        for i, made in enumerate(render(folder / str(num_frames), 1 if quick else 4, num_frames).values()):
            link_many(made, whole / f"{num_frames}-{i}", 3 if quick else NUM_NAMES)
            shutil.rmtree(made)
    return whole
