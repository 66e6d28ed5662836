"""CUDA graphs on the CPU: what is captured is done again with the memory that it had then, which nothing keeps for it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


@dataclass(frozen=True)
class Address:
    """A tensor from before the capture, as a graph knows it."""

    tensor: weakref.ref

    def read(self) -> Tensor:
        tensor = self.tensor()
        assert tensor is not None, "a graph reads memory that was given back"
        return tensor


@dataclass(frozen=True)
class Made:
    """A tensor that the graph writes itself, by its number."""

    number: int


class RecordedGraph:
    """As torch.cuda.CUDAGraph: the operations, to be done again; what they gave is written over where it is still held."""

    def __init__(self) -> None:
        self._calls: list[tuple] = []
        self._given: list[weakref.ref] = []

    def record(self, function, arguments, keywords, results: list[Tensor]) -> None:
        self._calls.append((function, arguments, keywords))
        self._given += [weakref.ref(x) for x in results]

    def replay(self) -> None:
        made: list[Tensor] = []

        def read(x: object) -> object:
            return x.read() if isinstance(x, Address) else made[x.number] if isinstance(x, Made) else x

        for function, arguments, keywords in self._calls:
            made += tree_leaves(function(*tree_map(read, arguments), **tree_map(read, keywords)))
        for ours, again in zip(self._given, made, strict=True):
            if ours() is not None:
                ours().copy_(again)


class Recording(TorchDispatchMode):
    """Writes down for a graph what is computed within."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self._graph, self._made = graph, []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        numbers = {id(x): number for number, x in enumerate(self._made)}

        def written(x: object) -> object:
            if not isinstance(x, Tensor):
                return x
            return Made(numbers[id(x)]) if id(x) in numbers else Address(weakref.ref(x))

        given = tree_map(written, arguments), tree_map(written, keywords or {})
        found = function(*arguments, **(keywords or {}))
        results = tree_leaves(found)
        self._graph.record(function, *given, results)
        self._made += results
        return found


@contextmanager
def _captured(graph: RecordedGraph, *rest, **options) -> Iterator[None]:
    with Recording(graph):
        yield


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch capture graphs on the CPU, which has one stream."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "device": lambda device: nullcontext(),
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": RecordedGraph,
        "graph_pool_handle": lambda: (0, 1),
        "graph": _captured,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
