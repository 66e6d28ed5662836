"""What an actor does once it has found featx: it serves a run with an Extractor, in a thread of its own.

The messages and events are those of every worker, see `server`; here they are calls.
"""

from __future__ import annotations

import hashlib
import platform
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import torch

import featx
from featx import machine, video
from featx.extractor import Extractor
from featx.workers.protocol import Event, Lost
from featx.workers.server import Server

__all__ = ["Program", "code_of", "why_not"]

MAX_EVENTS = 64  # of one answer; beyond that the Extractor waits for the run


def code_of() -> str:
    """This featx: its version, and a SHA-256 of its modules, so that two of one version can be told apart."""
    folder, digest = Path(featx.__file__).parent, hashlib.sha256()
    for path in sorted(set(folder.rglob("*.py")) - set(folder.glob("weights/*"))):  # in a clone they lie elsewhere
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return f"{featx.__version__} {digest.hexdigest()}"


def why_not(code: str) -> str:
    """Why the featx of this machine will not do for a run of the featx `code`; "" where they are the same."""
    ours, _, our_digest = code_of().partition(" ")
    version, _, digest = code.partition(" ")
    if (ours, our_digest) == (version, digest):
        return ""
    what = (
        f"featx {ours}, but the run is of {version}" if ours != version else f"another featx {ours} than the run is of"
    )
    return f"there is {what} (in {Path(featx.__file__).parent}); install the same on every machine"


def kind_of(device: str) -> str:
    """What computes on this machine, in words: numbers of equal kinds are equal to the bit."""
    computes = machine.look().processor
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        computes = torch.cuda.get_device_name(device)
    libraries = dict(video.libraries())
    return f"{computes}, {platform.machine()}, torch {torch.__version__}, " + ", ".join(
        f"{name} {version}" for name, version in libraries.items()
    )


class Program:
    """An Extractor on `device`, made with `make`, for one run."""

    def __init__(
        self, device: str, num_threads: int, num_decoders: int, make: Callable[..., Extractor] | None = None
    ) -> None:
        self._events: queue.Queue[Event] = queue.Queue(MAX_EVENTS)
        self._server = Server(device, num_threads, num_decoders, self._events.put, kind_of(device))
        self._early: dict[int, tuple[tuple[str, object], object]] = {}
        self._next_number = 0
        self._numbering = threading.Lock()
        threading.Thread(target=self._serve, args=(make or Extractor,), name="featx-serve", daemon=True).start()

    def _serve(self, make: Callable[..., Extractor]) -> None:
        try:
            self._server.serve(make)
        except BaseException as error:  # what nobody foresaw costs this worker; the run says what it was
            self._events.put(Lost(f"{type(error).__name__}: {error}"))

    def tell(self, number: int, message: tuple[str, object], weights: object = None) -> None:
        """Take the message of that number, from 0, for its turn; `weights` into the options of "open"."""
        with self._numbering:
            self._early[number] = message, weights
            while self._next_number in self._early:
                (kind, content), weights = self._early.pop(self._next_number)
                self._next_number += 1
                if kind == "open":
                    options, items = content
                    content = {**options, "weights": weights}, items
                self._server.ask((kind, content))

    def hear(self) -> list[Event]:
        """The next events, at least one, for which it waits."""
        events = [self._events.get()]
        while len(events) < MAX_EVENTS and not self._events.empty():
            events.append(self._events.get())
        return events
