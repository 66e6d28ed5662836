"""A mean cube in place of a card's constant mean: from the file through the features to what is recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re

import caffe_encoder as caffe
import numpy as np
import pytest
import torch
from conftest import write_noise_video

import featx
from featx.catalog import CHECKPOINTS
from featx.checkpoints import load, with_mean_cube
from featx.checkpoints.caffe import read_mean_cube
from featx.checkpoints.describe import describe
from featx.checkpoints.mean_cube import mean_note
from featx.cli import main
from featx.errors import CheckpointError, ProvenanceError, UsageError
from featx.extractor import Extractor


def cube_of(*shape, seed=0):
    return np.random.default_rng(seed).uniform(90, 110, shape).astype(np.float32)


def write(tmp_path, content):
    path = tmp_path / "mean"
    path.write_bytes(content)
    return path


def save_cube(path, cube):
    """In the form of the suffix, with the leading one that the published file has."""
    if path.suffix == ".npy":
        np.save(path, cube)
    else:
        path.write_bytes(caffe.blob_a(cube[None]))
    return path


def test_the_published_cubes_size_and_the_cards_use_of_it(tmp_path):
    cube = cube_of(3, 16, 128, 171)
    path = save_cube(tmp_path / "sport1m_train16_128_mean.binaryproto", cube)
    assert path.stat().st_size == 4_202_513  # that of the published file
    assert np.array_equal(read_mean_cube(path), cube)
    card = with_mean_cube(CHECKPOINTS["c3d-sports1m"], path, 16)
    clip = np.random.default_rng(1).integers(0, 256, (16, 128, 171, 3), dtype=np.uint8)
    got = card.preprocess.normalise(card.preprocess.crop_frames(torch.from_numpy(clip))[None])[0].numpy()
    by_hand = (clip.transpose(3, 0, 1, 2).astype(np.float32) - cube)[
        :, :, 8:120, 29:141
    ]  # (T, h, w, 3) -> (3, T, h, w)
    assert np.array_equal(got, by_hand)


@pytest.mark.parametrize("form", ["packed", "split", "unpacked"])
def test_forms_of_a_cube(form, tmp_path):
    cube = cube_of(3, 2, 5, 7)
    for content in (
        caffe.blob_a(cube[None], form),
        caffe.blob_b(cube[None], form),
        caffe.blob_b(cube, form, double=True),
    ):
        assert np.array_equal(read_mean_cube(write(tmp_path, content)), cube)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_noise_video(tmp_path_factory.mktemp("mean") / "a.mp4", 20, size=(96, 128))


def test_the_cube_takes_the_place_of_the_constants(video, tmp_path):
    constant = np.broadcast_to(np.float32(128), (3, 8, 128, 171))
    plain = featx.extract(video, save="both").clips["pool5"]
    for name, cube in [("a.binaryproto", constant), ("a.npy", constant), ("b.npy", constant[None].astype(np.float64))]:
        path = save_cube(tmp_path / name, cube)
        assert np.array_equal(featx.extract(video, save="both", mean=path).clips["pool5"], plain)
    cube = cube_of(3, 8, 128, 171)
    with Extractor(mean=save_cube(tmp_path / "c.npy", cube), save="both") as extractor:
        got = extractor.extract(video).clips["pool5"]
        assert extractor.provenance.mean_cube_sha256 == hashlib.sha256(cube.tobytes()).hexdigest()
    assert got.shape == plain.shape and not np.allclose(got, plain, rtol=1e-3)


def test_a_run_goes_on_with_the_same_cube_only(video, tmp_path, capsys):
    paths = [save_cube(tmp_path / f"{seed}.binaryproto", cube_of(3, 8, 128, 171, seed=seed)) for seed in (0, 1)]
    output = tmp_path / "f.h5"

    def run(*more):
        with pytest.raises(SystemExit) as exit:
            main(["extract", str(video), "-o", str(output), *map(str, more)])
        return exit.value.code, capsys.readouterr()

    assert run("--mean", paths[0])[0] == 0
    with featx.open(output) as features:
        assert features.provenance.mean_cube_sha256 == hashlib.sha256(read_mean_cube(paths[0]).tobytes()).hexdigest()
        alone = featx.extract(video, mean=paths[0])
        assert np.array_equal(features["a"].descriptors["pool5"], alone.descriptors["pool5"])
    code, captured = run("--mean", paths[0])
    assert code == 0 and "holds 1 of 1 videos" in captured.out
    for more in ((), ("--mean", paths[1])):
        code, captured = run(*more)
        assert code == 2 and "mean_cube_sha256 is" in captured.err
    with pytest.raises(ProvenanceError, match="mean_cube_sha256"):
        featx.extract_to(video, output)
    assert run("--mean", paths[0], "--dry-run")[0] == 0


HUGE_NPY = (
    b"\x93NUMPY\x01\x00\x4c\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 9, 9, 99999999999)}".ljust(76)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"nonsense", "cannot be read as a Caffe mean cube file: at byte 0 field 13 is of wire type 6"),
        (caffe.blob_a(cube_of(1, 3, 1, 2, 2))[:-1], "bytes, but"),
        (caffe.blob_a(cube_of(3, 2, 2)), "a blob of shape (1, 1, 3, 2, 2) begins, but must be (1, 3, T, h, w)"),
        (caffe.blob_b(cube_of(1, 3, 8, 9), legacy=True), "a blob of shape (1, 3, 8, 9) begins"),
        (caffe.net_b(caffe.filled([("fc", "InnerProduct", [(3, 4)])])), "begins, but must be (1, 3, T, h, w)"),
        (caffe.blob_a(cube_of(1, 3, 1, 2, 2) * np.nan), "values that are not finite"),
        (b"\x93NUMPY\x01\x00", "is no intact .npy file ("),
        (HUGE_NPY, "is no intact .npy file ("),
    ],
)  # fmt: skip
def test_files_that_are_no_cube(content, message, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        Extractor(mean=path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "options", "error", "message"),
    [
        (cube_of(3, 16, 128, 171), {}, UsageError, "holds 16 frames, but a clip has 8; leave --length out"),
        (cube_of(3, 8, 128, 171), {"length": 16}, UsageError, "holds 8 frames, but a clip has 16"),
        (cube_of(3, 8, 112, 112), {}, UsageError, "holds frames of 112x112, but res3d-mini resizes to 128x171"),
        (cube_of(3, 128, 171), {}, CheckpointError, "an array of shape (3, 128, 171), but must be (3, T, h, w)"),
        (cube_of(8, 3, 4, 5), {}, CheckpointError, "an array of shape (8, 3, 4, 5), but must be (3, T, h, w)"),
        (np.full((3, 8, 128, 171), "x"), {}, CheckpointError, "holds <U1, but must hold numbers"),
        (np.full((3, 8, 128, 171), None), {}, CheckpointError, "is no intact .npy file"),
        (np.full((3, 8, 128, 171), np.inf), {}, CheckpointError, "not finite"),
        (
            cube_of(3, 8, 128, 171) / 255,
            {},
            CheckpointError,
            "is on average 0.4, 0.4, 0.4 (B, G, R), but the constants of",
        ),
        (np.zeros((3, 8, 128, 171)), {}, CheckpointError, "which is too far for a mean in grey levels of BGR"),
        (cube_of(3, 8, 128, 171) * 1e4, {}, CheckpointError, "but grey levels are 0 to 255; take the cube"),
        (cube_of(3, 8, 128, 171) - 1000, {}, CheckpointError, "holds values from -9"),
    ],
)
def test_cubes_that_do_not_fit(array, options, error, message, tmp_path):
    np.save(tmp_path / "mean.npy", array, allow_pickle=True)
    with pytest.raises(error, match=re.escape(message)):
        Extractor(mean=tmp_path / "mean.npy", **options)


def test_cards_that_take_no_cube(tmp_path):
    path = save_cube(tmp_path / "mean.npy", cube_of(3, 16, 182, 242))
    card = CHECKPOINTS["p3d199-kinetics"]
    assert with_mean_cube(card, path, 16).preprocess.mean_cube.shape == (3, 16, 182, 242)
    with pytest.raises(UsageError, match="p3d199-kinetics port subtracts no mean in grey levels of BGR"):
        with_mean_cube(card.with_variant("port"), path, 16)
    plain = dataclasses.replace(card, preprocess=dataclasses.replace(card.preprocess, mean=(0, 0, 0)))
    with pytest.raises(UsageError, match="p3d199-kinetics subtracts no mean"):
        with_mean_cube(plain, path, 16)
    with pytest.raises(CheckpointError, match=r"mean file 'absent' cannot be read \(No such file"):
        with_mean_cube(card, "absent", 16)


SPORTS1M, UCF101 = (100.2, 108.9, 107.5), (90.25, 97.66, 101.41)  # averages of the published cubes, to a level


@pytest.mark.parametrize(
    ("name", "averages", "odd"),
    [
        ("c3d-sports1m", SPORTS1M, False),
        ("c3d-ucf101", UCF101, False),
        ("c3d-sports1m", UCF101, True),
        ("c3d-ucf101", SPORTS1M, True),
        ("c3d-sports1m", SPORTS1M[::-1], True),  # red and blue exchanged
    ],
)
def test_a_cube_of_other_videos_is_told(name, averages, odd, tmp_path):
    card = CHECKPOINTS[name]
    values = np.array(averages, np.float32)[:, None, None, None]
    path = save_cube(tmp_path / "mean.npy", np.broadcast_to(values, (3, 16, 128, 171)))
    note = mean_note(card, path)
    assert with_mean_cube(card, path, 16).preprocess.mean_cube is not None
    words = ", ".join(f"{value:.1f}" for value in averages)
    assert (
        note.startswith(f"it is on average {words} (B, G, R), but the constants of {name} are ") if odd else note == ""
    )
    assert describe(card, mean=path).endswith(f"mean cube {path}" + f" ({note})" * odd)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "mean")
    with pytest.raises(CheckpointError, match="is a pipe or a device; name the file that holds the cube"):
        with_mean_cube(CHECKPOINTS["c3d-sports1m"], tmp_path / "mean", 16)


def test_a_cube_in_place_of_weights(tmp_path):
    path = save_cube(tmp_path / "mean.binaryproto", cube_of(3, 1, 2, 2))
    with pytest.raises(CheckpointError, match="look like a mean cube; give it with --mean"):
        load(CHECKPOINTS["c3d-sports1m"], path)
