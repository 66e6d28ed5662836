"""How a CPU runs a backbone: its operations, joined into fewer and faster ones, once, when the weights are loaded.

    plan = make_plan(backbone, (3, 16, 112, 112), ["fc6"])
    plan(clips)                              the same numbers as backbone(clips, ["fc6"]), to rounding

A convolution takes in what follows it: BatchNorm (into its weights), a residual, ReLU, a max pool. Then it runs

    by Winograd's algorithm   3x3x3 and 1x3x3 of stride 1, where `_winograd_pays`
    by filtering in time      the first layer, of few input channels, where it reaches over several frames
    directly                  every other one that is in one group, and fully connected layers
    by oneDNN                 the rest, its weights laid out beforehand
    in plain PyTorch          where the means above are missing

and so by rule, not by measurement: equal networks on equal machines run, and round, in the same way. Activations lie in
memory as N, T, H, W, C from the first layer to the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from featx.backbones.base import Backbone
from featx.engine import memory, native
from featx.engine.graph import Graph, Operation, Value, after_change, mapped, record
from featx.engine.layers import LANES, DirectConvolution, Linear, MaxPool, TimeConvolution, WinogradConvolution

__all__ = ["NATIVE", "Convolution", "Joiner", "Plan", "Step", "make_plan"]

NATIVE = ("winograd", "time", "direct", "pool")  # the means that are our own


@dataclass(frozen=True)
class Convolution:
    """A convolution with what it has taken in; two-dimensional ones are written with one step in time.

    `weight` (c_out, c_in / groups, kT, kH, kW) and `bias` (c_out,) have BatchNorm in them. `pool` is the size and stride in
    time and in space of a max pool after the ReLU, whose sizes round up.
    """

    input: Value
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int, int]
    padding: tuple[int, int, int]
    dilation: tuple[int, int, int]
    groups: int
    flat: bool  # two-dimensional in the network
    residual: Value | None = None
    residual_factor: float = 1.0  # what the residual is multiplied by
    relu: bool = False
    pool: tuple[int, int] = (1, 1)

    def output_shape(self) -> tuple[int, ...]:
        """(C, T, H, W) before the pool."""
        size = (1, *self.input.shape[2:]) if self.flat else self.input.shape[2:]
        kernel = self.weight.shape[2:]
        sizes = zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        return (len(self.weight), *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes))


class Means(Protocol):
    """One way to run a Convolution."""

    def __call__(self, x: Tensor, residual: Tensor | None) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """One operation of a plan: `run` takes the tensors of `inputs` and gives that of `result`.

    `means` says how, for people: one of NATIVE, "onednn" or "torch".
    """

    name: str
    means: str
    run: Callable[..., Tensor]
    inputs: tuple[Value, ...]
    result: Value


class Plan:
    """The steps of a network in order; called with float32 clips (N, C, T, H, W), it gives a tensor a layer."""

    def __init__(self, graph_input: Value, steps: list[Step], layers: dict[str, Value]) -> None:
        self.steps, self._input, self._layers = steps, graph_input, layers
        last = {value: i for i, step in enumerate(steps) for value in step.inputs}
        kept = set(layers.values())
        # what nothing but convolutions and pools reads, and so nothing shows a part of, can be written over when it is done
        made = {s.result for s in steps if s.means in NATIVE and len(s.result.shape) == 5}
        shown = {
            value for step in steps if step.name not in ("convolution", "max_pool3d", "mean") for value in step.inputs
        }
        self._recyclable = made - shown - kept
        # after each step, what no later one needs
        self._done = [[v for v in step.inputs if last[v] == i and v not in kept] for i, step in enumerate(steps)]

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        with memory.recycled_for(self):
            return self._run(clips)

    def _run(self, clips: Tensor) -> dict[str, Tensor]:
        tensors = {self._input: clips.contiguous(memory_format=torch.channels_last_3d)}
        for step, done in zip(self.steps, self._done, strict=True):
            tensors[step.result] = step.run(*(tensors[value] for value in step.inputs))
            for value in done:
                tensor = tensors.pop(value, None)
                if tensor is not None and value in self._recyclable:
                    memory.recycle(tensor)
        return {layer: tensors[value] for layer, value in self._layers.items()}

    def count_means(self) -> Counter:
        """How many convolutions run by which means."""
        return Counter(step.means for step in self.steps if step.name == "convolution")


def make_plan(
    backbone: Backbone, clip_shape: Sequence[int], layers: Sequence[str], means: Sequence[str] | None = None
) -> Plan:
    """The plan of a backbone in evaluation mode for clips (C, T, H, W) and the layers asked for.

    `means` are those that may be used (default: all that are there). Raises NotImplementedError for a network whose
    operations cannot be written down one by one.
    """
    allowed = set(available_means() if means is None else means)
    graph = record(backbone, clip_shape, layers)
    return Plan(graph.input, Joiner(graph, allowed).steps(), graph.layers)


def available_means() -> list[str]:
    """Of NATIVE, "onednn" and "torch", those that this machine has."""
    found = [*NATIVE] if native.kernels() is not None else []
    return [*found, *(["onednn"] if torch.backends.mkldnn.is_available() else []), "torch"]


# ------------------------------------------------------------------------------------------------ joining operations


class Joiner:
    """Goes through the operations once; a convolution waits for what it can take in, as long as nothing else reads it.

    Another device overrides the last three methods.
    """

    def __init__(self, graph: Graph, allowed: set[str]) -> None:
        self._graph, self._allowed = graph, allowed
        self._readers = Counter(value for operation in graph.operations for value in operation.inputs())
        self._readers.update(graph.layers.values())  # a layer is read by the caller
        self._layers = set(graph.layers.values())
        # parts of a tensor that are changed in place for the tensor's sake: the memory itself must be changed
        self._seen_otherwise = {op.inputs()[1] for op in graph.operations if op.function is after_change}
        self._waiting: dict[Value, Convolution] = {}
        self._scaled: dict[Value, Operation] = {}  # products with a number, which wait for a convolution to add them to
        self._steps: list[Step] = []

    def steps(self) -> list[Step]:
        for operation in self._graph.operations:
            joined = self._join(operation)
            if joined is None:
                # what changes a tensor in place must not overtake a convolution that reads the tensor
                for value in [*self._waiting, *self._scaled] if operation.changes else operation.inputs():
                    self._flush(value)
                if _is_scaling(operation) and self._is_read_once(operation.result):
                    self._scaled[operation.result] = operation
                else:
                    self._steps.append(self.plain_step(operation))
                continue
            self._waiting[operation.result] = joined
            if not self._is_read_once(operation.result):
                self._flush(operation.result)
        for value in [*self._waiting, *self._scaled]:
            self._flush(value)
        return self._steps

    def _is_read_once(self, value: Value) -> bool:
        """Whether one operation reads it, and nobody else."""
        return self._readers[value] == 1 and value not in self._layers

    def _flush(self, value: Value) -> None:
        """Make a step of what gives `value`, if it still waits."""
        if value in self._scaled:
            self._steps.append(self.plain_step(self._scaled.pop(value)))
        convolution = self._waiting.pop(value, None)
        if convolution is not None:
            self._steps.append(self.convolution_step(convolution, value))

    def _join(self, operation: Operation) -> Convolution | None:
        """The convolution that `operation` is, or that takes it in; None where it stands alone."""
        if operation.result in self._seen_otherwise:
            return None
        if operation.name in ("conv2d", "conv3d"):
            convolution = _read_convolution(operation)
            if convolution is not None:
                self._flush(convolution.input)
            return convolution
        if operation.name == "add":
            return self._join_add(operation)
        before = self._waiting.get(operation.inputs()[0]) if operation.inputs() else None
        if before is None:
            return None
        joined = None
        if _is_fixed_norm(operation) and before.residual is None and not before.relu and before.pool == (1, 1):
            joined = _fold_batch_norm(before, operation)
        elif _is_scaling(operation) and before.residual is None and not before.relu and before.pool == (1, 1):
            factor = _factor(operation)
            joined = replace(before, weight=before.weight * factor, bias=before.bias * factor)
        elif operation.name == "relu" and not before.relu and before.pool == (1, 1):
            joined = replace(before, relu=True)
        elif operation.name == "max_pool3d" and not before.flat and before.residual is None and before.pool == (1, 1):
            joined = self._join_pool(before, operation)
        if joined is not None:
            del self._waiting[operation.inputs()[0]]
        return joined

    def _join_add(self, operation: Operation) -> Convolution | None:
        values = operation.inputs()
        if len(values) != 2 or values[0].shape != values[1].shape or operation.keywords.get("alpha", 1) != 1:
            return None
        for value, other in (values, reversed(values)):
            before = self._waiting.get(value)
            if (
                before is not None
                and before.residual is None
                and not before.relu
                and before.pool == (1, 1)
                and value != other
            ):
                del self._waiting[value]
                scaled = self._scaled.pop(other, None)
                if scaled is not None:
                    return replace(before, residual=scaled.inputs()[0], residual_factor=_factor(scaled))
                self._flush(other)
                return replace(before, residual=other)
        return None

    def _join_pool(self, before: Convolution, operation: Operation) -> Convolution | None:
        pool = _read_pool(operation, before)
        joined = replace(before, pool=pool or (1, 1))
        return joined if pool and self.takes_pool(joined) else None

    def takes_pool(self, convolution: Convolution) -> bool:
        """Whether a convolution with a pool runs as one step."""
        return _choose(convolution, self._allowed) in NATIVE

    def convolution_step(self, convolution: Convolution, result: Value) -> Step:
        return _convolution_step(convolution, result, self._allowed)

    def plain_step(self, operation: Operation) -> Step:
        """The step of an operation that no convolution takes in."""
        allowed = self._allowed
        return _pool_step(operation, allowed) or _linear_step(operation, allowed) or _plain_step(operation)


def _three(sizes: Sequence[int] | int, first: int) -> tuple[int, int, int]:
    """Sizes in T, H, W: PyTorch may write one for all, and those of a picture lack the first."""
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if len(sizes) == 1:
        sizes = sizes * 3
    return tuple(sizes if len(sizes) == 3 else [first, *sizes])


def _read_convolution(operation: Operation) -> Convolution | None:
    """None for one that is no plain layer: of a single clip, with a computed weight, or with padding by name."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, operation.arguments, strict=False)) | operation.keywords
    flat = operation.name == "conv2d"
    own = all(not isinstance(given.get(name), Value) for name in ("weight", "bias"))
    batch = isinstance(given["input"], Value) and len(given["input"].shape) == given["weight"].ndim if own else False
    if not batch or isinstance(given.get("padding"), str):
        return None
    weight = given["weight"].detach()
    weight = weight.unsqueeze(2) if flat else weight  # (c_out, c_in, kH, kW) -> (c_out, c_in, 1, kH, kW)
    bias = given.get("bias")
    stride, padding, dilation = (
        ((first, *_three(given.get(name, default), first)[1:]) if flat else _three(given.get(name, default), first))
        for name, default, first in (("stride", 1, 1), ("padding", 0, 0), ("dilation", 1, 1))
    )
    frames = 1 if flat else given["input"].shape[2]
    if frames == dilation[0] == 1 and weight.shape[2] == 2 * padding[0] + 1:  # all but the middle tap meet padding only
        weight, padding = weight[:, :, padding[0] : padding[0] + 1], (0, *padding[1:])
    return Convolution(
        given["input"], weight, weight.new_zeros(len(weight)) if bias is None else bias.detach(),
        stride, padding, dilation, given.get("groups", 1), flat,
    )  # fmt: skip


