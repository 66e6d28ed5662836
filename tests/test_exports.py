"""exports.py: what other programs read in the files, and that featx reads it back to the bit."""

from __future__ import annotations

import csv
import json
import sys

import h5py
import numpy as np
import pytest
from feature_files import write_file
from test_search import in_parts, random_rows

import featx
from featx import durable, exports, key_paths
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.exports import FORMATS, export
from featx.matrices import import_matrix

SUFFIXES = {name: form.suffixes[0] if form.suffixes else "" for name, form in FORMATS.items()}
PLAIN = [name for name in FORMATS if name != "activitynet"]
KEYS = ["a/b c", "a/ü,\"'", "d.5/x%FF", "z"]  # sorted
TABLE = ("start_frame", "end_frame", "start_seconds", "end_seconds")


def hard_rows(num_rows: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Numbers that are hard to write: of all magnitudes, zeros of both signs, the smallest and the largest."""
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(num_rows, 9)) * 10.0 ** rng.integers(-6, 4, (num_rows, 9))).astype(dtype)
    kind = np.finfo(dtype)
    if num_rows:
        rows[0] = [0, -0.0, 1 / 3, kind.tiny, -kind.smallest_subnormal, 0.1, 1e-5, 2 / 3, kind.eps]
    return rows


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Files of descriptors and clips, float32 and float16; the last video but one has no clips."""
    unit = featx.descriptors.l2_normalise(np.random.default_rng(5).normal(size=(4, 9)))
    folder, paths = tmp_path_factory.mktemp("sources"), {}
    for dtype in ("float32", "float16"):
        clips = {key: hard_rows(n, np.dtype(dtype).type, n) for key, n in zip(KEYS, (2, 3, 0, 1), strict=True)}
        layers = {"fc6": dict(zip(KEYS, unit, strict=True))}
        paths[dtype] = write_file(folder / f"{dtype}.h5", layers, clips={"fc6": clips}, dtype=dtype)
    return paths


@pytest.fixture
def source(sources):
    return sources["float32"]


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


@pytest.mark.parametrize("format", PLAIN)
def test_descriptors_there_and_back_are_the_same_to_the_bit(source, tmp_path, format):
    output = tmp_path / f"out{SUFFIXES[format]}"
    done = export(source, output, format)
    assert (done.unit, done.num_videos, done.num_rows, done.num_dims, done.layer) == ("video", 4, 4, 9, "fc6")
    summary = import_matrix(output, tmp_path / "back.h5", format, layer="fc6")
    assert (summary.num_videos, summary.num_clips, summary.averaged) == (4, 0, False)
    with featx.open(source) as ours, featx.open(tmp_path / "back.h5") as back:
        assert ours.keys == back.keys == KEYS
        assert same_bits(np.array(ours.descriptors("fc6")), np.array(back.descriptors("fc6")))
    assert {path.name for path in tmp_path.iterdir()} == {output.name, "back.h5"}  # nothing half-done


@pytest.mark.parametrize(
    ("format", "dtype"), [(f, "float32") for f in FORMATS] + [("npy", "float16"), ("csv", "float16")]
)
def test_clips_there_and_back_are_the_same_to_the_bit(sources, tmp_path, format, dtype):
    source = sources[dtype]
    output = tmp_path / f"out{SUFFIXES[format]}"
    assert export(source, output, format, clips=True).num_rows == 6
    grid = {"length": 16, "stride": 8} if format == "activitynet" else {}  # which tells nothing of where clips lie
    import_matrix(output, tmp_path / "back.h5", format, layer="fc6", **grid)
    with featx.open(source) as ours, featx.open(tmp_path / "back.h5") as back:
        # a table of clips does not know of a video without any
        held = [key for key in KEYS if key != "d.5/x%FF" or format in ("npy", "activitynet")]
        assert back.keys == held
        for key in held:
            a, b = ours[key], back[key]
            wide = np.float16 if a.clips["fc6"].dtype == np.float16 and format in ("npy", "npz") else np.float32
            assert same_bits(a.clips["fc6"].astype(wide), b.clips["fc6"])
            for name in TABLE[: 2 if grid else 4]:
                assert same_bits(getattr(a.clip_table, name), getattr(b.clip_table, name)), name
    assert not featx.store.problems(tmp_path / "back.h5")


def test_what_other_programs_read(source, tmp_path):
    import pyarrow.parquet

    for format in FORMATS:
        export(source, tmp_path / f"{format}{SUFFIXES[format]}", format, clips=True)
    export(source, tmp_path / "d", "npy")
    export(source, tmp_path / "d.csv", "csv")
    export(source, tmp_path / "d.npz", "npz")
    export(source, tmp_path / "d.parquet", "parquet")
    with featx.open(source) as features:
        videos = {key: features[key] for key in KEYS}
    row_keys = [key for key in KEYS for _ in videos[key].clips["fc6"]]
    rows = np.concatenate([video.clips["fc6"] for video in videos.values()])
    starts = np.concatenate([video.clip_table.start_seconds for video in videos.values()])
    for key, video in videos.items():
        assert same_bits(np.load(tmp_path / f"npy/{key}.npy"), video.clips["fc6"])
        assert same_bits(np.load(tmp_path / f"d/{key}.npy"), video.descriptors["fc6"])
    with open(tmp_path / "npy/clips.csv", newline="", encoding="utf-8") as file:
        assert [(line["key"], float(line["start_seconds"])) for line in csv.DictReader(file)] == list(
            zip(row_keys, starts.tolist(), strict=True)
        )
    arrays = np.load(tmp_path / "npz.npz")
    assert arrays["keys"].tolist() == row_keys and same_bits(arrays["features"], rows)
    assert same_bits(arrays["start_seconds"], starts)
    assert np.load(tmp_path / "d.npz")["keys"].tolist() == KEYS
    with open(tmp_path / "csv.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["key", *TABLE, *(f"fc6_{i}" for i in range(9))] and [line[0] for line in lines] == row_keys
    assert same_bits(np.array([line[5:] for line in lines], np.float64), rows.astype(np.float64))
    with open(tmp_path / "d.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header[:2] == ["key", "fc6_0"] and [line[0] for line in lines] == KEYS
    for name, keys, values in (
        ("parquet", row_keys, rows),
        ("d", KEYS, [v.descriptors["fc6"] for v in videos.values()]),
    ):
        table = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet")
        assert table["key"].to_pylist() == keys
        assert same_bits(np.array(table["features"].to_pylist(), np.float32), np.array(values, np.float32))
    assert json.loads(table.schema.metadata[b"featx"])["checkpoint"] == "c3d-sports1m"
    with h5py.File(tmp_path / "activitynet.h5") as h5:
        assert set(h5) == {"v_b c", "v_ü,\"'", "v_x%FF", "v_z"}
        for key, video in videos.items():
            dataset = h5[f"/v_{key.rpartition('/')[2]}/c3d_features"]
            assert same_bits(dataset[...], video.clips["fc6"].astype(np.float32))


@pytest.mark.parametrize(("format", "kind"), [("npz", "parts"), *((name, "small blocks") for name in FORMATS)])
def test_sets_and_blocks_of_any_size_give_the_same_bytes(tmp_path, monkeypatch, format, kind):
    rows = random_rows(100 if kind == "parts" else 20, 20)
    clips = {
        key: np.outer(np.arange(1, 2 + i % 3), row).astype(np.float32) for i, (key, row) in enumerate(rows.items())
    }
    whole = write_file(tmp_path / "whole.h5", {"fc6": rows}, clips={"fc6": clips})
    other = whole
    if kind == "parts":
        other, clips = in_parts(tmp_path, rows), None
        whole = write_file(tmp_path / "whole.h5", {"fc6": rows})
    outputs = [tmp_path / f"{name}{SUFFIXES[format]}" for name in ("a", "b")]
    export(whole, outputs[0], format, clips=clips is not None)
    monkeypatch.setattr(exports, "BLOCK_VALUES", 100)
    export(other, outputs[1], format, clips=clips is not None)
    if format == "npy":
        files = [{p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in outputs]
        assert files[0] == files[1] and len(files[0]) == 21
    elif format != "parquet":  # a block is a row group there
        assert outputs[0].read_bytes() == outputs[1].read_bytes()


# ------------------------------------------------------------------------------------------------- nothing lies elsewhere


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["../x"], "would lead out of the folder"),
        (["a/.x"], "would be a hidden file"),
        (["a/../../x"], "would lead out of the folder"),
        (["/tmp/x"], "would lead out of the folder"),
        (["a//x"], "is no plain path"),
        (["a\nx"], "no path of one line, and so no name of a file; choose a format of one file"),
        (["."], "is no plain path"),
        (["b/" + "x" * 300], "too long for a file's name"),
        (["a", "a.npy/x"], "a file and a folder at once"),
        (["clips.csv"], None),
    ],
)
def test_keys_that_are_no_file_names_are_refused_before_anything_is_written(tmp_path, keys, words):
    (tmp_path / "in").mkdir()
    path = write_file(tmp_path / "in/f.h5", {"fc6": {key: np.ones(2) for key in keys}})
    if words is not None:
        with pytest.raises(UsageError, match=words):
            export(path, tmp_path / "out", "npy")
        assert [p.name for p in tmp_path.iterdir()] == ["in"]
    else:
        export(path, tmp_path / "out", "npy")
    if "\n" not in keys[0]:
        export(path, tmp_path / "f.npz", "npz")  # keys are text there
        import_matrix(tmp_path / "f.npz", tmp_path / "back.h5", "npz")
        with featx.open(tmp_path / "back.h5") as back:
            assert back.keys == sorted(keys)


def test_two_keys_that_the_disk_takes_for_one_are_refused(tmp_path):
    (tmp_path / "A.npy").touch()  # as a disk that does not tell case apart finds the file of 'a'
    with pytest.raises(UsageError, match="the key 'a' and another one have the same file name"):
        key_paths.create(tmp_path / "A.npy", "a")
    with pytest.raises(UsageError, match="have the same file name"):
        key_paths.create(tmp_path / "A.npy/b.npy", "A.npy/b")


def test_groups_of_one_name_are_refused(tmp_path):
    rows = {"a/x": np.ones(2), "b/v_x": np.ones(2)}
    clips = {key: np.ones((1, 2), np.float32) for key in rows}
    path = write_file(tmp_path / "f.h5", {"fc6": rows}, clips={"fc6": clips})
    with pytest.raises(UsageError, match="'a/x' and 'b/v_x' would both be the group v_x"):
        export(path, tmp_path / "out.h5", "activitynet")
    assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]


