"""Folders of runs in a place that many share: those of a run that lives stay, and those of one that is gone go."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil

import pytest

from featx.errors import UsageError
from featx.fetch_ahead import FetchAhead
from featx.scratch import PREFIX, scratch_folder


def test_a_run_leaves_the_videos_of_another_that_lives(tmp_path):
    with scratch_folder(tmp_path) as first:
        ahead = FetchAhead(first, 1000)  # empties its folder
        first.mkdir(exist_ok=True)
        (first / "video.mp4").write_bytes(b"being decoded")
        with scratch_folder(tmp_path) as second:
            assert second != first and (first / "video.mp4").exists()
        assert (first / "video.mp4").exists()
        ahead.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_and_what_is_another_users_stays(tmp_path, monkeypatch):
    (tmp_path / f"{PREFIX}dead_123/videos").mkdir(parents=True)
    (tmp_path / f"{PREFIX}dead_123/videos/half.mp4").write_bytes(b"half")
    (tmp_path / f"{PREFIX}dead_123/.lock").touch()
    (tmp_path / f"{PREFIX}file").write_bytes(b"no folder")
    foreign, own_open = tmp_path / f"{PREFIX}foreign1", os.open
    foreign.mkdir()

    def refused(path, *args, **options):
        if str(path).startswith(str(foreign)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return own_open(path, *args, **options)

    monkeypatch.setattr(os, "open", refused)
    with scratch_folder(tmp_path) as folder:
        folder.mkdir()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [f"{PREFIX}file", f"{PREFIX}foreign1", folder.parent.name]
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{PREFIX}file", f"{PREFIX}foreign1"]


@pytest.mark.parametrize(
    "files",
    [["1/features.txt"], ["abcd1234/features.txt"], ["abcd1234/videos/features.txt"]],
)
def test_folders_of_the_user_stay_though_their_names_begin_so(tmp_path, files):
    """Only what has the form, and the lock, of a run's folder may go, and of that only what featx puts there."""
    files = [*files, "dead_123/notes.txt", "dead_123/.lock"]
    for name in files:
        path = tmp_path / f"{PREFIX}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    (tmp_path / f"{PREFIX}dead_123/videos").mkdir()
    with scratch_folder(tmp_path) as folder:
        folder.mkdir()
        (folder.parent / "notes.txt").write_text("mine")
    left = {str(path.relative_to(tmp_path)).removeprefix(PREFIX) for path in tmp_path.rglob("*") if path.is_file()}
    assert left >= set(files)
    assert not (tmp_path / f"{PREFIX}dead_123/videos").exists() and (folder.parent / "notes.txt").exists()


def test_a_disk_that_locks_only_files_open_for_writing_will_do(tmp_path, monkeypatch):
    """As NFS does, which a cluster's machines share."""
    own_flock = fcntl.flock

    def flock(descriptor, operation):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        own_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with scratch_folder(tmp_path) as folder:
        folder.mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot write to .*--cache"), scratch_folder(tmp_path / "file/cache"):
        pass
    shutil.rmtree(tmp_path)
