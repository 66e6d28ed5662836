import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import featx
from featx.backbones import build
from featx.catalog import (
    CHECKPOINTS,
    NAMINGS,
    WEIGHTS_FOLDER,
    Source,
    get_checkpoint,
    list_backbones,
    read_card,
    read_card_file,
)
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
    assert set(card.published) == set(card.published_source) and all(card.published_source.values())
    for key, figure in (item for figures in card.published.values() for item in figures.items()):
        layers, dims, metric = re.fullmatch(r"([^@:]+)(@\d+)?(:clip-top-1|:top-\d|:map|:auc)?", key).groups()
        assert 0 < figure < 100 and not (dims and metric)
        assert layers.split("+") == [layer for layer in card.layers if layer in layers.split("+")]


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


# what a net is built with besides its architecture's own, of each card and of its variants; {} where it is not here
ARGUMENTS = {
    "mm-c3d-ucf101": {"": {"pool5": "ported"}},  # as mmaction2 fine-tuned it; all others have Caffe's pools
    "res3d-mini": {
        "": {
            "widths": [32, 64, 112, 320],
            "blocks": [1, 1, 1, 2],
            "depths": [3, 3, 3, 3, 1],
            "temporal_strides": [2, 1, 2, 1],
            "pool_change": 2.0,
            "pool_power": 0.5,
        }
    },
    "p3d199-sports1m": {"": {}, "port": {"arithmetic": "port"}, "port-255": {"arithmetic": "port"}, "normalised": {}},
    "p3d199-kinetics": {"": {}, "port": {"arithmetic": "port"}, "port-255": {"arithmetic": "port"}, "normalised": {}},
    "p3d199-flow-kinetics": {"": {"in_channels": 2}, "port": {"in_channels": 2, "arithmetic": "port"}},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_arguments_of_every_card_and_variant(name):
    card = CHECKPOINTS[name]
    forms = {"": card} | {variant: card.with_variant(variant) for variant in card.variants}
    assert {variant: form.arguments for variant, form in forms.items()} == ARGUMENTS.get(name, {"": {}})


# where the publishers offer their files, a second time: (licence, the card's file, {place: (file there, hash)})
BY_NC, PLAIN = "CC BY-NC 3.0", {"imagelab.ing.unimore.it", "download.openmmlab.com", "download.pytorch.org"}
DROPBOX, DRIVE, DARTMOUTH = (
    "https://www.dropbox.com/s/",
    "https://drive.google.com/",
    "http://vlg.cs.dartmouth.edu/c3d/",
)
OPENMMLAB, PYTORCH = "https://download.openmmlab.com/mmaction/", "https://download.pytorch.org/models/"
P3D_DRIVE, P3D_ONEDRIVE = f"{DRIVE}drive/folders/1u_l-yvhS0shpW6e0tCiqPE7Bd1qQZKdD", "https://1drv.ms/f/s!ApyV7qxhN8Cm"
HARA_DRIVE = {
    2018: "drive/folders/1zvl89AgFAApbH0At-gMuZSeQB_LpNP-M",
    2020: "open?id=1xbYbZ7rpyjftI_KCk6YuL-XrfQDz7Yd4",
}
SPORTS1M, UCF101 = "conv3d_deepnetA_sport1m_iter_1900000", "c3d_ucf101_finetune_whole_iter_20000"
MM_SPORTS1M = "c3d_sports1m_pretrain_20201016-dcc47ddc.pth"
MM_FOLDER = "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb"
MM_UCF101 = f"{MM_FOLDER}_20220811-31723200.pth"
RES3D = {
    "sports1m": "c3d_resnet18_sports1m_r2_iter_2800000.caffemodel",
    "ucf101": "c3d_resnet18_ucf101_r2_ft_iter_20000.caffemodel",
}
P3D_RGB, P3D_FLOW = "p3d_rgb_199.checkpoint.pth.tar", "p3d_flow_199.checkpoint.pth.tar"
PUBLISHED = {
    "c3d-sports1m": (BY_NC, SPORTS1M, {
        f"{DROPBOX}vr8ckp0pxgbldhs/{SPORTS1M}": (SPORTS1M, ""),
        f"{DARTMOUTH}{SPORTS1M}": (SPORTS1M, ""),
        f"{DRIVE}file/d/1G11j29BuKt4s53pHikBcVZWVjnpCcjNb": (SPORTS1M, ""),
        "http://imagelab.ing.unimore.it/files/c3d_pytorch/c3d.pickle": ("c3d.pickle", ""),
        f"{OPENMMLAB}recognition/c3d/{MM_SPORTS1M}": (MM_SPORTS1M, "dcc47ddc"),
        f"{DRIVE}file/d/19NWziHWh1LgCcHU34geoKwYezAogv9fX": ("c3d-pretrained.pth", ""),
        "https://umich.box.com/shared/static/znmyt8uph3w7bjxoevg7pukfatyu3z6k.pth": ("c3d-pretrained.pth", ""),
    }),
    "c3d-ucf101": (BY_NC, UCF101, {
        f"{DROPBOX}mkc9q7g4wnqnmcv/{UCF101}": (UCF101, ""),
        f"{DRIVE}file/d/0Bx-2rTokRAt1UTM5NzJhZGtKc2M": (UCF101, ""),
    }),
    "mm-c3d-ucf101": ("Apache-2.0", MM_UCF101, {
        f"{OPENMMLAB}v1.0/recognition/c3d/{MM_FOLDER}/{MM_UCF101}": (MM_UCF101, "31723200"),
    }),
    "res3d-sports1m": (BY_NC, RES3D["sports1m"], {
        f"{DROPBOX}qqfrg6h44d4jb46/{RES3D['sports1m']}": (RES3D["sports1m"], ""),
        f"{DRIVE}open?id=0Bx-2rTokRAt1bzNDNGVBei1mODg": (RES3D["sports1m"], ""),
    }),
    "res3d-ucf101": (BY_NC, RES3D["ucf101"], {f"{DROPBOX}bf5z2jw1pg07c9n/{RES3D['ucf101']}": (RES3D["ucf101"], "")}),
    "p3d199-sports1m": ("MIT", None, {f"{P3D_ONEDRIVE}uD1Psuxnuo_vn01V": ("", "")}),
    "p3d199-kinetics": ("MIT", P3D_RGB, {
        P3D_DRIVE: (P3D_RGB, ""),
        f"{DRIVE}uc?id=1slkxHCUCReJaVo8X2xOkef8ARPKiKx2B": (P3D_RGB, ""),
        f"{P3D_ONEDRIVE}uEAUq95ZgyrjRvNU": ("", ""),
    }),
    "p3d199-flow-kinetics": ("MIT", P3D_FLOW, {
        P3D_DRIVE: (P3D_FLOW, ""),
        f"{DRIVE}uc?id=16aR8hNbinzk7nxj6LEmGqyopUt7GiLG8": (P3D_FLOW, ""),
        f"{P3D_ONEDRIVE}vWIeREkw7wdOkCkY": ("", ""),
    }),
    "res3d-mini": ("MIT", "res3d-mini.safetensors", {}),
}  # fmt: skip
for _form, _file, _hash in (
    ("tv-r3d18", "r3d_18", "b3b3357e"),
    ("tv-mc318", "mc3_18", "a90a0ba3"),
    ("tv-r2plus1d18", "r2plus1d_18", "91a641e6"),
):
    _file = f"{_file}-{_hash}.pth"
    PUBLISHED[f"{_form}-kinetics"] = ("BSD-3-Clause", _file, {f"{PYTORCH}{_file}": (_file, _hash)})


def published_by_hara(name):
    """Of his files only the names differ, and one has a known SHA-1."""
    net, data = name.rsplit("-", 1)
    sha1 = "39ea626355308d8f75307cab047a8d75862c3261" if name == "r3d50-kms" else ""
    if net.startswith("r3d"):
        year, file = 2020, f"{net}_{data.upper()}_200ep.pth"
    else:  # resnext101-64f-ucf101: resnext-101-64f-kinetics-ucf101_split1.pth
        end = "kinetics" if data == "kinetics" else f"kinetics-{data}_split1"
        word, rest = re.fullmatch("([a-z]+)(.*)", net).groups()
        year, file = 2018, f"{word}-{rest}-{end}.pth"
    return "MIT", file, {DRIVE + HARA_DRIVE[year]: (file, sha1)}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_where_the_published_file_is(name):
    card = CHECKPOINTS[name]
    licence, file, places = PUBLISHED.get(name) or published_by_hara(name)
    assert (card.licence, card.file) == (licence, file)
    assert {s.url: (s.file, s.sha256_prefix or s.sha1) for s in card.source} == places
    assert card.urls == tuple(places)  # best first
    assert [s.url for s in card.downloads] == [url for url in places if url.split("/")[2] in PLAIN]


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
    (tmp_path / "names.txt").write_text("rue\nmüde\n", encoding="utf-8-sig")  # as editors on Windows write it
    assert read_card(json.dumps(fields | {"labels": "names.txt"}), "x.json", tmp_path).labels == ("rue", "müde")
    for text in ("rue\n\n", "rue\na\x1b[31mb\n"):
        (tmp_path / "names.txt").write_text(text)
        with pytest.raises(UsageError, match="must be names that can be printed; a list of them has no empty lines"):
            read_card(json.dumps(fields | {"labels": "names.txt"}), "x.json", tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UsageError, match="pipe.txt is a pipe or a device; name a text file"):
        read_card(json.dumps(fields | {"labels": "pipe.txt"}), "x.json", tmp_path)
    with pytest.raises(UsageError, match="pipe.txt' is a pipe or a device; name a card's JSON file"):
        read_card_file(tmp_path / "pipe.txt")
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read .it is not UTF-8 text"):
        read_card(json.dumps(fields | {"labels": "names.txt"}), "x.json", tmp_path)
    with pytest.raises(UsageError, match="card x.json: unknown labels 'kinetics-400'; did you mean 'kinetics400'"):
        read_card(json.dumps(fields | {"labels": "kinetics-400"}), "x.json", tmp_path)


def test_a_field_twice(tmp_path):
    text = json.dumps(card_fields("res3d-ucf101"))
    for twice in ('{"name": "other-card", ' + text[1:], text.replace('"crop": ', '"crop": 100, "crop": ')):
        with pytest.raises(UsageError, match="card x.json is not JSON .'(name|crop)' stands twice in one object"):
            read_card(twice, "x.json")


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
    assert known == set(NAMINGS) and len(NAMINGS) == 10


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
        ({"layers": ["fc6"]}, "layers of card 'c3d-sports1m' is ['fc6'], but must map names to values"),
        ({"layers": {"fc6": True}}, "must map at least one layer"),
        ({"classes": True}, "classes of card 'c3d-sports1m' is True, but must be a whole number"),
        ({"labels": [1, 2, 3]}, "labels of card 'c3d-sports1m' is (1, 2, 3), but must be a list of names"),
        ({"labels": {"a": 1}}, "labels of card 'c3d-sports1m' is {'a': 1}, but must be a list of names"),
        ({"labels": 5}, "labels of card 'c3d-sports1m' is 5, but must be a list of names"),
        (
            {"namings": ["Cafe"]},
            "namings of card 'c3d-sports1m' is ('Cafe',), but 'Cafe' is none; known: featx's own, Caffe",
        ),
        ({"namings": "Caffe"}, "namings of card 'c3d-sports1m' is 'Caffe', but must be a list of names"),
        ({"namings": [3]}, "namings of card 'c3d-sports1m' is (3,), but must be a list of names"),
        ({"file": ["a"]}, "file of card 'c3d-sports1m' is ['a'], but must be text"),
        ({"file": ""}, "file of card 'c3d-sports1m' is '', but must be the name of a file"),
        ({"file": "a\0"}, r"file of card 'c3d-sports1m' is 'a\x00', but must be the name of a file"),
        ({"name": 5}, "name of card '5' is 5, but must be text"),
        ({"data": ["x"]}, "data of card 'c3d-sports1m' is ['x'], but must be text"),
        ({"default_layer": ["fc6"]}, "default_layer of card 'c3d-sports1m' is ['fc6'], but must be text"),
        ({"licence": None}, "licence of card 'c3d-sports1m' is None, but must be text"),
        ({"note": 1}, "note of card 'c3d-sports1m' is 1, but must be text"),
        (
            {"published_source": "a paper"},
            "published_source of card 'c3d-sports1m' is 'a paper', but must map names to values",
        ),
        ({"published_source": {}}, "must say for each data set of 'published', and for no other, where it is printed"),
        ({"published": {"x": {"fc6": 1.0}}, "published_source": {"x": 1}}, "must be a text for each data set"),
        ({"sha256": 12}, "sha256 of card 'c3d-sports1m' is 12, but must be text"),
        ({"arguments": ["x"]}, "arguments of card 'c3d-sports1m' is ['x'], but must map names to values"),
        ({"published": {"ucf101": 80}}, "must map each data set to layers and their accuracies in %"),
        ({"published": {"ucf101": {"fc6": "80"}}}, "must map each data set to layers and their accuracies in %"),
        ({"embedded": "no"}, "embedded of card 'c3d-sports1m' is 'no', but must be true or false"),
        ({"size_mb": True}, "size_mb of card 'c3d-sports1m' is True, but must be a number of MB above 0"),
        ({"size_mb": float("inf")}, "size_mb of card 'c3d-sports1m' is inf, but must be a number of MB above 0"),
        ({"architecture": ["c3d"]}, "unknown architecture of card 'c3d-sports1m': '['c3d']'"),
        ({"source": "https://x"}, "card x.json: source is 'https://x', but must be a list of places"),
        ({"source": {"url": "https://x"}}, "card x.json: source is {'url': 'https://x'}, but must be a list of places"),
        ({"source": [{"url": 5}]}, "url of a source is 5, but must be text"),
        ({"source": [{"url": "https://x", "file": ["y"]}]}, "file of a source is ['y'], but must be text"),
        (
            {"source": [{"url": "https://x", "plain": "y"}]},
            "plain of the source https://x is 'y', but must be true or false",
        ),
        ({"source": [None]}, "card x.json, source is a JSON NoneType, but must be an object"),
        (
            {"sampling": {"length": True}},
            "card x.json, sampling: length is true, but none of its fields is true or false",
        ),
        ({"sampling": {"length": None}}, "card x.json, sampling: length is null, but must be a whole number"),
        ({"sampling": {"length": 16.0}}, "card x.json: length is 16.0, but must be a whole number"),
        ({"sampling": {"listed": True}}, "unknown field of card x.json, sampling: 'listed'"),
        ({"preprocess": {"crop": 160.0}}, "card x.json: crop is 160.0, but must be a whole number from 1 to"),
        (
            {"preprocess": {"crop": 1, "mean": ["a", "b", "c"]}},
            "card x.json: mean is ('a', 'b', 'c'), but must be three numbers",
        ),
        ({"preprocess": {"crop": 1, "mean_cube": [1]}}, "unknown field of card x.json, preprocess: 'mean_cube'"),
        ({"variants": ["v"]}, "variants of card 'c3d-sports1m' is ['v'], but must map names to values"),
        (
            {"variants": {"v": 5}},
            "variants of card 'c3d-sports1m' is {'v': 5}, but variant 'v' must have a name and map",
        ),
        ({"variants": {"": {}}}, "but variant '' must have a name and map fields to values"),
        (
            {"variants": {"v": {"arguments": 5}}},
            "but arguments and preprocess of variant 'v' must map fields to values",
        ),
        ({"variants": {"v": {"note": 5}}}, "but note of variant 'v' must be text"),
        (
            {"variants": {"v": {"preprocess": {"corp": 5}}}},
            "unknown field of card x.json, variant 'v': 'corp'; did you mean 'crop'",
        ),
        (
            {"variants": {"v": {"preprocess": {"crop": "5"}}}},
            "card x.json, variant 'v': crop is '5', but must be a whole number from 1 to",
        ),
        (
            {"variants": {"v": {"preprocess": {"crop": 150}}}},
            "card x.json, variant 'v': a crop of 150 at (8, 29) does not fit",
        ),
        (
            {"variants": {"v": {"arguments": {"num_classes": 2}}}},
            "card x.json, variant 'v': arguments of card 'c3d-sports1m' is {'num_classes': 2}, but classes is 487",
        ),
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
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        read_card(json.dumps(card_fields() | changes), "x.json")
    assert "\n" not in str(error.value)


WRONG = [
    None,
    True,
    5,
    -1,
    0.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "a\0b",
    [],
    ["a"],
    [1],
    [[]],
    {},
    {"a": 1},
    {"a": {}},
]


def places(value, way=()):
    """The way to every value inside a card's JSON."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*way, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*way, key))


@pytest.mark.parametrize("name", ["c3d-sports1m", "p3d199-kinetics", "res3d-mini"])
def test_whatever_stands_in_a_card_is_taken_or_refused_in_a_line(name):
    """Every value of a card in turn replaced by values of every type: a card, with all its variants, or a UsageError."""
    for way in places(card_fields(name)):
        for wrong in WRONG:
            fields = card_fields(name)
            inner = fields
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = wrong
            try:
                card = read_card(json.dumps(fields), "x.json")
            except UsageError as error:
                assert "\n" not in str(error) and "of the wrong type (" not in str(error), (way, wrong)
            else:
                for variant in card.variants:
                    card.with_variant(variant)


def test_what_no_machine_can_build():
    for architecture, arguments, message in [
        (
            "resnet50",
            {"blocks": [10_000_000, 1, 1, 1]},
            r"blocks of architecture 'resnet50' is \[10000000, .*whole numbers of at most 16384",
        ),
        (
            "p3d199",
            {"blocks": (400, 400, 200, 1)},
            "blocks of architecture 'p3d199' is .*may not be more than 1000 in all",
        ),
        (
            "densenet121",
            {"growth": 10**9},
            "growth of architecture 'densenet121' is 1000000000, but may not go beyond 16384",
        ),
        (
            "res3d",
            {"widths": [10**8, 1, 1, 1]},
            "widths of architecture 'res3d' is .*must be whole numbers of at most 16384",
        ),
        (
            "res3d",
            {"stem": [7, None]},
            r"stem of architecture 'res3d' is \[7, None\], but must be whole numbers of",
        ),
        (
            "res3d",
            {"temporal_strides": [True, 2, 2, 2]},
            "temporal_strides of architecture 'res3d' is .*must be whole numbers",
        ),
        ("c3d", {"fc_width": float("inf")}, "fc_width of architecture 'c3d' is inf, but may not go beyond"),
        (
            "c3d",
            {"num_classes": 10**12},
            "num_classes of architecture 'c3d' is 1000000000000, but may not go beyond 1000000",
        ),
    ]:
        with pytest.raises(UsageError, match=message):
            build(architecture, **arguments)
    with torch.device("meta"):
        build("res3d", blocks=(996, 2, 1, 1), widths=(1, 1, 1, 1))


def test_missing_fields_and_text_that_is_no_card():
    fields = card_fields()
    del fields["layers"]
    with pytest.raises(UsageError, match=re.escape("card x.json has no field 'layers'")):
        read_card(json.dumps(fields), "x.json")
    with pytest.raises(UsageError, match=re.escape("card x.json is not JSON (")):
        read_card("{", "x.json")
    with pytest.raises(UsageError, match=re.escape("card x.json is not JSON (")):
        read_card("[" * 100_000, "x.json")
    with pytest.raises(UsageError, match="is a JSON list, but must be an object"):
        read_card("[]", "x.json")


def test_a_clone_finds_its_cards_though_featx_is_installed_elsewhere(tmp_path):
    """As in a clone after `pip install .`: Python finds the clone's featx/, which has no featx.weights in it."""
    root = Path(featx.__file__).parents[1]
    (tmp_path / "clone").mkdir()
    shutil.copytree(
        root / "featx", tmp_path / "clone/featx", ignore=shutil.ignore_patterns("__pycache__", "cpp", "*.so")
    )
    shutil.copytree(root / "weights", tmp_path / "clone/weights", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        "from featx import catalog; print(catalog.WEIGHTS_FOLDER, len(catalog.CHECKPOINTS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "clone",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    folder, number = done.stdout.split()
    assert Path(folder) == tmp_path / "clone/weights" and int(number) == len(CHECKPOINTS), done.stderr
