"""per_video.py: features of other programs video by video: folders of npy files, HDF5 with a group a video; and Parquet."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from test_cli import run

import featx
from featx import parts
from featx.descriptors import mean_descriptor
from featx.errors import FeatureFileError, FeatxError, UnknownNameError, UsageError
from featx.matrices import import_matrix
from featx.store import verify

ROWS = {"v_a": (3, 5), "v_b": (1, 5), "x/v_c": (2, 5)}


def clip_rows(dtype=np.float32):
    return {
        key: np.random.default_rng(i).normal(size=shape).astype(dtype) for i, (key, shape) in enumerate(ROWS.items())
    }


def npy_folder(folder, rows):
    folder.mkdir()
    for key, values in rows.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{key}.npy", values)
    (folder / ".hidden.npy").write_bytes(b"")
    (folder / "readme.txt").write_text("a note")
    return folder


def activitynet(path, rows, dataset="c3d_features", **options):
    """As the release is: a group a video, chunked and compressed."""
    with h5py.File(path, "w") as h5:
        for key, values in rows.items():
            h5.create_dataset(
                f"{key.replace('/', '_')}/{dataset}", data=values, chunks=True, compression="gzip", **options
            )
    return path


@pytest.mark.parametrize(
    ("format", "dtype"), [("npy", "<f4"), ("npy", "<i2"), ("activitynet", ">f4"), ("activitynet", "<f8")]
)
def test_rows_of_clips_lie_where_the_grid_says_and_else_their_mean_is_kept(tmp_path, format, dtype):
    rows = {key: (9 * values).astype(dtype) for key, values in clip_rows().items()}
    source = npy_folder(tmp_path / "in", rows) if format == "npy" else activitynet(tmp_path / "in.h5", rows)
    done = import_matrix(source, tmp_path / "g.h5", format, length=16, stride=8, layer="fc6", name="theirs")
    assert (done.num_videos, done.num_clips, done.num_dims, done.averaged) == (3, 6, 5, False)
    mean = import_matrix(source, tmp_path / "m.h5", format, layer="fc6")
    assert (mean.num_videos, mean.num_clips, mean.averaged) == (3, 0, True)
    with featx.open(tmp_path / "g.h5") as clips, featx.open(tmp_path / "m.h5") as means:
        made = clips.provenance
        assert (made.checkpoint, made.length, made.stride, made.save, made.engine) == (
            "theirs",
            16,
            8,
            "both",
            "imported",
        )
        for key, values in rows.items():
            key = key if format == "npy" else key.replace("/", "_")
            assert np.array_equal(clips[key].clips["fc6"], values.astype(np.float32))
            assert clips[key].clip_table.start_frame.tolist() == [8 * i for i in range(len(values))]
            assert (clips[key].clip_table.end_frame - clips[key].clip_table.start_frame).tolist() == [16] * len(values)
            assert np.isnan(clips[key].clip_table.start_seconds).all()
            expected = mean_descriptor(values.astype(np.float32))
            assert np.array_equal(clips[key].descriptors["fc6"], expected)
            assert np.array_equal(means[key].descriptors["fc6"], expected)
    for name in ("g.h5", "m.h5"):
        verify(tmp_path / name)
        assert not featx.store.problems(tmp_path / name)


def test_descriptors_in_a_folder_come_to_unit_length_or_stay_as_they_are(tmp_path):
    unit = featx.descriptors.l2_normalise(np.random.default_rng(0).normal(size=(1, 300)))[0]
    rows = {"long": 5 * unit, "unit": unit, "zero": np.zeros(300)}
    done = import_matrix(npy_folder(tmp_path / "in", rows), tmp_path / "f.h5", "npy")
    assert (done.num_videos, done.num_zero, done.layer) == (3, 1, "features")
    with featx.open(tmp_path / "f.h5") as features:
        matrix = features.descriptors("features")
        assert matrix[1].tobytes() == unit.tobytes() and not matrix[2].any()
        np.testing.assert_allclose(matrix[0], unit, atol=1e-7)


def test_linked_folders_are_read_and_a_link_back_up_ends_there(tmp_path):
    source, elsewhere = (
        npy_folder(tmp_path / "in", {"a": np.ones(3)}),
        npy_folder(tmp_path / "other", {"b": np.ones(3)}),
    )
    (source / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(source)
    (source / "c.npy").symlink_to(elsewhere / "b.npy")
    import_matrix(source, tmp_path / "f.h5", "npy")
    with featx.open(tmp_path / "f.h5") as features:
        assert features.keys == ["a", "c", "linked/b"]


@pytest.mark.parametrize("finer", ["<f4", "<f8", "<i4"])
def test_the_type_of_the_first_video_rounds_no_other(tmp_path, finer):
    """float16 holds 1.0004 as 1; what is coarser than the first loses nothing."""
    fine = np.array([[1.0004, 2049]]).astype(finer)
    source = npy_folder(tmp_path / "in", {"a": np.ones((1, 2), "<f2"), "b": fine})
    with pytest.raises(UsageError, match=f"'b' holds {np.dtype(finer)}, but 'a' float16, .* one type"):
        import_matrix(source, tmp_path / "f.h5", "npy", length=16, stride=8)
    assert not (tmp_path / "f.h5").exists()
    np.save(source / "0.npy", fine.astype("<f4"))
    np.save(source / "b.npy", np.ones((1, 2), ">f2"))
    import_matrix(source, tmp_path / "f.h5", "npy", length=16, stride=8)
    with featx.open(tmp_path / "f.h5") as features:
        assert features.provenance.dtype == "float32" and np.array_equal(
            features["0"].clips["features"], fine.astype("<f4")
        )


def test_the_command_guesses_what_a_folder_holds_and_tells_of_means(tmp_path, capsys):
    source = npy_folder(tmp_path / "in", clip_rows())
    code, out, _ = run(capsys, "import", source, "-o", tmp_path / "f.h5")
    assert code == 0 and "3 videos, layer features, 5 dimensions\nnothing tells where the clips lie" in out
    code, out, _ = run(capsys, "import", source, "-o", tmp_path / "g.h5", "--length", 16, "--stride", 8)
    assert code == 0 and out == f"{tmp_path}/g.h5: 3 videos, 6 clips, layer features, 5 dimensions\n"
    code, out, _ = run(capsys, "search", tmp_path / "g.h5", "--clips", "--query", "v_a", "-k", 1)
    assert code == 0 and "frames 0-15" in out  # no seconds are known
    assert run(capsys, "export", tmp_path / "g.h5", "--format", "activitynet", "-o", tmp_path / "a.hdf5")[0] == 0
    code, out, _ = run(capsys, "export", tmp_path / "g.h5", "--format", "csv", "-o", tmp_path / "a.csv", "--clips")
    assert code == 0 and out == f"{tmp_path}/a.csv: 6 clips of 3 videos, layer features, 5 dimensions\n"


def test_what_is_not_understood_is_refused_and_what_was_there_stays(tmp_path):
    output = tmp_path / "f.h5"
    import_matrix(npy_folder(tmp_path / "good", clip_rows()), output, "npy")
    before = output.read_bytes()

    def refused(error, words, change, format="npy", **options):
        rows = clip_rows()
        change(rows)
        if format == "npy":
            source = npy_folder(tmp_path / f"in{len(list(tmp_path.iterdir()))}", rows)
        else:
            source = activitynet(
                tmp_path / f"in{len(list(tmp_path.iterdir()))}.h5", rows, options.pop("dataset", "c3d_features")
            )
        with pytest.raises(error, match=words):
            import_matrix(source, output, format, overwrite=True, **options)
        assert output.read_bytes() == before and not list(tmp_path.glob("f.h5.parts/part*"))

    for format in ("npy", "activitynet"):
        refused(UsageError, "has 1 axes, but 'v_a' 2", lambda rows: rows.update(v_b=np.ones(5)), format)
        refused(
            FeatureFileError, "has 4 dimensions, but 'v_a' 5", lambda rows: rows.update(v_b=np.ones((2, 4))), format
        )
        refused(
            FeatureFileError,
            "'v_b' holds values that are not finite",
            lambda rows: rows.update(v_b=np.full((1, 5), np.nan)),
            format,
        )
        refused(FeatureFileError, "too large for float32", lambda rows: rows.update(v_b=np.full((1, 5), 1e300)), format)
        refused(FeatureFileError, "but must be numbers", lambda rows: rows.update(v_a=np.ones((1, 5, 2))), format)
        refused(UsageError, "length is 0", lambda rows: None, format, length=0, stride=8)
        refused(UsageError, "only one of length and stride", lambda rows: None, format, stride=8)
        refused(UsageError, "leave --keys out", lambda rows: None, format, keys=__file__)
    refused(UnknownNameError, "group v_a:.*'c3d_features'", lambda rows: None, "activitynet", dataset="other")
    refused(FeatureFileError, "Python objects", lambda rows: rows.update(v_a=np.array([{}])))
    refused(UsageError, "no npy files", lambda rows: rows.clear())
    refused(UsageError, "no features in", lambda rows: rows.clear(), "activitynet")


@pytest.mark.parametrize("name", ["same", "other"])
def test_an_import_that_dies_leaves_what_was_there_and_can_be_done_again(tmp_path, monkeypatch, name):
    place, dead = tmp_path / "place", tmp_path / "dead"
    place.mkdir()
    old, new = ({key: rows + i for key, rows in clip_rows().items()} for i in range(2))
    new_folder = npy_folder(tmp_path / "new", new)
    import_matrix(npy_folder(tmp_path / "old", old), place / "f.h5", "npy", name="same")
    num_added, add = [], parts.Parts.add

    def added(self, *args):
        add(self, *args)
        num_added.append(1)
        if len(num_added) == 2:
            shutil.copytree(place, dead)  # as a kill would leave it

    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts.Parts, "add", added)
    import_matrix(new_folder, place / "f.h5", "npy", name=name, overwrite=True)
    with featx.open(dead / "f.h5") as left, featx.open(place / "f.h5") as made:
        assert len(left.paths) == 1 and left.provenance.checkpoint == "same" and made.provenance.checkpoint == name
        for key in old:
            assert np.array_equal(left[key].descriptors["features"], mean_descriptor(old[key]))
            assert np.array_equal(made[key].descriptors["features"], mean_descriptor(new[key]))
    import_matrix(new_folder, dead / "f.h5", "npy", name=name, overwrite=True)
    for folder in (place, dead):
        assert [path.name for path in folder.iterdir()] == ["f.h5"]
    assert (dead / "f.h5").read_bytes() == (place / "f.h5").read_bytes()


@pytest.mark.parametrize("kind", ["soft link", "external link", "virtual", "external", "flat", "text"])
def test_groups_that_lead_elsewhere_are_not_followed(tmp_path, kind):
    secret, path = tmp_path / "secret.h5", tmp_path / "in.h5"
    with h5py.File(secret, "w") as h5:
        h5["v_a/c3d_features"] = np.ones((2, 3), np.float32)
    with h5py.File(path, "w") as h5:
        if kind == "soft link":
            h5["v_b/c3d_features"] = np.ones((2, 3))
            h5["v_a"] = h5py.SoftLink("/v_b")
        elif kind == "external link":
            h5["v_a"] = h5py.ExternalLink(str(secret), "/v_a")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, 3), np.float32)
            layout[:] = h5py.VirtualSource(str(secret), "v_a/c3d_features", (2, 3))
            h5.create_group("v_a").create_virtual_dataset("c3d_features", layout)
        elif kind == "external":
            h5.create_group("v_a").create_dataset("c3d_features", (2, 3), "f4", external=str(secret))
        elif kind == "flat":
            h5["v_a"] = np.ones((2, 3))
        else:
            h5["v_a/c3d_features"] = "text"
    with pytest.raises(FeatxError):
        import_matrix(path, tmp_path / "f.h5", "activitynet")
    if "external" in kind or kind == "virtual":
        with pytest.raises(FeatxError):
            import_matrix(
                path, tmp_path / "f.h5", "hdf5", keys=__file__, feature_dataset="v_a/c3d_features", overwrite=True
            )
    assert not (tmp_path / "f.h5").exists()


def test_what_is_claimed_and_not_there_is_neither_filled_in_nor_given_room(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as h5:
        h5.create_dataset("v_a/c3d_features", (10**6, 10**4), "f4", chunks=(1, 10**4))
    for format, options in (("activitynet", {}), ("hdf5", {"feature_dataset": "v_a/c3d_features", "keys": __file__})):
        with pytest.raises(FeatureFileError, match=r"claims float32 \(1000000, 10000\), but the file holds less"):
            import_matrix(tmp_path / "in.h5", tmp_path / "f.h5", format, **options)
    with h5py.File(tmp_path / "in.h5", "w") as h5:  # packed to a thousandth, all the same it is there
        h5.create_dataset("v_a/c3d_features", data=np.ones((4000, 100), "f4"), compression="gzip", compression_opts=9)
    assert import_matrix(tmp_path / "in.h5", tmp_path / "f.h5", "activitynet").num_videos == 1


@pytest.mark.parametrize("name", ["in.npz", "in.npy", "in/a.npy"])
@pytest.mark.parametrize("kind", ["no archive", "cut", "changed"])
def test_damaged_archives_are_told_in_one_line(tmp_path, name, kind):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    np.savez(tmp_path / "whole.npz", keys=np.array(["a"]), features=np.ones((1, 40)))
    data = bytearray((tmp_path / "whole.npz").read_bytes())
    data[260:300] = bytes(40) if kind == "changed" else data[260:300]
    path.write_bytes({"no archive": b"PK\x03\x04 and no more", "cut": data[:300], "changed": data}[kind])
    source = path.parent if name == "in/a.npy" else path
    keys = {"keys": __file__} if name == "in.npy" else {}
    with pytest.raises(FeatxError):
        import_matrix(source, tmp_path / "f.h5", path.suffix[1:], **keys)
    if name == "in.npz":
        np.save(tmp_path / "in.npy", np.ones((1, 2)))
        (tmp_path / "in.npy").rename(path)
        with pytest.raises(FeatureFileError, match="read it with --format npy"):
            import_matrix(path, tmp_path / "f.h5", "npz")


@pytest.mark.parametrize("bad", [np.nan, -1, 0.5, 1e300, "x"])
def test_places_of_clips_that_are_no_frames_are_refused(tmp_path, bad):
    places = {"start_frame": np.array([0, bad]), "end_frame": [16, 24], "start_seconds": [0, 1], "end_seconds": [1, 2]}
    np.savez(tmp_path / "in.npz", keys=["a", "a"], features=np.ones((2, 3)), **places)
    with pytest.raises(FeatureFileError, match="reaches from frame|not all numbers"):
        import_matrix(tmp_path / "in.npz", tmp_path / "f.h5", "npz")


def test_tables_of_clips_that_do_not_fit_are_refused(tmp_path):
    folder = npy_folder(tmp_path / "in", clip_rows())
    head = "key,start_frame,end_frame,start_seconds,end_seconds\n"
    for text, words in (
        ("key,start\n", "its first line must be key,start_frame"),
        (head + "v_a,0,16,0.0\n", "line 2: is not key,start_frame"),
        (head + "v_a,0,16,0.0,x\n", "line 2: is not key,start_frame"),
        (head + "v_a,0,16,0.0,0.6\n", "'v_a' has 3 rows, but 1 clips are told of"),
        (head + "v_b,0,16,0.0,0.6\n", "does not tell where the clips of 'v_a' lie"),
        (head + "v_a,16,0,0.0,0.6\n", "a clip reaches from frame 16 to 0"),
        (head + "v_a,-8,8,0.0,0.6\n", "a clip reaches from frame -8 to 8"),
        (
            head
            + "".join(
                f"{key},0,16,,\n".replace(",,", ",nan,nan") * rows
                for key, (rows, _) in (*ROWS.items(), ("v_d", (1, 5)))
            ),
            "where the clips of 'v_d' lie, but there is no npy file of it",
        ),
    ):
        (folder / "clips.csv").write_text(text)
        with pytest.raises(FeatxError, match=words):
            import_matrix(folder, tmp_path / "f.h5", "npy")
    assert not (tmp_path / "f.h5").exists()


def test_parquet_that_is_not_understood_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for columns, error, words in (
        ({"name": ["a"], "features": [[1.0]]}, UnknownNameError, "'key'"),
        ({"key": ["a"], "f": [[1.0]]}, UnknownNameError, "'features'"),
        ({"key": ["a"], "features": [1.0]}, FeatureFileError, "must be lists of numbers"),
        ({"key": ["a"], "features": [["x"]]}, FeatureFileError, "must be lists of numbers"),
        ({"key": ["a", "b"], "features": [[1.0], None]}, FeatureFileError, "has gaps"),
        ({"key": ["a", "b"], "features": [[1.0], [None]]}, FeatureFileError, "has gaps"),
        ({"key": ["a", "b"], "features": [[1.0], [1.0, 2.0]]}, FeatureFileError, "differ in length"),
        ({"key": ["a", "b"], "features": [[1.0], []]}, FeatureFileError, "differ in length"),
        ({"key": ["a", None], "features": [[1.0], [2.0]]}, FeatureFileError, "the column key has gaps"),
        ({"key": ["a", "a"], "features": [[1.0], [2.0]]}, UsageError, "'a' is given twice"),
        ({"key": [], "features": []}, FeatxError, "must be"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "in.parquet")
        with pytest.raises(error, match=words):
            import_matrix(tmp_path / "in.parquet", tmp_path / "f.h5", "parquet")
    content = (tmp_path / "in.parquet").read_bytes()
    for data in (b"", b"PAR1", content[: len(content) // 2]):
        (tmp_path / "in.parquet").write_bytes(data)
        with pytest.raises(FeatureFileError, match="not a Parquet file"):
            import_matrix(tmp_path / "in.parquet", tmp_path / "f.h5", "parquet")
    pq.write_table(pa.table({"id": ["a"], "v": pa.array([[1, 0]], pa.list_(pa.float64()))}), tmp_path / "in.parquet")
    done = import_matrix(tmp_path / "in.parquet", tmp_path / "f.h5", "parquet", key_dataset="id", feature_dataset="v")
    assert (done.num_videos, done.num_dims) == (1, 2)