# ------------------------------------------------------------------------------------------------- whole, or not there


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_dies_leaves_nothing_and_the_next_is_whole(source, tmp_path, monkeypatch, format):
    output = tmp_path / f"out{SUFFIXES[format]}"

    def dying(self):
        yield from list(chunks(self))[:1]
        raise KeyboardInterrupt

    chunks = exports.Table._chunks
    with monkeypatch.context() as patch:
        patch.setattr(exports, "BLOCK_VALUES", 1)
        patch.setattr(exports.Table, "_chunks", dying)
        with pytest.raises(KeyboardInterrupt):
            export(source, output, format, clips=True)
    assert not list(tmp_path.iterdir())
    aside = tmp_path / f".{output.name}.unfinished"  # what a killed one leaves
    if SUFFIXES[format]:
        aside.write_bytes(b"half" * 9999)
    else:
        aside.mkdir()
        (aside / "half.npy").touch()
    export(source, output, format, clips=True)
    assert [p.name for p in tmp_path.iterdir()] == [output.name]
    assert format != "npy" or not (output / "half.npy").exists()
    import_matrix(output, tmp_path / "back.h5", format)
    with pytest.raises(UsageError, match="exists"):
        export(source, output, format)


def test_a_file_that_another_run_is_writing_is_left_alone(tmp_path):
    with durable.new_file(tmp_path / "a.csv") as aside:
        aside.write_text("half")
        with pytest.raises(UsageError, match="another run is writing"), durable.new_file(tmp_path / "a.csv"):
            raise AssertionError
        aside.write_text("whole")
    assert (tmp_path / "a.csv").read_text() == "whole" and len(list(tmp_path.iterdir())) == 1


