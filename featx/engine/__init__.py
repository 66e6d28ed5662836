"""How a backbone is executed: a fixed batch shape, one plan a device, the same numbers everywhere to a stated tolerance.

    winograd   on the CPU: the native kernels where they are faster, oneDNN for the rest   (native.py, plan.py)
    onednn     on the CPU: every convolution by oneDNN, with what follows it               (plan.py)
    torch      anywhere: the backbone as it is written

The first that a machine has is taken. All are float32 and agree to rounding, which is checked on one clip at the start.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

import numpy as np
import torch

from featx.backbones.base import Backbone
from featx.engine import native
from featx.engine.plan import NATIVE, make_plan
from featx.errors import UnknownNameError, UsageError
from featx.preprocess import Preprocess

__all__ = ["ENGINES", "Engine", "choose_device", "described", "unavailable"]

# Clips a batch where the user does not say: a CPU gains nothing beyond a few, a GPU needs many to be busy.
AUTO_BATCH_SIZE = {"cpu": 4, "cuda": 32}

ENGINES = ("winograd", "onednn", "torch")  # the fastest first
MEANS = {
    "winograd": (*NATIVE, "onednn", "torch"),
    "onednn": ("onednn", "torch"),
}  # of a plan's convolutions

# Raised when an engine's last bits change, and recorded, so that a run that goes on with older features can say so.
REVISIONS = {"winograd": 3, "onednn": 1, "torch": 1}

WITHOUT = "'--engine torch' goes without"

# How far an engine's layers may be from plain torch's, as a part of the layer's largest number. One Winograd
# convolution is at up to 2e-5 from float64 (plain torch: 5e-7); what is wrong is far beyond this.
TOLERANCE = 1e-4


def described(description: str) -> tuple[str, str]:
    """The engine and the device of an Engine's description, "" for an engine that featx has none of."""
    engine, _, device = description.rpartition("-")
    engine = engine.rstrip("0123456789")
    return (engine if engine in ENGINES else "", device)


