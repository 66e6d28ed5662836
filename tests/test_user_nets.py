"""A user's own weights (a card) and own nets (a package with an entry point), from the files to the features."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch
from small_weights import trained_state
from test_cli import run

import featx
from featx.backbones import ARCHITECTURES, build
from featx.catalog import get_checkpoint, list_backbones, read_card_file
from featx.checkpoints import load
from featx.checkpoints.compare import compare
from featx.checkpoints.identify import identify
from featx.checkpoints.safetensors import write_safetensors
from featx.checkpoints.verify import verify
from featx.errors import CheckpointError, ProvenanceError, UnknownNameError, UsageError
from featx.extractor import Extractor

NET = '''
"""Two convolutions and a classifier."""

import torch.nn.functional as F
from torch import nn

from featx.backbones import Architecture
from featx.backbones.base import Backbone


class ToyNet(Backbone):
    def __init__(self, num_classes=3, width=4, norm=False):
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, 3, stride=4)
        self.norm = nn.BatchNorm3d(width) if norm else nn.Identity()
        self.conv2 = nn.Conv3d(width, 2 * width, (1, 3, 3), stride=2)
        self.fc = nn.Linear(2 * width, num_classes)

    def stages(self):
        yield "conv1", lambda x: F.relu(self.norm(self.conv1(x)))
        yield "conv2", lambda x: F.relu(self.conv2(x))
        yield "pool", lambda x: x.mean((2, 3, 4))
        yield "prob", lambda x: F.softmax(self.fc(x), dim=1)


ARCHITECTURE = Architecture("toynet", "toypackage.net", "ToyNet", (3, 8, 32, 32), "this file", {"width": 4})
OTHER_NAME = Architecture("toy-net", "toypackage.net", "ToyNet", (3, 8, 32, 32), "this file")
NO_CLASS = Architecture("noclass", "toypackage.net", "TonyNet", (3, 8, 32, 32), "this file")
NO_BACKBONE = Architecture("nobackbone", "torch.nn", "Identity", (3, 8, 32, 32), "torch")
TEXT = "toynet"
'''
CARD = {
    "name": "toynet-mine",
    "architecture": "toynet",
    "classes": 3,
    "data": "my own videos",
    "sampling": {"length": 8, "stride": 4, "frame_step": 1},
    "preprocess": {"resize": [36, 48], "crop": 32, "channel_order": "rgb", "scale": 0.00392156862745098},
    "layers": {"pool": 8, "prob": 3},
    "default_layer": "pool",
    "licence": "mine",
    "file": "toy.safetensors",
    "labels": ["a", "b", "c"],
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install({"toynet": "toypackage.net:ARCHITECTURE"}) puts a package with these entry points on the path."""
    site = tmp_path / "site"
    (site / "toypackage").mkdir(parents=True)
    (site / "toypackage" / "__init__.py").write_text("")
    (site / "toypackage" / "net.py").write_text(NET)

    def install(points, package="toy-package"):
        info = site / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[featx.architectures]\n{lines}")
        monkeypatch.syspath_prepend(str(site))
        ARCHITECTURES.__dict__.pop("_added", None)

    yield install
    ARCHITECTURES.__dict__.pop("_added", None)
    for name in [name for name in sys.modules if name.startswith("toypackage")]:
        del sys.modules[name]


@pytest.fixture
def mine(install, tmp_path):
    """The path of a card whose net is another package's and whose weights lie beside it."""
    install({"toynet": "toypackage.net:ARCHITECTURE"})
    return write_card(tmp_path / "mine")


def write_card(folder, /, **changes):
    folder.mkdir(exist_ok=True)
    path = folder / "mine.json"
    path.write_text(json.dumps(CARD))
    write_safetensors(folder / "toy.safetensors", trained_state(read_card_file(path)))
    path.write_text(json.dumps({name: value for name, value in (CARD | changes).items() if value is not None}))
    return path


# ------------------------------------------------------------------------------------------------- the whole road


