"""`weights verify`: what it says of good weights, of bad ones, and of two files of one net."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import pytest
import torch
from conftest import write_noise_video
from small_weights import SMALL, cards, save_port, small_card, trained_state  # noqa: F401  (cards is a fixture)

from featx.catalog import CHECKPOINTS, Source
from featx.checkpoints import load
from featx.checkpoints.acquire import add
from featx.checkpoints.compare import _relation, compare
from featx.checkpoints.input_scale import GREY, NORMALISED, UNDECIDED, probe, scale_of
from featx.checkpoints.safetensors import write_safetensors
from featx.checkpoints.verify import verify
from featx.errors import CheckpointError
from featx.extractor import Extractor


def save(state, path):
    write_safetensors(path, state)
    return path


def levels(report, words):
    """The levels of the findings that say `words`."""
    return [finding.level for finding in report.findings if words in finding.text]


# ------------------------------------------------------------------------------------------------- one file


@pytest.mark.parametrize("name", SMALL)
def test_good_weights(name, tmp_path):
    card = small_card(name)
    report = verify(card, save(trained_state(card, grey=True), tmp_path / "w"))
    assert report.is_good and not report.problems and report.card == card.name
    assert {finding.level for finding in report.findings} == {"ok"}
    texts = " | ".join(finding.text for finding in report.findings)
    for words in (
        "all there, of right shape, finite",
        "SHA-256",
        "no layer is untrained",
        "layers: ",
        "a clip of noise",
    ):
        assert words in texts
    assert ("expects grey levels" in texts) == (name in ("res3d-sports1m", "p3d199-kinetics"))  # C3D has no BatchNorm


def test_the_embedded_checkpoint():
    report = verify(CHECKPOINTS["res3d-mini"])
    assert (
        report.is_good
        and levels(report, "is the card's") == ["ok"]
        and levels(report, "it expects normalised") == ["ok"]
    )


def filled(name, value, part=slice(None)):
    def change(state):
        state[name][part] = value

    return change


def untrained(state):
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var")):
            tensor.fill_(name.endswith("var"))


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (filled("fc8.bias", float("nan")), "problem", "not finite: fc8.bias"),
        (lambda state: state.pop("conv1.weight"), "problem", "missing: conv1.weight"),
        (lambda state: state.update(x=torch.ones(1)), "problem", "surplus: x"),
        (lambda state: state.update({"fc8.bias": torch.ones(6)}), "problem", "wrong shape: fc8.bias (6,) for (5,)"),
        (filled("bn_conv1.running_var", -1, 0), "problem", "negative variance: bn_conv1.running_var"),
        (untrained, "problem", "every BatchNorm has mean 0 and variance 1: the net was never trained"),
        (filled("bn_conv1.weight", 0), "problem", "gamma 0 in every channel: bn_conv1"),
        (filled("res2a.bn_branch2a.running_var", 0), "problem", "no variance in any channel: res2a.bn_branch2a"),
        (filled("res2a.bn_branch2a.running_var", 0, 1), "warning", "channels that never vary: res2a.bn_branch2a"),
        (filled("res2a.bn_branch2a.running_var", 1e13, 1), "problem", "a variance above 1e+12: res2a.bn_branch2a"),
        (filled("res5b.branch2b.weight", 0), "problem", "one number throughout: res5b.branch2b.weight"),
        (filled("fc8.weight", 0.5), "problem", "one number throughout: fc8.weight"),
        (filled("res5b.bn_branch2b.bias", -1e4), "warning", "a clip of noise gives nothing but zeros in res5b, pool5"),
        (filled("conv1.weight", 3e38), "problem", "a clip of noise gives values that are not finite in "),
    ],
)
def test_bad_weights(change, level, words, tmp_path):
    card = small_card("res3d-sports1m")
    state = trained_state(card, grey=True)
    change(state)
    report = verify(card, save(state, tmp_path / "w"))
    assert level in levels(report, words), report.findings
    assert report.is_good == (level != "problem")


def test_one_layer_as_before_training(tmp_path):
    card = small_card("res3d-sports1m")
    state = trained_state(card, grey=True)
    state["res2a.bn_branch2a.running_mean"].zero_()
    state["res2a.bn_branch2a.running_var"].fill_(1)
    assert levels(verify(card, save(state, tmp_path / "w")), "as before training: res2a.bn_branch2a") == ["warning"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"layers": {"pool5": 4, "prob": 5}},
            "layers of other dimensions than the card's: pool5 gives 3, the card says 4",
        ),
        ({"layers": {"pool6": 4, "prob": 5}}, "the net has no layer pool6, which the card names; it has conv1, "),
    ],
)
def test_bad_cards(changes, words, tmp_path):
    card = dataclasses.replace(small_card("res3d-sports1m"), **changes)
    report = verify(card, save(trained_state(card, grey=True), tmp_path / "w"))
    assert not report.is_good and levels(report, words) == ["problem"]


def test_clips_that_the_net_cannot_take(tmp_path):
    card = small_card("c3d-sports1m")
    card = dataclasses.replace(card, sampling=dataclasses.replace(card.sampling, length=64))
    report = verify(card, save(trained_state(card), tmp_path / "w"))
    assert levels(report, "the net cannot take clips of (3, 64, 112, 112)") == ["problem"]


def test_published_checksums(tmp_path):
    state = trained_state(small_card("c3d-sports1m"))
    path = save(state, tmp_path / "w.pth")
    right = load(small_card("c3d-sports1m"), path).sha256
    for file, prefix, level, words in [
        ("w.pth", right[:8], "ok", "begins as published for w.pth"),
        ("w.pth", "0" * 8, "problem", "does not begin with 00000000, as published for w.pth"),
        ("other.pth", "0" * 8, "warning", "does not begin with 00000000, as the published file's does"),
        ("w.pth", "", "ok", "none is published for this file"),
    ]:
        source = Source("https://host/x", file, sha256_prefix=prefix)
        assert levels(verify(small_card("c3d-sports1m", (source,)), path), words) == [level]


def test_published_sha1(tmp_path, home, cards):  # noqa: F811
    card = small_card("c3d-sports1m")
    path = save(trained_state(card), tmp_path / "w.pth")
    right = hashlib.sha1(path.read_bytes()).hexdigest()
    for file, sha1, level, words in [
        ("w.pth", right, "ok", f"SHA-1 {right} is as published for w.pth"),
        ("w.pth", "0" * 40, "problem", f"SHA-1 {right} is not {'0' * 40}, as published for w.pth"),
        ("other.pth", "0" * 40, "warning", f"is of a file without SHA-1 {'0' * 40}, as the published one has"),
    ]:
        card = dataclasses.replace(card, source=(Source("https://host/x", file, sha1=sha1),))
        report = verify(card, path)
        assert levels(report, words) == [level] and report.is_good == (level != "problem")
        if level == "ok":
            add(card, path)
            assert levels(verify(card), "a SHA-1 is published, which only the file itself") == ["ok"]


def test_files_that_are_no_weights(tmp_path):
    (tmp_path / "w").write_bytes(b"<html>")
    report = verify(small_card("c3d-sports1m"), tmp_path / "w")
    assert not report.is_good and report.sha256 == "" and "no form of weights" in report.problems[0]
    report = verify(small_card("c3d-sports1m"))
    assert "needs weights that are not here" in report.problems[0]


# ------------------------------------------------------------------------------------------------- what range of input


def backbone_of(card, state, path):
    return load(card, save(state, path)).backbone


@pytest.mark.parametrize("factor", [1e-3, 1, 50])
@pytest.mark.parametrize(("grey", "kind"), [(True, GREY), (False, NORMALISED)])
def test_the_probe_does_not_depend_on_the_size_of_the_weights(grey, kind, factor, tmp_path):
    card = small_card("p3d199-kinetics")
    state = trained_state(card, grey=grey)
    state["conv1.weight"] *= factor
    state["bn_conv1.running_var"] *= factor**2
    assert probe(backbone_of(card, state, tmp_path / "w")).kind == kind


@pytest.mark.parametrize(
    ("ratio", "kind"),
    [(0.01, UNDECIDED), (0.1, NORMALISED), (3, NORMALISED), (14, NORMALISED), (15, UNDECIDED), (57, UNDECIDED)]
    + [(230, UNDECIDED), (231, GREY), (9000, GREY), (9e5, GREY), (2e6, UNDECIDED)],
)
def test_where_the_probe_decides(ratio, kind, tmp_path):
    card = small_card("p3d199-kinetics")
    state = trained_state(card)
    state["bn_conv1.running_var"] = ratio * state["conv1.weight"].flatten(1).square().sum(1)
    assert probe(backbone_of(card, state, tmp_path / "w")).kind == kind


def test_a_trained_net_is_told_right():
    """The embedded one saw (pixel - 128) / 64."""
    card = CHECKPOINTS["res3d-mini"]
    assert probe(load(card).backbone).kind == NORMALISED == scale_of(card.preprocess)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_card_makes_one_of_two_kinds_of_pixels(name):
    """By hand: half a grey level's worth of contrast is far from 1 for normalised pixels, and near it for grey levels."""
    preprocess = CHECKPOINTS[name].preprocess
    step = preprocess.scale / max(preprocess.std)
    assert step == 1 or step < 0.05
    assert scale_of(preprocess) == (GREY if step == 1 else NORMALISED)


