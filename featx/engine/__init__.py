"""How a backbone is executed: a fixed batch shape, one plan a device, the same numbers everywhere to a stated tolerance.

    winograd   on the CPU: the native kernels where they are faster, oneDNN for the rest   (native.py, plan.py)
    onednn     on the CPU: every convolution by oneDNN, with what follows it               (plan.py)
    torch      anywhere: the backbone as it is written
    folded, cudnn, compile, each also with "-graph" and "-search"
               on a GPU: what follows a convolution folded into it                         (folded.py, cuda.py)

On the CPU the first that the machine has is taken, and checked on one clip at the start: all are float32 and agree to
rounding. On a GPU the fastest is taken, and the fastest precision that agrees with float32 (precision.py), both found on the
first batch (cuda.py), of as many clips as fit (batches.py, dispatch.py); then batches are copied in, computed and copied back
side by side (flight.py).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

import numpy as np
import torch

from featx.backbones.base import Backbone
from featx.engine import native
from featx.engine.batches import CPU_BATCH_SIZE
from featx.engine.cuda import GPU_PLANS, no_compiler
from featx.engine.dispatch import Dispatch
from featx.engine.flight import DEPTH, Done, Handle, Mark
from featx.engine.folded import Pixels, folded
from featx.engine.plan import NATIVE, make_plan
from featx.engine.precision import ASKED_AGREEMENT, DTYPES, agreement, check_precision
from featx.engine.probe import TOLERANCE, disagreement, probe_clip
from featx.errors import UnknownNameError, UsageError
from featx.preprocess import Preprocess

__all__ = ["ENGINES", "GPU_ENGINES", "TOLERANCE", "Engine", "check_engine", "choose_device", "described", "unavailable"]

DEVICES = ("cpu", "cuda")

ENGINES = ("winograd", "onednn", "torch")  # of the CPU, the fastest first
GPU_ENGINES = tuple(plan for plan in GPU_PLANS if plan not in ENGINES)
MEANS = {
    "winograd": (*NATIVE, "onednn", "torch"),
    "onednn": ("onednn", "torch"),
}  # of a plan's convolutions

# Raised when an engine's last bits change, and recorded, so that a run that goes on with older features can say so.
REVISIONS = {"winograd": 3, "onednn": 1, "torch": 1}

WITHOUT = "'--engine torch' goes without"


def described(description: str) -> tuple[str, str]:
    """The engine and the device of an Engine's description, "" for an engine that featx has none of."""
    engine, _, device = description.rpartition("-")
    engine = engine.rstrip("0123456789")
    return (engine if engine in (*ENGINES, *GPU_ENGINES) else "", device)


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
    if device is None or device.type not in DEVICES:
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
    if name in GPU_ENGINES:
        if device_type == "cpu" and name != "folded":
            return f"the engine '{name}' runs on a GPU only"
        return no_compiler() if name.startswith("compile") else ""
    if name != "torch" and device_type != "cpu":
        return f"the engine '{name}' runs on the CPU only"
    if name == "winograd":
        return native.why_not() or unavailable("onednn")
    if name == "onednn" and not torch.backends.mkldnn.is_available():
        return f"this torch, {torch.__version__} for {platform.machine()}, is built without oneDNN"
    return ""


