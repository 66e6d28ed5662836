"""Segments of longer videos: the lists, the frames that belong, their clips, and what a feature file keeps of them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from brightness import frames_of, see_brightness
from conftest import write_video
from test_cli import run as run_cli

import featx
from featx import feeder, store
from featx.dry_run import dry_run
from featx.errors import UsageError, VideoError
from featx.plan import plan_videos
from featx.segments import Segment, is_segment_key, read_segments

HEADER = "path,start_seconds,end_seconds,label\n"
EXACT = {"codec": "ffv1"}  # without a loss: every frame has its own brightness
OPTIONS = {"stride": 4, "frame_step": 1, "save": "both", "engine": "torch"}  # clips of 8 frames


@pytest.fixture
def folder(tmp_path):
    """a.mkv, 60 frames at 25 a second, b.mkv, 40 frames; frame i is as bright as 16 + 3 i."""
    write_video(tmp_path / "a.mkv", 60, **EXACT)
    write_video(tmp_path / "b.mkv", 40, **EXACT)
    return tmp_path


def listed(folder, rows, name="segments.csv"):
    (folder / name).write_text(HEADER + "".join(f"{folder}/{row}\n" for row in rows))
    return folder / name


# -------------------------------------------------------------------------------------------------------------- the list


def test_a_list_is_read_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'Label,end_seconds, path ,start_seconds,note\r\nHighJump, 20 ,"a, b.mp4",12.5,x\r\n\r\n,1e1,d/ü.mp4,0,\r\n'
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second = read_segments("s.csv")
    assert (str(first.path), first.segment, first.label) == ("a, b.mp4", Segment(12.5, 20.0), "HighJump")
    assert (str(second.path), second.segment, second.label) == ("d/ü.mp4", Segment(0.0, 10.0), "")
    keys = ["a, b/000012.500-000020.000", "d/ü/000000.000-000010.000"]
    items = plan_videos([], segments="s.csv")
    assert [item.key for item in items] == keys and all(map(is_segment_key, keys))
    assert items[0].label == "HighJump" and not is_segment_key("a/b") and not is_segment_key(keys[0][3:-4])
    whole = plan_videos([], segments="s.csv", keys_from="path")
    assert whole[0].key == "a, b.mp4/000012.500-000020.000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is nothing, but must name the columns once, here path"),
        ("a.mp4,1,2,x\n", "its first line is 'a.mp4,1,2,x'"),
        ("path,start_seconds,label\n", "here end_seconds"),
        ("path,start_seconds,end_seconds,path\n", "here path"),
        (HEADER, "lists no segments"),
        (HEADER + "a.mp4,1,2,x\na.mp4,1,2\n", "line 3: 'a.mp4,1,2' has 3 cells, but the first line names 4"),
        (HEADER + "a, b.mp4,1,2,x\n", "line 2: .* 5 cells.* in quotes"),
        (HEADER + ",1,2,x\n", "line 2: .* names no video"),
        (HEADER + "\n\na.mp4,one,2,x\n", "line 4: start_seconds is 'one', but must be a number of seconds"),
        (HEADER + "a.mp4,1,,x\n", "line 2: end_seconds is ''"),
        (HEADER + "a.mp4,-1,2,x\n", "line 2: a segment is from -1 to 2 s, but times are from 0"),
        (HEADER + "a.mp4,1,nan,x\n", "line 2: a segment is from 1 to nan s"),
        (HEADER + "a.mp4,2,2,x\n", "line 2: .* must end after it starts"),
        (HEADER + "a.mp4,1,2,x\na.mp4,1.0001,2,y\n", r"line 3: the segment 'a/0.*' is listed already \(.*line 2\)"),
        (HEADER + "a.mp4,1,2,x\na.avi,1,2,x\n", "two videos have the key 'a/0.*: a.mp4 and a.avi"),
        (HEADER + "http://127.0.0.1/a.mp4,1,2,x\n", "line 2: http://127.0.0.1/a.mp4 is an address"),
        (HEADER + 'a.mp4,1,2,"x\n', "no CSV"),
    ],
)
def test_mistakes_name_the_line(tmp_path, text, message):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        plan_videos([], segments=tmp_path / "s.csv")


@pytest.mark.parametrize("second", ["a.mp4,1,2,y\n", "a.mp4,1.0001,2,x\n"])
def test_lists_that_disagree_are_refused(tmp_path, second):
    lists = [tmp_path / "s.csv", tmp_path / "t.csv"]
    for path, row in zip(lists, ("a.mp4,1,2,x\n", second), strict=True):
        path.write_text(HEADER + row)
    with pytest.raises(UsageError, match=r"'a/0.*' is listed twice, with the labels 'x' and '[xy]', or times"):
        plan_videos([], segments=lists)
    assert len(plan_videos([], segments=[lists[0], lists[0]])) == 1


def test_many_segments_of_a_video_take_several_passes(folder, monkeypatch):
    rows = [f"a.mkv,{i / 10},{i / 10 + 0.8},x" for i in range(5)]
    files = [folder / "one.h5", folder / "three.h5"]
    for most, file in zip((5, 2), files, strict=True):
        monkeypatch.setattr(feeder, "PASS_SEGMENTS", most)
        featx.extract_to([], file, segments=listed(folder, rows), **OPTIONS)
    with featx.open(files[0]) as one, featx.open(files[1]) as three:
        assert one.keys == three.keys and len(one) == 5
        for key in one.keys:
            assert np.array_equal(one[key].clips["pool5"], three[key].clips["pool5"])


def test_times_are_compared_to_the_microsecond():
    segment = Segment(0.48, 1.0)
    assert [segment.holds(t) for t in (0.44, 0.4799999999, 0.48, 0.96, 0.9999999999, 1.0)] == [0, 1, 1, 1, 0, 0]
    assert segment.num_frames(25, 2.4) == sum(segment.holds(i / 25) for i in range(60)) == 13
    assert Segment(1, 2.5).num_frames(29.97, 2.4) == sum(1 <= i / 29.97 < 2.4 for i in range(90))
    with pytest.raises(VideoError, match=r"ends at 3.000 s, but the video at 2.400 s"):
        Segment(1, 3).num_frames(25, 2.4)


# ------------------------------------------------------------------------------------------------------------- the frames


def test_the_frames_from_start_to_end_belong(folder, monkeypatch):
    see_brightness(monkeypatch)
    rows = ["a.mkv,0.4,0.88,x", "a.mkv,0.6,1.2,y", "b.mkv,0,0.2,", "a.mkv,1.99,2.4,x"]
    featx.extract_to([], folder / "f.h5", segments=listed(folder, rows), **OPTIONS)
    with featx.open(folder / "f.h5") as features:
        seen = {key: frames_of(features[key].clips["pool5"], features[key].path) for key in features.keys}
        assert seen == {
            "a/000000.400-000000.880": [[*range(10, 18)], [*range(14, 22)]],
            "a/000000.600-000001.200": [[*range(15, 23)], [*range(19, 27)]],
            "a/000001.990-000002.400": [[*range(50, 58)]],
            "b/000000.000-000000.200": [[0, 1, 2, 3, 4, 0, 1, 2]],  # shorter than a clip: looped
        }
        one, last = features["a/000000.400-000000.880"], features["a/000001.990-000002.400"]
        assert (one.num_frames, one.start_seconds, one.end_seconds, one.label) == (12, 0.4, 0.88, "x")
        assert one.duration_seconds == pytest.approx(0.48) and one.path == f"{folder}/a.mkv"
        # on the source video's clock, and in its frames
        assert one.clip_table.start_frame.tolist() == [10, 14] and one.clip_table.end_frame.tolist() == [18, 22]
        np.testing.assert_allclose(one.clip_table.start_seconds, [0.4, 0.56])
        np.testing.assert_allclose(one.clip_table.end_seconds, [0.72, 0.88])
        assert last.clip_table.end_frame.tolist() == [58] and last.num_frames == 10
    assert store.problems(folder / "f.h5") == []


def test_ends_are_compared_with_the_videos_own_at_a_low_rate_too(tmp_path, monkeypatch):
    """Of 2.88 s a frame a second makes two whole slots, but the video ends where it ends."""
    see_brightness(monkeypatch)
    write_video(tmp_path / "a.mkv", 72, **EXACT)
    rows, output = ["a.mkv,0,2.88,x", "a.mkv,1,3.2,x", "a.mkv,0,3.5,x"], tmp_path / "f.h5"
    options = {**OPTIONS, "fps": 1, "short": "loop"}
    for again in (False, True):
        summary = featx.extract_to([], output, segments=listed(tmp_path, rows), refresh=again, **options)
        assert (summary.num_videos, summary.num_present, summary.changed) == (2 * (not again), 2 * again, [])
    with featx.open(output) as features:
        assert [failure.reason for failure in features.failures] == [
            "the segment ends at 3.500 s, but the video at 2.880 s; correct the list"
        ]
        found = [features[key] for key in features.keys]
        assert [(f.num_frames, f.start_seconds, f.end_seconds) for f in found] == [
            (2, 0, pytest.approx(2.88)),
            (1, 1, pytest.approx(2.88)),
        ]
        assert [f.duration_seconds for f in found] == pytest.approx([2.88, 1.88])


def test_a_segment_equals_the_same_frames_as_a_video_and_one_pass_serves_all(folder, monkeypatch):
    see_brightness(monkeypatch)
    whole = featx.extract(folder / "a.mkv", **OPTIONS)
    rows = ["a.mkv,0.32,0.64,", "a.mkv,0,2.4,", "a.mkv,0.64,0.96,"]
    decoded = []
    decode = featx.decode_pool.DecodePool.decode
    monkeypatch.setattr(
        featx.decode_pool.DecodePool,
        "decode",
        lambda self, paths, *more: decode(self, (decoded.append(p) or p for p in paths), *more),
    )
    featx.extract_to([folder / "b.mkv"], folder / "f.h5", segments=listed(folder, rows), aggregate="bins", **OPTIONS)
    assert sorted(path.name for path in decoded) == ["a.mkv", "b.mkv"]
    with featx.open(folder / "f.h5") as features:
        assert features.keys[-1] == "b"
        assert np.array_equal(features["a/000000.000-000002.400"].descriptors["pool5"], whole.descriptors["pool5"])
        part = features["a/000000.640-000000.960"]
        assert np.array_equal(part.clips["pool5"], whole.clips["pool5"][4:5])
        assert np.array_equal(part.bins["pool5"], np.repeat(part.clips["pool5"], 100, axis=0))


def test_segments_fail_one_by_one_and_are_retried(folder, capsys, monkeypatch):
    see_brightness(monkeypatch)
    (folder / "images").mkdir()
    rows = ["a.mkv,0,1,x", "a.mkv,2,2.8,x", "a.mkv,2,3,x", "a.mkv,1.001,1.02,x", "absent.mp4,0,1,x"]
    segments, output = listed(folder, rows), folder / "f.h5"
    code, _, err = run_cli(capsys, "extract", "--segments", segments, "-o", output, "--engine", "torch")
    assert code == 1 and err.count("failed: ") == 3
    assert "000003.000" in err and "the segment ends at 3.000 s, but the video at 2.400 s" in err
    assert "no frame is shown from 1.001 to 1.020 s" in err and "no such file" in err
    with featx.open(output) as features:
        assert features["a/000002.000-000002.800"].end_seconds == pytest.approx(2.4)  # up to half a second is taken
        assert len(features.failures) == 3
    os.rename(folder / "b.mkv", folder / "absent.mp4")
    summary = featx.extract_to([], output, segments=segments, retry_failed=True)
    assert (summary.num_videos, len(summary.failures), summary.num_present, summary.changed) == (1, 2, 2, [])


def test_a_run_goes_on_and_redoes_what_was_relabelled(folder, monkeypatch, capsys):
    see_brightness(monkeypatch)
    rows = ["a.mkv,0.4,0.88,x", "a.mkv,0.6,1.2,y", "b.mkv,0,1,y"]
    segments, output, notes = listed(folder, rows), folder / "f.h5", []

    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        featx.extract_to([], output, segments=segments, on_result=stop, **OPTIONS)
    summary = featx.extract_to([], output, segments=segments, on_note=notes.append, **OPTIONS)
    assert summary.num_present + summary.num_videos == 3 and summary.num_videos in (1, 2) and not notes
    featx.extract_to([], folder / "whole.h5", segments=segments, **OPTIONS)
    with featx.open(output) as one, featx.open(folder / "whole.h5") as two:
        assert np.array_equal(one.descriptors("pool5"), two.descriptors("pool5"))
        assert list(one.column("label")) == ["x", "y", "y"]
    listed(folder, [rows[0], rows[1].replace(",y", ",z"), rows[2]])
    summary = featx.extract_to([], output, segments=segments, refresh=True, **OPTIONS)
    assert (summary.num_videos, summary.changed) == (1, ["a/000000.600-000001.200"])
    with featx.open(output) as features:
        assert list(features.column("label")) == ["x", "z", "y"]
    assert "a/000000.400-000000.880: 12 frames, 25 fps, 0.48 s, 2 clips, from 0.400 to 0.880 s, x\n" in run_cli(
        capsys, "info", output, "--videos"
    )[1]  # fmt: skip


def test_an_imported_segment_has_no_times_to_tell(tmp_path, capsys):
    key = "a/000000.000-000001.500"
    (tmp_path / "m.csv").write_text(f"{key},1,0\n")
    assert run_cli(capsys, "import", tmp_path / "m.csv", "-o", tmp_path / "f.h5")[0] == 0
    code, out, _ = run_cli(capsys, "info", tmp_path / "f.h5", "--videos")
    assert code == 0 and f"{key}: frames unknown, no frame rate, 0 clips\n" in out


def test_a_dry_run_counts_the_frames_of_each(folder):
    rows = ["a.mkv,0.4,0.88,x", "a.mkv,1.99,2.4,y", "a.mkv,2,9,y", "b.mkv,0,0.2,"]
    options = {"stride": 4, "frame_step": 1, "segments": listed(folder, rows)}
    for count in (False, True):
        found = dry_run([], count=count, **options)
        assert [(frames, clips) for _, frames, clips in found.videos] == [(12, 2), (10, 1), (5, 1)]
        assert "ends at 9.000 s, but the video at 2.400 s" in found.failures[0].reason
    for counted in ({"num_clips": 3}, {"num_clips_random": 3}):
        with pytest.raises(UsageError, match="is a segment, .* take a stride"):
            dry_run([], segments=options["segments"], **counted)


def test_folders_of_images_and_uneven_videos(tmp_path, monkeypatch):
    see_brightness(monkeypatch)
    times = [0.0, 0.1, 0.5, 0.6, 0.7, 1.4, 1.5, 1.6, 2.0, 2.1]
    write_video(tmp_path / "uneven.mkv", 10, times=times, **EXACT)
    (tmp_path / "images").mkdir()
    import cv2

    for i in range(3):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), np.zeros((48, 64, 3), np.uint8))
    segments = listed(tmp_path, ["uneven.mkv,0.5,1.6,x", "images,0,1,x"])
    summary = featx.extract_to([], tmp_path / "f.h5", segments=segments, **OPTIONS)
    assert "a folder of images has no times" in summary.failures[0].reason
    with featx.open(tmp_path / "f.h5") as features:
        (key,) = features.keys
        assert frames_of(features[key].clips["pool5"], features[key].path) == [[2, 3, 4, 5, 6, 2, 3, 4]]
        assert features[key].clip_table.end_seconds.tolist() == pytest.approx([1.6])
