"""How near featx comes to what a device and its machine can do: a part of examples/benchmark.py, for `--device cuda`.

    ceilings     the rate of matrix products, of copies on the device, to it and back
    precisions   the forward pass of every backbone, in each precision, as a part of the rate of bf16 matrix products
    files        `featx extract` of many files, beside its forward pass alone and decoding alone
    workers      several processes with a network that only waits, and what handing out videos costs (benchmark_workers.py)
    folders      many feature files read as one beside one file (benchmark_folders.py)

Without PyAV the files are left out. On the CPU the same is measured, with float32 products.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmark_inputs import drawn_clips, link_many, made_up_weights, render
from torch import Tensor

import featx
from featx import checkpoints
from featx.backbones.counting import count
from featx.catalog import Checkpoint, get_checkpoint
from featx.devices import worker_devices
from featx.engine import Engine, choose_device
from featx.engine.precision import PRECISIONS, unavailable_precision
from featx.errors import FeatxError
from featx.plan import plan_videos

__all__ = ["DEVICE_PARTS", "measure_device"]

DEVICE_PARTS = ("ceilings", "precisions", "files", "workers", "folders")
NUM_DISTINCT = 24  # videos that are encoded; the others are further names of these
WARM_UP = 3  # batches that are not timed


def measure_device(args: argparse.Namespace) -> None:
    """Run the parts that `args.only` names, and print what they find."""
    devices = worker_devices(args.device)
    device = choose_device(devices[0])
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    print(f"\n{len(devices)} x {named}, the first measured alone" if len(devices) > 1 else f"\n{named}")
    if device.type == "cuda":
        print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    ceilings = Ceilings.measured(device, args.seconds)
    if "ceilings" in args.only:
        print(ceilings)
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(args.backbone):
            card = get_checkpoint(name)
            clips = drawn_clips(card, 2)
            wanted = {"precisions", "files"} if place == 0 else {"precisions"}
            if not wanted & set(args.only):
                continue
            weights = None if card.embedded else made_up_weights(card, clips, Path(folder))
            if "precisions" in args.only:
                compare_precisions(card, weights, device, ceilings, args)
            if "files" in args.only and place == 0:  # a network is enough: the others differ in the forward pass only
                measure_files(card, weights, Path(folder), devices, args)
            if weights is not None:
                weights.unlink()
    if "workers" in args.only:
        from benchmark_workers import measure_workers

        measure_workers(quick=args.quick)
    if "folders" in args.only:
        from benchmark_folders import measure_folders

        measure_folders(quick=args.quick)


# ---------------------------------------------------------------------------------------------------------------- ceilings


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at most, each a median: `tflops` of matrix products in `dtype`, copies in GB/s.

    Of a copy on the device, what is read and what is written count.
    """

    dtype: str
    tflops: float
    gb_on_device: float
    gb_to_device: float
    gb_from_device: float

    def __str__(self) -> str:
        return (
            f"ceilings: {self.dtype} matrix products {self.tflops:,.2f} TFLOP/s; copies on the device "
            f"{self.gb_on_device:,.1f} GB/s read and written, to it {self.gb_to_device:.1f} GB/s, "
            f"back {self.gb_from_device:.1f} GB/s"
        )

    @classmethod
    def measured(cls, device: torch.device, seconds: float) -> Ceilings:
        on_gpu = device.type == "cuda"
        dtype, size = (torch.bfloat16, 8192) if on_gpu else (torch.float32, 1024)
        a, b = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
        products = _rate(lambda: torch.mm(a, b), device, seconds)
        there = torch.empty(2**28 if on_gpu else 2**24, dtype=torch.uint8, device=device)
        here = torch.empty(there.shape, dtype=torch.uint8, pin_memory=on_gpu)
        num_gb = len(there) / 1e9
        beside = torch.empty_like(there)
        copies = (
            2 * _rate(lambda: there.copy_(beside), device, seconds),
            _rate(lambda: there.copy_(here, non_blocking=True), device, seconds),
            _rate(lambda: here.copy_(there, non_blocking=True), device, seconds),
        )
        name = str(dtype).removeprefix("torch.").replace("bfloat16", "bf16").replace("float32", "fp32")
        return cls(name, products * 2e-12 * size**3, *(num_gb * rate for rate in copies))


def _rate(call: Callable[[], object], device: torch.device, seconds: float, at_once: int = 8) -> float:
    """Calls a second: the median of rounds of `at_once` calls, over at least `seconds`."""
    found, began = [], time.perf_counter()
    while len(found) < 3 + WARM_UP or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        for _ in range(at_once):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(at_once / (time.perf_counter() - started))
    return statistics.median(found[WARM_UP:])