def test_a_net_with_torchs_own_batch_norm(install, clips_folder, tmp_path):
    """Whose counter of batches files have or have not."""
    install({"toynet": "toypackage.net:ARCHITECTURE"})
    card = read_card_file(write_card(tmp_path / "mine", arguments={"norm": True}))
    state = trained_state(card)
    assert "norm.num_batches_tracked" in state and "norm.running_var" in state
    path = tmp_path / "mine/toy.safetensors"
    for written in (state, {name: tensor for name, tensor in state.items() if not name.endswith("tracked")}):
        write_safetensors(path, written)
        report = verify(card)
        assert report.is_good, report.problems
        assert identify(path, [card])[0].exact and compare(card, path, path).is_equal
        assert torch.equal(load(card).backbone.norm.running_var, state["norm.running_var"])
    assert np.isfinite(featx.extract(clips_folder / "dog/001.avi", card).descriptors["pool"]).all()


def test_extract_with_a_card_of_ones_own(capsys, mine, clips_folder, tmp_path):
    output = tmp_path / "f.h5"
    code, out, _ = run(capsys, "extract", clips_folder / "dog", "-o", output, "--card", mine)
    assert code == 0 and out.splitlines()[0] == f"backbone toynet-mine, weights {mine.parent / 'toy.safetensors'}"
    alone = featx.extract(clips_folder / "dog/001.avi", mine, save="both")
    with featx.open(output) as features:
        provenance = features.provenance
        assert np.array_equal(features["001"].descriptors["pool"], alone.descriptors["pool"])
    assert (provenance.backbone, provenance.checkpoint) == ("toynet", "toynet-mine")
    assert provenance.checkpoint_sha256 == load(get_checkpoint(mine)).sha256
    # the text of a path and the card itself are the same; and the net is computed as it is
    for backbone in (str(mine), read_card_file(mine)):
        with Extractor(backbone, save="both") as extractor:
            assert extractor.provenance.differences(provenance) == ["save"]
    assert alone.clips["pool"].shape[1] == 8
    assert "toynet-mine" not in list_backbones()


def test_verify_a_card_of_ones_own(capsys, mine, tmp_path):
    code, out, _ = run(capsys, "weights", "verify", "--card", mine)
    assert code == 0 and "problem" not in out and "ok       layers: pool 8, prob 3" in out
    code, out, _ = run(capsys, "weights", "show", mine)
    assert code == 0 and "toynet" in out and "3 classes: a, b, c" in out
    other = tmp_path / "other"
    write_safetensors(other, trained_state(read_card_file(mine), seed=1))
    assert run(capsys, "weights", "verify", other, "--card", mine)[0] == 0
    code, out, _ = run(capsys, "weights", "verify", "--card", mine, "--against", other)
    assert code == 1 and "the two files hold different weights" in out


def test_models_lists_nets_of_packages(capsys, mine, monkeypatch):
    code, out, _ = run(capsys, "models", "toynet")
    assert code == 0 and "of the package toy-package" in out
    assert [" ".join(line.split()) for line in out.splitlines()][-2:] == ["pool 8 8", "prob 3 3"]


@pytest.mark.parametrize(
    ("architecture", "arguments", "layers"),
    [
        ("c3d", {"widths": [2, 2, 2, 2, 2], "fc_width": 4}, {"fc6": 4}),
        ("res3d", {"widths": [2, 2, 2, 2]}, {"pool5": 2}),
    ],
)
def test_a_card_for_a_net_of_featx(architecture, arguments, layers, tmp_path):
    preprocess = {"resize": [128, 171], "crop": 112}
    length = {"c3d": 16, "res3d": 8}[architecture]
    card = CARD | {
        "name": f"{architecture}-mine",
        "architecture": architecture,
        "arguments": arguments,
        "layers": layers,
        "default_layer": next(iter(layers)),
        "preprocess": preprocess,
        "sampling": {"length": length},
    }
    (tmp_path / "mine.json").write_text(json.dumps(card))
    torch.save(trained_state(read_card_file(tmp_path / "mine.json")), tmp_path / "toy.safetensors")
    assert verify(read_card_file(tmp_path / "mine.json")).is_good