def choose_device(name: str) -> torch.device:
    """The device named by "auto", "cpu", "cuda" or "cuda:N"; "auto" is the first GPU, or the CPU where there is none.

    Raises UsageError for another name, and for a GPU that is not there: the CPU never stands in for it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in AUTO_BATCH_SIZE:
        raise UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(
                f"device '{name}' was asked for, but torch {torch.__version__} finds no GPU; use '--device cpu'"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(
                f"device '{name}' was asked for, but there are only {torch.cuda.device_count()} GPUs, from cuda:0; use one"
            )
    return device


def unavailable(name: str, device_type: str = "cpu") -> str:
    """Why this machine has no engine `name` on a "cpu" or "cuda" device, in one line; "" where it has."""
    if name != "torch" and device_type != "cpu":
        return f"the engine '{name}' runs on the CPU only"
    if name == "winograd":
        return native.why_not() or unavailable("onednn")
    if name == "onednn" and not torch.backends.mkldnn.is_available():
        return f"this torch, {torch.__version__} for {platform.machine()}, is built without oneDNN"
    return ""


class Engine:
    """Runs batches of clips through a backbone in float32.

    Every batch has the same shape: a smaller one is filled up. The last bits of a result depend on the batch size, but
    not on a clip's place in the batch nor on the clips beside it, so equal runs give equal bits.

    `name`: one of ENGINES, or "auto". After the start it is what runs, and `note` says, where that is not the first that
    the machine has, why. Raises UnknownNameError or UsageError for an engine that cannot be had.
    """

    precision = "fp32"

    def __init__(
        self,
        backbone: Backbone,
        preprocess: Preprocess,
        layers: Sequence[str],
        *,
        length: int,
        device: torch.device,
        batch_size: int | None = None,
        name: str = "auto",
    ) -> None:
        self.device = device
        self.batch_size = batch_size or AUTO_BATCH_SIZE[device.type]
        self.layers = tuple(layers)
        self.note = ""
        self._preprocess = preprocess
        self._batch = torch.zeros(
            (self.batch_size, length, preprocess.crop, preprocess.crop, 3),
            dtype=torch.uint8,
            pin_memory=device.type == "cuda",
        )
        if device.type == "cuda":  # TF32 would be used for convolutions unasked
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self.name, self._network = self._prepare(backbone.eval().to(device), name)

    def _prepare(self, backbone: Backbone, name: str):
        """What runs the clips, and its name."""
        if name not in (*ENGINES, "auto"):
            raise UnknownNameError("engine", name, (*ENGINES, "auto"))
        if name != "auto" and unavailable(name, self.device.type):
            raise UsageError(f"engine '{name}' was asked for, but {unavailable(name, self.device.type)}; {WITHOUT}")

        def plain(clips: torch.Tensor) -> dict[str, torch.Tensor]:
            return backbone(clips.contiguous(), self.layers)

        chosen = name
        if name == "auto":
            chosen = next(engine for engine in ENGINES if not unavailable(engine, self.device.type))
            if self.device.type == "cpu" and chosen != ENGINES[0]:
                self.note = f"the engine is '{chosen}', since {unavailable(ENGINES[0])}; it costs speed only"
        if chosen == "torch":
            return chosen, plain
        clip = _probe_clip(self._batch[:1])
        try:
            with torch.inference_mode():
                pixels = self._preprocess.normalise(clip)
                plan = make_plan(backbone, pixels.shape[1:], self.layers, MEANS[chosen])
                problem = _disagreement(plan(pixels.clone()), plain(pixels))
        except RuntimeError as error:  # also NotImplementedError, with which `record` refuses
            problem = f"it cannot run this network ({str(error).partition(chr(10))[0]})"
        if not problem:
            return chosen, plan
        if name != "auto":
            raise UsageError(
                f"engine '{name}' was asked for, or the output was begun with it, but {problem}; {WITHOUT}"
            )
        self.note = f"the engine is 'torch', since of '{chosen}' {problem}; it costs speed only"
        return "torch", plain

    @property
    def description(self) -> str:
        """What is recorded in the feature file, such as "winograd3-cpu": the engine, its revision from 2 on, the device."""
        revision = REVISIONS[self.name]
        return f"{self.name}{revision if revision > 1 else ''}-{self.device.type}"

    def run(self, clips: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
        """Compute the layers of at most `batch_size` clips.

        A clip is a uint8 BGR tensor (T, crop, crop, 3). Returns float32 (len(clips), D) a layer.
        """
        for place, clip in zip(self._batch, clips, strict=False):
            place.copy_(clip)
        self._batch[len(clips) :] = 0
        with torch.inference_mode():
            pixels = self._batch.to(self.device, non_blocking=True)
            activations = self._network(self._preprocess.normalise(pixels))
            # (N, C, T, H, W) -> (N, D)
            return {layer: x[: len(clips)].flatten(1).float().cpu().numpy() for layer, x in activations.items()}


def _probe_clip(like: torch.Tensor) -> torch.Tensor:
    """A clip of moving patches under noise, uint8 (1, T, h, w, 3), the same at every start."""
    generator = torch.Generator().manual_seed(0)
    _, t, h, w, _ = like.shape
    coarse = torch.rand((1, 3, max(t // 4, 1), max(h // 8, 1), max(w // 8, 1)), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (t, h, w), mode="trilinear")
    noise = torch.rand((1, 3, t, h, w), generator=generator)
    return (smooth * 200 + noise * 55).to(torch.uint8).permute(0, 2, 3, 4, 1)  # (1, 3, T, h, w) -> (1, T, h, w, 3)


def _disagreement(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> str:
    """What is wrong with an engine's layers beside plain torch's, in one line; "" where they agree."""
    for layer, expected in plain.items():
        if ours[layer].shape != expected.shape:
            return f"{layer} has the shape {tuple(ours[layer].shape)}, not {tuple(expected.shape)}"
        scale = float(expected.abs().max())
        difference = float((ours[layer] - expected).abs().max())
        if not difference <= TOLERANCE * scale:  # also where it is no number
            return f"{layer} differs from plain torch's by {difference:.1e}, where the largest number is {scale:.1e}"
    return ""
