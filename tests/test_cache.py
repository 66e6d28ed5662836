"""The cache folder: where it is, what lies in it, what happens to damage, and that features do not tell it from the file."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import sys

import numpy as np
import pytest
import torch
from conftest import write_noise_video
from small_weights import cards, save_port, trained_state  # noqa: F401  (cards is a fixture)

import featx
from featx.checkpoints import cache, load, with_chosen_mean
from featx.checkpoints.acquire import add
from featx.checkpoints.safetensors import read_safetensors
from featx.errors import CheckpointError, ProvenanceError, UsageError
from featx.extractor import Extractor


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def stored(home, cards, tmp_path):  # noqa: F811
    """(card, published file, record) of a small C3D in the names of a port, stored."""
    card = cards["c3d-small"]
    path = save_port(card, trained_state(card), tmp_path / "c3d.pickle", "DavideA's port")
    return card, path, add(card, path)[0]


# ------------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"FEATX_HOME": "/data/featx", "XDG_CACHE_HOME": "/xdg"}, "/data/featx"),
        ("linux", {"FEATX_HOME": "~/weights"}, "/home/me/weights"),
        ("linux", {"FEATX_HOME": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/featx"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/featx"),
        ("linux", {}, "/home/me/.cache/featx"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/me/Library/Caches/featx"),
        ("darwin", {"FEATX_HOME": "/data"}, "/data"),
    ],
)
def test_where_the_folder_is(platform, environment, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("FEATX_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(name, value)
    assert str(cache.cache_folder()) == expected


def test_where_nobodys_home_is_known_the_remedy_is_said(monkeypatch):
    monkeypatch.setenv("FEATX_HOME", "~nobody-of-this-name/x")
    with pytest.raises(UsageError, match="Could not determine home directory, .*; set FEATX_HOME to a folder"):
        cache.cache_folder()


def test_no_test_sees_the_users_cache():
    assert not (cache.cache_folder() / "weights").exists()


def test_what_is_stored(stored, home):
    card, path, record = stored
    assert cache.find(card) == record.path and cache.read_record(card.name) == record
    assert sorted(p.name for p in (home / "weights").iterdir()) == [record.file, "c3d-small.json"]
    assert record.file == f"c3d-small.{sha256(record.path)[:8]}.safetensors" and record.sha256 == sha256(record.path)
    origin = record.origin
    assert (origin.file, origin.sha256, origin.num_bytes) == ("c3d.pickle", sha256(path), path.stat().st_size)
    assert (origin.form, origin.naming, origin.url) == ("torch", "DavideA's port", "")
    tensors = read_safetensors(record.path)
    state = trained_state(card)
    assert tensors.keys() == state.keys() and all(torch.equal(tensors[name], state[name]) for name in state)
    header = record.path.read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert metadata["origin_sha256"] == sha256(path) and metadata["card"] == "c3d-small"


def test_nothing_is_stored_of_what_is_not_there(home, cards):  # noqa: F811
    assert cache.find(cards["c3d-small"]) is None and cache.read_record("c3d-small") is None
    assert not home.exists()


def test_cached_weights_are_the_files(stored):
    card, path, _ = stored
    cached, given = load(card), load(card, path)
    assert cached.sha256 == given.sha256 == sha256(path)
    for name, tensor in given.backbone.state_dict().items():
        assert torch.equal(cached.backbone.state_dict()[name], tensor)


def test_weights_without_a_classifier(home, cards, tmp_path):  # noqa: F811
    card = cards["c3d-small"]
    state = {name: tensor for name, tensor in trained_state(card).items() if not name.startswith("fc8")}
    add(card, save_port(card, state, tmp_path / "mm.pth", "mmaction2's port"))
    assert load(card).backbone.layer_names[-1] == "fc7"


def test_storing_again_replaces(stored, home, tmp_path):
    card, _, first = stored
    path = save_port(card, trained_state(card, seed=1), tmp_path / "other.pth", "jfzhang95's port")
    second = add(card, path)[0]
    assert second.file != first.file and load(card).sha256 == sha256(path)
    assert sorted(p.name for p in (home / "weights").iterdir()) == [second.file, "c3d-small.json"]
    third = add(card, path)[0]
    assert dataclasses.replace(third.origin, added="") == dataclasses.replace(second.origin, added="")
    assert third.sha256 == second.sha256


# ------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("place", [20, -3])
def test_a_flipped_bit_is_noticed(place, stored):
    card, path, record = stored
    content = bytearray(record.path.read_bytes())
    content[place] ^= 1
    record.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged; store it again with 'featx weights add c3d-small FILE', or"):
        load(card)
    assert load(card, path).sha256 == sha256(path)
    add(card, path)
    assert load(card).sha256 == sha256(path)


def test_a_lost_file_is_noticed(stored):
    card, _, record = stored
    record.path.unlink()
    assert cache.find(card) is None
    with pytest.raises(CheckpointError, match="is gone; store it again"):
        load(card)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"card": "c3d-small"', '"card": "c3d-other"'),
        lambda text: text.replace('"file": "c3d-small', '"file": "../c3d-small'),
        lambda text: text.replace('"origin"', '"orgin"'),
        lambda text: text.replace('"naming"', '"nameing"'),
    ],
)
def test_a_damaged_record(change, stored, home):
    card, path, _ = stored
    record = home / "weights" / "c3d-small.json"
    record.write_text(change(record.read_text()))
    with pytest.raises(
        CheckpointError,
        match=r"c3d-small.json is damaged, or .*; store the weights again with 'featx weights add c3d-small FILE'$",
    ):
        load(card)
    add(card, path)
    assert load(card).sha256 == sha256(path)


def test_a_crash_while_storing_leaves_what_was_there(stored, home, tmp_path, monkeypatch):
    card, path, record = stored
    other = save_port(card, trained_state(card, seed=1), tmp_path / "other.pth", "jfzhang95's port")
    replace, num_calls = cache.os.replace, []

    def crash_at_the_record(source, target):
        num_calls.append(target)
        if str(target).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(cache.os, "replace", crash_at_the_record)
    with pytest.raises(KeyboardInterrupt):
        add(card, other)
    monkeypatch.undo()
    monkeypatch.setenv("FEATX_HOME", str(home))
    assert num_calls and cache.read_record(card.name) == record and load(card).sha256 == sha256(path)
    assert not [p for p in (home / "weights").iterdir() if p.name.startswith(".")]


def test_one_process_stores_at_a_time(stored, home, tmp_path, monkeypatch):
    """While one stores, another's lock is refused; when it is done, or has failed, the lock is free again."""
    card, path, _ = stored
    inner, seen = cache._store, []

    def lock_is_free():
        handle = os.open(home / "weights", os.O_RDONLY)  # as another process opens it: locks belong to what is opened
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which an exclusive one refuses too
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(handle)

    def watched(*args):
        seen.append(lock_is_free())
        record = inner(*args)
        seen.append(lock_is_free())
        if len(seen) > 2:
            raise OSError(28, "No space left on device")
        return record

    monkeypatch.setattr(cache, "_store", watched)
    assert lock_is_free()
    add(card, path)
    assert seen == [False, False] and lock_is_free()
    with pytest.raises(CheckpointError, match="No space left"):
        add(card, path)
    assert seen == [False] * 4 and lock_is_free()