def test_weights_and_labels_beside_the_card(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not where the card lies
    (mine.parent / "names.txt").write_text("x\ny\nz\n")
    path = write_card(mine.parent, labels="names.txt")
    assert read_card_file(path).labels == ("x", "y", "z")
    load(read_card_file(path.relative_to(tmp_path)))


def test_a_variant_of_a_card_of_ones_own(mine):
    path = write_card(mine.parent, variants={"v": {"preprocess": {"scale": 1, "mean": [1, 2, 3]}}})
    with Extractor(path, variant="v") as extractor:
        assert extractor.provenance.variant == "v" and extractor.provenance.mean == (1.0, 2.0, 3.0)


def test_weights_given_by_hand(mine, tmp_path):
    path = write_card(mine.parent, file=None)
    with pytest.raises(CheckpointError, match="card toynet-mine names no file; give its weights with --weights FILE"):
        Extractor(path)
    Extractor(path, weights=mine.parent / "toy.safetensors").close()


# ------------------------------------------------------------------------------------------------- mistakes in a card


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "toynte"}, UsageError, "architecture of card 'toynet-mine': 'toynte'; did you mean 'toynet'"),
        ({"name": "c3d-sports1m"}, UsageError, "name of card 'c3d-sports1m' is 'c3d-sports1m', but a card of featx has that"),
        ({"name": "mine"}, UsageError, "must be <architecture>-<data>"),
        ({"embedded": True, "sha256": "0" * 64}, UsageError, "only featx embeds files"),
        ({"folder": "/"}, UnknownNameError, "unknown field of card '"),
        ({"licence": None}, UsageError, "has no field 'licence', which every card needs"),
        ({"labels": ["a", "b"]}, UsageError, "must be 3 different names, one a class"),
        ({"labels": "names.txt"}, UsageError, "names.txt cannot be read (No such file"),
        ({"labels": "kinetcs400"}, UsageError, "'kinetcs400'; did you mean 'kinetics400'"),
        ({"file": "absent.pth"}, CheckpointError, "absent.pth' cannot be read (No such file"),
        ({"sha256": "0" * 64}, CheckpointError, "says 00000000000000000000000000000000000000000000000000000000"
         "00000000; correct the card, or get its file again"),
        ({"arguments": {"width": 5}}, CheckpointError, "wrong shape: conv1.weight (4, 3, 3, 3, 3) for (5, 3, 3, 3, 3)"),
        ({"arguments": {"widht": 5}}, UsageError, "of the package toy-package cannot be built with width=4, widht=5, "
         "num_classes=3 (TypeError: "),
        ({"layers": {"pol": 8}, "default_layer": "pol"}, UsageError, "unknown layer 'pol'; did you mean 'pool'"),
        ({"classes": 4, "labels": None, "layers": {"pool": 8}}, CheckpointError, "wrong shape: fc.weight (3, 8) for (4, 8)"),
        ({"file": ["toy.safetensors"]}, UsageError, "file of card 'toynet-mine' is ['toy.safetensors'], but must be text"),
        ({"preprocess": CARD["preprocess"] | {"mean": ["a", "b", "c"]}}, UsageError, "mean is ('a', 'b', 'c'), but must be"),
        ({"preprocess": CARD["preprocess"] | {"crop": 32.0}}, UsageError, "crop is 32.0, but must be a whole number from 1"),
        ({"variants": {"v": {"preprocess": {"sclae": 1}}}}, UsageError, "variant 'v': 'sclae'; did you mean 'scale'"),
        ({"preprocess": {"crop": 8}}, UsageError, "toynet-mine cannot take clips of 8 frames"),
    ],
)  # fmt: skip
def test_mistakes_in_a_card(changes, error, message, mine):
    path = write_card(mine.parent, **changes)
    with pytest.raises(error, match=re.escape(message)) as raised:
        Extractor(path)
    assert "\n" not in str(raised.value)


