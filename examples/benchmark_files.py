"""`featx extract` of many files, beside its forward pass alone and decoding alone: a part of examples/benchmark.py."""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

from benchmark_device import forward_rate
from benchmark_inputs import drawn_clips, link_many, render
from benchmark_sections import Sections

import featx
from featx.catalog import Checkpoint
from featx.decode_pool import NUM_SLOTS, Chunk, DecodePool, default_num_workers
from featx.engine import choose_device
from featx.extractor import DEVICE_NUM_SLOTS, LONG_RUN_VIDEOS
from featx.plan import plan_videos

__all__ = ["decode_rate", "measure_files"]

NUM_DISTINCT = 24  # videos that are encoded; the others are further names of these


def _say(note: str) -> None:
    print(f"    {note}", flush=True)


def measure_files(
    card: Checkpoint,
    weights: Path | None,
    folder: Path,
    devices: tuple[str, ...],
    args: argparse.Namespace,
    sections: Sections,
) -> None:
    """Print how long all files take, and how that compares with the slower of the forward pass and decoding alone."""
    started = time.perf_counter()
    num_distinct = min(NUM_DISTINCT, args.num_files)
    sets = render(folder, num_distinct, args.num_frames)
    sets = {name: link_many(path, folder / f"many-{path.name}", args.num_files) for name, path in sets.items()}
    if args.quick and args.device == "cpu":  # a codec is enough
        sets = dict(list(sets.items())[:1])
    print(
        f"\n{args.num_files} files a codec of {args.num_frames} frames, names of {num_distinct} distinct ones, which lie in "
        f"memory once read; made in {time.perf_counter() - started:.0f} s"
    )
    options = {"weights": weights, "batch_size": args.batch_size}
    if args.decode != "auto":
        options["decode"] = args.decode
    first = plan_videos([next(iter(sets.values()))])
    with featx.Extractor(card, device=devices[0], **options) as extractor:
        # from LONG_RUN_VIDEOS on torch.compile is tried
        extractor.prepare(first if args.compile_files else first[: LONG_RUN_VIDEOS - 1], _say)
        engine = extractor.engine
        forward = len(devices) * forward_rate(engine, drawn_clips(card, engine.batch_size), args.seconds)
        # what was chosen is not chosen again
        settled = options | {"batch_size": engine.batch_size, "precision": engine.precision, "engine": engine.name}
    del extractor, engine
    gc.collect()
    for name, videos in sets.items():
        with sections.section(f"files in {name}"):
            frames_per_second = decode_rate([item.path for item in plan_videos([videos])], devices[0], args.decode)
            output, notes = folder / "files.h5", []
            summary = featx.extract_to(videos, output, card, device=args.device, on_note=notes.append, **settled)
            profile = summary.profile
            output.unlink()
            frames_per_clip = summary.num_frames / summary.num_clips
            decode = frames_per_second / frames_per_clip
            rate = summary.num_clips / profile.wall_seconds
            print(
                f"  {name}: {summary.num_videos} videos, {summary.num_clips} clips in {summary.seconds:.1f} s, of which "
                f"{profile.start_seconds:.1f} s to start; {rate:,.1f} clips/s, {rate * frames_per_clip:,.0f} frames/s\n"
                f"    forward alone {forward:,.1f} clips/s, decode alone {frames_per_second:,.0f} frames/s, "
                f"{decode:,.1f} clips/s: "
                f"{rate / min(forward, decode):.0%} of the smaller ({'forward' if forward < decode else 'decode'})"
            )
            if devices[0] != "cpu" and not any("slower means" in note for note in notes):
                notes.append("frames are made ready by Triton's kernel, copied from page-locked memory")
            print("\n".join("    " + line for line in (*notes, *profile.lines())), flush=True)


def decode_rate(paths: list[Path], device: str, decode: str) -> float:
    """Frames a second of all cores, in the form in which an Extractor takes them; over one pass, a second at least."""
    chosen = choose_device(device)
    planar = chosen.type == "cuda"
    gpu = str(chosen.index or 0) if decode == "cuda" else None
    num_slots = DEVICE_NUM_SLOTS if planar else NUM_SLOTS
    with DecodePool(default_num_workers(), gpu=gpu, num_slots=num_slots) as pool:
        list(pool.decode(paths[: 2 * default_num_workers()]))  # the workers start
        num_frames, started = 0, time.perf_counter()
        for event in pool.decode(paths, planar=planar):
            num_frames += len(event.seconds) if isinstance(event, Chunk) else 0
        return num_frames / (time.perf_counter() - started)