ARITHMETIC = {"": "caffe", "port": "port", "port-255": "port", "normalised": "caffe"}


@pytest.mark.parametrize("name", ["p3d199-kinetics", "p3d199-sports1m"])
def test_the_variants_of_p3d_combine_each_arithmetic_with_each_input(name):
    card = CHECKPOINTS[name]
    forms = {"": card} | {variant: card.with_variant(variant) for variant in card.variants}
    made = {
        variant: (form.build_arguments.get("arithmetic", "caffe"), scale_of(form.preprocess))
        for variant, form in forms.items()
    }
    assert made == {
        "": ("caffe", GREY),
        "port": ("port", NORMALISED),
        "port-255": ("port", GREY),
        "normalised": ("caffe", NORMALISED),
    }


@pytest.mark.parametrize("variant", ARITHMETIC)
@pytest.mark.parametrize("grey", [True, False])
def test_p3d_weights_for_other_pixels_are_refused(grey, variant, tmp_path):
    card = small_card("p3d199-kinetics")
    path = save(trained_state(card, grey=grey), tmp_path / "w")
    makes_grey = variant in ("", "port-255")
    if makes_grey == grey:
        Extractor(card, weights=path, variant=variant or None).close()
        return
    same, other = {"": ("normalised", "port"), "port": ("port-255", ""), "port-255": ("port", "normalised")}.get(
        variant, ("", "port-255")
    )
    remedy = " or ".join(f"take --variant {form}" if form else "leave --variant out" for form in (same, other))
    with pytest.raises(CheckpointError, match=re.escape(f"; {remedy}")) as error:
        Extractor(card, weights=path, variant=variant or None)
    assert f"expects {GREY if grey else NORMALISED} (" in str(error.value)


