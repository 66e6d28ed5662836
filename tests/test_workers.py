"""workers/: videos are handed out and come back once, whatever becomes of the workers; devices.py: who they are."""

from __future__ import annotations

import os
import queue
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_interrupt import lives, tell

import featx
from featx import run
from featx.catalog import get_checkpoint
from featx.devices import worker_devices
from featx.dry_run import dry_run
from featx.errors import FeatxError, UnknownNameError, UsageError
from featx.extractor import provenance_of
from featx.features import ClipTable, Failure, Features
from featx.interrupt import Interrupts
from featx.plan import VideoItem
from featx.workers import ExtractorPool, local, wire
from featx.workers.protocol import Drained, Finished, Lost, Noted, Opened, Refused, Wanted

CARD = get_checkpoint("res3d-mini")
PROVENANCE = provenance_of(
    CARD, CARD.sampling, checkpoint_sha256="0" * 64, layers=("pool5",), precision="fp32", save="descriptors",
    dtype="float32", engine="torch-cuda", batch_size=4,
)  # fmt: skip


class Scripted:
    """A worker that is a thread, and ends as its script says: `deadly` maps a key to how many workers it may still end."""

    def __init__(self, device, hear, deadly=None, provenance=PROVENANCE, refuse=None):
        self.device = self.name = device
        self.machine, self._hear, self._deadly, self._refuse = "", hear, deadly or {}, refuse
        self._provenance = provenance
        self.asked, self.taken, self.most_waiting, self.options, self.closed = queue.Queue(), [], 0, None, False
        threading.Thread(target=self._run, daemon=True).start()

    def open(self, options, items):
        self.options, self.shown = options, items
        self.asked.put("open")

    def give(self, items):
        for item in items:
            self.asked.put(item)
        self.most_waiting = max(self.most_waiting, self.asked.qsize())

    def end_round(self):
        self.asked.put(None)

    def close(self):
        self.closed = True
        self.asked.put("close")

    def _run(self):
        while (asked := self.asked.get()) != "close":
            if asked == "open" and self._refuse:
                return self._hear(self, self._refuse)
            if asked == "open":
                self._hear(self, Noted("ready"))
                self._hear(
                    self, Opened({"provenance": self._provenance, "num_dims": {"pool5": 512}}, "", decode="cuda")
                )
            elif asked is None:
                self._hear(self, Drained({"forward": 1.0, "decode": 1.0}, 1))
            else:
                self._hear(self, Wanted())
                if self._deadly.get(asked.key, 0):
                    self._deadly[asked.key] -= 1
                    return self._hear(self, Lost("it was ended by SIGSEGV"))
                self.taken.append(asked.key)
                self._hear(self, Finished(Features(asked.key, str(asked.path), 16, 1, 25.0, 0.64), 4))


def scripted_pool(num=2, start=Scripted, notes=None, **options):
    workers = []

    def start_one(device, hear):
        workers.append(start(device, hear))
        return workers[-1]

    pool = ExtractorPool("res3d-mini", tuple(f"cuda:{i}" for i in range(num)), start_worker=start_one, **options)
    try:
        pool.prepare(items(3), (notes if notes is not None else []).append)
    except UsageError:
        pool.close()
        raise
    return pool, workers


def items(count):
    return [VideoItem(f"{i:03d}", Path(f"{i:03d}.mp4")) for i in range(count)]


@pytest.mark.parametrize(("num_workers", "num_videos"), [(1, 0), (2, 1), (2, 40), (4, 3), (4, 200)])
def test_every_video_comes_back_once(num_workers, num_videos):
    pool, workers = scripted_pool(num_workers)
    with pool:
        for _ in range(2):  # as an Extractor, it can be used again
            results = list(pool.extract_many(iter(items(num_videos))))
            assert sorted(result.key for result in results) == [item.key for item in items(num_videos)]
        assert max(worker.most_waiting for worker in workers) <= 2  # one, and the end of the round
        assert pool.stopwatch.seconds("forward") <= 1.0 and pool.num_decoders == sum(bool(w.taken) for w in workers)
    assert all(worker.closed for worker in workers)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_worker_that_is_lost_costs_nothing_but_time(num_workers):
    deadly, notes = {"003": 1, "017": 1}, []
    pool, workers = scripted_pool(num_workers, lambda *args: Scripted(*args, deadly=deadly), notes)
    with pool:
        results = list(pool.extract_many(items(30)))
    assert sorted(result.key for result in results) == [item.key for item in items(30)]
    assert not any(isinstance(result, Failure) for result in results)
    assert len(workers) == num_workers + 2 and all(worker.closed for worker in workers)
    notes = [note for note in notes if not note.endswith(": ready")]
    assert len(notes) == 2 and all("was lost (it was ended by SIGSEGV)" in note for note in notes)


def test_a_video_that_ends_every_worker_fails_alone():
    deadly = {"003": 9, "004": 9}
    pool, _ = scripted_pool(2, lambda *args: Scripted(*args, deadly=deadly))
    with pool:
        results = {result.key: result for result in pool.extract_many(items(20))}
    failed = {key: result.reason for key, result in results.items() if isinstance(result, Failure)}
    assert len(results) == 20 and failed.keys() == {"003", "004"} and deadly == {"003": 7, "004": 7}
    assert all("two worker processes were lost" in reason and "SIGSEGV" in reason for reason in failed.values())


