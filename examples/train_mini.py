"""Train the small Res3D on freshly rendered clips; no real video is used.

    python examples/train_mini.py RUN --minutes 60 --seed 1      # weights in RUN/res3d-mini.safetensors
    python examples/train_mini.py RUN --minutes 60 --seed 1 --resume
    python examples/train_mini.py RUN --measure              # what a clip costs: rendered, and trained on

Batch number i is rendered from (seed, i) alone: two thirds scenes (rendering/scene.py), a third simple figures
(simple_figures.py). Linear heads teach the network (lessons.py) and are thrown away, but for the simple figures' one,
which is its own classifier; `--recipe` takes labels, descriptors, both, or all. A run goes from small pictures to large
ones, and from people in calm scenes to people in any. The learning rate follows a cosine to zero over `--minutes` of wall
clock, or over `--steps`, which makes a run repeatable. All heads learn from plain averages; when the weights are written,
their classifier learns anew from the pool5 that the package's card asks for (refit_classifier.py). On two cores
`--processes 2` is quicker than one process of two threads beside one that renders: 54 clips a second instead of 24,
measured once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from lessons import CALM_SHARE, HELD_OUT, RECIPES, SIZES, TRAINING, WORDS, Heads, accuracies, losses
from local_descriptors import local_descriptors
from mini_net import ARGUMENTS, equalise, new_net
from refit_classifier import learn_classifier
from rendering.photographs import read_photographs
from rendering.scene import EXEMPLARS, Batch, Renderer
from simple_figures import figures_batch, joined
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

CHECKPOINT, LOG, WEIGHTS = "checkpoint.pt", "log.jsonl", "res3d-mini.safetensors"
# what may differ when a run goes on; sizes follow from --larger-from
FREE = ("run", "measure", "resume", "begin_with", "sizes", "threads", "workers", "report_seconds", "save_seconds")


# ------------------------------------------------------------------------------------------------ clips


class Schedule:
    """How far a run has come, 0 to 1, by steps or by minutes of wall clock; both go on after a resume."""

    def __init__(self, steps: int | None, minutes: float | None, seconds_before: float = 0.0) -> None:
        self.steps, self.minutes = steps, minutes
        self._start = time.monotonic() - seconds_before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def progress(self, step: int) -> float:
        return step / self.steps if self.steps else self.seconds / 60 / self.minutes

    def learning_rate(self, step: int, progress: float, highest: float) -> float:
        warm_up = min(1.0, (step + 1) / 200)
        return highest * warm_up * 0.5 * (1 + math.cos(math.pi * progress))


class Team:
    """The processes that train one network: each on batches of its own, with the mean of all gradients."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def agree(self, value: float) -> float:
        """The first process' value."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Make every gradient the mean of all processes'."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(self.size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


class RenderedBatches(IterableDataset):
    """Batches from `step` on, without end, each at the size of the moment; of several workers each renders every n-th.

    All is rendered on the CPU; `figures_only` leaves out the scenes.
    """

    def __init__(self, args: argparse.Namespace, schedule: Schedule, step: int, team: Team, figures_only: bool) -> None:
        self.args, self.schedule, self.step, self.team, self.figures_only = args, schedule, step, team, figures_only

    def __iter__(self) -> Iterator[Batch]:
        args, worker = self.args, torch.utils.data.get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        renderer = Renderer((args.seed, TRAINING), "cpu", args.pictures, args.photographs)
        step = self.step + first
        while True:
            progress = self.schedule.progress(step)
            side = next((size for until, size in args.sizes if progress < until), args.sizes[-1][1])
            ease = calm_share(progress, args.calm_until)
            number = step * self.team.size + self.team.rank
            if self.figures_only:
                yield figures_batch(renderer.seeds, number, args.batch_size // 3, side, ease)
            else:
                yield mixed_batch(renderer, number, args.batch_size, side, ease)
            step += every


def take_one_thread(worker: int) -> None:
    """What a rendering process begins with."""
    torch.set_num_threads(1)


def calm_share(progress: float, until: float) -> float:
    """The share of people in calm scenes: all at first, falling evenly to CALM_SHARE at the part `until` of a run."""
    return CALM_SHARE if progress >= until else 1 - (1 - CALM_SHARE) * progress / until


def mixed_batch(renderer: Renderer, number: int, size: int, side: int, ease: float = 0.0) -> Batch:
    """A third of the clips are simple figures, the others scenes; of both with people the share `ease` is calm."""
    scenes = renderer.batch(number, size - size // 3, side, ease)
    return joined(scenes, figures_batch(renderer.seeds, number, size // 3, side, ease))


# ------------------------------------------------------------------------------------------------ run


def what_matters(args: argparse.Namespace) -> dict[str, str]:
    """The arguments that make a run what it is, as text."""
    return {name: str(value) for name, value in vars(args).items() if name not in FREE}


def refusal(args: argparse.Namespace) -> str | None:
    """Why a run cannot begin, or go on, in its folder; None where it can."""
    folder = Path(args.run)
    checkpoint = folder / CHECKPOINT
    there = [name for name in (LOG, WEIGHTS) if (folder / name).exists()]
    if not args.resume:
        if args.begin_with and not (Path(args.begin_with) / CHECKPOINT).is_file():
            return f"--begin-with {args.begin_with} has no {CHECKPOINT}; give the folder of a run that has saved one"
        if checkpoint.exists():
            return f"{folder} holds a run ({CHECKPOINT}); go on with --resume, or give another folder"
        return f"{folder} holds {there[0]}, and no {CHECKPOINT} to go on from; give another folder" if there else None
    if not checkpoint.is_file():
        if there:
            return (
                f"{folder} has no {CHECKPOINT} to resume, but {there[0]}; give the folder of a run that has saved one"
            )
        return f"{folder} has no {CHECKPOINT} to resume; leave --resume out, or give the folder of a run"
    told = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True).get("arguments")
    if told is None:
        return f"{checkpoint} does not tell its arguments: an older program wrote it; begin a new run with --begin-with"
    own = what_matters(args)
    differing = [name for name in own if told.get(name) != own[name]]
    if not differing:
        return None
    each = (f"--{name.replace('_', '-')} {own[name]} instead of {told.get(name)}" for name in differing)
    return f"{checkpoint} is of a run with other arguments: {', '.join(each)}; give those, or begin a new run"


def chosen_device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Run:
    """A training run that lives in a folder: `checkpoint.pt`, `log.jsonl`, and the weights at its end."""

    def __init__(self, args: argparse.Namespace, team: Team | None = None) -> None:
        self.args, self.team = args, team or Team()
        self.folder = Path(args.run)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = chosen_device()
        torch.manual_seed(args.seed)
        self.net = new_net().to(self.device, memory_format=torch.channels_last_3d).train()
        photographs = read_photographs(args.photographs)
        exemplars = (
            {"cutout": len(photographs.cutouts), "photograph": len(photographs.whole)} if args.photographs else {}
        )
        self.heads = Heads(ARGUMENTS["widths"][-1], args.words, exemplars).to(self.device).train()
        parameters = [*self.net.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
                {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
            ],
            lr=args.learning_rate,
        )
        self.step, seconds = 0, 0.0
        if args.resume:
            seconds = self._load()
        elif args.begin_with:
            self._begin_with(Path(args.begin_with) / CHECKPOINT)
        else:
            self._find_words()
        self.schedule = Schedule(args.steps, args.minutes, seconds)
        self._held_out: dict[int, list[Batch]] = {}

    def _begin_with(self, path: Path) -> None:
        """Take from another run's checkpoint, which may have had other heads, whatever is of the same name and shape."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        for module, theirs in ((self.net, state["net"]), (self.heads, state["heads"])):
            ours = module.state_dict()
            fitting = {name: x for name, x in theirs.items() if name in ours and x.shape == ours[name].shape}
            module.load_state_dict(ours | fitting)
            print(f"{len(fitting)} of {len(ours)} tensors are those of {path}", flush=True)

    def _find_words(self) -> None:
        """Make the vocabulary from rendered clips of the smallest and the largest size."""
        renderer = Renderer((self.args.seed, WORDS), self.device, self.args.pictures, self.args.photographs)
        rows = []
        for number in range(self.num_held_out):
            for size in (self.args.sizes[0][1], self.args.sizes[-1][1]):
                clips = renderer.batch(number, self.args.batch_size, size).clips.permute(0, 4, 1, 2, 3)
                rows.append(local_descriptors(clips.float() / 255).permute(0, 2, 3, 1).flatten(0, 2))
        self.heads.vocabulary.fit(torch.cat(rows), torch.Generator().manual_seed(self.args.seed))

    @property
    def num_held_out(self) -> int:
        """How many batches judge the run."""
        return max(1, self.args.held_out // self.args.batch_size)

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _load(self) -> float:
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        self.net.load_state_dict(state["net"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return state["seconds"]

    def save(self) -> None:
        """Write the checkpoint aside and rename it: an interrupted write leaves the last one whole."""
        state = {
            "net": self.net.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "arguments": what_matters(self.args),
            "seconds": self.schedule.seconds,
        }
        aside = self.checkpoint.with_suffix(".tmp")
        torch.save(state, aside)
        os.replace(aside, self.checkpoint)

    def held_out(self, size: int) -> list[Batch]:
        """The batches that judge the run: people and places never trained on."""
        if size not in self._held_out:
            renderer = Renderer((self.args.seed, HELD_OUT), self.device, self.args.pictures, self.args.photographs)
            made = [mixed_batch(renderer, i, self.args.batch_size, size) for i in range(self.num_held_out)]
            self._held_out = {size: made}
        return self._held_out[size]

    def report(self, size: int, means: dict[str, float], rate: float) -> None:
        """Print how far the run is, and add the same to `log.jsonl`."""
        right = accuracies(self.net, self.heads, self.held_out(size))
        minutes = self.schedule.seconds / 60
        print(
            f"step {self.step} minutes {minutes:.1f} size {size} lr {rate:.2e} losses "
            + " ".join(f"{name} {value:.3f}" for name, value in means.items())
            + " held-out "
            + " ".join(f"{name} {value:.2f}" for name, value in right.items()),
            flush=True,
        )
        line = {"step": self.step, "minutes": minutes, "size": size, "learning_rate": rate, "losses": means}
        with open(self.folder / LOG, "a") as file:
            file.write(json.dumps(line | {"held_out": right}) + "\n")

    def batches(self) -> Iterator[Batch]:
        """Rendered batches, by processes beside this one; on a GPU they render the figures, and this one the scenes there."""
        workers, on_gpu = self.args.workers, self.device.type != "cpu"
        rendered = iter(
            DataLoader(
                RenderedBatches(self.args, self.schedule, self.step, self.team, figures_only=on_gpu),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                worker_init_fn=take_one_thread,
                multiprocessing_context="forkserver"
                if workers and on_gpu
                else None,  # CUDA does not live through a fork
            )
        )
        return self._with_scenes(rendered) if on_gpu else rendered

    def _with_scenes(self, figures: Iterator[Batch]) -> Iterator[Batch]:
        """Batches of figures, with the scenes that belong to them, rendered on this run's device."""
        args = self.args
        renderer = Renderer((args.seed, TRAINING), self.device, args.pictures, args.photographs)
        for step, batch in enumerate(figures, self.step):
            number = step * self.team.size + self.team.rank
            ease = calm_share(self.schedule.progress(step), args.calm_until)
            side = batch.clips.shape[2]  # the size of the moment when the figures were rendered
            yield joined(renderer.batch(number, args.batch_size - len(batch.clips), side, ease), batch)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every loss."""
        taught = {"motion", *self.heads.labels}
        recipe = RECIPES[self.args.recipe].items()
        return {name: weight for name, weight in recipe if name in taught or name not in EXEMPLARS}

    def learn(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One step of the optimiser; the losses before it."""
        found = losses(self.net, self.heads, batch, self.args.bf16)
        loss = sum(weight * found[name] for name, weight in self.weights.items())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.team.average_gradients([*self.net.parameters(), *self.heads.parameters()])
        nn.utils.clip_grad_norm_(self.net.parameters(), 2.0, error_if_nonfinite=True)
        self.optimizer.step()
        return found

    def train(self, stop_at: int | None = None) -> None:
        """Train to the end of the schedule, or to step `stop_at`, and save; the first process reports and saves."""
        args = self.args
        saved = reported = time.monotonic()
        totals, count = dict.fromkeys(self.weights, 0.0), 0
        batches = self.batches()
        while (progress := self.team.agree(self.schedule.progress(self.step))) < 1 and self.step != stop_at:
            batch = next(batches)
            rate = self.schedule.learning_rate(self.step, progress, args.learning_rate)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            found = self.learn(batch)
            self.step += 1
            totals, count = {name: totals[name] + float(found[name].detach()) for name in totals}, count + 1
            if self.team.rank:
                continue
            now = time.monotonic()
            if now - reported > args.report_seconds:
                self.report(batch.clips.shape[2], {name: total / count for name, total in totals.items()}, rate)
                totals, count, reported = dict.fromkeys(self.weights, 0.0), 0, time.monotonic()
            if now - saved > args.save_seconds:
                self.save()
                saved = now
        if self.team.rank:
            return
        if count:
            self.report(batch.clips.shape[2], {name: total / count for name, total in totals.items()}, rate)
        self.save()

    def write_weights(self, path: Path) -> None:
        """Write the network alone as safetensors, the convolutions in float16: half the bytes.

        It is equalised over scenes, and its classifier learns anew from the pool5 that the package's card asks for.
        """
        from featx.checkpoints.safetensors import write_safetensors

        net = new_net(ARGUMENTS).to(self.device, memory_format=torch.channels_last_3d)
        net.load_state_dict(self.net.state_dict())
        renderer = Renderer((self.args.seed, HELD_OUT), self.device, self.args.pictures, self.args.photographs)
        side = self.args.sizes[-1][1]
        equalise(net, (renderer.batch(i, self.args.batch_size, side).clips for i in range(self.num_held_out)))
        share = learn_classifier(net, self.args.seed, 8 * self.args.held_out, side)
        print(f"{100 * share:.1f} % of difficult held-out figures are named right", flush=True)
        tensors = {name: tensor.cpu().float().contiguous() for name, tensor in net.state_dict().items()}
        write_safetensors(path, {name: t.half() if t.ndim > 1 else t for name, t in tensors.items()})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of the run's checkpoint, log and weights")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="wall clock, resumed parts counted together")
    length.add_argument("--steps", type=int, help="optimiser steps; repeatable on one machine")
    length.add_argument(
        "--measure",
        action="store_true",
        help="print what a clip costs in milliseconds of one thread of the processor, or on a GPU, and train nothing",
    )
    parser.add_argument("--recipe", choices=list(RECIPES), default="all", help="what teaches the network")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the folder's checkpoint, with the same arguments"
    )
    parser.add_argument("--begin-with", metavar="RUN", help="begin with the weights of another run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 arithmetic: faster where the processor has it")
    parser.add_argument(
        "--processes", type=int, default=1, help="that train together, on the CPU, each with its batches"
    )
    parser.add_argument("--threads", type=int, help="of each process  [default: 2 for one, else 1]")
    parser.add_argument(
        "--workers",
        type=int,
        help="that render, beside each (where there is a GPU the simple figures alone); 0 renders in between  "
        "[default: 1 for one, else 0; with a GPU a core each, 8 at most]",
    )
    parser.add_argument(
        "--larger-from",
        type=float,
        nargs=2,
        default=(0.6, 0.85),
        metavar="PART",
        help="parts of the run from which clips are 96 and 112 pixels large instead of 64  [default: 0.6 0.85]",
    )
    parser.add_argument(
        "--calm-until",
        type=float,
        default=0.5,
        help="part of the run in which people in calm scenes grow rarer; 0 for weights that know them  [default: 0.5]",
    )
    parser.add_argument("--pictures", type=int, default=256, help="pictures at a time")
    parser.add_argument(
        "--photographs", type=Path, metavar="FOLDER", help="of pictures and cut-out things (PNG with transparency)"
    )
    parser.add_argument("--words", type=int, default=320, help="visual words")
    parser.add_argument(
        "--held-out",
        type=int,
        default=320,
        help="clips that judge the run; as many make the words, 8 times as many the classifier",
    )
    parser.add_argument("--report-seconds", type=float, default=60)
    parser.add_argument("--save-seconds", type=float, default=180)
    args = parser.parse_args(arguments)
    if args.measure and (args.resume or args.begin_with):
        parser.error("--measure trains nothing: leave --resume and --begin-with out")
    args.larger_from = tuple(args.larger_from)
    args.sizes = tuple(zip((*args.larger_from, 1.0), SIZES, strict=True))  # until which part of the run which size
    if not 0 <= args.larger_from[0] <= args.larger_from[1] <= 1:
        parser.error("--larger-from is {:g} {:g}; give two parts from 0 to 1, in order".format(*args.larger_from))
    if args.processes < 1 or (args.processes > 1 and torch.cuda.is_available()):
        parser.error(f"--processes is {args.processes}; give 1, or more where there is no GPU")
    if args.batch_size < 3:
        parser.error(f"--batch-size is {args.batch_size}; give 3 or more: a third are simple figures")
    if args.threads is None:
        args.threads = max(1, 2 // args.processes)
    if args.workers is None:
        beside = min(8, os.cpu_count() or 1) if torch.cuda.is_available() else 1
        args.workers = beside if args.processes == 1 else 0
    return args


def train(rank: int, args: argparse.Namespace, meeting: str = "") -> None:
    """Train as process number `rank` of `args.processes`, which find each other by the file `meeting`."""
    torch.set_num_threads(args.threads)
    if args.processes > 1:
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=args.processes)
    run = Run(args, Team(rank, args.processes))
    if not rank:
        print(f"{sum(p.numel() for p in run.net.parameters()):,} parameters, {run.device}", flush=True)
    run.train()
    if not rank:
        run.write_weights(run.folder / WEIGHTS)
    if args.processes > 1:
        dist.destroy_process_group()


def train_together(args: argparse.Namespace) -> None:
    """Train by `args.processes` processes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (args, os.path.join(folder, "meeting")), args.processes)


def clock(device: torch.device) -> float:
    """Seconds of the processor's time; on a GPU those of a watch, once it has done all that it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measured(args: argparse.Namespace, rounds: int = 10) -> dict[str, float]:
    """Milliseconds, by `clock`, that a clip of the first size takes: as a scene, as simple figures, trained on.

    With one thread of the processor. The pictures of scenes, which serve many batches, are there already.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(argparse.Namespace(**vars(args) | {"run": folder}))
    renderer = Renderer((args.seed, TRAINING), run.device, args.pictures, args.photographs)
    side, size = args.sizes[0][1], args.batch_size
    batch = mixed_batch(renderer, 0, size, side)
    costs = {
        "scenes": lambda number: renderer.batch(number, size, side),
        "figures": lambda number: figures_batch(renderer.seeds, number, size, side, 0.0),
        "training": lambda number: run.learn(batch),
    }
    found = {}
    for name, step in costs.items():
        step(0)  # the first may choose kernels
        start = clock(run.device)
        for number in range(1, rounds + 1):
            step(number)
        found[name] = 1000 * (clock(run.device) - start) / (rounds * size)
    return found


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if args.measure:
        told = ", ".join(f"{name} {cost:.1f}" for name, cost in measured(args).items())
        of, where = ("processor ", "one thread") if (device := chosen_device()).type == "cpu" else ("", f"on {device}")
        print(f"{of}ms a clip of {args.sizes[0][1]} pixels, {where}: {told}")
        return
    if reason := refusal(args):
        print(f"train_mini.py: {reason}", file=sys.stderr)
        sys.exit(2)
    if args.processes > 1:
        train_together(args)
    else:
        train(0, args)


if __name__ == "__main__":
    main()
