"""P3D: the Pseudo-3D residual nets of Qiu et al. 2017, in the arithmetic of the published Caffe files and two others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.backbones.blocks import BatchNorm, block_names
from featx.errors import UnknownNameError, UsageError

__all__ = ["P3D"]

ARITHMETICS = ("caffe", "port", "paper")
KINDS = ("A", "B", "C")
EXPANSION = 4  # of a bottleneck's width to its output


class P3D(Backbone):
    """Bottleneck residual net whose 3x3x3 convolutions are split into 1x3x3 (in space, S) and 3x1x1 (in time, T).

    Blocks of res2 to res4 cycle through ways of joining S and T, by default A, B, C; res5 is two-dimensional. Clips are
    (N, in_channels, T, H, W), 16 x 160 x 160 for the published weights; T is at most 16, so that one time step is left
    for res5. With the published sizes: res2c 256x8x40x40, res3b7 512x4x20x20, res4b35 1024x2x10x10, res5c
    2048x5x5, pool5 2048, prob num_classes; all but prob are after a ReLU. `width` is that of res2's bottlenecks;
    `blocks` are the numbers of blocks of res2 to res5: P3D-199's by default.

    `arithmetic` "port" computes what the PyTorch port of these weights computes: blocks B and C and pool1 differ.
    "paper" joins S and T by equations 3 to 5: T(S(x)), S(x) + T(x), S(x) + T(S(x)), with the BatchNorm of each and no
    ReLU or factor inside. The equations leave out the bottleneck; taken as in ResNet, a ReLU follows branch2a and the
    joined sum. Pools, strides and the two-dimensional res5, on which the paper is silent, are those of the Caffe files
    (with res5 in three dimensions the net would not have the model size that the paper prints).
    """

    def __init__(
        self,
        num_classes: int = 400,
        blocks: Sequence[int] = (3, 8, 36, 3),
        width: int = 64,
        in_channels: int = 3,
        arithmetic: str = "caffe",
        kinds: Sequence[str] = KINDS,
    ) -> None:
        super().__init__()
        if arithmetic not in ARITHMETICS:
            raise UnknownNameError("arithmetic", arithmetic, ARITHMETICS)
        if not kinds or not set(kinds) <= set(KINDS):
            raise UsageError(f"kinds of a P3D is {list(kinds)}; give some of A, B and C, in the order they take turns")
        if len(blocks) != 4 or min(blocks) < 1:
            raise UsageError(f"blocks of a P3D is {list(blocks)}; give 4 positive numbers")
        self.arithmetic = arithmetic
        self.conv1 = nn.Conv3d(in_channels, width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn_conv1 = BatchNorm(width)
        self._stages: list[list[str]] = []  # names of the blocks of res2 .. res5
        channels, index = width, 0
        for number, num_blocks in enumerate(blocks, start=2):
            names = block_names(number, num_blocks)
            inner = width * 2 ** (number - 2)
            for i, name in enumerate(names):
                kind = "2d" if number == 5 else kinds[index % len(kinds)]
                stride = 2 if i == 0 and number > 2 else 1
                self.add_module(name, P3DBlock(channels, inner, kind, arithmetic, stride=stride, project=i == 0))
                channels = inner * EXPANSION
                index += 1
            self._stages.append(names)
        self.fc = nn.Linear(channels, num_classes)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        yield "conv1", lambda x: F.relu(self.bn_conv1(self.conv1(x)), inplace=True)
        yield "pool1", self._pool1
        for number, names in enumerate(self._stages, start=2):
            if number == 5:
                yield "_res5_reshape", _drop_time
            for name in names:
                yield name, getattr(self, name)
            if number < 5:
                yield f"_res{number + 1}_pool", lambda x: F.max_pool3d(x, (2, 1, 1), ceil_mode=True)
        yield "pool5", lambda x: x.mean((2, 3))  # (N, C, H, W) -> (N, C)
        yield "prob", lambda x: F.softmax(self.fc(x), dim=1)

    def _pool1(self, x: Tensor) -> Tensor:
        if self.arithmetic == "port":
            return F.max_pool3d(x, (2, 3, 3), 2, padding=(0, 1, 1))
        return F.max_pool3d(x, (2, 3, 3), 2, ceil_mode=True)


class P3DBlock(nn.Module):
    """1x1x1 convolution (branch2a, with the stride in space), S and T, 1x1x1 (branch2c), plus the shortcut, then ReLU.

    Every convolution is followed by BatchNorm. `kind` is "A" (T after S), "B" (S beside T), "C" (S, and T after S) or
    "2d" (S only, on (N, C, H, W)). With `project` the shortcut is a 1x1x1 convolution with BatchNorm (branch1).
    """

    def __init__(
        self, in_channels: int, width: int, kind: str, arithmetic: str, *, stride: int = 1, project: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.arithmetic, self.project = kind, arithmetic, project
        out_channels = width * EXPANSION
        if kind == "2d":
            conv, strides, spatial, spatial_padding = nn.Conv2d, stride, 3, 1
        else:
            conv, strides, spatial, spatial_padding = nn.Conv3d, (1, stride, stride), (1, 3, 3), (0, 1, 1)
        self.branch2a = conv(in_channels, width, 1, strides, bias=False)
        self.bn_branch2a = BatchNorm(width)
        self.branch2b = conv(width, width, spatial, padding=spatial_padding, bias=False)
        self.bn_branch2b = BatchNorm(width)
        if kind != "2d":
            self.branch2b_t = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False)
            self.bn_branch2b_t = BatchNorm(width)
        self.branch2c = conv(width, out_channels, 1, bias=False)
        self.bn_branch2c = BatchNorm(out_channels)
        if project:
            self.branch1 = conv(in_channels, out_channels, 1, strides, bias=False)
            self.bn_branch1 = BatchNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn_branch2a(self.branch2a(x)), inplace=True)
        y = self.bn_branch2c(self.branch2c(self._space_and_time(y)))
        y += self.bn_branch1(self.branch1(x)) if self.project else x
        return F.relu(y, inplace=True)

    def _space_and_time(self, x: Tensor) -> Tensor:
        s = self.bn_branch2b(self.branch2b(x))
        if self.arithmetic == "paper" and self.kind != "2d":
            t = self.bn_branch2b_t(self.branch2b_t(x if self.kind == "B" else s))
            return F.relu(t if self.kind == "A" else s + t, inplace=True)
        s = F.relu(s, inplace=True)
        if self.kind == "2d":
            return s
        t = self.bn_branch2b_t(self.branch2b_t(x if self.kind == "B" else s))
        if self.kind == "A":
            return F.relu(t, inplace=True)
        if self.arithmetic == "port":
            return s + F.relu(t)
        if self.kind == "B":
            return F.relu(s + t, inplace=True)
        return F.relu(0.5 * s + 0.5 * t, inplace=True)


def _drop_time(x: Tensor) -> Tensor:
    if x.shape[2] != 1:
        raise UsageError(
            f"P3D's res5 needs one time step, but these clips give {x.shape[2]}; use at most 16 frames a clip"
        )
    return x.squeeze(2)  # (N, C, 1, H, W) -> (N, C, H, W)
