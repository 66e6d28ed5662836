"""Reading a file's own description without the HDF5 library tells exactly what the library tells, or nothing."""

from dataclasses import fields
from functools import partial

import h5py
import numpy as np
import pytest
from feature_files import make_provenance, write_file

import featx
from featx import store
from featx.errors import FeatureFileError
from featx.features import Features
from featx.store import member as member_module
from featx.store.handles import Handles
from featx.store.member import Member, _examine_plain

RNG = np.random.default_rng(0)


def rows(keys, num_dims=4):
    return {key: RNG.standard_normal(num_dims).astype(np.float32) for key in keys}


def clips(keys, num_dims=4):
    return {key: RNG.standard_normal((1 + i % 4, num_dims)).astype(np.float32) for i, key in enumerate(keys)}


def binned(path):
    videos = [
        Features(
            *(key, f"/videos/{key}", 30, 2, 25.0, 1.2),
            descriptors={"fc6": np.ones(3, np.float32)},
            bins={"fc6": np.ones((4, 3), np.float32)},
        )
        for key in "ab"
    ]
    store.write_features(path, make_provenance(bins=4, aggregate="bins"), videos)


KEYS = ["a", "b/c", "ä/日本 1", "z" * 300]
FILES = {
    "descriptors": lambda path: write_file(path, {"fc6": rows(KEYS)}),
    "two layers": lambda path: write_file(path, {"fc6": rows(KEYS), "fc7 + x": rows(KEYS, 9)}),
    "clips": lambda path: write_file(path, {"fc6": rows(KEYS)}, clips={"fc6": clips(KEYS)}, save="clips"),
    "both": lambda path: write_file(path, {"fc6": rows(KEYS)}, clips={"fc6": clips(KEYS)}),
    "failures": lambda path: write_file(path, {"fc6": rows("k")}, failures=[("é", "why\nnot"), ("x", "")]),
    "nothing but failures": lambda path: write_file(path, {"fc6": {}}, failures=[("x", "gone")]),
    "many": lambda path: write_file(path, {"fc6": rows([f"video {i:05d}" for i in range(3000)], 1)}),
    "shard, views, no mean": lambda path: write_file(path, {"fc6": rows("k")}, shard="2-3/7", crops=3, mean=(), std=()),
    "bins": binned,
}


def both(path):
    """What the two readers tell of a file; None for one that refuses it."""
    told = []
    for examine in (_examine_plain, lambda path: Member.open(path).record):
        try:
            record = examine(path)
        except FeatureFileError:
            record = None
        told.append(record and plain_of(record))
    return told


def plain_of(record):
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return values | {"keys": record.keys.tolist(), "tables": dict(record.tables), "provenance": repr(record.provenance)}


@pytest.mark.parametrize("name", FILES)
def test_both_readers_tell_the_same(tmp_path, name):
    FILES[name](tmp_path / "f.h5")
    ours, hdf5 = both(tmp_path / "f.h5")
    assert ours == hdf5 and ours is not None


def compacted(path):
    write_file(path, {"fc6": rows([f"v{i}" for i in range(9)])})
    featx.pca(path, path.with_name("p.h5"), dims=2)
    path.with_name("p.h5").rename(path)


def changed(path, change):
    write_file(path, {"fc6": rows("abc")}, failures=[("x", "gone")])
    with h5py.File(path, "r+") as h5:
        change(h5)


def chunked(h5):
    del h5["videos/fps"]
    h5.create_dataset("videos/fps", data=np.ones(3), chunks=(3,))


def linked(h5):
    del h5["videos/fps"]
    h5["videos/fps"] = h5py.SoftLink("/videos/duration_seconds")


OTHERS = {
    "after PCA": compacted,
    "of a newer layout": lambda path: h5py.File(path, "w", libver="latest").close(),
    "no HDF5": lambda path: path.write_bytes(b"x" * 5000),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: path.mkdir(),
    "absent": lambda path: None,
    "chunks": partial(changed, change=chunked),
    "a link": partial(changed, change=linked),
    "two names": partial(changed, change=lambda h5: h5.__setitem__("videos/again", h5["videos/fps"])),
    "an attribute of text of one length": partial(
        changed, change=lambda h5: h5.attrs.__setitem__("note", np.bytes_("x"))
    ),
    "another type": partial(changed, change=lambda h5: h5.__setitem__("videos/more", np.ones(3, np.int16))),
    "an attribute of many values": partial(
        changed, change=lambda h5: h5["videos"].attrs.__setitem__("more", np.arange(2000))
    ),
    "another format": partial(changed, change=lambda h5: h5.attrs.__setitem__("format", "mine")),
    "a table that is missing": partial(changed, change=lambda h5: h5.__delitem__("videos/fps")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_file_is_left_to_hdf5(tmp_path, name):
    OTHERS[name](tmp_path / "f.h5")
    assert _examine_plain(tmp_path / "f.h5") is None


def test_a_folder_of_many_is_opened_without_hdf5(tmp_path, monkeypatch):
    path = FILES["both"](tmp_path / "f.h5")
    monkeypatch.setattr(member_module, "_open_pair", None)
    assert Member.open(path, Handles()).num_videos == 4
    with pytest.raises(TypeError):
        Member.open(path)


@pytest.mark.parametrize("name", ["both", "failures"])
def test_a_flipped_bit_is_told_alike_or_left_to_hdf5(tmp_path, name):
    """Where this reader takes a damaged file, it tells what HDF5 tells."""
    path = FILES[name](tmp_path / "f.h5")
    data = path.read_bytes()
    held = np.flatnonzero(np.frombuffer(data, np.uint8))
    rng, taken = np.random.default_rng(3), 0
    for place in rng.choice(held, NUM_FLIPS, replace=False).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        ours = _examine_plain(path)
        if ours is not None:
            taken += 1
            assert plain_of(ours) == plain_of(Member.open(path).record), place
    assert 0 < taken < NUM_FLIPS


def free_room(data):
    """Where the first collection of texts says how much room it has left."""
    place = data.index(b"GCOL") + 16
    while data[place] or data[place + 1]:
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    return place + 8


PLACES = {  # of a byte, and what it is changed by
    "place of an empty table": (lambda data: data.index(b"\x03\x01" + b"\xff" * 8) + 5, 32),
    "slash in a name": (lambda data: data.index(b"reason\0", data.index(b"reason\0") + 1) + 3, ord("s") ^ ord("/")),
    "free room": (lambda data: free_room(data) + 1, 2),
    "end before the end": (lambda data: 40, 16),
    "room for more links": (lambda data: 16, 32),
    "room for fewer leaves": (lambda data: 18, 16),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_hdf5_refuses_is_not_taken(tmp_path, name):
    path, (place_of, change) = FILES["descriptors"](tmp_path / "f.h5"), PLACES[name]
    data = bytearray(path.read_bytes())
    data[place_of(data)] ^= change
    path.write_bytes(data)
    assert both(path) == [None, None]


NUM_FLIPS = 60
