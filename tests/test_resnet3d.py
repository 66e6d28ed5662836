"""The 3D ResNets and DenseNets of Hara et al., against a second implementation and the published files' figures."""

from __future__ import annotations

import functools
import math

import pytest
import reference_resnets
import torch
from test_backbones import assert_same_layers, lively, seeded_clips

from featx.backbones import ARCHITECTURES, build
from featx.backbones.blocks import BasicBlock, block_names
from featx.backbones.densenet3d import DenseNet3D
from featx.backbones.resnet3d import ResNet3D
from featx.checkpoints.hara_names import hara, hara_densenet
from featx.errors import UnknownNameError, UsageError

LAST_OF_BRANCH = {"basic": "bn_branch2b.weight", "bottleneck": "bn_branch2c.weight", "preactivation": "branch2c.weight"}
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DEPTHS[200] = (3, 24, 36, 3)

# Of each row: kind of block, their numbers, shortcut and groups for the reference; then what the published file holds,
# as numbers and as tensors, with 400 classes (2018) or 700 (2020).
RESIDUAL = {
    "resnet18": ("basic", DEPTHS[18], "A", 1, 33_243_088, 87),
    "resnet34": ("basic", DEPTHS[34], "A", 1, 63_560_144, 167),
    "resnet50": ("bottleneck", DEPTHS[50], "B", 1, 47_071_696, 267),
    "resnet101": ("bottleneck", DEPTHS[101], "B", 1, 86_170_064, 522),
    "resnet152": ("bottleneck", DEPTHS[152], "B", 1, 118_374_864, 777),
    "resnet200": ("bottleneck", DEPTHS[200], "B", 1, 127_599_056, 1017),
    "preresnet200": ("preactivation", DEPTHS[200], "B", 1, 127_591_120, 1017),
    "wideresnet50": ("bottleneck", DEPTHS[50], "B", 1, 158_316_496, 267),
    "resnext101": ("bottleneck", DEPTHS[101], "B", 32, 48_478_672, 522),
    "resnext101-64f": ("bottleneck", DEPTHS[101], "B", 32, 48_478_672, 522),
    # less a counter of batches for each BatchNorm, which we do not keep
    "r3d18": ("basic", DEPTHS[18], "B", 1, 33_572_624 - 20, 102),
    "r3d34": ("basic", DEPTHS[34], "B", 1, 63_889_696 - 36, 182),
    "r3d50": ("bottleneck", DEPTHS[50], "B", 1, 47_686_449 - 53, 267),
    "r3d101": ("bottleneck", DEPTHS[101], "B", 1, 86_784_868 - 104, 522),
    "r3d152": ("bottleneck", DEPTHS[152], "B", 1, 118_989_719 - 155, 777),
    "r3d200": ("bottleneck", DEPTHS[200], "B", 1, 128_213_959 - 203, 1017),
}
DENSE = {
    "densenet121": ((6, 12, 24, 16), 11_780_176, 606),
    "densenet201": ((6, 12, 48, 32), 26_372_176, 1006),
}
ROWS = [*RESIDUAL, *DENSE]


def residual_case(backbone, clips, kind, blocks, shortcut, groups=1, release=2018):
    lively(backbone, clips, last_of_branch=LAST_OF_BRANCH[kind])
    reference = functools.partial(
        reference_resnets.resnet, kind=kind, blocks=blocks, shortcut=shortcut, groups=groups, release=release
    )
    blocks_and_pool5 = [name for name in backbone.layer_names if name.startswith(("res", "pool5"))]
    assert_same_layers(backbone, clips, reference, signed=blocks_and_pool5 if kind == "preactivation" else ())


def dense_case(backbone, clips, blocks):
    dense = [f"dense{stage}" for stage in (2, 3, 4, 5)]
    assert_same_layers(
        lively(backbone, clips), clips, functools.partial(reference_resnets.densenet, blocks=blocks), signed=dense
    )


# ------------------------------------------------------------------------- against the second implementation, small


@pytest.mark.parametrize("size", [(16, 64, 64), (9, 75, 75), (33, 40, 40)], ids=str)
@pytest.mark.parametrize(
    "kind, blocks, shortcut, groups, expansion",
    [
        ("basic", (2, 1, 2, 1), "A", 1, 1),
        ("basic", (1, 2, 1, 8), "B", 1, 1),
        ("bottleneck", (2, 7, 1, 1), "B", 1, 4),
        ("bottleneck", (2, 1, 2, 1), "A", 1, 4),
        ("bottleneck", (1, 1, 2, 2), "B", 1, 2),
        ("bottleneck", (2, 1, 1, 2), "B", 2, 2),
        ("preactivation", (2, 2, 1, 2), "B", 1, 4),
        ("preactivation", (1, 2, 1, 1), "A", 1, 4),
    ],
    ids=lambda x: "".join(map(str, x)) if isinstance(x, tuple) else str(x),
)
def test_small_residual_net(size, kind, blocks, shortcut, groups, expansion):
    clips = seeded_clips(2, 3, *size)
    net = ResNet3D(5, kind, blocks, (4, 6, 8, 10), expansion, groups, shortcut, stem_width=4)
    residual_case(net, clips, kind, blocks, shortcut, groups)


