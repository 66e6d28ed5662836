"""c3d_lists.py, and extraction from such lists: exactly the clips listed, resumed, and never mixed with others."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import write_noise_video
from test_cli import run

import featx
from featx.c3d_lists import read_c3d_lists
from featx.dry_run import dry_run
from featx.errors import ProvenanceError, UsageError
from featx.extractor import Extractor
from featx.plan import VideoItem, plan_videos
from featx.run import extract_to
from featx.video import read_frames


def write_list(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_lines_are_grouped_by_video(tmp_path):
    first = write_list(tmp_path / "1.txt", "v/a b.avi 16 3", "frames/c/ 1 -1", "", "v/a b.avi\t0\t3 ")
    second = write_list(tmp_path / "2.txt", "frames/c 33 -1", "./v/a b.avi 8 03")
    videos = [(str(v.path), v.starts, v.label) for v in read_c3d_lists([first, second])]
    assert videos == [("v/a b.avi", [0, 8, 16], "3"), ("frames/c", [1, 33], "-1")]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["a.avi 0"], r"line 1: 'a.avi 0' is not 'path start_frame label'"),
        (["a.avi 0 1", "b.avi -8 1"], r"line 2: 'b.avi -8 1' is not"),
        ([f"a.avi {'9' * 5000} 1"], "is not 'path start_frame label'"),
        ([f"a.avi 0 {'9' * 5000}"], "is not 'path start_frame label'"),
        (["a.avi 0 archery"], "is not 'path start_frame label'"),
        (
            ["a.avi 0 1", "b.avi 0 2", "a.avi 0 1"],
            r"line 3: the clip of a.avi from 0 on is listed already \(.*line 1\)",
        ),
        (["a.avi 0 1", "", "a.avi 8 2"], r"line 3: a.avi has the label 2, but 1 in .*line 1"),
        ([], "names no clips"),
    ],
)
def test_lists_that_are_not_understood(tmp_path, lines, reason):
    with pytest.raises(UsageError, match=reason):
        plan_videos([], c3d_lists=write_list(tmp_path / "l.txt", *lines))


def test_the_plan_holds_starts_and_labels(tmp_path):
    (tmp_path / "v1.5").mkdir()
    listed = write_list(tmp_path / "l.txt", f"{tmp_path}/v1.5 17 4", f"{tmp_path}/v1.5/ 1 4", f"{tmp_path}/b.avi 0 7")
    assert plan_videos([], c3d_lists=[listed]) == [
        VideoItem("b", tmp_path / "b.avi", (0,), "7"),
        VideoItem("v1.5", tmp_path / "v1.5", (1, 17), "4"),
    ]
    with pytest.raises(UsageError, match="cannot be taken with it"):
        plan_videos([tmp_path], c3d_lists=[listed])
    (tmp_path / "b.avi").touch()
    (tmp_path / "b.mp4").symlink_to(tmp_path / "b.avi")
    with pytest.raises(UsageError, match="two videos have the key 'b'"):  # one file, but two sets of clips
        plan_videos([], c3d_lists=write_list(tmp_path / "m.txt", f"{tmp_path}/b.avi 0 7", f"{tmp_path}/b.mp4 8 7"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """videos/a.avi, videos/b.avi, and frames/a with the frames of a.avi, numbered from 1."""
    folder = tmp_path_factory.mktemp("listed")
    for name, num_frames in (("a", 60), ("b", 33)):
        (folder / "videos").mkdir(exist_ok=True)
        write_noise_video(folder / f"videos/{name}.avi", num_frames, seed=num_frames)
    (folder / "frames/a").mkdir(parents=True)
    for frame in read_frames(folder / "videos/a.avi"):
        cv2.imwrite(str(folder / f"frames/a/{frame.index + 1:06d}.png"), frame.pixels)
    return folder


def test_a_video_gets_exactly_the_listed_clips(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    dense = featx.extract("videos/a.avi", stride=1, save="clips").clips["pool5"]
    starts = [0, 3, 4, 40, 45]  # overlapping, then far apart, the last one ending with the video
    videos = write_list(tmp_path / "v.txt", *(f"videos/a.avi {start} 5" for start in reversed(starts)))
    frames = write_list(tmp_path / "f.txt", *(f"frames/a/ {start + 1} 5" for start in starts))
    for listed in (videos, frames):
        assert dry_run([], c3d_lists=listed).videos == [("a", 60, 5)]
        extract_to([], tmp_path / f"{listed.name}.h5", c3d_lists=listed, save="both")
        with featx.open(tmp_path / f"{listed.name}.h5") as features:
            a = features["a"]
            assert a.clip_table.start_frame.tolist() == starts and a.label == "5" and a.num_clips == 5
            assert a.clip_table.end_frame.tolist() == [start + 15 for start in starts]
            assert np.array_equal(a.clips["pool5"], dense[starts])
            mean = dense[starts].astype(np.float64).mean(0)
            assert np.allclose(a.descriptors["pool5"], mean / np.linalg.norm(mean), atol=1e-6)
            assert features.provenance.stride == 0


def test_a_clip_beyond_the_end_costs_its_video(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    listed = write_list(tmp_path / "l.txt", "videos/a.avi 0 1", "videos/a.avi 46 1", "frames/a 0 2", "videos/b.avi 8 2")
    summary = extract_to([], tmp_path / "f.h5", c3d_lists=listed)
    reasons = {failure.key: failure.reason for failure in summary.failures}
    assert summary.num_videos == 1 and reasons == {
        "videos/a": "a clip of 15 frames is listed from frame 46 (counted from 0) on, but there are 60 frames",
        "frames/a": "a clip is listed from 0 on, but the first image is 1",
    }
    result = dry_run([], c3d_lists=listed)
    assert {failure.key: failure.reason for failure in result.failures} == reasons and result.num_clips == 1


def test_a_second_run_goes_on_and_notices_another_list(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    output = tmp_path / "f.h5"
    listed = write_list(tmp_path / "l.txt", "videos/a.avi 0 1", "videos/a.avi 20 1")
    assert extract_to([], output, c3d_lists=listed).num_videos == 1
    write_list(listed, "videos/a.avi 0 1", "videos/a.avi 20 1", "videos/b.avi 4 2")
    summary = extract_to([], output, c3d_lists=listed)
    assert (summary.num_present, summary.num_videos, summary.changed) == (1, 1, [])
    for lines in (
        ["videos/a.avi 0 1", "videos/a.avi 21 1"],
        ["videos/a.avi 0 1"],
        ["videos/a.avi 0 7", "videos/a.avi 20 7"],
    ):
        write_list(listed, *lines)
        summary = extract_to([], output, c3d_lists=listed)
        assert (summary.changed, summary.num_videos) == (["a"], 0)
    assert extract_to([], output, c3d_lists=listed, refresh=True).num_videos == 1
    with featx.open(output) as features:
        assert features["a"].label == "7" and features["b"].label == "2"
        assert features["a"].clip_table.start_frame.tolist() == [0, 20] and not features["a"].clips
    assert featx.merge([output], tmp_path / "copy.h5") == 2
    featx.pca(output, tmp_path / "small.h5", dims=1)
    for copy in (tmp_path / "copy.h5", tmp_path / "small.h5"):
        with featx.open(copy) as features:
            assert features["a"].clip_table.start_frame.tolist() == [0, 20]
    with pytest.raises(ProvenanceError, match="stride is 0 in .*, 8 in this run"):
        extract_to("videos", output)
    extract_to("videos", tmp_path / "plain.h5")
    with pytest.raises(ProvenanceError, match="stride"):
        featx.merge([output, tmp_path / "plain.h5"], tmp_path / "both.h5")


def test_the_command(capsys, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    listed = write_list(tmp_path / "l.txt", "videos/a.avi 0 1", "videos/a.avi 8 1", "videos/b.avi 0 2")
    code, out, _ = run(capsys, "extract", "--c3d-list", listed, "-o", tmp_path / "f.h5")
    assert code == 0 and "2 videos done, 3 clips" in out
    code, out, _ = run(capsys, "extract", "--c3d-list", listed, "--dry-run")
    assert code == 0 and "a: 60 frames, 2 clips" in out
    write_list(listed, "videos/a.avi 0 1", "videos/a.avi 9 1")
    code, out, _ = run(capsys, "extract", "--c3d-list", listed, "-o", tmp_path / "f.h5")
    assert code == 0 and "other clips listed, such as 'a' (--refresh redoes them)" in out
    for options, reason in (
        (["--stride", "4"], "stride is 4, but the starts of clips are listed"),
        (["--clips", "4"], "4 evenly spread clips are asked for, but their starts are listed"),
        (["--fps", "4"], "fps is 4, but the starts of clips are listed"),
        (["--tail", "pad"], "never completed"),
        (["videos"], "cannot be taken with it"),
        (["--c3d-list", "absent.txt"], "cannot read the list absent.txt"),
    ):
        code, _, err = run(capsys, "extract", "--c3d-list", listed, *options, "-o", tmp_path / "g.h5")
        assert code == 2 and reason in err and "Traceback" not in err


def test_starts_in_python(place):
    a = place / "videos/a.avi"
    with Extractor(listed_clips=True) as extractor:
        (features,) = extractor.extract_many([VideoItem("a", a, (7, 9), "x")])
        assert (features.num_clips, features.label, features.clip_table.start_frame.tolist()) == (2, "x", [7, 9])
        with pytest.raises(UsageError, match="'a' must come with listed_starts"):
            extractor.extract(a)
    with Extractor() as extractor, pytest.raises(UsageError, match="'a' must come with listed_starts"):
        list(extractor.extract_many([VideoItem("a", a, (7, 9))]))


def test_two_ways_to_write_a_path_are_one_video(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/v.mp4 0 1\n{tmp_path}/a/../a/v.mp4 16 1\n")
    (video,) = read_c3d_lists([tmp_path / "list.txt"])
    assert video.starts == [0, 16]
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a/v.mp4 0 1\n{tmp_path}/a/../a/v.mp4 16 2\n")
    with pytest.raises(UsageError, match="has the label 2, but 1 in"):
        read_c3d_lists([tmp_path / "list.txt"])


def test_a_c3d_list_given_as_a_list_of_videos(tmp_path):
    (tmp_path / "l.txt").write_text("v.mp4 0 1\nv.mp4 16 1\n")
    with pytest.raises(UsageError, match="name it with --c3d-list"):
        plan_videos([], lists=[tmp_path / "l.txt"])
