"""Feature files from strangers: whatever HDF5 could be made to follow, to run or to allocate is refused with one line."""

from __future__ import annotations

import os
import struct

import h5py
import numpy as np
import pytest
from feature_files import write_file
from test_cli import run

import featx
from featx import store
from featx.c3d_blobs import export_c3d
from featx.errors import FeatureFileError, UsageError
from featx.integrity import check


@pytest.fixture
def path(tmp_path):
    rows = {key: np.eye(4, dtype=np.float32)[i] for i, key in enumerate("abc")}
    clips = {key: np.ones((2, 4), np.float32) for key in "abc"}
    return write_file(tmp_path / "f.h5", {"fc6": rows}, clips={"fc6": clips}, failures=[("z", "no frames")])


def replaced(name, make):
    def change(h5):
        del h5[name]
        make(h5, name)

    return change


def external_storage(h5, name):
    h5.create_dataset(name, (3,), "<i8", external=[("/etc/passwd", 0, 24)])


def virtual(h5, name):
    layout = h5py.VirtualLayout((3, 4), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 4))
    h5.create_virtual_dataset(name, layout)


def gigantic(h5, name):  # contiguous, and never allocated in the file
    space, kind = h5py.h5s.create_simple((10**11, 4)), h5py.h5t.IEEE_F32LE
    h5py.h5d.create(h5.id, name.encode(), kind, space)


def references(h5, name):
    h5.create_dataset(name, data=np.array([h5.ref] * 3, h5py.ref_dtype))


def unknown_filter(h5, name):
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((3, 4))
    stored.set_filter(32999, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(h5.id, name.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3, 4)), stored)


def cycle(h5):
    h5["videos/self"] = h5["/"]


