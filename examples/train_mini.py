"""Train the small Res3D on freshly rendered action clips; no real video is used.

    python examples/train_mini.py RUN --minutes 60 --seed 1      # weights in RUN/res3d-mini.safetensors
    python examples/train_mini.py RUN --minutes 60 --seed 1 --resume

Every clip is new: number i is rendered from (seed, i) alone. The action head is the network's own classifier; further
linear heads on pool5 (background texture, camera motion, where hands, feet and head are in the first, a middle and the
last frame, a 4x4 colour thumbnail, a 4x4 map of change) keep colour, pose, layout and motion in the features and are
thrown away afterwards. A run goes from calm clips to difficult ones and from small pictures to large ones. The learning
rate follows a cosine to zero over `--minutes` of wall clock, or over `--steps`, which makes a run repeatable.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from action_programs import ACTIONS
from render_actions import CAMERAS, TEXTURES, render_clip
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from featx.backbones.res3d import Res3D

WIDTHS = (16, 32, 64, 120)
CLASSES = tuple(ACTIONS)
LENGTH, FRAME_STEP = 8, 2
SPAN = (LENGTH - 1) * FRAME_STEP + 1
MEAN, STD = 128.0, 64.0  # of every channel, BGR
SIZES = ((0.55, 64), (0.8, 88), (1.0, 112))  # until this part of the run: the crop's size in pixels
CALM_UNTIL = 0.3  # calm clips grow rarer until this part of the run
# of action, texture, camera, reach, thumbnail, change: while there are calm clips, and after
LOSS_WEIGHTS = (1.0, 0.3, 0.4, 10.0, 1.0, 0.3), (1.0, 1.0, 1.0, 10.0, 1.0, 0.3)
TRAINING, HELD_OUT = 0, 1  # a part of every clip's seed, so that the two never share a person or a place


# ------------------------------------------------------------------------------------------------ clips


def render_sample(seed: int, part: int, index: int, size: int, ease: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Clip `index`, calm with probability `ease`.

    Returns its pixels, BGR uint8 (T, size, size, 3); labels int64 (3,): action, texture, camera; and where hands, feet
    and head are in the first, a middle and the last frame, float32 (30,), in body heights.
    """
    rng = np.random.default_rng((seed, part, index, 0))
    action = CLASSES[index % len(CLASSES)]
    num_frames = int(rng.integers(SPAN + 1, 29))
    start = int(rng.integers(0, num_frames - SPAN + 1))
    frames = start + np.arange(LENGTH) * FRAME_STEP
    height, width = round(size * 128 / 112), round(size * 171 / 112)
    seeds = (seed, part, index, 1), (seed, part, index, 2)
    clip = render_clip(action, *seeds, frames, num_frames, height, width, calm=bool(rng.uniform() < ease))
    top, left = (height - size) // 2, (width - size) // 2
    pixels = clip.frames[:, top : top + size, left : left + size, ::-1]
    labels = torch.tensor([CLASSES.index(action), clip.texture, clip.camera])
    reach = torch.from_numpy(clip.reach[[0, LENGTH // 2, -1]].reshape(-1))
    return torch.from_numpy(np.ascontiguousarray(pixels)), labels, reach


class RenderedClips(Dataset):
    """Clips by (number, size, ease)."""

    def __init__(self, seed: int, part: int) -> None:
        self.seed, self.part = seed, part

    def __getitem__(self, key: tuple[int, int, float]) -> tuple[Tensor, Tensor, Tensor]:
        return render_sample(self.seed, self.part, *key)


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

    def learning_rate(self, step: int, highest: float) -> float:
        progress = min(self.progress(step), 1.0)
        warm_up = min(1.0, (step + 1) / 200)
        return highest * warm_up * 0.5 * (1 + math.cos(math.pi * progress))


class GrowingBatches(Sampler):
    """Batches of (number, size, ease) from `step` on, chosen when a batch is handed to the renderer."""

    def __init__(self, schedule: Schedule, step: int, batch_size: int, sizes: tuple) -> None:
        self.schedule, self.step, self.batch_size, self.sizes = schedule, step, batch_size, sizes

    def __iter__(self) -> Iterator[list[tuple[int, int, float]]]:
        step = self.step
        while (progress := self.schedule.progress(step)) < 1:
            size = next(size for until, size in self.sizes if progress < until)
            ease = max(0.0, 1 - progress / CALM_UNTIL)
            yield [(step * self.batch_size + i, size, ease) for i in range(self.batch_size)]
            step += 1


def to_input(clips: Tensor) -> Tensor:
    """BGR uint8 (N, T, h, w, 3) -> normalised float32 (N, 3, T, h, w)."""
    return ((clips.float() - MEAN) / STD).permute(0, 4, 1, 2, 3)


def soften(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the normalised clips (N, 3, T, h, w) a little, as compression and lenses do."""
    amount = (torch.rand(len(clips), generator=generator) * 2 - 1).clamp(min=0).to(clips.device)
    blurred = F.avg_pool3d(clips, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False)
    return torch.lerp(clips, blurred, amount[:, None, None, None, None])


# ------------------------------------------------------------------------------------------------ network


def start_weights(net: nn.Module) -> None:
    """Draw the convolutions' weights as He et al. 2015 do, from torch's global generator."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Heads(nn.Module):
    """Linear heads on pool5 (N, D) beside the network's own, for training only."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.texture = nn.Linear(dims, len(TEXTURES))
        self.camera = nn.Linear(dims, len(CAMERAS))
        self.reach = nn.Linear(dims, 3 * 5 * 2)
        self.thumbnail = nn.Linear(dims, 3 * 4 * 4)
        self.change = nn.Linear(dims, 4 * 4)


def pooled(net: Res3D, clips: Tensor, bf16: bool = False) -> Tensor:
    """pool5 (N, D) of normalised clips; with `bf16` the costly lower stages run in bfloat16.

    res4 and res5 stay in float32: torch 2.13's CPU kernels give wrong weight gradients for res4's convolutions.
    """
    x = clips
    for name, stage in net.stages():
        lower = bf16 and name in ("conv1", "res2a", "res2b", "res3a", "res3b")
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=lower):
            x = stage(x if lower else x.float())
        if name == "pool5":
            break
    return x


def losses(net: Res3D, heads: Heads, clips: Tensor, labels: Tensor, reach: Tensor, bf16: bool = False) -> Tensor:
    """The losses (6,) of action, texture, camera, reach, thumbnail and change."""
    with torch.no_grad():  # (N, 3, T, h, w) -> (N, 48) and (N, 16)
        thumbnail = F.adaptive_avg_pool2d(clips.mean(2), 4).flatten(1)
        difference = (clips[:, :, 1:] - clips[:, :, :-1]).abs().mean((1, 2))
        change = (F.adaptive_avg_pool2d(difference[:, None], 4).flatten(1) + 0.02).log()
    features = pooled(net, clips, bf16)
    return torch.stack(
        [
            F.cross_entropy(net.fc8(features), labels[:, 0]),
            F.cross_entropy(heads.texture(features), labels[:, 1]),
            F.cross_entropy(heads.camera(features), labels[:, 2]),
            F.mse_loss(heads.reach(features), reach),
            F.mse_loss(heads.thumbnail(features), thumbnail),
            F.mse_loss(heads.change(features), change),
        ]
    )


@torch.no_grad()
def accuracies(net: Res3D, heads: Heads, clips: Tensor, labels: Tensor) -> list[float]:
    """Accuracy of action, texture and camera on uint8 clips (N, T, h, w, 3), with the network in eval mode."""
    net.eval()
    right = torch.zeros(3)
    for first in range(0, len(clips), 32):
        part = slice(first, first + 32)
        features = net(to_input(clips[part]), ("pool5",))["pool5"]
        for k, head in enumerate((net.fc8, heads.texture, heads.camera)):
            right[k] += (head(features).argmax(1) == labels[part, k]).sum().cpu()
    net.train()
    return (right / len(clips)).tolist()


# ------------------------------------------------------------------------------------------------ run


class Run:
    """A training run that lives in a folder: `checkpoint.pt`, and the weights at its end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.folder = Path(args.run)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(args.seed)
        self.net = Res3D(num_classes=len(CLASSES), widths=args.widths)
        self.heads = Heads(args.widths[-1])
        start_weights(self.net)
        self.net.to(self.device, memory_format=torch.channels_last_3d).train()
        self.heads.to(self.device)
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
        self.schedule = Schedule(args.steps, args.minutes, seconds)
        self._held_out: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

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
            "seconds": self.schedule.seconds,
        }
        aside = self.checkpoint.with_suffix(".tmp")
        torch.save(state, aside)
        os.replace(aside, self.checkpoint)

    def held_out(self, size: int) -> tuple[Tensor, Tensor]:
        """The clips (N, T, size, size, 3) that judge the run: people and places never trained on."""
        if size not in self._held_out:
            samples = [render_sample(self.args.seed, HELD_OUT, i, size) for i in range(self.args.held_out)]
            clips, labels, _ = (torch.stack(column).to(self.device) for column in zip(*samples, strict=True))
            self._held_out = {size: (clips, labels)}
        return self._held_out[size]

    def report(self, size: int, means: Tensor, rate: float) -> None:
        net, heads = self.net, self.heads
        action, texture, camera = accuracies(net, heads, *self.held_out(size))
        parts = " ".join(f"{value:.3f}" for value in means.tolist())
        print(
            f"step {self.step} minutes {self.schedule.seconds / 60:.1f} size {size} lr {rate:.2e} losses {parts} "
            f"held-out action {action:.3f} texture {texture:.3f} camera {camera:.3f}",
            flush=True,
        )

    def train(self, stop_at: int | None = None) -> None:
        """Train to the end of the schedule, or to step `stop_at`, and save."""
        args = self.args
        batches = DataLoader(
            RenderedClips(args.seed, TRAINING),
            batch_sampler=GrowingBatches(self.schedule, self.step, args.batch_size, args.sizes),
            num_workers=args.workers,
            prefetch_factor=4 if args.workers else None,
            worker_init_fn=lambda _: torch.set_num_threads(1),
        )
        saved = reported = time.monotonic()
        total, count = torch.zeros(6), 0
        for clips, labels, reach in batches:
            if self.step == stop_at:
                break
            rate = self.schedule.learning_rate(self.step, args.learning_rate)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            generator = torch.Generator().manual_seed(args.seed * 1_000_003 + self.step)
            inputs = soften(to_input(clips.to(self.device)), generator)
            inputs = inputs.contiguous(memory_format=torch.channels_last_3d)
            targets = labels.to(self.device), reach.to(self.device)
            parts = losses(self.net, self.heads, inputs, *targets, args.bf16)
            loss = parts @ parts.new_tensor(LOSS_WEIGHTS[self.schedule.progress(self.step) >= CALM_UNTIL])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 2.0, error_if_nonfinite=True)
            self.optimizer.step()
            self.step += 1
            total, count = total + parts.detach().cpu(), count + 1
            now = time.monotonic()
            if now - reported > args.report_seconds:
                self.report(clips.shape[2], total / count, rate)
                total, count, reported = torch.zeros(6), 0, time.monotonic()
            if now - saved > args.save_seconds:
                self.save()
                saved = now
        self.save()

    def write_weights(self, path: Path) -> None:
        """Write the network alone, in its own names, as safetensors."""
        from featx.checkpoints.safetensors import write_safetensors

        tensors = {name: tensor.cpu().float().contiguous() for name, tensor in self.net.state_dict().items()}
        write_safetensors(path, tensors)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of the run's checkpoint and weights")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="wall clock, resumed parts counted together")
    length.add_argument("--steps", type=int, help="optimiser steps; repeatable on one machine")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 arithmetic: faster where the processor has it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes; 0 renders in between")
    parser.add_argument("--held-out", type=int, default=280, help="clips that judge the run")
    parser.add_argument("--report-seconds", type=float, default=60)
    parser.add_argument("--save-seconds", type=float, default=180)
    args = parser.parse_args(arguments)
    args.widths, args.sizes = WIDTHS, SIZES
    return args


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    run = Run(args)
    print(
        f"{sum(p.numel() for p in run.net.parameters()):,} parameters, {run.device}, {len(CLASSES)} classes", flush=True
    )
    run.train()
    run.write_weights(run.folder / "res3d-mini.safetensors")


if __name__ == "__main__":
    main()