def test_a_folder_that_cannot_be_written(cards, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "file"))
    card = cards["c3d-small"]
    path = save_port(card, trained_state(card), tmp_path / "c3d.pickle", "DavideA's port")
    with pytest.raises(CheckpointError, match=r"cannot be written .*set \$FEATX_HOME to another folder"):
        add(card, path)
    with pytest.raises(CheckpointError, match=r"cannot be read .*check \$FEATX_HOME"):
        load(card)


# ------------------------------------------------------------------------------------------------- features and mean cubes


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_noise_video(tmp_path_factory.mktemp("cache") / "a.mp4", 20, size=(96, 128))


@pytest.fixture
def cube(tmp_path):
    path = tmp_path / "sport1m_mean.npy"
    np.save(path, np.random.default_rng(0).uniform(90, 110, (1, 3, 16, 128, 171)).astype(np.float32))
    return path


def test_one_file_given_and_stored_makes_one_feature_file(stored, video, tmp_path):
    card, path, _ = stored
    (tmp_path / "b").mkdir()
    other = (tmp_path / "b" / "b.mp4").resolve()
    other.write_bytes(video.read_bytes())
    featx.extract_to(video, tmp_path / "one.h5", card.name)
    featx.extract_to(other, tmp_path / "two.h5", card.name, weights=path)
    assert featx.merge([tmp_path / "one.h5", tmp_path / "two.h5"], tmp_path / "all.h5") == 2
    with featx.open(tmp_path / "all.h5") as features:
        assert features.provenance.checkpoint_sha256 == sha256(path)
        assert np.array_equal(features["a"].descriptors["prob"], features["b"].descriptors["prob"])


def test_a_stored_cube_is_used_as_one_that_is_given(stored, cube, video, tmp_path):
    card, path, _ = stored
    plain = featx.extract(video, card.name)
    record = add(card, path, cube)[0]
    assert (record.mean.origin.file, record.mean.origin.sha256) == (cube.name, sha256(cube))
    stored_cube = Extractor(card.name)
    given = Extractor(card.name, weights=path, mean=cube)
    assert stored_cube.provenance == given.provenance and stored_cube.provenance.mean_cube_sha256
    one, two = featx.extract(video, card.name), featx.extract(video, card.name, weights=path, mean=cube)
    assert np.array_equal(one.descriptors["prob"], two.descriptors["prob"])
    assert not np.array_equal(one.descriptors["prob"], plain.descriptors["prob"])
    # also with the weights named; and the constants on request
    assert Extractor(card.name, weights=path).provenance == given.provenance
    constant = featx.extract(video, card.name, mean="card")
    assert np.array_equal(constant.descriptors["prob"], plain.descriptors["prob"])


