"""engine/folded.py: a GPU's form of every architecture, on the CPU, against the network as it is written and float64."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_backbones import seeded_clips
from test_engine_plan import ONE_OF_EACH, image_like, wide
from test_graph import Net
from torch import nn

from featx.backbones import ARCHITECTURES
from featx.catalog import CHECKPOINTS
from featx.engine.folded import FusedConvolution, Pixels, PlainConvolution, folded, largest_activation
from featx.engine.precision import agreement
from featx.preprocess import Preprocess

CPU = torch.device("cpu")
TOLERANCE = 2e-5  # of a layer's largest number
APART = {torch.bfloat16: 5e-3, torch.float16: 1e-4}  # 1 - cos; these nets are small, and so forgive little


def padded(clips, net):
    memory = torch.zeros(len(clips), net.in_channels, *clips.shape[2:], dtype=net.dtype)
    memory[:, : clips.shape[1]] = clips
    return memory.contiguous(memory_format=torch.channels_last_3d)


def assert_row(architecture, fused):
    net, shape = wide(architecture)
    layers = net.layer_names
    clips = image_like(2, *shape)
    with torch.no_grad():
        plain = net(clips.clone(), layers)
        exact = copy.deepcopy(net).double()(clips.double(), layers)
        made = folded(net, shape, layers, torch.float32, CPU, fused=fused)
        given = padded(clips, made)
        got = made(given)
        halves = folded(net, shape, layers, torch.bfloat16, CPU, fused=fused)
        rough = halves(padded(clips, halves))
    assert list(got) == list(layers) and torch.equal(given, padded(clips, made))
    assert not any(isinstance(module, nn.BatchNorm3d) for module in made.modules())
    for layer in layers:
        scale = exact[layer].abs().max()
        assert got[layer].shape == plain[layer].shape and scale > 0
        for other in (plain[layer].double(), exact[layer]):
            assert (got[layer] - other).abs().max() <= TOLERANCE * scale, layer
        assert rough[layer].dtype == torch.bfloat16
    rough = {layer: x.float() for layer, x in rough.items()}
    assert 1e-7 < agreement(rough, plain, len(clips)) < APART[torch.bfloat16]


@pytest.mark.parametrize("architecture", ["c3d", "p3d199", "resnet18"])
def test_a_net_of_some_kinds(architecture):
    assert_row(architecture, fused=False)


@pytest.mark.parametrize("architecture", ["res3d"])
def test_where_cudnn_has_no_fused_kernel_nothing_changes(architecture):
    """As on the CPU, which has none at all."""
    assert_row(architecture, fused=True)


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("fused", [False, True])
def test_every_architecture(architecture, fused):
    assert_row(architecture, fused)


@pytest.mark.long
@pytest.mark.parametrize("architecture", ONE_OF_EACH)
def test_fp16_where_nothing_overflows(architecture):
    net, shape = wide(architecture)
    clips, layers = image_like(2, *shape), net.layer_names[-2:]
    made = folded(net, shape, layers, torch.float16, CPU)
    with torch.no_grad():
        found = {layer: x.float() for layer, x in made(padded(clips, made)).items()}
        assert agreement(found, net(clips, layers), 2) < APART[torch.float16]


def test_a_max_pool_goes_before_bias_and_relu_and_changes_no_bit(monkeypatch):
    net, shape = wide("c3d")
    clips = seeded_clips(2, *shape)
    made = folded(net, shape, ["pool5"], torch.float32, CPU)
    pooled = [module for module in made.modules() if isinstance(module, PlainConvolution) and module.pool != (1, 1)]
    assert len(pooled) == 5

    def after(self, x, residual=None):
        y = self._convolved(x, None).add_(self.bias.view(1, -1, 1, 1, 1)).relu_()
        return y if self.pool == (1, 1) else self._pooled(y)

    before = made(padded(clips, made))["pool5"]
    monkeypatch.setattr(PlainConvolution, "forward", after)
    assert (made(padded(clips, made))["pool5"] - before).abs().max() <= 1e-6 * before.abs().max()


def test_fused_convolutions_are_asked_once():
    net, shape = wide("res3d")
    made = folded(net, shape, ["pool5"], torch.float32, CPU, fused=True)
    fused = [module for module in made.modules() if isinstance(module, FusedConvolution)]
    assert fused and all(module.works for module in fused)
    made(padded(seeded_clips(1, *shape), made))
    assert not any(module.works for module in fused)


@pytest.fixture
def refusing(monkeypatch):
    """A fused convolution whose fused kernel fails with the error that is told; and its input, a time of one."""
    made, clips = folded_convolution()
    told = []

    def refused(*args):
        raise told[0]

    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution_relu", refused)
    return made, clips, told


def folded_convolution():
    net = Net(
        lambda net, x: net.conv(x).relu(), lambda net, x: x.mean((2, 3, 4)), conv=nn.Conv3d(3, 4, 3, padding=1)
    ).eval()
    made = folded(net, (3, 2, 4, 4), ["layer1"], torch.float32, CPU, fused=True)
    (fused,) = (module for module in made.modules() if isinstance(module, FusedConvolution))
    return fused, torch.rand(1, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_a_full_memory_is_no_missing_kernel(refusing, error):
    fused, clips, told = refusing
    told.append(error)
    with pytest.raises(RuntimeError) as raised:
        fused(clips)
    assert raised.value is error and fused.works


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("no such operation here"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_a_missing_kernel_is_gone_without(refusing, error, monkeypatch):
    """Also where another reason is as likely: what follows does not run while the error holds memory."""
    fused, clips, told = refusing
    told.append(error)
    assert torch.equal(fused(clips), PlainConvolution.forward(fused, clips)) and not fused.works
    fused.works = True

    def full(self, x, residual=None):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PlainConvolution, "forward", full)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        fused(clips)
    assert raised.value.__context__ is None


@pytest.fixture
def room(monkeypatch):
    """A GPU that has a fused kernel once PyTorch gave back what it keeps; none at all where it is `lost`."""
    made, clips = folded_convolution()
    room = SimpleNamespace(
        fused=made, clips=clips, num_calls=0, num_emptied=0, capturing=False, lost=False, holds=[],
        words="GET was unable to find an engine to execute this computation",
    )  # fmt: skip

    class Kept:
        pass

    def empty_cache():
        assert not room.capturing and all(kept() is None for kept in room.holds)
        room.num_emptied += 1

    def fused(x, weight, bias, *where):
        room.num_calls += 1
        kept = Kept()
        room.holds.append(weakref.ref(kept))
        if room.lost or not room.num_emptied:
            raise RuntimeError(room.words)
        return torch.full((1, 4, 2, 4, 4), 7.0)

    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution_relu", fused)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: room.capturing)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    return room


def test_a_fused_kernel_is_asked_again_when_there_is_more_room(room):
    """The memory that PyTorch keeps for later may be why cuDNN found none; what the error held is free by then, too."""
    for num_calls in (2, 3):
        assert bool((room.fused(room.clips) == 7).all()) and room.fused.works
        assert (room.num_calls, room.num_emptied) == (num_calls, 1)


@pytest.mark.parametrize("change", [{"lost": True}, {"words": "CUDNN_STATUS_NOT_SUPPORTED"}, {"capturing": True}])
def test_a_fused_kernel_is_asked_again_once_and_where_it_may_help(room, change):
    vars(room).update(change)
    expected = PlainConvolution.forward(room.fused, room.clips)
    for _ in range(2):
        assert torch.equal(room.fused(room.clips), expected) and not room.fused.works
    assert (room.num_calls, room.num_emptied) == ((2, 1) if room.lost else (1, 0))


def test_a_memory_that_is_full_at_the_second_asking_is_told(room, monkeypatch):
    fused, full = torch.ops.aten.cudnn_convolution_relu, torch.OutOfMemoryError("CUDA out of memory")

    def second(*args):
        if room.num_emptied:
            raise full
        return fused(*args)

    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution_relu", second)
    with pytest.raises(torch.OutOfMemoryError):
        room.fused(room.clips)
    assert room.fused.works


def test_first_layers_are_filled_up_for_tensor_cores_only():
    net, shape = wide("c3d")
    assert folded(net, shape, ["pool1"], torch.float32, CPU).in_channels == 3
    assert folded(net, shape, ["pool1"], torch.bfloat16, CPU).in_channels == 8
    other = Net(lambda net, x: net.conv(x) + x, lambda net, x: x.mean((2, 3, 4)), conv=nn.Conv3d(3, 3, 3, padding=1))
    assert folded(other.eval(), (3, 4, 8, 8), ["layer1"], torch.bfloat16, CPU).in_channels == 3


def test_the_largest_activation_is_that_of_any_step():
    net = Net(
        lambda net, x: net.narrow(net.wide(x) * -1000.0),
        lambda net, x: x.mean((2, 3, 4)),
        wide=nn.Conv3d(3, 4, 1, bias=False),
        narrow=nn.Conv3d(4, 2, 1, bias=False),
    ).eval()
    nn.init.constant_(net.wide.weight, 1.0)
    nn.init.zeros_(net.narrow.weight)
    made = folded(net, (3, 2, 4, 4), ["layer1"], torch.float32, CPU)
    assert largest_activation(made, torch.full((1, 3, 2, 4, 4), 7.0)) == 21_000


CUBE = (torch.arange(3 * 8 * 20 * 20) % 97).float().reshape(3, 8, 20, 20).numpy()
PREPROCESSES = {
    "shift only": {"mean": (100.5, 108.0, 107.8), "channel_order": "bgr"},
    "all": {"scale": 1 / 255, "mean": (0.4, 0.5, 0.3), "std": (0.2, 0.3, 0.25), "channel_order": "rgb"},
    "cube": {"mean_cube": CUBE, "resize": (20, 20), "channel_order": "bgr"},
    "flow": {"mean": (128.0, 127.0), "channel_order": "flow"},
    "nothing": {},
}


def assert_same_pixels(preprocess, length, dtype):
    net = nn.Module()
    net.in_channels, net.dtype = 8, dtype
    crop = preprocess.crop
    pixels = Pixels(preprocess, length, net, CPU, batch_size=3)
    generator = torch.Generator().manual_seed(3)
    for num_clips in (3, 1):
        clips = torch.randint(0, 256, (num_clips, length, crop, crop, 3), generator=generator, dtype=torch.uint8)
        found, expected = pixels(clips), preprocess.normalise(clips)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last_3d)
        channels = preprocess.num_channels
        assert found.shape == (num_clips, 8, length, crop, crop) and not found[:, channels:].any()
        tolerance = 1e-6 if dtype == torch.float32 else 2**-8
        assert (found[:, :channels].float() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", PREPROCESSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_are_normalised_as_elsewhere(name, dtype):
    assert_same_pixels(Preprocess(crop=12, **PREPROCESSES[name]), 8, dtype)


def test_pixels_of_every_card():
    seen = set()
    for preprocess in (card.preprocess for card in CHECKPOINTS.values()):
        numbers = (preprocess.scale, preprocess.mean, preprocess.std, preprocess.channel_order)
        if numbers not in seen and preprocess.mean_cube is None:
            assert_same_pixels(replace(preprocess, crop=12, resize=None, crop_offset=None), 1, torch.float32)
        seen.add(numbers)
    assert len(seen) > 3
