"""What operations give on tensors that have shapes but no numbers (the device "meta"), without PyTorch's compiler.

    with torch.inference_mode(), ShapesOnly():
        y = net(torch.empty((1, 3, 16, 112, 112), device="meta"), net.layer_names)

PyTorch works many of these shapes out in Python, for which it imports its compiler: one to two seconds, more than all
else at the start of a run. Here the ordinary cases of what 3D ConvNets are made of are answered by arithmetic, a rule an
operation; every other case, and every error, is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["ShapesOnly", "has_rule", "result_of"]

Size = Sequence[int]


class ShapesOnly(TorchDispatchMode):
    """While it is on, operations on shapes are answered by `result_of`."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return result_of(function, args, kwargs or {})

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's hook: to keep its compiler out of a mode it would import it; here nothing is compiled."""
        return False


def result_of(function: Any, args: tuple, kwargs: dict) -> Any:
    """What an operation of PyTorch gives for tensors without numbers; raises what it raises."""
    rule = _RULES.get(function)
    tensors = [x for arg in args for x in (arg if isinstance(arg, list | tuple) else [arg]) if isinstance(x, Tensor)]
    if rule is None or kwargs or not _are_alike(tensors):
        return function(*args, **kwargs)
    size = rule(*args)
    if size is None or min(size, default=1) < 1:  # not ordinary, or an error
        return function(*args)
    if function._schema.is_mutable:
        return args[0] if tuple(size) == args[0].shape else function(*args)
    if not all(x.is_contiguous() or (rule in _WALKED and _is_row_major(x)) for x in tensors):
        return function(*args)  # the result's strides would follow theirs
    return torch.empty(size, dtype=tensors[0].dtype, device="meta")


def has_rule(function: Any) -> bool:
    """Whether an operation is answered here, where it is an ordinary one."""
    return function in _RULES


def _are_alike(tensors: list[Tensor]) -> bool:
    """Whether all are without numbers, and of one floating type, which is then the result's."""
    alike = all(x.is_meta and x.dtype == tensors[0].dtype for x in tensors)
    return bool(tensors) and alike and tensors[0].is_floating_point()


def _is_row_major(x: Tensor) -> bool:
    """Whether every step of a dimension is longer than the next one's, as in a part of a contiguous tensor."""
    strides = x.stride()
    return all(a > b for a, b in pairwise(strides))


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = (1,),
    padding: Size | str = (0,),
    dilation: Size = (1,),
    groups: int = 1,
) -> Size | None:
    if isinstance(padding, str) or groups < 1 or x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups:
        return None
    if weight.shape[0] % groups or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    sides = _slid(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return sides and (x.shape[0], weight.shape[0], *sides)


def _max_pool(
    x: Tensor, kernel: Size, stride: Size = (), padding: Size = (0,), dilation: Size = (1,), ceil_mode: bool = False
) -> Size | None:
    if any(2 * p > k for p, k in product(padding, kernel)):
        return None
    sides = _slid(x.shape[2:], kernel, stride or kernel, padding, dilation, ceil_mode)
    return sides and (*x.shape[:2], *sides)


def _average_pool(
    x: Tensor, kernel: Size, stride: Size = (), padding: Size = (0,), ceil_mode: bool = False, *_: object
) -> Size | None:
    return _max_pool(x, kernel, stride, padding, (1,), ceil_mode)


def _slid(sides: Size, *window: Size | bool) -> list[int] | None:
    """How often a window of a kernel, stride, padding and dilation fits, and, rounded up, begins, in each side."""
    *window, up = window if isinstance(window[-1], bool) else (*window, False)
    window = [[n] if isinstance(n, int) else list(n) for n in window]
    window = [n * len(sides) if len(n) == 1 else n for n in window]
    if any(len(n) != len(sides) for n in window):
        return None
    found = []
    for n, k, s, p, d in zip(sides, *window, strict=True):
        reach = d * (k - 1) + 1
        if min(k, s, d) < 1 or p < 0 or n + 2 * p < reach:
            return None
        places = -(-(n + 2 * p - reach) // s) if up else (n + 2 * p - reach) // s
        # a window may not begin in the padding behind the last place
        found.append(places + 1 - (up and places * s >= n + p))
    return found


def _batch_norm(x: Tensor, *parameters: object) -> Size | None:
    fits = all(p.shape == x.shape[1:2] for p in parameters[:4] if isinstance(p, Tensor))
    return x.shape if fits and not parameters[4] else None


def _elementwise(x: Tensor, other: Tensor | float, *_: object) -> Size | None:
    if not isinstance(x, Tensor) or not isinstance(other, Tensor):
        return x.shape if isinstance(x, Tensor) and isinstance(other, int | float) else None
    pairs = list(zip(x.shape, other.shape, strict=False))
    if x.ndim != other.ndim or any(a != b and 1 not in (a, b) for a, b in pairs):
        return None
    return [max(pair) for pair in pairs]


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Size | None:
    first = tensors[0]
    dim = range(first.ndim)[dim] if -first.ndim <= dim < first.ndim else None
    if dim is None or any(x.ndim != first.ndim for x in tensors):
        return None
    rests = [(*x.shape[:dim], *x.shape[dim + 1 :]) for x in tensors]
    if any(rest != rests[0] for rest in rests):
        return None
    return [*first.shape[:dim], sum(x.shape[dim] for x in tensors), *first.shape[dim + 1 :]]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Size | None:
    fits = x.ndim >= 2 == weight.ndim and x.shape[-1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return (*x.shape[:-1], weight.shape[0])


def _mean(x: Tensor, dims: Size | None, keep: bool = False) -> Size | None:
    if not dims or not all(-x.ndim <= dim < x.ndim for dim in dims):
        return None
    gone = {dim % x.ndim for dim in dims}
    if len(gone) < len(dims):
        return None
    return [1 if i in gone else n for i, n in enumerate(x.shape) if keep or i not in gone]


def _softmax(x: Tensor, dim: int, dtype: object = None) -> Size | None:
    return x.shape if dtype is None and -x.ndim <= dim < x.ndim else None


def _same(x: Tensor, *numbers: float) -> Size | None:
    is_real = all(isinstance(number, int | float) for number in numbers)  # a complex one changes the type
    return x.shape if is_real else None


_aten = torch.ops.aten
_RULES: dict[Any, Callable[..., Size | None]] = {
    _aten.conv2d.default: _convolution,
    _aten.conv3d.default: _convolution,
    _aten.batch_norm.default: _batch_norm,
    _aten.max_pool3d.default: _max_pool,
    _aten.avg_pool3d.default: _average_pool,
    _aten.add.Tensor: _elementwise,
    _aten.add_.Tensor: _elementwise,
    _aten.sub.Tensor: _elementwise,
    _aten.mul.Tensor: _elementwise,
    _aten.relu.default: _same,
    _aten.abs.default: _same,
    _aten.sqrt.default: _same,
    _aten.clamp_min.default: _same,
    _aten.pow.Tensor_Scalar: _same,
    _aten.cat.default: _cat,
    _aten.linear.default: _linear,
    _aten.mean.dim: _mean,
    _aten.softmax.int: _softmax,
}
# the rules of operations whose results have the order of dimensions in memory that their operands have
_WALKED = {_elementwise, _same}
