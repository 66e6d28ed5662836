"""--timestamps: the frames and seconds of every clip, by hand, and again when a run goes on."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
from brightness import see_brightness
from conftest import write_video
from feature_files import write_file
from test_cli import run as run_cli

import featx
from featx import store
from featx.errors import UsageError
from featx.timestamps import write_timestamps

OPTIONS = {"length": 8, "stride": 8, "frame_step": 1, "engine": "torch"}


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two videos of 25 and, unevenly, 10 frames."""
    see_brightness(monkeypatch)
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v/a, b.mp4", 25)
    write_video(tmp_path / "v/c.mkv", 10, times=[0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 1.5, 1.75, 1.8])
    return tmp_path


def test_the_table_by_hand(folder):
    featx.extract_to(folder / "v", folder / "f.h5", timestamps=folder / "c.csv", **OPTIONS)
    assert (
        (folder / "c.csv").read_text().startswith('key,clip,start_frame,end_frame,start_seconds,end_seconds\n"a, b",0,')
    )
    _, *rows = read(folder / "c.csv")
    exact = [("a, b", "0", "0", "8", "0.0", "0.32"), ("a, b", "1", "8", "16", "0.32", "0.64"),
             ("a, b", "2", "16", "24", "0.64", "0.96"), ("c", "0", "0", "8", "0.0", "1.75")]  # fmt: skip
    assert [row[:4] for row in rows] == [row[:4] for row in exact]
    np.testing.assert_allclose(np.array([row[4:] for row in rows], float), np.array([row[4:] for row in exact], float))
    with featx.open(folder / "f.h5") as features:
        assert not features.has_clips and features.provenance.clip_times == 1
        assert [float(row[5]) for row in rows[:3]] == features.clip_table(
            "a, b"
        ).end_seconds.tolist()  # to the last bit
    assert store.problems(folder / "f.h5") == []


def test_a_run_that_goes_on_lists_all_videos_and_keeps_the_times(folder):
    featx.extract_to(folder / "v/c.mkv", folder / "f.h5", timestamps=folder / "c.csv", **OPTIONS)
    assert len(read(folder / "c.csv")) == 2
    assert featx.extract_to(folder / "v", folder / "f.h5", **OPTIONS).num_videos == 1  # the times are kept unasked
    assert len(read(folder / "c.csv")) == 2
    assert featx.extract_to(folder / "v", folder / "f.h5", timestamps=folder / "c.csv", **OPTIONS).num_videos == 0
    assert len(read(folder / "c.csv")) == 5
    assert write_timestamps(folder / "f.h5", folder / "again.csv") == 4
    assert read(folder / "again.csv") == read(folder / "c.csv")


def test_segments_lie_in_their_video(folder):
    segments = folder / "s.csv"
    segments.write_text(f"path,start_seconds,end_seconds\n{folder}/v/c.mkv,0.1,9e-1\n{folder}/v/a, b.mp4,0.2,0.9\n".replace(
        f"{folder}/v/a, b.mp4", f'"{folder}/v/a, b.mp4"'))  # fmt: skip
    featx.extract_to([], folder / "f.h5", segments=segments, timestamps=folder / "c.csv", save="both", **OPTIONS)
    _, first, second, third = read(folder / "c.csv")
    assert first[:4] == ("a, b/000000.200-000000.900", "0", "5", "13") and second[1:4] == ("1", "13", "21")
    assert [float(v) for v in second[4:]] == pytest.approx([0.52, 0.84])
    assert third[:4] == ("c/000000.100-000000.900", "0", "1", "7") and float(third[5]) == pytest.approx(1.5)


def test_refusals(folder, capsys):
    video, output = folder / "v/c.mkv", folder / "f.h5"
    featx.extract_to(video, output, **OPTIONS)
    before = output.read_bytes()
    with pytest.raises(UsageError, match=r"f.h5 keeps no times of clips, which --timestamps asks for; .*--overwrite"):
        featx.extract_to(video, output, timestamps=folder / "c.csv", **OPTIONS)
    with pytest.raises(UsageError, match="keeps no times of clips; extract with --timestamps"):
        write_timestamps(output, folder / "c.csv")
    (folder / "list.csv").write_text("key,label\n")
    with pytest.raises(UsageError, match=r"list.csv exists and is no table of clips"):
        featx.extract_to(video, folder / "g.h5", timestamps=folder / "list.csv", **OPTIONS)
    os.mkfifo(folder / "pipe")  # opening it would wait for ever
    for place, words in (
        ("g.h5", "is the feature file itself"),
        ("v/../g.h5", "is the feature"),
        ("pipe", "a device, a pipe or a socket"),
    ):
        with pytest.raises(UsageError, match=words):
            featx.extract_to(video, folder / "g.h5", timestamps=folder / place, **OPTIONS)
    assert output.read_bytes() == before and not (folder / "c.csv").exists() and not (folder / "g.h5").exists()
    assert not list(folder.glob(".*.tmp"))
    code, _, _ = run_cli(capsys, "extract", video, "-o", folder / "g.h5", "--timestamps", folder / "c.csv", "--quiet")
    assert code == 0 and read(folder / "c.csv")[1][0] == "c"


def test_images_have_frames_and_no_seconds(tmp_path):
    write_file(tmp_path / "f.h5", {"fc6": {"a": [1, 0]}}, clips={"fc6": {"a": np.ones((1, 2), np.float32)}})
    with featx.open(tmp_path / "f.h5") as features:
        provenance, (video,) = features.provenance, [features[key] for key in features.keys]
    video.clip_table.start_seconds[:] = video.clip_table.end_seconds[:] = np.nan
    store.write_features(tmp_path / "f.h5", provenance, [video])
    write_timestamps(tmp_path / "f.h5", tmp_path / "c.csv")
    assert read(tmp_path / "c.csv")[1] == ("a", "0", "0", "16", "", "")
