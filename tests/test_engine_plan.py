"""engine/plan.py: every architecture by every means, against the network as it is written and against float64."""

from __future__ import annotations

import copy
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from test_backbones import lively, seeded_clips
from test_graph import Net
from torch import nn

from featx.backbones import ARCHITECTURES, build
from featx.backbones.blocks import BatchNorm
from featx.engine import MEANS, native, plan
from featx.engine.plan import available_means, make_plan
from featx.engine.probe import probe_clip

SUBSETS = {**MEANS, "torch": ("torch",)}
WINOGRAD_TOLERANCE, TOLERANCE = 5e-5, 2e-5  # of a layer's largest number

# Small forms that Winograd's algorithm takes: by architecture, or by class.
RESNET3D = {"num_classes": 3, "blocks": (1, 2, 1, 1), "widths": (16, 24, 32, 16), "stem_width": 16}
WIDE = {
    "C3D": ({"num_classes": 3, "widths": (16, 24, 32, 16, 16), "fc_width": 8, "crop": 32}, (3, 16, 32, 32)),
    "P3D": ({"num_classes": 3, "blocks": (3, 1, 1, 1), "width": 16}, (3, 16, 36, 36)),
    "Res3D": ({"num_classes": 3, "blocks": (1, 2, 1, 1), "widths": (16, 16, 24, 32)}, (3, 8, 29, 18)),
    "ResNet3D": (RESNET3D, (3, 16, 34, 34)),
    "resnet18": ({**RESNET3D, "widths": (16, 16, 24, 32)}, (3, 16, 34, 34)),  # shortcut A only adds channels
    "resnet34": ({**RESNET3D, "widths": (16, 16, 24, 32)}, (3, 16, 34, 34)),
    "resnext101": ({**RESNET3D, "groups": 2}, (3, 16, 34, 34)),
    "resnext101-64f": ({**RESNET3D, "groups": 2}, (3, 64, 32, 32)),
    "DenseNet3D": ({"num_classes": 3, "blocks": (1, 2, 1, 1), "growth": 16, "stem_width": 16}, (3, 16, 34, 34)),
}
ONE_OF_EACH = (
    "c3d",
    "res3d",
    "sr18-25d",
    "p3d199",
    "p3d-b",
    "resnet18",
    "resnet50",
    "preresnet200",
    "resnext101",
    "densenet121",
)


def means_of(subset):
    if subset == "winograd" and native.kernels() is None:
        pytest.skip(native.why_not())
    if "onednn" in SUBSETS[subset] and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    return SUBSETS[subset]


def wide(architecture):
    arguments, shape = WIDE.get(architecture) or WIDE[ARCHITECTURES[architecture].kind]
    return lively(build(architecture, **arguments), seeded_clips(6, *shape)), shape


def image_like(num_clips, c, t, h, w):
    clips = [probe_clip(torch.empty(1, t, max(h, w) + i, max(h, w) + i, 3)) for i in range(num_clips)]
    picture = torch.cat([clip[:, :, i : i + h, i : i + w] for i, clip in enumerate(clips)])
    return (picture.permute(0, 4, 1, 2, 3)[:, :c].float() - 110) / 2  # (N, T, h, w, 3) -> (N, C, T, h, w)


def assert_agrees(net, clips, means, layers=None):
    """Every layer within the tolerance of float64 and of the network as it is written; descriptors to 1 - cos <= 1e-9."""
    layers = layers or net.layer_names
    made = make_plan(net, clips.shape[1:], layers, means)
    tolerance = WINOGRAD_TOLERANCE if "winograd" in means else TOLERANCE
    given = clips.clone()
    with torch.inference_mode():
        got = made(clips)
        plain, exact = net(given.clone(), layers), copy.deepcopy(net).double()(given.double(), layers)
    assert torch.equal(clips, given)
    assert list(got) == list(layers)
    for layer in layers:
        assert got[layer].shape == plain[layer].shape and got[layer].dtype == torch.float32
        scale = exact[layer].abs().max()
        assert scale > 0, f"{layer} is dead: this test would prove nothing"
        for other in (plain[layer].double(), exact[layer]):
            assert (got[layer] - other).abs().max() <= tolerance * scale, layer
        a, b = got[layer].double().flatten(1).mean(0), exact[layer].flatten(1).mean(0)
        assert 1 - float(a @ b / a.norm() / b.norm()) <= 1e-9, layer
    return made


