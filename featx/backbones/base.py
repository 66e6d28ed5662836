"""What every backbone shares: named layers, computed in order and no further than asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from featx.backbones.shapes import ShapesOnly
from featx.errors import UnknownNameError

Stage = Callable[[Tensor], Tensor]


class Backbone(nn.Module):
    """A 3D ConvNet as a chain of named stages; the name of a stage is the name of its output, a layer.

    A subclass yields its stages from `stages`, lowest first. Stages whose name starts with ``_`` are steps in
    between and cannot be asked for.
    """

    def stages(self) -> Iterator[tuple[str, Stage]]:
        """Yield ``(name, function)`` from the input up; each function takes the previous one's output."""
        raise NotImplementedError

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers that can be asked for, lowest first."""
        return tuple(name for name, _ in self.stages() if not name.startswith("_"))

    def forward(self, clips: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the activations of `layers`, and nothing above the highest of them.

        `clips` is float32 (N, 3, T, H, W), already normalised, with 2 for 3 where the net takes optical flow. Returns a
        tensor a layer in its own shape, (N, C, T, H, W) or (N, D). Raises UnknownNameError for a layer that the backbone
        does not have.
        """
        known = self.layer_names
        for name in layers:
            if name not in known:
                raise UnknownNameError("layer", name, known)
        missing = set(layers)
        activations: dict[str, Tensor] = {}
        x = clips
        for name, stage in self.stages():
            if not missing:
                break
            x = stage(x)
            if name in missing:
                activations[name] = x
                missing.discard(name)
        return {name: activations[name] for name in layers}

    def layer_shapes(
        self, clip_shape: Sequence[int], layers: Sequence[str] | None = None
    ) -> dict[str, tuple[int, ...]]:
        """The shape of `layers` (default: every one) for one clip of shape (C, T, H, W), found without computing anything."""
        skeleton = on_meta(self)
        clip = torch.empty((1, *clip_shape), device="meta")
        with torch.inference_mode(), ShapesOnly():
            return {name: tuple(x.shape[1:]) for name, x in skeleton(clip, layers or self.layer_names).items()}


def on_meta(module: Backbone) -> Backbone:
    """The same backbone with shapes only, in evaluation mode: a copy that shares no memory with the weights.

    One that was built so is its own copy.
    """
    memo, tensors = {}, [*module.parameters(), *module.buffers()]
    if all(tensor.is_meta for tensor in tensors) and not any(part.training for part in module.modules()):
        return module
    for tensor in tensors:
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        memo[id(tensor)] = nn.Parameter(meta) if isinstance(tensor, nn.Parameter) else meta
    return copy.deepcopy(module, memo).eval()
