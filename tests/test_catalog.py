import json
import re

import pytest
import torch

from featx.backbones import build
from featx.catalog import CHECKPOINTS, WEIGHTS_FOLDER, Source, get_checkpoint, list_backbones, read_card
from featx.checkpoints.names import namings
from featx.errors import UnknownNameError, UsageError


def card_fields(name="c3d-sports1m"):
    return json.loads((WEIGHTS_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_every_file_is_a_card():
    assert list_backbones() == sorted(CHECKPOINTS)
    assert set(CHECKPOINTS) == {path.stem for path in WEIGHTS_FOLDER.glob("*.json")}
    assert len(CHECKPOINTS) == 44


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_card(name):
    card = CHECKPOINTS[name]
    assert card.name == name
    assert card.licence and card.note and card.data
    assert card.embedded or (card.source and card.size_mb > 1)
    channels = 2 if card.preprocess.channel_order == "flow" else 3
    assert card.clip_shape == (channels, card.sampling.length, card.preprocess.crop, card.preprocess.crop)
    assert name.split("-")[0] in card.architecture or name == "mm-c3d-ucf101"
    for source in card.downloads:
        assert source.file and source.sha256_prefix in source.file, "the publishers' names end in the prefix"
    for variant in card.variants:
        assert card.with_variant(variant).variant == variant
    assert bool(card.published) == bool(card.published_source)
    for figures in card.published.values():
        assert all(key.split("@")[0] in card.layers and 0 < figure < 100 for key, figure in figures.items())


def test_exactly_the_embedded_checkpoints_have_a_file_here():
    assert [card.name for card in CHECKPOINTS.values() if card.embedded] == ["res3d-mini"]


# the authors' own settings, a second time, as the README of C3D, the Res3D prototxt, the P3D paper, the options of Hara's
# programs and torchvision's presets state them: (length, stride, frame_step), resize, (crop, its place), order, mean, layer
C3D = ((16, 8, 1), (128, 171), (112, (8, 29)), "bgr")
RES3D = ((8, 8, 2), (128, 171), (112, (8, 29)), "bgr", (128, 128, 128), "res5b")
P3D = ((16, 16, 1), (182, 242), (160, None), "bgr", (104, 117, 123), "pool5")
HARA_2018 = ((16, 16, 1), 112, (112, None), "rgb", (114.7748, 107.7354, 99.475), "pool5")
HARA_2020 = ((16, 16, 1), 112, (112, None), "rgb", (0.4345, 0.4051, 0.3775), "pool5")
TORCHVISION = ((16, 16, 1), (128, 171), (112, None), "rgb", (0.43216, 0.394666, 0.37645), "pool5")
SETTINGS = {
    "c3d-sports1m": (*C3D, (100.61, 108.05, 107.81), "fc6"),
    "c3d-ucf101": (*C3D, (90.25, 97.66, 101.41), "fc6"),
    "mm-c3d-ucf101": ((16, 8, 1), 128, (112, None), "rgb", (104, 117, 128), "fc6"),
    "res3d-sports1m": RES3D,
    "res3d-ucf101": RES3D,
    "p3d199-sports1m": P3D,
    "p3d199-kinetics": P3D,
    "p3d199-flow-kinetics": (*P3D[:3], "flow", (128, 128), "pool5"),
    "resnext101-64f-ucf101": ((64, 64, 1), *HARA_2018[1:]),
    "resnext101-64f-hmdb51": ((64, 64, 1), *HARA_2018[1:]),
}


@pytest.mark.parametrize("name", [name for name, card in CHECKPOINTS.items() if not card.embedded])
def test_published_settings(name):
    card = CHECKPOINTS[name]
    year = {"r3d": HARA_2020, "tv-": TORCHVISION}.get(name[:3], HARA_2018)
    sampling, resize, (crop, offset), order, mean, default = SETTINGS.get(name, year)
    assert (card.sampling.length, card.sampling.stride, card.sampling.frame_step) == sampling
    p = card.preprocess
    assert (p.resize, p.crop, p.crop_offset, p.channel_order, p.mean) == (resize, crop, offset, order, mean)
    assert card.default_layer == default
    if name.startswith(("r3d", "tv-")):  # 0 to 1
        assert p.scale == 1 / 255
        assert p.std == {"r": (0.2768, 0.2713, 0.2737), "t": (0.22803, 0.22145, 0.216989)}[name[0]]
    else:
        assert p.scale == 1.0 and set(p.std) == {1.0}
    pillow = name.startswith(("r3d", "resne", "preres", "wide", "dense"))
    expected = "bilinear-antialias" if pillow else "bilinear-float" if name.startswith("tv-") else "bilinear"
    assert p.interpolation == expected
    assert card.sampling.fps == (15 if name.startswith("tv-") else None)
    assert p.crop_rounding == ("even" if pillow or name.startswith("tv-") else "down")
    assert p.long_side == ("nearest" if name.startswith("mm-") else "down")


# counts of the data sets, and names from the beginning, the middle and the end of their authors' lists
@pytest.mark.parametrize(
    ("labels", "classes", "some"),
    [
        ("sports1m", 487, {0: "boomerang", 1: "boxing", 486: "model aircraft"}),
        ("kinetics400", 400, {0: "abseiling", 1: "air drumming", 2: "answering questions", 399: "zumba"}),
        ("kinetics600", 600, {0: "abseiling", 1: "acting in play", 599: "zumba"}),
        ("kinetics700", 700, {0: "abseiling", 2: "adjusting glasses", 699: "zumba"}),
        ("ucf101", 101, {0: "ApplyEyeMakeup", 2: "Archery", 100: "YoYo"}),
        ("hmdb51", 51, {0: "brush_hair", 1: "cartwheel", 50: "wave"}),
    ],
)
def test_label_lists(labels, classes, some):
    fields = card_fields() | {"labels": labels, "classes": classes, "layers": {"fc6": 4096, "prob": classes}}
    names = read_card(json.dumps(fields), "x.json").labels
    assert len(names) == len(set(names)) == classes
    assert {i: names[i] for i in some} == some
    assert all(name == name.strip() and name for name in names)
    if labels not in ("sports1m", "ucf101"):
        assert list(names) == sorted(names)


def test_labels_of_every_data_set_are_used_where_their_order_is_known():
    words = {name: card_fields(name).get("labels") for name, card in CHECKPOINTS.items() if not card.embedded}
    mixtures = {name for name, card in CHECKPOINTS.items() if card.architecture.startswith("r3d") and name[-2:] != "-k"}
    assert {name for name, word in words.items() if word is None} == mixtures
    for name, word in words.items():
        last = name.rsplit("-")[-1]
        if word:
            assert word == {"kinetics": "kinetics400", "k": "kinetics700"}.get(last, last)


def test_labels_of_a_users_card(tmp_path):
    fields = card_fields("res3d-ucf101") | {"name": "res3d-own", "classes": 2, "layers": {"res5b": 25088, "prob": 2}}
    (tmp_path / "names.txt").write_text("rue\nmüde \n", encoding="utf-8")
    card = read_card(json.dumps(fields | {"labels": "names.txt"}), "x.json", tmp_path)
    assert card.labels == ("rue", "müde")
    with pytest.raises(
        UsageError, match=r"card x.json: labels are 'absent.txt', but .*absent.txt cannot be read \(No such"
    ):
        read_card(json.dumps(fields | {"labels": "absent.txt"}), "x.json", tmp_path)
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read .it is not UTF-8 text"):
        read_card(json.dumps(fields | {"labels": "names.txt"}), "x.json", tmp_path)
    with pytest.raises(UsageError, match="card x.json: unknown labels 'kinetics-400'; did you mean 'kinetics400'"):
        read_card(json.dumps(fields | {"labels": "kinetics-400"}), "x.json", tmp_path)


def test_sources():
    card = CHECKPOINTS["c3d-sports1m"]
    assert card.urls == tuple(source.url for source in card.source) and len(card.urls) == 7
    assert [source.file for source in card.downloads] == [
        "c3d.pickle",
        "c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
    ]
    assert {name for name, card in CHECKPOINTS.items() if card.downloads} == {
        "c3d-sports1m",
        "mm-c3d-ucf101",
        "tv-r3d18-kinetics",
        "tv-mc318-kinetics",
        "tv-r2plus1d18-kinetics",
    }
    plain = read_card(json.dumps(card_fields() | {"source": ["https://x.org/y"]}), "x.json")
    assert plain.source == (Source("https://x.org/y"),) and not plain.downloads


def test_namings_are_known():
    """What a card says of names must be a label that files are read with."""
    known = {"Caffe"}
    for card in CHECKPOINTS.values():
        with torch.device("meta"):
            names = build(card.architecture, **card.build_arguments).state_dict()
        labels = {naming.label for naming in namings(card.architecture, names)}
        assert set(card.namings or ()) <= labels | {"Caffe"}
        known |= labels
    assert known == {
        "featx's own", "Caffe", "DavideA's port", "jfzhang95's port", "mmaction2's port", "mmaction2's recognizer",
        "qijiezhao's port", "Hara's", "Hara's, without dots", "torchvision's",
    }  # fmt: skip


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
    with pytest.raises(
        UsageError, match=r"'p3d199' is an architecture, .*take one of: p3d199-flow-kinetics, p3d199-kin"
    ):
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
        ({"architecture": "p3d198"}, "unknown architecture of card 'c3d-sports1m': 'p3d198'; did you mean 'p3d199'"),
        ({"data": ""}, "data of card 'c3d-sports1m' is '', but must say what the weights were trained on"),
        ({"size_mb": 0}, "size_mb of card 'c3d-sports1m' is 0, but must be a number of MB above 0"),
        ({"labels": ["x" * 300]}, f"labels of card 'c3d-sports1m' is ('{'x' * 98}…, but must be 487 different names"),
        ({"labels": ["a"] * 487}, "must be 487 different names, one a class"),
        ({"source": ["ftp://x"]}, "url of a source is 'ftp://x', but must begin with http:// or https://"),
        (
            {"source": [{"url": "https://x", "sha1": "12"}]},
            "sha1 of the source https://x is '12', which is no such hash",
        ),
        (
            {"source": [{"url": "https://x", "plain": True, "file": "../y"}]},
            "is '../y', but must be a file's name without folders",
        ),
        ({"source": [{"url": "https://x", "plain": True}]}, "is '', but must be a file's name without folders"),
        ({"source": [{"urls": "https://x"}]}, "unknown field of card x.json, source: 'urls'; did you mean 'url'"),
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