class Engine:
    """Runs batches of clips through a backbone.

    Every batch has the same shape: a smaller one is filled up. The last bits of a result depend on the batch size, but
    not on a clip's place in the batch nor on the clips beside it, so equal runs give equal bits.

    `name`: one of ENGINES, or of GPU_ENGINES, or "auto"; `precision`: one of `featx.engine.precision.PRECISIONS`;
    `batch_size`: by default, what the device is best with. On the CPU `name` is after the start what runs, and `note` says,
    where that is not the first that the machine has, why. On a GPU `settle`, or else the first batch, finds what "auto" is.

    Raises UnknownNameError or UsageError for an engine or a precision that cannot be had.
    """

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
        precision: str = "auto",
    ) -> None:
        if device.type == "cuda" and device.index is None:  # to other threads another one may be the current one
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self.layers = tuple(layers)
        self.note = ""
        self._preprocess = preprocess
        self._dispatch: Dispatch | None = None
        check_engine(name, precision, device)
        backbone = backbone.eval()
        if device.type == "cuda":
            self._dispatch = Dispatch(
                backbone, preprocess, layers,
                length=length, device=device, batch_size=batch_size, precision=precision, plan=name,
            )  # fmt: skip
            return
        self._batch_size = batch_size or CPU_BATCH_SIZE
        self._precision = "fp32" if precision == "auto" else precision
        self._batch = torch.zeros(
            (self._batch_size, length, preprocess.crop, preprocess.crop, 3),
            dtype=torch.uint8,
        )
        self._name, self._network = self._prepare(backbone, name)

    def _prepare(self, backbone: Backbone, name: str):
        """What runs the clips on the CPU, and its name."""

        def plain(clips: torch.Tensor) -> dict[str, torch.Tensor]:
            return backbone(clips.contiguous(), self.layers)

        if self._precision != "fp32" or name == "folded":
            return "folded", self._folded(backbone, plain)
        chosen = name
        if name == "auto":
            chosen = next(engine for engine in ENGINES if not unavailable(engine))
            if chosen != ENGINES[0]:
                self.note = f"the engine is '{chosen}', since {unavailable(ENGINES[0])}; it costs speed only"
        if chosen == "torch":
            return chosen, plain
        clip = probe_clip(self._batch[:1])
        try:
            with torch.inference_mode():
                pixels = self._preprocess.normalise(clip)
                plan = make_plan(backbone, pixels.shape[1:], self.layers, MEANS[chosen])
                problem = disagreement(plan(pixels.clone()), plain(pixels))
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

    def _folded(self, backbone: Backbone, plain: Callable):
        """A GPU's form of the network, on the CPU: what runs bf16 here."""
        clip = probe_clip(self._batch[:1])
        try:
            with torch.inference_mode():
                clip_shape = self._preprocess.normalise(clip).shape[1:]
                net = folded(backbone, clip_shape, self.layers, DTYPES[self._precision], self.device)
                pixels = Pixels(self._preprocess, clip.shape[1], net, self.device, self._batch_size)
                apart = agreement(net(pixels(clip)), plain(self._preprocess.normalise(clip)), 1)
        except RuntimeError as error:
            raise UsageError(
                f"{self._precision} was asked for, but it cannot run this network ({str(error).partition(chr(10))[0]}); "
                "leave --precision and --engine out"
            ) from error
        if not apart <= ASKED_AGREEMENT[self._precision]:
            raise UsageError(
                f"{self._precision} was asked for, but its features are 1 - cos {apart:.1e} from fp32's; take fp32"
            )
        return lambda clips: net(pixels(clips))

    @property
    def name(self) -> str:
        """What runs, or "auto" before it is known."""
        return self._name if self._dispatch is None else self._dispatch.plan

    @property
    def precision(self) -> str:
        """What it computes in, or "auto" before it is known."""
        return self._precision if self._dispatch is None else self._dispatch.precision

    @property
    def batch_size(self) -> int:
        """Clips a batch. On a GPU it can become smaller where the memory is full."""
        return self._batch_size if self._dispatch is None else self._dispatch.batch_size

    @property
    def description(self) -> str:
        """What is recorded in the feature file, such as "winograd3-cpu": the engine, its revision from 2 on, the device."""
        revision = REVISIONS.get(self.name, 1)
        return f"{self.name}{revision if revision > 1 else ''}-{self.device.type}"

    @property
    def on_note(self) -> Callable[[str], None]:
        """Gets, in lines, what was chosen on a GPU, and that batches become smaller."""
        return (lambda note: None) if self._dispatch is None else self._dispatch.on_note

    @on_note.setter
    def on_note(self, on_note: Callable[[str], None]) -> None:
        if self._dispatch is not None:
            self._dispatch.on_note = on_note

    @property
    def settled(self) -> bool:
        """Whether name and precision are known."""
        return self._dispatch is None or self._dispatch.settled

    @property
    def wants_clips(self) -> bool:
        """Whether real clips are needed to find name and precision."""
        return not self.settled and "auto" in (self.name, self.precision)

    @property
    def is_beside(self) -> bool:
        """Whether batches are computed by a GPU, beside the caller's thread."""
        return self._dispatch is not None

    @property
    def max_in_flight(self) -> int:
        """Batches that may be submitted before the first's results are fetched; more wait for the first themselves."""
        return 0 if self._dispatch is None else DEPTH - 1

    def settle(self, clips: Sequence[torch.Tensor] = (), *, long_run: bool = False) -> None:
        """Find name and precision by real clips, as many as there are up to a batch; without any, auto is fp32.

        `on_note` gets what was chosen, in lines. `long_run`: torch.compile is tried too, which can take a minute. On the CPU
        all is known from the start.
        """
        if self._dispatch is None or self._dispatch.settled:
            return
        self._dispatch.compiled = long_run
        if not clips and self._dispatch.precision == "auto":
            self.on_note("there is no clip by which to compare precisions, so it is fp32; --precision names another")
            self._dispatch.precision = "fp32"
        self._dispatch.settle(clips or list(probe_clip(torch.empty((1, *self._dispatch.clip_shape)))))

    def submit(self, clips: Sequence[torch.Tensor], ready: Sequence[Mark] = ()) -> Handle | Done:
        """Begin a batch of at most `batch_size` clips; its handle's `result()` waits for what `run` returns.

        A clip is a uint8 BGR tensor (T, crop, crop, 3): all are on the CPU, or all on the engine's device, where they are
        read after the marks `ready` (CUDA events), and may be written over after the handle's `taken`. On the CPU the batch
        is computed at once.
        """
        return Done(self._run(clips)) if self._dispatch is None else self._dispatch.submit(clips, ready)

    def run(self, clips: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
        """Compute the layers of at most `batch_size` clips.

        A clip is a uint8 BGR tensor (T, crop, crop, 3). Returns float32 (len(clips), D) a layer.
        """
        return self.submit(clips).result()

    def _run(self, clips: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
        for place, clip in zip(self._batch, clips, strict=False):
            place.copy_(clip)
        self._batch[len(clips) :] = 0
        with torch.inference_mode():
            if self._name == "folded":
                activations = self._network(self._batch)
            else:
                activations = self._network(self._preprocess.normalise(self._batch))
            # (N, C, T, H, W) -> (N, D)
            return {layer: x[: len(clips)].flatten(1).float().numpy() for layer, x in activations.items()}


def check_engine(name: str, precision: str, device: torch.device) -> None:
    """Raise UnknownNameError or UsageError for an engine or a precision that a device has not, or that exclude each other."""
    device_type = device.type
    check_precision(precision, device_type)
    if name not in (*ENGINES, *GPU_ENGINES, "auto"):
        raise UnknownNameError("engine", name, (*ENGINES, *GPU_ENGINES, "auto"))
    if name == "auto":
        return
    if unavailable(name, device_type):
        raise UsageError(f"engine '{name}' was asked for, but {unavailable(name, device_type)}; {WITHOUT}")
    if name in ENGINES and precision not in ("auto", "fp32"):
        raise UsageError(
            f"engine '{name}' computes in fp32, but precision '{precision}' was asked for; leave one of the two out"
        )
