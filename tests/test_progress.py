"""Progress: a bar on a terminal, a line now and then in a log, a notebook's own bar, nothing where it is not wanted."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from feature_files import write_file

import featx
from featx.cli import main
from featx.features import Failure
from featx.progress import LINE_SECONDS, SILENT_SECONDS, Progress
from featx.run_progress import RunProgress


class _Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def log(monkeypatch, terminal: bool = False) -> io.StringIO:
    stream = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_log_gets_a_line_after_30_seconds_and_a_tenth_of_the_work(monkeypatch, clock):
    stream = log(monkeypatch)
    with Progress("extract", total=400, unit="video", now=clock) as progress:
        for done in range(1, 401):
            clock.seconds += 1
            progress.advance(1, "2.0 clips/s")
            assert len(stream.getvalue().splitlines()) == done // 40
    lines = stream.getvalue().splitlines()
    assert lines[0] == "extract: 40 of 400 videos, 10 %, 00:40, 06:00 left, 2.0 clips/s"
    assert lines[-1] == "extract: 400 of 400 videos, 100 %, 06:40, 00:00 left, 2.0 clips/s"
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_a_quick_work_leaves_no_line_in_a_log(monkeypatch, clock):
    stream = log(monkeypatch)
    with Progress("extract", total=1000, unit="video", now=clock) as progress:
        for _ in range(1000):
            clock.seconds += (LINE_SECONDS - 1) / 1000
            progress.advance()
    assert stream.getvalue() == ""


def test_a_slow_work_is_told_though_no_tenth_is_done(monkeypatch, clock):
    stream = log(monkeypatch)
    with Progress("extract", total=10_000, unit="video", now=clock) as progress:
        for _ in range(9):
            clock.seconds += SILENT_SECONDS / 3
            progress.advance()
    assert len(stream.getvalue().splitlines()) == 3


def test_shares_bytes_and_works_without_an_end(monkeypatch, clock):
    stream = log(monkeypatch)
    shares = Progress("training", total=1.0, now=clock)
    fetched = Progress("c3d", unit="B", now=clock)
    fetched.start(300_000_000)
    unknown = Progress("pairs", unit="pair", now=clock)
    clock.seconds += 60
    shares.advance(0.25)
    fetched.advance(100_000_000)
    unknown.advance(7)
    assert stream.getvalue().splitlines() == [
        "training: 25 %, 01:00, 03:00 left",
        "c3d: 100.0 of 300.0 MB, 33 %, 01:00, 02:00 left",
        "pairs: 7 pairs, 01:00",
    ]


def test_it_never_counts_beyond_the_total(clock):
    progress = Progress("training", total=1.0, show=False, now=clock)
    for _ in range(3):
        progress.advance(0.4)
    assert progress.done == 1.0


def test_a_terminal_gets_a_bar_that_notes_can_clear(monkeypatch):
    stream = log(monkeypatch, terminal=True)
    with Progress("extract", total=2, unit="video") as progress:
        progress.advance(2, "3.0 clips/s")
        progress.clear()
    assert "extract:" in stream.getvalue() and "\r" in stream.getvalue() and "2/2" in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_shown_that_is_not_wanted(monkeypatch, clock, terminal):
    stream = log(monkeypatch, terminal)
    with Progress("extract", total=3, unit="video", show=False, now=clock) as progress:
        clock.seconds += 1000
        progress.advance(3)
        progress.clear()
    assert stream.getvalue() == "" and progress.done == 3


def test_a_notebook_gets_its_own_bar_where_it_is_asked_for(monkeypatch):
    made = []

    class Bar:
        def __init__(self, **options):
            made.append(options)

        def update(self, amount):
            made.append(amount)

        def close(self):
            made.append("closed")

    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    with Progress("extract", total=2, unit="video", show=False) as progress:
        progress.advance(2)
    assert made == []
    with Progress("extract", total=2, unit="video") as progress:
        progress.advance(2)
    assert made[0]["total"] == 2 and made[1:] == [2, "closed"]


def test_a_run_counts_videos_clips_and_failures(monkeypatch):
    stream = log(monkeypatch, terminal=True)
    told = []
    with RunProgress(show=True) as bar:
        note, planned, result = bar.around(told.append, told.append, told.append)
        summary = types.SimpleNamespace(num_planned=5, num_present=2, failed_before=["a"])
        planned(summary)
        note("a note")
        result(failed := Failure("b", "b.mp4", "broken"))
        result(done := types.SimpleNamespace(num_clips=7))
    assert told == [summary, "a note", failed, done]
    assert "2/2" in stream.getvalue() and "clips/s, 1 failed" in stream.getvalue()


def test_extract_to_shows_a_bar_only_if_asked(monkeypatch, clips_folder, tmp_path):
    stream = log(monkeypatch, terminal=True)
    for show in (False, True):  # the second run finds nothing to do
        featx.extract_to(clips_folder / "dog/001.avi", tmp_path / "f.h5", progress=show)
        assert ("extract:" in stream.getvalue()) == show


def test_commands_leave_no_bar_in_a_pipe(capsys, tmp_path):
    write_file(tmp_path / "f.h5", {"fc6": {"a/0": np.ones(3), "b/0": np.eye(3)[0]}})
    with pytest.raises(SystemExit) as exit:
        main(["svm-fit", str(tmp_path / "f.h5"), "--labels", "folders", "-o", str(tmp_path / "m.h5")])
    captured = capsys.readouterr()
    assert (exit.value.code, captured.err) == (0, "") and "\r" not in captured.out
