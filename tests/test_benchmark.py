"""examples/benchmark*.py, by stand-ins: what fails, what is counted, and what is said; test_examples.py runs the programs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from benchmark_traffic import Traffic, gain_of_graph, least_traffic, reason_below

from featx.backbones import build
from featx.backbones.base import Backbone
from featx.backbones.blocks import BatchNorm
from featx.catalog import get_checkpoint
from featx.engine.precision import Tried

# ----------------------------------------------------------------------------------------------- traffic and reasons


class Tiny(Backbone):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, 2, 3, padding=1), BatchNorm(2)
        self.conv2, self.bn2 = nn.Conv3d(2, 2, 1, bias=False), BatchNorm(2)
        self.fc = nn.Linear(8, 5)

    def stages(self):
        yield "conv1", lambda x: functional.relu(self.bn1(self.conv1(x)))
        yield "conv2", lambda x: functional.relu(self.bn2(self.conv2(x)) + x)
        yield "pool", lambda x: functional.max_pool3d(x, 2)
        yield "fc", lambda x: functional.relu(self.fc(x.flatten(1)))


def test_the_traffic_of_a_small_net_by_hand():
    """Clips of 3x2x4x4: BatchNorm, residual, ReLU and flattening move nothing of their own."""
    clip, map_, pooled, out = 3 * 32, 2 * 32, 2 * 4, 5
    conv1, conv2 = (clip + map_, 3 * 2 * 27 + 2), (map_ + map_, 2 * 2)  # the residual is what it reads anyway
    pool, fc = (map_ + pooled, 0), (pooled + out, 8 * 5 + 5)
    net, shape = Tiny().eval(), (3, 2, 4, 4)
    layers = [conv1, conv2, pool, fc]
    assert least_traffic(net, shape, ["fc"]) == Traffic(sum(n for n, _ in layers), sum(w for _, w in layers), 4)
    assert least_traffic(net, shape, ["pool"]) == Traffic(sum(n for n, _ in layers[:3]), 168, 3)
    # 10 clips a batch of 2-byte numbers: the weights are read once for them
    assert Traffic(430, 200, 4).bytes_per_clip(10, 2) == 2 * 430 + 2 * 20


def test_another_tensors_residual_is_read():
    class Skipping(Tiny):
        def stages(self):
            yield "conv1", self.conv1
            yield "conv2", lambda x: self.conv2(functional.max_pool3d(x, 3, 1, 1)) + x

    assert least_traffic(Skipping().eval(), (3, 2, 4, 4), ["conv2"]).activations == (96 + 64) + (64 + 64) + (3 * 64)


def test_the_traffic_of_c3d():
    """Its 17.7 M weights of the eight convolutions and 8192x4096 of fc6; eight convolutions, five pools, fc6."""
    card = get_checkpoint("c3d-sports1m")
    with torch.device("meta"):
        net = build(card.architecture, **card.build_arguments).eval()
    traffic = least_traffic(net, card.clip_shape, ["fc6"])
    filters = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    assert traffic.num_layers == 14
    assert traffic.weights == sum(27 * a * b + b for a, b in filters) + 8192 * 4096 + 4096
    maps = [64 * 16 * 112 * 112, 128 * 16 * 56 * 56]  # the two that are largest, each written once and read once
    assert 2 * sum(maps) < traffic.activations < 4 * sum(maps)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"traffic": 0.5}, "bound by memory traffic, at least 50% of the device's copies"),
        ({"traffic": 0.5, "graph_gain": 2.0}, "bound by memory traffic"),  # a device that moves as much is busy
        ({"traffic": 0.1, "graph_gain": 1.5}, "bound by launches: .* 1.50 times as fast"),
        ({"traffic": 0.1, "graph_gain": 1.1, "layer_seconds": 1e-5}, "bound by launches: a layer takes 10 µs"),
        ({"traffic": 0.3, "graph_gain": 1.1, "layer_seconds": 1e-3}, "bound by neither"),
        ({"own": ("fp32", 0.8), "traffic": 0.1}, "bound by products in fp32, at 80% "),
        ({"own": ("fp32", 0.5), "traffic": 0.6}, "bound by memory traffic"),
        ({"own": ("fp32", 0.1)}, "bound by neither"),
        ({}, "bound by neither"),
    ],
)
def test_the_reason_is_the_largest_share_or_launches(found, reason):
    assert re.match(reason, reason_below(**found))


def test_the_gain_of_a_graph_is_read_from_what_an_engine_says():
    tried = [Tried("folded", 0.02, 1e-7), Tried("cudnn", 0.01, 1e-7), Tried("cudnn-graph", 0.005, 1e-7)]
    others = [Tried("compile", problem="no compiler"), Tried("cudnn-graph-search", 0.001, 1e-7)]
    note = "engines tried: " + "; ".join(one.line(64) for one in (*tried, *others))
    assert gain_of_graph(["precision bf16 is the fastest: bf16 6,400 clips/s", note]) == 2.0
    assert gain_of_graph(["engines tried: " + tried[1].line(64)]) is None and gain_of_graph([]) is None
