import copy
from functools import cache, partial

import pytest
import reference_nets
import torch

from featx.backbones import ARCHITECTURES, build
from featx.backbones.c3d import C3D
from featx.backbones.p3d import P3D
from featx.backbones.res3d import Res3D
from featx.catalog import CHECKPOINTS
from featx.checkpoints.torchvision_names import torchvision
from featx.errors import UnknownNameError, UsageError

LAST_OF_BRANCH = {C3D: (), P3D: "bn_branch2c.weight", Res3D: ("bn_branch2b.weight", "bn_branch2b_t.weight")}


def lively(backbone, clips, seed=0, last_of_branch=None):
    """Give a backbone seeded weights with statistics such as training leaves: no layer dies or explodes.

    BatchNorm's statistics are those of its real input (one pass in training mode), then scaled off a little.
    `last_of_branch` is how the names of the weights end that close a block's branch.
    """
    last_of_branch = last_of_branch or LAST_OF_BRANCH.get(type(backbone), ())
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in backbone.modules() if hasattr(m, "running_var")]
    names = set(backbone.state_dict())
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            # a block adds little to its shortcut: else 50 random blocks amplify rounding a thousandfold
            ends_branch = name.endswith(last_of_branch)
            if parameter.ndim > 1:
                scale = 0.1 if ends_branch else 1.0
                parameter.normal_(0, scale * (2 / parameter[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("weight") and name.removesuffix("weight") + "running_var" in names:
                parameter.uniform_(*((0.05, 0.25) if ends_branch else (0.3, 1.2)), generator=generator)
            else:
                parameter.normal_(0, 0.1, generator=generator)
        if norms:
            for norm in norms:
                norm.momentum = 1.0
            backbone.train()(clips, backbone.layer_names[-1:])
            for norm in norms:
                norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.5, 2.0, generator=generator))
    return backbone.eval()


def seeded_clips(*shape, scale=50.0, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def assert_same_layers(backbone, clips, reference, signed=()):
    """Every layer equals the reference's; all but prob and the layers `signed` are after a ReLU."""
    with torch.inference_mode():
        ours = backbone(clips, backbone.layer_names)
        theirs = reference({name: tensor.detach() for name, tensor in backbone.state_dict().items()}, clips)
    assert set(ours) <= set(theirs)
    for name, expected in theirs.items():
        got = ours[name]
        assert got.shape == expected.shape, name
        size = expected.abs().max()
        assert size > 0, f"{name} is dead: this test would prove nothing"
        assert (got - expected).abs().max() <= 1e-4 * size, name
        if name == "prob":
            assert got.max() < 0.99, "prob is saturated: this test would prove nothing"
        else:
            assert (got.min() < 0) == (name in signed), f"whether {name} is after a ReLU"


# ------------------------------------------------------------------------- against the second implementation


@pytest.mark.long  # the small ones below are of the same kind
def test_c3d_at_full_size():
    clips = seeded_clips(1, 3, 16, 112, 112, scale=1.0)
    assert_same_layers(lively(C3D(), clips), clips, reference_nets.c3d)


@pytest.mark.long
def test_res3d_at_full_size():
    clips = seeded_clips(1, 3, 8, 112, 112)
    assert_same_layers(lively(Res3D(), clips), clips, reference_nets.res3d)


@pytest.mark.long
def test_p3d_at_full_size():
    clips = seeded_clips(1, 3, 16, 160, 160)
    assert_same_layers(lively(P3D(), clips[..., :96, :96]), clips, reference_nets.p3d)


def test_small_c3d():
    clips = seeded_clips(2, 3, 16, 112, 112, scale=1.0)
    net = lively(C3D(num_classes=5, widths=(4, 6, 8, 10, 12), fc_width=20), clips)
    assert_same_layers(net, clips, reference_nets.c3d)


def test_small_res3d_on_odd_sizes():
    clips = seeded_clips(2, 3, 7, 51, 37)
    net = lively(Res3D(num_classes=5, widths=(4, 6, 8, 12)), clips)
    assert_same_layers(net, clips, reference_nets.res3d)


@pytest.mark.parametrize("arithmetic", ["caffe", "port"])
def test_small_p3d(arithmetic):
    clips = seeded_clips(2, 3, 16, 50, 66)
    net = lively(P3D(num_classes=5, blocks=(4, 3, 2, 2), width=4, arithmetic=arithmetic), clips)
    assert_same_layers(
        net, clips, lambda w, x: reference_nets.p3d(w, x, blocks=(4, 3, 2, 2), port=arithmetic == "port")
    )


@pytest.mark.parametrize("kinds", ["A", "B", "C", "ABC"])
def test_small_p3d_of_the_paper(kinds):
    clips = seeded_clips(2, 3, 16, 50, 66)
    net = lively(P3D(num_classes=5, blocks=(2, 3, 2, 1), width=4, arithmetic="paper", kinds=tuple(kinds)), clips)
    assert_same_layers(net, clips, partial(reference_nets.p3d, blocks=(2, 3, 2, 1), paper=True, kinds=kinds))


def test_small_p3d_of_one_kind_in_the_arithmetic_of_caffe():
    clips = seeded_clips(2, 3, 16, 50, 66)
    net = lively(P3D(num_classes=5, blocks=(1, 2, 7, 1), width=4, kinds="CB"), clips)
    assert {"res3b", "res4b6"} < set(net.layer_names)
    assert_same_layers(net, clips, partial(reference_nets.p3d, blocks=(1, 2, 7, 1), kinds="CB"))


@pytest.mark.parametrize("depths", [(1,) * 5, (3,) * 5, (5,) * 5, (7,) * 5, (3, 3, 5, 5, 7), (7, 5, 5, 3, 3)], ids=str)
def test_small_c3d_of_the_search(depths):
    clips = seeded_clips(2, 3, 16, 56, 56, scale=0.2)
    one_each = {"convs": (1, 1, 1, 1, 1), "depths": depths, "crop": 56}
    net = lively(C3D(num_classes=5, widths=(4, 6, 8, 10, 12), fc_width=20, **one_each), clips)
    steps = reference_nets.C3D_SEARCHED_STEPS
    assert_same_layers(net, clips, partial(reference_nets.c3d, steps=steps, depths=depths))


def test_small_c3d_with_the_ported_pool5():
    clips = seeded_clips(2, 3, 16, 112, 112, scale=1.0)
    net = lively(C3D(num_classes=5, widths=(4, 6, 8, 10, 12), fc_width=20, pool5="ported"), clips)
    assert_same_layers(net, clips, partial(reference_nets.c3d, ported=True))


# What each row of the Res3D family is, as the paper's tables write it: arguments of reference_nets.res3d.
RES34 = ("abc", "abcd", "abcdef", "abc")
FRAMES4 = {"times": (1, 2, 2, 1)}
RES3D_ROWS = {
    "res3d": {},
    "res3d18": {},
    "res3d34": {"blocks": RES34},
    "res2d18": {"depths": (1, 1, 1, 1, 1), "times": (1, 1, 1, 1)},
    "res2d34": {"depths": (1, 1, 1, 1, 1), "times": (1, 1, 1, 1), "blocks": RES34},
    "sr18": FRAMES4,
    "sr18-56": {**FRAMES4, "stem": (5, 1)},
    "sr18-224": {**FRAMES4, "stem": (11, 4)},
    "mc1": {**FRAMES4, "depths": (1, 1, 1, 1, 1)},
    "mc2": {**FRAMES4, "depths": (3, 1, 1, 1, 1)},
    "mc3": {**FRAMES4, "depths": (3, 3, 1, 1, 1)},
    "mc4": {**FRAMES4, "depths": (3, 3, 3, 1, 1)},
    "mc5": {**FRAMES4, "depths": (3, 3, 3, 3, 1)},
    "sr18-25d": {**FRAMES4, "split": True},
    "d10": {**FRAMES4, "blocks": ("a", "a", "a", "a")},
    "d16": {**FRAMES4, "blocks": ("ab", "ab", "ab", "a")},
    "d18": FRAMES4,
    "d26": {**FRAMES4, "blocks": ("ab", "abc", "abcd", "abc")},
    "d34": {**FRAMES4, "blocks": RES34},
}
TORCHVISION_ROWS = {"tv-r3d18": "r3d", "tv-mc318": "mc3", "tv-r2plus1d18": "r2plus1d"}
P3D_ROWS = {
    "p3d199": {},
    "p3d131": {"blocks": (3, 4, 23, 3)},
    "p3d63": {"blocks": (3, 4, 6, 3)},
    "p3d-a": {"blocks": (3, 4, 6, 3), "paper": True, "kinds": "A"},
    "p3d-b": {"blocks": (3, 4, 6, 3), "paper": True, "kinds": "B"},
    "p3d-c": {"blocks": (3, 4, 6, 3), "paper": True, "kinds": "C"},
    "p3d-abc": {"blocks": (3, 4, 6, 3), "paper": True, "kinds": "ABC"},
}
C3D_ROWS = {
    "c3d": {},
    **{f"c3d-depth{depth}": {"depths": (depth,) * 5} for depth in (1, 3, 5, 7)},
    "c3d-increasing": {"depths": (3, 3, 5, 5, 7)},
    "c3d-decreasing": {"depths": (7, 5, 5, 3, 3)},
    **{f"c3d-net{resolution}": {} for resolution in (64, 128, 256)},
}


def torchvision_reference(weights, clips, form):
    return reference_nets.torchvision_net({torchvision(name): tensor for name, tensor in weights.items()}, clips, form)


def reference_of(row):
    if row in RES3D_ROWS:
        return partial(reference_nets.res3d, **RES3D_ROWS[row])
    if row in TORCHVISION_ROWS:
        return partial(torchvision_reference, form=TORCHVISION_ROWS[row])
    if row in P3D_ROWS:
        return partial(reference_nets.p3d, **P3D_ROWS[row])
    steps = reference_nets.C3D_STEPS if row == "c3d" else reference_nets.C3D_SEARCHED_STEPS
    return partial(reference_nets.c3d, steps=steps, **C3D_ROWS[row])


@pytest.mark.parametrize("row", [*RES3D_ROWS, *TORCHVISION_ROWS])
def test_rows_of_res3d_at_small_widths(row):
    """On odd sizes, of the row's own number of frames and more."""
    for num_frames in (ARCHITECTURES[row].clip_shape[1], 7):
        clips = seeded_clips(2, 3, num_frames, 51, 37)
        net = lively(build(row, num_classes=5, widths=(4, 6, 8, 12)), clips)
        assert_same_layers(net, clips, reference_of(row))


@pytest.mark.long
@pytest.mark.parametrize("row", [*C3D_ROWS, *RES3D_ROWS, *P3D_ROWS, *TORCHVISION_ROWS])
def test_rows_at_full_size(row):
    clips = seeded_clips(1, *ARCHITECTURES[row].clip_shape, scale=0.3 if row in C3D_ROWS else 50.0)
    assert_same_layers(lively(build(row), clips), clips, reference_of(row))


def test_every_row_of_these_families_has_a_reference():
    kinds = {name: row.kind for name, row in ARCHITECTURES.items()}
    covered = {**C3D_ROWS, **RES3D_ROWS, **P3D_ROWS, **TORCHVISION_ROWS}
    assert set(covered) == {name for name, kind in kinds.items() if kind in ("C3D", "Res3D", "P3D")}


@pytest.mark.long
def test_torchvisions_r2plus1d_at_full_size():
    clips = seeded_clips(1, 3, 8, 112, 112)
    assert_same_layers(lively(build("tv-r2plus1d18"), clips), clips, reference_of("tv-r2plus1d18"))


def test_p3d_arithmetics_differ():
    clips = seeded_clips(1, 3, 16, 48, 48)
    caffe = lively(P3D(num_classes=5, blocks=(3, 1, 1, 1), width=4), clips)
    port = P3D(num_classes=5, blocks=(3, 1, 1, 1), width=4, arithmetic="port").eval()
    port.load_state_dict(caffe.state_dict())
    with torch.inference_mode():
        ours, theirs = caffe(clips, ["pool1", "pool5"]), port(clips, ["pool1", "pool5"])
    assert ours["pool1"].shape == theirs["pool1"].shape
    assert not torch.allclose(ours["pool5"], theirs["pool5"], rtol=0.05)


def test_c3d_pool5_windows_start_at_the_corner():
    """The ports pad pool5, which gives the same shape from other windows; Caffe does not."""
    x = seeded_clips(1, 2, 2, 7, 7)
    pool5 = dict(C3D(num_classes=5, widths=(2, 2, 2, 2, 2), fc_width=2).stages())["pool5"]
    pooled = pool5(x)
    assert pooled[0, 0, 0, 0, 0] == x[0, 0, :, 0:2, 0:2].max()
    assert pooled[0, 1, 0, 3, 3] == x[0, 1, :, 6, 6].max()
    assert pooled[0, 1, 0, 1, 3] == x[0, 1, :, 2:4, 6].max()


def test_c3d_ported_pool5_windows_start_before_the_corner():
    x = seeded_clips(1, 2, 2, 7, 7)
    pool5 = dict(C3D(num_classes=5, widths=(2, 2, 2, 2, 2), fc_width=2, pool5="ported").stages())["pool5"]
    pooled = pool5(x)
    assert pooled.shape == (1, 2, 1, 4, 4)
    assert pooled[0, 0, 0, 0, 0] == x[0, 0, :, 0, 0].max()
    assert pooled[0, 1, 0, 3, 3] == x[0, 1, :, 5:7, 5:7].max()
    assert pooled[0, 1, 0, 1, 3] == x[0, 1, :, 1:3, 5:7].max()


# ------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "architecture, arguments, num_floats, num_tensors",
    [
        ("c3d", {}, 79_991_015, 22),
        # the published file holds one scale factor more for each of its 21 BatchNorms: 33,430,076
        ("res3d", {}, 33_430_076 - 21, 107),
        ("p3d199", {"num_classes": 400}, 66_664_528, 1012),
        ("p3d199", {"num_classes": 487}, 66_842_791, 1012),
        ("p3d199", {"num_classes": 400, "in_channels": 2}, 66_664_528 - 64 * 49, 1012),
        # published as code without weights
        ("c3d", {"num_classes": 382}, 79_560_830, 22),  # pre-trained on I380K
        ("p3d63", {}, 25_802_832, 332),
        ("p3d131", {}, 48_206_928, 672),
        # fine-tuned on UCF101 by mmaction2
        ("c3d", {"num_classes": 101, "pool5": "ported"}, 78_409_573, 22),
        # torchvision's hold a counter of batches for each BatchNorm too, which we do not keep
        ("tv-r3d18", {}, 33_381_092 - 20, 122 - 20),
        ("tv-mc318", {}, 11_705_060 - 20, 122 - 20),
        ("tv-r2plus1d18", {}, 31_530_712 - 37, 224 - 37),
    ],
)
def test_totals_equal_the_published_files(architecture, arguments, num_floats, num_tensors):
    with torch.device("meta"):
        state = build(architecture, **arguments).state_dict()
    assert sum(t.numel() for t in state.values()) == num_floats
    assert len(state) == num_tensors
    assert not [name for name in state if "num_batches_tracked" in name]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_layers_have_the_dimensions_of_the_card(name):
    card = CHECKPOINTS[name]
    with torch.device("meta"):
        shapes = build(card.architecture, **card.build_arguments).layer_shapes(card.clip_shape)
    assert {layer: torch.Size(shapes[layer]).numel() for layer in card.layers} == card.layers


@pytest.mark.parametrize(
    "name, expected",
    [
        ("c3d-sports1m", {"conv5b": (512, 2, 7, 7), "pool5": (512, 1, 4, 4), "fc6": (4096,), "prob": (487,)}),
        ("res3d-sports1m", {"res5b": (512, 1, 7, 7), "pool5": (512,), "prob": (487,)}),
        ("p3d199-kinetics", {"res4b35": (1024, 2, 10, 10), "res5c": (2048, 5, 5), "pool5": (2048,), "prob": (400,)}),
    ],
)
def test_shapes_of_layers(name, expected):
    card = CHECKPOINTS[name]
    with torch.device("meta"):
        backbone = build(card.architecture, **card.build_arguments)
    shapes = backbone.layer_shapes(card.clip_shape)
    assert {layer: shapes[layer] for layer in expected} == expected


def test_layer_shapes_touches_no_weight():
    net = Res3D(num_classes=3, widths=(2, 2, 2, 4))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert net.layer_shapes((3, 8, 16, 16))["prob"] == (3,)
    assert net.layer_shapes((3, 8, 16, 16), ["pool5", "conv1"]) == {"pool5": (4,), "conv1": (2, 8, 8, 8)}
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


# ------------------------------------------------------------------------- what is computed


RESNET3D = {"num_classes": 3, "blocks": (1, 1, 1, 1), "widths": (2, 2, 2, 2), "stem_width": 2}
SMALL = {  # by architecture, or by class
    "C3D": ({"num_classes": 3, "widths": (2, 2, 2, 2, 2), "fc_width": 2, "crop": 32}, (3, 16, 32, 32)),
    "P3D": ({"num_classes": 3, "blocks": (1, 1, 1, 1), "width": 2}, (3, 16, 32, 32)),
    "Res3D": ({"num_classes": 3, "blocks": (1, 2, 1, 1), "widths": (2, 2, 2, 2)}, (3, 8, 16, 16)),
    "ResNet3D": (RESNET3D, (3, 16, 32, 32)),
    "resnext101": ({**RESNET3D, "groups": 2}, (3, 16, 32, 32)),
    "resnext101-64f": ({**RESNET3D, "groups": 2}, (3, 64, 32, 32)),
    "DenseNet3D": ({"num_classes": 3, "blocks": (1, 2, 1, 1), "growth": 2, "stem_width": 2}, (3, 16, 32, 32)),
}


@cache
def made_small(architecture):
    arguments, shape = SMALL.get(architecture) or SMALL[ARCHITECTURES[architecture].kind]
    clips = seeded_clips(2, *shape)
    return lively(build(architecture, **arguments), clips), clips


def small(architecture):
    """A net of the architecture with few numbers, and clips for it; both are the caller's own."""
    net, clips = made_small(architecture)
    return copy.deepcopy(net), clips.clone()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_the_needed_part_is_computed(architecture):
    """For every layer in turn: the modules that run are those of a prefix, and the layers above do not run."""
    net, clips = small(architecture)
    ran = []
    for name, module in net.named_modules():
        if name and not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    counts = []
    for layer in net.layer_names:
        ran.clear()
        with torch.inference_mode():
            net(clips, [layer])
        assert len(set(ran)) == len(ran)
        counts.append(len(ran))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == sum(1 for m in net.modules() if not list(m.children()))


def test_fc7_does_not_run_for_fc6():
    net, clips = small("c3d")

    def fail(*_):
        raise AssertionError("fc7 ran")

    net.fc7.register_forward_pre_hook(fail)
    with torch.inference_mode():
        assert list(net(clips, ["fc6"])) == ["fc6"]
        assert list(net(clips, ["fc6", "conv5b"])) == ["fc6", "conv5b"]
        with pytest.raises(AssertionError, match="fc7 ran"):
            net(clips, ["fc7"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_layer_does_not_depend_on_what_else_is_asked_for(architecture):
    """In-place operations must never reach a layer that has been handed out."""
    net, clips = small(architecture)
    given = clips.clone()
    with torch.inference_mode():
        together = net(clips, net.layer_names)
        for layer in net.layer_names:
            assert torch.equal(net(clips, [layer])[layer], together[layer]), layer
    assert torch.equal(clips, given)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_sum_to_one(architecture):
    net, clips = small(architecture)
    with torch.inference_mode():
        prob = net(clips, ["prob"])["prob"]
    assert prob.shape == (2, 3)
    torch.testing.assert_close(prob.sum(1), torch.ones(2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backbones_can_be_trained(architecture):
    net, clips = small(architecture)
    net.train()
    net(clips, ["prob"])["prob"][:, 0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


# ------------------------------------------------------------------------- refusals


def test_unknown_layer():
    net, clips = small("c3d")
    with pytest.raises(UnknownNameError, match="unknown layer 'fc9'; did you mean 'fc"):
        net(clips, ["fc6", "fc9"])
    assert "_res3_pool" not in small("p3d199")[0].layer_names


def test_clips_of_another_size():
    net = C3D(num_classes=3, widths=(2, 2, 2, 2, 2), fc_width=2)
    with pytest.raises(
        UsageError, match="1x4x4, but these clips give 2x4x4; use at most 16 frames a clip and a crop of 112"
    ):
        net(torch.zeros(1, 3, 32, 112, 112), ["fc6"])
    assert net(torch.zeros(1, 3, 32, 112, 112), ["pool5"])["pool5"].shape == (1, 2, 2, 4, 4)
    net, _ = small("p3d199")
    with pytest.raises(UsageError, match="one time step, but these clips give 2"):
        net(torch.zeros(1, 3, 32, 32, 32), ["pool5"])


def test_c3d_without_classifier():
    net = C3D(num_classes=None, widths=(2, 2, 2, 2, 2), fc_width=2)
    assert net.layer_names[-1] == "fc7"
    assert not [name for name in net.state_dict() if name.startswith("fc8")]


@pytest.mark.parametrize("change, power", [(0.0, 1.0), (0.0, 0.5), (2.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("num_frames", [2, 16])
def test_res3d_pools_averages_and_changes(change, power, num_frames):
    clips = seeded_clips(2, 3, num_frames, 16, 16, scale=1.0)
    net = lively(Res3D(num_classes=5, widths=(4, 6, 8, 10), pool_change=change, pool_power=power), clips)
    assert f"pool_change={change:g}, pool_power={power:g}" in repr(
        net
    )  # as a net of equal weights may have another pool5
    with torch.no_grad():
        found = net(clips, ("res5b", "pool5"))
    maps = found["res5b"][0]  # (C, T, h, w)
    expected = maps.mean((1, 2, 3))
    if num_frames == 16:  # else one time step is left, and nothing changes
        assert maps.shape[1] == 2
        expected = expected + change * (maps[:, 1] - maps[:, 0]).abs().mean((1, 2))
    if power < 1:
        expected = torch.maximum(expected, torch.tensor(1e-4)).sqrt()
    assert torch.allclose(found["pool5"][0], expected, rtol=1e-5)


def test_unknown_names_when_building():
    with pytest.raises(UnknownNameError, match="unknown architecture 'c2d'; did you mean .*'c3d'"):
        build("c2d")
    with pytest.raises(UnknownNameError, match="unknown arithmetic 'cafe'; did you mean 'caffe'"):
        P3D(arithmetic="cafe")
    with pytest.raises(UnknownNameError, match="unknown pool5 'port'; did you mean 'ported'"):
        C3D(pool5="port")
    with pytest.raises(UnknownNameError, match="unknown split 'torch'"):
        Res3D(split="torch")


@pytest.mark.parametrize(
    "architecture, arguments, message",
    [
        ("c3d", {"widths": (64, 128)}, r"widths of a C3D is \[64, 128\]; give 5 positive numbers"),
        ("c3d", {"convs": (1, 1, 0, 1, 1)}, r"convs of a C3D is \[1, 1, 0, 1, 1\]; give 5 positive numbers"),
        ("c3d", {"depths": (3, 3, 2, 3, 3)}, "extents in time are odd"),
        ("res3d", {"widths": (64, 128)}, r"widths of a Res3D is \[64, 128\]; give 4 positive numbers"),
        ("res3d", {"blocks": (2, 2, 2, 0)}, "blocks of a Res3D"),
        ("res3d", {"depths": (3, 3, 3, 3)}, r"depths of a Res3D is \[3, 3, 3, 3\]; give 5 positive numbers"),
        ("res3d", {"depths": (3, 3, 4, 3, 3)}, "extents in time are odd"),
        ("tv-r2plus1d18", {"depths": (3, 3, 1, 1, 1)}, "only kernels of depth 3 are split"),
        ("res3d", {"pool_change": -1}, "pool_change of a Res3D is -1; give 0 or more"),
        ("res3d", {"pool_power": 2}, "pool_power of a Res3D is 2; give a number above 0, at most 1"),
        ("p3d199", {"kinds": "ABD"}, r"kinds of a P3D is \['A', 'B', 'D'\]; give some of A, B and C"),
        ("p3d199", {"blocks": (3, 4, 6)}, r"blocks of a P3D is \[3, 4, 6\]; give 4 positive numbers"),
    ],
)
def test_arguments_that_make_no_net(architecture, arguments, message):
    with pytest.raises(UsageError, match=message):
        build(architecture, **arguments)