def test_p3d_weights_that_do_not_tell_are_taken(tmp_path):
    card = small_card("p3d199-kinetics")
    state = trained_state(card)
    state["bn_conv1.running_var"] = 57 * state["conv1.weight"].flatten(1).square().sum(1)
    path = save(state, tmp_path / "w")
    Extractor(card, weights=path).close()
    report = verify(card, path)
    assert report.is_good and levels(report, "the range of its input cannot be told") == ["warning"]
    untrained(state)
    Extractor(card, weights=save(state, path)).close()
    assert levels(verify(card, path), "those of a net that was never trained") == ["warning"]


def test_verify_names_the_variant(tmp_path):
    card = small_card("p3d199-kinetics")
    path = save(trained_state(card, grey=False), tmp_path / "w")
    report = verify(card, path)
    assert report.is_good and levels(report, "use it with --variant port or normalised") == ["warning"]
    assert levels(verify(card.with_variant("port"), path), "which the card makes") == ["ok"]


# ------------------------------------------------------------------------------------------------- two files


def test_two_forms_of_the_same_weights_are_equal(tmp_path):
    card = small_card("c3d-sports1m")
    state = trained_state(card)
    one, two = save(state, tmp_path / "own"), save_port(card, state, tmp_path / "port", "DavideA's port")
    found = compare(card, one, two)
    assert found.is_equal and found.conclusion() == "the two files hold the same weights"
    state["conv1a.bias"] = state["conv1a.bias"] * (1 + 3e-7)  # a trip through another program
    assert compare(card, one, save(state, tmp_path / "again")).is_equal


