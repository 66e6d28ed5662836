"""Names of the same tensors in the published PyTorch ports, and in ours.

Ours follow the layers of the authors' Caffe files: ``conv1a.weight``, ``res4b35.bn_branch2b_t.running_var``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from featx.backbones import ARCHITECTURES
from featx.checkpoints.hara_names import hara, hara_densenet
from featx.checkpoints.torchvision_names import torchvision

__all__ = ["Naming", "namings"]


@dataclass(frozen=True)
class Naming:
    """How one kind of file names the tensors of an architecture.

    `label` is for messages and for a card's `namings`; `ours` maps the file's names to ours; `arguments` are those that the
    architecture must be built with for such a file.
    """

    label: str
    ours: dict[str, str]
    arguments: dict[str, Any] = field(default_factory=dict)


# module in our C3D: DavideA/c3d-pytorch, jfzhang95/pytorch-video-recognition, mmaction2's backbone
C3D_MODULES = {
    "conv1a": ("conv1", "features.0", "conv1a.conv"),
    "conv2a": ("conv2", "features.3", "conv2a.conv"),
    "conv3a": ("conv3a", "features.6", "conv3a.conv"),
    "conv3b": ("conv3b", "features.8", "conv3b.conv"),
    "conv4a": ("conv4a", "features.11", "conv4a.conv"),
    "conv4b": ("conv4b", "features.13", "conv4b.conv"),
    "conv5a": ("conv5a", "features.16", "conv5a.conv"),
    "conv5b": ("conv5b", "features.18", "conv5b.conv"),
    "fc6": ("fc6", "classifier.0", "fc6"),
    "fc7": ("fc7", "classifier.3", "fc7"),
    "fc8": ("fc8", "classifier.6", "fc8"),
}

# module in our P3DBlock: qijiezhao/pseudo-3d-pytorch, in blocks of res2-res4 and of the two-dimensional res5
P3D_MODULES = {
    "branch1": ("downsample.0", "downsample.0"),
    "bn_branch1": ("downsample.1", "downsample.1"),
    "branch2a": ("conv1", "conv1"),
    "bn_branch2a": ("bn1", "bn1"),
    "branch2b": ("conv2", "conv_normal"),
    "bn_branch2b": ("bn2", "bn_normal"),
    "branch2b_t": ("conv3", ""),
    "bn_branch2b_t": ("bn3", ""),
    "branch2c": ("conv4", "conv4"),
    "bn_branch2c": ("bn4", "bn4"),
}
P3D_OUTER_MODULES = {"conv1": "conv1_custom", "bn_conv1": "bn1", "fc": "fc"}


def namings(architecture: str, our_names: Iterable[str]) -> list[Naming]:
    """Every naming known for an architecture whose tensors we call `our_names`; ours comes first."""
    names = list(our_names)
    kind = ARCHITECTURES[architecture].kind if architecture in ARCHITECTURES.own else ""
    result = [_renamed("featx's own", names, lambda name: name)]
    if kind == "C3D":
        # mmaction2 published its Sports-1M weights without a classifier; what featx stores of them has none either
        features = [name for name in names if not name.startswith("fc8.")]
        result += [
            _renamed("featx's own", features, lambda name: name, num_classes=None),
            _renamed("DavideA's port", names, lambda name: _c3d(name, 0)),
            _renamed("jfzhang95's port", names, lambda name: _c3d(name, 1)),
            _renamed("mmaction2's port", names, lambda name: _c3d(name, 2)),
            _renamed("mmaction2's port", features, lambda name: _c3d(name, 2), num_classes=None),
            _renamed("mmaction2's recognizer", names, _c3d_recognizer),
        ]
    elif kind == "P3D":
        result.append(_renamed("qijiezhao's port", names, _p3d))
    elif architecture.startswith("tv-"):
        result.append(_renamed("torchvision's", names, torchvision))
    elif kind == "ResNet3D":
        result.append(_renamed("Hara's", names, hara))
    elif kind == "DenseNet3D":
        result.append(_renamed("Hara's", names, hara_densenet))
        result.append(_renamed("Hara's, without dots", names, lambda name: _undotted(hara_densenet(name))))
    return result


def _renamed(label: str, names: list[str], theirs: Callable[[str], str], **arguments: Any) -> Naming:
    return Naming(label, {theirs(name): name for name in names}, arguments)


def _c3d(name: str, port: int) -> str:
    module, tensor = name.split(".")
    return f"{C3D_MODULES[module][port]}.{tensor}"


def _c3d_recognizer(name: str) -> str:
    """A backbone and a head: fc6.bias -> backbone.fc6.bias, fc8.bias -> cls_head.fc_cls.bias."""
    if name.startswith("fc8."):
        return name.replace("fc8", "cls_head.fc_cls")
    return f"backbone.{_c3d(name, 2)}"


def _undotted(name: str) -> str:
    """Newer PyTorch forbids dots in a module's name: denselayer1.norm.1.bias -> denselayer1.norm1.bias."""
    return re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name)


def _p3d(name: str) -> str:
    """res2a.branch2a.weight -> layer1.0.conv1.weight, res4b35.bn_branch2b_t.bias -> layer3.35.bn3.bias."""
    *block, module, tensor = name.split(".")
    if not block:
        return f"{P3D_OUTER_MODULES[module]}.{tensor}"
    stage, letter, number = re.fullmatch(r"res(\d)([a-z])(\d*)", block[0]).groups()
    index = int(number) if number else ord(letter) - ord("a")
    return f"layer{int(stage) - 1}.{index}.{P3D_MODULES[module][stage == '5']}.{tensor}"