def assert_row(architecture, subset):
    net, shape = wide(architecture)
    noise = seeded_clips(3, *shape, seed=5)
    assert_agrees(net, noise, means_of(subset))
    top = assert_agrees(net, image_like(2, *shape), means_of(subset), net.layer_names[-2:])
    used = top.count_means()
    assert set(used) <= set(SUBSETS[subset])
    if subset == "winograd":
        assert used == Counter(means_by_hand(m) for m in net.modules() if isinstance(m, nn.Conv3d | nn.Conv2d))


@pytest.mark.parametrize("architecture", ONE_OF_EACH)
def test_a_net_of_each_kind(architecture):
    assert_row(architecture, next(name for name in SUBSETS if set(SUBSETS[name]) <= set(available_means())))


@pytest.mark.parametrize("architecture", ["c3d", "p3d199", "densenet121"])
@pytest.mark.parametrize("subset", ["onednn", "torch"])
def test_other_means(architecture, subset):
    assert_row(architecture, subset)


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("subset", SUBSETS)
def test_every_architecture(architecture, subset):
    assert_row(architecture, subset)


@pytest.mark.parametrize("architecture", ["c3d", "res3d", "p3d199", "resnet18", "densenet121"])
def test_widths_that_the_kernels_do_not_take(architecture):
    """Falls back by itself, convolution by convolution."""
    narrow = {
        "c3d": {"widths": (6, 10, 12, 14, 20), "fc_width": 4, "crop": 32},
        "res3d": {"blocks": (1, 1, 1, 1), "widths": (6, 8, 12, 20)},
        "p3d199": {"blocks": (1, 1, 1, 1), "width": 5},
        "resnet18": {"blocks": (1, 1, 1, 1), "widths": (5, 7, 9, 20), "stem_width": 4},
        "densenet121": {"blocks": (1, 2, 1, 1), "growth": 6, "stem_width": 10},
    }[architecture]
    shape = WIDE.get(architecture, WIDE[ARCHITECTURES[architecture].kind])[1]
    net = lively(build(architecture, num_classes=3, **narrow), seeded_clips(2, *shape))
    used = assert_agrees(net, seeded_clips(2, *shape, seed=5), tuple(available_means())).count_means()
    others = ("onednn", "torch")
    if architecture == "p3d199":  # four times the width fits
        others += ("direct", "winograd")
    assert set(used) <= set(others) and used["winograd"] <= 1 and sum(used.values()) > 4


# ------------------------------------------------------------------------- no more than is asked for


@pytest.mark.parametrize("architecture", ["c3d", "res3d", "densenet121"])
def test_layers_above_the_highest_are_not_run(architecture):
    net, shape = wide(architecture)
    steps = [len(make_plan(net, shape, [layer], ("torch",)).steps) for layer in net.layer_names]
    assert steps == sorted(steps) and len(set(steps)) > 3


@pytest.mark.parametrize("architecture", ["c3d", "res3d", "resnet18"])
def test_a_layer_in_the_middle_is_not_joined_away(architecture):
    """And what it is does not depend on what else is asked for, to rounding."""
    net, shape = wide(architecture)
    for layer in net.layer_names[:-1:2]:
        assert_agrees(net, seeded_clips(1, *shape), tuple(available_means()), [layer, net.layer_names[-1]])


# ------------------------------------------------------------------------- what is joined


@pytest.fixture
def joined(monkeypatch):
    """joined(net, shape, layers) gives the convolutions of a plan with what they have taken in, and the other steps' names."""
    convolutions = []

    def choose_only(convolution, result, allowed):
        convolutions.append(convolution)
        inputs = (convolution.input,) if convolution.residual is None else (convolution.input, convolution.residual)
        return plan.Step("convolution", plan._choose(convolution, allowed), None, inputs, result)

    def join(net, shape, layers, means=SUBSETS["winograd"]):
        convolutions.clear()
        monkeypatch.setattr(plan, "_convolution_step", choose_only)
        monkeypatch.setattr(plan, "_linear_step", lambda operation, allowed: None)  # it would pack the weights
        made = make_plan(net, shape, layers, means)
        return list(convolutions), [step.name for step in made.steps], made.count_means()

    return join