@pytest.mark.parametrize(
    ("change", "relation"),
    [(0.0, "equal"), (5e-7, "equal"), (2e-6, "different"), (1e-5, "different"), (0.05, "different")],
)
def test_where_tensors_are_no_longer_equal(change, relation):
    """One element that is off by so many times the largest value."""
    a = torch.tensor([1.0, -4.0, 0.25, 0.0])
    b = a.clone()
    b[3] += 4 * change
    assert [_relation(a, b), _relation(-a, -b)] == [relation] * 2


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda name, w: w.flip(2), {"backwards in time"}),
        (lambda name, w: w.flip(1) if name == "conv1a.weight" else w, {"red and blue exchanged", "equal"}),
        (
            lambda name, w: w.flip(1, 2) if name == "conv1a.weight" else w.flip(2),
            {"red and blue exchanged, backwards in time", "backwards in time"},
        ),
        (lambda name, w: w.flip(2, 3, 4), {"backwards in time and upside down"}),
    ],
)
def test_turned_kernels_are_found(turn, words, tmp_path):
    card = small_card("c3d-sports1m")
    state = trained_state(card)
    turned = {name: turn(name, tensor) if tensor.ndim == 5 else tensor for name, tensor in state.items()}
    found = compare(card, save(state, tmp_path / "a"), save(turned, tmp_path / "b"))
    kernels = {name: relation for name, relation in found.relations.items() if state[name].ndim == 5}
    assert set(kernels.values()) == words
    assert {found.relations[name] for name in state.keys() - kernels.keys()} == {"equal"}
    assert not found.is_equal and "the same weights, but kernels are turned (" in found.conclusion()


def test_different_weights(tmp_path):
    card = small_card("c3d-sports1m")
    a, b = (save(trained_state(card, seed), tmp_path / str(seed)) for seed in (0, 1))
    found = compare(card, a, b)
    assert (
        set(found.relations.values()) == {"different"} and found.conclusion() == "the two files hold different weights"
    )


def test_a_port_without_a_classifier(tmp_path):
    card = small_card("c3d-sports1m")
    state = trained_state(card)
    whole = save(state, tmp_path / "whole")
    features = {name: tensor for name, tensor in state.items() if not name.startswith("fc8")}
    found = compare(card, save_port(card, features, tmp_path / "mm.pth", "mmaction2's port"), whole)
    assert found.groups()["only in whole"] == ["fc8.weight", "fc8.bias"]
    assert found.conclusion() == "the same weights as far as both files have them" and not found.is_equal


def test_features_of_a_variant_differ(tmp_path):
    """That the variants are more than words: each gives other features of one video."""
    card = small_card("p3d199-kinetics")
    video = write_noise_video(tmp_path / "a.mp4", 16, size=(96, 128))
    state = trained_state(card)
    state["bn_conv1.running_var"] = 57 * state["conv1.weight"].flatten(1).square().sum(1)  # which none refuses
    path = save(state, tmp_path / "w")
    seen = set()
    for variant in ARITHMETIC:
        with Extractor(card, weights=path, variant=variant or None, layers="pool5") as extractor:
            seen.add(extractor.extract(video).descriptors["pool5"].tobytes())
    assert len(seen) == 4