def test_a_worker_that_cannot_be_replaced_leaves_the_others_to_do_the_work():
    deadly, notes, num_started = {}, [], []

    def start(*args):
        num_started.append(args)
        refuse = Refused("UsageError", "no GPU") if len(num_started) > num_sound else None
        return Scripted(*args, deadly=deadly, refuse=refuse)

    num_sound, deadly["002"] = 2, 1
    pool, _ = scripted_pool(2, start, notes)
    with pool:
        assert len(list(pool.extract_many(items(200)))) == 200  # so many that the refusal comes before the end
    assert "the others go on without it" in notes[-1]
    num_started.clear()
    num_sound, deadly["002"] = 1, 1
    pool, _ = scripted_pool(1, start, notes)
    with pool, pytest.raises(FeatxError, match="no worker is left.*no GPU; the same command goes on"):
        list(pool.extract_many(items(10)))


def test_the_first_worker_settles_what_was_left_open_and_the_others_must_agree():
    pool, workers = scripted_pool(3)
    with pool:
        assert workers[0].options == {"backbone": "res3d-mini"} and len(workers[0].shown) == 3
        settled = {"backbone": "res3d-mini", "batch_size": 4, "engine": "torch", "precision": "fp32", "decode": "cuda"}
        assert all(settled.items() <= worker.options.items() for worker in workers[1:])
    others = iter([PROVENANCE, replace(PROVENANCE, batch_size=2)])
    with pytest.raises(UsageError, match="'cuda:1' runs torch-cuda with batches of 2, but 'cuda:0' .* of 4"):
        scripted_pool(2, lambda *args: Scripted(*args, provenance=next(others)))
    others = iter([PROVENANCE, replace(PROVENANCE, precision="bf16")])
    with pytest.raises(UsageError, match="precision is 'fp32' on cuda:0, 'bf16' on cuda:1"):
        scripted_pool(2, lambda *args: Scripted(*args, provenance=next(others)))


def test_batches_that_the_first_worker_had_to_halve_are_those_of_all():
    class Halving(Scripted):
        """As on a GPU whose memory has no room for more than 4 clips: who asks for more gets that."""

        def open(self, options, items):
            self._provenance = replace(
                PROVENANCE, batch_size=min(options["batch_size"], 4) if items else options["batch_size"]
            )
            super().open(options, items)

    pool, workers = scripted_pool(3, Halving, batch_size=8)
    with pool:
        assert [worker.options["batch_size"] for worker in workers] == [8, 4, 4]
        assert len(list(pool.extract_many(items(5)))) == 5


def test_an_error_of_the_plan_is_raised_and_leaving_early_ends_the_workers():
    def broken():
        yield items(1)[0]
        raise UsageError("no such list")

    for leave in (lambda pool: list(pool.extract_many(broken())), lambda pool: next(pool.extract_many(items(9)))):
        pool, workers = scripted_pool(2)
        try:
            leave(pool)
        except UsageError as error:
            assert str(error) == "no such list"
        assert all(worker.closed for worker in workers)
        with pytest.raises(UsageError, match="closed; make others"):
            list(pool.extract_many([]))


def test_a_refusal_is_the_error_that_it_was_elsewhere():
    errors = [UsageError("a"), UnknownNameError("layer", "fc9", ["fc6"]), FeatxError("b")]
    for error in errors:
        again = Refused.of(error).error()
        assert str(again) == str(error) and isinstance(again, FeatxError)
        assert isinstance(again, UsageError) == isinstance(error, UsageError)
    with pytest.raises(UsageError, match="unknown layer 'pool9'"):
        scripted_pool(2, lambda *args: Scripted(*args, refuse=Refused("UsageError", "unknown layer 'pool9'")))


# ------------------------------------------------------------------------------------------------------------ real processes


