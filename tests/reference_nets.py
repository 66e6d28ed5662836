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


def max_pool_of_whole_windows(x, kernel, stride, padding):
    """PyTorch's max pool: `padding` on either side in height and width, and no window that sticks out beyond it."""
    x = F.pad(x, (padding,) * 4, value=float("-inf"))
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
        x = x.unfold(axis, k, s)
    return x.amax((5, 6, 7))


# ------------------------------------------------------------------------------------------------ C3D

C3D_STEPS = "1a p1 2a p2 3a 3b p3 4a 4b p4 5a 5b p5"
C3D_SEARCHED_STEPS = "1a p1 2a p2 3a p3 4a p4 5a p5"


def c3d(w, clips, steps=C3D_STEPS, depths=(3, 3, 3, 3, 3), ported=False):
    """Tran et al. 2015, figure 3: all kernels 3x3x3; pool1 1x2x2, the others 2x2x2, stride = kernel, rounding up.

    `depths` are the kernels' extents in time, a group; with `ported` pool5 is that of the PyTorch ports.
    """
    layers = {}
    x = clips
    for step in steps.split():
        if step[0] == "p":
            kernel = (1, 2, 2) if step == "p1" else (2, 2, 2)
            if ported and step == "p5":
                x = max_pool_of_whole_windows(x, kernel, kernel, padding=1)
            else:
                x = max_pool(x, kernel, kernel)
            layers[f"pool{step[1]}"] = x
        else:
            name, depth = f"conv{step}", depths[int(step[0]) - 1]
            weight = w[f"{name}.weight"]
            assert weight.shape[2:] == (depth, 3, 3)
            x = relu(F.conv3d(x, weight, w[f"{name}.bias"], stride=1, padding=((depth - 1) // 2, 1, 1)))
            layers[name] = x
    x = x.reshape(x.shape[0], -1)
    layers["fc6"] = x = relu(linear(w, "fc6", x))
    layers["fc7"] = x = relu(linear(w, "fc7", x))
    layers["prob"] = softmax(linear(w, "fc8", x))
    return layers


# ------------------------------------------------------------------------------------------------ Res3D


def res3d(
    w,
    clips,
    blocks=("ab", "ab", "ab", "ab"),
    depths=(3, 3, 3, 3, 3),
    times=(1, 2, 2, 2),
    stem=(7, 2),
    split=False,
):
    """Tran et al. 2017, table 2 (3D-ResNet-18), and the layers of c3d_resnet18_ucf101_feature_extraction.prototxt.

    The nets of the search: the letters of the `blocks` of conv2_x to conv5_x, the `depths` of the kernels of conv1 to
    conv5_x, the strides in time (`times`) of conv2_x to conv5_x, side and stride of conv1, and the 2.5D net (`split`).
    """

    def conv_bn(x, prefix, module, kernel, stride):
        padding = tuple((k - 1) // 2 for k in kernel)
        weight = w[f"{prefix}{module}.weight"]
        assert weight.shape[2:] == kernel
        return batch_norm(w, f"{prefix}bn_{module}", F.conv3d(x, weight, None, stride, padding))

    def conv_or_two(x, prefix, module, kernel, stride):
        if not split:
            return conv_bn(x, prefix, module, kernel, stride)
        (depth, *sides), (time, *spaces) = kernel, stride
        x = relu(conv_bn(x, prefix, f"{module}_s", (1, *sides), (1, *spaces)))
        return conv_bn(x, prefix, f"{module}_t", (depth, 1, 1), (time, 1, 1))

    side, stride = stem
    layers = {"conv1": relu(conv_or_two(clips, "", "conv1", (depths[0], side, side), (1, stride, stride)))}
    x = layers["conv1"]
    for stage, letters, depth, time in zip((2, 3, 4, 5), blocks, depths[1:], times, strict=True):
        kernel, space = (depth, 3, 3), 1 if stage == 2 else 2
        for block in letters:
            name = f"res{stage}{block}"
            stride = (time, space, space) if block == "a" else (1, 1, 1)
            inner = relu(conv_or_two(x, name + ".", "branch2a", kernel, stride))
            inner = conv_or_two(inner, name + ".", "branch2b", kernel, (1, 1, 1))
            shortcut = conv_bn(x, name + ".", "branch1", (1, 1, 1), stride) if block == "a" else x
            layers[name] = x = relu(shortcut + inner)
    layers["pool5"] = x = x.flatten(2).sum(2) / x[0, 0].numel()
    layers["prob"] = softmax(linear(w, "fc8", x))
    return layers


def torchvision_net(w, clips, form):
    """r3d_18, mc3_18 or r2plus1d_18 (`form` is what stands before _18) from weights under torchvision's own names."""

    def conv(name, x, stride):
        weight = w[f"{name}.weight"]
        return F.conv3d(x, weight, None, stride, tuple((k - 1) // 2 for k in weight.shape[2:]))

    def conv_bn(name, x, time, space, flat):
        """layerL.B.convN: one convolution and its BatchNorm, or (2+1)D: two of each."""
        if form == "r2plus1d":
            x = relu(batch_norm(w, f"{name}.0.1", conv(f"{name}.0.0", x, (1, space, space))))
            x = conv(f"{name}.0.3", x, (time, 1, 1))
        else:
            assert w[f"{name}.0.weight"].shape[2:] == ((1, 3, 3) if flat else (3, 3, 3))
            x = conv(f"{name}.0", x, (time, space, space))
        return batch_norm(w, f"{name}.1", x)

    if form == "r2plus1d":
        x = relu(batch_norm(w, "stem.1", conv("stem.0", clips, (1, 2, 2))))
        x = relu(batch_norm(w, "stem.4", conv("stem.3", x, (1, 1, 1))))
    else:
        x = relu(batch_norm(w, "stem.1", conv("stem.0", clips, (1, 2, 2))))
    layers = {"conv1": x}
    for layer in (1, 2, 3, 4):
        flat = form == "mc3" and layer > 1
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            space = 2 if layer > 1 and block == 0 else 1
            time = 1 if flat else space
            y = relu(conv_bn(f"{name}.conv1", x, time, space, flat))
            y = conv_bn(f"{name}.conv2", y, 1, 1, flat)
            if layer > 1 and block == 0:
                x = batch_norm(w, f"{name}.downsample.1", conv(f"{name}.downsample.0", x, (time, space, space)))
            x = relu(x + y)
            layers[f"res{layer + 1}{'ab'[block]}"] = x
    layers["pool5"] = x = x.flatten(2).sum(2) / x[0, 0].numel()
    layers["prob"] = softmax(linear(w, "fc", x))
    return layers


# ------------------------------------------------------------------------------------------------ P3D


def p3d(w, clips, blocks=(3, 8, 36, 3), port=False, paper=False, kinds="ABC"):
    """deploy_p3d_resnet_kinetics.prototxt; with `port`, pseudo-3d-pytorch's p3d_model.py as far as it differs.

    With `paper`, equations 3 to 5 of Qiu et al. 2017; `kinds` are the blocks that take turns.
    """

    def conv_bn(x, prefix, module, stride=1):
        weight = w[f"{prefix}{module}.weight"]
        padding = tuple(k // 2 for k in weight.shape[2:])
        if weight.ndim == 4:
            x = F.conv2d(x, weight, None, stride, padding)
        else:
            x = F.conv3d(x, weight, None, (1, stride, stride), padding)
        return batch_norm(w, f"{prefix}bn_{module}", x)

    def space_and_time(x, prefix, kind):
        s = conv_bn(x, prefix, "branch2b")
        if kind == "2d":
            return relu(s)
        if paper:
            t = conv_bn(x if kind == "B" else s, prefix, "branch2b_t")
            return relu({"A": t, "B": s + t, "C": s + t}[kind])
        s = relu(s)
        t = conv_bn(x if kind == "B" else s, prefix, "branch2b_t")
        if kind == "A":  # time after space
            return relu(t)
        if port:
            return s + relu(t)
        if kind == "B":  # time beside space
            return relu(s + t)
        return relu(0.5 * s + 0.5 * t)  # space, and time after it

    layers = {"conv1": relu(conv_bn(clips, "", "conv1", stride=2))}
    x = layers["conv1"]
    if port:
        x = max_pool_of_whole_windows(x, (2, 3, 3), (2, 2, 2), padding=1)
    else:
        x = max_pool(x, (2, 3, 3), (2, 2, 2))
    layers["pool1"] = x

    running = 0
    for stage, count in zip((2, 3, 4, 5), blocks, strict=True):
        if stage == 5:
            assert x.shape[2] == 1
            x = x[:, :, 0]
        for i in range(count):
            name = f"res{stage}" + ("abcdef"[i] if count <= 6 else "a" if i == 0 else f"b{i}")
            stride = 2 if i == 0 and stage > 2 else 1
            y = relu(conv_bn(x, name + ".", "branch2a", stride))
            y = space_and_time(y, name + ".", "2d" if stage == 5 else kinds[running % len(kinds)])
            y = conv_bn(y, name + ".", "branch2c")
            shortcut = conv_bn(x, name + ".", "branch1", stride) if i == 0 else x
            layers[name] = x = relu(shortcut + y)
            running += stage < 5
        if stage < 5:
            x = max_pool(x, (2, 1, 1), (2, 1, 1))
    layers["pool5"] = x = x.flatten(2).sum(2) / x[0, 0].numel()
    layers["prob"] = softmax(linear(w, "fc", x))
    return layers
