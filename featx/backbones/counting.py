"""How large a backbone is, and how much it computes for a clip, found without computing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from featx.backbones.base import Backbone, on_meta
from featx.backbones.shapes import ShapesOnly, has_rule, result_of

__all__ = ["Counts", "count", "multiply_adds_by_module", "survey"]


@dataclass(frozen=True)
class Counts:
    """Size and work of a backbone.

    `parameters` are the numbers that training changes: weights, biases, BatchNorm's gammas and betas, but not its means
    and variances. `multiply_adds` are those of all convolutions and matrix products for one clip, where a kernel that
    overlaps the padding counts whole; what papers print as FLOPs.
    """

    parameters: int
    multiply_adds: int


def count(backbone: Backbone, clip_shape: Sequence[int], layers: Sequence[str] | None = None) -> Counts:
    """Count for one clip of shape (C, T, H, W) that goes up to the highest of `layers` (default: through every one).

    Takes no memory for activations.
    """
    return survey(backbone, clip_shape, layers)[0]


def survey(
    backbone: Backbone, clip_shape: Sequence[int], layers: Sequence[str] | None = None
) -> tuple[Counts, dict[str, tuple[int, ...]]]:
    """`count`, and with it the shape of `layers` for one clip, as `Backbone.layer_shapes` gives it; in one pass."""
    skeleton = on_meta(backbone)
    clip = torch.empty((1, *clip_shape), device="meta")
    with torch.inference_mode(), _Counter() as counter:
        activations = skeleton(clip, layers or skeleton.layer_names)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    shapes = {name: tuple(activation.shape[1:]) for name, activation in activations.items()}
    return Counts(parameters, counter.multiply_adds), shapes


class _Counter(ShapesOnly):
    """Adds up multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _LAYERS:
            result = result_of(function, args, kwargs)
            self.multiply_adds += (
                result.numel() * args[1][0].numel()
            )  # a number takes one for each weight of its channel
            return result
        formula = flop_registry.get(function.overloadpacket)
        if formula is not None:
            result = result_of(function, args, kwargs)
            self.multiply_adds += formula(*args, **kwargs, out_val=result) // 2
            return result
        if has_rule(function):
            return result_of(function, args, kwargs)
        with self:  # it may be made of others, such as a matmul of a bmm
            parts = function.decompose(*args, **kwargs)
        return result_of(function, args, kwargs) if parts is NotImplemented else parts


_aten = torch.ops.aten
_LAYERS = (_aten.conv2d.default, _aten.conv3d.default, _aten.linear.default)


def multiply_adds_by_module(backbone: Backbone, clip_shape: Sequence[int]) -> dict[str, int]:
    """Multiply-adds for one clip of every module that has some, by its name; a block's hold its parts', "" is the whole.

    Modules are named as in `named_modules`: "res3a", "res3a.branch2a".
    """
    skeleton = on_meta(backbone)
    clip = torch.empty((1, *clip_shape), device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        skeleton(clip, skeleton.layer_names[-1:])
    outermost = type(skeleton).__name__
    counts = {}
    for path, by_operation in counter.get_flop_counts().items():
        if path != "Global":  # the same as the outermost module's
            counts[path.removeprefix(outermost).removeprefix(".")] = sum(by_operation.values()) // 2
    return counts
