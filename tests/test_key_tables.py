"""Every published file at its full size, with its own names, shapes and wrapper, and one number seen in every place."""

import dataclasses
import math

import caffe_encoder as caffe
import pytest
import torch
from key_tables import KEY_TABLES

from featx.backbones import ARCHITECTURES, build
from featx.catalog import CHECKPOINTS
from featx.checkpoints import load
from featx.checkpoints.identify import identify
from featx.errors import CheckpointError

WITH_WEIGHTS = [file for file, table in KEY_TABLES.items() if table.card]
WITHOUT_WEIGHTS = [file for file, table in KEY_TABLES.items() if not table.card]
HEAVY = "c3d_fbvideo"  # in every run it would take three seconds


def num_floats(table):
    shapes = [*table.tensors.values(), *(shape for _, _, shapes in table.layers for shape in shapes)]
    return sum(math.prod(shape) for shape in shapes if shape)


def write(table, path, change=None):
    """The file of a table, with `change` made to its tensors, a table of name -> shape, or its layers, a list."""
    if table.caffe:
        caffe.write_zeros(path, table.caffe, (change or list)(table.layers))
        return path
    number, counter = torch.tensor(0.5), torch.tensor(1000)  # each stored once, and seen in every place
    shapes = (change or dict)(table.tensors)
    state = {name: number.expand(shape) if shape else counter for name, shape in shapes.items()}
    content = {}
    for key in table.wrapper:
        name, _, value = key.partition("=")
        content[name] = (
            value or {"epoch": 200, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}[name]
        )
    torch.save(content or state, path)
    return path


def is_first_of_its_kind(table):
    """Whether no table before has the same architecture and names: others of a kind differ in the classifier only."""

    def kind(table):
        first = [*table.tensors, *(name for name, _, _ in table.layers)][0]
        return CHECKPOINTS[table.card].architecture, first

    return next(file for file in WITH_WEIGHTS if kind(KEY_TABLES[file]) == kind(table)) == table.file


def files_with_weights(in_every_run):
    """Every file with weights, as parameters of a test; those of which `in_every_run` is false are marked long."""
    return [
        file if in_every_run(KEY_TABLES[file]) else pytest.param(file, marks=pytest.mark.long) for file in WITH_WEIGHTS
    ]


# ------------------------------------------------------------------------- tables and cards


def test_every_card_has_a_table_or_an_embedded_file():
    covered = {table.card for table in KEY_TABLES.values() if table.card}
    assert covered == {name for name, card in CHECKPOINTS.items() if not card.embedded}
    assert len(KEY_TABLES) == 51


def test_tables_are_of_the_published_files():
    """The tables' files are those that the cards name, where their names are known."""
    for name, card in CHECKPOINTS.items():
        tables = {file for file, table in KEY_TABLES.items() if table.card == name}
        assert not card.file or card.embedded or card.file in tables, name
        assert {source.file for source in card.source if source.file} <= tables


def num_megabytes(table):
    """Of the numbers alone: float32, and int64 for counters; headers and names come to less than 0.05 MB."""
    shapes = [*table.tensors.values(), *(shape for _, _, shapes in table.layers for shape in shapes)]
    return sum(4 * math.prod(shape) if shape else 8 for shape in shapes) / 1e6


@pytest.mark.parametrize("name", [name for name, card in CHECKPOINTS.items() if not card.embedded])
def test_the_cards_sizes(name):
    card = CHECKPOINTS[name]
    tables = {file: table for file, table in KEY_TABLES.items() if table.card == name}
    table = tables[card.file] if card.file else next(iter(tables.values()))
    assert card.size_mb == pytest.approx(num_megabytes(table), abs=0.1)
    assert card.size_mb == round(card.size_mb, 1)


# counted in the published files' descriptions
@pytest.mark.parametrize(
    ("file", "num_names", "numbers"),
    [
        ("conv3d_deepnetA_sport1m_iter_1900000", 11, 79_991_015),
        ("c3d_resnet18_sports1m_r2_iter_2800000.caffemodel", 64, 33_430_076),
        ("p3d_resnet_kinetics.caffemodel", 405, 66_664_528),
        ("p3d_rgb_199.checkpoint.pth.tar", 1012, 66_664_528),
        ("resnet-34-kinetics.pth", 167, 63_560_144),
        ("preresnet-200-kinetics.pth", 1017, 127_591_120),
        ("densenet-121-kinetics.pth", 606, 11_780_176),
        ("r3d50_KMS_200ep.pth", 320, 48_585_907),
        ("r3d_18-b3b3357e.pth", 122, 33_381_072),
    ],
)
def test_tables_hold_what_the_files_hold(file, num_names, numbers):
    table = KEY_TABLES[file]
    assert len(table.tensors or table.layers) == num_names
    assert num_floats(table) == numbers


