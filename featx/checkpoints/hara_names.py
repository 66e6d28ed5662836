"""Names of our tensors in the files of Hara et al.: the ResNets of 2017, 2018 and 2020, and the DenseNets.

The files of 2017 and 2018 have ``module.`` in front of each, which is not part of these names.
"""

from __future__ import annotations

import re

__all__ = ["hara", "hara_densenet"]

RESNET_MODULES = {
    "branch2a": "conv1",
    "bn_branch2a": "bn1",
    "branch2b": "conv2",
    "bn_branch2b": "bn2",
    "branch2c": "conv3",
    "bn_branch2c": "bn3",
    "branch1": "downsample.0",
    "bn_branch1": "downsample.1",
}
RESNET_OUTER_MODULES = {"conv1": "conv1", "bn_conv1": "bn1", "fc": "fc"}

DENSENET_MODULES = {"bn_a": "norm.1", "conv_a": "conv.1", "bn_b": "norm.2", "conv_b": "conv.2"}
TRANSITION_MODULES = {"bn": "norm", "conv": "conv"}
DENSENET_OUTER_MODULES = {
    "conv1": "features.conv0",
    "bn_conv1": "features.norm0",
    "bn_pool5": "features.norm5",
    "fc": "classifier",
}


def hara(our_name: str) -> str:
    """The name in a file of a ResNet, also wide, pre-activation and ResNeXt.

    res2a.branch2b.weight -> layer1.0.conv2.weight, res4b35.bn_branch1.bias -> layer3.35.downsample.1.bias.
    """
    *block, module, tensor = our_name.split(".")
    if not block:
        return f"{RESNET_OUTER_MODULES[module]}.{tensor}"
    stage, letter, number = re.fullmatch(r"res(\d)([a-z])(\d*)", block[0]).groups()
    index = int(number) if number else ord(letter) - ord("a")
    return f"layer{int(stage) - 1}.{index}.{RESNET_MODULES[module]}.{tensor}"


def hara_densenet(our_name: str) -> str:
    """The name in a file of a DenseNet, whose layers count from 1.

    dense3.layer12.conv_b.weight -> features.denseblock2.denselayer12.conv.2.weight.
    """
    *outer, module, tensor = our_name.split(".")
    if not outer:
        return f"{DENSENET_OUTER_MODULES[module]}.{tensor}"
    kind, stage = re.fullmatch(r"(dense|transition)(\d)", outer[0]).groups()
    number = int(stage) - 1
    if kind == "transition":
        return f"features.transition{number}.{TRANSITION_MODULES[module]}.{tensor}"
    layer = outer[1].removeprefix("layer")
    return f"features.denseblock{number}.denselayer{layer}.{DENSENET_MODULES[module]}.{tensor}"
