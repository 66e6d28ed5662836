"""Pieces that several backbones share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BasicBlock", "BatchNorm", "Bottleneck", "PreactivationBottleneck", "ResidualBlock", "Stride", "block_names"]

Stride = int | tuple[int, int, int]  # of time, height and width


class BatchNorm(nn.Module):
    """Batch normalisation over the channels of (N, C, ...), with eps 1e-5.

    Unlike PyTorch's it serves any number of dimensions, and its state is exactly what the published files hold:
    weight (gamma), bias (beta), running_mean and running_var, each (C,), without a counter of batches.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class ResidualBlock(nn.Module):
    """What residual blocks share: the shortcut, added to what the convolutions give (He et al. 2016).

    With `project` it is a 1x1x1 convolution (branch1) of the block's stride with BatchNorm, else the input itself. If
    such an input is larger than the block's output or has fewer channels, every stride-th place of it is taken, and
    the channels that it lacks count as zero (type A).
    """

    def __init__(self, stride: Stride = 1, project: bool = False) -> None:
        super().__init__()
        self.stride, self.project = (stride,) * 3 if isinstance(stride, int) else stride, project

    def _make_projection(self, in_channels: int, channels: int) -> None:
        self.branch1 = nn.Conv3d(in_channels, channels, 1, self.stride, bias=False)
        self.bn_branch1 = BatchNorm(channels)

    def _add_shortcut(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the shortcut from the block's input `x` to `y`, in place."""
        if self.project:
            y += self.bn_branch1(self.branch1(x))
        else:
            t, h, w = self.stride
            y[:, : x.shape[1]].add_(x[:, :, ::t, ::h, ::w])
        return y


class BasicBlock(ResidualBlock):
    """Two convolutions, 3x3x3 or of another `depth` in time, added to the shortcut, then ReLU (Res3D paper, figure 2).

    Each has BatchNorm; the first (branch2a) carries the stride. `depth` is odd.
    """

    def __init__(
        self, in_channels: int, channels: int, *, stride: Stride = 1, depth: int = 3, project: bool = False
    ) -> None:
        super().__init__(stride, project)
        kernel, padding = (depth, 3, 3), (depth // 2, 1, 1)
        self.branch2a = nn.Conv3d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn_branch2a = BatchNorm(channels)
        self.branch2b = nn.Conv3d(channels, channels, kernel, padding=padding, bias=False)
        self.bn_branch2b = BatchNorm(channels)
        if project:
            self._make_projection(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn_branch2a(self.branch2a(x)), inplace=True)
        y = self.bn_branch2b(self.branch2b(y))
        return F.relu(self._add_shortcut(y, x), inplace=True)


class Bottleneck(ResidualBlock):
    """1x1x1, 3x3x3 and 1x1x1 convolutions (branch2a to 2c) with BatchNorm, added to the shortcut, then ReLU.

    `width` is the number of channels of the first two, `channels` that of the last. The 3x3x3 convolution carries the
    stride and is split into `groups` (ResNeXt's cardinality).
    """

    def __init__(
        self, in_channels: int, width: int, channels: int, *, stride: int = 1, groups: int = 1, project: bool = False
    ) -> None:
        super().__init__(stride, project)
        self.branch2a = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn_branch2a = BatchNorm(width)
        self.branch2b = nn.Conv3d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn_branch2b = BatchNorm(width)
        self.branch2c = nn.Conv3d(width, channels, 1, bias=False)
        self.bn_branch2c = BatchNorm(channels)
        if project:
            self._make_projection(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn_branch2a(self.branch2a(x)), inplace=True)
        y = F.relu(self.bn_branch2b(self.branch2b(y)), inplace=True)
        y = self.bn_branch2c(self.branch2c(y))
        return F.relu(self._add_shortcut(y, x), inplace=True)


class PreactivationBottleneck(ResidualBlock):
    """A bottleneck with BatchNorm and ReLU before each convolution, and nothing after the sum (He et al. 2016b).

    The shortcut starts from the block's input, ahead of the first BatchNorm.
    """

    def __init__(
        self, in_channels: int, width: int, channels: int, *, stride: int = 1, groups: int = 1, project: bool = False
    ) -> None:
        super().__init__(stride, project)
        self.bn_branch2a = BatchNorm(in_channels)
        self.branch2a = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn_branch2b = BatchNorm(width)
        self.branch2b = nn.Conv3d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn_branch2c = BatchNorm(width)
        self.branch2c = nn.Conv3d(width, channels, 1, bias=False)
        if project:
            self._make_projection(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch2a(F.relu(self.bn_branch2a(x), inplace=True))
        y = self.branch2b(F.relu(self.bn_branch2b(y), inplace=True))
        y = self.branch2c(F.relu(self.bn_branch2c(y), inplace=True))
        return self._add_shortcut(y, x)


def block_names(stage: int, num_blocks: int) -> list[str]:
    """As in the Caffe files: res2a res2b res2c; in a stage of more than six blocks res3a res3b1 res3b2 and so on."""
    if num_blocks <= 6:
        return [f"res{stage}{letter}" for letter in "abcdef"[:num_blocks]]
    return [f"res{stage}a"] + [f"res{stage}b{i}" for i in range(1, num_blocks)]