# ------------------------------------------------------------------------- files


def loads_in_every_run(table):
    """Files up to a size; of Caffe's, which hold all their numbers (small ones: test_caffe.py), one of a kind."""
    return num_floats(table) < 40e6 and (not table.caffe or is_first_of_its_kind(table))


@pytest.mark.parametrize("file", files_with_weights(loads_in_every_run))
def test_the_published_file_loads(file, tmp_path):
    table = KEY_TABLES[file]
    loaded = load(CHECKPOINTS[table.card], write(table, tmp_path / "weights"))
    state = loaded.backbone.state_dict()
    floats = num_floats(table)
    if table.caffe:  # whose BatchNorm layers hold a scale besides
        floats -= sum(kind == "BatchNorm" for _, kind, _ in table.layers)
    assert sum(tensor.numel() for tensor in state.values()) == floats
    assert all((tensor.view(-1)[:1] == (0 if table.caffe else 0.5)).all() for tensor in state.values())
    if "prob" not in loaded.backbone.layer_names:
        assert "no classifier" in next(s.form for s in CHECKPOINTS[table.card].source if s.file == file)


@pytest.mark.parametrize("file", files_with_weights(lambda table: not table.caffe))
def test_the_published_file_is_identified(file, tmp_path):
    table = KEY_TABLES[file]
    best = identify(write(table, tmp_path / "weights"))[0]
    assert best.exact and table.card in best.cards
    for name in best.cards:  # the others take clips of another length, and no more can be known from the file
        assert CHECKPOINTS[name].classes == CHECKPOINTS[table.card].classes
        assert CHECKPOINTS[name].sampling.length != CHECKPOINTS[table.card].sampling.length or name == table.card


def without_one(content):
    """The tensors or layers without the one in the middle."""
    items = list(content.items() if isinstance(content, dict) else content)
    del items[len(items) // 2]
    return type(content)(items)


def with_one_more(content):
    if isinstance(content, dict):
        return content | {"fc9.weight": (3,)}
    return [*content, ("fc9", "InnerProduct", [(3, 4), (3,)])]


def with_one_misshapen(content):
    """The first convolution flattened."""
    if isinstance(content, dict):
        name = next(iter(content))
        return content | {name: (math.prod(content[name]),)}
    (name, kind, (shape, *others)), *rest = content
    return [(name, kind, [(math.prod(shape),), *others]), *rest]


CHANGES = ((without_one, "missing: "), (with_one_more, "surplus: "), (with_one_misshapen, "wrong shape: "))


def changed_files():
    """(file, change, problem): the first files of their kinds take turns in the changes; others, and Caffe's, are long."""
    firsts = [file for file in WITH_WEIGHTS if is_first_of_its_kind(KEY_TABLES[file]) and not KEY_TABLES[file].caffe]
    for file in WITH_WEIGHTS:
        for i, change in enumerate(CHANGES):
            in_every_run = file in firsts and firsts.index(file) % len(CHANGES) == i
            yield pytest.param(file, *change, marks=() if in_every_run else pytest.mark.long)


@pytest.mark.parametrize(("file", "change", "problem"), list(changed_files()))
def test_a_file_that_differs_in_one_tensor_is_refused(file, change, problem, tmp_path):
    table = KEY_TABLES[file]
    card = CHECKPOINTS[table.card]
    path = write(table, tmp_path / "weights", change)
    with pytest.raises(CheckpointError, match=f"do not fit {card.name} .*{problem}") as error:
        load(card, path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert " in every tensor" not in str(error.value)


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=pytest.mark.long) if file == HEAVY else file for file in WITHOUT_WEIGHTS]
)
def test_a_table_without_weights_fits_its_architecture(file, tmp_path):
    """As a user's own card of that architecture would load it."""
    table = KEY_TABLES[file]
    assert table.architecture in ARCHITECTURES
    with torch.device("meta"):
        skeleton = build(table.architecture, num_classes=table.classes).state_dict()
    card = own_card(table)
    (match,) = identify(write(table, tmp_path / "weights"), [card])
    assert match.exact and match.cards == (card.name,) and match.num_expected == len(skeleton)
    best = identify(tmp_path / "weights")[0]
    assert not best.exact and best.num_matched


