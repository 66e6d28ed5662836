"""Names of the tensors of torchvision's video ResNets (r3d_18, mc3_18, r2plus1d_18) for ours."""

from __future__ import annotations

import re

__all__ = ["torchvision"]

# our module -> theirs; _s and _t are the parts of a split convolution, in space and in time
STEM = {
    "conv1": "stem.0",
    "bn_conv1": "stem.1",
    "conv1_s": "stem.0",
    "bn_conv1_s": "stem.1",
    "conv1_t": "stem.3",
    "bn_conv1_t": "stem.4",
    "fc8": "fc",
}
BLOCK = {
    "branch2a": "conv1.0",
    "bn_branch2a": "conv1.1",
    "branch2a_s": "conv1.0.0",
    "bn_branch2a_s": "conv1.0.1",
    "branch2a_t": "conv1.0.3",
    "bn_branch2a_t": "conv1.1",
    "branch2b": "conv2.0",
    "bn_branch2b": "conv2.1",
    "branch2b_s": "conv2.0.0",
    "bn_branch2b_s": "conv2.0.1",
    "branch2b_t": "conv2.0.3",
    "bn_branch2b_t": "conv2.1",
    "branch1": "downsample.0",
    "bn_branch1": "downsample.1",
}


def torchvision(name: str) -> str:
    """Their name of our tensor: res3a.branch2a.weight -> layer2.0.conv1.0.weight, fc8.bias -> fc.bias."""
    *block, module, tensor = name.split(".")
    if not block:
        return f"{STEM[module]}.{tensor}"
    stage, letter = re.fullmatch(r"res(\d)([a-z])", block[0]).groups()
    return f"layer{int(stage) - 1}.{ord(letter) - ord('a')}.{BLOCK[module]}.{tensor}"