ATTACKS = {
    "external link": (replaced("videos", lambda h5, n: h5.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/"))), "link"),
    "soft link": (replaced("videos/key", lambda h5, n: h5.__setitem__(n, h5py.SoftLink("/videos/path"))), "link"),
    "external storage": (replaced("videos/size_bytes", external_storage), "another file"),
    "virtual": (replaced("descriptors/fc6", virtual), "another file"),
    "filter": (replaced("descriptors/fc6", unknown_filter), "compressed"),
    "gzip bomb": (
        replaced("videos/fps", lambda h5, n: h5.create_dataset(n, (10**12,), "<f8", chunks=(10**6,), compression="gzip")),
        "compressed",
    ),
    "declared rows": (replaced("descriptors/fc6", gigantic), "claims 1,600,000,000,000 bytes"),
    "references": (replaced("videos/mtime_ns", references), "neither numbers nor texts"),
    "hard link round": (cycle, "one name too many"),
    "named type": (lambda h5: h5.__setitem__("videos/type", np.dtype("<f8")), "neither a table nor a group"),
    "other type": (replaced("videos/num_clips", lambda h5, n: h5.create_dataset(n, data=np.zeros(3))), "not a column of"),
    "other rows": (replaced("videos/fps", lambda h5, n: h5.create_dataset(n, data=np.zeros(4))), "has 4 rows"),
    "a matrix short": (
        replaced("descriptors/fc6", lambda h5, n: h5.create_dataset(n, data=np.zeros((2, 4), "f4"))),
        "has 2 rows",
    ),
    "clips beyond": (lambda h5: h5["videos/first_clip"].__setitem__(1, 2**62), "video 1 has clips"),
    "clips before": (lambda h5: h5["videos/first_clip"].__setitem__(1, -2), "video 1 has clips -2"),
    "huge attribute": (lambda h5: h5.attrs.create("mean", np.zeros(7000)), "no number and no short text"),
    "object attribute": (lambda h5: h5.attrs.create("mean", h5.ref, dtype=h5py.ref_dtype), "no number and no short text"),
    "wrong attribute": (lambda h5: h5.attrs.__setitem__("stride", "8"), "which is no int"),
    "layer": (lambda h5: h5.attrs.__setitem__("layers", np.array(["../x"], h5py.string_dtype())), "no name of a layer"),
    "missing table": (lambda h5: h5.__delitem__("videos/fps"), "videos/fps is missing"),
    "keys astray": (lambda h5: h5["videos/key"].__setitem__(0, "x"), "not in order"),
    "key twice": (lambda h5: h5["videos/key"].__setitem__(0, "b"), "stands twice"),
    "no UTF-8": (lambda h5: h5["videos/key"].__setitem__(0, b"\xff"), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_what_no_feature_file_holds_is_refused(path, name):
    change, reason = ATTACKS[name]
    with h5py.File(path, "r+") as h5:
        change(h5)
    with pytest.raises(FeatureFileError, match=reason) as refused:
        featx.open(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)
    assert reason in store.problems(path)[0]


def test_texts_that_share_their_bytes_are_no_way_to_fill_the_memory(path):
    """A thousand rows may point to one text of a megabyte; what they claim together must be in the file."""
    with h5py.File(path, "r+") as h5:
        offset = h5["videos/path"].id.get_offset()
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, offset, 2**31)
    path.write_bytes(data)
    with pytest.raises(FeatureFileError, match="texts claim more bytes"):
        featx.open(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f.h5")
    with pytest.raises(FeatureFileError, match="not a regular file"):
        featx.open(tmp_path / "f.h5")


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "a\nb", "", ".", "a//b", "./a"])
def test_no_key_leads_out_of_the_folder(tmp_path, key):
    clips = {key: np.zeros((1, 4096), np.float32)}
    write_file(tmp_path / "f.h5", {"fc6": {key: np.eye(1, 4096)[0]}}, clips={"fc6": clips})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="would lead out of the folder, or is no plain path|is no path of one line"):
        export_c3d(tmp_path / "f.h5", tmp_path / "in" / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_is_whole_or_not_at_all(tmp_path):
    """Also a key that is another key's file, and a link in the place of what an earlier run left."""
    rows, clips = np.eye(1, 4096)[0], np.zeros((1, 4096), np.float32)
    keys = ["a", "a/000000.fc6-1"]
    write_file(tmp_path / "f.h5", {"fc6": dict.fromkeys(keys, rows)}, clips={"fc6": dict.fromkeys(keys, clips)})
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="cannot write below .*File exists"):
        export_c3d(tmp_path / "f.h5", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "out"] and not any((tmp_path / "out").iterdir())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.unfinished").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        export_c3d(tmp_path / "f.h5", tmp_path / "out")
    (tmp_path / ".out.unfinished").unlink()
    write_file(tmp_path / "f.h5", {"fc6": {"a": rows}}, clips={"fc6": {"a": clips}})
    (tmp_path / ".out.unfinished/b").mkdir(parents=True)  # of a run that died
    (tmp_path / ".out.unfinished/b/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/kept").touch()
    assert export_c3d(tmp_path / "f.h5", tmp_path / "out").num_files == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "output_list_prefix.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "f.h5", "out"]
    assert (tmp_path / "elsewhere/kept").exists()


# ------------------------------------------------------------------------------------------------------------ featx check


def test_check_on_the_command_line(capsys, path):
    code, out, _ = run(capsys, "check", path)
    assert (code, out) == (0, f"{path}: 3 videos in 1 file, all is right\n")
    with h5py.File(path, "r+") as h5:
        h5["descriptors/fc6"][1] = 2
        h5["clips/fc6"][0, 0] = np.nan
    code, out, _ = run(capsys, "check", path)
    assert code == 1 and out.splitlines() == [
        f"{path}: rows 0 to 6 of clips/fc6",
        f"{path}: rows 0 to 3 of descriptors/fc6",
        f"{path}: row 1 of descriptors/fc6 has the length 4, but must have 1",
        f"{path}: row 0 of clips/fc6 holds values that are not finite",
    ]
    assert run(capsys, "check", path, "--json")[0] == 1
    code, _, err = run(capsys, "check", path.parent / "absent.h5")
    assert code == 2 and "no such feature file" in err


def test_attributes_have_a_checksum_too(path):
    with h5py.File(path, "r+") as h5:
        h5.attrs["stride"] = 9
    assert check(path).files[0].problems == (
        "its attributes, which say how it was made, are not those that were written",
    )
    with pytest.raises(FeatureFileError, match="its attributes"):
        store.verify(path)


def test_check_looks_at_the_parts_and_between_them(tmp_path, path):
    folder = store.parts_folder(path)
    folder.mkdir()
    write_file(
        folder / "part-00000000.h5", {"fc6": {"d": np.eye(4)[3]}}, stride=4, clips={"fc6": {"d": np.ones((1, 4), "f4")}}
    )
    report = check(path)
    assert not report.is_good and "stride is 8" in report.problems[0] and len(report.files) == 2
    (folder / "part-00000000.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert check(path).files[1].problems[0].startswith("not an HDF5 file, or damaged")


def content(path):
    with featx.open(path) as features:
        rows = [[*vars(features[key]).values()] for key in features.keys]
        tables = [[vars(value) if hasattr(value, "start_frame") else value for value in row] for row in rows]
        return repr((features.provenance, features.keys, features.failures, tables))


@pytest.mark.parametrize("flips", [5, pytest.param(1000, marks=pytest.mark.long)])
def test_a_flipped_bit_is_found_or_changes_nothing(path, flips, monkeypatch):
    """Also where the HDF5 library crashes or hangs on it: a process of its own reads the file."""
    monkeypatch.setattr("featx.integrity.TIMEOUT_SECONDS", 10)
    rng, data, expected = np.random.default_rng(1), path.read_bytes(), content(path)
    found, used = 0, np.flatnonzero(np.frombuffer(data, np.uint8))  # much of a small file is room that nothing uses
    for i in range(flips):
        place = int(rng.integers(len(data)) if i % 2 else rng.choice(used))
        bit = 1 << int(rng.integers(8))
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        bad = not check(path).is_good
        found += bad
        assert bad or content(path) == expected, (place, bit)
    assert found


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.mp4", "ffconcat version 1.0\nfile real.avi\n"), ("a.m3u8", "#EXTM3U\n#EXTINF:5,\nreal.avi\n#EXT-X-ENDLIST\n")],
)
def test_a_playlist_is_no_way_to_other_files(clips_folder, tmp_path, name, text):
    (tmp_path / "real.avi").write_bytes((clips_folder / "dog/001.avi").read_bytes())
    (tmp_path / name).write_text(text)
    (failure,) = featx.extract_to(tmp_path / name, tmp_path / "f.h5").failures
    assert "not a video" in failure.reason or "not one of the kinds" in failure.reason
