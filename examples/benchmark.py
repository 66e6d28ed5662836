"""How fast is featx here? Decoding, the forward pass beside other programs', and `featx extract` end to end, in one run.

    python examples/benchmark.py                                   a net of each family; takes about half an hour
    python examples/benchmark.py --backbone c3d-sports1m --plan "torch.jit freeze" --plan "featx winograd"
    python examples/benchmark.py --only end-to-end --videos ucf101/Archery
    python examples/benchmark.py --device cuda                     against what a GPU and its machine can do; --quick: minutes
    python examples/benchmark.py --only workers                    several processes, and what handing out videos costs
    python examples/benchmark.py --only folders                    a thousand feature files read as one, beside one file
    python examples/benchmark.py --only estimate                   what a dry run's estimate says, beside what a run takes

Plans take turns, round by round, and figures are medians over the rounds: machines are noisy, so compare rows of one run only.
"equivalent GFLOP/s" are those of the network as it is written, twice its multiply-adds, whatever a plan really computes;
"error" is the largest difference from float64, over the largest number, and beside it stands one less the cosine. OpenVINO and
torch.compile (g++) are left out where they are missing. Backbones without an embedded file run with made-up weights. Threads
wait as they do in `featx`, asleep; OMP_WAIT_POLICY=active lets them spin, which only an idle machine can afford.
A section that fails costs none of the others: the exit code is then 1, and 2 for a request that cannot be.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from benchmark_device import DEVICE_PARTS, measure_device
from benchmark_inputs import first_clips, made_up_weights, render
from benchmark_plans import OTHERS, PLANS, TORCH_PLANS, Absent
from benchmark_sections import Sections
from torch import Tensor

import featx
from featx import checkpoints
from featx.backbones.base import Backbone
from featx.backbones.counting import count
from featx.catalog import Checkpoint, get_checkpoint
from featx.devices import worker_devices
from featx.engine import native
from featx.errors import FeatxError, one_line
from featx.parts import Parts
from featx.plan import VideoItem, plan_videos
from featx.profile import Profile, Stopwatch

BACKBONES = (
    *("c3d-sports1m", "res3d-sports1m", "resnet34-kinetics", "resnet18-kinetics", "p3d199-kinetics"),
    *("resnext101-kinetics", "res3d-mini"),
)
ON_GPU = (
    *("c3d-sports1m", "res3d-sports1m", "resnet18-kinetics", "resnet34-kinetics", "resnet50-kinetics"),
    *("resnext101-kinetics", "p3d199-kinetics"),
)
PARTS = ("decode", "forward", "end-to-end")
ESTIMATE = "estimate"
CLOSE = "featx winograd"  # whose rate is compared
END_TO_END = 20  # times --seconds: how long an end-to-end run is at least, about


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = _arguments(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a benchmark that is killed has told what it had found
    try:
        worker_devices(args.device)
        for name in args.backbone:
            get_checkpoint(name)
    except FeatxError as error:
        print(f"benchmark.py: {one_line(str(error))}", file=sys.stderr)
        return 2
    if args.threads:
        torch.set_num_threads(args.threads)
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    sections = Sections()
    if set(args.only) & set(DEVICE_PARTS):
        with sections.section("device"):
            measure_device(args, sections)
    if ESTIMATE in args.only:
        with sections.section(ESTIMATE):
            from benchmark_estimate import measure_estimates  # needs PyAV, which other parts do not

            measure_estimates(args)
    if set(args.only) & set(PARTS):
        peak = say_peak()
        with sections.section("videos"), tempfile.TemporaryDirectory() as folder:
            _measure_processor(args, Path(folder), peak, sections)
        say_peak()
    return sections.exit_code()


def _measure_processor(args: argparse.Namespace, folder: Path, peak: float | None, sections: Sections) -> None:
    """Run the parts of the CPU that `args.only` names."""
    sets = {"given": args.videos} if args.videos else render(folder, args.num_videos, args.num_frames)
    if "decode" in args.only:
        with sections.section("decode"):
            compare_decoders(sets, args.seconds)
    if not {"forward", "end-to-end"} & set(args.only):
        return
    videos = next(iter(sets.values()))
    first = plan_videos([videos])[0].path
    for name in args.backbone:
        with sections.section(name):
            card = get_checkpoint(name)
            clips = first_clips(card, first, args.batch_size)
            weights = None if card.embedded else made_up_weights(card, clips, folder)
            print(f"\n{name} {card.default_layer}, batch {args.batch_size}", flush=True)
            if "forward" in args.only:
                with sections.section(f"forward of {name}"):
                    backbone = checkpoints.load(card, weights).backbone
                    compare_plans(
                        card, backbone, card.preprocess.normalise(clips), args.plan, args.rounds, args.seconds, peak
                    )
                    del backbone
            if "end-to-end" in args.only:
                with sections.section(f"end-to-end of {name}"):
                    compare_ends(card, weights, clips, videos, folder, args)
            if weights is not None:
                weights.unlink()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", help="a card's name; repeatable (default: one a family)")
    parser.add_argument(
        "--only", action="append", choices=(*PARTS, *DEVICE_PARTS, ESTIMATE), help="a part of the benchmark; repeatable"
    )
    parser.add_argument("--plan", action="append", choices=list(PLANS), help="of the forward pass; repeatable")
    parser.add_argument("--videos", type=Path, help="a folder of videos (default: rendered ones)")
    parser.add_argument("--num-videos", type=int, default=4, help="rendered videos a codec")
    parser.add_argument("--num-frames", type=int, default=180, help="of a rendered video")
    parser.add_argument("--batch-size", type=int, help="default: 4, on a GPU what is best for it")
    parser.add_argument("--threads", type=int, help="of the forward pass (default: PyTorch's, a core each)")
    parser.add_argument("--engine", default="auto", help="of the end-to-end part: winograd, onednn or torch")
    parser.add_argument("--device", default="cpu", help="cuda, cuda:0,cuda:1 …: how near featx comes to what it can do")
    parser.add_argument(
        "--precision", action="append", help="of the forward pass on a device; repeatable (default: all)"
    )
    parser.add_argument(
        "--num-files",
        type=int,
        help="files to extract end to end on a device, a codec  [default: 2000; 4 with --quick on the CPU]",
    )
    parser.add_argument("--decode", choices=("cpu", "cuda"), default="cpu", help="who decodes the files of a device")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="let the engine of a device try torch.compile, which takes a minute or more each time (unasked: for the "
        "precisions of every network, unless --quick, and not for the files)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="least time for one plan in one round")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="on the CPU one short round of the embedded net, to see that it works; on a GPU all figures, of the precision "
        "that is taken unasked",
    )
    args = parser.parse_args(argv)
    on_gpu = args.device.startswith("cuda")
    if args.quick and on_gpu:
        args.precision, args.seconds = args.precision or ["auto"], min(args.seconds, 0.5)
    elif args.quick:
        args.backbone = args.backbone or ["res3d-mini"]
        args.plan = args.plan or [
            name for name in PLANS if name != "torch.compile, freezing"
        ]  # compiling takes a while
        args.rounds, args.seconds, args.num_videos, args.num_frames, args.batch_size = 1, 0.0, 1, 32, 2
        args.num_files = 4 if args.num_files is None else args.num_files
    args.num_files = 2000 if args.num_files is None else args.num_files
    args.compile_networks = not args.quick if args.compile is None else args.compile
    args.compile_files = bool(args.compile)
    if args.device != "cpu" and not args.only:
        args.only = list(DEVICE_PARTS[:3])
    if args.batch_size is None and args.device == "cpu":
        args.batch_size = 4
    embedded_only = ("res3d-mini",) if args.only == [ESTIMATE] else None
    args.backbone = args.backbone or embedded_only or (ON_GPU if on_gpu else BACKBONES)
    args.only, args.plan = args.only or PARTS, args.plan or list(PLANS)
    return args


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def say_peak() -> float | None:
    """Measure and print how fast the processor multiplies and adds; None without the native kernels."""
    if native.kernels() is None:
        print(f"multiply-adds were not measured: {native.why_not()}")
        return None
    peak = native.multiply_add_gflops(torch.get_num_threads())
    print(f"multiply-adds in registers, the processor's peak: {peak:.0f} GFLOP/s")
    return peak


# ---------------------------------------------------------------------------------------------------------------- decoding


def compare_decoders(sets: dict[str, Path], seconds: float) -> None:
    from featx.decode_pool import Chunk, DecodePool, default_num_workers
    from featx.video import read_frames

    print("\ndecode to BGR, frames/s               one process   all cores")
    for name, videos in sets.items():
        paths = [item.path for item in plan_videos([videos])]
        alone = rates(lambda paths=paths: sum(1 for path in paths for _ in read_frames(path)), 5 * seconds)
        with DecodePool(default_num_workers()) as pool:

            def all_cores(paths=paths, pool=pool) -> int:
                return sum(len(event.frames) for event in pool.decode(paths) if isinstance(event, Chunk))

            together = rates(all_cores, 5 * seconds)
        print(f"  {name:<34} {alone:12,.0f} {together:11,.0f}")


def rates(count_once: Callable[[], int], seconds: float) -> float:
    """The median of count / time over as many runs as fit into `seconds`, three at least."""
    found, started = [], time.perf_counter()
    while len(found) < 3 or time.perf_counter() - started < seconds:
        found.append(one_rate(count_once, 0.0))
    return statistics.median(found)


def one_rate(count_once: Callable[[], int], seconds: float) -> float:
    """Count / time over at least `seconds`, and once at least."""
    done, started = 0, time.perf_counter()
    while True:
        done += count_once()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return done / elapsed


# ------------------------------------------------------------------------------------------------------------ forward pass


def compare_plans(
    card: Checkpoint,
    backbone: Backbone,
    clips: Tensor,
    names: Sequence[str],
    rounds: int,
    seconds: float,
    peak: float | None,
) -> None:
    """Print a row for each plan: its rate, and how right it is. `clips` is float32 (N, C, T, H, W)."""
    layer = card.default_layer
    gflop = 2e-9 * count(backbone, clips.shape[1:], [layer]).multiply_adds
    exact = exact_layer(backbone, clips[:1], layer)
    runs, errors = {}, {}
    with torch.no_grad():  # what torch.compile wants to see, to take weights as constants
        for name in names:
            try:
                run = PLANS[name](backbone, clips, layer)
                for _ in range(3):  # compilers take a few calls
                    errors[name] = difference(run(clips)[:1], exact)
                runs[name] = run
            except Absent as reason:
                print(f"  {name} is left out: {reason}")
        found: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                found[name].append(one_rate(lambda run=run: len(run(clips)), seconds))
    runs.clear()
    gc.collect()
    speed = {name: statistics.median(each) for name, each in found.items()}
    best_of_torch = max((speed[name] for name in TORCH_PLANS if name in speed), default=None)
    print(
        f"  {gflop:.1f} GFLOP a clip         clips/s   (from    to)  of torch's best  equivalent GFLOP/s    error     1-cos"
    )
    for name, rate in speed.items():
        ratio = f"{rate / best_of_torch:15.2f}x" if best_of_torch else 16 * " "
        low, high = min(found[name]), max(found[name])
        print(
            f"  {name:<27} {rate:8.2f}  ({low:6.2f}{high:7.2f})  {ratio}  {rate * gflop:17.0f}  {errors[name][0]:8.1e}  "
            f"{errors[name][1]:8.1e}"
        )
    if CLOSE in speed:
        beside = {"torch's best": best_of_torch, **{name: speed.get(name) for name in OTHERS}}
        ratios = [f"{speed[CLOSE] / rate:.2f} times {name}" for name, rate in beside.items() if rate]
        of_peak = f"; {speed[CLOSE] * gflop / peak:.2f} times what the processor can multiply" if peak else ""
        print(f"  {CLOSE} is {', '.join(ratios)}{of_peak}" if ratios else "", flush=True)


def exact_layer(backbone: Backbone, clips: Tensor, layer: str) -> Tensor:
    """The layer in float64, flat. The weights are made double and back in place, which loses nothing."""
    with torch.inference_mode():
        try:
            return backbone.double()(clips.double().contiguous(), [layer])[layer].flatten()
        finally:
            backbone.float()


def difference(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """(largest difference / largest number, 1 - cosine) of two layers."""
    found = found.flatten().double()
    cosine = (found @ exact) / (found.norm() * exact.norm())
    return float((found - exact).abs().max() / exact.abs().max()), float(1 - cosine)


# -------------------------------------------------------------------------------------------------------------- end to end


def compare_ends(
    card: Checkpoint, weights: Path | None, clips: Tensor, videos: Path, folder: Path, args: argparse.Namespace
) -> None:
    """Print the rate of `featx extract`, from files to a feature file, beside that of its forward pass alone."""
    items = plan_videos([videos])
    settings = {"weights": weights, "device": "cpu", "batch_size": args.batch_size, "engine": args.engine}
    with featx.Extractor(card, **settings) as extractor:
        batch = list(clips)

        def forward() -> float:
            return one_rate(lambda: len(next(iter(extractor.engine.run(batch).values()))), args.seconds)

        forward()
        once = extract_to_file(extractor, items, folder)
        repeats = max(1, round(END_TO_END * args.seconds / once.wall_seconds))
        # the same videos under several keys: a longer run, whose beginning and end count for less
        items = [replace(item, key=f"{i}/{item.key}") for i in range(repeats) for item in items]
        passes = []
        for _ in range(args.rounds):
            before = forward()
            profile = extract_to_file(extractor, items, folder)
            alone = (before + forward()) / 2
            passes.append((profile.num_clips / profile.wall_seconds / alone, alone, profile))
        share, alone, profile = sorted(passes, key=lambda one: one[0])[len(passes) // 2]
        wall = profile.wall_seconds
        print(
            f"  end to end ({extractor.engine.description}): {profile.num_clips / wall:.2f} clips/s, "
            f"{profile.num_frames / wall:.0f} frames/s; the forward pass alone {alone:.2f} clips/s; {share:.0%} of it"
        )
        stages = ("decode", "resize", "wait", "forward", "write", "other")
        went = ", ".join(f"{stage} {getattr(profile, f'{stage}_seconds') / wall:.1%}" for stage in stages)
        print(f"    where the time went: {went} (decode and resize beside the others)", flush=True)


def extract_to_file(extractor: featx.Extractor, items: Sequence[VideoItem], folder: Path) -> Profile:
    """What `featx.extract_to` does once the network is loaded; returns where its time went."""
    extractor.stopwatch = watch = Stopwatch()
    output, frames, clips, started = folder / "benchmark.h5", 0, 0, time.perf_counter()
    with Parts(output) as parts:
        for result in extractor.extract_many(items):
            frames, clips = frames + result.num_frames, clips + result.num_clips
            with watch.time("write"):
                parts.add(result, extractor.provenance)
        with watch.time("write"):
            parts.flush(extractor.provenance)
            parts.finish()
    wall = time.perf_counter() - started
    output.unlink()
    return Profile.of(watch, 0.0, wall, num_decoders=extractor.num_decoders, num_frames=frames, num_clips=clips)


def sleep_while_waiting() -> None:
    """Start Python anew with threads that wait as the command `featx` has them: that is read when a program starts."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # with Python's own options, such as -u


if __name__ == "__main__":
    sleep_while_waiting()
    if exit_code := main():
        sys.exit(exit_code)
