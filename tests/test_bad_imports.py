"""Files that importing refuses: what is wrong is one line, never a traceback, and no key is made up."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from feature_files import write_file
from test_cli import run

import featx
from featx import store
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.matrices import import_matrix

ROWS = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)


def hdf5(path, keys=None, features=ROWS):
    with h5py.File(path, "w") as h5:
        h5["features"] = features
        if keys is not None:
            h5["keys"] = keys
    return path


def cut_npy(path):
    np.save(path, ROWS)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'shape': (2, 2), }", b"'shape': (2, 2     "))


def changed_npz(path, local, central, change):
    """An archive with one byte changed in both headers of every member: at `local` and at `central` behind their marks."""
    np.savez(path, keys=np.array(["a", "b"]), features=ROWS)
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", local), (b"PK\1\2", central)):
        start = data.find(mark)
        while start >= 0:
            data[start + place] = change(data[start + place])
            start = data.find(mark, start + 4)
    path.write_bytes(data)


def packed_npz(path):
    """An archive that says of its members that they are packed in a way which nobody knows."""
    changed_npz(path, 8, 10, lambda _: 77)


def encrypted_npz(path):
    changed_npz(path, 6, 8, lambda flags: flags | 1)


def strange_names(path):
    with h5py.File(path, "w") as h5:
        h5["others"] = ROWS
        h5[b"caf\xe9"] = ROWS


@pytest.mark.parametrize(
    ("format", "make", "error", "told"),
    [
        ("npy", cut_npy, FeatureFileError, "not a file of NumPy's"),
        ("npz", packed_npz, FeatureFileError, "damaged"),
        ("npz", encrypted_npz, FeatureFileError, "damaged"),
        ("npz", lambda p: np.savez(p, keys=np.array([["a", "b"]] * 2), features=ROWS), FeatureFileError, "one a row"),
        ("npz", lambda p: np.savez(p, keys=np.array("ab"), features=ROWS), FeatureFileError, "one a row"),
        ("npz", lambda p: np.savez(p, keys=np.array([0.5, 1.5]), features=ROWS), FeatureFileError, "a key is 0.5, but"),
        ("npz", lambda p: np.savez(p, keys=np.array([True, False]), features=ROWS), FeatureFileError, "a key is True"),
        ("hdf5", strange_names, UnknownNameError, r"known: caf\\xe9, others"),
        ("activitynet", strange_names, FeatureFileError, "true --format"),
        ("hdf5", lambda p: hdf5(p, [b"caf\xe9", b"b"]), UsageError, r"the key 'caf\\xe9' .* is not UTF-8"),
        ("hdf5", lambda p: hdf5(p, np.array([["a", "b"]] * 2, "S1")), FeatureFileError, "one a row"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, format, make, error, told):
    path = tmp_path / f"bad.{format}"
    make(path)
    keys = tmp_path / "keys.txt" if format == "npy" else None
    (tmp_path / "keys.txt").write_text("a\nb\n")
    with pytest.raises(error, match=told):
        import_matrix(path, tmp_path / "out.h5", format, keys=keys)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("format", ["hdf5", "activitynet"])
def test_damaged_hdf5_is_told_of(tmp_path, format):
    good = tmp_path / "good.h5"
    if format == "hdf5":
        hdf5(good, [b"a", b"b"])
    else:
        with h5py.File(good, "w") as h5:
            h5["v_a/c3d_features"], h5["v_b/c3d_features"] = ROWS, ROWS
    whole = good.read_bytes()
    places = np.random.default_rng(0).integers(0, len(whole), (60, 6))
    for flips in places:
        data = bytearray(whole)
        for place in flips:
            data[place] ^= 0xFF
        (tmp_path / "bad.h5").write_bytes(data)
        try:
            if format == "hdf5":
                store.read_array(tmp_path / "bad.h5", "features"), store.read_array(tmp_path / "bad.h5", "keys")
            else:
                list(store.read_groups(tmp_path / "bad.h5"))
        except featx.errors.FeatxError as error:
            assert "\n" not in str(error)


def test_parquet_keys_are_texts_or_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    for keys, told in (
        (pa.array([b"a", "ü".encode()], pa.binary()), None),
        (pa.array([7, 8]), None),
        (pa.array([b"caf\xe9", b"b"], pa.binary()), "not UTF-8"),
        (pa.array([["a"], ["b"]]), r"a key is \['a'\]"),
        (pa.array([0.5, 1.5]), "a key is 0.5"),
    ):
        table = pa.table({"key": keys, "features": list(ROWS)})
        pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
        if told:
            with pytest.raises((FeatureFileError, UsageError), match=told):
                import_matrix(tmp_path / "m.parquet", tmp_path / "out.h5", "parquet", overwrite=True)
        else:
            import_matrix(tmp_path / "m.parquet", tmp_path / "out.h5", "parquet", overwrite=True)
            with featx.open(tmp_path / "out.h5") as features:
                assert features.keys == (["7", "8"] if keys.type == pa.int64() else ["a", "ü"])


@pytest.mark.parametrize("layer", [".", "..", ".hid", "a\udce9", "a/b", "a:b", "a\0b", ""])
def test_a_layer_that_no_file_can_hold_is_refused(tmp_path, layer):
    np.savez(tmp_path / "m.npz", keys=np.array(["a", "b"]), features=ROWS)
    with pytest.raises(UsageError, match="but must be a name in UTF-8 that does not begin with"):
        import_matrix(tmp_path / "m.npz", tmp_path / "out.h5", "npz", layer=layer)
    assert not (tmp_path / "out.h5").exists()


def test_names_of_files_that_are_no_utf8_are_kept_as_escapes(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    np.savez(tmp_path / f"{name}.npz", keys=np.array(["a", "b"]), features=ROWS)
    folder = Path(tmp_path, f"{name}.d")
    folder.mkdir()
    np.save(folder / "a.npy", ROWS[0])
    for source, format in ((tmp_path / f"{name}.npz", "npz"), (folder, "npy")):
        import_matrix(source, tmp_path / "out.h5", format, name=f"{name}+", overwrite=True)
        with featx.open(tmp_path / "out.h5") as features:
            assert features.provenance.checkpoint == "caf%E9+"
            assert features["a"].path == str(tmp_path / "caf%E9") + source.suffix
    import_matrix(tmp_path / f"{name}.npz", tmp_path / "two.h5", "npz")
    (tmp_path / name).write_text("a\nb\n")
    assert (
        run(capsys, "pca", tmp_path / "two.h5", "-o", tmp_path / "c.h5", "--dims", 1, "--fit-on", tmp_path / name)[0]
        == 0
    )
    with featx.open(tmp_path / "c.h5") as features:
        assert r"2 videos of caf\xe9 (sha256" in features.bases["features"]["fitted_on"]


@pytest.mark.parametrize("format", ["npz", "csv", "parquet", "activitynet"])
def test_keys_of_several_lines_come_back(tmp_path, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    keys = ["a\nb", "c\rd"]
    rows = {"fc6": {key: row / np.linalg.norm(row) for key, row in zip(keys, ROWS, strict=True)}}
    source = write_file(tmp_path / "f.h5", rows, clips={"fc6": {key: ROWS for key in keys}})
    output = tmp_path / f"out.{'h5' if format == 'activitynet' else format}"
    featx.export(source, output, format)
    import_matrix(output, tmp_path / "back.h5", format, layer="fc6")
    with featx.open(tmp_path / "back.h5") as features:
        assert features.keys == keys
