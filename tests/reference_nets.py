"""The networks a second time, written out step by step from the papers' tables and the published prototxts.

Plain functional calls on a flat table of weights; nothing of featx is used. Each function takes ``weights`` (name ->
tensor, named after the Caffe layers) and clips (N, 3, T, H, W), and returns every layer by name. Convolution and matrix
product are PyTorch's; BatchNorm, pooling and softmax are written as arithmetic.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

EPS = 1e-5


def relu(x):
    return torch.where(x > 0, x, torch.zeros_like(x))


def softmax(x):
    exponentials = torch.exp(x - x.amax(1, keepdim=True))
    return exponentials / exponentials.sum(1, keepdim=True)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def batch_norm(w, name, x):
    """gamma * (x - mean) / sqrt(variance + eps) + beta, for each channel."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance = w[f"{name}.running_mean"].view(shape), w[f"{name}.running_var"].view(shape)
    gamma, beta = w[f"{name}.weight"].view(shape), w[f"{name}.bias"].view(shape)
    return gamma * ((x - mean) / torch.sqrt(variance + EPS)) + beta


def max_along(x, axis, kernel, stride):
    """Caffe's max pool along one axis without padding: ceil((n - kernel) / stride) + 1 windows, the last may stick out."""
    n = x.shape[axis]
    count = -(-(n - kernel) // stride) + 1
    windows = [x.narrow(axis, start, min(kernel, n - start)) for start in range(0, count * stride, stride)]
    return torch.stack([window.amax(axis) for window in windows], dim=axis)


def max_pool(x, kernel, stride):
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        if (k, s) != (1, 1):
            x = max_along(x, axis, k, s)
    return x


# ------------------------------------------------------------------------------------------------ C3D


def c3d(w, clips):
    """Tran et al. 2015, figure 3: all kernels 3x3x3; pool1 1x2x2, the others 2x2x2, stride = kernel, rounding up."""
    layers = {}
    x = clips
    for step in "1a p1 2a p2 3a 3b p3 4a 4b p4 5a 5b p5".split():
        if step[0] == "p":
            kernel = (1, 2, 2) if step == "p1" else (2, 2, 2)
            x = max_pool(x, kernel, kernel)
            layers[f"pool{step[1]}"] = x
        else:
            name = f"conv{step}"
            x = relu(F.conv3d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=1, padding=1))
            layers[name] = x
    x = x.reshape(x.shape[0], -1)
    layers["fc6"] = x = relu(linear(w, "fc6", x))
    layers["fc7"] = x = relu(linear(w, "fc7", x))
    layers["prob"] = softmax(linear(w, "fc8", x))
    return layers


# ------------------------------------------------------------------------------------------------ Res3D


def res3d(w, clips):
    """Tran et al. 2017, table 2 (3D-ResNet-18), and the layers of c3d_resnet18_ucf101_feature_extraction.prototxt."""

    def conv_bn(x, prefix, module, kernel, stride):
        padding = tuple((k - 1) // 2 for k in kernel)
        weight = w[f"{prefix}{module}.weight"]
        assert weight.shape[2:] == kernel
        return batch_norm(w, f"{prefix}bn_{module}", F.conv3d(x, weight, None, stride, padding))

    layers = {"conv1": relu(conv_bn(clips, "", "conv1", (3, 7, 7), (1, 2, 2)))}
    x = layers["conv1"]
    for stage in (2, 3, 4, 5):
        for block in "ab":
            name = f"res{stage}{block}"
            stride = (2, 2, 2) if block == "a" and stage != 2 else (1, 1, 1)
            inner = relu(conv_bn(x, name + ".", "branch2a", (3, 3, 3), stride))
            inner = conv_bn(inner, name + ".", "branch2b", (3, 3, 3), (1, 1, 1))
            shortcut = conv_bn(x, name + ".", "branch1", (1, 1, 1), stride) if block == "a" else x
            layers[name] = x = relu(shortcut + inner)
    layers["pool5"] = x = x.flatten(2).sum(2) / x[0, 0].numel()
    layers["prob"] = softmax(linear(w, "fc8", x))
    return layers


# ------------------------------------------------------------------------------------------------ P3D


def p3d(w, clips, blocks=(3, 8, 36, 3), port=False):
    """deploy_p3d_resnet_kinetics.prototxt; with `port`, pseudo-3d-pytorch's p3d_model.py as far as it differs."""

    def conv_bn(x, prefix, module, stride=1):
        weight = w[f"{prefix}{module}.weight"]
        padding = tuple(k // 2 for k in weight.shape[2:])
        if weight.ndim == 4:
            x = F.conv2d(x, weight, None, stride, padding)
        else:
            x = F.conv3d(x, weight, None, (1, stride, stride), padding)
        return batch_norm(w, f"{prefix}bn_{module}", x)

    layers = {"conv1": relu(conv_bn(clips, "", "conv1", stride=2))}
    x = layers["conv1"]
    if port:
        x = F.pad(x, (1, 1, 1, 1), value=float("-inf"))
        x = x.unfold(2, 2, 2).unfold(3, 3, 2).unfold(4, 3, 2).amax((5, 6, 7))  # whole windows only
    else:
        x = max_pool(x, (2, 3, 3), (2, 2, 2))
    layers["pool1"] = x

    running = 0
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        if stage == 5:
            assert x.shape[2] == 1
            x = x[:, :, 0]
        for i in range(count):
            name = f"res{stage}" + ("abcdefgh"[i] if stage in (2, 5) else "a" if i == 0 else f"b{i}")
            stride = 2 if i == 0 and stage > 2 else 1
            y = relu(conv_bn(x, name + ".", "branch2a", stride))
            s = relu(conv_bn(y, name + ".", "branch2b"))
            if stage == 5:
                y = s
            elif running % 3 == 0:  # A: time after space
                y = relu(conv_bn(s, name + ".", "branch2b_t"))
            elif running % 3 == 1:  # B: time beside space
                t = conv_bn(y, name + ".", "branch2b_t")
                y = relu(s) + relu(t) if port else relu(s + t)
            else:  # C: space, and time after it
                t = conv_bn(s, name + ".", "branch2b_t")
                y = s + relu(t) if port else relu(0.5 * s + 0.5 * t)
            y = conv_bn(y, name + ".", "branch2c")
            shortcut = conv_bn(x, name + ".", "branch1", stride) if i == 0 else x
            layers[name] = x = relu(shortcut + y)
            running += stage < 5
        if stage < 5:
            x = max_pool(x, (2, 1, 1), (2, 1, 1))
    layers["pool5"] = x = x.flatten(2).sum(2) / x[0, 0].numel()
    layers["prob"] = softmax(linear(w, "fc", x))
    return layers
