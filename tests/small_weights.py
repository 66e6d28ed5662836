"""Cards of the published kind for nets of few numbers, and files of weights that fit them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from featx.backbones import build
from featx.catalog import CHECKPOINTS, Checkpoint, Source
from featx.checkpoints.names import namings

SMALL = {
    "c3d-sports1m": ("c3d-small", {"widths": (2, 3, 2, 2, 2), "fc_width": 4}, {"pool5": 32, "fc6": 4, "prob": 5}),
    "res3d-sports1m": ("res3d-small", {"widths": (4, 2, 2, 3)}, {"res5b": 147, "pool5": 3, "prob": 5}),
    "p3d199-flow-kinetics": (
        "p3d199-flow-small",
        {"in_channels": 2, "width": 2, "blocks": (1, 1, 1, 1)},
        {"pool5": 64, "prob": 5},
    ),
    "p3d199-kinetics": ("p3d199-small", {"width": 2, "blocks": (1, 1, 1, 1)}, {"pool5": 64, "prob": 5}),
}


def small_card(name: str, source: tuple[Source, ...] | None = None) -> Checkpoint:
    """The published card `name` for a small net of 5 classes, under a name of its own."""
    card = CHECKPOINTS[name]
    small, arguments, layers = SMALL[name]
    return dataclasses.replace(
        card,
        name=small,
        classes=5,
        labels=None,
        arguments=arguments,
        layers=layers,
        default_layer="prob",
        source=card.source if source is None else source,
    )


@pytest.fixture
def cards(monkeypatch) -> dict[str, Checkpoint]:
    """The small cards, in place of featx's own, wherever a name is looked up; a test may add to them."""
    table = {card.name: card for card in map(small_card, SMALL)}
    monkeypatch.setattr("featx.catalog.CHECKPOINTS", table)
    return table


def trained_state(card: Checkpoint, seed: int = 0, grey: bool | None = None) -> dict[str, Tensor]:
    """Seeded weights in featx's names such as training leaves; `grey`: the first BatchNorm saw pixels of 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    state = build(card.architecture, **card.build_arguments).state_dict()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue  # a counter of batches
        if tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "weight")):  # of a BatchNorm
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(0, 0.1, generator=generator)
    if grey is not None and "bn_conv1.running_var" in state:
        energy = state["conv1.weight"].flatten(1).square().sum(1)
        state["bn_conv1.running_var"].mul_(energy * (3321 if grey else 1))
    return state


def save_port(card: Checkpoint, state: dict[str, Tensor], path: Path, label: str) -> Path:
    """Save the state under the names of a port, as PyTorch does."""
    naming = next(naming for naming in namings(card.architecture, state) if naming.label == label)
    torch.save({theirs: state[ours] for theirs, ours in naming.ours.items()}, path)
    return path