def _is_scaling(operation: Operation) -> bool:
    """Whether it multiplies a tensor by a number."""
    return operation.name == "mul" and not operation.changes and isinstance(_factor(operation), int | float)


def _factor(operation: Operation) -> object:
    """The other thing that a product multiplies its Value by."""
    return next((x for x in operation.arguments if not isinstance(x, Value)), None)


def _is_fixed_norm(operation: Operation) -> bool:
    """Whether it is a BatchNorm whose statistics are the network's own, not those of the clips."""
    return (
        operation.name == "batch_norm" and not operation.arguments[5]
        and all(isinstance(x, Tensor | None) for x in operation.arguments[1:5])
    )  # fmt: skip


def _fold_batch_norm(convolution: Convolution, operation: Operation) -> Convolution:
    """gamma * (w x + b - mean) / sqrt(variance + eps) + beta, as one convolution; in double precision, as it is done once."""
    _, gamma, beta, mean, variance, _, _, eps, *_ = operation.arguments
    factor = 1 / torch.sqrt(variance.double() + eps)
    if gamma is not None:
        factor = factor * gamma.detach().double()
    weight = convolution.weight.double() * factor.view(-1, 1, 1, 1, 1)
    bias = (convolution.bias.double() - mean.double()) * factor
    if beta is not None:
        bias = bias + beta.detach().double()
    return replace(convolution, weight=weight.float(), bias=bias.float())


