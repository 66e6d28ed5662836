"""Pieces that several backbones share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BasicBlock", "BatchNorm"]


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


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions with BatchNorm, added to a shortcut, then ReLU (Res3D paper, figure 2; He et al. 2016).

    The first convolution (branch2a) carries the stride. With `project` the shortcut is a 1x1x1 convolution with
    BatchNorm of the same stride (branch1), else the input itself.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.branch2a = nn.Conv3d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn_branch2a = BatchNorm(channels)
        self.branch2b = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.bn_branch2b = BatchNorm(channels)
        self.project = project
        if project:
            self.branch1 = nn.Conv3d(in_channels, channels, 1, stride, bias=False)
            self.bn_branch1 = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn_branch2a(self.branch2a(x)), inplace=True)
        y = self.bn_branch2b(self.branch2b(y))
        y += self.bn_branch1(self.branch1(x)) if self.project else x
        return F.relu(y, inplace=True)
