"""matrices.py: what other programs write, read back, and what is refused."""

import h5py
import numpy as np
import pytest
from test_cli import run

import featx
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.evaluation.sources import read_descriptors
from featx.matrices import FORMATS, import_matrix
from featx.store import verify

KEYS = ["b/y", "a/x", "c z"]
ROWS = np.array([[3, 4, 0, 0], [0, 0, 0, 0], [1, -2, 2, 4]], np.float32)
UNIT = np.array([[0.6, 0.8, 0, 0], [0, 0, 0, 0], [0.2, -0.4, 0.4, 0.8]])


def write(path, format, keys=KEYS, rows=ROWS):
    """A file as NumPy, h5py or a text editor would write it; without keys where a format has no place for them."""
    if format == "npy":
        np.save(path, rows)
    elif format == "npz":
        np.savez(path, features=rows, **({"keys": np.array(keys)} if keys is not None else {}))
    elif format == "parquet":
        import pyarrow.parquet

        native = rows.astype(rows.dtype.newbyteorder("="))
        columns = {"features": native.tolist()} if native.dtype.kind == "i" else {"features": list(native)}
        pyarrow.parquet.write_table(pyarrow.table(({"key": keys} if keys is not None else {}) | columns), path)
    elif format == "hdf5":
        with h5py.File(path, "w") as h5:
            h5["features"] = rows
            if keys is not None:
                h5["keys"] = [key.encode() for key in keys]
    else:
        lines = [",".join(map(str, row.tolist())) for row in rows]
        if keys is not None:
            lines = ["key,f1,f2,f3,f4", *(f"{key},{line}" for key, line in zip(keys, lines, strict=True))]
        path.write_text("\n".join(lines) + "\n")
    return path


def holds(path, checkpoint):
    with featx.open(path) as features:
        verify(path)
        assert features.keys == sorted(KEYS) and features.provenance.checkpoint == checkpoint
        assert features.provenance.engine == "imported" and features.provenance.pixels_version == 0
        order = [KEYS.index(key) for key in features.keys]
        np.testing.assert_allclose(features.descriptors(features.layers[0]), UNIT[order], rtol=1e-6)
        return features.layers


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "npy"])
def test_keys_in_the_file(tmp_path, format):
    path = write(tmp_path / f"idt.{format}", format)
    summary = import_matrix(path, tmp_path / "out.h5", format)
    assert (summary.num_videos, summary.num_dims, summary.num_zero) == (3, 4, 1)
    assert holds(tmp_path / "out.h5", "idt") == ("features",)


@pytest.mark.parametrize("first", ["key,0,1,2,3", ",0,1,2,3"])
def test_columns_that_are_numbered_are_no_video(tmp_path, first):
    lines = [f"{key}," + ",".join(map(str, row.tolist())) for key, row in zip(KEYS, ROWS, strict=True)]
    (tmp_path / "idt.csv").write_text("\n".join([first, *lines]) + "\n")
    import_matrix(tmp_path / "idt.csv", tmp_path / "out.h5", "csv")
    assert holds(tmp_path / "out.h5", "idt") == ("features",)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4"])
def test_keys_in_a_list_and_any_numbers(tmp_path, format, dtype):
    path = write(tmp_path / f"idt.{format}", format, keys=None, rows=ROWS.astype(dtype))
    (tmp_path / "keys.txt").write_text("\r\n".join(KEYS))
    import_matrix(path, tmp_path / "out.h5", format, keys=tmp_path / "keys.txt", name="iDT", layer="bow")
    assert holds(tmp_path / "out.h5", "iDT") == ("bow",)


def test_the_command(tmp_path, capsys):
    path = write(tmp_path / "idt.npz", "npz")
    out = tmp_path / "out.h5"
    code, text, _ = run(capsys, "import", path, "-o", out, "--name", "iDT")
    assert code == 0 and "3 videos, 1 of them zero, layer features, 4 dimensions" in text
    holds(out, "iDT")
    assert run(capsys, "import", path, "-o", out)[0] == 2
    assert run(capsys, "import", path, "-o", out, "--overwrite")[0] == 0
    assert run(capsys, "check", out)[0] == 0
    for arguments, message in [
        ((path, "--backbone", "c3d-sports1m"), "--backbone is for --format c3d"),
        ((tmp_path, "--name", "x"), "--name is for a matrix"),
        ((write(tmp_path / "x.txt", "csv"),), "the suffix does not tell"),
        ((path, "--layer", "a", "--layer", "b"), "2 layers are named"),
    ]:
        code, _, err = run(capsys, "import", *arguments, "-o", tmp_path / "new.h5")
        assert code == 2 and message in err


def test_refusals(tmp_path):
    def refused(error, message, format, path=None, **options):
        with pytest.raises(error, match=message):
            import_matrix(path or write(tmp_path / f"f.{format}", format), tmp_path / "out.h5", format, **options)
        assert not (tmp_path / "out.h5").exists()

    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "twice.txt").write_text("a\nb\na\n")
    (tmp_path / "blank.txt").write_text("a\n\nb\n")
    refused(UsageError, "an npy file holds no keys", "npy")
    refused(UsageError, "3 rows, but there are 2 keys", "npy", keys=tmp_path / "two.txt")
    refused(UsageError, "the key 'a' is given twice", "npy", keys=tmp_path / "twice.txt")
    refused(UsageError, "the key of row 2", "npy", keys=tmp_path / "blank.txt")
    refused(UsageError, "no such file", "npz", path=tmp_path / "absent.npz")
    refused(UsageError, "layer is 'a/b'", "npz", layer="a/b")
    refused(UnknownNameError, "unknown format 'mat'", "mat")
    refused(UnknownNameError, "unknown array in .*'names'", "npz", key_dataset="names")
    refused(
        UnknownNameError, "unknown dataset in .*'feature'; did you mean 'features'", "hdf5", feature_dataset="feature"
    )
    for format in FORMATS:
        broken = tmp_path / f"broken.{format}"
        broken.write_bytes(b"\x80\x04nothing,at all\nq,z\n")
        refused(FeatureFileError, "broken", format, path=broken, keys=tmp_path / "two.txt")
    for value in (np.nan, np.inf):
        rows = ROWS.copy()
        rows[1, 2] = value
        refused(
            FeatureFileError,
            "row of 'a/x' holds values that are not finite",
            "npz",
            write(tmp_path / "n.npz", "npz", rows=rows),
        )
    refused(FeatureFileError, r"\(3,\), but must be numbers", "npz", write(tmp_path / "n.npz", "npz", rows=ROWS[:, 0]))
    objects = tmp_path / "objects.npz"
    np.savez(objects, features=ROWS, keys=np.array(KEYS, dtype=object))
    refused(FeatureFileError, "Python objects, which are not read", "npz", path=objects)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("a,1,2\nb,1\n")
    refused(FeatureFileError, "line 2 has 1 numbers, the ones before 2", "csv", path=ragged)


def test_an_imported_file_is_evaluated_but_not_joined_to_an_extracted_one(tmp_path):
    import_matrix(write(tmp_path / "idt.npz", "npz"), tmp_path / "out.h5", "npz")
    held = read_descriptors(tmp_path / "out.h5")
    assert held.layer == "features" and held.rows.shape == (3, 4)
