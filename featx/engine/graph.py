"""A backbone as a list of operations: what the network computes, without the modules that it is written in.

    graph = record(backbone, (3, 16, 112, 112), ["fc6"])
    for operation in graph.operations:
        operation.function, operation.arguments, operation.result

It is found by running the network once on tensors that have shapes but no numbers, and writing down what it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from featx.backbones.base import Backbone, on_meta
from featx.backbones.shapes import ShapesOnly, result_of

__all__ = ["Graph", "Operation", "Value", "mapped", "record"]


@dataclass(frozen=True)
class Value:
    """A result of an operation, or the input: number `index` of the graph, with its shape for a batch of one."""

    index: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One call: `function(*arguments, **keywords)` gives `result`.

    Where a tensor belongs, `arguments` hold a Value, or the network's own parameter.
    """

    function: Callable
    arguments: tuple
    keywords: dict[str, Any]
    result: Value

    @property
    def name(self) -> str:
        """As in PyTorch's operator table, without its overload and the underscore of the in-place form: "relu"."""
        packet = getattr(self.function, "overloadpacket", self.function)
        return packet.__name__.rstrip("_")

    @property
    def changes(self) -> bool:
        """Whether it changes one of its arguments in place."""
        schema = getattr(self.function, "_schema", None)
        return schema is not None and schema.is_mutable

    def inputs(self) -> list[Value]:
        """The Values among the arguments, in order."""
        return [value for value in _flat((self.arguments, self.keywords)) if isinstance(value, Value)]


@dataclass(frozen=True)
class Graph:
    """The operations in order, the network's input, and the Value of each layer."""

    input: Value
    operations: list[Operation]
    layers: dict[str, Value]


def record(backbone: Backbone, clip_shape: Sequence[int], layers: Sequence[str]) -> Graph:
    """Write down what `backbone` computes for `layers` of a clip of shape (C, T, H, W).

    Raises NotImplementedError for a network that cannot be written down so: one that calls what gives more than one
    tensor, that holds a tensor which is neither parameter nor buffer, or that does other things for more clips.
    """
    skeleton = on_meta(backbone)
    real = {id(meta): tensor for meta, tensor in zip(_tensors(skeleton), _tensors(backbone), strict=True)}
    one, two = (_record_batch(skeleton, real, (num_clips, *clip_shape), layers) for num_clips in (1, 2))
    _require_equal(one, two)
    return one


def _record_batch(skeleton: Backbone, real: dict[int, Tensor], shape: tuple[int, ...], layers: Sequence[str]) -> Graph:
    clip = torch.empty(shape, device="meta")
    recorder = _Recorder(clip, real)
    try:
        with torch.inference_mode(), recorder:
            activations = skeleton(clip, layers)
    except NotImplementedError:
        raise
    except RuntimeError as error:  # what needs numbers, where there are but shapes
        raise NotImplementedError(str(error).partition("\n")[0]) from error
    values = {name: recorder.described(x) for name, x in activations.items()}
    return Graph(recorder.input, recorder.operations, values)


def _require_equal(one: Graph, two: Graph) -> None:
    """The number of clips may stand nowhere in a graph: such as `x.view(1, -1)`, from `x.view(x.shape[0], -1)`."""
    for a, b in zip_longest(one.operations, two.operations):
        if a is None or b is None or _without_shapes(a) != _without_shapes(b):
            name = (a or b).name
            raise NotImplementedError(f"the arguments of '{name}' depend on the number of clips")


def _without_shapes(operation: Operation) -> list:
    """What is compared of an operation: tensors by number or identity, all else as it is."""
    plain = (operation.function, operation.arguments, operation.keywords, operation.result)
    return _flat(mapped(plain, lambda x: x.index if isinstance(x, Value) else id(x) if isinstance(x, Tensor) else x))


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def after_change(x: Tensor, view: Tensor) -> Tensor:
    """`x`, once `view`, a part of it, has been changed in place."""
    return x


class _Recorder(ShapesOnly):
    """Numbers the tensors as they appear, and a tensor that is changed in place anew."""

    def __init__(self, clip: Tensor, real: dict[int, Tensor]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._real = real  # id of a parameter's shape-only twin -> the parameter
        self._values: dict[tuple, Value] = {}  # by the memory that a tensor shows: one tensor may be several objects
        self._changed_through: dict[tuple, Value] = {}
        self._kept: list[Tensor] = []  # so that no memory is given out twice
        self.input = self._number(clip)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        arguments, keywords = mapped(args, self.described), mapped(kwargs, self.described)
        result = result_of(function, args, kwargs)
        if not isinstance(result, Tensor):
            raise NotImplementedError(f"{function} gives a {type(result).__name__}, not one tensor")
        changes = function._schema.is_mutable
        if not changes and _memory(result) in self._values:  # the same tensor under another name
            return result
        keywords.pop("device", None)  # "meta"
        self.operations.append(Operation(function, arguments, keywords, self._number(result)))
        if changes:
            for key in self._values:
                if key[0] == _memory(result)[0] and key != _memory(result):
                    self._changed_through[key] = self._values[_memory(result)]
        return result

    def described(self, x: object) -> object:
        """What an operation's arguments hold in place of `x`."""
        if not isinstance(x, Tensor):
            return x
        if id(x) in self._real:
            return self._real[id(x)]
        if _memory(x) not in self._values:
            raise NotImplementedError(f"a tensor of {tuple(x.shape)} is neither parameter nor buffer")
        if _memory(x) in self._changed_through:  # a tensor of which a view was changed, and which is now something else
            before, view = self._values[_memory(x)], self._changed_through.pop(_memory(x))
            self.operations.append(Operation(after_change, (before, view), {}, self._number(x)))
        return self._values[_memory(x)]

    def _number(self, x: Tensor) -> Value:
        self._kept.append(x)
        value = self._values[_memory(x)] = Value(len(self._kept) - 1, tuple(x.shape))
        return value


def _memory(x: Tensor) -> tuple:
    """What tells whether two tensors are the same numbers: first the storage, then what is shown of it."""
    return (x.untyped_storage()._cdata, x.storage_offset(), tuple(x.shape), x.stride())


def mapped(structure: Any, change: Callable[[object], object]) -> Any:
    """The structure with `change` applied to all that is in its lists, tuples and dicts."""
    if isinstance(structure, dict):
        return {key: mapped(value, change) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)(mapped(value, change) for value in structure)
    return change(structure)


def _flat(structure: Any) -> list:
    """All that is in the lists, tuples and dicts of a structure, in order."""
    found: list = []
    mapped(structure, found.append)
    return found