def test_linear_layers_run_by_the_kernel_that_takes_them():
    means_of("winograd")
    net, shape = wide("c3d")
    steps = [step.means for step in make_plan(net, shape, ["fc6", "fc7"]).steps if step.name == "linear"]
    assert steps == ["torch", "torch"]  # eight outputs, no panel of sixteen
    net = build("c3d", **{**WIDE["C3D"][0], "fc_width": 32}).eval()
    steps = [step.means for step in make_plan(net, shape, ["fc6", "fc7"]).steps if step.name == "linear"]
    assert steps == ["direct", "direct"]
    assert_agrees(net, seeded_clips(2, *shape), SUBSETS["winograd"], ["fc6", "fc7"])


PUBLISHED = {  # convolutions by means: 3x3x3 and 1x3x3 of stride 1, first layers, the rest, and those in groups
    "c3d": {"winograd": 7, "time": 1},
    "res3d": {"winograd": 13, "time": 1, "direct": 7},
    "resnet18": {"winograd": 13, "time": 1, "direct": 3},
    "resnet34": {"winograd": 29, "time": 1, "direct": 3},
    "p3d199": {"winograd": 50, "direct": 152},
    "resnext101": {"time": 1, "direct": 70, "onednn": 33},
}


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=() if name in PUBLISHED else pytest.mark.long) for name in ARCHITECTURES]
)
def test_means_of_the_published_sizes(architecture, joined):
    with torch.device("meta"):
        net = build(architecture)
    layers = net.layer_names[-1:]
    _, names, used = joined(net.eval(), ARCHITECTURES[architecture].clip_shape, layers)
    modules = [m for m in net.modules() if isinstance(m, nn.Conv3d | nn.Conv2d)]
    assert sum(used.values()) == len(modules)
    assert dict(used) == dict(Counter(map(means_by_hand, modules)))
    assert dict(used) == PUBLISHED.get(architecture, dict(used))
    if architecture == "c3d":
        assert names.count("max_pool3d") <= 2 and "relu" not in names[: names.index("flatten")]
    elif "dense" not in architecture and "pre" not in architecture:
        assert "batch_norm" not in names


def means_by_hand(conv):
    kernel, stride = (tuple(value)[-3:] for value in (conv.kernel_size, conv.stride))
    if len(kernel) == 2:
        kernel, stride = (1, *kernel), (1, *stride)
    channels = (conv.in_channels, conv.out_channels)
    square = kernel in ((3, 3, 3), (1, 3, 3)) and stride == (1, 1, 1) and conv.groups == 1
    if square and min(channels) >= 16 and not any(c % 8 for c in channels):
        return "winograd"
    if conv.groups > 1 or conv.out_channels % 16:
        return "onednn"
    return "time" if conv.in_channels < 16 and kernel[0] > 1 and stride[0] == 1 else "direct"


def test_what_a_residual_block_takes_in(joined):
    net, shape = wide("res3d")
    convolutions, names, _ = joined(net, shape, ["res2a"])
    first, branch2a, branch2b = convolutions[0], convolutions[1], convolutions[-1]
    assert first.relu and branch2a.relu and branch2b.relu
    assert branch2b.residual is not None and branch2a.residual is None
    assert not {"batch_norm", "relu", "add"} & set(names)


def test_batch_norm_is_folded_in_double_precision(joined):
    net, shape = wide("res3d")
    first = joined(net, shape, ["conv1"])[0][0]
    norm = net.bn_conv1
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = net.conv1.weight.double() * factor[:, None, None, None, None]
    torch.testing.assert_close(first.weight, weight.float(), rtol=2**-23, atol=0)
    bias = norm.bias.double() - norm.running_mean.double() * factor
    if net.conv1.bias is not None:
        bias += net.conv1.bias.double() * factor
    torch.testing.assert_close(first.bias, bias.float(), rtol=2**-23, atol=1e-9)


