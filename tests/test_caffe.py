"""Caffe files against an encoder of our own, from the wire layout up to the layers of a net."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re

import caffe_encoder as caffe
import numpy as np
import pytest
import torch
from key_tables import KEY_TABLES

from featx.catalog import CHECKPOINTS
from featx.checkpoints import load
from featx.checkpoints.caffe import read_caffe, read_mean_cube
from featx.checkpoints.files import file_form
from featx.errors import CheckpointError

SHAPES = [
    ("data", "Data", []),
    ("conv", "Convolution", [(2, 3, 1, 1, 2), (2,)]),
    ("relu", "ReLU", []),
    ("fc", "InnerProduct", [(3, 4), (3,)]),
    ("one", "Scale", [(1,)]),
]
LAYERS = caffe.filled(SHAPES)
IN_FIVE = [(name, kind, [(1,) * (5 - len(shape)) + shape for shape in shapes]) for name, kind, shapes in SHAPES]
IN_FOUR = [(name, kind, [(1,) * (4 - len(shape)) + shape for shape in shapes]) for name, kind, shapes in SHAPES]
IN_FOUR[1] = ("conv", "Convolution", [(2, 3, 1, 2), (1, 1, 1, 2)])


def write(tmp_path, content, name="weights"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def assert_holds(path, layers):
    got = read_caffe(path)
    expected = {name: blobs for name, _, blobs in layers if blobs}
    assert list(got) == list(expected)
    for name, blobs in expected.items():
        assert [blob.shape for blob in got[name]] == [blob.shape for blob in blobs]
        for mine, blob in zip(got[name], blobs, strict=True):
            assert mine.dtype == np.float32 and np.array_equal(mine, blob.astype(np.float32))


# ------------------------------------------------------------------------------------------------- both dialects


def test_the_bytes_of_a_small_file(tmp_path):
    """Written by hand, so that encoder and reader cannot agree on a mistake: one value 1.0 in each dialect."""
    a = "0a0178 121b 220166 3216 0801 1001 1801 2001 2801 3204 0000803f 3a04 00000040"
    assert_holds(write(tmp_path, bytes.fromhex(a)), [("f", "", [np.ones((1, 1, 1, 1, 1))])])
    b = "0a0178 a20611 0a0166 3a0a 3a030a0101 2d0000803f 5000"
    assert_holds(write(tmp_path, bytes.fromhex(b)), [("f", "", [np.ones((1,))])])


@pytest.mark.parametrize("form", ["packed", "split", "unpacked"])
@pytest.mark.parametrize("options", [{}, {"diff": True}, {"v0": True}])
def test_dialect_a(form, options, tmp_path):
    layers = caffe.filled(IN_FIVE)
    assert_holds(write(tmp_path, caffe.net_a(layers, form, **options)), layers)


@pytest.mark.parametrize("length", [0, None])
def test_a_length_of_zero_or_none_is_one(length, tmp_path):
    layers = caffe.filled([("fc", "", [(1, 1, 1, 3, 4), (1, 1, 1, 1, 3)]), ("conv", "", [(2, 3, 1, 3, 3)])])
    assert_holds(write(tmp_path, caffe.net_a(layers, length=length)), layers)


@pytest.mark.parametrize("form", ["packed", "split", "unpacked"])
@pytest.mark.parametrize(
    "options", [{}, {"dims": "unpacked"}, {"double": True}, {"diff": True}, {"double": True, "diff": True}]
)
@pytest.mark.parametrize("v1", [False, True])
def test_dialect_b(form, options, v1, tmp_path):
    assert_holds(write(tmp_path, caffe.net_b(LAYERS, form, v1, **options)), LAYERS)


@pytest.mark.parametrize("form", ["packed", "split", "unpacked"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("v1", [False, True])
def test_legacy_shapes(form, double, v1, tmp_path):
    layers = caffe.filled(IN_FOUR)
    assert_holds(write(tmp_path, caffe.net_b(layers, form, v1, legacy=True, double=double)), layers)


def test_unknown_fields_are_passed_over(tmp_path):
    unknown = b"".join(
        [caffe.field(300, 2**64 - 1), caffe.field(301, "text"), caffe.numbers(302, [1], "unpacked"),
         caffe.numbers(303, [1, 2], "unpacked", "<f8"), caffe.field(5, 1), caffe.field(2**29 - 1, -1)]
    )  # fmt: skip
    assert_holds(write(tmp_path, caffe.net_b(LAYERS) + unknown), LAYERS)
    blob = unknown.replace(caffe.field(5, 1), b"") + caffe.blob_b(np.ones(3)) + unknown.replace(caffe.field(5, 1), b"")
    layer = unknown + caffe.field(1, "x") + caffe.field(7, blob)
    assert_holds(write(tmp_path, caffe.field(100, layer)), [("x", "", [np.ones(3)])])


def test_many_unpacked_values(tmp_path):
    """Far more than the pieces that a file may have, with the byte of the tag among the values."""
    values = np.frombuffer(bytes([0x2D, 0x35, 0x00, 0x3F]) * 300_000, np.float32)
    layers = [("x", "", [values]), ("y", "", [values[:1000]])]
    as_rows = np.empty((300_000, 5), np.uint8)
    as_rows[:, 0], as_rows[:, 1:] = 0x2D, values.view(np.uint8).reshape(-1, 4)
    blob = as_rows.tobytes() + caffe.field(7, caffe.field(1, 300_000))
    content = caffe.field(100, caffe.field(1, "x") + caffe.field(7, blob))
    assert_holds(write(tmp_path, content + caffe.net_b(layers[1:], "unpacked")), layers)


def test_empty_runs_of_another_type_count_for_nothing(tmp_path):
    blob = caffe.field(8, b"") + caffe.blob_b(np.ones(3))
    assert_holds(
        write(tmp_path, caffe.field(100, caffe.field(1, "x") + caffe.field(7, blob))), [("x", "", [np.ones(3)])]
    )


def test_arrays_belong_to_the_caller(tmp_path):
    path = write(tmp_path, caffe.net_b(LAYERS))
    got = read_caffe(path)
    got["conv"][0][:] = 7
    path.write_bytes(b"")
    assert (got["conv"][0] == 7).all() and np.array_equal(got["fc"][0], LAYERS[3][2][0])


# ------------------------------------------------------------------------------------------------- damaged and hostile files


def layer_b(*blobs):
    return caffe.field(100, caffe.field(1, "x") + b"".join(caffe.field(7, blob) for blob in blobs))


def packed(number, count):
    return caffe.numbers(number, np.zeros(count))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0a", "at byte 1 a number is cut off"),
        (b"\x0a\xff\xff", "at byte 1 a number is cut off"),
        (b"\x0a" + b"\xff" * 11, "at byte 1 a number has more than 64 bits"),
        (b"\x0a\x05abcd", "at byte 0 field 1 claims 5 bytes, but 4 are left"),
        (b"\x0a" + caffe.varint(2**62), "field 1 claims 4,611,686,018,427,387,904 bytes, but 0 are left"),
        (b"\x0a\x00\x0d\x00\x00", "at byte 2 field 1 claims 4 bytes, but 2 are left"),
        (b"\x0a\x00\x09\x00\x00", "at byte 2 field 1 claims 8 bytes, but 2 are left"),
        (b"\x0a\x00\x0b", "at byte 2 field 1 is of wire type 3, which Caffe does not use"),
        (b"\x0a\x00\x00\x00", "at byte 2 is a field of number 0"),
        (b"\x0a\x00" + caffe.field(2**29, 1), "at byte 2 is a field of number 536870912"),
        (b"\x0a\x00", "at byte 2 the file ends without a layer that has weights"),
        (caffe.net_b([("data", "Data", [])]), "the file ends without a layer that has weights"),
        (layer_b(caffe.blob_b(np.ones(3))) * 2, "is a second layer 'x' with weights"),
        (layer_b(packed(5, 2) + caffe.field(7, caffe.field(1, 3))), "a blob of shape (3) begins, but it holds 2 values"),
        (layer_b(packed(5, 2)), "a blob of shape () begins, but it holds 2 values"),
        (layer_b(caffe.field(7, caffe.field(1, 3))), "a blob of shape (3) begins, but it holds 0 values"),
        (layer_b(caffe.field(7, caffe.field(1, 2**62))), "begins, but it holds 0 values"),
        (layer_b(packed(5, 2) + caffe.field(7, caffe.field(1, -2))), "begins, but it holds 2 values"),
        (layer_b(caffe.field(7, caffe.field(1, 0) + caffe.field(1, 2**40) * 2)), "(0x1099511627776x1099511627776) begins, but"),
        (layer_b(packed(5, 1) + caffe.field(7, caffe.field(1, 1) * 33)), "is a shape of more than 32 dimensions"),
        (layer_b(caffe.field(5, b"12345")), "are 5 bytes of values, which is no multiple of 4"),
        (layer_b(caffe.field(8, b"1234")), "are 4 bytes of values, which is no multiple of 8"),
        (layer_b(caffe.field(5, 4) + packed(5, 4)), "a blob begins whose field 5 is both a width and values"),
        (caffe.field(100, caffe.field(1, "x" * 1001)), "is a name of 1,001 bytes"),
        (caffe.field(100, caffe.field(1, "a\nb")), "is the name 'a\\nb'"),
    ],
)  # fmt: skip
def test_impossible_files(content, message, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        read_caffe(path)
    text = str(error.value)
    assert str(path) in text and "cannot be read as a Caffe weights file" in text and "\n" not in text
    if file_form(path) == "caffe":
        with pytest.raises(CheckpointError, match=re.escape(message)):
            load(CHECKPOINTS["res3d-sports1m"], path)


@pytest.mark.parametrize("blobs", [[caffe.field(7, caffe.field(1, 0))] * 501, [packed(5, 0) * 501]])
def test_empty_pieces_cannot_fill_the_memory(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.checkpoints.caffe.MAX_PIECES", 500)
    with pytest.raises(CheckpointError, match="begins more than blob or run number 500"):
        read_caffe(write(tmp_path, layer_b(*blobs)))


SMALL_FILES = {
    "a": caffe.net_a(caffe.filled(IN_FIVE), diff=True),
    "a, unpacked": caffe.net_a(caffe.filled(IN_FIVE), "unpacked"),
    "v0": caffe.net_a(caffe.filled(IN_FIVE), "split", v0=True),
    "b": caffe.net_b(LAYERS),
    "b, double": caffe.net_b(LAYERS, "unpacked", double=True),
    "v1, legacy": caffe.net_b(caffe.filled(IN_FOUR), "split", v1=True, legacy=True),
}


@pytest.mark.parametrize("form", SMALL_FILES)
def test_every_cut_is_noticed(form, tmp_path):
    """A file cut anywhere is refused, or holds the first layers as they are: cut between layers it is a valid file."""
    whole = SMALL_FILES[form]
    full = read_caffe(write(tmp_path, whole))
    path, whole_layers = tmp_path / "cut", 0
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        try:
            got = read_caffe(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        whole_layers += 1
        for name, blobs in got.items():
            assert all(np.array_equal(a, b) for a, b in zip(blobs, full[name], strict=True))
        assert list(got) == list(full)[: len(got)]
    assert whole_layers == 3  # after conv, relu and fc


@pytest.mark.parametrize("form", SMALL_FILES)
def test_flipped_bits_do_no_harm(form, tmp_path):
    rng = random.Random(0)
    whole, path = SMALL_FILES[form], tmp_path / "flipped"
    for _ in range(700):
        flipped = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3))):
            flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            got = read_caffe(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        assert all(blob.dtype == np.float32 for blobs in got.values() for blob in blobs)
        assert sum(4 * blob.size for blobs in got.values() for blob in blobs) <= len(whole)


# ------------------------------------------------------------------------------------------------- names and cards

# published file: layers at full size
PUBLISHED = {
    "conv3d_deepnetA_sport1m_iter_1900000": caffe.c3d_layers(),
    "c3d_ucf101_finetune_whole_iter_20000": caffe.c3d_layers(101, suffix=""),
    "c3d_resnet18_sports1m_r2_iter_2800000.caffemodel": caffe.res3d_layers(),
    "c3d_resnet18_ucf101_r2_ft_iter_20000.caffemodel": caffe.res3d_layers(101, fc="fc8-new"),
    "p3d_resnet_kinetics.caffemodel": caffe.p3d_layers(),
    "p3d_resnet_sports1m.caffemodel": caffe.p3d_layers(487, fc="fc_sports1m"),
}
# the same with few numbers, and the files fine-tuned on UCF101, whose classifiers have other names
SMALL = {
    "C3D Sports-1M": ("c3d-sports1m", caffe.c3d_layers(5, (2,) * 5, 4)),
    "C3D UCF101": ("c3d-sports1m", caffe.c3d_layers(5, (2,) * 5, 4, suffix="")),
    "Res3D Sports-1M": ("res3d-sports1m", caffe.res3d_layers(5, (2,) * 4)),
    "Res3D UCF101": ("res3d-sports1m", caffe.res3d_layers(5, (2,) * 4, fc="fc8-new")),
    "P3D Kinetics": ("p3d199-kinetics", caffe.p3d_layers(5, 2)),
    "P3D Sports-1M": ("p3d199-sports1m", caffe.p3d_layers(5, 2, fc="fc_sports1m")),
}
ARGUMENTS = {"c3d": {"widths": (2,) * 5, "fc_width": 4}, "res3d": {"widths": (2,) * 4}, "p3d199": {"width": 2}}


def small_card(name):
    card = CHECKPOINTS[name]
    arguments = ARGUMENTS[card.architecture]
    return dataclasses.replace(
        card, classes=5, labels=None, arguments=arguments, layers={"prob": 5}, default_layer="prob"
    )


def encode(card, layers, **options):
    return caffe.net_a(layers, **options) if card.architecture == "c3d" else caffe.net_b(layers, **options)


@pytest.mark.parametrize("file", PUBLISHED)
def test_layers_are_those_of_the_published_file(file):
    """What the small files below are made from has the layers, types and shapes of the published ones at full size."""
    layers = [(name, kind, [tuple(shape) for shape in shapes]) for name, kind, shapes in PUBLISHED[file] if shapes]
    assert sorted(layers) == sorted(KEY_TABLES[file].layers)


@pytest.mark.parametrize("factor", [999.982, 0.0])
@pytest.mark.parametrize("file", SMALL)
def test_published_files_load(file, factor, tmp_path):
    name, shapes = SMALL[file]
    card, layers = small_card(name), caffe.filled(shapes, factor=factor)
    path = write(tmp_path, encode(card, layers))
    loaded = load(card, path)
    assert loaded.naming == "Caffe" and loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    got, expected = loaded.backbone.state_dict(), caffe.in_our_names(layers)
    assert got.keys() == expected.keys()
    for own, values in expected.items():
        assert got[own].dtype == torch.float32 and got[own].is_contiguous()
        # a quotient may be rounded in float32 or in float64
        np.testing.assert_allclose(got[own].numpy(), values, rtol=1.2e-7, atol=0, err_msg=own)
        if "running" not in own:
            assert np.array_equal(got[own].numpy(), values), own


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("C3D Sports-1M", {"form": "unpacked"}),
        ("C3D Sports-1M", {"v0": True, "form": "split"}),
        ("C3D UCF101", {"length": 0}),
        ("Res3D Sports-1M", {"v1": True, "form": "split"}),
        ("Res3D Sports-1M", {"double": True, "diff": True}),
    ],
)
def test_the_form_changes_nothing(file, options, tmp_path):
    name, shapes = SMALL[file]
    if "length" in options:
        shapes = [row for row in shapes if "CONV" not in row[1]]
    card, layers = small_card(name), caffe.filled(shapes)
    content = encode(card, layers, **options)
    if "length" in options:  # convolutions have a length
        convolutions = caffe.filled([row for row in SMALL[file][1] if "CONV" in row[1]])
        content, layers = content + encode(card, convolutions), layers + convolutions
    got = load(card, write(tmp_path, content)).backbone.state_dict()
    plain = load(card, write(tmp_path, encode(card, layers))).backbone.state_dict()
    assert all(torch.equal(got[own], plain[own]) for own in plain)


@pytest.mark.parametrize("file", ["C3D Sports-1M", "Res3D Sports-1M", "P3D Kinetics"])
def test_outputs_equal_those_of_the_same_weights_in_our_names(file, tmp_path):
    name, shapes = SMALL[file]
    card, layers = small_card(name), caffe.filled(shapes, factor=4.0)  # a power of two divides exactly
    torch.save(
        {own: torch.from_numpy(values) for own, values in caffe.in_our_names(layers).items()}, tmp_path / "own.pth"
    )
    ours = load(card, tmp_path / "own.pth").backbone
    theirs = load(card, write(tmp_path, encode(card, layers))).backbone
    clips = 20 * torch.rand(1, *card.clip_shape)
    asked = [ours.layer_names[0], "pool5", "prob"]
    with torch.inference_mode():
        expected, got = ours(clips, asked), theirs(clips, asked)
    for layer in asked:
        assert torch.equal(got[layer], expected[layer]) and got[layer].isfinite().all() and got[layer].any()


def changed(layers, name, blobs=None, rename=None):
    """The layers with one of them renamed, with other blobs, or (neither) left out."""
    result = []
    for row in layers:
        if row[0] != name:
            result.append(row)
        elif blobs is not None or rename:
            result.append((rename or name, row[1], row[2] if blobs is None else blobs(row[2])))
    return result


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("C3D Sports-1M", lambda x: changed(x, "fc8-1"), "(read in Caffe names): missing: fc8.weight, fc8.bias;"),
        ("C3D Sports-1M", lambda x: changed(x, "fc6-1", lambda b: b[:1]), "missing: fc6.bias;"),
        (
            "C3D Sports-1M",
            lambda x: changed(x, "fc8-1", lambda b: [b[0][..., :3], b[1]]),
            "wrong shape: fc8-1.weight (5, 3) for (5, 4);",
        ),
        (
            "C3D Sports-1M",
            lambda x: changed(x, "conv1a", rename="conv1"),
            "missing: conv1a.weight, conv1a.bias; surplus: conv1.weight, conv1.bias;",
        ),
        ("C3D Sports-1M", lambda x: [*x, ("fc8-2", "", x[-2][2])], "surplus: fc8-2.weight, fc8-2.bias;"),
        (
            "C3D Sports-1M",
            lambda x: [*x, ("odd", "", [np.ones(1, np.float32)] * 5)],
            "surplus: odd.blob0, odd.blob1, odd.blob2, … (5 in all);",
        ),
        ("C3D Sports-1M", lambda x: changed(x, "fc8-1", lambda b: [b[0] * np.nan, b[1]]), "not finite: fc8-1.weight;"),
        (
            "Res3D Sports-1M",
            lambda x: changed(x, "bn3a_branch1"),
            "missing: res3a.bn_branch1.running_mean, res3a.bn_branch1.running_var;",
        ),
        (
            "Res3D Sports-1M",
            lambda x: changed(x, "scale3a_branch1"),
            "missing: res3a.bn_branch1.weight, res3a.bn_branch1.bias;",
        ),
        (
            "Res3D Sports-1M",
            lambda x: changed(x, "bn_conv1", lambda b: [*b[:2], np.ones(2, np.float32)]),
            "surplus: bn_conv1.blob0, ",
        ),
        (
            "Res3D Sports-1M",
            lambda x: changed(x, "bn_conv1", lambda b: [*b[:2], b[2] * np.nan]),
            "not finite: bn_conv1.running_mean, bn_conv1.running_var;",
        ),
        (
            "Res3D Sports-1M",
            lambda x: changed(x, "bn_conv1", lambda b: [*b[:2], b[2] * 0 + 1e-45]),
            "not finite: bn_conv1.running_mean",
        ),
        (
            "Res3D Sports-1M",
            lambda x: changed(x, "bn_conv1", lambda b: [*b[:2], -b[2]]),
            "negative variance: bn_conv1.running_var;",
        ),
        ("P3D Kinetics", lambda x: changed(x, "bn3b1_branch2a", lambda b: b[:3]), "surplus: bn3b1_branch2a.blob0, "),
        (
            "P3D Kinetics",
            lambda x: changed(x, "res5a_branch2b", lambda b: [b[0][..., None, :, :]]),
            "wrong shape: res5a_branch2b.weight (16, 16, 1, 3, 3) for (16, 16, 3, 3);",
        ),
    ],
)
def test_what_does_not_fit_is_listed(file, change, message, tmp_path):
    name, shapes = SMALL[file]
    card = small_card(name)
    path = write(tmp_path, encode(card, change(caffe.filled(shapes))))
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        load(card, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_files_of_another_net_and_other_classes_are_refused(tmp_path):
    card, layers = small_card("res3d-sports1m"), caffe.filled(SMALL["Res3D UCF101"][1])
    path = write(tmp_path, caffe.net_b(layers))
    with pytest.raises(CheckpointError, match="do not fit c3d-sports1m"):
        load(small_card("c3d-sports1m"), path)
    with pytest.raises(CheckpointError, match=re.escape("wrong shape: fc8-new.weight (5, 2) for (6, 2), fc8-new.bias")):
        load(dataclasses.replace(card, classes=6, layers={"prob": 6}), path)


def test_damage_in_a_published_file_is_noticed(tmp_path):
    """Cut or flipped outside its values, a file loads as what it was or not at all."""
    card, layers = small_card("c3d-sports1m"), caffe.filled(SMALL["C3D Sports-1M"][1])
    whole = caffe.net_a(layers)
    expected = load(card, write(tmp_path, whole)).backbone.state_dict()
    is_value = np.zeros(len(whole), bool)
    for blob in (blob for _, _, blobs in layers for blob in blobs):
        begin = whole.index(blob.tobytes())
        is_value[begin : begin + blob.nbytes] = True
    others = np.flatnonzero(~is_value)
    rng, path, num_refused = random.Random(1), tmp_path / "damaged", 0
    for i in range(400):
        damaged = bytearray(whole)
        if i % 4:
            damaged[rng.choice(others)] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(1, len(whole)) :]
        path.write_bytes(damaged)
        try:
            state = load(card, path).backbone.state_dict()
        except CheckpointError as error:
            assert "\n" not in str(error)
            num_refused += 1
            continue
        assert all(torch.equal(state[own], expected[own]) for own in expected), i
    assert num_refused > 200


@pytest.mark.long
@pytest.mark.parametrize("file", PUBLISHED)
def test_full_size(file, tmp_path):
    card, layers = CHECKPOINTS[KEY_TABLES[file].card], caffe.filled(PUBLISHED[file])
    path = write(tmp_path, encode(card, layers))
    state = load(card, path).backbone.state_dict()
    for own, values in caffe.in_our_names(layers).items():
        np.testing.assert_allclose(state[own].numpy(), values, rtol=1.2e-7, atol=0, err_msg=own)
    path.unlink()


def test_paths_that_cannot_be_read(tmp_path):
    for path, reason in [(tmp_path, "Is a directory"), (tmp_path / "absent", "No such file or directory")]:
        for read in (read_caffe, read_mean_cube):
            with pytest.raises(CheckpointError, match=rf"cannot be read \({reason}\)"):
                read(path)
