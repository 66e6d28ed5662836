"""Whether a file is the card's own: names and hashes that are published, and what featx's stored files tell of themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from small_weights import cards, save_port, trained_state  # noqa: F401  (cards is a fixture)
from test_cli import run

from featx.catalog import CHECKPOINTS, WEIGHTS_FOLDER, Source, read_card_file
from featx.checkpoints import cache, load
from featx.checkpoints.acquire import add
from featx.checkpoints.compare import compare
from featx.checkpoints.describe import describe
from featx.checkpoints.safetensors import read_safetensors, write_safetensors
from featx.errors import CheckpointError


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def twins(home, cards, tmp_path):  # noqa: F811
    """(c3d-small, c3d-64f, a file of the one): two cards whose tensors have the same names and shapes."""
    card = cards["c3d-small"]
    cards["c3d-64f"] = dataclasses.replace(
        card, name="c3d-64f", file="c3d-64f.pth", source=(Source("https://host/64f"),)
    )
    return card, cards["c3d-64f"], save_port(card, trained_state(card), tmp_path / "c3d.pickle", "DavideA's port")


def test_weights_with_the_name_of_another_cards_file_are_not_run(twins, clips_folder, tmp_path, capsys):
    card, other, path = twins
    path = path.rename(tmp_path / "c3d-64f.pth")
    with pytest.raises(
        CheckpointError, match="has the name of the file of c3d-64f, not of c3d-small; take it for that"
    ):
        load(card, path)
    assert load(other, path).sha256 == sha256(path)
    code, _, err = run(capsys, "extract", clips_folder / "dog/001.avi", "-o", tmp_path / "f.h5",
                       "--backbone", card.name, "--weights", path)  # fmt: skip
    assert code == 2 and "has the name of the file of c3d-64f" in err and not (tmp_path / "f.h5").exists()
    assert compare(card, path, path).is_equal  # which is of values alone
    assert load(card, path.rename(tmp_path / "mine.pth")).sha256 == sha256(tmp_path / "mine.pth")


@pytest.mark.parametrize("hashes", [{"sha256_prefix": "a90a0ba3"}, {"sha1": "0" * 40}])
def test_weights_with_a_published_name_and_another_hash_are_not_run(hashes, twins, tmp_path):
    card, _, path = twins
    source = Source("https://host/x", "c3d.pickle", **hashes)
    with pytest.raises(CheckpointError, match=r"SHA-.* as published for c3d.pickle; get it again, or rename it"):
        load(dataclasses.replace(card, source=(source,)), path)
    right = Source("https://host/y", "c3d.pickle", sha256_prefix=sha256(path)[:8])
    assert load(dataclasses.replace(card, source=(source, right)), path)
    assert load(dataclasses.replace(card, source=(source,)), path.rename(tmp_path / "retrained.pth"))


def test_a_card_of_ones_own_may_name_a_published_file(tmp_path):
    mini = json.loads((WEIGHTS_FOLDER / "res3d-mini.json").read_text())
    card = tmp_path / "mine.json"
    card.write_text(json.dumps(mini | {"name": "res3d-mine", "embedded": False}))
    (tmp_path / mini["file"]).symlink_to(WEIGHTS_FOLDER / mini["file"])
    mine = read_card_file(card)
    assert load(mine).sha256 == load(mine, tmp_path / mini["file"]).sha256 == CHECKPOINTS["res3d-mini"].sha256
    assert "which are not those" not in describe(mine, tmp_path / mini["file"])
    write_safetensors(tmp_path / "retrained", read_safetensors(tmp_path / mini["file"]), {"by": "me"})
    assert load(mine, tmp_path / "retrained").sha256 == sha256(tmp_path / "retrained")
    assert "retrained, which are not those whose SHA-256 the card has" in describe(mine, tmp_path / "retrained")


def test_the_file_of_ones_own_card_has_the_hash_that_its_source_has(tmp_path):
    """Whether the card names it, or the command."""
    mini = json.loads((WEIGHTS_FOLDER / "res3d-mini.json").read_text())
    del mini["sha256"]
    source = [{"url": "https://host/w", "file": mini["file"], "sha256_prefix": "a90a0ba3"}]
    (tmp_path / "mine.json").write_text(json.dumps(mini | {"name": "res3d-mine", "embedded": False, "source": source}))
    (tmp_path / mini["file"]).symlink_to(WEIGHTS_FOLDER / mini["file"])
    mine = read_card_file(tmp_path / "mine.json")
    for weights in (None, tmp_path / mini["file"]):
        with pytest.raises(CheckpointError, match="does not begin with a90a0ba3"):
            load(mine, weights)


# ------------------------------------------------------------------------------------------------- files that featx stored


def test_stored_weights_are_another_cards_under_any_name(twins, tmp_path, capsys):
    card, other, path = twins
    stored = add(card, path)[0].path
    (tmp_path / "any.safetensors").write_bytes(stored.read_bytes())
    for file in (stored, tmp_path / "any.safetensors"):
        for take in (load, add):
            with pytest.raises(CheckpointError, match="are those of c3d-small, as featx stores them, not of c3d-64f"):
                take(other, file)
    assert cache.read_record(other.name) is None
    other_path = path.rename(tmp_path / "c3d-64f.pth")
    stored = add(other, other_path)[0].path
    assert run(capsys, "weights", "verify", stored)[1].startswith("c3d-64f, ")


def test_stored_weights_keep_their_origin(twins, tmp_path, monkeypatch):
    card, _, path = twins
    first = add(card, path, url="https://host/c3d.pickle")[0]
    assert load(card, first.path).sha256 == load(card).sha256 == sha256(path)
    second = add(card, first.path)[0]
    assert dataclasses.replace(second.origin, added=first.origin.added) == first.origin and second.file == first.file
    copy = tmp_path / first.file  # on another machine
    copy.write_bytes(first.path.read_bytes())
    (tmp_path / "renamed").write_bytes(first.path.read_bytes())
    assert load(card, tmp_path / "renamed").sha256 == sha256(path)  # here the record tells
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "elsewhere"))
    assert load(card, tmp_path / "renamed").sha256 == sha256(copy)  # where nothing does, it may be anything
    assert add(card, copy)[0].origin.sha256 == sha256(path) == load(card).sha256
    data = bytearray(copy.read_bytes())
    data[-3] ^= 1
    copy.write_bytes(data)
    with pytest.raises(CheckpointError, match="are damaged: their SHA-256 begins with"):
        load(card, copy)


@pytest.mark.parametrize("metadata", [{"card": "c3d-small"}, {"format": "pt"}, {}])
def test_metadata_of_other_programs(metadata, twins, tmp_path):
    card, other, _ = twins
    write_safetensors(tmp_path / "w", trained_state(card), metadata)
    assert load(other, tmp_path / "w").origin is None