@pytest.mark.parametrize(
    ("pool", "taken"),
    [
        (lambda x: F.max_pool3d(x, 2, ceil_mode=True), (2, 2)),
        (lambda x: F.max_pool3d(x, 2), None),  # 5 frames: the last would be left out
        (lambda x: F.max_pool3d(x, (1, 2, 2)), (1, 2)),
        (lambda x: F.max_pool3d(x, (1, 2, 2), (1, 2, 2)), (1, 2)),
        (lambda x: F.max_pool3d(x, (2, 1, 1), ceil_mode=True), (2, 1)),
        (lambda x: F.max_pool3d(x, 1), (1, 1)),
        (lambda x: F.max_pool3d(x, 3, ceil_mode=True), None),
        (lambda x: F.max_pool3d(x, 2, 1), None),
        (lambda x: F.max_pool3d(x, (1, 2, 1)), None),
        (lambda x: F.max_pool3d(x, 2, padding=1, ceil_mode=True), None),
        (lambda x: F.max_pool3d(x, (1, 2, 2), dilation=(1, 2, 2)), None),
        (lambda x: F.avg_pool3d(x, 2, ceil_mode=True), None),
    ],
    ids=range(12),
)
def test_pools(pool, taken, joined):
    def convolve(net, x):
        return pool(F.relu(net.conv(x)))

    net = Net(convolve, conv=nn.Conv3d(16, 16, 3, padding=1)).eval()
    convolution, names, _ = joined(net, (16, 5, 6, 8), ["layer0"])
    assert convolution[0].relu
    assert (names == ["convolution"]) == (taken is not None)
    assert convolution[0].pool == (taken or (1, 1))
    onednn, names, _ = joined(net, (16, 5, 6, 8), ["layer0"], ("onednn", "torch"))
    assert len(names) == 2 and onednn[0].pool == (1, 1)


# ------------------------------------------------------------------------- nets of users


