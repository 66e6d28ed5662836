"""Hara's networks a second time, step by step from the two papers' tables and the authors' published definitions.

As in reference_nets: plain calls on a flat table of weights, and no part of featx. Each function returns every layer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from reference_nets import batch_norm, linear, relu, softmax


def max_pool_3x3x3(x):
    """Kernel 3, stride 2, one place of padding on every side, which never wins."""
    padded = F.pad(x, (1,) * 6, value=float("-inf"))
    return padded.unfold(2, 3, 2).unfold(3, 3, 2).unfold(4, 3, 2).amax((5, 6, 7))


def average(x):
    return x.flatten(2).sum(2) / x[0, 0].numel()


def average_of_windows(x, kernel):
    """Mean of each window of the given size, then flattened: the linear layer takes it only if there is one window."""
    windows = x.unfold(2, kernel[0], 1).unfold(3, kernel[1], 1).unfold(4, kernel[2], 1)
    assert windows.shape[2:5] == (1, 1, 1), "the authors' linear layer would not fit"
    return windows.sum((5, 6, 7)).flatten(1) / math.prod(kernel)


def stem(w, clips, layers):
    x = F.conv3d(clips, w["conv1.weight"], None, (1, 2, 2), (3, 3, 3))
    assert w["conv1.weight"].shape[2:] == (7, 7, 7)
    layers["conv1"] = relu(batch_norm(w, "bn_conv1", x))
    layers["pool1"] = max_pool_3x3x3(layers["conv1"])
    return layers["pool1"]


# ------------------------------------------------------------------------------------------------ residual nets


def resnet(w, clips, kind, blocks, shortcut, groups=1, release=2018):
    """`kind` is basic, bottleneck (also wide, and ResNeXt with its `groups`) or preactivation."""
    layers = {}
    x = stem(w, clips, layers)
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        for i in range(count):
            suffix = "abcdef"[i] if count <= 6 else "a" if i == 0 else f"b{i}"
            name = f"res{stage}{suffix}"
            stride = 2 if i == 0 and stage > 2 else 1
            y = {"basic": basic, "bottleneck": bottleneck, "preactivation": preactivation}[kind](
                w, name, x, stride, groups
            )
            x = y + shortcut_of(w, name, x, stride, y.shape[1], shortcut)
            if kind != "preactivation":
                x = relu(x)
            layers[name] = x
    num_frames, size = clips.shape[2], clips.shape[3]
    if release == 2018:  # the average pool is told the clips' length and crop
        x = average_of_windows(x, (math.ceil(num_frames / 16), math.ceil(size / 32), math.ceil(size / 32)))
    else:
        x = average(x)
    layers["pool5"] = x
    layers["prob"] = softmax(linear(w, "fc", x))
    return layers


def convolution(w, name, x, stride=1, groups=1):
    weight = w[f"{name}.weight"]
    return F.conv3d(x, weight, None, stride, tuple(k // 2 for k in weight.shape[2:]), groups=groups)


def basic(w, name, x, stride, groups):
    x = relu(batch_norm(w, f"{name}.bn_branch2a", convolution(w, f"{name}.branch2a", x, stride)))
    return batch_norm(w, f"{name}.bn_branch2b", convolution(w, f"{name}.branch2b", x))


def bottleneck(w, name, x, stride, groups):
    x = relu(batch_norm(w, f"{name}.bn_branch2a", convolution(w, f"{name}.branch2a", x)))
    x = relu(batch_norm(w, f"{name}.bn_branch2b", convolution(w, f"{name}.branch2b", x, stride, groups)))
    return batch_norm(w, f"{name}.bn_branch2c", convolution(w, f"{name}.branch2c", x))


def preactivation(w, name, x, stride, groups):
    x = convolution(w, f"{name}.branch2a", relu(batch_norm(w, f"{name}.bn_branch2a", x)))
    x = convolution(w, f"{name}.branch2b", relu(batch_norm(w, f"{name}.bn_branch2b", x)), stride, groups)
    return convolution(w, f"{name}.branch2c", relu(batch_norm(w, f"{name}.bn_branch2c", x)))


def shortcut_of(w, name, x, stride, channels, kind):
    """From the block's input: itself, or, where size or channels change, option A or B."""
    if stride == 1 and x.shape[1] == channels:
        assert f"{name}.branch1.weight" not in w
        return x
    if kind == "B":
        return batch_norm(w, f"{name}.bn_branch1", convolution(w, f"{name}.branch1", x, stride))
    assert f"{name}.branch1.weight" not in w
    x = F.avg_pool3d(x, kernel_size=1, stride=stride)
    zeros = torch.zeros(x.shape[0], channels - x.shape[1], *x.shape[2:])
    return torch.cat([x, zeros], dim=1)


# ------------------------------------------------------------------------------------------------ dense nets


def densenet(w, clips, blocks):
    """Each layer's few new channels go behind all that it saw; between the blocks, half the channels and half the size."""
    layers = {}
    x = stem(w, clips, layers)
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        seen = [x]
        for i in range(1, count + 1):
            name = f"dense{stage}.layer{i}"
            y = torch.cat(seen, dim=1)
            y = convolution(w, f"{name}.conv_a", relu(batch_norm(w, f"{name}.bn_a", y)))
            y = convolution(w, f"{name}.conv_b", relu(batch_norm(w, f"{name}.bn_b", y)))
            seen.append(y)
        layers[f"dense{stage}"] = x = torch.cat(seen, dim=1)
        if stage < 5:
            x = convolution(w, f"transition{stage}.conv", relu(batch_norm(w, f"transition{stage}.bn", x)))
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).sum((5, 6, 7)) / 8  # whole windows only
    x = relu(batch_norm(w, "bn_pool5", x))
    num_frames, size = clips.shape[2], clips.shape[3]
    x = average_of_windows(x, (math.ceil(num_frames / 16), math.floor(size / 32), math.floor(size / 32)))
    layers["pool5"] = x
    layers["prob"] = softmax(linear(w, "fc", x))
    return layers