def own_card(table):
    """A card of the same family with the table's architecture and classes, and layers of no matter."""
    like = CHECKPOINTS["c3d-ucf101" if table.caffe else "p3d199-kinetics"]
    return dataclasses.replace(
        like,
        name="own-net",
        architecture=table.architecture,
        arguments={},
        classes=table.classes,
        labels=None,
        layers={"prob": table.classes},
        default_layer="prob",
        variants={},
    )


# ------------------------------------------------------------------------- other forms of the same names


@pytest.mark.parametrize("file", [file for file in WITH_WEIGHTS if file.startswith("densenet")])
def test_densenets_renamed_by_newer_versions(file, tmp_path):
    """denselayer1.norm.1 became denselayer1.norm1, when PyTorch forbade dots in a module's name."""

    def renamed(tensors):
        short = {}
        for name, shape in tensors.items():
            for part in ("norm.1.", "conv.1.", "norm.2.", "conv.2."):
                name = name.replace(part, part.replace(".", "", 1))
            short[name] = shape
        assert short.keys() != tensors.keys()
        return short

    table = KEY_TABLES[file]
    best = identify(write(table, tmp_path / "weights", renamed))[0]
    assert best.exact and best.cards == (table.card,) and best.naming == "Hara's, without dots"


@pytest.mark.parametrize("file", ["r3d18_K_200ep.pth", "r3d_18-b3b3357e.pth", "resnet-18-kinetics.pth"])
def test_counters_of_batches_make_no_difference(file, tmp_path):
    def toggled(tensors):
        if any(name.endswith("num_batches_tracked") for name in tensors):
            return {name: shape for name, shape in tensors.items() if shape}
        means = [name for name in tensors if name.endswith("running_mean")]
        return tensors | {name.replace("running_mean", "num_batches_tracked"): () for name in means}

    table = KEY_TABLES[file]
    assert identify(write(table, tmp_path / "weights", toggled))[0].exact
    state = load(CHECKPOINTS[table.card], tmp_path / "weights").backbone.state_dict()
    assert not any("batches" in name for name in state)


def test_the_card_that_fits_is_told(tmp_path):
    path = write(KEY_TABLES["resnet-50-kinetics.pth"], tmp_path / "weights")
    with pytest.raises(CheckpointError, match="do not fit r3d50-k .*; it fits resnet50-kinetics in every tensor; take"):
        load(CHECKPOINTS["r3d50-k"], path)
    write(KEY_TABLES["resnext-101-64f-kinetics-ucf101_split1.pth"], path)
    with pytest.raises(CheckpointError, match="it fits resnext101-64f-ucf101 or resnext101-ucf101 in every tensor; "):
        load(CHECKPOINTS["resnext101-kinetics"], path)
    write(KEY_TABLES["r3d50_S_200ep.pth"], path, without_one)
    with pytest.raises(CheckpointError, match="it fits r3d50-s best, in 266 of 267 tensors; "):
        load(CHECKPOINTS["resnet18-kinetics"], path)
    write(KEY_TABLES["c3d_fbvideo"], path)
    with pytest.raises(CheckpointError, match="it fits c3d-sports1m or c3d-ucf101 best, in 20 of 22 tensors; "):
        load(CHECKPOINTS["res3d-sports1m"], path)
    torch.save({"net.weight": torch.ones(3)}, path)
    with pytest.raises(
        CheckpointError, match="missing: .* in all.*; surplus: net.weight; it fits no card of featx; take"
    ):
        load(CHECKPOINTS["r3d50-k"], path)


def test_files_of_the_same_shapes_but_another_origin_are_refused(tmp_path):
    """The authors' and mmaction2's nets for UCF101 have equal shapes, but another pool5 and another input."""
    path = write(KEY_TABLES["c3d_ucf101_finetune_whole_iter_20000"], tmp_path / "weights")
    with pytest.raises(
        CheckpointError, match="are a Caffe file, but those of mm-c3d-ucf101 .*it fits c3d-ucf101 in every"
    ):
        load(CHECKPOINTS["mm-c3d-ucf101"], path)
    write(KEY_TABLES["c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb_20220811-31723200.pth"], path)
    with pytest.raises(CheckpointError, match="do not fit c3d-ucf101 .*it fits mm-c3d-ucf101 in every tensor"):
        load(CHECKPOINTS["c3d-ucf101"], path)