def conv(c_in=16, c_out=16, kernel=3, **options):
    made = nn.Conv3d(c_in, c_out, kernel, **{"padding": kernel // 2, **options})
    generator = torch.Generator().manual_seed(c_in + c_out)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return made


def relu_before_and_after(net, x):
    y = net.norm(F.relu(net.conv(x)))  # nothing to fold: ReLU lies between
    return F.relu(net.conv(y) + y).clone()


def input_changed_after_it_was_read(net, x):
    x = x + 0
    y = net.conv(x)
    x.mul_(-3)
    return F.relu(y + x)


def residual_changed_after_it_was_added(net, x):
    x = x + 0
    y = net.conv(x) + x
    F.relu_(x)
    return F.relu(y) * x


def sum_into_a_part(net, x):
    y = torch.cat([x, x], 1) * 0.5
    y[:, 4:20] += net.conv(x)
    return F.relu(y)


def sum_seen_through_a_view(net, x):
    y = x * 0.5
    view = y[:, 3:]
    y += net.conv(x)
    return view * 2


def relu_seen_through_a_view(net, x):
    y = net.conv(x)
    view = y.flatten(2)
    F.relu_(y)
    return view + 1


def read_twice(net, x):
    y = net.conv(x)
    return F.relu(y) - y


def twice_itself(net, x):
    y = net.conv(x)
    return y + y


def sum_of_two(net, x):
    return F.relu(net.conv(x) + net.norm(net.conv(x * 2)))


def three_summands(net, x):
    return F.relu(net.conv(x) + x + net.conv(x))


def scaled_sum(net, x):
    return torch.add(net.conv(x), x, alpha=0.5)


def broadcast_sum(net, x):
    return net.conv(x) + x.mean((2, 3, 4), keepdim=True) + 1.5


def norm_after_sum(net, x):
    return net.norm(net.conv(x) + x)


def norm_without_weights(net, x):
    return net.bare(net.conv(x))


def norm_of_the_clip(net, x):
    return F.batch_norm(net.conv(x), None, None, training=True)


def padding_by_name(net, x):
    return F.conv3d(x, net.conv.weight, net.conv.bias, padding="same")


def computed_weight(net, x):
    weight = net.conv.weight - net.conv.weight.mean((1, 2, 3, 4), keepdim=True)
    return F.relu(F.conv3d(x, weight, None, 1, 1))


def without_padding(net, x):
    return F.relu(F.conv3d(x, net.conv.weight, stride=(1, 2, 2), dilation=(2, 1, 1)))


def frame_by_frame(net, x):
    y = F.conv2d(x.mean(2), net.conv.weight[:, :, 1] * 1.0, padding=1) + F.conv2d(x[:, :, 0], net.flat)
    return F.max_pool2d(F.relu(y), 2, ceil_mode=True)


def flat_and_joined(net, x):
    y = F.relu(F.conv2d(x[:, :, 0], net.flat))
    return F.relu(F.conv2d(y, net.flat, stride=2) + y[:, :, ::2, ::2])


def pool_then_relu(net, x):
    return F.relu(F.max_pool3d(net.conv(x), 2, ceil_mode=True))


FUNCTIONS = [
    *(relu_before_and_after, input_changed_after_it_was_read, residual_changed_after_it_was_added, sum_into_a_part),
    *(sum_seen_through_a_view, relu_seen_through_a_view, read_twice, twice_itself, sum_of_two, three_summands),
    *(scaled_sum, broadcast_sum, norm_after_sum, norm_without_weights, norm_of_the_clip, padding_by_name),
    *(computed_weight, without_padding, frame_by_frame, flat_and_joined, pool_then_relu),
]


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_what_a_function_does(function, subset):
    generator = torch.Generator().manual_seed(0)
    norm = BatchNorm(16)
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 1.5, generator=generator)
        for tensor in (norm.bias, norm.running_mean):
            tensor.normal_(0, 0.3, generator=generator)
    bare = nn.BatchNorm3d(16, affine=False)
    bare.running_var.uniform_(0.5, 1.5, generator=generator)
    flat = nn.Parameter(torch.randn(16, 16, 1, 1, generator=generator))
    net = Net(function, conv=conv(), norm=norm, bare=bare, flat=flat).eval()
    clips = seeded_clips(2, 16, 5, 6, 7, scale=1.0)
    if function is norm_of_the_clip:  # it must be one clip: the statistics are theirs
        assert_agrees(net, clips[:1], means_of(subset))
    else:
        assert_agrees(net, clips, means_of(subset))


def test_the_default_is_all_that_there_is():
    net, shape = wide("c3d")
    used = make_plan(net, shape, ["pool2"]).count_means()
    assert set(used) <= set(available_means())
    if native.kernels() is not None:
        assert dict(used) == {"time": 1, "winograd": 1}


def test_any_number_of_clips_and_nothing_kept():
    """A plan serves batches of any size, and holds no activation between calls."""
    net, shape = wide("res3d")
    made = make_plan(net, shape, ["pool5"])
    clips = seeded_clips(5, *shape)
    with torch.inference_mode():
        whole = made(clips)["pool5"]
        parts = torch.cat([made(clips[:2])["pool5"], made(clips[2:])["pool5"]])
        assert (whole - parts).abs().max() <= 1e-5 * whole.abs().max()
        again = made(clips)["pool5"]
    assert torch.equal(whole, again) and whole.data_ptr() != again.data_ptr()


@pytest.mark.long
@pytest.mark.parametrize("architecture", ["c3d", "res3d", "resnet18", "p3d199"])
def test_at_full_size(architecture):
    shape = ARCHITECTURES[architecture].clip_shape
    clips = image_like(2, *shape) * (0.02 if architecture == "c3d" else 1)
    net = lively(build(architecture), clips[:1])
    made = make_plan(net, shape, net.layer_names[-3:])
    with torch.inference_mode():
        for batch in (clips[:1], seeded_clips(1, *shape, scale=float(clips.std()))):
            got, plain = made(batch), net(batch, net.layer_names[-3:])
            for layer in got:
                assert (got[layer] - plain[layer]).abs().max() <= 1e-4 * plain[layer].abs().max(), layer
                a, b = (x[layer].double().flatten() for x in (got, plain))
                assert 1 - float(a @ b / a.norm() / b.norm()) <= 1e-9, layer
    assert math.prod(made.count_means().values()) > 0
