"""part_writer.py: results are written in the background, in order, and an error of the disk is not lost on the way."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from featx import part_writer
from featx.errors import FeatxError
from featx.features import Failure, Features
from featx.part_writer import PartWriter


class Recorded:
    """Stands for Parts: keeps what it is given; `gate` holds it up, `errors` are raised one by one."""

    def __init__(self, errors=()):
        self.kept, self.flushed, self.errors, self.gate = [], 0, list(errors), threading.Event()

    def add(self, result, provenance):
        assert provenance == "made so"
        self.gate.wait(60)
        self.kept.append(result.key)
        if self.errors:
            raise self.errors.pop(0)

    def flush_all(self, provenance):
        self.flushed += 1


def results(count):
    return [Failure(f"{i}", f"{i}.mp4", "why") for i in range(count)]


def test_the_caller_does_not_wait_for_the_disk_until_much_waits(monkeypatch):
    monkeypatch.setattr(part_writer, "QUEUE_RESULTS", 5)
    parts = Recorded()
    writer = PartWriter(parts)
    for result in results(5):
        writer.add(result, "made so")  # while nothing can be written
    assert parts.kept == []
    open_gate = threading.Timer(0.05, parts.gate.set)
    open_gate.start()
    for result in results(7)[5:]:
        writer.add(result, "made so")
    writer.finish("made so")
    assert parts.kept == [str(i) for i in range(7)] and parts.flushed == 1


def test_all_arrays_of_a_result_count_for_what_may_wait():
    arrays = {"descriptors": np.zeros(8, np.float32)}
    arrays["bins"] = np.zeros((100, 8), np.float16)
    features = Features("a", "a.mp4", 16, 1, 25.0, 0.64, **{name: {"fc6": array} for name, array in arrays.items()})
    assert features.num_bytes == 32 + 1600
    writer = PartWriter(Recorded())
    writer.add(features, "made so")
    assert writer._waiting_bytes == features.num_bytes
    writer._parts.gate.set()
    writer.finish("made so")


def test_an_error_ends_the_run_and_the_end_tries_once_more():
    parts = Recorded([FeatxError("the disk is full")])
    parts.gate.set()
    writer = PartWriter(parts)
    with pytest.raises(FeatxError, match="the disk is full"):
        for result in results(100_000):
            writer.add(result, "made so")
    writer.finish("made so")
    assert parts.kept == sorted(parts.kept, key=int) and parts.flushed == 1 and not writer._waiting
    writer = PartWriter(parts := Recorded([FeatxError("full"), FeatxError("still full")]))
    writer.add(results(1)[0], "made so")
    writer.add(results(2)[1], "made so")
    parts.gate.set()
    with pytest.raises(FeatxError, match="still full"):
        writer.finish("made so")


def test_an_interrupt_while_the_rest_is_written_loses_nothing():
    parts = Recorded()
    writer = PartWriter(parts)
    drain, calls = writer._drain, []

    def interrupted():
        calls.append(0)
        if len(calls) == 1:
            raise KeyboardInterrupt
        parts.gate.set()
        drain()

    writer._drain = interrupted
    for result in results(3):
        writer.add(result, "made so")
    with pytest.raises(KeyboardInterrupt):
        writer.finish("made so")
    assert parts.kept == ["0", "1", "2"] and parts.flushed == 1


def test_what_is_written_at_the_end_is_written_once_though_that_is_interrupted():
    parts = Recorded([FeatxError("full"), KeyboardInterrupt()])
    parts.gate.set()
    writer = PartWriter(parts)
    with pytest.raises(FeatxError, match="full"):
        for result in results(100_000):
            writer.add(result, "made so")
    with pytest.raises(KeyboardInterrupt):
        writer.finish("made so")
    assert len(parts.kept) == len(set(parts.kept)) and parts.flushed == 1
