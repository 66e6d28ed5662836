"""`featx extract` of many files, beside its forward pass alone and decoding alone: a part of examples/benchmark.py.

What a process does once — compiling kernels, loading libraries — is done before, on a few of the files, and not measured.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark_device import forward_rate
from benchmark_inputs import drawn_clips, link_many, render
from benchmark_sections import Sections

import featx
from featx import decode_pool, hardware_decode, video
from featx.catalog import Checkpoint
from featx.decode_pool import Chunk, DecodePool
from featx.engine import choose_device
from featx.extractor import DEVICE_NUM_SLOTS, LONG_RUN_VIDEOS
from featx.plan import plan_videos
from featx.run import Summary

__all__ = ["decode_rate", "decoded_by_gpu", "measure_files"]

NUM_DISTINCT = 24  # videos that are encoded; the others are further names of these
DECODE_SECONDS = 1.0  # of decoding alone, at least


@dataclass(frozen=True)
class Setting:
    """What all sets of files have in common; `options` name the engine, precision and batch size that were found before."""

    card: Checkpoint
    devices: tuple[str, ...]
    device: str
    options: dict[str, object]
    forward: float  # clips a second of the forward pass alone, on all devices
    decode: str
    planar: bool  # the form in which the Extractor takes frames


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
    few = render(folder, num_distinct, args.num_frames)
    if args.quick and args.device == "cpu":  # a codec is enough
        few = dict(list(few.items())[:1])
    many = {name: link_many(path, folder / f"many-{path.name}", args.num_files) for name, path in few.items()}
    print(
        f"\n{args.num_files} files a codec of {args.num_frames} frames, names of {num_distinct} distinct ones, which lie in "
        f"memory once read; made in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    options = {"weights": weights, "batch_size": args.batch_size, "decode": args.decode}
    first = plan_videos([next(iter(many.values()))])
    with featx.Extractor(card, device=devices[0], **options) as extractor:
        # from LONG_RUN_VIDEOS on torch.compile is tried
        extractor.prepare(first if args.compile_files else first[: LONG_RUN_VIDEOS - 1], _say)
        engine = extractor.engine
        forward = len(devices) * forward_rate(engine, drawn_clips(card, engine.batch_size), args.seconds)
        # what was chosen is not chosen again
        settled = options | {"batch_size": engine.batch_size, "precision": engine.precision, "engine": engine.name}
        planar = extractor._make_frames().planar
    del extractor, engine
    gc.collect()
    setting = Setting(card, devices, args.device, settled, forward, args.decode, planar)
    for name, videos in many.items():
        with sections.section(f"files in {name}"):
            measure_set(name, few[name], videos, folder, setting)


def _say(note: str) -> None:
    print(f"    {note}", flush=True)


def measure_set(name: str, few: Path, videos: Path, folder: Path, setting: Setting) -> None:
    """Print what becomes of the files of one codec, of which `few` has the distinct ones."""
    paths, gpu = [item.path for item in plan_videos([videos])], _gpu(setting)
    if gpu is not None:
        by_gpu = decoded_by_gpu([item.path for item in plan_videos([few])], gpu)
        if by_gpu is None:
            print(f"  {name} is left out: such pixels are the processor's alone, also with --decode cuda", flush=True)
            return
        by_gpu = f"{by_gpu[0]:,} of {by_gpu[1]:,} frames" + " only" * (by_gpu[0] < by_gpu[1])
        print(
            f"  {name}: the GPU's video decoder gives {by_gpu} of the distinct files; the processor the others",
            flush=True,
        )
    run = {"device": setting.device, **setting.options}
    output, notes = folder / "files.h5", []
    before = featx.extract_to(few, output, setting.card, **run)
    output.unlink(missing_ok=True)
    if _is_left_out(name, before):
        return
    decoding = decode_rate(paths, setting)

    def note(text: str) -> None:
        notes.append(text)
        _say(text)

    own = time.process_time()
    summary = featx.extract_to(videos, output, setting.card, on_note=note, **run)
    own = time.process_time() - own
    output.unlink(missing_ok=True)
    if _is_left_out(name, summary):
        return
    profile = summary.profile
    frames_per_clip = summary.num_frames / summary.num_clips
    forward, decode = setting.forward, decoding.frames_per_second / frames_per_clip
    rate = summary.num_clips / profile.wall_seconds
    smaller = f"{rate / min(forward, decode):.0%} of the smaller ({'forward' if forward < decode else 'decode'})"
    print(
        f"  {name}: {summary.num_videos} videos, {summary.num_clips} clips in {summary.seconds:.1f} s, of which "
        f"{profile.start_seconds:.1f} s to start; {rate:,.1f} clips/s, {rate * frames_per_clip:,.0f} frames/s\n"
        f"    forward alone {forward:,.1f} clips/s, decode alone {decoding.frames_per_second:,.0f} frames/s, "
        f"{decode:,.1f} clips/s: {smaller}"
    )
    if setting.devices[0] != "cpu" and not any("slower means" in note for note in notes):
        _say("frames are made ready by Triton's kernel, copied from page-locked memory")
    for line in profile.lines():
        _say(line)
    _say(
        f"this process took {1e3 * own / summary.num_clips:.3f} ms of processor time a clip, all its threads together; "
        f"decoding alone took the decode workers {1e6 * decoding.seconds_per_frame:.0f} µs a frame"
    )
    num_devices = len(setting.devices)
    num_workers = num_devices * max(1, decode_pool.default_num_workers() // num_devices)
    for what, num_started, expected in (
        ("decoding alone", decoding.num_started, decode_pool.default_num_workers()),
        ("the run", profile.num_decoders, num_workers),
    ):
        if num_started > expected:
            _say(f"{what} started {num_started} decode workers for {expected}: some crashed, or held too much memory")


def _is_left_out(name: str, summary: Summary) -> bool:
    """Whether there is nothing to measure; says so."""
    if summary.num_clips == 0:
        reason = summary.failures[0].reason if summary.failures else "they are too short"
        print(f"  {name} is left out: no clips came of {summary.num_planned} videos: {reason}", flush=True)
    return summary.num_clips == 0


def _gpu(setting: Setting) -> str | None:
    """The number of the GPU that is to decode; None for the processor."""
    return str(choose_device(setting.devices[0]).index or 0) if setting.decode == "cuda" else None


# ---------------------------------------------------------------------------------------------------------------- decoding


@dataclass(frozen=True)
class Decoding:
    """Frames a second of all cores, the workers' processor time for one, and how many workers were started."""

    frames_per_second: float
    seconds_per_frame: float
    num_started: int


