"""The ways to run a network on a CPU that examples/benchmark.py compares: PyTorch's, OpenVINO's and featx's own.

Each takes a backbone with its weights, and float32 clips as preprocessing leaves them, and gives one layer:

    run = PLANS["jit freeze"](backbone, clips, "fc6")
    run(clips)                                        # (N, C, T, H, W) -> the layer, float32
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from featx.backbones.base import Backbone
from featx.engine import MEANS, unavailable
from featx.engine.plan import make_plan

__all__ = ["OTHERS", "OURS", "PLANS", "TORCH_PLANS", "Absent"]

Run = Callable[[Tensor], Tensor]
Maker = Callable[[Backbone, Tensor, str], Run]


class Absent(Exception):
    """This machine lacks what a plan needs; the message says what."""


class _OneLayer(nn.Module):
    """A backbone that gives one tensor, as the compilers want it."""

    def __init__(self, backbone: Backbone, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer
        self.eval()

    def forward(self, clips: Tensor) -> Tensor:
        return self.backbone(clips, [self.layer])[self.layer]


def _eager(backbone: Backbone, clips: Tensor, layer: str) -> Run:
    """The network as it is written."""
    return lambda clips: backbone(clips.contiguous(), [layer])[layer]


def _folded(backbone: Backbone, clips: Tensor, layer: str) -> Run:
    """BatchNorm folded into the convolutions, which are PyTorch's, and the channels last in memory."""
    return _planned(backbone, clips, layer, ("torch",))


def _jit_freeze(backbone: Backbone, clips: Tensor, layer: str) -> Run:
    """TorchScript, with its fusions for inference."""
    clips = clips.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old, and of asserts on shapes
        traced = torch.jit.trace(_OneLayer(backbone, layer), clips, check_trace=False)
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return lambda clips: frozen(clips.contiguous())


def _compile(backbone: Backbone, clips: Tensor, layer: str) -> Run:
    """torch.compile, with the weights taken as constants ("freezing")."""
    if shutil.which("g++") is None:
        raise Absent("torch.compile needs g++")
    import torch._dynamo
    import torch._inductor.config as inductor

    torch._dynamo.reset()  # what it compiled for the network before
    inductor.freezing = True
    compiled = torch.compile(_OneLayer(backbone, layer))
    return lambda clips: compiled(clips.contiguous())


def _openvino(backbone: Backbone, clips: Tensor, layer: str) -> Run:
    """Intel's OpenVINO in float32, as it converts the network from PyTorch."""
    try:
        import openvino
    except ImportError as error:
        raise Absent("OpenVINO is not installed; 'pip install openvino' does it") from error
    example = clips.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(_OneLayer(backbone, layer), example_input=example)
    model.reshape(list(example.shape))  # sizes known beforehand are faster
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hints})
    return lambda clips: torch.from_numpy(compiled(clips.contiguous().numpy())[0])


def _ours(engine: str) -> Maker:
    def make(backbone: Backbone, clips: Tensor, layer: str) -> Run:
        if unavailable(engine):
            raise Absent(unavailable(engine))
        return _planned(backbone, clips, layer, MEANS[engine])

    return make


def _planned(backbone: Backbone, clips: Tensor, layer: str, means: tuple[str, ...]) -> Run:
    plan = make_plan(backbone, clips.shape[1:], [layer], means)
    return lambda clips: plan(clips)[layer]


TORCH_PLANS: dict[str, Maker] = {
    "torch eager": _eager,
    "torch folded, channels last": _folded,
    "torch.jit freeze": _jit_freeze,
    "torch.compile, freezing": _compile,
}
OTHERS: dict[str, Maker] = {"OpenVINO": _openvino}
OURS: dict[str, Maker] = {"featx onednn": _ours("onednn"), "featx winograd": _ours("winograd")}
PLANS = {**TORCH_PLANS, **OTHERS, **OURS}
