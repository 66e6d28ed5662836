"""Res3D: the 3D ResNet-18 of Tran et al. 2017 (published: c3d_resnet18_sports1m_r2), and the nets of its family.

They are those of the paper's architecture search, and torchvision's r3d_18, mc3_18 and r2plus1d_18.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.backbones.blocks import BasicBlock, BatchNorm, ResidualBlock, Stride, block_names
from featx.errors import UnknownNameError, UsageError

__all__ = ["Res3D"]

SPLITS = ("paper", "torchvision")
LEAST_POOLED = 1e-4  # taken for less before a power, whose slope is infinite at 0
TORCHVISION_STEM_INNER = 45  # where the paper's formula gives 83


class Res3D(Backbone):
    """3D ResNet of basic blocks: conv1, four stages, global average, one linear layer; no pooling before.

    Clips are (N, in_channels, T, H, W). With 8 x 112 x 112 and the published form: conv1 64x8x56x56, res2b the same,
    res3b 128x4x28x28, res4b 256x2x14x14, res5b 512x1x7x7, pool5 512, prob num_classes; all but prob are after a ReLU.

    `widths` are the channels of res2 to res5 (conv1 has those of res2), `blocks` their numbers of blocks,
    `temporal_strides` the strides in time of their first blocks; in space these are 1, 2, 2, 2. `depths` are the
    extents in time of the kernels of conv1 and res2 to res5: 1 makes a stage two-dimensional. `stem` is the side and
    the stride of conv1's kernel in space. Where sizes change the shortcut is a projection; in res2a, where none does,
    it is one too with `project_res2a`.

    `split` replaces every kernel of depth 3 by a 1xNxN one (its tensors: branch2a_s) with the stride in space,
    BatchNorm and ReLU, and a 3x1x1 one (branch2a_t) with the stride in time. The channels between keep the number of
    weights: as "paper" computes them for each convolution, or as "torchvision" does, once a block. The paper does not
    say what stands between the two; BatchNorm and ReLU are torchvision's.

    pool5 is the paper's average over time and space where `pool_change` is 0 and `pool_power` 1. `pool_change` times the
    average change from one time step of the maps to the next is added: what moves counts for more than what stands
    still. All is taken to the power `pool_power`, above 0 and at most 1: as Perronnin et al. 2010 found for other
    averages, what is seen a little should count for more beside what is seen most.
    """

    def __init__(
        self,
        num_classes: int = 487,
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        blocks: Sequence[int] = (2, 2, 2, 2),
        depths: Sequence[int] = (3, 3, 3, 3, 3),
        temporal_strides: Sequence[int] = (1, 2, 2, 2),
        stem: Sequence[int] = (7, 2),
        project_res2a: bool = True,
        split: str | None = None,
        pool_change: float = 0.0,
        pool_power: float = 1.0,
    ) -> None:
        super().__init__()
        _check(widths, blocks, depths, temporal_strides, split)
        _check_pool(pool_change, pool_power)
        self.pool_change, self.pool_power = pool_change, pool_power
        self.split = split is not None
        side, stride = stem
        channels = widths[0]
        if self.split:
            inner = TORCHVISION_STEM_INNER if split == "torchvision" else inner_channels(in_channels, channels, side)
            _add_split(self, "conv1", in_channels, inner, channels, (1, stride, stride), side=side)
        else:
            kernel, padding = (depths[0], side, side), (depths[0] // 2, side // 2, side // 2)
            self.conv1 = nn.Conv3d(in_channels, channels, kernel, (1, stride, stride), padding, bias=False)
            self.bn_conv1 = BatchNorm(channels)
        self._blocks: list[str] = []
        for stage, width, num_blocks, depth, time in zip(
            (2, 3, 4, 5), widths, blocks, depths[1:], temporal_strides, strict=True
        ):
            for i, name in enumerate(block_names(stage, num_blocks)):
                space = 2 if i == 0 and stage > 2 else 1
                strides = (time if i == 0 else 1, space, space)
                project = i == 0 and (stage > 2 or time > 1 or project_res2a)
                if self.split:
                    block = SplitBlock(channels, width, strides, project, once=split == "torchvision")
                else:
                    block = BasicBlock(channels, width, stride=strides, depth=depth, project=project)
                self.add_module(name, block)
                self._blocks.append(name)
                channels = width
        self.fc8 = nn.Linear(channels, num_classes)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        yield "conv1", self._stem
        for name in self._blocks:
            yield name, getattr(self, name)
        yield "pool5", self._pool
        yield "prob", lambda x: F.softmax(self.fc8(x), dim=1)

    def extra_repr(self) -> str:
        """The form of pool5, which no module of its own shows."""
        return f"pool_change={self.pool_change:g}, pool_power={self.pool_power:g}"

    def _pool(self, maps: Tensor) -> Tensor:
        pooled = maps.mean((2, 3, 4))  # (N, C, T, H, W) -> (N, C)
        if self.pool_change and maps.shape[2] > 1:
            changes = (maps[:, :, 1:] - maps[:, :, :-1]).abs().mean((2, 3, 4))
            pooled = pooled + self.pool_change * changes
        return pooled if self.pool_power == 1 else pooled.clamp_min(LEAST_POOLED) ** self.pool_power

    def _stem(self, clips: Tensor) -> Tensor:
        x = _run_split(self, "conv1", clips) if self.split else self.bn_conv1(self.conv1(clips))
        return F.relu(x, inplace=True)


class SplitBlock(ResidualBlock):
    """A basic block whose two 3x3x3 convolutions are split in space and time; `once`: both have as many inner channels."""

    def __init__(self, in_channels: int, channels: int, stride: Stride, project: bool, *, once: bool) -> None:
        super().__init__(stride, project)
        inner = inner_channels(in_channels, channels)
        _add_split(self, "branch2a", in_channels, inner, channels, self.stride)
        _add_split(self, "branch2b", channels, inner if once else inner_channels(channels, channels), channels)
        if project:
            self._make_projection(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(_run_split(self, "branch2a", x), inplace=True)
        y = _run_split(self, "branch2b", y)
        return F.relu(self._add_shortcut(y, x), inplace=True)


def inner_channels(in_channels: int, channels: int, side: int = 3) -> int:
    """Channels between a 1 x side x side and a 3x1x1 kernel that have no more weights than one of 3 x side x side."""
    return 3 * in_channels * channels * side**2 // (in_channels * side**2 + 3 * channels)


def _add_split(
    module: nn.Module,
    name: str,
    in_channels: int,
    inner: int,
    channels: int,
    stride: tuple[int, int, int] = (1, 1, 1),
    *,
    side: int = 3,
) -> None:
    space = nn.Conv3d(in_channels, inner, (1, side, side), (1, *stride[1:]), (0, side // 2, side // 2), bias=False)
    module.add_module(f"{name}_s", space)
    module.add_module(f"bn_{name}_s", BatchNorm(inner))
    module.add_module(f"{name}_t", nn.Conv3d(inner, channels, (3, 1, 1), (stride[0], 1, 1), (1, 0, 0), bias=False))
    module.add_module(f"bn_{name}_t", BatchNorm(channels))


def _run_split(module: nn.Module, name: str, x: Tensor) -> Tensor:
    for part in ("s", "t"):
        x = getattr(module, f"bn_{name}_{part}")(getattr(module, f"{name}_{part}")(x))
        if part == "s":
            x = F.relu(x, inplace=True)
    return x


def _check(
    widths: Sequence[int], blocks: Sequence[int], depths: Sequence[int], strides: Sequence[int], split: str | None
) -> None:
    for what, values, length in (
        ("widths", widths, 4),
        ("blocks", blocks, 4),
        ("temporal_strides", strides, 4),
        ("depths", depths, 5),
    ):
        if len(values) != length or min(values) < 1:
            raise UsageError(f"{what} of a Res3D is {list(values)}; give {length} positive numbers")
    if any(depth % 2 == 0 for depth in depths):
        raise UsageError(f"depths of a Res3D is {list(depths)}; extents in time are odd")
    if split is not None and split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if split is not None and set(depths) != {3}:
        raise UsageError(f"depths of a split Res3D is {list(depths)}; only kernels of depth 3 are split")


def _check_pool(pool_change: float, pool_power: float) -> None:
    if not pool_change >= 0:
        raise UsageError(f"pool_change of a Res3D is {pool_change:g}; give 0 or more")
    if not 0 < pool_power <= 1:
        raise UsageError(f"pool_power of a Res3D is {pool_power:g}; give a number above 0, at most 1")
