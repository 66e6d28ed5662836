"""A folder of feature files is one feature file to every command; many files need few handles, and merging little memory."""

import os
import resource
import shutil
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from feature_files import make_provenance, write_file

import featx
from featx import store
from featx.cli import main
from featx.errors import FeatureFileError, FeatxError, ProvenanceError
from featx.store import reader

KEYS = [f"{name}/{number}" for name in ("jump", "run") for number in range(6)]
RNG = np.random.default_rng(5)
ROWS = {key: np.abs(RNG.standard_normal(8)).astype(np.float32) for key in KEYS}
ROWS = {key: row / np.linalg.norm(row) for key, row in ROWS.items()}
CLIPS = {key: RNG.standard_normal((1 + i % 3, 8)).astype(np.float32) for i, key in enumerate(KEYS)}

# every command that reads a feature file: F stands for it, OUT for a folder to write in, W for that of the lists
COMMANDS = {
    "info": "info F",
    "check": "check F",
    "merge": "merge F -o OUT/m.h5",
    "export": "export F --format npy -o OUT/npy",
    "export clips": "export F --format csv --clips -o OUT/c.csv",
    "pca": "pca F -o OUT/p.h5 --dims 3",
    "svm-eval": "svm-eval F --dataset folders",
    "svm-fit": "svm-fit F --labels folders -o OUT/m.h5",
    "svm-predict": "svm-predict F --model W/model.h5",
    "search": "search F --query run/1 -k 3",
    "search clips": "search F --query run/1 -k 3 --clips",
    "search duplicates": "search F --duplicates --threshold 0.9",
    "similarity": "similarity F W/pairs.csv",
    "report": "report F -o OUT/r.html",
    "embed": "embed F -o OUT/e.png --method pca --csv OUT/e.csv",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """one.h5, and the same videos in many/: five files, one of them with a part, and one without videos."""
    folder = tmp_path_factory.mktemp("world")
    write_file(folder / "one.h5", {"fc6": ROWS}, clips={"fc6": CLIPS}, engine="torch-cpu")
    (folder / "many").mkdir()
    for name, keys in (
        ("a", KEYS[0::4]),
        ("b", KEYS[1::4]),
        ("c", KEYS[2::4]),
        ("d.h5.parts/part-0", KEYS[3::4]),
        ("e", []),
    ):
        path = folder / f"many/{name}.h5"
        path.parent.mkdir(exist_ok=True)
        own = {"fc6": {key: CLIPS[key] for key in keys}}
        rows = {"fc6": {key: ROWS[key] for key in keys}}
        write_file(path, rows, clips=own, save="both", engine="torch-cpu", run="ended")
    (folder / "pairs.csv").write_text(
        "first,second,same,fold\nrun/0,run/1,1,1\njump/0,run/1,0,1\nrun/2,run/3,1,2\nrun/2,jump/3,0,2\n"
    )
    featx.svm_fit(folder / "one.h5", folder / "model.h5", labels="folders")
    return folder


def said(capsys, world, line, features, out):
    """What a command prints of a feature set, with the names of files made alike."""
    out.mkdir(exist_ok=True)
    words = [word.replace("OUT", str(out)).replace("W/", f"{world}/") for word in line.split()]
    with pytest.raises(SystemExit) as ended:
        main([str(features) if word == "F" else word for word in words])
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out.replace(str(features), "F").replace(str(out), "OUT").replace(f"({features.name}, ", "(F, ")


@pytest.mark.parametrize("files_open", [reader.MAX_OPEN, 0])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_is_one_file_to_every_command(capsys, world, tmp_path, monkeypatch, name, files_open):
    if name == "embed":
        pytest.importorskip("matplotlib", reason="draws a picture")
    monkeypatch.setattr(reader, "MAX_OPEN", files_open)
    one = said(capsys, world, COMMANDS[name], world / "one.h5", tmp_path / "one")
    many = said(capsys, world, COMMANDS[name], world / "many", tmp_path / "many")
    if name in ("info", "check"):  # which tell of the files too
        assert "12 videos" in one and "12 videos" in many
    else:
        assert many == one
    for path in (tmp_path / "one").rglob("*"):
        if path.suffix in (".csv", ".npy", ".txt"):
            assert path.read_bytes() == (tmp_path / "many" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.parametrize("files_open", [reader.MAX_OPEN, 0])
def test_a_folder_holds_what_the_file_holds(world, monkeypatch, files_open):
    monkeypatch.setattr(reader, "MAX_OPEN", files_open)
    with featx.open(world / "one.h5") as one, featx.open(world / "many") as many:
        assert many.keys == one.keys == sorted(KEYS) and many.num_clips == one.num_clips
        for name in store.SCHEMA["videos"]:
            if name != "first_clip":
                assert np.array_equal(one.column(name), many.column(name)), name
        for read in (lambda f: f.descriptors("fc6"), lambda f: f.rows("fc6", [7, 2, 2]), lambda f: f.rows("fc6", []),
                     lambda f: f.clip_rows("fc6", [9, 0, 3]), lambda f: f.clip_column("end_seconds"),
                     lambda f: np.concatenate(list(f.clip_blocks("fc6", 5)))):  # fmt: skip
            assert np.array_equal(read(one), read(many))
        for key in KEYS:
            assert np.array_equal(many[key].descriptors["fc6"], ROWS[key])
            assert np.array_equal(many[key].clips["fc6"], CLIPS[key])
            assert np.array_equal(many[key].clip_table.start_frame, one[key].clip_table.start_frame)
        assert "run/9" not in many and 3 not in many and "run/3" in many


def made_up(folder, num_files, rows_each, num_dims):
    """Files of random videos, with the keys of all of them mixed; key -> row."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), {}
    for i in range(num_files):
        own = {f"v{num_files * j + i:06d}": rng.standard_normal(num_dims).astype(np.float32) for j in range(rows_each)}
        write_file(folder / f"{i}.h5", {"fc6": own})
        rows |= own
    return rows


@contextmanager
def few_handles(number):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_files_need_few_handles(tmp_path):
    rows = made_up(tmp_path / "many", 90, 3, 4)
    num_open = len(os.listdir("/proc/self/fd"))
    with few_handles(num_open + 40), featx.open(tmp_path / "many") as features:
        assert len(os.listdir("/proc/self/fd")) < num_open + 5
        assert np.array_equal(features.descriptors("fc6"), [rows[key] for key in sorted(rows)])
        assert features.column("path").tolist() == [f"/videos/{key}.avi" for key in sorted(rows)]
        assert len(store.pieces(features, "fc6")) == 90


def test_of_many_files_one_that_was_replaced_is_named(world, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_OPEN", 0)
    shutil.copytree(world / "many", tmp_path / "many")
    with featx.open(tmp_path / "many") as features:
        shutil.copy(world / "many/b.h5", tmp_path / "many/b.h5.new")
        os.replace(tmp_path / "many/b.h5.new", tmp_path / "many/b.h5")
        for read in (lambda: features.descriptors("fc6"), lambda: features.column("path")):
            with pytest.raises(FeatureFileError, match="b.h5 was replaced while it was read"):
                read()
        (tmp_path / "many/b.h5").unlink()
        with pytest.raises(FeatureFileError, match="b.h5: no such file"):
            features.descriptors("fc6")


@pytest.mark.parametrize("files_open", [reader.MAX_OPEN, 0])
def test_what_does_not_belong_into_a_folder_is_named(world, tmp_path, monkeypatch, files_open):
    monkeypatch.setattr(reader, "MAX_OPEN", files_open)

    def refused(name, content, error, told):
        folder = tmp_path / name
        shutil.copytree(world / "many", folder)
        content(folder / f"{name}.h5")
        with pytest.raises(error, match=told):
            featx.open(folder)

    refused("foreign", lambda path: path.write_text("no HDF5"), FeatureFileError, "foreign.h5: not an HDF5 file")
    whole = (world / "many/a.h5").read_bytes()
    refused("cut", lambda path: path.write_bytes(whole[:3000]), FeatureFileError, "cut.h5: .*damaged")
    refused("twice", lambda path: path.write_bytes(whole), FeatxError, "'jump/0' stands in .*a.h5 and in .*twice.h5")
    other, clips = {"fc6": {"x": [1] * 8}}, {"fc6": {"x": np.ones((1, 8), np.float32)}}
    refused("other", lambda path: write_file(path, other, clips=clips, stride=4, engine="torch-cpu"),
            ProvenanceError, "stride is 8 in .*a.h5, 4 in .*other.h5")  # fmt: skip
    refused("folder", lambda path: path.mkdir(), FeatureFileError, "folder.h5: not a regular file")


def test_merging_takes_little_memory(tmp_path):
    """32 MB of descriptors, in 4 files, through blocks of 4 MB."""
    made_up(tmp_path / "many", 4, 512, 4096)
    tracemalloc.start()
    try:
        assert featx.merge([tmp_path / "many"], tmp_path / "all.h5") == 2048
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "all.h5").stat().st_size > 32 * 2**20
    assert peak < 14 * 2**20, f"{peak / 2**20:.1f} MB"
    with featx.open(tmp_path / "many") as many, featx.open(tmp_path / "all.h5") as merged:
        assert np.array_equal(many.descriptors("fc6"), merged.descriptors("fc6"))
        assert merged.provenance == make_provenance(shard="")