def test_dimensions_that_the_net_does_not_have(mine):
    card = read_card_file(write_card(mine.parent, layers={"pool": 9, "prob": 3}))
    assert verify(card).problems == ["layers of other dimensions than the card's: pool gives 8, the card says 9"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
def test_files_that_are_no_card(content, tmp_path):
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(UsageError, match="card '.*card.json'"):
        Extractor(tmp_path / "card.json")
    with pytest.raises(UsageError, match="cannot be read .Is a directory"):
        Extractor(tmp_path)


def test_nothing_of_a_users_card_is_stored(capsys, mine):
    for args in (["get", mine], ["add", mine, mine.parent / "toy.safetensors"]):
        code, _, err = run(capsys, "weights", *args)
        assert code == 2 and "toynet-mine is a card of your own, which names its file itself" in err


# ------------------------------------------------------------------------------------------------- mistakes in a package


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("toynet", "absent.net:ARCHITECTURE", "cannot be loaded from absent.net:ARCHITECTURE (ModuleNotFoundError: "),
        ("toynet", "toypackage.net:ABSENT", "cannot be loaded from toypackage.net:ABSENT (AttributeError: "),
        (
            "toynet",
            "toypackage.net:TEXT",
            "toypackage.net:TEXT is a str, but must be a featx.backbones.Architecture named",
        ),
        (
            "toynet",
            "toypackage.net:OTHER_NAME",
            "is named 'toy-net', but must be a featx.backbones.Architecture named 'toynet'",
        ),
        ("noclass", "toypackage.net:NO_CLASS", "cannot be built with  (AttributeError: "),
        (
            "nobackbone",
            "toypackage.net:NO_BACKBONE",
            "torch.nn.Identity makes a Identity, not a featx.backbones.base.Backbone",
        ),
    ],
)
def test_mistakes_in_a_package(name, value, message, install):
    install({name: value})
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        build(name)
    assert f"architecture '{name}' of the package toy-package" in str(error.value)


def test_a_broken_package_keeps_nothing_from_working(capsys, install, monkeypatch):
    install(
        {
            "toynet": "absent.net:ARCHITECTURE",
            "res3d": "toypackage.net:ARCHITECTURE",
            "noclass": "toypackage.net:NO_CLASS",
        }
    )
    monkeypatch.setattr(ARCHITECTURES, "own", {name: ARCHITECTURES.own[name] for name in ("c3d", "res3d")})
    assert type(build("res3d", widths=(2, 2, 2, 2))).__name__ == "Res3D"
    code, out, err = run(capsys, "models")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["name", "c3d", "res3d"]
    warnings = err.splitlines()
    assert len(warnings) == 3 and all(line.startswith("featx: warning: architecture '") for line in warnings)
    assert "'res3d' of toy-package is passed over: featx has one of that name; rename it there" in err
    assert "absent.net" in err and "'noclass' of the package toy-package cannot be built" in err


def test_two_packages_with_one_name(install):
    install({"toynet": "toypackage.net:ARCHITECTURE"})
    install({"toynet": "toypackage.net:OTHER_NAME"}, package="other-package")
    with pytest.raises(UsageError, match="'toynet' is added by .*-package and by .*-package; uninstall one, or rename"):
        build("toynet")


def test_packages_are_not_looked_for_in_vain(monkeypatch):
    """featx's own nets cost no search of what is installed."""
    monkeypatch.setattr("featx.backbones.registry.entry_points", lambda group: pytest.fail("searched"))
    ARCHITECTURES.__dict__.pop("_added", None)
    get_checkpoint("c3d-sports1m")
    assert "c3d" in ARCHITECTURES and build("res3d", widths=(2, 2, 2, 2))


def test_other_arguments_of_the_net_do_not_go_into_the_same_file(tmp_path, clips_folder):
    """C3D's two forms of pool5 have the same tensors and the same shapes, and other numbers."""
    card = CARD | {"name": "c3d-mine", "architecture": "c3d", "layers": {"fc6": 4}, "default_layer": "fc6"}
    card |= {"preprocess": {"resize": [128, 171], "crop": 112}, "sampling": {"length": 16}}
    path, output = tmp_path / "mine.json", tmp_path / "f.h5"
    for pool5 in ("caffe", "ported"):
        arguments = {"widths": [2, 2, 2, 2, 2], "fc_width": 4, "pool5": pool5}
        path.write_text(json.dumps(card | {"arguments": arguments}))
        if pool5 == "caffe":
            torch.save(trained_state(read_card_file(path)), tmp_path / "toy.safetensors")
            featx.extract_to(clips_folder / "dog/000.mp4", output, path)
    with pytest.raises(ProvenanceError, match="arguments is .*caffe.* in .*ported.* in this run"):
        featx.extract_to(clips_folder / "dog/000.mp4", output, path)
