"""deal.py and pool.py for workers on several machines: what one lacks, machines that are lost, workers that are late."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from test_workers import PROVENANCE, Scripted, items

from featx.errors import FeatxError
from featx.features import Failure
from featx.plan import VideoItem
from featx.workers import ExtractorPool, deal, largest_first, order
from featx.workers.protocol import Absent, Finished, Lost, Opened, Refused, Unfit


class OnMachine(Scripted):
    """A worker on a machine that has not the files of names in `lacks`; `ends` maps a key to what loses the worker."""

    def __init__(self, hear, machine, lacks=(), ends=None, at_start=None, kind=""):
        self._lacks, self._ends, self._at_start, self._kind = lacks, {} if ends is None else ends, at_start, kind
        super().__init__("cpu", hear)
        self.machine, self.name = machine, f"node {machine}"

    def _run(self):
        inner = self._hear

        def hear(worker, event):
            if isinstance(event, Opened):
                event = self._at_start or replace(event, kind=self._kind)
            if isinstance(event, Finished) and Path(event.result.path).name in self._lacks:
                event = Absent(Failure(event.result.key, event.result.path, "No such file"))
            elif isinstance(event, Finished) and event.result.key in self._ends and self._ends[event.result.key]:
                event = self._ends[event.result.key].pop()
            inner(worker, event)

        self._hear = hear
        super()._run()


def run(starts, num_videos, notes=None, folder=None, **options):
    """Results by key, of a pool whose workers are started by `starts` in turn, the last one again and again."""
    starts, started = list(starts), []

    def start(device, hear):
        started.append((starts.pop(0) if len(starts) > 1 else starts[0])(hear))
        return started[-1]

    videos = items(num_videos)
    if folder is not None:
        videos = [VideoItem(item.key, folder / item.path) for item in videos]
        for item in videos:
            item.path.touch()
    options = {"ahead": 4, "late": True, "num": 2, **options}
    with ExtractorPool("res3d-mini", ("cpu",) * options.pop("num"), start_worker=start, **options) as pool:
        pool.prepare(videos, (notes if notes is not None else []).append)
        results = list(pool.extract_many(videos))
    assert all(worker.closed for worker in started)
    assert sorted(result.key for result in results) == [item.key for item in videos]
    return {result.key: result for result in results}, started


def on(machine, **script):
    return lambda hear: OnMachine(hear, machine, **script)


def failures(results):
    return {key: result.reason for key, result in results.items() if isinstance(result, Failure)}


@pytest.mark.parametrize("num_videos", [3, 60])
def test_what_a_machine_lacks_is_done_by_another(tmp_path, num_videos):
    notes, lacks = [], [f"{i:03d}.mp4" for i in range(num_videos)]
    results, (poor, rich) = run([on("a", lacks=lacks), on("b")], num_videos, notes, tmp_path)
    assert not failures(results) and len(rich.taken) == num_videos
    assert len(poor.taken) <= 8 + 4 + 1 and sum("node a cannot read" in note for note in notes) == 1 + (
        len(poor.taken) >= 8
    )


def test_what_all_machines_lack_fails_with_their_names_and_what_is_gone_everywhere_as_it_is(tmp_path):
    results, _ = run([on("a", lacks=["001.mp4"]), on("b", lacks=["001.mp4"])], 9, folder=tmp_path)
    (told,) = failures(results).values()
    assert "cannot be read on node" in told and "node a" in told and "node b" in told and "same path" in told
    results, _ = run([on("a", lacks=["001.mp4"]), on("b", lacks=["001.mp4"])], 9)  # no such file here either
    assert failures(results) == {"001": "No such file"}
    results, _ = run([on("a", lacks=["001.mp4"])], 30, folder=tmp_path, num=1)
    assert failures(results).keys() == {"001"}
    results, _ = run([on("a", lacks=[f"{i:03d}.mp4" for i in range(30)])], 30, folder=tmp_path, num=1)
    assert len(failures(results)) == 30


def test_machines_that_lack_everything_end_the_run_with_failures(tmp_path):
    lacks = [f"{i:03d}.mp4" for i in range(40)]
    results, _ = run([on("a", lacks=lacks), on("b", lacks=lacks)], 40, folder=tmp_path)
    assert len(failures(results)) == 40
    assert all("node a" in reason and "node b" in reason for reason in failures(results).values())
    # a machine that gets no more of them is asked all the same for what another one lacks
    results, (_, rich) = run([on("a", lacks=lacks), on("b", lacks=["030.mp4"])], 40, folder=tmp_path)
    assert failures(results).keys() == {"030"} and len(rich.taken) == 40


@pytest.mark.parametrize("lacks", [["003.mp4"], [f"{i:03d}.mp4" for i in range(30)]], ids=len)
def test_what_no_machine_at_work_has_waits_for_the_others_but_not_for_ever(tmp_path, monkeypatch, lacks):
    class Never(OnMachine):
        def open(self, options, items):
            """It stays where it is: Ray finds no place for it."""

    monkeypatch.setattr(deal, "TELL_SECONDS", 0.01)
    monkeypatch.setattr(deal, "PATIENCE_SECONDS", 0.01)
    notes = []
    results, _ = run([on("a", lacks=lacks), lambda hear: Never(hear, "b")], 30, notes, tmp_path)
    assert [f"{key}.mp4" for key in sorted(failures(results))] == lacks
    assert sum("waits for those that have not started" in note for note in notes) == 1


def test_a_video_that_was_lost_goes_to_another_machine_and_a_lost_machine_is_not_its_fault():
    ends = {"004": [Lost("killed")]}
    results, started = run([on("a", ends=ends), on("b", ends=ends), on("c")], 12)
    assert not failures(results) and len(started) == 3
    lost_on = next(worker.machine for worker in started[:2] if "004" in worker.taken)
    taken = [worker.machine for worker in started if "004" in worker.taken]
    assert taken[0] == lost_on and len(taken) == 2 and taken[1] != lost_on
    ends = {"004": [Lost("no answer", with_machine=True)] * 4}
    assert not failures(run([on("a", ends=ends)], 12)[0]) and not ends["004"]
    ends = {"004": [Lost("no answer", with_machine=True)] * 9}
    assert "5 machines were lost" in failures(run([on("a", ends=ends)], 12)[0])["004"] and len(ends["004"]) == 4
    ends = {"004": [Lost("killed")] * 9}
    assert "two worker processes were lost" in failures(run([on("a", ends=ends)], 12)[0])["004"]


@pytest.mark.parametrize("num", [1, 2])
def test_a_fetched_video_that_was_lost_does_not_keep_its_room_till_the_end(tmp_path, num):
    """The next one is fetched only when it is done, and its file gone."""
    videos = [VideoItem(f"{i:03d}", tmp_path / f"{i}.mp4", url=f"s3://bucket/{i}.mp4") for i in range(5)]
    done = threading.Event()

    def fetched():
        for i, item in enumerate(videos):
            if i == 2:
                assert done.wait(10), "nobody does the lost one"
            item.path.touch()
            yield item

    def start(device, hear):
        return OnMachine(hear, "a", ends=ends)

    ends, keys = {"000": [Lost("killed")]}, []
    with ExtractorPool("res3d-mini", ("cpu",) * num, start_worker=start, ahead=4, late=True) as pool:
        pool.prepare(videos)
        for result in pool.extract_many(fetched()):
            assert not isinstance(result, Failure)
            keys.append(result.key)
            if result.key == "000":
                done.set()
    assert sorted(keys) == [item.key for item in videos] and not ends["000"]


def test_a_machine_that_will_not_do_is_left_out_and_the_first_that_will_settles_the_rest():
    for other in (Unfit("there is featx 0.1"), Refused("UsageError", "no such engine")):
        notes = []
        results, started = run([on("a"), on("b", at_start=other)], 5, notes)
        assert not failures(results) and len(started) == 2
    notes = []
    results, started = run([on("a", at_start=Unfit("there is featx 0.1")), on("b")], 5, notes)
    assert not failures(results) and "on node a (there is featx 0.1); the others go on without it" in notes[1]
    with pytest.raises(FeatxError, match="no worker is left, and none can start on node a: there is featx 0.1"):
        run([on("a", at_start=Unfit("there is featx 0.1"))], 5, num=1)
    notes, broken = [], replace(PROVENANCE, engine="onednn-cpu")

    def other_engine(hear):
        worker = OnMachine(hear, "b")
        worker._provenance = broken
        return worker

    results, _ = run([on("a"), other_engine], 5, notes)
    assert not failures(results)


def test_a_late_worker_that_dies_at_the_start_is_started_again_but_not_for_ever():
    dead = on("a", at_start=Lost("killed"))
    results, started = run([dead, on("b"), on("a")], 5)
    assert not failures(results) and len(started) == 3
    with pytest.raises(FeatxError, match="no worker is left.*killed"):
        run([dead], 5, num=1)


def test_machines_of_another_kind_are_told_of_once():
    notes = []
    starts = [on("a", kind="one"), on("b", kind="two"), on("c", kind="two")]
    run(starts, 200, notes, num=3)
    assert [note for note in notes if "to rounding" in note][1:] == []


def test_the_largest_come_first_and_parts_of_a_video_stay_together(tmp_path):
    for name, size in (("a", 10), ("b", 300), ("c", 300), ("d", 0)):
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "e").mkdir()
    for i in range(5):
        (tmp_path / f"e/{i}.jpg").write_bytes(bytes(100))
    names = ["a", "b", "b", "c", "absent", "d", "e"]
    ordered = largest_first([VideoItem(f"{i}", tmp_path / name) for i, name in enumerate(names)])
    assert [item.path.name for item in ordered] == ["e", "b", "b", "c", "a", "absent", "d"]
    assert [item.key for item in ordered[1:3]] == ["1", "2"]
    assert largest_first([]) == []


def test_ordering_many_videos_takes_little_memory(monkeypatch):
    monkeypatch.setattr(order, "AT_ONCE", 100)
    videos = [VideoItem(f"{i:05d}", Path("absent"), url="https://x") for i in range(3000)]
    tracemalloc.start()
    try:
        assert largest_first(videos) == videos
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * len(videos) + 200_000, f"{peak / len(videos):.0f} bytes a video"


def test_a_failure_tells_which_state_of_the_file_failed(tmp_path):
    """So that the next run knows it for the same, and does not try it again unasked."""
    ends = {"001": [Lost("it was ended by SIGSEGV")] * deal.MAX_LOSSES}
    results, _ = run([on("a", lacks=("002.mp4",), ends=ends)], 4, folder=tmp_path, num=1)
    failed = {key: result for key, result in results.items() if isinstance(result, Failure)}
    assert failed.keys() == {"001", "002"}
    for key, failure in failed.items():
        status = (tmp_path / f"{key}.mp4").stat()
        assert (failure.size_bytes, failure.mtime_ns) == (status.st_size, status.st_mtime_ns)
