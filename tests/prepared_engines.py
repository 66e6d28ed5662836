"""Engines of the embedded checkpoint take over the plan of an engine like them: to make and to check one takes longer than
the clips of most tests.

An engine is like another where name, layers, shapes, threads, network and weights are equal and none of what decides on a
plan was replaced; a plan serves one engine at a time. Tests of the engine itself say `prepared_anew`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from featx import engine
from featx.backbones.res3d import Res3D
from featx.catalog import WEIGHTS_FOLDER, get_checkpoint
from featx.engine import layers, native

__all__ = ["preparing_anew", "preparing_once"]

MINI = WEIGHTS_FOLDER / get_checkpoint("res3d-mini").file
MAX_FLOATS = MINI.stat().st_size // 2  # no number of a network takes less than two bytes
CONVOLUTIONS = (layers.WinogradConvolution, layers.TimeConvolution, layers.DirectConvolution, layers.MaxPool)

_is_off: list[bool] = []  # not empty where every engine prepares itself


def deciders() -> tuple[object, ...]:
    """What makes and checks a plan, and what tests put in its place."""
    return (
        engine.make_plan,
        engine.disagreement,
        engine.probe_clip,
        engine.unavailable,
        native._load,
        torch.backends.mkldnn.is_available,
        *(each.__call__ for each in CONVOLUTIONS),
    )


class Kept:
    """A plan that was made and found right, with the weights that it was made of and the engine that has it."""

    def __init__(self, owner: engine.Engine, state: dict[str, torch.Tensor], chosen: str, plan: object) -> None:
        self.weights = {name: tensor.clone() for name, tensor in state.items()}
        self.chosen, self.plan, self.owner = chosen, plan, weakref.ref(owner)

    def fits(self, state: dict[str, torch.Tensor]) -> bool:
        return state.keys() == self.weights.keys() and all(torch.equal(state[n], x) for n, x in self.weights.items())


@contextmanager
def preparing_once() -> Iterator[None]:
    """Let engines of the embedded checkpoint on the CPU take plans over."""
    prepare, originals = engine.Engine._prepare, deciders()
    kept: dict[tuple, Kept] = {}

    def prepared(self: engine.Engine, backbone: torch.nn.Module, name: str):
        if _is_off or type(backbone) is not Res3D or self._precision != "fp32" or deciders() != originals:
            return prepare(self, backbone, name)
        state = backbone.state_dict()
        if sum(tensor.numel() for tensor in state.values()) > MAX_FLOATS:
            return prepare(self, backbone, name)
        key = (name, self.layers, tuple(self._batch.shape[1:]), torch.get_num_threads(), repr(backbone))
        if (found := kept.get(key)) and found.owner() is None and found.fits(state):
            found.owner = weakref.ref(self)
            return found.chosen, found.plan
        chosen, plan = prepare(self, backbone, name)
        if chosen != "torch" and not self.note:
            kept[key] = Kept(self, state, chosen, plan)
        return chosen, plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Engine, "_prepare", prepared)
        yield


@contextmanager
def preparing_anew() -> Iterator[None]:
    """Have every engine prepare itself."""
    _is_off.append(True)
    try:
        yield
    finally:
        _is_off.pop()
