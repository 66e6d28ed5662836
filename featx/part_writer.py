"""Step 7 in the background: a thread that gives results to Parts, so that the forward pass does not wait for the disk."""

from __future__ import annotations

import threading
from collections import deque

from featx.features import Failure, Features
from featx.parts import Parts
from featx.provenance import Provenance

__all__ = ["PartWriter"]

QUEUE_BYTES = 128 * 2**20  # two parts; beyond that the run waits for the disk
QUEUE_RESULTS = 10_000


class PartWriter:
    """Takes the results of a run, in order, and writes them as parts meanwhile.

    An error of the disk is raised by the next `add`, or by `finish`, by which everything taken is written.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waiting: deque[tuple[Features | Failure, Provenance]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._finishing = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def add(self, result: Features | Failure, provenance: Provenance) -> None:
        """Take a result, and how it was made; waits while too many are not yet written."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="featx-writer", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: self._error is not None or self._has_room())
            self._waiting.append((result, provenance))  # also after an error: the end of a run tries once more
            self._waiting_bytes += _num_bytes(result)
            self._changed.notify_all()
            if self._error is not None:
                raise self._error

    def _has_room(self) -> bool:
        return self._waiting_bytes < QUEUE_BYTES and len(self._waiting) < QUEUE_RESULTS

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._finishing)
                if not self._waiting:
                    return
                result, provenance = self._waiting.popleft()
            try:
                self._parts.add(result, provenance)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting_bytes -= _num_bytes(result)
                self._changed.notify_all()

    def finish(self, provenance: Provenance) -> None:
        """Write all that was taken, even if that is interrupted, which is raised afterwards; nothing more may be added."""
        try:
            self._drain()
        except KeyboardInterrupt:
            self._drain()
            self._parts.flush_all(provenance)
            raise
        self._parts.flush_all(provenance)

    def _drain(self) -> None:
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        while self._waiting:  # the thread has ended with an error; perhaps there is room again
            self._parts.add(*self._waiting.popleft())  # taken out first: once more, and a video would stand there twice


def _num_bytes(result: Features | Failure) -> int:
    return 0 if isinstance(result, Failure) else result.num_bytes
