"""What a network must move through a device's memory at least, and why it stays below what the device can multiply.

A layer, with BatchNorm, residual and ReLU that follow it, reads each tensor that it takes and writes one; weights are read once
a batch. That is found from shapes. Whatever copies more, such as a bias that is added in a pass of its own, moves more; what
computes several layers in one kernel may move less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, prod

from torch import Tensor

from featx.backbones.base import Backbone, on_meta
from featx.engine.graph import mapped, record
from featx.engine.plan import Joiner

__all__ = ["LOW", "Traffic", "gain_of_graph", "least_traffic", "reason_below"]

# parts and other shapes of a tensor, and what is done to it while it is written
_MOVE_NOTHING = {
    *("after_change", "detach", "dropout", "expand", "flatten", "permute", "relu", "reshape", "select", "slice"),
    *("split", "squeeze", "t", "transpose", "unsqueeze", "view"),
}

LOW = 0.3  # of the matrix rate: below, a reason is told
SUBSTANTIAL = 0.4  # of a ceiling: least traffic is a part of what is moved, so that a whole is never reached
GRAPH_GAIN = 1.2  # replayed as a graph so many times as fast
SMALL_LAYER_SECONDS = 20e-6  # a layer is a few kernels, and to start one takes a GPU 2 to 5 µs


@dataclass(frozen=True)
class Traffic:
    """Of a network: how many numbers its `num_layers` layers read and write for a clip, and read as weights for a batch."""

    activations: int
    weights: int
    num_layers: int

    def bytes_per_clip(self, batch_size: int, bytes_per_number: int) -> float:
        return bytes_per_number * (self.activations + self.weights / batch_size)


def least_traffic(backbone: Backbone, clip_shape: Sequence[int], layers: Sequence[str]) -> Traffic:
    """What a backbone moves for clips (C, T, H, W) and the layers asked for. No device is used, nor are weights copied.

    Raises NotImplementedError for a network whose operations cannot be written down one by one.
    """
    graph = record(on_meta(backbone), clip_shape, layers)
    steps = [step for step in Joiner(graph, {"torch"}).steps() if step.name not in _MOVE_NOTHING]
    activations = sum(prod(value.shape) for step in steps for value in {*step.inputs, step.result})
    weights: dict[int, Tensor] = {}  # by identity: one that two layers share is one

    def keep(x: object) -> None:
        if isinstance(x, Tensor):
            weights[id(x)] = x

    for operation in graph.operations:
        if operation.name in ("conv2d", "conv3d", "linear"):  # a BatchNorm's go into these
            mapped((operation.arguments, operation.keywords), keep)
    return Traffic(activations, sum(x.numel() for x in weights.values()), len(steps))


def gain_of_graph(notes: Iterable[str], plan: str) -> float | None:
    """How many times as fast a CUDA graph of the plan that was taken is as the same kernels started one by one.

    By an engine's notes; None if these do not tell.
    """
    form = plan.removesuffix("-search").removesuffix("-graph")
    rates = {name: float(rate.replace(",", "")) for note in notes for name, rate in _RATE.findall(note)}
    alone, graph = rates.get(form), rates.get(f"{form}-graph")
    return graph / alone if graph and alone else None


_RATE = re.compile(r"([\w-]+) ([\d,]+) clips/s")  # as `featx.engine.precision.Tried.line` writes it


def reason_below(
    *,
    own: tuple[str, float] | None = None,
    traffic: float | None = None,
    graph_gain: float | None = None,
    is_graph: bool = False,
    layer_seconds: float = inf,
) -> str:
    """Why a forward pass stays below LOW of the matrix rate, in words.

    `own`: a precision, where it is not the ceiling's, and the share of its own matrix rate; `traffic`: of the copy rate the
    share that is moved at least; `is_graph`: whether a CUDA graph is what runs; `layer_seconds`: what a layer takes for a
    batch. The larger of the shares is the reason, where it is substantial; then how short the kernels are.
    """
    name, share = own or ("", 0.0)
    if share >= max(LOW, traffic or 0.0):
        return f"bound by products in {name}, at {share:.0%} of the device's rate of these"
    if traffic is not None and traffic >= SUBSTANTIAL:
        return f"bound by memory traffic, at least {traffic:.0%} of the device's copies"
    if graph_gain is not None and graph_gain >= GRAPH_GAIN:
        return f"bound by kernels so short that a graph of them is {graph_gain:.2f} times as fast as starting them one by one"
    if layer_seconds < SMALL_LAYER_SECONDS:
        beside = "" if is_graph else ", as little as starting its kernels"
        return f"bound by short kernels: a layer takes {1e6 * layer_seconds:.0f} µs{beside}"
    return "bound by neither memory traffic nor short kernels alone"
