"""A backbone for a GPU: BatchNorm in the weights, channels last in memory, weights and activations in one type of number.

    net = folded(backbone, (3, 16, 112, 112), ["fc6"], torch.bfloat16, device)
    net(pixels)                   pixels (N, net.in_channels, T, h, w) in net.dtype; {"fc6": (N, 4096)} in net.dtype

It is a torch.fx.GraphModule, straight-line code, which torch.compile and CUDA graphs take as it is. With `fused` a convolution
hands bias, residual and ReLU to cuDNN, which then writes each activation once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from featx.backbones.base import Backbone
from featx.engine.batches import is_out_of_memory, may_be_out_of_memory
from featx.engine.graph import Graph, Operation, Value, mapped, record
from featx.engine.plan import Convolution, Joiner
from featx.preprocess import Preprocess

__all__ = ["Pixels", "folded", "largest_activation"]

# Tensor cores read channels by 16 bytes; a first layer of 3 is filled up with zeros, which changes no sum.
CHANNEL_MULTIPLES = {torch.float32: 1, torch.bfloat16: 8, torch.float16: 8}


def folded(
    backbone: Backbone,
    clip_shape: Sequence[int],
    layers: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
    *,
    fused: bool = False,
) -> fx.GraphModule:
    """The net of a backbone in evaluation mode, on the CPU, for clips (C, T, H, W) and the layers asked for.

    Raises NotImplementedError for a network whose operations cannot be written down one by one.
    """
    graph = record(backbone, clip_shape, layers)
    in_channels = _padded_channels(graph, dtype)
    with torch.no_grad():
        net = _Writer(graph, dtype, in_channels, fused).net().to(device)
    net.in_channels, net.dtype = in_channels, dtype
    return net.eval()


def _padded_channels(graph: Graph, dtype: torch.dtype) -> int:
    """Channels that the net is given: more than there are, where only plain convolutions read them."""
    channels, multiple = graph.input.shape[1], CHANNEL_MULTIPLES[dtype]
    readers = [operation for operation in graph.operations if graph.input in operation.inputs()]
    plain = all(
        operation.name == "conv3d"
        and operation.inputs() == [graph.input]
        and operation.arguments[1].shape[1] == channels
        for operation in readers
    )
    return -(-channels // multiple) * multiple if plain else channels


class _Writer(Joiner):
    """Writes the joined operations as the code of a net."""

    def __init__(self, graph: Graph, dtype: torch.dtype, in_channels: int, fused: bool) -> None:
        super().__init__(graph, set())
        self._source, self._dtype, self._in_channels, self._fused = graph, dtype, in_channels, fused
        self._root, self._code = nn.Module(), fx.Graph()
        self._nodes: dict[Value, fx.Node] = {graph.input: self._code.placeholder("pixels")}

    def net(self) -> fx.GraphModule:
        self.steps()
        self._code.output({layer: self._nodes[value] for layer, value in self._source.layers.items()})
        return fx.GraphModule(self._root, self._code)

    def takes_pool(self, convolution: Convolution) -> bool:
        return convolution.residual is None

    def convolution_step(self, convolution: Convolution, result: Value) -> None:
        name = f"conv{len(self._nodes)}"
        takes = self._fused and convolution.relu and convolution.residual_factor == 1
        padded = self._in_channels if convolution.input == self._source.input else None
        self._root.add_module(name, (FusedConvolution if takes else PlainConvolution)(convolution, self._dtype, padded))
        inputs = [convolution.input, *([convolution.residual] if convolution.residual is not None else [])]
        self._nodes[result] = self._code.call_module(name, tuple(self._nodes[value] for value in inputs))

    def plain_step(self, operation: Operation) -> None:
        # a BatchNorm that no convolution takes in keeps its float32 statistics, as in mixed precision
        dtype = torch.float32 if operation.name == "batch_norm" else self._dtype

        def written(x: object) -> object:
            if isinstance(x, Value):
                return self._nodes[x]
            if not isinstance(x, Tensor):
                return x
            name = f"tensor{len(list(self._root.buffers(recurse=False)))}"
            tensor = x.detach().to(dtype) if x.is_floating_point() else x.detach()
            self._root.register_buffer(name, tensor.clone(), persistent=False)
            return self._code.get_attr(name)

        arguments, keywords = mapped((operation.arguments, operation.keywords), written)
        widened = operation.name == "avg_pool3d" and self._dtype != torch.float32  # the CPU lacks it; float32 is nearer
        if widened:
            arguments = (self._code.call_method("float", (arguments[0],)), *arguments[1:])
        node = self._code.call_function(operation.function, arguments, keywords)
        if widened:
            node = self._code.call_method("to", (node, self._dtype))
        self._nodes[operation.result] = node


class PlainConvolution(nn.Module):
    """A convolution with what it has taken in, by PyTorch's own operations: (N, C, T, H, W) or (N, C, H, W)."""

    def __init__(self, c: Convolution, dtype: torch.dtype, in_channels: int | None) -> None:
        super().__init__()
        weight = c.weight.detach()
        if in_channels is not None and in_channels > weight.shape[1]:
            weight = functional.pad(weight, (0, 0, 0, 0, 0, 0, 0, in_channels - weight.shape[1]))
        where = (c.stride, c.padding, c.dilation)
        layout = torch.channels_last_3d
        if c.flat:
            weight, where, layout = weight[:, :, 0], tuple(sizes[1:] for sizes in where), torch.channels_last
        self.register_buffer("weight", weight.to(dtype).contiguous(memory_format=layout), persistent=False)
        self.register_buffer("bias", c.bias.detach().to(dtype), persistent=False)
        self.stride, self.padding, self.dilation = (list(sizes) for sizes in where)
        self.groups, self.flat = c.groups, c.flat
        self.relu, self.pool, self.factor = c.relu, c.pool, c.residual_factor

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        pooled = self.pool != (1, 1)
        y = self._convolved(x, None if pooled else self.bias)
        if pooled:  # a maximum is the same before a bias and ReLU, which then have less to do
            y = self._pooled(y).add_(self.bias.view(1, -1, 1, 1, 1))
        if residual is not None:
            y.add_(residual, alpha=self.factor)
        return y.relu_() if self.relu else y

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        convolve = functional.conv2d if self.flat else functional.conv3d
        return convolve(x, self.weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _pooled(self, y: Tensor) -> Tensor:
        time, space = self.pool
        kernel = [time, space, space]
        return functional.max_pool3d(y, kernel, kernel, ceil_mode=True)


class FusedConvolution(PlainConvolution):
    """The same where cuDNN adds bias and residual and applies ReLU before it writes; plain where cuDNN has no such kernel."""

    def __init__(self, c: Convolution, dtype: torch.dtype, in_channels: int | None) -> None:
        super().__init__(c, dtype, in_channels)
        self.works = True

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if not self.works:
            return super().forward(x, residual)
        y, may_lack_memory = self._fused(x, residual)
        if y is None and may_lack_memory and _gave_memory_back():
            y, _ = self._fused(x, residual)
        if y is None:  # after the error is let go, with what its frames hold: the plain way may need that memory
            self.works = False
            return super().forward(x, residual)
        return y if self.pool == (1, 1) else self._pooled(y)

    def _fused(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor | None, bool]:
        """What cuDNN gives, or None where it finds no kernel that does this for these shapes, and whether memory may be why."""
        where = (self.stride, self.padding, self.dilation, self.groups)
        try:
            if residual is None:
                return torch.ops.aten.cudnn_convolution_relu(x, self.weight, self.bias, *where), False
            return torch.ops.aten.cudnn_convolution_add_relu(x, self.weight, residual, 1.0, self.bias, *where), False
        except RuntimeError as error:  # also NotImplementedError
            if is_out_of_memory(error):
                raise
            return None, may_be_out_of_memory(error)


def _gave_memory_back() -> bool:
    """Give back the memory that PyTorch keeps for later; not while a CUDA graph is captured, which may not do that."""
    if not torch.cuda.is_available() or torch.cuda.is_current_stream_capturing():
        return False
    torch.cuda.empty_cache()
    return True


class Pixels:
    """Turns cropped uint8 BGR clips on a device into a folded net's input, as `Preprocess.normalise` does, to rounding.

    What it returns is valid until the next call: its memory, whose surplus channels stay zero, is used again.
    """

    def __init__(
        self, preprocess: Preprocess, length: int, net: fx.GraphModule, device: torch.device, batch_size: int
    ) -> None:
        crop, channels = preprocess.crop, preprocess.num_channels
        # what black and white become: all between lies on a straight line
        ends = [torch.full((1, length, crop, crop, 3), value, dtype=torch.uint8) for value in (0, 255)]
        black, white = (preprocess.normalise(clip)[0].double() for clip in ends)  # (C, T, h, w)
        factor = (white - black) / 255
        factor = factor[:, :1, :1, :1]
        if preprocess.mean_cube is None:
            black = black[:, :1, :1, :1]
        self._shift, self._factor = (x.to(device, torch.float32).contiguous() for x in (black, factor))
        self._is_shift_only = bool((factor == 1).all())
        self._order, self._channels = preprocess.channel_order, channels
        shape = (batch_size, net.in_channels, length, crop, crop)
        self._memory = torch.zeros(shape, dtype=net.dtype, device=device).contiguous(
            memory_format=torch.channels_last_3d
        )

    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 (n, T, crop, crop, 3), n at most the batch size -> (n, in_channels, T, crop, crop)."""
        pixels = clips.permute(0, 4, 1, 2, 3)  # (n, T, h, w, 3) -> (n, 3, T, h, w)
        if self._order == "rgb":
            pixels = pixels.flip(1)
        values = pixels[:, : self._channels]
        values = values + self._shift if self._is_shift_only else (values * self._factor).add_(self._shift)
        filled = self._memory[: len(clips)]
        filled[:, : self._channels].copy_(values)
        return filled


def largest_activation(net: fx.GraphModule, pixels: Tensor) -> float:
    """The largest absolute number that any step of a net writes; NaN where one writes what is not a number."""
    largest: list[Tensor] = []

    class Watching(fx.Interpreter):
        def run_node(self, node: fx.Node):
            result = super().run_node(node)
            if (
                isinstance(result, Tensor)
                and result.is_floating_point()
                and node.op in ("call_module", "call_function")
            ):
                largest.append(result.abs().max().float())
            return result

    with torch.no_grad():
        Watching(net).run(pixels)
    return float(torch.stack(largest).max()) if largest else 0.0
