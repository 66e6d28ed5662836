"""How near featx comes to what a device and its machine can do: a part of examples/benchmark.py, for `--device cuda`.

    ceilings     the rate of matrix products, of copies on the device, to it and back
    precisions   the forward pass of every backbone, in each precision, as a part of the rate of bf16 matrix products
    files        `featx extract` of many files, beside its forward pass alone and decoding alone (benchmark_files.py)
    workers      several processes with a network that only waits, and what handing out videos costs (benchmark_workers.py)
    folders      many feature files read as one beside one file (benchmark_folders.py)

Without PyAV the files are left out. On the CPU the same is measured, with float32 products. Each row of the precisions also
tells what part of the copies' rate the network moves at least, and below 30 % of the matrix rate the reason
(benchmark_traffic.py).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import math
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from benchmark_inputs import drawn_clips, made_up_weights
from benchmark_sections import Sections
from benchmark_traffic import LOW, Traffic, gain_of_graph, least_traffic, reason_below
from torch import Tensor

from featx import checkpoints
from featx.backbones.base import Backbone
from featx.backbones.counting import count
from featx.catalog import Checkpoint, get_checkpoint
from featx.devices import worker_devices
from featx.engine import Engine, choose_device
from featx.engine.precision import DTYPES, PRECISIONS, arithmetic, unavailable_precision
from featx.errors import FeatxError

__all__ = ["DEVICE_PARTS", "Ceilings", "forward_rate", "measure_device"]

DEVICE_PARTS = ("ceilings", "precisions", "files", "workers", "folders")
WARM_UP = 3  # batches that are not timed


def measure_device(args: argparse.Namespace, sections: Sections) -> None:
    """Run the parts that `args.only` names, and print what they find."""
    devices = worker_devices(args.device)
    device = choose_device(devices[0])
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    print(f"\n{len(devices)} x {named}, the first measured alone" if len(devices) > 1 else f"\n{named}")
    if device.type == "cuda":
        print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    ceilings = None
    if {"ceilings", "precisions"} & set(args.only):
        with sections.section("ceilings"):
            ceilings = Ceilings.measured(device, args.seconds)
            print(ceilings)
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(args.backbone):
            wanted = {"precisions", "files"} if place == 0 else {"precisions"}
            if not wanted & set(args.only):
                continue
            with sections.section(name):
                _measure_network(get_checkpoint(name), place == 0, Path(folder), devices, ceilings, args, sections)
    if "workers" in args.only:
        with sections.section("workers"):
            from benchmark_workers import measure_workers

            measure_workers(quick=args.quick)
    if "folders" in args.only:
        with sections.section("folders"):
            from benchmark_folders import measure_folders

            measure_folders(quick=args.quick)


def _measure_network(
    card: Checkpoint,
    is_first: bool,
    folder: Path,
    devices: tuple[str, ...],
    ceilings: Ceilings | None,
    args: argparse.Namespace,
    sections: Sections,
) -> None:
    weights = None if card.embedded else made_up_weights(card, drawn_clips(card, 2), folder)
    if "precisions" in args.only:
        with sections.section(f"precisions of {card.name}"):
            compare_precisions(card, weights, choose_device(devices[0]), ceilings, args, sections)
    if "files" in args.only and is_first:  # a network is enough: the others differ in the forward pass only
        if importlib.util.find_spec("av") is None:
            print("  the files are left out: PyAV is not installed; 'pip install av' does it")
        else:
            with sections.section("files"):
                from benchmark_files import measure_files

                measure_files(card, weights, folder, devices, args, sections)
    if weights is not None:
        weights.unlink()


# ---------------------------------------------------------------------------------------------------------------- ceilings


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at most, each a median: `tflops` of matrix products in `dtype`, copies in GB/s.

    Of a copy on the device, what is read and what is written count. `tflops_in` has the rates of other precisions.
    """

    dtype: str
    tflops: float
    gb_on_device: float
    gb_to_device: float
    gb_from_device: float
    tflops_in: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        others = ", ".join(f"{name} {rate:,.2f}" for name, rate in self.tflops_in.items())
        return (
            f"ceilings: {self.dtype} matrix products {self.tflops:,.2f} TFLOP/s{others and f' ({others})'}; "
            f"copies on the device {self.gb_on_device:,.1f} GB/s read and written, to it {self.gb_to_device:.1f} GB/s, "
            f"back {self.gb_from_device:.1f} GB/s"
        )

    @classmethod
    def measured(cls, device: torch.device, seconds: float) -> Ceilings:
        on_gpu = device.type == "cuda"
        dtype, size = (torch.bfloat16, 8192) if on_gpu else (torch.float32, 1024)
        a, b = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
        name = str(dtype).removeprefix("torch.").replace("bfloat16", "bf16").replace("float32", "fp32")
        rates = {name: 2e-12 * size**3 * _rate(lambda: torch.mm(a, b), device, seconds)}
        for other in ("fp32", "tf32", "fp16") if on_gpu else ():
            c, d = (x.to(DTYPES[other]) for x in (a, b))
            with arithmetic(other):
                rates[other] = 2e-12 * size**3 * _rate(lambda c=c, d=d: torch.mm(c, d), device, seconds, at_once=2)
        there = torch.empty(2**28 if on_gpu else 2**24, dtype=torch.uint8, device=device)
        here = torch.empty(there.shape, dtype=torch.uint8, pin_memory=on_gpu)
        num_gb = len(there) / 1e9
        beside = torch.empty_like(there)
        copies = (
            2 * _rate(lambda: there.copy_(beside), device, seconds),
            _rate(lambda: there.copy_(here, non_blocking=True), device, seconds),
            _rate(lambda: here.copy_(there, non_blocking=True), device, seconds),
        )
        return cls(name, rates.pop(name), *(num_gb * rate for rate in copies), rates)


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
    card: Checkpoint,
    weights: Path | None,
    device: torch.device,
    ceilings: Ceilings | None,
    args: argparse.Namespace,
    sections: Sections,
) -> None:
    """Print a row for each precision that the engine has on this device, whose fastest plan it takes."""
    backbone = checkpoints.load(card, weights).backbone
    layer = card.default_layer
    channels, _, height, width = card.clip_shape
    shape = (channels, card.sampling.length, height, width)
    gflop = 2e-9 * count(backbone, shape, [layer]).multiply_adds
    try:
        traffic = least_traffic(backbone, shape, [layer])
        moved = f"{1e-6 * traffic.activations:,.1f} M numbers moved a clip at least, {1e-6 * traffic.weights:,.1f} M weights"
    except NotImplementedError as error:
        traffic, moved = None, f"what it moves is not counted: {error}"
    print(f"\n{card.name} {layer}, {gflop:.1f} GFLOP a clip, {moved}", flush=True)
    known = [name for name in PRECISIONS if name != "auto" and not unavailable_precision(name, device.type)]
    for precision in args.precision or known:
        with sections.section(f"{card.name} in {precision}"):
            try:
                _measure_precision(card, backbone, precision, device, gflop, traffic, ceilings, args)
            except FeatxError as error:
                print(f"  {precision:<6} is left out: {error}", flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure_precision(
    card: Checkpoint,
    backbone: Backbone,
    precision: str,
    device: torch.device,
    gflop: float,
    traffic: Traffic | None,
    ceilings: Ceilings | None,
    args: argparse.Namespace,
) -> None:
    started, notes = time.perf_counter(), []
    engine = Engine(
        backbone, card.preprocess, [card.default_layer], length=card.sampling.length, device=device,
        batch_size=args.batch_size, precision=precision,
    )  # fmt: skip

    def note(text: str) -> None:
        notes.append(text)
        _say(text)

    engine.on_note = note
    clips = drawn_clips(card, engine.batch_size)
    engine.settle(list(clips), long_run=args.compile_networks)
    took = time.perf_counter() - started
    rate = forward_rate(engine, clips, args.seconds)
    row = f"  {engine.precision:<6} {engine.description:<22} batch {engine.batch_size:<4} {rate:10,.2f} clips/s   "
    told = shares(rate, engine.batch_size, engine.precision, gflop, traffic, ceilings, engine.name, notes)
    print(
        f"{row}{rate * gflop / 1000:8.2f} TFLOP/s   {told[0]}   (found in {took:.0f} s)",
        *told[1:],
        sep="\n",
        flush=True,
    )


def shares(
    rate: float,
    batch_size: int,
    precision: str,
    gflop: float,
    traffic: Traffic | None,
    ceilings: Ceilings | None,
    plan: str,
    notes: Sequence[str],
) -> list[str]:
    """What part of the ceilings so many clips a second are, and in a line of its own the reason where that is little.

    `plan`: what runs, of the engine's; `notes`: what the engine said of what it tried.
    """
    if ceilings is None:
        return ["of unknown ceilings"]
    tflops = rate * gflop / 1000
    part = tflops / ceilings.tflops
    line, moved, layer_seconds = f"{part:6.1%} of the {ceilings.dtype} matrix rate", None, math.inf
    if traffic is not None:
        num_bytes = traffic.bytes_per_clip(batch_size, DTYPES[precision].itemsize)
        moved = rate * num_bytes / 1e9 / ceilings.gb_on_device
        line += f", at least {moved:.1%} of the copy rate"
        layer_seconds = batch_size / rate / traffic.num_layers
    if part >= LOW:
        return [line]
    own = (precision, tflops / ceilings.tflops_in[precision]) if precision in ceilings.tflops_in else None
    reason = reason_below(
        own=own,
        traffic=moved,
        graph_gain=gain_of_graph(notes, plan),
        is_graph="-graph" in plan,
        layer_seconds=layer_seconds,
    )
    return [line, f"    below {LOW:.0%} of the {ceilings.dtype} matrix rate: {reason}"]


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
