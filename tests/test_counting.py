"""Counts by hand, for nets small enough to count, and for nets of every kind of module that a backbone is made of."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from featx.backbones import ARCHITECTURES, build
from featx.backbones.base import Backbone
from featx.backbones.blocks import BatchNorm
from featx.backbones.counting import Counts, count, multiply_adds_by_module
from featx.backbones.res3d import Res3D


class OneModule(Backbone):
    """A net of one module, and of BatchNorm, ReLU and a pool, which add no multiply-adds."""

    def __init__(self, module, channels):
        super().__init__()
        self.module, self.bn = module, BatchNorm(channels)

    def stages(self):
        yield "module", self.module
        yield "pool", lambda x: F.relu(self.bn(x)).flatten(1).mean(1)


@pytest.mark.parametrize(
    "module, clip_shape, parameters, multiply_adds",
    [
        # 5 filters of 2x3x3x3 weights at each of 4x6x8 places
        (nn.Conv3d(2, 5, 3, padding=1, bias=False), (2, 4, 6, 8), 5 * 54, 5 * 54 * 192),
        # a bias is a parameter and no product
        (nn.Conv3d(2, 5, 3, padding=1), (2, 4, 6, 8), 5 * 54 + 5, 5 * 54 * 192),
        # no padding: 2x4x6 places
        (nn.Conv3d(2, 5, 3, bias=False), (2, 4, 6, 8), 5 * 54, 5 * 54 * 48),
        # strides 1, 2, 2: places 4x3x4
        (nn.Conv3d(2, 5, 3, (1, 2, 2), padding=1, bias=False), (2, 4, 6, 8), 5 * 54, 5 * 54 * 48),
        # stride 2 of 7 by 5 by 5 frames, rounded up by the padding: 4x3x3
        (nn.Conv3d(2, 5, 3, 2, padding=1, bias=False), (2, 7, 5, 5), 5 * 54, 5 * 54 * 36),
        # 1x7x7, as P3D's conv1
        (nn.Conv3d(3, 4, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False), (3, 2, 8, 8), 4 * 147, 4 * 147 * 2 * 16),
        # two groups: each of 6 filters sees 2 of the 4 channels
        (nn.Conv3d(4, 6, 3, padding=1, groups=2, bias=False), (4, 2, 3, 3), 6 * 54, 6 * 54 * 18),
        # as many groups as channels
        (nn.Conv3d(4, 4, 3, 2, padding=1, groups=4, bias=False), (4, 2, 3, 3), 4 * 27, 4 * 27 * 4),
        # a 1x1x1 projection
        (nn.Conv3d(4, 8, 1, 2, bias=False), (4, 4, 4, 4), 32, 32 * 8),
        # a matrix product, once for each of 2x3x4 rows
        (nn.Linear(5, 7), (2, 3, 4, 5), 7 * 5 + 7, 24 * 35),
    ],
)
def test_a_module_alone(module, clip_shape, parameters, multiply_adds):
    channels = clip_shape[0] if isinstance(module, nn.Linear) else module.out_channels
    counts = count(OneModule(module, channels), clip_shape)
    assert counts == Counts(parameters + 2 * channels, multiply_adds)  # BatchNorm's gammas and betas


def test_a_small_res3d_by_hand():
    """Clips 3x4x8x8; widths 2, 3, 4, 5; one block a stage; maps 4x4x4, 2x2x2, 1x1x1, 1x1x1."""
    net = Res3D(num_classes=7, widths=(2, 3, 4, 5), blocks=(1, 1, 1, 1))
    expected = {
        "conv1": 3 * 2 * 147 * 64,
        "res2a.branch2a": 2 * 2 * 27 * 64,
        "res2a.branch2b": 2 * 2 * 27 * 64,
        "res2a.branch1": 2 * 2 * 64,
        "res3a.branch2a": 2 * 3 * 27 * 8,
        "res3a.branch2b": 3 * 3 * 27 * 8,
        "res3a.branch1": 2 * 3 * 8,
        "res4a.branch2a": 3 * 4 * 27,
        "res4a.branch2b": 4 * 4 * 27,
        "res4a.branch1": 3 * 4,
        "res5a.branch2a": 4 * 5 * 27,
        "res5a.branch2b": 5 * 5 * 27,
        "res5a.branch1": 4 * 5,
        "": 0,
    }
    expected[""] = sum(expected.values()) + 5 * 7
    counts = multiply_adds_by_module(net, (3, 4, 8, 8))
    assert {name: counts[name] for name in expected} == expected
    assert counts["res3a"] == sum(n for name, n in expected.items() if name.startswith("res3a."))
    assert counts["fc8"] == 35
    convs = {"conv1": 3 * 2 * 147, "res2a": 2 * 2 * 55, "res3a": 2 * 3 * 28 + 3 * 3 * 27}
    convs |= {"res4a": 3 * 4 * 28 + 4 * 4 * 27, "res5a": 4 * 5 * 28 + 5 * 5 * 27}
    norms = 2 * (2 + 3 * 2 + 3 * 3 + 3 * 4 + 3 * 5)
    assert count(net, (3, 4, 8, 8)) == Counts(sum(convs.values()) + norms + 5 * 7 + 7, expected[""])


def test_counting_leaves_the_net_as_it_is():
    net = Res3D(num_classes=3, widths=(2, 2, 2, 2))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    count(net, (3, 8, 16, 16))
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def is_deep(name: str) -> bool:
    """Whether a network has more than a hundred layers, which takes a second."""
    return any(int(number) > 100 for number in re.findall(r"\d+", name)) and name != "resnext101"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if is_deep(name) else name for name in ARCHITECTURES]
)
def test_every_architecture_can_be_counted(name):
    """The parts add up to the whole: no product is made outside a module that the count names."""
    row = ARCHITECTURES[name]
    with torch.device("meta"):
        net = build(name).eval()
    counts = multiply_adds_by_module(net, row.clip_shape)
    leaves = {module for module, each in net.named_modules() if not list(each.children())}
    assert sum(n for module, n in counts.items() if module in leaves) == counts[""] > 1e8
    assert {module for module, each in net.named_modules() if isinstance(each, nn.Conv3d | nn.Linear)} <= set(counts)
    assert count(net, row.clip_shape).multiply_adds == counts[""]  # the one is counted by us, the other by PyTorch


def test_nothing_above_the_layers_asked_for_is_counted():
    net = Res3D(num_classes=7, widths=(2, 3, 4, 5), blocks=(1, 1, 1, 1))
    whole = count(net, (3, 4, 8, 8))
    assert count(net, (3, 4, 8, 8), ["pool5"]).multiply_adds == whole.multiply_adds - 5 * 7
    assert count(net, (3, 4, 8, 8), ["conv1"]).multiply_adds == 3 * 2 * 147 * 64
