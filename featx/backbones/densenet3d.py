"""The 3D DenseNets of Hara et al. 2018 (DenseNet-BC: bottlenecks, and transitions that halve the channels)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.backbones.blocks import BatchNorm
from featx.errors import UsageError

__all__ = ["DenseNet3D"]

BOTTLENECK = 4  # channels of a layer's 1x1x1 convolution, in units of the growth


class DenseNet3D(Backbone):
    """3D DenseNet: conv1 (7x7x7), max pool, four dense blocks with transitions between, average, one linear layer.

    Clips are (N, in_channels, T, H, W). With 16 x 112 x 112: conv1 64x16x56x56, pool1 64x8x28x28, dense2 256x8x28x28,
    dense3 512x4x14x14, dense4 1024x2x7x7 (1792 in DenseNet-201), dense5 1024x1x3x3 (1920), pool5 as many channels,
    prob num_classes. conv1, pool1 and pool5 are after a ReLU; dense2 to dense5 are what the layers of a block give,
    side by side, before the BatchNorm and ReLU that the transition, or pool5, begins with.

    `blocks` are the numbers of layers of dense2 to dense5, each of which adds `growth` channels to the `stem_width` of
    conv1. The published code averages over ceil(T / 16) x floor(H / 32) x floor(W / 32). For pool5 and above, clips
    whose last map is of another size (that code fails on them, or leaves out a border) raise UsageError.
    """

    def __init__(
        self,
        num_classes: int = 400,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        in_channels: int = 3,
        stem_width: int = 64,
    ) -> None:
        super().__init__()
        if len(blocks) != 4:
            raise UsageError(
                f"blocks are {list(blocks)}; a DenseNet3D has four, the numbers of layers of dense2 to dense5"
            )
        self.conv1 = nn.Conv3d(in_channels, stem_width, 7, (1, 2, 2), padding=3, bias=False)
        self.bn_conv1 = BatchNorm(stem_width)
        channels = stem_width
        for stage, num_layers in enumerate(blocks, start=2):
            self.add_module(f"dense{stage}", DenseBlock(channels, num_layers, growth))
            channels += num_layers * growth
            if stage < 5:
                self.add_module(f"transition{stage}", Transition(channels, channels // 2))
                channels //= 2
        self.bn_pool5 = BatchNorm(channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, clips: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        if {"pool5", "prob"} & set(layers):
            _check_size(*clips.shape[2:])
        return super().forward(clips, layers)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        yield "conv1", lambda x: F.relu(self.bn_conv1(self.conv1(x)), inplace=True)
        yield "pool1", lambda x: F.max_pool3d(x, 3, 2, padding=1)
        for stage in (2, 3, 4):
            yield f"dense{stage}", getattr(self, f"dense{stage}")
            yield f"_transition{stage}", getattr(self, f"transition{stage}")
        yield "dense5", self.dense5
        yield "pool5", lambda x: F.relu(self.bn_pool5(x), inplace=True).mean((2, 3, 4))  # (N, C, T, H, W) -> (N, C)
        yield "prob", lambda x: F.softmax(self.fc(x), dim=1)


class DenseBlock(nn.Sequential):
    """`num_layers` dense layers, each of which sees what all before it gave."""

    def __init__(self, in_channels: int, num_layers: int, growth: int) -> None:
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"layer{i + 1}", DenseLayer(in_channels + i * growth, growth))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU and a 1x1x1 convolution (a), the same with 3x3x3 (b); the result goes behind the input's channels."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn_a = BatchNorm(in_channels)
        self.conv_a = nn.Conv3d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.bn_b = BatchNorm(BOTTLENECK * growth)
        self.conv_b = nn.Conv3d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_a(F.relu(self.bn_a(x), inplace=True))
        y = self.conv_b(F.relu(self.bn_b(y), inplace=True))
        return torch.cat((x, y), dim=1)


class Transition(nn.Module):
    """BatchNorm, ReLU, a 1x1x1 convolution that halves the channels, and a 2x2x2 average that halves the size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.bn = BatchNorm(in_channels)
        self.conv = nn.Conv3d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 2:
            raise UsageError(
                f"a transition of DenseNet3D averages 2x2x2, but these clips leave {'x'.join(map(str, x.shape[2:]))}; "
                "use at least 16 frames a clip and a crop of at least 32"
            )
        return F.avg_pool3d(self.conv(F.relu(self.bn(x), inplace=True)), 2)


def _check_size(num_frames: int, height: int, width: int) -> None:
    last_map = (-(-num_frames // 2) // 8, -(-height // 4) // 8, -(-width // 4) // 8)
    averaged = (-(-num_frames // 16), height // 32, width // 32)
    if last_map != averaged or 0 in last_map:
        raise UsageError(
            f"DenseNet3D averages {'x'.join(map(str, averaged))} for clips of {num_frames}x{height}x{width}, but their "
            f"last map is {'x'.join(map(str, last_map))}; use 16 frames a clip and a crop of 112"
        )
