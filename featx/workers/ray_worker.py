"""An extraction worker that is an actor of a Ray cluster: the run's side of it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, OutOfMemoryError, RayActorError, RayError

from featx.errors import FeatxError, one_line
from featx.plan import VideoItem
from featx.workers.protocol import Event, Hear, Lost, Refused, Unfit

__all__ = ["RayWorker"]

POLL_SECONDS = 0.5  # after so long a thread that waits for the actor looks whether the run is over
JOIN_SECONDS = 3.0
NOT_YET = "the Ray cluster"  # is the name of a worker that Ray has not found a place for


class RayWorker:
    """The actor that `start` starts, with an Extractor on `device`, whose weights are those behind `weights`.

    `hear` is called from a thread of this worker's, in the order of what the actor says. See `protocol.ExtractionWorker`.
    """

    def __init__(
        self, device: str, hear: Hear, start: Callable[[str], ray.actor.ActorHandle], weights: ray.ObjectRef
    ) -> None:
        self.device, self.name, self.machine, self.pid = device, NOT_YET, "", 0
        self._hear, self._weights, self._closed = hear, weights, threading.Event()
        self._numbers = itertools.count()
        try:
            self._actor = start(device)
        except RayError as error:
            raise FeatxError(f"Ray starts no worker ({_first_line(error)}); the same command goes on") from error
        self._thread = threading.Thread(target=self._listen, name="featx-ray", daemon=True)
        self._thread.start()

    def open(self, options: dict, items: Sequence[VideoItem]) -> None:
        """Make the Extractor and prepare it for such videos; `Opened`, `Refused` or `Unfit` will be heard."""
        self._tell(("open", (options, list(items))), self._weights)

    def give(self, items: Sequence[VideoItem]) -> None:
        """Some more videos of this round."""
        self._tell(("videos", list(items)))

    def end_round(self) -> None:
        """No more videos in this round."""
        self._tell(("end", None))

    def close(self) -> None:
        """End the actor."""
        self._closed.set()
        with suppress(Exception):  # without a cluster there is no actor either
            ray.kill(self._actor)

    def join(self) -> None:
        """Wait until the thread of a closed worker asks Ray nothing more."""
        self._thread.join(JOIN_SECONDS)

    def _tell(self, message: tuple[str, object], *weights: ray.ObjectRef) -> None:
        with suppress(RayError):  # if it is gone, the thread will say so
            self._actor.tell.remote(next(self._numbers), message, *weights)

    def _listen(self) -> None:
        try:
            host, self.pid, problem, machine, address = self._get(self._actor.look.remote())
            self.name, self.machine = f"node {host} ({address})", machine
            if problem:
                return self._say(Unfit(problem))
            while True:
                for event in self._get(self._actor.hear.remote()):
                    if isinstance(event, Refused):
                        event = Refused(event.kind, f"on {self.name}: {event.message}")
                    self._say(event)
                    if isinstance(event, Lost):
                        return None
        except _Closed:
            return None
        except Exception as error:  # of a closed worker it says that there is none any more
            return None if self._closed.is_set() else self._hear(self, self._lost(error))

    def _say(self, event: Event) -> None:
        if self._closed.is_set():
            raise _Closed
        self._hear(self, event)

    def _get(self, answer: ray.ObjectRef) -> object:
        while not self._closed.is_set():
            try:
                return ray.get(answer, timeout=POLL_SECONDS)
            except GetTimeoutError:
                continue
        raise _Closed

    def _lost(self, error: Exception) -> Lost:
        if isinstance(error, OutOfMemoryError):
            return Lost("Ray ended it, since the memory of its node was full")
        if isinstance(error, ActorUnavailableError):  # of a process that ends Ray knows at once, of a node much later
            return Lost("its node cannot be reached any more", with_machine=True)
        if not isinstance(error, RayActorError):
            kind = "" if isinstance(error, RayError) else f"{type(error).__name__}: "
            return Lost(f"{kind}{_first_line(error)}")
        told = next((line for line in str(error).splitlines() if "because" in line), "").partition("because ")[2]
        return Lost(one_line(told.partition(". ")[0]) or "its process is gone", "its node" in told)


def _first_line(error: Exception) -> str:
    return one_line(str(error).strip().partition("\n")[0])


class _Closed(Exception):
    """Nobody listens any more."""
