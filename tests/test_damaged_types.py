"""Feature files whose bytes are whole, and whose types or attributes, which say what the bytes mean, are not."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from feature_files import write_file
from test_cli import run

import featx
from featx import store
from featx.errors import FeatureFileError
from featx.integrity import check
from featx.store.schema import crc

# how a datatype message begins in the file, and its number of bytes: class and version, bit fields, size, then its properties
MESSAGES = {
    "float32": (bytes.fromhex("11 20 1f 00 04 00 00 00"), 20),
    "float64": (bytes.fromhex("11 20 3f 00 08 00 00 00"), 20),
    "int64": (bytes.fromhex("10 08 00 00 08 00 00 00"), 12),
    "uint32": (bytes.fromhex("10 00 00 00 04 00 00 00"), 12),
    "text": (bytes.fromhex("19 01 01 00 10 00 00 00"), 16),
}


@pytest.fixture
def path(tmp_path):
    """A file that has gone through PCA, with clips and a failure."""
    rng = np.random.default_rng(0)
    rows = {key: row / np.linalg.norm(row) for key, row in zip("abcd", rng.standard_normal((4, 4)), strict=True)}
    clips = {key: rng.standard_normal((2, 4)) for key in "abcd"}
    clips = {key: rows.astype(np.float32) for key, rows in clips.items()}
    write_file(tmp_path / "f.h5", {"fc6": rows}, clips={"fc6": clips}, failures=[("z", "no frames")])
    featx.pca(tmp_path / "f.h5", tmp_path / "g.h5", dims=2)
    return tmp_path / "g.h5"


def content(path):
    with featx.open(path) as features:
        videos = [[*vars(features[key]).values(), vars(features.clip_table(key))] for key in features.keys]
        columns = [features.column(name).tolist() for name in store.SCHEMA["videos"]]
        clips = [block.tolist() for block in features.clip_blocks("fc6")]
        whole = (features.provenance, features.keys, features.failures, features.bases, features.descriptors("fc6"))
        return repr((whole, videos, columns, clips))


def places(data, message):
    begin, num_bytes = MESSAGES[message]
    found = data.find(begin)
    while found >= 0:
        yield from range(found, found + num_bytes)
        found = data.find(begin, found + 1)


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("num_flips", [8, pytest.param(None, marks=pytest.mark.long)])
def test_a_flipped_bit_of_a_type_is_found_or_changes_nothing(path, message, num_flips):
    data, expected = path.read_bytes(), content(path)
    flips = [(place, 1 << bit) for place in places(data, message) for bit in range(8)]
    num_found = 0
    assert len(flips) > 200
    for i in np.random.default_rng(1).permutation(len(flips))[:num_flips]:
        place, bit = flips[i]
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        found = store.problems(path)
        num_found += bool(found)
        assert all("\n" not in line for line in found)
        assert found or content(path) == expected, (place, bit)
    assert num_found


def swap_bytes(h5, name):
    """The same bytes, to be read in the other order."""
    values = h5[name][...]
    del h5[name]
    h5[name] = values.view(values.dtype.newbyteorder(">"))


def as_integers(h5, name):
    values = h5[name][...]
    del h5[name]
    h5[name] = values.view(f"<i{values.itemsize}")


@pytest.mark.parametrize("change", [swap_bytes, as_integers])
@pytest.mark.parametrize(
    "name",
    [
        "basis/fc6/mean",
        "basis/fc6/components",
        "basis/fc6/explained_variance",
        "clips/start_seconds",
        "clips/fc6",
        "descriptors/fc6",
        "checksums/descriptors/fc6",
    ],
)
def test_the_right_bytes_of_another_type_are_refused(path, name, change):
    with h5py.File(path, "r+") as h5:
        change(h5, name)
    with pytest.raises(FeatureFileError, match=f"its table {name} is .*, not a (column|matrix) of "):
        featx.open(path)
    assert len(store.problems(path)) == 1


def test_a_basis_is_of_known_tables_and_finite(path):
    with h5py.File(path, "r+") as h5:
        h5["basis/fc6/mean"][1] = np.nan
        h5["checksums/basis/fc6/mean"][0] = crc(h5["basis/fc6/mean"][...])
    assert store.problems(path) == ["row 1 of basis/fc6/mean holds values that are not finite"]
    with h5py.File(path, "r+") as h5:
        h5["basis/fc6/more"] = np.zeros(3)
    with pytest.raises(FeatureFileError, match="basis/fc6/more is no part of a basis"):
        featx.open(path)


def in_no_heap(data, place):
    """Where the bytes of the text lie: behind its number of bytes."""
    place = data.index(b"\x0c\0\0\0", place)
    data[place + 4] ^= 0xFF


def no_text(data, place):
    place = data.index(b"all 4 videos")
    data[place] = 0xFF


def of_no_type(data, place):
    place = data.index(MESSAGES["text"][0], place)
    data[place] ^= 0xFF


@pytest.mark.parametrize("damage", [in_no_heap, no_text, of_no_type])
def test_a_damaged_attribute_of_a_basis_is_one_line(capsys, tmp_path, path, damage):
    data = bytearray(path.read_bytes())
    damage(data, data.index(b"fitted_on\0"))
    path.write_bytes(data)
    (tmp_path / "folds.csv").write_text("".join(f"{key},{'xy'[i % 2]},{i // 2}\n" for i, key in enumerate("abcd")))
    for command in (
        ["info", path],
        ["merge", path, "-o", tmp_path / "merged.h5"],
        ["svm-eval", path, "--dataset", "csv", "--splits", tmp_path / "folds.csv", "--quiet"],
    ):
        code, _, err = run(capsys, *command)
        assert code in (0, 2)
        if damage is no_text:  # another text; only what compares the checksums can tell
            assert code == 0 or "attributes, which say how it was made, are not those" in err
        else:
            assert code == 2 and err.count("\n") == 1 and f"{path}: damaged: " in err and "cannot be read (" in err
    (problem,) = check(path).files[0].problems
    assert "crashes" not in problem and ("attributes" in problem or "bad version number" in problem)
