import pytest
import reference_nets
import torch

from featx.backbones import ARCHITECTURES, build
from featx.backbones.c3d import C3D
from featx.backbones.p3d import P3D
from featx.backbones.res3d import Res3D
from featx.catalog import CHECKPOINTS
from featx.errors import UnknownNameError, UsageError

LAST_OF_BRANCH = {C3D: (), P3D: "bn_branch2c.weight", Res3D: "bn_branch2b.weight"}


def lively(backbone, clips, seed=0):
    """Give a backbone seeded weights with statistics such as training leaves: no layer dies or explodes.

    BatchNorm's statistics are those of its real input (one pass in training mode), then scaled off a little.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in backbone.modules() if hasattr(m, "running_var")]
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            elif "bn_" in name and name.endswith("weight"):
                # a block adds little to its shortcut: else 50 random blocks amplify rounding a thousandfold
                ends_branch = name.endswith(LAST_OF_BRANCH[type(backbone)])
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


def assert_same_layers(backbone, clips, reference):
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
            assert got.min() >= 0, f"{name} is not after a ReLU"


# ------------------------------------------------------------------------- against the second implementation


def test_c3d_at_full_size():
    clips = seeded_clips(1, 3, 16, 112, 112, scale=1.0)
    assert_same_layers(lively(C3D(), clips), clips, reference_nets.c3d)


def test_res3d_at_full_size():
    clips = seeded_clips(1, 3, 8, 112, 112)
    assert_same_layers(lively(Res3D(), clips), clips, reference_nets.res3d)


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


SMALL = {
    "c3d": ({"num_classes": 3, "widths": (2, 2, 2, 2, 2), "fc_width": 2}, (3, 16, 112, 112)),
    "p3d199": ({"num_classes": 3, "blocks": (1, 1, 1, 1), "width": 2}, (3, 16, 32, 32)),
    "res3d": ({"num_classes": 3, "widths": (2, 2, 2, 2)}, (3, 8, 16, 16)),
}


def small(architecture):
    arguments, shape = SMALL[architecture]
    clips = seeded_clips(2, *shape)
    return lively(build(architecture, **arguments), clips), clips


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
    net, _ = small("c3d")
    with pytest.raises(UsageError, match="1x4x4, but these clips give 2x4x4; use at most 16 frames"):
        net(torch.zeros(1, 3, 32, 112, 112), ["fc6"])
    assert net(torch.zeros(1, 3, 32, 112, 112), ["pool5"])["pool5"].shape == (1, 2, 2, 4, 4)
    net, _ = small("p3d199")
    with pytest.raises(UsageError, match="one time step, but these clips give 2"):
        net(torch.zeros(1, 3, 32, 32, 32), ["pool5"])


def test_c3d_without_classifier():
    net = C3D(num_classes=None, widths=(2, 2, 2, 2, 2), fc_width=2)
    assert net.layer_names[-1] == "fc7"
    assert not [name for name in net.state_dict() if name.startswith("fc8")]


def test_unknown_names_when_building():
    with pytest.raises(UnknownNameError, match="unknown architecture 'c2d'; did you mean 'c3d'"):
        build("c2d")
    with pytest.raises(UnknownNameError, match="unknown arithmetic 'cafe'; did you mean 'caffe'"):
        P3D(arithmetic="cafe")
