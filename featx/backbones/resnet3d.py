"""The 3D ResNets of Hara et al.: 2017, 2018 (pre-activation, wide, ResNeXt) and the release of 2020."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.backbones.blocks import (
    BasicBlock,
    BatchNorm,
    Bottleneck,
    PreactivationBottleneck,
    ResidualBlock,
    block_names,
)
from featx.errors import UnknownNameError, UsageError

__all__ = ["ResNet3D"]

BLOCKS = ("basic", "bottleneck", "preactivation")
SHORTCUTS = ("A", "B")
STEM_WIDTH = 64  # channels of conv1 in every published net, the wide ones too


class ResNet3D(Backbone):
    """3D ResNet: conv1 (7x7x7), max pool, four stages of residual blocks, global average, one linear layer.

    Clips are (N, in_channels, T, H, W) of any size. With 16 x 112 x 112 and the published widths: conv1 64x16x56x56,
    pool1 64x8x28x28, the last block of res2 Cx8x28x28, of res3 Cx4x14x14, of res4 Cx2x7x7, of res5 Cx1x4x4, pool5 C,
    prob num_classes; C of res5 is 512 with basic blocks and 2048 with the others. All but prob are after a ReLU, except
    with pre-activation, whose blocks end in a sum, and whose pool5 averages that sum as it is.

    `block` is "basic", "bottleneck" or "preactivation"; `blocks` are their numbers in res2 to res5; `widths` are the
    channels of their 3x3x3 convolutions, and `expansion` times that those of a bottleneck's output. `groups` splits
    the 3x3x3 convolutions of bottlenecks. Where a block changes the size or the channels, its shortcut takes every
    second place and adds zero channels (`shortcut` "A") or is a convolution with BatchNorm ("B").

    The published code of 2017 and 2018 averages over ceil(T / 16) x ceil(S / 32) x ceil(S / 32) for the T frames and
    the square crop S that it is told: the whole map, like the global average of 2020.
    """

    def __init__(
        self,
        num_classes: int = 400,
        block: str = "basic",
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        expansion: int = 4,
        groups: int = 1,
        shortcut: str = "B",
        in_channels: int = 3,
        stem_width: int = STEM_WIDTH,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise UnknownNameError("block", block, BLOCKS)
        if shortcut not in SHORTCUTS:
            raise UnknownNameError("shortcut", shortcut, SHORTCUTS)
        if not len(blocks) == len(widths) == 4:
            raise UsageError(
                f"blocks are {list(blocks)} and widths {list(widths)}; a ResNet3D has four of each, res2 to res5"
            )
        self.conv1 = nn.Conv3d(in_channels, stem_width, 7, (1, 2, 2), padding=3, bias=False)
        self.bn_conv1 = BatchNorm(stem_width)
        self._blocks: list[str] = []
        before = stem_width
        for stage, (num_blocks, width) in enumerate(zip(blocks, widths, strict=True), start=2):
            channels = width if block == "basic" else width * expansion
            for i, name in enumerate(block_names(stage, num_blocks)):
                stride = 2 if i == 0 and stage > 2 else 1
                changes = stride > 1 or before != channels
                if shortcut == "A" and channels < before:
                    raise UsageError(
                        f"{name} has {channels} channels after {before}; shortcut A only adds channels, use shortcut B"
                    )
                project = changes and shortcut == "B"
                self.add_module(name, _make_block(block, before, width, channels, stride, groups, project))
                self._blocks.append(name)
                before = channels
        self.fc = nn.Linear(before, num_classes)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        yield "conv1", lambda x: F.relu(self.bn_conv1(self.conv1(x)), inplace=True)
        yield "pool1", lambda x: F.max_pool3d(x, 3, 2, padding=1)
        for name in self._blocks:
            yield name, getattr(self, name)
        yield "pool5", _global_average
        yield "prob", lambda x: F.softmax(self.fc(x), dim=1)


def _make_block(
    kind: str, in_channels: int, width: int, channels: int, stride: int, groups: int, project: bool
) -> ResidualBlock:
    if kind == "basic":
        return BasicBlock(in_channels, width, stride=stride, project=project)
    bottleneck = Bottleneck if kind == "bottleneck" else PreactivationBottleneck
    return bottleneck(in_channels, width, channels, stride=stride, groups=groups, project=project)


def _global_average(x: Tensor) -> Tensor:
    return x.mean((2, 3, 4))  # (N, C, T, H, W) -> (N, C)