def _read_pool(operation: Operation, before: Convolution) -> tuple[int, int] | None:
    """(time, space) of a max pool of size 1 or 2 and equal stride that rounds up or need not; None for another."""
    kernel, stride, padding, dilation, rounds_up = _read_pool_sizes(operation)
    if kernel != stride or kernel[0] not in (1, 2) or kernel[1] != kernel[2] or kernel[1] not in (1, 2):
        return None
    if any(padding) or set(dilation) != {1}:
        return None
    sizes = before.output_shape()[1:]
    if not rounds_up and any(size % k for size, k in zip(sizes, kernel, strict=True)):
        return None
    return kernel[0], kernel[1]


def _read_pool_sizes(operation: Operation) -> tuple:
    """Kernel, stride, padding and dilation of a max pool in T, H, W, and whether sizes round up."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, operation.arguments, strict=False)) | operation.keywords
    kernel = _three(given["kernel_size"], 1)
    stride = _three(given.get("stride") or kernel, 1)
    padding, dilation = _three(given.get("padding", 0), 0), _three(given.get("dilation", 1), 1)
    return kernel, stride, padding, dilation, bool(given.get("ceil_mode", False))


# ------------------------------------------------------------------------------------------------ choosing the means


def _choose(c: Convolution, allowed: set[str]) -> str:
    """By which means a convolution runs; with a pool, "onednn" or "torch" say that none takes it."""
    if c.groups == 1 and c.dilation == (1, 1, 1):
        if "winograd" in allowed and _winograd_pays(c):
            return "winograd"
        if "time" in allowed and _filtering_in_time_pays(c) and c.pool[0] == 1:
            return "time"
        pooled = c.pool == (1, 1) or (c.pool == (1, 2) and c.residual is None)
        if "direct" in allowed and DirectConvolution.takes(c.weight, c.padding) and pooled:
            return "direct"
    return "onednn" if "onednn" in allowed and c.pool == (1, 1) else "torch"


def _filtering_in_time_pays(c: Convolution) -> bool:
    """Whether F(4, kT) takes the convolution, and most of what it computes is wanted."""
    return TimeConvolution.takes(c.weight, c.stride, c.padding) and c.residual is None and c.input.shape[2] >= 4


def _winograd_pays(convolution: Convolution) -> bool:
    """Whether Winograd's algorithm takes the convolution, and saves more than its transforms cost."""
    kernel_t = convolution.weight.shape[2]
    return (
        WinogradConvolution.takes(convolution.weight)
        and convolution.stride == (1, 1, 1)
        and convolution.padding == (kernel_t // 2, 1, 1)
        and min(convolution.weight.shape[:2]) >= 16
    )


def _time_tile(convolution: Convolution) -> int:
    """F(2, 3) in time saves a third of the products, and reads a third more of filters: it pays unless there are few tiles."""
    _, t, h, w = convolution.output_shape()
    return 2 if convolution.weight.shape[2] == 3 and t >= 4 and h * w >= 144 else 1


def _convolution_step(convolution: Convolution, result: Value, allowed: set[str]) -> Step:
    means = _choose(convolution, allowed)
    make = {"winograd": _winograd, "time": _in_time, "direct": _direct, "onednn": _onednn, "torch": _torch}[means]
    run = make(convolution)
    if convolution.flat:
        run = _flattened(run)
    inputs = (convolution.input,) if convolution.residual is None else (convolution.input, convolution.residual)
    return Step("convolution", means, run, inputs, result)


def _winograd(c: Convolution) -> Means:
    how = {"relu": c.relu, "pool": c.pool, "residual_factor": c.residual_factor}
    return WinogradConvolution(c.weight, c.bias, time_tile=_time_tile(c), **how)


def _direct(c: Convolution) -> Means:
    how = {"relu": c.relu, "pool": c.pool, "residual_factor": c.residual_factor}
    return DirectConvolution(c.weight, c.bias, stride=c.stride, padding=c.padding, **how)


def _in_time(c: Convolution) -> Means:
    return TimeConvolution(c.weight, c.bias, stride=c.stride, padding=c.padding, relu=c.relu, pool=c.pool)


def _onednn(c: Convolution) -> Means:
    size = (1, *c.input.shape[1:2], *((1, *c.input.shape[2:]) if c.flat else c.input.shape[2:]))
    where = (list(c.padding), list(c.stride), list(c.dilation), c.groups)
    weight = torch._C._nn.mkldnn_reorder_conv3d_weight(c.weight.to_mkldnn(), *where, size)
    unary = "relu" if c.relu else "none"

    def run(x: Tensor, residual: Tensor | None = None) -> Tensor:
        convolve = torch.ops.mkldnn._convolution_pointwise
        if residual is None:
            return convolve(x, weight, c.bias, *where, unary, [], "")
        if c.residual_factor != 1:
            residual = c.residual_factor * residual
        return convolve.binary(x, residual, weight, c.bias, *where, "add", 1.0, unary if c.relu else None, [], None)

    return run


def _torch(c: Convolution) -> Means:
    def run(x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = functional.conv3d(x, c.weight, c.bias, c.stride, c.padding, c.dilation, c.groups)
        if residual is not None:
            y += residual if c.residual_factor == 1 else c.residual_factor * residual
        return y.relu_() if c.relu else y

    return run


def _flattened(run: Means) -> Means:
    """For (N, C, H, W): as one step in time."""

    def flat(x: Tensor, residual: Tensor | None = None) -> Tensor:
        return run(x.unsqueeze(2), None if residual is None else residual.unsqueeze(2)).squeeze(2)

    return flat


def _linear_step(operation: Operation, allowed: set[str]) -> Step | None:
    """A fully connected layer by our own kernel; None where it takes none."""
    if operation.name != "linear" or "direct" not in allowed or len(operation.inputs()) != 1:
        return None
    given = dict(zip(("input", "weight", "bias"), operation.arguments, strict=False)) | operation.keywords
    weight, bias = given["weight"].detach(), given.get("bias")
    if len(operation.inputs()[0].shape) != 2 or not Linear.takes(weight):
        return None
    layer = Linear(weight, weight.new_zeros(len(weight)) if bias is None else bias.detach())
    return Step("linear", "direct", layer, tuple(operation.inputs()), operation.result)


def _pool_step(operation: Operation, allowed: set[str]) -> Step | None:
    """A max pool by our own kernel; None where it takes none."""
    if operation.name != "max_pool3d" or "pool" not in allowed or len(operation.inputs()[0].shape) != 5:
        return None
    kernel, stride, padding, dilation, rounds_up = _read_pool_sizes(operation)
    if operation.inputs()[0].shape[1] % LANES or set(dilation) != {1}:
        return None
    return Step(
        "max_pool3d", "pool", MaxPool(kernel, stride, padding, rounds_up), tuple(operation.inputs()), operation.result
    )


def _plain_step(operation: Operation) -> Step:
    """The operation as the network has it."""
    inputs = tuple(operation.inputs())

    def run(*tensors: Tensor) -> Tensor:
        given = dict(zip(inputs, tensors, strict=True))
        arguments, keywords = mapped(
            (operation.arguments, operation.keywords), lambda x: given.get(x, x) if isinstance(x, Value) else x
        )
        return operation.function(*arguments, **keywords)

    return Step(operation.name, "torch", run, inputs, operation.result)
