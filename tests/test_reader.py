"""reader.py: a set of several files tells what one file of the same videos does, by the same numbers."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from feature_files import write_file

import featx
from featx import exports, run, store
from featx.errors import FeatureFileError, UsageError
from featx.store import writer

COUNTS = {"a": 2, "b": 0, "c": 3, "d": 1}
RNG = np.random.default_rng(3)
CLIPS = {key: RNG.standard_normal((count, 5)).astype(np.float32) for key, count in COUNTS.items()}


def write(path, keys, mark=0.0):
    path.parent.mkdir(exist_ok=True)
    clips = {key: CLIPS[key] + np.float32(mark) for key in keys}
    return write_file(path, {"fc6": {key: np.eye(5)["abcd".index(key)] for key in keys}}, clips={"fc6": clips})


@pytest.fixture(params=["one file", "with parts", "folder"])
def path(request, tmp_path):
    """The same four videos as one file, as a file with a part that replaces a video of it, and as a folder of two."""
    if request.param == "one file":
        return write(tmp_path / "f.h5", "abcd")
    if request.param == "with parts":
        write(tmp_path / "f.h5.parts/part-00000000.h5", "ac")
        write(tmp_path / "f.h5", "cd", mark=9)
        write(tmp_path / "f.h5.parts/part-00000001.h5", "bd")
        return tmp_path / "f.h5"
    write(tmp_path / "many/2.h5", "ad")
    write(tmp_path / "many/1.h5", "bc")
    return tmp_path / "many"


def test_the_clips_of_a_video_are_the_rows_that_its_columns_tell(path):
    with featx.open(path) as features:
        firsts, counts = features.column("first_clip"), features.column("num_clips")
        starts = features.clip_column("start_frame")
        assert firsts.tolist() == [0, 2, 2, 5] and counts.tolist() == list(COUNTS.values())
        for key, first, count in zip(features.keys, firsts, counts, strict=True):
            rows = np.arange(first, first + count)
            np.testing.assert_array_equal(features.clip_rows("fc6", rows), CLIPS[key])
            np.testing.assert_array_equal(features[key].clips["fc6"], CLIPS[key])
            assert starts[rows].tolist() == [8 * i for i in range(count)]


def test_a_mask_chooses_rows_and_what_is_no_place_is_refused(path):
    with featx.open(path) as features:
        whole = features.rows("fc6", range(4))
        np.testing.assert_array_equal(features.rows("fc6", np.array([True, False, False, True])), whole[[0, 3]])
        np.testing.assert_array_equal(features.rows("fc6", [False] * 4), whole[:0])
        np.testing.assert_array_equal(features.rows("fc6", np.array([-1, 1], np.int8)), whole[[3, 1]])
        assert features.rows("fc6", []).shape == (0, 5) and features.clip_rows("fc6", []).shape == (0, 5)
        mask = np.arange(6) >= 5
        np.testing.assert_array_equal(features.clip_rows("fc6", mask), CLIPS["d"])
        for wrong in ([0.0, 1.0], [True, False], ["0"], [np.nan]):
            with pytest.raises(UsageError, match="must be whole numbers, or a mask of 4 truth values"):
                features.rows("fc6", wrong)
            with pytest.raises(UsageError, match="or a mask of 6 truth values"):
                features.clip_rows("fc6", wrong)


def test_a_folder_s_feature_files_may_have_any_names(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for key, name in zip("abcd", ("a.h5", "b.hdf5", "c.H5", "d"), strict=True):
        write(folder / name, key)
    write(folder / "e.features.parts/part-00000000.h5", "a")
    (folder / "e.features.parts/part-00000000.h5").rename(folder / "e.features.parts/part-00000001.h5")
    before = len(featx.store.find_files(folder))
    for name in (
        "notes.txt",
        ".hidden.h5",
        "a.h5.damaged",
        "a.h5.part-00000001.h5.damaged2",
    ):  # and what is no such file
        (folder / name).write_bytes((folder / "a.h5").read_bytes() if "h5" in name else b"a note")
    (folder / "clips").mkdir()
    with h5py.File(folder / "of another program", "w") as h5:
        h5["temperature"] = np.arange(3)
    assert len(featx.store.find_files(folder)) == before == 5
    with pytest.raises(UsageError, match="the video 'a' stands in .*a.h5 and in .*part-00000001.h5"):
        featx.open(folder)
    (folder / "e.features.parts/part-00000001.h5").unlink()
    with featx.open(folder) as features:
        assert features.keys == list("abcd")
    data = (folder / "b.hdf5").read_bytes()
    (folder / "b.hdf5").write_bytes(data[: len(data) // 2])
    with pytest.raises(FeatureFileError, match="b.hdf5"):  # not passed over because it is damaged
        featx.open(folder)


def test_a_file_that_is_shortened_while_it_is_open_is_told_of(tmp_path):
    rows = {f"{i:04d}": np.eye(1, 512, i)[0] for i in range(600)}  # 1.2 MB
    path = write_file(tmp_path / "f.h5", {"fc6": rows})
    readers = (
        lambda features: features.descriptors("fc6"),
        lambda features: features.rows("fc6", [599, 0]),
        lambda features: features.rows("fc6", range(600)),
        lambda features: list(features.blocks("fc6", 100)),
    )
    with featx.open(path) as features:
        pieces = store.pieces(features, "fc6")
        os.truncate(path, 70_000)
        for read in readers:
            with pytest.raises(FeatureFileError, match="f.h5 was changed while it was read|it is shorter than it was"):
                read(features)
        with pytest.raises(FeatureFileError, match="was changed while it was read"):
            list(pieces[0].steps(0, 64))


def touched(function, path):
    """The function, which finds that somebody wrote to the file meanwhile."""

    def changed(*arguments, **options):
        result = function(*arguments, **options)
        with open(path, "r+b") as file:
            file.seek(0, 2)
            file.write(b"x")
        return result

    return changed


def test_what_was_changed_after_it_was_verified_is_not_copied(tmp_path, monkeypatch):
    path, other = write(tmp_path / "f.h5", "ab"), write(tmp_path / "g.h5", "cd")
    for module, name, copy in (
        (store, "verify", lambda: run.merge([path, other], tmp_path / "out.h5")),
        (writer, "_mapping", lambda: run.merge([path, other], tmp_path / "out.h5")),
        (writer, "_mapping", lambda: featx.pca(path, tmp_path / "out.h5", dims=1)),
        (exports, "csv_writer", lambda: featx.export(path, tmp_path / "out.csv", "csv", clips=False)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, touched(getattr(module, name), path))
            with pytest.raises(FeatureFileError, match="f.h5 was changed while it was read"):
                copy()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "g.h5"]
        write(path, "ab")


def test_a_writer_that_cannot_begin_leaves_nothing_and_says_why_in_words(tmp_path, monkeypatch):
    def full(path, *arguments, **options):
        open(path, "w").close()
        raise OSError(28, "Unable to synchronously create file (many words of HDF5)")

    monkeypatch.setattr(writer.h5py, "File", full)
    with pytest.raises(UsageError, match="cannot write .*f.h5: No space left on device; choose another place"):
        write(tmp_path / "f.h5", "a")
    assert not list(tmp_path.iterdir())
