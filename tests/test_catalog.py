import json
import re

import pytest

from featx.catalog import CHECKPOINTS, WEIGHTS_FOLDER, get_checkpoint, list_backbones, read_card
from featx.errors import UnknownNameError, UsageError


def card_fields(name="c3d-sports1m"):
    return json.loads((WEIGHTS_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_file_is_a_card():
    assert list_backbones() == sorted(CHECKPOINTS)
    assert set(CHECKPOINTS) == {path.stem for path in WEIGHTS_FOLDER.glob("*.json")}
    assert {"c3d-sports1m", "res3d-sports1m", "p3d199-sports1m", "p3d199-kinetics", "res3d-mini"} <= set(CHECKPOINTS)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_card(name):
    card = CHECKPOINTS[name]
    assert card.name == name
    assert card.licence and card.note
    assert all(re.match(r"https?://", url) for url in card.source)
    assert card.clip_shape == (3, card.sampling.length, card.preprocess.crop, card.preprocess.crop)
    for variant in card.variants:
        assert card.with_variant(variant).variant == variant
    assert bool(card.published) == bool(card.published_source)
    for figures in card.published.values():
        assert all(key.split("@")[0] in card.layers and 0 < figure < 100 for key, figure in figures.items())


def test_exactly_the_embedded_checkpoints_have_a_file_here():
    assert [card.name for card in CHECKPOINTS.values() if card.embedded] == ["res3d-mini"]


# the authors' own settings, a second time, as the README of C3D, the Res3D prototxt and the P3D paper state them
@pytest.mark.parametrize(
    "name, sampling, resize, crop, offset, order, mean, default",
    [
        ("c3d-sports1m", (16, 8, 1), (128, 171), 112, (8, 29), "bgr", (100.61, 108.05, 107.81), "fc6"),
        ("res3d-sports1m", (8, 8, 2), (128, 171), 112, (8, 29), "bgr", (128, 128, 128), "res5b"),
        ("p3d199-sports1m", (16, 16, 1), (182, 242), 160, None, "bgr", (104, 117, 123), "pool5"),
        ("p3d199-kinetics", (16, 16, 1), (182, 242), 160, None, "bgr", (104, 117, 123), "pool5"),
    ],
)
def test_published_settings(name, sampling, resize, crop, offset, order, mean, default):
    card = CHECKPOINTS[name]
    assert (card.sampling.length, card.sampling.stride, card.sampling.frame_step) == sampling
    p = card.preprocess
    assert (p.resize, p.crop, p.crop_offset, p.channel_order, p.mean) == (resize, crop, offset, order, mean)
    assert (p.scale, p.std, p.interpolation) == (1.0, (1.0, 1.0, 1.0), "bilinear")
    assert card.default_layer == default


def test_variant():
    card = CHECKPOINTS["p3d199-kinetics"]
    port = card.with_variant("port")
    assert port.build_arguments == {"arithmetic": "port", "num_classes": 400}
    p = port.preprocess
    assert (p.channel_order, p.scale, p.crop, p.resize) == ("rgb", pytest.approx(1 / 255), 160, (182, 242))
    assert (p.mean, p.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert card.build_arguments == {"num_classes": 400} and card.variant == "" and card.preprocess.scale == 1.0
    with pytest.raises(UnknownNameError, match="unknown variant of p3d199-kinetics 'prot'; did you mean 'port'"):
        card.with_variant("prot")


def test_get_checkpoint():
    assert get_checkpoint("res3d-mini") is CHECKPOINTS["res3d-mini"]
    with pytest.raises(UnknownNameError, match="unknown backbone 'res3d-mnii'; did you mean 'res3d-mini'"):
        get_checkpoint("res3d-mnii")
    with pytest.raises(UsageError, match=r"'p3d199' is an architecture, .*take one of: p3d199-kinetics, p3d199-sports1m"):
        get_checkpoint("p3d199")
    with pytest.raises(UnknownNameError, match="unknown backbone 'zzz'; known: c3d-sports1m, "):
        get_checkpoint("zzz")


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"default_layer": "fc9"},
            "default_layer of card 'c3d-sports1m' is 'fc9', but must be one of conv5b, pool5, fc6",
        ),
        ({"architecture": "c4d"}, "is 'c4d', but must be one of c3d, res3d, p3d199"),
        ({"classes": 0}, "classes of card 'c3d-sports1m' is 0, but must be a whole number of at least 1"),
        ({"classes": 101}, "prob must have one dimension for each of the 101 classes"),
        ({"arguments": {"num_classes": 3}}, "but classes is 487"),
        ({"layers": {}}, "must map at least one layer"),
        ({"layers": {"fc6": "4096"}}, "must map at least one layer"),
        ({"layers": ["fc6"]}, "wrong type"),
        ({"labels": ["a", "b"]}, "must be 487 different names"),
        ({"sha256": "abc"}, "must be 64 lower-case hexadecimal digits"),
        ({"embedded": True, "file": None}, "must name a file beside the card"),
        ({"embedded": True, "file": "../c3d.bin", "sha256": "0" * 64}, "must name a file beside the card"),
        ({"embedded": True}, "sha256 of card 'c3d-sports1m' is None, but must be given"),
        ({"source": []}, "must say where the published file is"),
        ({"name": "C3D"}, "name of card 'C3D' is 'C3D', but must be <architecture>-<data>"),
        ({"variants": {"fast": {"layers": {}}}}, "a variant may hold arguments, note, preprocess only"),
        ({"sampling": {"length": 0}}, "card x.json: length is 0"),
        ({"sampling": 16}, "card x.json, sampling is a JSON int, but must be an object"),
        ({"sampling": {"lenght": 16}}, "unknown field of card x.json, sampling: 'lenght'; did you mean 'length'"),
        ({"preprocess": {"resize": [128, 171]}}, "card x.json, preprocess has no field 'crop'"),
        ({"licencse": "MIT"}, "unknown field of card x.json: 'licencse'; did you mean 'licence'"),
    ],
)
def test_cards_check_themselves(changes, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        read_card(json.dumps(card_fields() | changes), "x.json")


def test_missing_fields_and_text_that_is_no_card():
    fields = card_fields()
    del fields["layers"]
    with pytest.raises(UsageError, match=re.escape("card x.json has no field 'layers'")):
        read_card(json.dumps(fields), "x.json")
    with pytest.raises(UsageError, match=re.escape("card x.json is not JSON (")):
        read_card("{", "x.json")
    with pytest.raises(UsageError, match="is a JSON list, but must be an object"):
        read_card("[]", "x.json")
