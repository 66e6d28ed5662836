"""Res3D: the 3D ResNet-18 of Tran et al. 2017 (papers: table 2; published: c3d_resnet18_sports1m_r2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.backbones.blocks import BasicBlock, BatchNorm

__all__ = ["Res3D"]


class Res3D(Backbone):
    """3D ResNet-18: conv1, four stages of two basic blocks, global average, one linear layer.

    Clips are (N, in_channels, T, H, W). With 8 x 112 x 112 and the published widths: conv1 64x8x56x56, res2b the same,
    res3b 128x4x28x28, res4b 256x2x14x14, res5b 512x1x7x7, pool5 512, prob num_classes; all but prob are after a ReLU.
    Every stage's first block projects its shortcut, that of res2a too, where nothing changes size.
    """

    def __init__(
        self, num_classes: int = 487, widths: Sequence[int] = (64, 128, 256, 512), in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, widths[0], (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn_conv1 = BatchNorm(widths[0])
        self._blocks: list[str] = []
        channels = widths[0]
        for number, width in enumerate(widths, start=2):
            for letter in "ab":
                first = letter == "a"
                block = BasicBlock(channels, width, stride=2 if first and number > 2 else 1, project=first)
                self.add_module(f"res{number}{letter}", block)
                self._blocks.append(f"res{number}{letter}")
                channels = width
        self.fc8 = nn.Linear(channels, num_classes)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        yield "conv1", self._stem
        for name in self._blocks:
            yield name, getattr(self, name)
        yield "pool5", lambda x: x.mean((2, 3, 4))  # (N, C, T, H, W) -> (N, C)
        yield "prob", lambda x: F.softmax(self.fc8(x), dim=1)

    def _stem(self, clips: Tensor) -> Tensor:
        return F.relu(self.bn_conv1(self.conv1(clips)), inplace=True)
