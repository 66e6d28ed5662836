"""plan.py: keys and clashes."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path

import pytest

from featx.errors import UsageError, VideoError
from featx.plan import key_of, plan_videos
from featx.video import read_header


@pytest.fixture
def tree(tmp_path):
    for name in ("dog/000.mp4", "cat/000.MP4", "cat/deep/x.y.avi", ".hidden/a.mp4", "cat/.b.mp4", "cat/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def keys(*args, **kwargs):
    return [item.key for item in plan_videos(*args, **kwargs)]


def test_a_folder_is_searched(tree):
    assert keys([tree]) == ["cat/000", "cat/deep/x.y", "dog/000"]


def test_files_and_folders_mix(tree):
    assert keys([tree / "dog", tree / "cat/deep/x.y.avi"]) == ["000", "x.y"]
    (tree / "clip.unknown").touch()
    assert keys([tree / "clip.unknown"]) == ["clip"]  # a file that is named is taken whatever its suffix
    with pytest.raises(
        UsageError, match="readme.txt is no video; if it is a list of videos, a path a line, name it with --list"
    ):
        keys([tree / "cat/readme.txt"])


def test_a_clash_names_both_files_and_the_remedy(tree):
    with pytest.raises(UsageError, match="'000': .*cat/000.MP4 and .*dog/000.mp4.*--keys-from path"):
        keys([tree / "cat", tree / "dog"])
    assert keys([tree / "cat", tree / "dog"], keys_from="path") == sorted(
        f"{tree}/{name}" for name in ("cat/000.MP4", "cat/deep/x.y.avi", "dog/000.mp4")
    )
    (tree / "dog/000.avi").touch()
    with pytest.raises(UsageError, match=r"000.avi and .*000.mp4"):
        keys([tree / "dog"])


def test_the_same_file_twice_is_one_video(tree):
    assert keys([tree / "dog", tree / "dog/000.mp4"]) == ["000"]


def test_lists(tree, tmp_path):
    (tree / "list.txt").write_text(f"{tree}/dog/000.mp4\n\n{tree}/cat/000.MP4\n")
    assert keys([], [tree / "list.txt"]) == ["cat/000", "dog/000"]
    (tree / "relative.txt").write_text("dog/000.mp4\nfish/absent.mp4\n")
    assert keys([], [tree / "relative.txt"]) == ["dog/000", "fish/absent"]
    (tree / "one.txt").write_text("dog/000.mp4\n")
    assert keys([], [tree / "one.txt"]) == ["000"]


@pytest.mark.parametrize(
    ("inputs", "reason"), [(["absent.mp4"], "no such file or folder: absent.mp4"), ([], "no videos to extract")]
)
def test_nothing_to_do_is_an_error(inputs, reason):
    with pytest.raises(UsageError, match=reason):
        plan_videos(inputs)


def test_an_empty_folder_and_an_unreadable_list_are_errors(tmp_path):
    with pytest.raises(UsageError, match="no videos in"):
        plan_videos([tmp_path])
    with pytest.raises(UsageError, match="cannot read the list"):
        plan_videos([], [tmp_path / "absent.txt"])


def test_folder_loops_end(tree):
    (tree / "dog/up").symlink_to(tree, target_is_directory=True)
    assert len(keys([tree])) == 3


def test_a_linked_folder_counts_as_often_as_it_is_named(tree):
    (tree / "train").mkdir()
    (tree / "train/dog").symlink_to(tree / "dog", target_is_directory=True)
    assert keys([tree]) == ["cat/000", "cat/deep/x.y", "dog/000", "train/dog/000"]


def test_lists_of_other_programs(tree):
    (tree / "bom.txt").write_bytes("\ufeffdog/000.mp4 \r\ncat/000.MP4\r\n".encode())
    assert keys([], tree / "bom.txt") == ["cat/000", "dog/000"]
    (tree / "binary.txt").write_bytes(b"\0\1\2")
    with pytest.raises(UsageError, match="not a text file"):
        keys([], tree / "binary.txt")


def test_names_that_are_not_utf8_get_a_reversible_key():
    assert key_of(os.fsdecode(b"caf\xe9.mp4")) == "caf%E9"
    assert key_of("100%25.mp4") == "100%2525"
    assert key_of("50% off.mp4") == "50% off"
    assert key_of(Path("a/b.c.mp4"), keep_suffix=True) == "a/b.c.mp4"


def test_one_picture_beside_folders_is_no_video(tmp_path):
    (tmp_path / "v1").mkdir()
    for path in ("cover1.jpg", "v1/000001.jpg", "v1/000002.jpg"):
        (tmp_path / path).write_bytes(b"")
    assert [item.key for item in plan_videos(tmp_path)] == ["v1"]
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/000001.jpg").write_bytes(b"")  # but alone in a folder it is a video of one frame
    assert [item.key for item in plan_videos(tmp_path)] == ["v1", "v2"]


def test_links_that_multiply_the_ways_to_a_folder_are_refused(tmp_path):
    for i in range(12):  # 2 ** 12 ways to the last
        (tmp_path / f"top/{i}").mkdir(parents=True)
        for name in "ab":
            (tmp_path / f"top/{i}/{name}").symlink_to(f"../{i + 1}", target_is_directory=True)
    (tmp_path / "top/12").mkdir()
    (tmp_path / "top/12/a.mp4").touch()
    with pytest.raises(UsageError, match="links lead to the folder .* on more than 100 ways"):
        plan_videos(tmp_path / "top")


def test_a_deep_tree_is_searched_to_its_end(tmp_path):
    path = tmp_path
    for _ in range(300):
        path = path / "d"
        path.mkdir()
    (path / "a.mp4").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        assert [item.path for item in plan_videos(tmp_path)] == [path / "a.mp4"]
    finally:
        sys.setrecursionlimit(limit)


def test_a_listed_name_that_no_disk_takes_costs_its_video_alone(tree):
    long = 300 * "x"
    (tree / "list.txt").write_text(f"{tree}/dog/000.mp4\n{tree}/dog/{long}.mp4\n")
    assert keys([], lists=[tree / "list.txt"]) == ["000", long]
    (_, item) = plan_videos([], lists=[tree / "list.txt"])
    with pytest.raises(VideoError, match="cannot be opened: File name too long"):
        read_header(item.path)
    with pytest.raises(UsageError, match="xxx.mp4 cannot be read: File name too long"):
        keys([tree / f"{long}.mp4"])


class Line(str):
    """A line that counts how often it is looked up."""

    num_hashed = 0

    def __hash__(self):
        Line.num_hashed += 1
        return super().__hash__()

    def strip(self):
        return self


def test_a_list_of_addresses_is_planned_in_one_pass(monkeypatch):
    lines = [Line(f"https://host/{i:03d}.mp4") for i in range(300)]

    class Text(str):
        def split(self, _):
            return lines

    monkeypatch.setattr("featx.plan.read_text", lambda path: Text())
    assert len(plan_videos([], lists=["l.txt"], allow_urls=True)) == 300
    assert Line.num_hashed < 20 * 300


def test_addresses_that_differ_in_what_is_not_written_are_told_so(tmp_path):
    (tmp_path / "l.txt").write_text("https://host/a.mp4?pwd=1\nhttps://host/a.mp4?pwd=2\n")
    with pytest.raises(UsageError, match="https://host/a.mp4; they differ in what is not written") as told:
        plan_videos([], lists=[tmp_path / "l.txt"], allow_urls=True, keys_from="path")
    assert "pwd" not in str(told.value)