def test_small_residual_net_of_oblong_clips_in_two_channels():
    """The global average of 2020 takes any size."""
    clips = seeded_clips(2, 2, 5, 37, 70)
    net = ResNet3D(5, "basic", (1, 1, 1, 1), (4, 6, 8, 10), in_channels=2, stem_width=3)
    residual_case(net, clips, "basic", (1, 1, 1, 1), "B", release=2020)


@pytest.mark.parametrize("size", [(16, 112, 112), (15, 92, 92), (32, 64, 64)], ids=str)
def test_small_dense_net(size):
    clips = seeded_clips(2, 3, *size)
    dense_case(DenseNet3D(5, (2, 1, 3, 2), growth=3, stem_width=4), clips, (2, 1, 3, 2))


def test_shortcut_a_takes_every_second_place_and_adds_nothing_to_new_channels():
    block = BasicBlock(2, 3, stride=2).eval()
    assert not hasattr(block, "branch1")
    torch.nn.init.zeros_(block.bn_branch2b.weight)  # the convolutions then give nothing
    x = torch.arange(1.0, 2 * 3 * 4 * 5 + 1).reshape(1, 2, 3, 4, 5)
    with torch.inference_mode():
        y = block(x)
    assert y.shape == (1, 3, 2, 2, 3)
    assert y[0, 1].tolist() == [[[61, 63, 65], [71, 73, 75]], [[101, 103, 105], [111, 113, 115]]]
    assert not y[0, 2].any()


# ------------------------------------------------------------------------- against the second implementation, full size


def full_size_case(name, num_clips=1):
    clips = seeded_clips(num_clips, *ARCHITECTURES[name].clip_shape)
    if name in DENSE:
        dense_case(build(name), clips, DENSE[name][0])
    else:
        residual_case(build(name), clips, *RESIDUAL[name][:4], release=2020 if name.startswith("r3d") else 2018)


@pytest.mark.long  # of every kind there are small nets above
@pytest.mark.parametrize("name", list(ROWS))
def test_full_size(name):
    full_size_case(name)


# ------------------------------------------------------------------------- figures of every row


def on_meta(name, **arguments):
    with torch.device("meta"):
        return build(name, **arguments)


@pytest.mark.parametrize("name", ROWS)
def test_totals_equal_the_published_files(name):
    state = on_meta(name).state_dict()
    num_floats, num_tensors = (RESIDUAL.get(name) or DENSE[name])[-2:]
    assert sum(tensor.numel() for tensor in state.values()) == num_floats
    assert len(state) == num_tensors


def test_every_row_of_the_two_families_is_tested():
    kinds = ("ResNet3D", "DenseNet3D")
    assert {name for name, row in ARCHITECTURES.items() if row.kind in kinds} == set(ROWS)


