"""Signals: what a first and a second one do, who gets them, and that nobody outlives a run."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from test_run import same_features

import featx
from featx import cli, interrupt, run, store
from featx.decode_pool import DecodePool, Ended
from featx.errors import FeatxError, UsageError
from featx.interrupt import Interrupted, Interrupts

pytestmark = pytest.mark.usefixtures("workers_of_its_own")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1])}


def tell(number):
    """What a user or a cluster does."""
    os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def whole(clips_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "whole.h5"
    featx.extract_to(clips_folder, output, batch_size=1)
    return output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_finishes_what_is_in_flight(clips_folder, whole, tmp_path, monkeypatch, number, code):
    monkeypatch.setattr("featx.decode_pool.default_num_workers", lambda: 1)
    output, notes, done = tmp_path / "f.h5", [], []

    def at_first(result):
        done.append(result.key)
        if len(done) == 1:
            tell(number)

    with Interrupts() as interrupts:
        summary = run.extract_to(
            clips_folder, output, interrupts=interrupts, on_result=at_first, on_note=notes.append, batch_size=1
        )
    assert summary.exit_code == code and summary.stopped_by == number and 1 <= len(done) < 3
    assert any(number.name in note and "in flight" in note for note in notes)
    assert not output.exists()
    with featx.open(output, warn=False) as features:
        assert features.keys == sorted(done)
    assert run.extract_to(clips_folder, output, batch_size=1).num_videos == 3 - len(done)
    assert same_features(output, whole)


def test_the_second_signal_stops_at_once(clips_folder, whole, tmp_path):
    def at_first(result):
        tell(signal.SIGINT)
        tell(signal.SIGINT)

    output = tmp_path / "f.h5"
    with Interrupts() as interrupts, pytest.raises(Interrupted):
        run.extract_to(clips_folder, output, interrupts=interrupts, on_result=at_first, batch_size=1)
    with featx.open(output, warn=False) as features:
        assert len(features) == 1
    run.extract_to(clips_folder, output)  # keeps the batch size
    assert same_features(output, whole) and [p.name for p in tmp_path.iterdir()] == ["f.h5"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("handled", "num_signals"), [(True, 1), pytest.param(True, 2, marks=pytest.mark.long), (False, 1)]
)
def test_a_signal_during_the_last_write_loses_nothing(
    clips_folder, whole, tmp_path, monkeypatch, handled, num_signals, when
):
    write, calls = store.write_features, []

    def interrupted(*args):
        calls.append(args)
        if when == "after":
            write(*args)
        for _ in range(num_signals if len(calls) == 1 else 0):
            tell(signal.SIGINT)
        if when == "before":
            write(*args)

    monkeypatch.setattr("featx.parts.PART_SECONDS", 1000.0)  # all is written at the end
    monkeypatch.setattr("featx.parts.store.write_features", interrupted)
    output = tmp_path / "f.h5"
    with Interrupts() if handled else nullcontext(Interrupts()) as interrupts:
        if handled and num_signals == 1:
            summary = run.extract_to(clips_folder, output, interrupts=interrupts, batch_size=1)
            assert (summary.stopped_by, summary.exit_code, summary.num_videos) == (signal.SIGINT, 130, 3)
        else:
            with pytest.raises(KeyboardInterrupt):
                run.extract_to(clips_folder, output, interrupts=interrupts, batch_size=1)
    with featx.open(output, warn=False) as features:
        assert len(features) == 3
    assert run.extract_to(clips_folder, output, batch_size=1).num_videos == 0
    assert same_features(output, whole) and [p.name for p in tmp_path.iterdir()] == ["f.h5"]


def test_a_video_in_flight_is_waited_for_a_stated_time(monkeypatch):
    monkeypatch.setitem(interrupt.GRACE_SECONDS, signal.SIGTERM, 0.2)
    monkeypatch.setattr(interrupt, "NOTE_SECONDS", 0.1)
    notes = []
    with pytest.raises(Interrupted) as ended, Interrupts() as interrupts:  # noqa: SIM117
        with interrupts.graceful(lambda: ["a", "b", "c"], notes.append):
            tell(signal.SIGTERM)
            queue.Queue().get()  # as the run waits for a two-hour video
    assert ended.value.exit_code == 143
    assert "3 videos (a, b …) in flight are finished within 0.2 s" in notes[0]
    assert "still in flight" in notes[1] and "given up" in notes[-1]


def test_outside_of_the_extraction_a_signal_ends_at_once_and_handlers_are_given_back():
    before = [signal.getsignal(number) for number in interrupt.SIGNALS]
    with pytest.raises(Interrupted), Interrupts():
        tell(signal.SIGTERM)
    assert [signal.getsignal(number) for number in interrupt.SIGNALS] == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with Interrupts():
            tell(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_makes_an_error_of_its_own_is_one_all_the_same(capsys, monkeypatch, number, code):
    """As HDF5 and PyTorch do where it meets them in a callback: an end by a signal, and no traceback."""

    def merge(*args, **options):
        try:
            tell(number)
        finally:
            raise TypeError("Operation not defined for data type class")

    monkeypatch.setattr(run, "merge", merge)
    with pytest.raises(SystemExit) as ended:
        cli.main(["merge", "a.h5", "-o", "b.h5"])
    assert ended.value.code == code
    assert capsys.readouterr().err == "featx: interrupted\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("", "; what is finished is kept, and the same command goes on"),
        ("--overwrite", "; what is finished is kept, and the same command goes on"),  # nothing was put away yet
        ("--dry-run", ""),
    ],
)
def test_a_run_tells_what_an_interrupt_leaves(args, told, capsys, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("featx.checkpoints.describe.describe", interrupt)
    monkeypatch.setattr("featx.dry_run.dry_run", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main(["extract", "a.avi", "-o", "b.h5", *args.split()])
    assert (ended.value.code, capsys.readouterr().err) == (130, f"featx: interrupted{told}\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143)])
def test_the_command_line_tells_how_to_go_on(clips_folder, tmp_path, capsys, monkeypatch, number, code):
    original = run._count

    def count(summary, result):
        original(summary, result)
        tell(number)

    monkeypatch.setattr(run, "_count", count)
    monkeypatch.setattr("featx.decode_pool.default_num_workers", lambda: 1)
    args = ["extract", str(clips_folder), "-o", str(tmp_path / "f.h5"), "--batch-size", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code == code
    assert "the same command goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*args, "--overwrite"])  # which would put away again what is kept
    assert "the same command without --overwrite goes on" in capsys.readouterr().err


def test_an_error_of_a_run_that_began_anew_says_which_command_goes_on(clips_folder, tmp_path, monkeypatch):
    def full(*_):
        raise FeatxError("no room; what was written before stays, and the same command goes on")

    monkeypatch.setattr("featx.parts.store.write_features", full)
    with pytest.raises(FeatxError, match="^no room; .* stays, and the same command without --overwrite goes on$"):
        run.extract_to(clips_folder / "dog/001.avi", tmp_path / "f.h5", overwrite=True)


def test_decode_workers_leave_signals_to_their_parent(clips_folder):
    path = clips_folder / "dog/000.mp4"
    with DecodePool(1) as pool:
        list(pool.decode([path]))
        worker = pool._workers[0]._process
        assert os.getpgid(worker.pid) != os.getpgid(0)  # a Ctrl-C at the terminal does not reach it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.pid, number)
        assert isinstance(list(pool.decode([path]))[-1], Ended) and pool._workers[0]._process is worker


ORPHANS = """
import subprocess, sys, time
busy = "import os, threading; from featx import decode_worker as w; threading.Thread(target=w._leave_with_parent, "
busy += "args=(os.getppid(),), daemon=True).start(); print('up', flush=True)\\nwhile True: pass"
child = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
child.stdout.readline()
from pathlib import Path
from featx.decode_pool import DecodePool, Started
pool = DecodePool(1)
next(event for event in pool.decode([Path(sys.argv[1])]) if isinstance(event, Started))
print(child.pid, pool._workers[0]._process.pid, flush=True)
time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(clips_folder):
    program = [sys.executable, "-c", ORPHANS, str(clips_folder / "dog/000.mp4")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=ENVIRONMENT) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(map(lives, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LOCKED = """
import sys, time
from pathlib import Path
from featx.parts import Parts
parts = Parts(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_two_processes_do_not_write_one_output_and_a_dead_ones_lock_is_taken_over(clips_folder, whole, tmp_path):
    output = tmp_path / "f.h5"
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED, str(output)], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as owner:
        try:
            assert owner.stdout.readline() == b"locked\n"
            (store.parts_folder(output) / ".part-00000000.h5.123.tmp").write_bytes(b"half")
            (tmp_path / ".f.h5.123.tmp").write_bytes(b"half")
            for write in (lambda: featx.extract_to(clips_folder, output), lambda: featx.merge([whole], output),
                          lambda: featx.pca(whole, output, dims=1)):  # fmt: skip
                with pytest.raises(UsageError, match="another run is writing"):
                    write()
        finally:
            owner.kill()
    featx.extract_to(clips_folder, output, batch_size=1)
    assert same_features(output, whole) and [p.name for p in tmp_path.iterdir()] == ["f.h5"]
