import dataclasses
import hashlib
import json
import os
import pickle
import re
import zipfile

import pytest
import torch

from featx.backbones import build
from featx.catalog import CHECKPOINTS
from featx.checkpoints import load
from featx.checkpoints.files import read_tensors
from featx.checkpoints.identify import identify
from featx.checkpoints.names import namings
from featx.checkpoints.safetensors import read_safetensors, write_safetensors
from featx.errors import CheckpointError

SMALL = {
    "c3d-sports1m": {"widths": (2, 2, 2, 2, 2), "fc_width": 4},
    "p3d199-kinetics": {"width": 2},
    "res3d-sports1m": {"widths": (2, 2, 2, 2)},
    "mm-c3d-ucf101": {"widths": (2, 2, 2, 2, 2), "fc_width": 4, "pool5": "ported"},
    "resnet34-kinetics": {"widths": (2, 2, 2, 2), "stem_width": 2},
    "preresnet200-kinetics": {"widths": (2, 2, 2, 2), "stem_width": 2, "blocks": (3, 4, 8, 3)},
    "r3d50-k": {"widths": (2, 2, 2, 2), "stem_width": 2},
    "densenet121-kinetics": {"growth": 2, "stem_width": 4},
    "tv-r3d18-kinetics": {"widths": (2, 2, 2, 2)},
    "tv-r2plus1d18-kinetics": {"widths": (2, 2, 2, 2)},
}


def small_card(name):
    """The card of a published checkpoint, for a net of the same names and few numbers."""
    return dataclasses.replace(
        CHECKPOINTS[name], classes=5, labels=None, arguments=SMALL[name], layers={"prob": 5}, default_layer="prob"
    )


def seeded_state(card, seed=0):
    torch.manual_seed(seed)
    state = build(card.architecture, **card.build_arguments).state_dict()
    return {name: torch.rand_like(tensor) for name, tensor in state.items()}


def save(tensors, path, form="zip"):
    if form == "safetensors":
        write_safetensors(path, tensors)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    return path


def assert_loads(card, path, state):
    loaded = load(card, path)
    got = loaded.backbone.state_dict()
    assert got.keys() == state.keys()
    for name, tensor in state.items():
        assert got[name].dtype == torch.float32
        assert torch.equal(got[name], tensor.float()), name
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.path == path
    assert not loaded.backbone.training
    assert not any(p.requires_grad for p in loaded.backbone.parameters())
    return loaded


# ------------------------------------------------------------------------- forms and wrappers


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("name", ["c3d-sports1m", "p3d199-kinetics", "res3d-sports1m"])
def test_own_names(name, form, tmp_path):
    card = small_card(name)
    state = seeded_state(card)
    loaded = assert_loads(card, save(state, tmp_path / "weights.bin", form), state)
    assert loaded.naming == "featx's own"
    if form == "safetensors":  # whose tensors share one buffer
        with torch.inference_mode():
            assert loaded.backbone(torch.rand(1, *card.clip_shape), ["prob"])["prob"].shape == (1, 5)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module.module."])
