"""Decode workers that pass from one test to the next: to start one takes 0.4 s of a core, and the suite needs hundreds.

A worker is kept where nothing can be told of what it did before: it has finished its job, everything that it lent was given
back, its memory did not grow, and it was started in the same environment. All others end as they always do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from featx import decode_pool
from featx.decode_pool import Spent, _WorkerProcess

MAX_IDLE = 4
OTHER_VARIABLES = {"PYTEST_CURRENT_TEST", "FEATX_HOME"}  # which no decode worker reads


class _KeptWorker(_WorkerProcess):
    idle: list[_KeptWorker] = []  # noqa: RUF012 - of the whole process

    def __init__(self, gpu: str | None, num_slots: int) -> None:
        self._owed = 0  # jobs that it has, and chunks that we have of it
        self._spent_before = Spent()
        self._was_started_as = _started_as(gpu, num_slots)
        super().__init__(gpu, num_slots)
        self._first_bytes = len(self._memory)

    def send(self, message: dict) -> None:
        for kind in message.keys() & {"decode", "count", "picture"}:
            self._owed += 1
            message = message | {kind: os.path.join(os.getcwd(), message[kind])}  # it was started elsewhere
        self._owed -= "free" in message
        super().send(message)

    def messages(self) -> Iterator[dict]:
        for message in super().messages():
            self._owed += "chunk" in message
            self._owed -= bool(message.keys() & {"end", "error", "picture"})
            yield message

    def spent(self) -> Spent:
        return super().spent() - self._spent_before

    def close(self) -> None:
        is_as_new = (
            self.ready and not self._owed and len(self._memory) == self._first_bytes and not self._shared.is_locked
        )
        if is_as_new and not (self.ended or self.exited()) and len(self.idle) < MAX_IDLE:
            self._spent_before += self.spent()
            self.idle.append(self)
        else:
            super().close()

    def end(self) -> None:
        super().close()


def _started_as(gpu: str | None, num_slots: int) -> tuple:
    variables = {name: value for name, value in os.environ.items() if name not in OTHER_VARIABLES}
    return gpu, num_slots, variables


def _start(gpu: str | None, num_slots: int) -> _KeptWorker:
    wanted = _started_as(gpu, num_slots)
    for worker in _KeptWorker.idle:
        if worker._was_started_as == wanted and not worker.exited():
            _KeptWorker.idle.remove(worker)
            worker.touch()
            return worker
    return _KeptWorker(gpu, num_slots)


@contextmanager
def keeping_workers() -> Iterator[None]:
    """Within, decode workers are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_pool, "_WorkerProcess", _start)
        yield
    for worker in _KeptWorker.idle:
        worker.end()
    _KeptWorker.idle.clear()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Within, every pool starts its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_pool, "_WorkerProcess", _WorkerProcess)
        yield
