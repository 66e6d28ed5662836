"""Going on knows what it goes on with: damaged files, changed videos, and a disk without room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import h5py
import pytest
from test_cli import run as run_cli
from test_interrupt import ENVIRONMENT
from test_run import same_features

import featx
from featx import parts, run, store
from featx.errors import FeatureFileError, FeatxError, UsageError
from featx.store import sizes


@pytest.fixture
def folder(clips_folder, tmp_path):
    shutil.copytree(clips_folder, tmp_path / "v")
    return tmp_path / "v"


@pytest.fixture(scope="module")
def made(clips_folder, tmp_path_factory):
    """An output in three parts, as a killed run leaves it, and one that was not interrupted."""
    output = tmp_path_factory.mktemp("made") / "f.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_SECONDS", 0)
        patch.setattr(parts.Parts, "finish", lambda self: [])
        featx.extract_to(clips_folder, output)
    featx.extract_to(clips_folder, output.with_name("whole.h5"))
    return output.parent


@pytest.fixture
def in_parts(made, tmp_path):
    """A copy of it: (the output in parts, the whole one)."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made/f.h5", tmp_path / "made/whole.h5"


def damage(path):
    with h5py.File(path) as h5:
        place = h5["descriptors/pool5"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[place + 1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["a bit", "cut", "empty"])
def test_a_damaged_part_is_named_and_set_aside_alone(in_parts, clips_folder, how, capsys):
    folder, (output, whole) = clips_folder, in_parts
    _, second, *_ = sorted(store.parts_folder(output).glob("part-*.h5"))
    if how == "a bit":
        damage(second)
    else:
        os.truncate(second, 3000 if how == "cut" else 0)
    with pytest.raises(FeatureFileError, match=f"^{second}: .*'--repair' sets this one file aside"):
        featx.extract_to(folder, output)
    assert second.exists() and not output.exists()
    code, out, _ = run_cli(capsys, "extract", folder, "-o", output, "--repair")
    assert code == 0 and "1 videos done" in out and f"it is now {output}.{second.name}.damaged" in out
    assert same_features(output, whole)
    assert output.with_name(f"{output.name}.{second.name}.damaged").exists()


def test_a_damaged_output_is_named_before_anything_is_computed(folder, tmp_path, monkeypatch):
    output = tmp_path / "f.h5"
    featx.extract_to(folder, output)
    damage(output)
    monkeypatch.setattr(run, "Extractor", None)
    with pytest.raises(FeatureFileError, match=f"{output}: damaged: rows .*--repair"):
        featx.extract_to(folder, output)
    monkeypatch.undo()
    assert featx.extract_to(folder, output, repair=True).num_videos == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "f.h5.damaged", "v"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shard": "2/2"}, "holds all videos, .* this run makes shard 2/2"),
        ({"batch_size": 3}, "batch_size is .*, 3 in"),
    ],
)
def test_what_another_run_wrote_while_this_one_began_is_not_mixed_with_it(
    in_parts, clips_folder, monkeypatch, options, told
):
    output = in_parts[1]
    before = output.read_bytes()
    monkeypatch.setattr("featx.resume.recorded", lambda *_: None)  # nothing was there when this run looked
    with pytest.raises(UsageError, match=told):
        featx.extract_to(clips_folder / "dog", output, **options)
    assert output.read_bytes() == before


def test_what_is_finished_is_written_though_the_next_video_takes_an_hour(in_parts, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_SECONDS", 0.5)
    with featx.open(in_parts[1]) as features, parts.Parts(tmp_path / "late.h5") as late:
        late._written_at += 0.2
        late.add(features["dog/000"], features.provenance)
        while not late.count():  # no further result comes
            time.sleep(0.05)
        assert featx.open(tmp_path / "late.h5").keys == ["dog/000"]


def test_contents_tell_changed_videos_where_their_hashes_are_stored(folder, tmp_path):
    output, notes = tmp_path / "f.h5", []
    featx.extract_to(folder / "dog", output, content_hash=True)
    with featx.open(output) as features:
        stat = (folder / "dog/001.avi").stat()
        assert len(features["001"].sha256) == 64
    os.utime(folder / "dog/000.mp4")  # touched, not changed
    assert featx.extract_to(folder / "dog", output).changed == ["000"]
    assert featx.extract_to(folder / "dog", output, content_hash=True, on_note=notes.append).changed == []
    assert not notes
    data = bytearray((folder / "dog/001.avi").read_bytes())
    data[-1] ^= 1  # the same size and the same time, but another content
    (folder / "dog/001.avi").write_bytes(data)
    os.utime(folder / "dog/001.avi", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    assert featx.extract_to(folder / "dog", output).changed == ["000"]
    summary = featx.extract_to(folder / "dog", output, content_hash=True, refresh=True)
    assert (summary.changed, summary.num_videos) == (["001"], 1)
    assert featx.extract_to(folder / "dog", output, content_hash=True).changed == []


def test_videos_without_a_hash_are_told(folder, tmp_path):
    output, notes = tmp_path / "f.h5", []
    featx.extract_to(folder, output)
    featx.extract_to(folder, output, content_hash=True, on_note=notes.append)
    assert any("3 videos were extracted without --hash" in note for note in notes)


# ------------------------------------------------------------------------------------------------------------ a full disk


def test_a_disk_without_room_is_told_before_the_run(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store.schema, "free_bytes", lambda path: 9_000_000)
    monkeypatch.setattr(store, "free_bytes", lambda path: 8_400_000)
    code, out, _ = run_cli(capsys, "extract", folder, "-o", tmp_path / "f.h5", "--dry-run")
    assert code == 0 and "kB of feature file" in out and f"the disk of {tmp_path / 'f.h5'} has 11.4 kB free" in out
    monkeypatch.setattr(sizes, "TEXT_CELL_BYTES", 10**6 // 5)  # a video has five texts
    with pytest.raises(FeatxError, match=r"f.h5 needs 3.0 MB for 3 videos, but its disk has 0.0 MB free; make room"):
        featx.extract_to(folder, tmp_path / "f.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v"]


def test_parts_stay_where_the_disk_has_no_room_to_join_them(in_parts, clips_folder, monkeypatch):
    output, whole = in_parts
    monkeypatch.setattr(store, "free_bytes", lambda path: 10_000_000 if path == output.parent else 0)
    assert featx.extract_to(clips_folder, output).parts_left == 4  # and the empty one that tells that the run ended
    assert same_features(output, whole)


FULL = """
import resource, sys
from featx import cli, parts
add = parts.Parts.add
def limited(*args):
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))  # now the decoders have their memory
    return add(*args)
parts.Parts.add = limited
cli.main(sys.argv[1:])
"""


def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_it_goes_on(clips_folder, tmp_path):
    args = [
        "extract",
        str(clips_folder),
        "-o",
        str(tmp_path / "f.h5"),
        "--quiet",
        "--save",
        "clips",
        "--layer",
        "res5b",
    ]
    full = subprocess.run([sys.executable, "-c", FULL, *args], capture_output=True, text=True, env=ENVIRONMENT)
    assert full.returncode == 2 and full.stdout == "", full
    (line,) = full.stderr.splitlines()
    assert "cannot write" in line and "bytes or more" in line and "free; make room" in line and "goes on" in line
    assert not (tmp_path / "f.h5").exists() and not list(tmp_path.rglob("*.tmp"))
    assert featx.extract_to(clips_folder, tmp_path / "f.h5", save="clips", layers=["res5b"]).num_videos == 3
    assert store.problems(tmp_path / "f.h5") == []