@pytest.mark.parametrize("name", RESIDUAL)
def test_shapes_of_residual_layers(name):
    kind, blocks = RESIDUAL[name][:2]
    clip_shape = ARCHITECTURES[name].clip_shape
    frames = clip_shape[1]
    shapes = on_meta(name).layer_shapes(clip_shape)
    expected = {"conv1": (64, frames, 56, 56), "pool1": (64, frames // 2, 28, 28)}
    channels = 64 if kind == "basic" else 256
    for stage, count in enumerate(blocks, start=2):
        num_frames, side = frames // 2 ** (stage - 1), math.ceil(56 / 2 ** (stage - 1))
        for block in block_names(stage, count):
            expected[block] = (channels, num_frames, side, side)
        channels *= 2
    expected["pool5"] = (512 if kind == "basic" else 2048,)
    expected["prob"] = (700 if name.startswith("r3d") else 400,)
    assert shapes == expected
    assert list(shapes) == list(expected)


@pytest.mark.parametrize(
    "name, channels", [("densenet121", (256, 512, 1024, 1024)), ("densenet201", (256, 512, 1792, 1920))]
)
def test_shapes_of_dense_layers(name, channels):
    sides = [(8, 28, 28), (4, 14, 14), (2, 7, 7), (1, 3, 3)]
    expected = {"conv1": (64, 16, 56, 56), "pool1": (64, 8, 28, 28)}
    for stage, width, side in zip((2, 3, 4, 5), channels, sides, strict=True):
        expected[f"dense{stage}"] = (width, *side)
    assert on_meta(name).layer_shapes((3, 16, 112, 112)) == {**expected, "pool5": (channels[-1],), "prob": (400,)}


def test_names_of_blocks():
    assert block_names(2, 3) == ["res2a", "res2b", "res2c"]
    assert block_names(4, 6)[-1] == "res4f"
    assert block_names(3, 8) == ["res3a", *(f"res3b{i}" for i in range(1, 8))]
    assert on_meta("resnet101").layer_names[8:12] == ("res3d", "res4a", "res4b1", "res4b2")


# ------------------------------------------------------------------------- names in the published files


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("conv1.weight", "conv1.weight"),
        ("bn_conv1.running_mean", "bn1.running_mean"),
        ("res2a.branch2a.weight", "layer1.0.conv1.weight"),
        ("res3b.bn_branch2b.running_var", "layer2.1.bn2.running_var"),
        ("res4f.branch2b.weight", "layer3.5.conv2.weight"),
        ("res4b35.bn_branch2c.bias", "layer3.35.bn3.bias"),
        ("res5a.branch1.weight", "layer4.0.downsample.0.weight"),
        ("res5a.bn_branch1.running_mean", "layer4.0.downsample.1.running_mean"),
        ("fc.bias", "fc.bias"),
    ],
)
def test_names_in_the_files_of_residual_nets(ours, theirs):
    assert hara(ours) == theirs


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("conv1.weight", "features.conv0.weight"),
        ("bn_conv1.bias", "features.norm0.bias"),
        ("dense2.layer1.bn_a.weight", "features.denseblock1.denselayer1.norm.1.weight"),
        ("dense5.layer16.conv_b.weight", "features.denseblock4.denselayer16.conv.2.weight"),
        ("dense3.layer12.bn_b.running_var", "features.denseblock2.denselayer12.norm.2.running_var"),
        ("dense4.layer2.conv_a.weight", "features.denseblock3.denselayer2.conv.1.weight"),
        ("transition2.bn.weight", "features.transition1.norm.weight"),
        ("transition4.conv.weight", "features.transition3.conv.weight"),
        ("bn_pool5.running_mean", "features.norm5.running_mean"),
        ("fc.weight", "classifier.weight"),
    ],
)
def test_names_in_the_files_of_dense_nets(ours, theirs):
    assert hara_densenet(ours) == theirs


@pytest.mark.parametrize("name", ROWS)
def test_no_two_tensors_share_a_name_in_a_file(name):
    theirs = hara_densenet if name in DENSE else hara
    names = list(on_meta(name).state_dict())
    assert len({theirs(ours) for ours in names}) == len(names)


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "size, message",
    [
        ((24, 112, 112), "averages 2x3x3 for clips of 24x112x112, but their last map is 1x3x3; use 16 frames"),
        ((16, 125, 112), "averages 1x3x3 for clips of 16x125x112, but their last map is 1x4x3"),
        ((16, 16, 16), "averages 1x0x0 for clips of 16x16x16, but their last map is 1x0x0"),
    ],
)
def test_dense_nets_refuse_what_their_average_does_not_fit(size, message):
    net = DenseNet3D(3, (1, 1, 1, 1), growth=2, stem_width=2).eval()
    clips = torch.zeros(1, 3, *size)
    for layer in ("pool5", "prob"):
        with pytest.raises(UsageError, match=message), torch.inference_mode():
            net(clips, [layer])
    assert net(clips, ["dense3"])["dense3"].shape[0] == 1


def test_dense_nets_refuse_clips_that_vanish():
    net = DenseNet3D(3, (1, 1, 1, 1), growth=2, stem_width=2).eval()
    with pytest.raises(UsageError, match="averages 2x2x2, but these clips leave 1x7x7; use at least 16 frames"):
        net(torch.zeros(1, 3, 8, 112, 112), ["dense5"])


def test_unknown_arguments():
    with pytest.raises(UnknownNameError, match="unknown block 'bottle'; did you mean 'bottleneck'"):
        ResNet3D(block="bottle")
    with pytest.raises(UnknownNameError, match="unknown shortcut 'C'; known: A, B"):
        ResNet3D(shortcut="C")
    with pytest.raises(UsageError, match=r"blocks are \[1, 1\] and widths .* a ResNet3D has four of each"):
        ResNet3D(blocks=[1, 1])
    with pytest.raises(UsageError, match=r"blocks are \[1\]; a DenseNet3D has four"):
        DenseNet3D(blocks=[1])
    with pytest.raises(
        UsageError, match="res2a has 8 channels after 16; shortcut A only adds channels, use shortcut B"
    ):
        ResNet3D(widths=(8, 8, 8, 8), shortcut="A", stem_width=16)
