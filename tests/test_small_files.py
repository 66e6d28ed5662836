"""Small files take the place of a file of their own kind, and of nothing else; links are followed."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from featx.checkpoints.files import file_sha256
from featx.errors import CheckpointError, FeatureFileError, UsageError
from featx.evaluation.train import Prediction, check_predictions, write_predictions
from featx.report.report import _check as check_report
from featx.small_files import (
    aside_of,
    check_output,
    is_special,
    require_different,
    require_place,
    write_bytes,
    write_text,
)
from featx.store import require_output
from featx.store.model_file import read_model, write_model
from featx.timestamps import require_timestamps_place

CHECKS = {
    "write_bytes": lambda path: write_bytes(path, b"x"),
    "check_output": check_output,
    "report": lambda path: check_report(path, overwrite=True),
    "store": require_output,
    "model": lambda path: write_model(path, {}, {}),
    "timestamps": lambda path: require_timestamps_place(path, "f.h5"),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "socket"])
def test_a_device_or_pipe_is_refused_and_stays(check, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    path = Path("a.html" if check is CHECKS["report"] else "a.dat")
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        os.mkfifo("pipe")
        path.symlink_to("pipe") if kind != "pipe" else os.rename("pipe", path)
    before = os.lstat(path)
    with pytest.raises(UsageError, match=r"cannot write a\.\w+: it is a device, a pipe or a socket.*; choose another"):
        check(path)
    assert os.path.samestat(before, os.lstat(path)) and not stat.S_ISREG(os.stat(path).st_mode)


def test_a_link_stays_and_what_it_names_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "a.csv"
    link.symlink_to(Path("far/b.csv"))
    for text in ("", "one", "two"):
        write_text(link, text)
        assert link.is_symlink() and (tmp_path / "far/b.csv").read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.csv", "b.csv", "far"]
    (tmp_path / "a.h5").symlink_to("far/m.h5")
    write_model(tmp_path / "a.h5", {}, {})
    assert (tmp_path / "a.h5").is_symlink() and (tmp_path / "far/m.h5").is_file()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_is_open_already_is_no_place(name):
    with pytest.raises(UsageError, match="is a device, a pipe or a socket, and no file; choose another place"):
        require_place(name)


@pytest.mark.parametrize("num_bytes", [240, 249, 255])
def test_a_name_as_long_as_one_may_be_can_be_written(num_bytes, tmp_path):
    path = tmp_path / ("é" * (num_bytes // 2) + "x" * (num_bytes % 2))
    check_output(path)
    write_text(path, "x")
    assert path.read_text() == "x" and len(os.fsencode(aside_of(path).name)) <= 255


def test_a_longer_one_is_refused_before_the_work(tmp_path):
    with pytest.raises(UsageError, match="cannot write .*x: File name too long; choose another place"):
        check_output(tmp_path / ("x" * 256))


def test_what_cannot_be_looked_at_is_nothing_special(tmp_path):
    assert not is_special(tmp_path / ("x" * 300))
    with pytest.raises(CheckpointError, match="too long"):
        file_sha256(tmp_path / ("x" * 300))


def test_two_outputs_are_two_files(tmp_path):
    (tmp_path / "link.json").symlink_to("same.json")
    require_different({"--csv": tmp_path / "same.csv", "--json": tmp_path / "same.json", "--plot": None, "-o": None})
    with pytest.raises(UsageError, match=r"--csv and --json both name .*same.json, where one would be lost; give each"):
        require_different({"--csv": tmp_path / "link.json", "--json": tmp_path / "none" / ".." / "same.json"})


@pytest.mark.parametrize("results", ["1", "[]", '[{"a": 1}]'])
def test_json_of_others_with_names_of_ours_stays(results, tmp_path):
    (tmp_path / "mine.json").write_text(f'{{"results": {results}, "curves": "mine"}}')
    with pytest.raises(UsageError, match="is no table or JSON that featx wrote"):
        check_output(tmp_path / "mine.json")


def test_only_predictions_are_replaced_by_predictions(tmp_path):
    made = [Prediction("a", ("x", "y"), (1.0, -1.0))]
    for name in ("p.csv", "p.json"):
        write_predictions(tmp_path / name, made)
        check_predictions(tmp_path / name, overwrite=True)
        (tmp_path / name).write_text("my own notes")
        with pytest.raises(UsageError, match="holds no predictions; it is not replaced"):
            check_predictions(tmp_path / name, overwrite=True)


def test_an_empty_table_of_clips_is_replaced(tmp_path):
    (tmp_path / "empty.csv").touch()
    require_timestamps_place(tmp_path / "empty.csv", "f.h5")


def test_a_model_is_not_awaited_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FeatureFileError, match="pipe: not a regular file"):
        read_model(tmp_path / "pipe")
