"""store.py: what is written comes back, in key order, from one file and from several, and plain h5py can read it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from feature_files import make_provenance

from featx import store
from featx.errors import FeatureFileError, ProvenanceError, UnknownNameError, UsageError
from featx.features import ClipTable, Failure, Features
from featx.provenance import Provenance, common
from featx.store import FeatureSet, merge, open_features, verify, write_features, write_transformed

DIMS = {"fc6": 5, "pool5": 300}


def provenance(save="both", **changes):
    return make_provenance(**{"layers": tuple(DIMS), "save": save, "mean": (1.0, 2.0, 3.5), **changes})


def video(key, num_clips=3, save="both", dtype=np.float32, seed=None):
    rng = np.random.default_rng(sum(key.encode()) if seed is None else seed)
    start = np.arange(num_clips) * 8
    table = ClipTable(start, start + 16, start / 25, (start + 16) / 25)
    clips = {layer: rng.normal(size=(num_clips, d)).astype(dtype) for layer, d in DIMS.items()}
    return Features(
        key=key, path=f"/videos/{key}.avi", num_frames=8 * num_clips + 8, num_clips=num_clips, fps=25.0, duration_seconds=1.5,
        size_bytes=2**40, mtime_ns=10**18, end_seconds=1.5,
        descriptors={} if save == "clips" else {n: c.mean(0).astype(np.float32) for n, c in clips.items()},
        clips={} if save == "descriptors" else clips, clip_table=None if save == "descriptors" else table,
    )  # fmt: skip


def assert_same(one: Features, two: Features):
    for f in dataclasses.fields(Features):
        a, b = getattr(one, f.name), getattr(two, f.name)
        if f.name in ("descriptors", "clips"):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)
        elif f.name == "clip_table" and a is not None:
            assert all(np.array_equal(getattr(a, n), getattr(b, n)) for n in store.SCHEMA["clips"])
        else:
            assert a == b, f.name


@pytest.mark.parametrize("save", ["descriptors", "clips", "both"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_round_trip(tmp_path, save, dtype):
    videos = [video(key, n, save, dtype) for key, n in [("zebra/1", 2), ("ant", 1), ("Müll/%FF\n", 4)]]
    failures = [Failure("broken", "/videos/broken.avi", "an empty file", 7, 8)]
    made = provenance(save, dtype=np.dtype(dtype).name)
    write_features(tmp_path / "f.h5", made, videos, failures)
    verify(tmp_path / "f.h5")
    with open_features(tmp_path / "f.h5") as features:
        assert features.provenance == made
        assert features.keys == ["Müll/%FF\n", "ant", "zebra/1"]
        assert features.failures == failures
        assert (len(features), features.num_clips, features.layers) == (3, 7, tuple(DIMS))
        assert "ant" in features and "broken" not in features
        for v in videos:
            assert_same(features[v.key], v)
        if save != "clips":
            assert np.array_equal(features.descriptors("fc6")[1], videos[1].descriptors["fc6"])
            assert features.descriptors("fc6").dtype == np.float32
        if save != "descriptors":
            in_key_order = np.concatenate([videos[i].clips["pool5"] for i in (2, 1, 0)])
            assert np.array_equal(np.concatenate(list(features.clip_blocks("pool5", rows=2))), in_key_order)


def test_plain_h5py_reads_a_design_matrix(tmp_path):
    videos = [video("b"), video("a")]
    write_features(tmp_path / "f.h5", provenance(), videos)
    with h5py.File(tmp_path / "f.h5") as h5:
        assert np.array_equal(h5["descriptors/fc6"][:], [videos[1].descriptors["fc6"], videos[0].descriptors["fc6"]])
        assert list(h5["videos/key"].asstr()) == ["a", "b"]
        first, count = h5["videos/first_clip"][1], h5["videos/num_clips"][1]
        assert np.array_equal(h5["clips/fc6"][first : first + count], videos[0].clips["fc6"])
        assert h5.attrs["checkpoint"] == "c3d-sports1m"
        assert h5["clips/fc6"].chunks is None  # contiguous: it can be memory-mapped


@pytest.mark.parametrize("save", ["descriptors", "clips", "both"])
def test_merge_equals_writing_at_once_byte_for_byte(tmp_path, save, monkeypatch):
    monkeypatch.setattr(store.schema, "BLOCK_BYTES", 1000)  # many blocks, though the tables are small
    videos = [video(f"v{i:02}", 1 + i % 3, save) for i in range(20)]
    failures = [Failure(f"w{i}", "p", "r") for i in range(3)]
    write_features(tmp_path / "all.h5", provenance(save), videos, failures)
    for i, part in enumerate([videos[0::3], videos[1::3], [], videos[2::3]]):
        write_features(tmp_path / f"part{i}.h5", provenance(save), part, failures[i : i + 1])
    with FeatureSet(sorted(tmp_path.glob("part*.h5"))) as parts:
        assert parts.keys == [v.key for v in videos]
        merge(parts, tmp_path / "merged.h5")
    verify(tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "all.h5").read_bytes()


def test_a_file_and_its_parts_are_one_set_and_the_last_word_counts(tmp_path):
    path = tmp_path / "f.h5"
    store.parts_folder(path).mkdir()
    write_features(path, provenance(), [video("a"), video("b")], [Failure("c", "p", "cut short")])
    write_features(store.parts_folder(path) / "part-00000000.h5", provenance(), [video("c"), video("a", seed=9)])
    write_features(store.parts_folder(path) / "part-00000001.h5", provenance(), [], [Failure("b", "p", "damaged")])
    with open_features(path) as features:
        assert features.keys == ["a", "c"]
        assert [f.key for f in features.failures] == ["b"]
        assert np.array_equal(features["a"].descriptors["fc6"], video("a", seed=9).descriptors["fc6"])
        assert np.array_equal(features.rows("pool5", [1, 0])[0], video("c").descriptors["pool5"])


def test_files_made_differently_do_not_mix(tmp_path):
    write_features(tmp_path / "a.h5", provenance(), [video("a")])
    write_features(tmp_path / "b.h5", provenance(stride=4, batch_size=9), [video("b")])
    with pytest.raises(ProvenanceError, match="stride is 8 in .*a.h5, 4 in .*b.h5") as error:
        open_features(tmp_path)
    assert "batch_size" not in str(error.value)


FREE = {"featx_version", "engine", "batch_size", "shard", "run"}  # all that files of one set may differ in


def changed(name):
    """(field) -> a provenance that differs in it alone."""
    value = getattr(provenance(), name)
    other = {"save": "clips", "dtype": "float16", "layers": ("fc6",)}.get(name)
    if other is None:
        other = (*value, 9.0) if isinstance(value, tuple) else value + ("x" if isinstance(value, str) else 1)
    return dataclasses.replace(provenance(), **{name: other})


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Provenance)])
def test_every_field_but_three_keeps_files_apart(name, tmp_path):
    named = [("one file", provenance()), ("another", changed(name))]
    if name in FREE:
        assert not named[0][1].differences(named[1][1]) and common(named) == named[0][1]
    else:
        assert named[0][1].differences(named[1][1]) == [name]
        with pytest.raises(ProvenanceError, match=f"^{name} is .* in one file, .* in another"):
            common(named)
    if name in ("format", "format_version", "shard"):  # which no reader opens; shards are told apart in test_shards
        return
    for file, (_, made) in zip("ab", named, strict=True):
        write_features(tmp_path / f"{file}.h5", made, [])
    if name in FREE:
        open_features(tmp_path, warn=False).close()
    else:
        with pytest.raises(ProvenanceError, match=f"^{name} is .*a.h5, .*b.h5"):
            open_features(tmp_path)


def test_a_video_in_two_shards_is_an_error(tmp_path):
    for name in "ab":
        write_features(tmp_path / f"{name}.h5", provenance(), [video("same")])
    with pytest.raises(UsageError, match="'same' stands in .*a.h5 and in .*b.h5"):
        open_features(tmp_path)


def test_an_open_set_stays_right_when_its_file_is_replaced(tmp_path):
    path = tmp_path / "f.h5"
    write_features(path, provenance(), [video("a"), video("b")])
    with open_features(path) as features:
        write_features(path, provenance(), [video(f"new{i}", seed=i) for i in range(50)])
        assert np.array_equal(features.descriptors("pool5")[0], video("a").descriptors["pool5"])
        assert_same(features["b"], video("b"))


def test_a_folder_counts_the_parts_of_its_files(tmp_path):
    write_features(tmp_path / "a.h5", provenance(), [video("a")])
    for name, key in [("a.h5", "a2"), ("b.h5", "b")]:  # the second one's run has not come to an end
        store.parts_folder(tmp_path / name).mkdir()
        write_features(store.parts_folder(tmp_path / name) / "part-00000000.h5", provenance(), [video(key)])
    store.parts_folder(tmp_path / "c.h5").mkdir()  # a run that has written nothing yet
    with open_features(tmp_path, warn=False) as features:
        assert features.keys == ["a", "a2", "b"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_video_that_one_shard_has_is_not_lost_to_anothers_failure(tmp_path, order):
    write_features(tmp_path / "a.h5", provenance(), [video("x")], [Failure("y", "p", "damaged")])
    write_features(tmp_path / "b.h5", provenance(), [], [Failure("x", "p", "damaged")])
    with FeatureSet(*([tmp_path / f"{name}.h5"] for name in order)) as features:
        assert features.keys == ["x"] and [f.key for f in features.failures] == ["y"]


def test_a_disk_that_is_full_is_said_and_leaves_the_old_file(tmp_path):
    write_features(tmp_path / "f.h5", provenance(), [video("a")])
    before = (tmp_path / "f.h5").read_bytes()
    program = (
        "import resource, sys, test_store as t\n"
        "sys.dont_write_bytecode = True\n"
        "from featx.errors import FeatxError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: t.write_features(sys.argv[1], t.provenance(), [t.video(str(i)) for i in range(99)])\n"
        "except FeatxError as error: print(error)"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "f.h5")]
    output = subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
    assert output.startswith(f"cannot write {tmp_path}/f.h5: File too large: it needs ") and output.count("\n") == 1
    assert output.endswith("free; make room; what was written before stays, and the same command goes on\n")
    assert (tmp_path / "f.h5").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]


@pytest.mark.parametrize("save", ["descriptors", "both"])
def test_transformed(tmp_path, save):
    class Half:
        num_dims = 2

        def apply(self, block):
            return np.ascontiguousarray(block[:, :2] * 2)

    write_features(tmp_path / "f.h5", provenance(save), [video("b", save=save), video("a", save=save)])
    with open_features(tmp_path / "f.h5") as source:
        bases = {"fc6": {"mean": np.arange(5, dtype="f4"), "fitted_on": "all", "total_variance": 2.5, "whiten": False}}
        write_transformed(source, tmp_path / "g.h5", {"fc6": Half()}, bases=bases)
        with pytest.raises(UsageError, match="exists"):
            write_transformed(source, tmp_path / "g.h5", {"fc6": Half()}, bases=bases)
    verify(tmp_path / "g.h5")
    with open_features(tmp_path / "g.h5") as features:
        assert features.layers == ("fc6",)
        assert np.array_equal(features.descriptors("fc6")[0], video("a").descriptors["fc6"][:2] * 2)
        assert np.array_equal(features.bases["fc6"]["mean"], np.arange(5.0))
        assert features.bases["fc6"]["fitted_on"] == "all" and features.bases["fc6"]["total_variance"] == 2.5
        if save == "both":
            assert np.array_equal(features["b"].clips["fc6"], video("b").clips["fc6"][:, :2] * 2)


def test_what_is_no_feature_file(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    h5py.File(tmp_path / "other.h5", "w").close()
    for name, reason in [
        ("absent.h5", "no such file"),
        ("text.h5", "not an HDF5 file"),
        ("other.h5", "not a feature file"),
    ]:
        with pytest.raises(FeatureFileError, match=reason):
            open_features(tmp_path / name)
    write_features(tmp_path / "new.h5", provenance(format_version=2), [])
    with pytest.raises(FeatureFileError, match="format version 2"):
        open_features(tmp_path / "new.h5")


def test_a_flipped_byte_is_found(tmp_path):
    path = tmp_path / "f.h5"
    write_features(path, provenance(), [video("a"), video("b")])
    with h5py.File(path) as h5:
        place = h5["descriptors/pool5"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[place + 1300] ^= 1
    path.write_bytes(data)
    with pytest.raises(FeatureFileError, match="damaged: rows 0 .* of descriptors/pool5"):
        verify(path)


def test_wrong_names_are_told(tmp_path):
    write_features(tmp_path / "f.h5", provenance("descriptors"), [video("a", save="descriptors")])
    with open_features(tmp_path / "f.h5") as features:
        with pytest.raises(UnknownNameError, match="unknown layer 'fc66'; did you mean 'fc6'"):
            features.descriptors("fc66")
        with pytest.raises(UsageError, match="descriptors only"):
            features.clip_blocks("fc6")
        with pytest.raises(UnknownNameError, match="unknown video 'b'"):
            features["b"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.h5"
    write_features(path, provenance(), [video("a")])
    broken = dataclasses.replace(video("b"), descriptors={"fc6": np.zeros(5, np.float32)})
    with pytest.raises(KeyError):
        write_features(path, provenance(), [broken])
    assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]
    with open_features(path) as features:
        assert features.keys == ["a"]