def test_wrapped_as_a_training_program_saves_it(form, prefix, tmp_path):
    card = small_card("res3d-sports1m")
    state = seeded_state(card)
    content = {
        "epoch": 7,
        "arch": "resnet-18",
        "state_dict": {prefix + name: tensor for name, tensor in state.items()},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    content["state_dict"][prefix + "bn_conv1.num_batches_tracked"] = torch.tensor(100)
    assert_loads(card, save(content, tmp_path / "save_200.pth", form), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32(dtype, tmp_path):
    card = small_card("c3d-sports1m")
    state = {name: tensor.to(dtype) for name, tensor in seeded_state(card).items()}
    assert_loads(card, save(state, tmp_path / "weights.pth"), state)


def test_parameters_and_views_load(tmp_path):
    card = small_card("c3d-sports1m")
    state = seeded_state(card)
    changed = state | {
        "fc7.weight": state["fc7.weight"].t().contiguous().t(),
        "fc7.bias": torch.nn.Parameter(state["fc7.bias"]),
    }
    assert not changed["fc7.weight"].is_contiguous()
    loaded = assert_loads(card, save(changed, tmp_path / "weights.pth"), state)
    assert loaded.backbone.fc7.weight.is_contiguous()


# ------------------------------------------------------------------------- names of the ports

# each port's names for some tensors, of whose places the shapes do not tell
SOME_PORT_NAMES = {
    "DavideA's port": {"conv1.weight": "conv1a.weight", "conv2.bias": "conv2a.bias", "conv3b.bias": "conv3b.bias"},
    "jfzhang95's port": {
        "features.0.bias": "conv1a.bias",
        "features.18.bias": "conv5b.bias",
        "classifier.6.bias": "fc8.bias",
    },
    "mmaction2's port": {
        "conv1a.conv.weight": "conv1a.weight",
        "conv4b.conv.bias": "conv4b.bias",
        "fc7.bias": "fc7.bias",
    },
    "mmaction2's recognizer": {
        "backbone.conv5a.conv.bias": "conv5a.bias",
        "backbone.fc7.weight": "fc7.weight",
        "cls_head.fc_cls.bias": "fc8.bias",
    },
    "qijiezhao's port": {
        "conv1_custom.weight": "conv1.weight",
        "bn1.running_var": "bn_conv1.running_var",
        "layer1.0.conv1.weight": "res2a.branch2a.weight",
        "layer1.0.downsample.1.bias": "res2a.bn_branch1.bias",
        "layer1.1.conv3.weight": "res2b.branch2b_t.weight",
        "layer2.7.bn2.running_mean": "res3b7.bn_branch2b.running_mean",
        "layer3.35.bn4.weight": "res4b35.bn_branch2c.weight",
        "layer4.2.conv_normal.weight": "res5c.branch2b.weight",
        "fc.bias": "fc.bias",
    },
    "Hara's": {
        "bn1.running_mean": "bn_conv1.running_mean",
        "layer1.0.conv2.weight": "res2a.branch2b.weight",
        "layer4.1.bn1.running_var": "res5b.bn_branch2a.running_var",
        "layer4.2.bn2.bias": "res5c.bn_branch2b.bias",
        "fc.weight": "fc.weight",
    },
    "Hara's DenseNets": {
        "features.norm0.bias": "bn_conv1.bias",
        "features.denseblock1.denselayer2.norm.1.bias": "dense2.layer2.bn_a.bias",
        "features.denseblock3.denselayer24.conv.2.weight": "dense4.layer24.conv_b.weight",
        "features.transition2.norm.running_var": "transition3.bn.running_var",
        "classifier.bias": "fc.bias",
    },
    "Hara's, without dots": {
        "features.denseblock1.denselayer2.norm1.bias": "dense2.layer2.bn_a.bias",
        "features.denseblock3.denselayer24.conv2.weight": "dense4.layer24.conv_b.weight",
        "features.transition2.norm.running_var": "transition3.bn.running_var",
    },
    "torchvision's": {
        "layer1.0.conv2.1.bias": "res2a.bn_branch2b.bias",
        "layer4.1.conv1.0.weight": "res5b.branch2a.weight",
        "layer2.0.downsample.1.weight": "res3a.bn_branch1.weight",
        "fc.bias": "fc8.bias",
    },
    "torchvision's (2+1)D": {
        "stem.3.weight": "conv1_t.weight",
        "stem.4.bias": "bn_conv1_t.bias",
        "layer1.0.conv1.0.1.bias": "res2a.bn_branch2a_s.bias",
        "layer4.1.conv2.0.3.weight": "res5b.branch2b_t.weight",
        "layer4.1.conv2.1.running_var": "res5b.bn_branch2b_t.running_var",
    },
}
# card, label, and which of the names above
PORTS = [
    ("c3d-sports1m", "DavideA's port", "DavideA's port"),
    ("c3d-sports1m", "jfzhang95's port", "jfzhang95's port"),
    ("c3d-sports1m", "mmaction2's port", "mmaction2's port"),
    ("mm-c3d-ucf101", "mmaction2's recognizer", "mmaction2's recognizer"),
    ("p3d199-kinetics", "qijiezhao's port", "qijiezhao's port"),
    ("resnet34-kinetics", "Hara's", "Hara's"),
    ("preresnet200-kinetics", "Hara's", "Hara's"),
    ("r3d50-k", "Hara's", "Hara's"),
    ("densenet121-kinetics", "Hara's", "Hara's DenseNets"),
    ("densenet121-kinetics", "Hara's, without dots", "Hara's, without dots"),
    ("tv-r3d18-kinetics", "torchvision's", "torchvision's"),
    ("tv-r2plus1d18-kinetics", "torchvision's", "torchvision's (2+1)D"),
]


def port_naming(card, label):
    with torch.device("meta"):
        names = build(card.architecture, **card.build_arguments).state_dict()
    return next(naming for naming in namings(card.architecture, names) if naming.label == label)


@pytest.mark.parametrize("name, label, some", PORTS)
def test_places_of_some_tensors(name, label, some):
    ours = port_naming(CHECKPOINTS[name], label).ours
    assert len(set(ours.values())) == len(ours)
    assert {theirs: ours[theirs] for theirs in SOME_PORT_NAMES[some]} == SOME_PORT_NAMES[some]


def port_files():
    """Every port's names in every form of file; the deep nets' in every run in one form only."""
    for name, label, _ in PORTS:
        for form in ("zip", "legacy", "safetensors"):
            is_long = form != "zip" and name.startswith(("p3d199", "densenet", "preresnet200"))
            yield pytest.param(name, label, form, marks=pytest.mark.long if is_long else ())


@pytest.mark.parametrize("name, label, form", list(port_files()))
def test_files_in_the_names_of_a_port(name, label, form, tmp_path):
    card = small_card(name)
    state = seeded_state(card)
    tensors = {theirs: state[own] for theirs, own in port_naming(card, label).ours.items()}
    assert assert_loads(card, save(tensors, tmp_path / "port.pth", form), state).naming == label


def test_mmaction2_files_with_and_without_classifier(tmp_path):
    card = small_card("c3d-sports1m")
    state = seeded_state(card)
    ours = port_naming(card, "mmaction2's port").ours
    tensors = {theirs: state[own] for theirs, own in ours.items()}
    assert_loads(card, save(tensors, tmp_path / "with.pth"), state)
    for name in ("fc8.weight", "fc8.bias"):
        del tensors[name], state[name]
    loaded = assert_loads(card, save(tensors, tmp_path / "without.pth"), state)
    assert loaded.backbone.layer_names[-1] == "fc7" and loaded.naming == "mmaction2's port"
    own = loaded.backbone.state_dict()  # as the cache keeps it
    loaded = assert_loads(card, save(own, tmp_path / "own.safetensors", "safetensors"), state)
    assert loaded.backbone.layer_names[-1] == "fc7" and loaded.naming == "featx's own"
    del tensors["fc7.bias"]
    with pytest.raises(
        CheckpointError, match="do not fit c3d-sports1m .read in mmaction2's port names.: missing: fc7.bias"
    ):
        load(card, save(tensors, tmp_path / "less.pth"))


def test_names_in_which_the_weights_were_never_published_are_refused(tmp_path):
    """A C3D for UCF101 in a port's names was trained with the port's pool5 and input, not those of this card."""
    card = dataclasses.replace(small_card("c3d-sports1m"), namings=("Caffe",))
    state = seeded_state(card)
    assert_loads(card, save(state, tmp_path / "own.pth"), state)
    ours = port_naming(card, "jfzhang95's port").ours
    path = save({theirs: state[own] for theirs, own in ours.items()}, tmp_path / "port.pth")
    with pytest.raises(
        CheckpointError, match="do not fit c3d-sports1m .read in featx's own names.: missing: conv1a.weight"
    ):
        load(card, path)


# ------------------------------------------------------------------------- strictness


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


def with_value(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: without(s, "fc8.bias"), "missing: fc8.bias; take another"),
        (lambda s: s | {"fc9.bias": torch.ones(1)}, "surplus: fc9.bias; take another"),
        (lambda s: s | {"fc8.bias": torch.ones(4)}, "wrong shape: fc8.bias (4,) for (5,)"),
        (lambda s: s | {"fc8.bias": torch.ones(1, 5)}, "wrong shape: fc8.bias (1, 5) for (5,)"),
        (lambda s: s | {"fc8.bias": torch.ones(5, dtype=torch.int64)}, "not floating-point numbers: fc8.bias"),
        (lambda s: s | {"fc8.bias": torch.ones(5, dtype=torch.complex64)}, "not floating-point numbers: fc8.bias"),
        (lambda s: s | {"fc8.bias": torch.ones(5).to_sparse()}, "not floating-point numbers: fc8.bias"),
        (lambda s: s | {"fc8.weight": with_value(s["fc8.weight"], float("nan"))}, "not finite: fc8.weight"),
        (lambda s: s | {"fc8.weight": with_value(s["fc8.weight"], float("-inf"))}, "not finite: fc8.weight"),
        (lambda s: s | {"fc8.bias": torch.full((5,), 1e300, dtype=torch.float64)}, "not finite: fc8.bias"),
        (lambda s: s | {"bn_conv1.running_var": with_value(s["bn_conv1.running_var"], -1)}, "negative variance: bn_conv1"),
        (lambda s: {}, ", … (107 in all)"),
        (lambda s: {f"net.{name}": t for name, t in s.items()}, "surplus: net.conv1.weight, "),
        (lambda s: without(s, "fc8.bias") | {"x": torch.ones(1)}, "missing: fc8.bias; surplus: x"),
        (lambda s: s | {"module.fc8.bias": s["fc8.bias"]}, "hold 'fc8.bias' twice, with and without 'module.'"),
        (lambda s: s | {"lr": 0.1}, "where 'lr' is a float, but only named tensors are taken"),
        (lambda s: {"model": s}, "hold 'model', where 'model' is a"),
        (lambda s: {1: torch.ones(1)}, "where 1 is a Tensor, but only named tensors"),
        (lambda s: s | {"a\nb": torch.ones(1)}, "surplus: 'a\\nb'; take"),
        (lambda s: s | {"x" * 10**6: torch.ones(1)}, f"surplus: {'x' * 120}…; take"),
        (lambda s: {"x" * 10**6: 1}, "is a int, but only named tensors"),
        (lambda s: list(s.values()), "hold a list, but must hold a table of tensors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    card = small_card("res3d-sports1m")
    path = save(change(seeded_state(card)), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        load(card, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_weights_of_another_net_are_refused(tmp_path):
    path = save(seeded_state(small_card("res3d-sports1m")), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="do not fit c3d-sports1m"):
        load(small_card("c3d-sports1m"), path)
    other = dataclasses.replace(small_card("res3d-sports1m"), classes=6, layers={"prob": 6})
    with pytest.raises(
        CheckpointError, match=re.escape("wrong shape: fc8.weight (5, 2) for (6, 2), fc8.bias (5,) for (6,);")
    ):
        load(other, path)


# ------------------------------------------------------------------------- hostile and damaged files


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_unrun(form, tmp_path):
    target, path = tmp_path / "ran", tmp_path / "weights.pth"
    content = {"state_dict": {"conv1.weight": torch.ones(1), "bad": Hostile(target)}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        save(content, path, form)
    with pytest.raises(CheckpointError, match=r"refused \(it holds more than tensors") as error:
        load(small_card("c3d-sports1m"), path)
    assert "\n" not in str(error.value)
    assert not target.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_cut_files_are_refused(form, tmp_path):
    card = small_card("c3d-sports1m")
    whole = save(seeded_state(card), tmp_path / "whole", form).read_bytes()
    path = tmp_path / "cut"
    for size in (1, 8, 9, 50, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError) as error:
            load(card, path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "are an empty file"),
        (
            b"\x0a\x08CaffeNet\x12\x04data",
            "cannot be read as a Caffe weights file: at byte 12 field 12 is of wire type 4",
        ),
        (b"<!DOCTYPE html><html>", "begin with b'<!DOCTYP', which is no form of weights that featx reads"),
        (b"PK\x03\x04 and no archive", "are refused ("),
        (pickle.dumps({"a": 1}), "are refused ("),
    ],
)
def test_files_that_hold_no_weights(content, message, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load(small_card("c3d-sports1m"), path)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        identify(path)


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file or directory\); check the path"):
        load(small_card("c3d-sports1m"), tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        load(small_card("c3d-sports1m"), tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        CheckpointError, match="are a pipe or a device; name the file"
    ):  # and not an endless wait for a writer
        load(small_card("c3d-sports1m"), tmp_path / "pipe")


# ------------------------------------------------------------------------- which file


@pytest.mark.parametrize("name", [name for name, card in CHECKPOINTS.items() if not card.embedded])
def test_without_weights_the_message_says_where_they_are(name):
    card = CHECKPOINTS[name]
    with pytest.raises(CheckpointError) as error:
        load(card)
    message = str(error.value)
    assert name in message and "--weights FILE" in message
    assert all(url in message for url in card.urls)


def test_embedded_weights_are_verified(tmp_path, monkeypatch):
    card = small_card("res3d-sports1m")
    state = seeded_state(card)
    path = save(state, tmp_path / "own.safetensors", "safetensors")
    monkeypatch.setattr("featx.checkpoints.WEIGHTS_FOLDER", tmp_path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    embedded = dataclasses.replace(card, embedded=True, file=path.name, sha256=sha256)
    assert load(embedded).sha256 == sha256
    other = dataclasses.replace(embedded, sha256="0" * 64)
    with pytest.raises(CheckpointError, match=f"has SHA-256 {sha256}, but the card of res3d-sports1m says 0000"):
        load(other)
    assert load(other, path).sha256 == sha256  # a file that the user names need not be the card's


# ------------------------------------------------------------------------- safetensors


def test_safetensors_layout(tmp_path):
    """The bytes of a file, written by hand from the format's description."""
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(7, dtype=torch.uint8)}, {"k": "v"})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    assert json.loads(content[8 : 8 + size]) == {
        "__metadata__": {"k": "v"},
        "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]},
    }
    assert content[8 + size :] == bytes.fromhex("0000803f 00000040 07")
    assert list(tmp_path.iterdir()) == [path]


def test_safetensors_round_trip(tmp_path):
    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8),  # leaves what follows unaligned
        "double": torch.rand(2, 3, dtype=torch.float64),
        "half": torch.rand(5).half(),
        "brain": torch.rand(5).bfloat16(),
        "view": torch.rand(4, 6).t(),
        "whole": torch.tensor([-1, 2**40]),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, tensors)
    back = read_safetensors(path)
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    first = path.read_bytes()
    write_safetensors(path, tensors)
    assert path.read_bytes() == first


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header, message",
    [
        ({"a": entry(dtype="F99")}, "no possible tensor"),
        ({"a": entry(shape=(3,))}, "no possible tensor"),
        ({"a": entry(shape=(-2,))}, "no possible tensor"),
        ({"a": entry(shape=(2.0,))}, "no possible tensor"),
        ({"a": entry(shape=(True, 2))}, "no possible tensor"),
        ({"a": entry(shape=(1,) * 40 + (2,))}, "no possible tensor"),
        ({"a": entry(shape=(10**30,))}, "no possible tensor"),
        ({"a": entry(shape=(0, 2**61), offsets=(0, 0)), "b": entry()}, "no possible tensor"),
        ({"a": entry(offsets=(8, 0))}, "no possible tensor"),
        ({"a": entry(offsets=(0, 8, 8))}, "no possible tensor"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "no possible tensor"),
        ({"a": [1, 2]}, "no possible tensor"),
        ({"a": entry(offsets=(4, 12))}, "begins at byte 4, but must at 0"),
        ({"a": entry(), "b": entry()}, "'b' begins at byte 0, but must at 8"),
        ({"a": entry(shape=(1,), offsets=(0, 4))}, "8 bytes of data, but the header tells of 4"),
        ({"a": entry(shape=(2**40,), offsets=(0, 2**42))}, "but the header tells of 4,398,046,511,104"),
        ([], "must be a JSON object"),
        ("{", "not valid JSON"),
        ('{"a":' + json.dumps(entry()) + ',"a":' + json.dumps(entry()) + "}", "a name occurs twice"),
        ('{"a":' + "[" * 100_000, "not valid JSON"),
        (b"{\xff\xfe}", "not valid JSON"),
    ],
)
def test_impossible_safetensors_headers(header, message, tmp_path):
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 8)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_safetensors(path)


@pytest.mark.parametrize("length", [11, 2**31, 2**63, 2**64 - 1])
def test_absurd_header_lengths(length, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + b"\0" * 8)
    with pytest.raises(CheckpointError, match=f"the header claims {length:,} bytes, but the file has 18"):
        read_safetensors(path)


def test_a_zip_that_unpacks_to_more_than_it_has_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as bomb:
        for entry in plain.infolist():
            bomb.writestr(entry.filename, plain.read(entry))
    with pytest.raises(CheckpointError, match=r"it unpacks to [0-9,]+ bytes, more than the"):
        read_tensors(tmp_path / "bomb.pth")