def test_exports_that_cannot_be(source, tmp_path, monkeypatch):
    two = write_file(tmp_path / "two.h5", {name: {"a": np.ones(3)} for name in ("fc6", "fc7")})
    for path, name, format, options, error, words in (
        (source, "out.npz", "numpy", {}, UnknownNameError, "unknown format 'numpy'; did you mean 'npy'"),
        (source, "out.txt", "csv", {}, UsageError, "out.txt is a file of the format csv; name it such as out.csv"),
        (source, "out.h5", "activitynet", {"clips": False}, UsageError, "leave --descriptors out"),
        (two, "out.csv", "csv", {}, UsageError, "holds 2 layers; choose one with --layer"),
        (two, "out.csv", "csv", {"layer": "fc8"}, UnknownNameError, "unknown layer 'fc8'"),
        (two, "out.csv", "csv", {"layer": "fc6", "clips": True}, UsageError, "holds descriptors only"),
        (f"{two}:fc6", "out.h5", "activitynet", {}, UsageError, "holds descriptors only"),
    ):
        with pytest.raises(error, match=words):
            export(path, tmp_path / name, format, **options)
    damaged = bytearray(two.read_bytes())
    damaged[damaged.find(np.full(3, 1, "<f4").tobytes())] ^= 1
    two.write_bytes(damaged)
    with pytest.raises(FeatureFileError, match="damaged: rows 0 to 1"):
        export(two, tmp_path / "out.csv", "csv", layer="fc7")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"needs pyarrow.*pip install 'featx\[parquet\]'"):
        export(source, tmp_path / "out.parquet", "parquet")
    (tmp_path / "in.parquet").touch()
    with pytest.raises(UsageError, match="needs pyarrow"):
        import_matrix(tmp_path / "in.parquet", tmp_path / "f.h5", "parquet")
    assert {p.name for p in tmp_path.iterdir()} == {"two.h5", "in.parquet"}


def test_compact_descriptors_keep_their_bits_in_the_files(tmp_path):
    rows = random_rows(20, 8)
    featx.pca(write_file(tmp_path / "f.h5", {"fc6": rows}), tmp_path / "p.h5", dims=3)
    export(tmp_path / "p.h5", tmp_path / "p.npz", "npz")
    with featx.open(tmp_path / "p.h5") as features:
        assert same_bits(np.load(tmp_path / "p.npz")["features"], np.array(features.descriptors("fc6")))


@pytest.mark.parametrize("format", FORMATS)
def test_stdout_is_no_place(source, tmp_path, monkeypatch, format):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="does not go to stdout, which '-' would be"):
        export(source, "-", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["npy", "csv"])
def test_a_name_as_long_as_one_may_be(source, tmp_path, format):
    name = "x" * (255 - len(SUFFIXES[format])) + SUFFIXES[format]
    export(source, tmp_path / name, format)
    assert [path.name for path in tmp_path.iterdir()] == [name]