# ------------------------------------------------------------------------------------------------------------ forward pass


def compare_precisions(
    card: Checkpoint, weights: Path | None, device: torch.device, ceilings: Ceilings, args: argparse.Namespace
) -> None:
    """Print a row for each precision that the engine has on this device, whose fastest plan it takes."""
    backbone = checkpoints.load(card, weights).backbone
    layer = card.default_layer
    channels, _, height, width = card.clip_shape
    gflop = 2e-9 * count(backbone, (channels, card.sampling.length, height, width), [layer]).multiply_adds
    print(f"\n{card.name} {layer}, {gflop:.1f} GFLOP a clip")
    known = [name for name in PRECISIONS if name != "auto" and not unavailable_precision(name, device.type)]
    for precision in args.precision or known:
        started = time.perf_counter()
        try:
            engine = Engine(
                backbone, card.preprocess, [layer], length=card.sampling.length, device=device,
                batch_size=args.batch_size, precision=precision,
            )  # fmt: skip
            engine.on_note = _say
            clips = drawn_clips(card, engine.batch_size)
            engine.settle(list(clips), long_run=args.compile)
            took = time.perf_counter() - started
            rate = forward_rate(engine, clips, args.seconds)
        except (FeatxError, RuntimeError) as error:
            print(f"  {precision:<6} is left out: {str(error).splitlines()[0]}", flush=True)
            continue
        part = rate * gflop / (1000 * ceilings.tflops)
        print(
            f"  {engine.precision:<6} {engine.description:<22} batch {engine.batch_size:<4} {rate:10,.2f} clips/s   "
            f"{rate * gflop / 1000:8.2f} TFLOP/s   {part:6.1%} of the {ceilings.dtype} matrix rate   (found in {took:.0f} s)",
            flush=True,
        )
        del engine
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _say(note: str) -> None:
    print(f"    {note}", flush=True)


def forward_rate(engine: Engine, clips: Tensor, seconds: float) -> float:
    """Clips a second through the engine, batch after batch; clips lie on its device, as preprocessing leaves them there."""
    batch = list(clips.to(engine.device))
    under_way: deque = deque()

    def batches(least: int, seconds: float) -> float:
        number, started = 0, time.perf_counter()
        while number < least or time.perf_counter() - started < seconds:
            under_way.append(engine.submit(batch))
            number += 1
            while len(under_way) > engine.max_in_flight:
                under_way.popleft().result()
        while under_way:
            under_way.popleft().result()
        return number / (time.perf_counter() - started)

    batches(WARM_UP, 0.0)
    return len(batch) * statistics.median(batches(1, seconds) for _ in range(3))


# -------------------------------------------------------------------------------------------------------------- end to end


def measure_files(
    card: Checkpoint, weights: Path | None, folder: Path, devices: tuple[str, ...], args: argparse.Namespace
) -> None:
    """Print how long all files take, and how that compares with the slower of the forward pass and decoding alone."""
    if importlib.util.find_spec("av") is None:
        print("  the files are left out: PyAV is not installed; 'pip install av' does it")
        return
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
        extractor.prepare(first, _say)
        engine = extractor.engine
        forward = len(devices) * forward_rate(engine, drawn_clips(card, engine.batch_size), args.seconds)
        # what was chosen is not chosen again
        settled = options | {"batch_size": engine.batch_size, "precision": engine.precision, "engine": engine.name}
    del extractor, engine
    gc.collect()
    for name, videos in sets.items():
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
            f"    forward alone {forward:,.1f} clips/s, decode alone {frames_per_second:,.0f} frames/s, {decode:,.1f} clips/s: "
            f"{rate / min(forward, decode):.0%} of the smaller ({'forward' if forward < decode else 'decode'})"
        )
        if devices[0] != "cpu" and not any("slower means" in note for note in notes):
            notes.append("frames are made ready by Triton's kernel, copied from page-locked memory")
        print("\n".join("    " + line for line in (*notes, *profile.lines())), flush=True)


def decode_rate(paths: list[Path], device: str, decode: str) -> float:
    """Frames a second of all cores, in the form in which an Extractor takes them; over one pass, a second at least."""
    from featx.decode_pool import NUM_SLOTS, Chunk, DecodePool, default_num_workers  # which imports PyAV
    from featx.extractor import DEVICE_NUM_SLOTS

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