def test_a_run_does_not_go_on_with_another_mean(stored, cube, video, tmp_path):
    card, path, _ = stored
    featx.extract_to(video, tmp_path / "f.h5", card.name)
    add(card, path, cube)
    with pytest.raises(ProvenanceError, match="mean_cube_sha256 is ''"):
        featx.extract_to(video, tmp_path / "f.h5", card.name)
    assert featx.extract_to(video, tmp_path / "f.h5", card.name, mean="card").num_present == 1


def test_a_cube_stays_when_weights_are_stored_again(stored, cube, tmp_path):
    card, path, _ = stored
    mean = add(card, path, cube)[0].mean
    other = save_port(card, trained_state(card, seed=1), tmp_path / "other.pth", "jfzhang95's port")
    assert add(card, other)[0].mean == mean == cache.read_record(card.name).mean


def test_a_damaged_cube_is_noticed(stored, cube):
    card, path, _ = stored
    record = add(card, path, cube)[0]
    file = record.path.with_name(record.mean.file)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    for weights in (None, path):
        with pytest.raises(
            CheckpointError,
            match=r"\.npy is damaged; store it again with 'featx weights add c3d-small FILE --mean CUBE', or",
        ):
            Extractor(card.name, weights=weights)
    Extractor(card.name, mean="card").close()
    for damage in (lambda: None, file.unlink):  # what was stored is not dropped in silence
        damage()
        with pytest.raises(
            CheckpointError, match="mean cube that was stored for c3d-small is damaged.* --mean CUBE, or"
        ):
            add(card, path)
    assert cache.read_record(card.name) == record
    assert add(card, path, cube)[0].mean.sha256 == record.mean.sha256
    card_file = record.path.with_name("c3d-small.json")
    card_file.write_text("{")
    with pytest.raises(
        CheckpointError, match="store the weights again with 'featx weights add c3d-small FILE --mean CUBE'"
    ):
        load(card)
    with pytest.raises(CheckpointError, match="--mean CUBE, or delete .*c3d-small.json to do without it"):
        add(card, path)
    card_file.unlink()
    assert add(card, path)[0].mean is None and not list(card_file.parent.glob("*.npy"))


def test_weights_and_cube_that_are_stored_anew_while_they_are_read(stored, cube, tmp_path, monkeypatch):
    """A reader has the record, and another process then drops the files that it names."""
    card, path, _ = stored
    add(card, path, cube)
    other = save_port(card, trained_state(card, seed=1), tmp_path / "other.pth", "jfzhang95's port")
    np.save(tmp_path / "cube2.npy", np.full((3, 16, 128, 171), 101, np.float32))
    real, records = cache.read_record, [cache.read_record(card.name)] * 2
    add(card, other, tmp_path / "cube2.npy")
    for module in ("featx.checkpoints", "featx.checkpoints.mean_cube"):
        monkeypatch.setattr(f"{module}.read_record", lambda name: records.pop() if len(records) > left else real(name))
    left = 1
    assert load(card).sha256 == sha256(other)
    left = 0
    assert with_chosen_mean(card, None, 16).preprocess.mean_cube.max() == 101
    assert not records


def test_a_full_disk_leaves_nothing_behind(stored, home, monkeypatch):
    card, path, record = stored
    add(card, path)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featx.checkpoints.safetensors.os.replace", full)
    with pytest.raises(CheckpointError, match="No space left"):
        add(card, path)
    assert sorted(p.name for p in (home / "weights").iterdir()) == [record.file, "c3d-small.json"]


def test_a_stored_cube_and_clips_of_another_length(stored, cube):
    card, path, _ = stored
    add(card, path, cube)
    with pytest.raises(UsageError, match="holds 16 frames, but a clip has 8; leave --length out, .*, or --mean card"):
        Extractor(card.name, layers="pool5", length=8)


def test_cubes_that_do_not_belong_to_the_card_are_not_stored(stored, cards, tmp_path):  # noqa: F811
    card, path, record = stored
    np.save(tmp_path / "small.npy", np.ones((3, 16, 112, 112), np.float32))
    with pytest.raises(UsageError, match="holds frames of 112x112, but c3d-small resizes to 128x171"):
        add(card, path, tmp_path / "small.npy")
    assert cache.read_record(card.name) == record


def test_embedded_weights_are_not_stored(home, tmp_path):
    with pytest.raises(UsageError, match="res3d-mini is embedded in featx, so nothing is stored for it"):
        add(featx.catalog.get_checkpoint("res3d-mini"), tmp_path / "x")


def test_what_a_killed_run_left_is_removed(stored, home):
    card, path, record = stored
    for name in (f".{card.name}.123", f".{card.name}.123.tmp", f"{card.name}.00000000.safetensors"):
        (home / "weights" / name).write_bytes(b"half")
    add(card, path)
    assert sorted(p.name for p in (home / "weights").iterdir()) == sorted([f"{card.name}.json", record.file])