@pytest.fixture(scope="module")
def whole(clips_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "whole.h5"
    featx.extract_to(clips_folder, output, batch_size=1, save="both")
    return output


@pytest.fixture
def started(monkeypatch):
    """The workers that a test starts."""
    workers, start = [], local.LocalWorker.__init__

    def noted(self, *args, **options):
        start(self, *args, **options)
        workers.append(self)

    monkeypatch.setattr(local.LocalWorker, "__init__", noted)
    return workers


def require_same(one, two):
    with featx.open(one) as a, featx.open(two) as b:
        assert a.keys == b.keys and a.provenance == b.provenance
        assert np.array_equal(a.descriptors("pool5"), b.descriptors("pool5"))
        for key in a.keys:
            assert np.array_equal(a[key].clips["pool5"], b[key].clips["pool5"])


def test_several_processes_give_the_bits_of_one_though_a_worker_is_killed(clips_folder, whole, tmp_path, started):
    notes, output = [], tmp_path / "f.h5"

    def kill_the_first(result):
        if len(started) == 2:
            os.kill(started[0].pid, signal.SIGKILL)

    summary = run.extract_to(
        clips_folder,
        output,
        batch_size=1,
        save="both",
        device="cpu,cpu",
        on_result=kill_the_first,
        on_note=notes.append,
    )
    assert (summary.num_videos, summary.exit_code) == (3, 0)
    require_same(output, whole)
    assert dry_run(clips_folder, device="cpu,cpu", save="both").num_videos == 3
    assert not any(lives(worker.pid) for worker in started) and [p.name for p in tmp_path.iterdir()] == ["f.h5"]


@pytest.mark.long
def test_signals_are_the_runs_to_answer(clips_folder, whole, tmp_path, started):
    output, done = tmp_path / "f.h5", []

    def at_first(result):
        done.append(result.key)
        tell(signal.SIGTERM) if len(done) == 1 else None

    with Interrupts() as interrupts:
        summary = run.extract_to(
            clips_folder, output, interrupts=interrupts, on_result=at_first, batch_size=1, save="both", device="cpu,cpu"
        )
    assert summary.exit_code == 143 and 1 <= len(done) <= 3
    assert not any(lives(worker.pid) for worker in started)
    run.extract_to(clips_folder, output, save="both")  # one process goes on where two began
    require_same(output, whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none here")
def test_two_processes_on_a_gpu_give_the_bits_of_one(clips_folder, tmp_path):
    chosen = {"engine": "folded", "precision": "fp32"}  # a measurement may choose otherwise each time
    for name, device in (("one.h5", "cuda:0"), ("two.h5", "cuda:0,cuda:0"), ("all.h5", "cuda")):
        featx.extract_to(clips_folder, tmp_path / name, device=device, save="both", batch_size=4, **chosen)
    require_same(tmp_path / "one.h5", tmp_path / "two.h5")
    require_same(tmp_path / "one.h5", tmp_path / "all.h5")


# ---------------------------------------------------------------------------------------------------------------- the parts


def test_messages_come_through_a_pipe_with_their_arrays(monkeypatch):
    monkeypatch.setattr(wire, "MAPPED_BYTES", 5000)
    rng = np.random.default_rng(0)
    clips = {"fc6": rng.standard_normal((50, 64)).astype(np.float32), "fc7": np.zeros((50, 3), np.float16)}
    table = ClipTable(*(np.arange(50) + i for i in range(4)))
    sent = Features(
        "k", "k.mp4", 90, 50, 25.0, 3.6, descriptors={"fc6": clips["fc6"][0]}, clips=clips, clip_table=table
    )
    read_end, write_end = (os.fdopen(end, mode, 0) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    writer = threading.Thread(
        target=lambda: [wire.write_message(write_end, message) for message in (sent, ("end", None))]
    )
    writer.start()
    got = wire.read_message(read_end)
    assert got.key == "k" and np.array_equal(got.clips["fc6"], clips["fc6"]) and got.clips["fc7"].dtype == np.float16
    assert np.array_equal(got.clip_table.end_seconds, table.end_seconds)
    assert wire.read_message(read_end) == ("end", None)
    writer.join()
    write_end.write(b"\0" * 20)
    write_end.close()
    with pytest.raises(EOFError):
        wire.read_message(read_end)
    read_end.close()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import os; os.kill(os.getpid(), 35)", "it was ended by signal 35"),
        (
            "import os, struct; os.write(1, struct.pack('<2Q', 3, 0) + b'abc'); import time; time.sleep(99)",
            "cannot be read",
        ),
    ],
)
def test_whatever_ends_a_worker_is_heard(monkeypatch, program, told):
    monkeypatch.setattr(local, "_PROGRAM", program)
    heard = queue.SimpleQueue()
    worker = local.LocalWorker("cpu", lambda worker, event: heard.put(event))
    event = heard.get(timeout=60)
    monkeypatch.setattr(local, "END_SECONDS", 0.1)
    worker.close()
    assert isinstance(event, Lost) and told in event.reason


def test_devices_of_a_run(monkeypatch):
    assert worker_devices("cpu") == ("cpu",) and worker_devices("cpu, cpu,cpu") == ("cpu",) * 3
    for num_gpus, every in ((1, ("cuda",)), (3, ("cuda:0", "cuda:1", "cuda:2"))):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda num_gpus=num_gpus: num_gpus)
        assert worker_devices("cuda") == every and worker_devices("auto") == (every if num_gpus > 1 else ("auto",))
    assert worker_devices("cuda:1") == ("cuda:1",) and worker_devices("cuda:0,cuda:2") == ("cuda:0", "cuda:2")
    assert worker_devices("cuda:0,cuda:0") == ("cuda:0", "cuda:0")
    for wrong, words in [("cuda:0,cuda:3", "only 3 GPUs"), ("cuda:0,", "'' stands in"), ("cuda,cuda", "'cuda' stands in"),
                         ("cpu,cuda:0", "two kinds"), ("cpu,gpu", "unknown device 'gpu'")]:  # fmt: skip
        with pytest.raises(UsageError, match=words):
            worker_devices(wrong)
