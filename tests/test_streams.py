"""What becomes of a command whose output nobody takes, or whose letters the terminal has not."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import featx
from featx.cli import main
from featx.cli.streams import print_any_name


def code_of(*args: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(arg) for arg in args])
    return exit.value.code


def left_by_its_reader() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


def on_a_full_disk() -> io.TextIOWrapper:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    return open("/dev/full", "w")


@pytest.mark.parametrize("stdout", [left_by_its_reader, on_a_full_disk])
def test_a_run_goes_on_though_nobody_takes_what_it_tells(stdout, capsys, monkeypatch, clips_folder, tmp_path):
    output = tmp_path / "f.h5"
    with stdout() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert code_of("extract", clips_folder / "dog/001.avi", "-o", output) == 0
        monkeypatch.undo()
    assert len(featx.open(output).keys) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "stdout" in line] == (
        ["note: stdout takes no more (No space left on device); the run goes on, and what it would print is lost"]
        if stdout is on_a_full_disk
        else []
    )


@pytest.mark.parametrize("command", ["--help", "models", "weights list"])
def test_elsewhere_a_full_disk_is_one_line_and_a_reader_that_left_is_none(command, capsys, monkeypatch):
    for stdout, code, told in (
        (left_by_its_reader, 128 + signal.SIGPIPE, ""),
        (
            on_a_full_disk,
            2,
            "featx: error: cannot write to stdout: No space left on device; make room, or send it elsewhere\n",
        ),
    ):
        with stdout() as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert code_of(*command.split()) == code
        assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("command", "files"),
    [
        ("svm-eval features.h5 --dataset folders --folds 2 --json a.json --csv a.csv", ["a.csv", "a.json"]),
        ("svm-eval features.h5 --dataset folders --folds 2 --csv - --json a.json", ["a.json"]),
    ],
)
def test_files_are_written_though_nobody_takes_what_is_printed(command, files, example_features, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copy(example_features, "features.h5")
    with left_by_its_reader() as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert code_of(*command.split()) == 128 + signal.SIGPIPE
    assert sorted(path.name for path in tmp_path.glob("a.*")) == files


def test_a_dry_run_that_nobody_takes_is_no_run_that_goes_on(capsys, monkeypatch, clips_folder):
    for stdout, code in ((left_by_its_reader, 128 + signal.SIGPIPE), (on_a_full_disk, 2)):
        with stdout() as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert code_of("extract", clips_folder, "--dry-run") == code


@pytest.mark.parametrize(
    ("encoding", "errors", "printed"),
    [
        ("utf-8", "strict", "é日".encode() + b"\\udcff"),
        ("utf-8", "surrogateescape", "é日".encode() + b"\xff"),
        ("latin-1", "strict", b"\xe9\\u65e5\\udcff"),
        ("ascii", "surrogateescape", b"\\xe9\\u65e5\\udcff"),
    ],
)
def test_every_name_can_be_printed(encoding, errors, printed, monkeypatch):
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        print_any_name()
        stream.write("é日\udcff")
        stream.flush()
        monkeypatch.undo()
        assert stream.buffer.getvalue() == printed


def test_what_the_system_refuses_is_one_line_wherever_it_is_met(capsys, monkeypatch, tmp_path):
    def refuse(error: Exception) -> None:
        raise error

    for error, told in (
        (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied; allow this user to read"),
        (OSError(24, "Too many open files"), "Too many open files; allow more open files, with 'ulimit -n'"),
        (OSError("Can't read data"), "Can't read data; check the files that are named"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "a name or a text is not utf-8"),
    ):
        monkeypatch.setattr("featx.open", lambda *args, error=error, **options: refuse(error))
        assert code_of("info", "f.h5") == 2
        err = capsys.readouterr().err
        assert err.startswith(f"featx: error: {told}") and err.count("\n") == 1
