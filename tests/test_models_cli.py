"""`featx models`: what it prints is what the nets are."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_cli import run

from featx.backbones import ARCHITECTURES, build
from featx.backbones.counting import count, survey
from featx.backbones.registry import Registry
from featx.catalog import CHECKPOINTS

SOME = ("c3d", "res3d", "p3d63", "r3d18", "resnext101-64f")


@pytest.fixture
def some(monkeypatch):
    """A few rows of the table: counting all of it takes seconds."""
    monkeypatch.setattr("featx.backbones.ARCHITECTURES", Registry(ARCHITECTURES.own[name] for name in SOME))


def test_one_pass_gives_counts_and_shapes():
    for name in ("c3d", "res3d", "p3d63"):
        with torch.device("meta"):
            net = build(name)
        clip_shape = ARCHITECTURES[name].clip_shape
        assert survey(net, clip_shape) == (count(net, clip_shape), net.layer_shapes(clip_shape))


def test_list(capsys, some):
    code, out, err = run(capsys, "models")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100 and [line.split()[0] for line in lines[1:]] == list(SOME)
    assert lines[1].split() == "c3d 3x16x112x112 79.99 38.55 fc6 4096, fc7 4096, prob 487".split()
    assert lines[2].split()[:4] == "res3d 3x8x112x112 33.42 20.45".split()


def test_list_as_json(capsys, some):
    code, out, _ = run(capsys, "models", "--json")
    rows = json.loads(out)
    assert code == 0 and list(rows) == list(SOME)
    for name, row in rows.items():
        with torch.device("meta"):
            net = build(name)
        shapes = net.layer_shapes(row["clip_shape"])
        assert {layer: tuple(found["shape"]) for layer, found in row["layers"].items()} == shapes
        assert all(found["dimensions"] == math.prod(found["shape"]) for found in row["layers"].values())
        assert row["parameters"] == sum(p.numel() for p in net.parameters())
        assert row["cards"] == [card.name for card in CHECKPOINTS.values() if card.architecture == name]


def test_one_architecture(capsys):
    code, out, _ = run(capsys, "models", "c3d")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    # the paper's figure 3: 64 maps of 112x112 at 16 frames, ..., 512 of 4x4, two layers of 4096
    for line in (
        "name c3d",
        "parameters 79,991,015",
        "conv1a 64x16x112x112 12845056",
        "conv3b 256x8x28x28 1605632",
        "pool5 512x1x4x4 8192",
        "fc6 4096 4096",
        "prob 487 487",
    ):
        assert line in lines
    assert "c3d-sports1m" in out and "Tran et al. 2015" in out
    code, out, _ = run(capsys, "models", "c3d", "--json")
    assert json.loads(out)["layers"]["fc6"] == {"shape": [4096], "dimensions": 4096}


def test_an_unknown_architecture(capsys):
    code, _, err = run(capsys, "models", "c4d")
    assert code == 2 and "unknown architecture 'c4d'; did you mean 'mc4' or 'c3d'?" in err


@pytest.mark.long
def test_every_architecture_is_listed(capsys):
    code, out, err = run(capsys, "models")
    assert (code, err) == (0, "") and [line.split()[0] for line in out.splitlines()[1:]] == list(ARCHITECTURES.own)
    assert max(map(len, out.splitlines())) <= 100
