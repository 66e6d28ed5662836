"""The jobs of a pool, taken one by one from an iterator that may wait for a server, in a thread that alone waits for it."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["JobSupply"]

REPLY_SECONDS = 0.01  # mostly the next job is at hand: to look again later would cost more

Job = TypeVar("Job")


class JobSupply(Generic[Job]):
    """Takes a job from `jobs` when one is asked for. Use it in a ``with`` block; `wake` becomes readable when one has come."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs = jobs
        self._orders = threading.Semaphore(0)
        self._replies: queue.SimpleQueue[tuple[Job] | BaseException | None] = queue.SimpleQueue()
        self._is_ordered, self._stopped = False, False
        self.is_over = False  # the last job was taken
        self.wake, self._call = os.pipe()

    def take(self) -> Job | None:
        """The next job, None where none is at hand; raises what the iterator raised."""
        if self.is_over:
            return None
        try:
            if self._is_ordered:
                reply = self._replies.get_nowait()
            else:
                self._is_ordered = True
                self._orders.release()
                reply = self._replies.get(timeout=REPLY_SECONDS)
        except queue.Empty:
            return None
        os.read(self.wake, 1)
        self._is_ordered = False
        if isinstance(reply, BaseException):
            raise reply
        if reply is None:
            self.is_over = True
            return None
        return reply[0]

    def __enter__(self) -> JobSupply[Job]:
        threading.Thread(target=self._run, name="featx-jobs", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """The thread ends by itself, once it comes back from what holds it."""
        self._stopped = True
        self._orders.release()
        os.close(self.wake)

    def _run(self) -> None:
        try:
            while True:
                self._orders.acquire()
                if self._stopped:
                    return
                try:
                    reply = next(((job,) for job in self._jobs), None)
                except BaseException as error:
                    reply = error
                self._replies.put(reply)
                os.write(self._call, b"1")
        except BrokenPipeError:  # nobody listens any more
            pass
        finally:
            os.close(self._call)
