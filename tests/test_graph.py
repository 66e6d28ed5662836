"""engine/graph.py: what is written down computes what the network computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_backbones import SMALL, small
from torch import nn

from featx.backbones.base import Backbone
from featx.engine.graph import Graph, Operation, Value, mapped, record

FAMILIES = (
    "c3d",
    "p3d199",
    "p3d-a",
    "res3d",
    "resnet18",
    "resnet50",
    "preresnet200",
    "resnext101",
    "densenet121",
    "tv-r2plus1d18",
)


class Net(Backbone):
    """A net of one stage a function: of x, or of the net itself and x."""

    def __init__(self, *functions, **tensors):
        super().__init__()
        self._functions = functions
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def stages(self):
        for i, function in enumerate(self._functions):
            yield f"layer{i}", lambda x, function=function: function(self, x)


def replay(graph: Graph, clips):
    """The operations one by one, as they stand."""
    tensors = {graph.input: clips}
    for operation in graph.operations:
        arguments, keywords = mapped(
            (operation.arguments, operation.keywords), lambda x: tensors[x] if isinstance(x, Value) else x
        )
        tensors[operation.result] = operation.function(*arguments, **keywords)
    return {layer: tensors[value] for layer, value in graph.layers.items()}


def assert_replays(net, clips, layers=None):
    layers = layers or net.layer_names
    graph = record(net, clips.shape[1:], layers)
    with torch.inference_mode():
        expected = net(clips.clone(), layers)
        got = replay(graph, clips.clone())
    assert list(got) == list(layers)
    for layer in layers:
        assert torch.equal(got[layer], expected[layer]), layer
    return graph


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_net_of_every_family(architecture):
    net, clips = small(architecture)
    graph = assert_replays(net, clips)
    assert graph.input.shape == (1, *clips.shape[1:])
    assert {layer: value.shape[1:] for layer, value in graph.layers.items()} == net.layer_shapes(clips.shape[1:])


def test_the_families_are_all_there_are():
    from featx.backbones import ARCHITECTURES

    assert {ARCHITECTURES[name].kind for name in FAMILIES} == {row.kind for row in ARCHITECTURES.values()}
    assert len(SMALL) <= len(FAMILIES)


def test_layers_above_are_not_written_down():
    net, clips = small("c3d")
    below = len(record(net, clips.shape[1:], ["pool2"]).operations)
    assert below < len(record(net, clips.shape[1:], ["conv5b"]).operations)


def test_the_weights_are_the_networks_own():
    net, clips = small("res3d")
    graph = record(net, clips.shape[1:], ["pool5"])
    first = graph.operations[0]
    assert first.name == "conv3d" and first.inputs() == [graph.input]
    assert first.arguments[1] is net.conv1.weight
    assert all(tensor.device.type == "cpu" for tensor in net.parameters())


# ------------------------------------------------------------------------- what is done in place


def clip(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relu_twice(net, x):
    y = x * 2
    F.relu_(y)
    y += 1
    return F.relu(y, inplace=True) * y


def used_again(net, x):
    y = x + 1
    z = y * y
    return torch.cat([y, z, x], 1)


def changed_through_a_view(net, x):
    y = x + 1
    y[:, :1].add_(x[:, 1:2])
    return y * 3


def changed_and_seen_through_a_view(net, x):
    y = x + 1
    view = y[:, 1:]
    F.relu_(y)
    return view - 1


def two_views(net, x):
    y = x + 1
    one, two = y[:, :2], y[:, 1:3]
    one.mul_(-5)
    two.add_(0.25)
    one.mul_(2)
    return torch.cat([y, one, two], 1)


def a_view_of_a_view(net, x):
    y = x + 1
    y[:, 1:][:, :1].zero_()
    y += 1
    y[:, 2:] = x[:, :1]
    return y


def same_under_another_name(net, x):
    y = x * 2
    z = y.contiguous()
    z += 1
    return y * z


def with_scalars_and_lists(net, x):
    return F.pad(x, (1, 0, 2, 1), value=2.5).flip([2, 3]).transpose(1, 2).clamp(-1, max=1)


def with_a_new_tensor(net, x):
    return x + torch.ones(x.shape[1:], device=x.device) * torch.arange(x.shape[-1], device=x.device)


IN_PLACE = [
    relu_twice,
    used_again,
    changed_through_a_view,
    changed_and_seen_through_a_view,
    two_views,
    a_view_of_a_view,
    same_under_another_name,
    with_scalars_and_lists,
    with_a_new_tensor,
]


@pytest.mark.parametrize("function", IN_PLACE, ids=lambda f: f.__name__)
def test_what_a_function_does(function):
    net = Net(function, lambda net, x: x.mean((2, 3, 4))).eval()
    assert_replays(net, clip(3, 3, 2, 4, 5))


def test_a_layer_that_is_changed_later():
    """What counts is what the caller sees at the end."""

    def above(net, x):
        x.neg_()
        return x + 1

    assert_replays(Net(lambda net, x: x * 2, above).eval(), clip(2, 3, 2, 4, 5))


def test_parameters_without_a_module():
    net = Net(
        lambda net, x: x * net.factor.view(1, -1, 1, 1, 1) + net.offset,
        lambda net, x: F.conv3d(x, net.kernel),
        factor=nn.Parameter(torch.tensor([1.0, 2, 3])),
        kernel=nn.Parameter(clip(4, 3, 1, 2, 2)),
    )
    net.register_buffer("offset", torch.tensor(0.5))
    assert_replays(net.eval(), clip(2, 3, 2, 4, 5))


def test_a_module_that_is_used_twice():
    net = Net(lambda net, x: net.same(F.relu(net.same(x))), same=nn.Conv3d(3, 3, 1))
    assert_replays(net.eval(), clip(2, 3, 2, 4, 5))


def test_dropout_and_norms_are_those_of_evaluation():
    net = Net(lambda net, x: F.dropout(net.norm(x), 0.5, net.training), norm=nn.BatchNorm3d(3)).eval()
    net.norm.running_mean.fill_(2)
    graph = assert_replays(net, clip(2, 3, 2, 4, 5))
    assert "batch_norm" in [operation.name for operation in graph.operations]
    assert not net.norm.num_batches_tracked and net.norm.running_mean.tolist() == [2, 2, 2]


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda net, x: x.max(1).values, "not one tensor"),
        (lambda net, x: x.split(1, 1)[0], "not one tensor"),
        (lambda net, x: x if x.mean() > 0 else -x, "meta tensors|not one tensor"),
        (lambda net, x: x * float(x.sum()), "meta tensors|not one tensor"),
        (lambda net, x: x.view(x.shape[0], -1), "'view' depend on the number of clips"),
        (lambda net, x: x / x.shape[0], "'div' depend on the number of clips"),
        (lambda net, x: torch.cat([y * 2 for y in x], 0)[None], "depend on the number of clips|not one tensor"),
        (lambda net, x: x * net.constant, "neither parameter nor buffer"),
    ],
    ids=range(8),
)
def test_networks_that_cannot_be_written_down(function, words):
    net = Net(function, constant=torch.tensor([2.0])).eval()
    with pytest.raises(NotImplementedError, match=words):
        record(net, (3, 2, 4, 5), ["layer0"])


def test_names_and_inputs_of_operations():
    graph = record(Net(relu_twice).eval(), (3, 2, 4, 5), ["layer0"])
    names = [operation.name for operation in graph.operations]
    assert names == ["mul", "relu", "add", "relu", "mul"]
    assert [operation.changes for operation in graph.operations] == [False, True, True, True, False]
    last = graph.operations[-1]
    assert last.inputs() == [graph.operations[-2].result] * 2 and last.result == graph.layers["layer0"]
    nested = Operation(torch.cat, ([graph.input, last.result], 1), {"out": graph.input}, last.result)
    assert nested.inputs() == [graph.input, last.result, graph.input]