def decode_rate(
    paths: Sequence[Path],
    setting: Setting,
    seconds: float = DECODE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Decoding:
    """Decoding alone by all cores, in the form in which an Extractor takes frames; whole passes, over `seconds` at least."""
    on_gpu = choose_device(setting.devices[0]).type == "cuda"
    num_slots = DEVICE_NUM_SLOTS if on_gpu else decode_pool.NUM_SLOTS
    num_workers, fps = decode_pool.default_num_workers(), setting.card.sampling.fps
    with DecodePool(num_workers, gpu=_gpu(setting), num_slots=num_slots) as pool:

        def num_frames(paths: Sequence[Path]) -> int:
            events = pool.decode(paths, fps, planar=setting.planar)
            return sum(len(event.seconds) for event in events if isinstance(event, Chunk))

        if not num_frames(paths[: 2 * num_workers]):  # the workers start
            raise RuntimeError(f"nothing could be decoded of {len(paths)} files such as {paths[0].name}")
        done, before, started = 0, pool.spent(), clock()
        while True:
            done += num_frames(paths)
            elapsed = clock() - started
            if elapsed >= seconds:
                spent = (pool.spent() - before).processor_seconds
                return Decoding(done / elapsed, spent / done, pool.num_started)


def decoded_by_gpu(paths: Sequence[str | os.PathLike], gpu: str) -> tuple[int, int] | None:
    """How many of the videos' frames the GPU of that number decodes, and how many there are; None where it takes no video.

    FFmpeg lets the processor decode where the GPU's decoder fails, and says nothing: only the frames tell.
    """
    hardware_decode.use_hardware(gpu)
    try:
        kinds = [kind for path in paths for kind in _kinds(path)]
    finally:
        hardware_decode.use_hardware(None)
    return (kinds.count("nv12"), len(kinds)) if kinds else None


def _kinds(path: str | os.PathLike) -> list[str]:
    """The format of each frame, "nv12" of the GPU's, as the decode workers get them; none where the processor is asked."""
    with video._open(path) as container:
        if hardware_decode.accelerator_for(video._video_stream(container).codec_context) is None:
            return []
    with video._open_to_decode(path, False) as container:
        return [frame.format.name for frame in container.decode(video=0)]
