"""The program of one extraction worker: `main(DEVICE, NUM_THREADS, NUM_DECODERS)` in a process of its own.

It reads the messages of `server` on stdin, and answers on stdout with the events of `protocol`. It ends when stdin is closed,
whatever it is doing.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import BinaryIO

from featx.extractor import Extractor
from featx.workers.protocol import Event
from featx.workers.server import Server
from featx.workers.wire import read_message, write_message

__all__ = ["main"]


class _Pipe:
    """Takes events to the run, and its messages to a server."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._sending = threading.Lock()

    def say(self, event: Event) -> None:
        with self._sending:
            write_message(self._answers, event)

    @staticmethod
    def listen(server: Server) -> None:
        try:
            while True:
                server.ask(read_message(sys.stdin.buffer.raw))
        except EOFError:
            os._exit(0)  # the run is gone, or wants no more; decode workers go with us


def main(device: str, num_threads: int, num_decoders: int, make: Callable[..., Extractor] = Extractor) -> None:
    """Serve the run that started this process with what `make` gives, until it goes away."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not stand between our messages
    pipe = _Pipe(answers)
    server = Server(device, num_threads, num_decoders, pipe.say)
    threading.Thread(target=pipe.listen, args=(server,), daemon=True).start()
    try:
        server.serve(make)
    except BrokenPipeError:  # the run is gone
        os._exit(0)
    except BaseException:
        traceback.print_exc()  # what nobody foresaw costs this process; the run reads why
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
