"""The program of one extraction worker: `main(DEVICE, NUM_THREADS, NUM_DECODERS)` in a process of its own.

It reads messages on stdin, ("open", options) first, then ("video", VideoItem) and ("end", None) as they come, and answers on
stdout with the events of `protocol`. It ends when stdin is closed, whatever it is doing.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import torch

from featx.errors import FeatxError
from featx.extractor import Extractor
from featx.features import Failure, Features
from featx.plan import VideoItem
from featx.workers.protocol import Drained, Event, Finished, Noted, Opened, Refused, Wanted
from featx.workers.wire import read_message, write_message

__all__ = ["main"]


class _Program:
    def __init__(self, answers: BinaryIO, device: str, num_decoders: int) -> None:
        self._answers, self._device, self._num_decoders = answers, device, num_decoders
        self._sending = threading.Lock()
        self._asked: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._asked.put(read_message(sys.stdin.buffer.raw))
        except EOFError:
            os._exit(0)  # the run is gone, or wants no more; decode workers go with us

    def _say(self, event: Event) -> None:
        with self._sending:
            write_message(self._answers, event)

    def serve(self, make: Callable[..., Extractor]) -> None:
        """Round after round, until the run closes the pipe."""
        _, (options, items) = self._asked.get()
        try:
            with make(device=self._device, num_decoders=self._num_decoders, **options) as extractor:
                extractor.prepare(items, lambda text: self._say(Noted(text)))
                self._say(Opened.of(extractor))
                while True:
                    _, first = self._asked.get()
                    for result in extractor.extract_many(self._videos(first)):
                        self._say(Finished(_plain(result), extractor.engine.batch_size))
                    self._say(Drained(extractor.stopwatch.all_seconds(), extractor.num_decoders))
        except FeatxError as error:
            self._say(Refused.of(error))

    def _videos(self, item: VideoItem | None) -> Iterator[VideoItem]:
        """The videos of a round; another is asked for as soon as a decoder takes one."""
        while item is not None:
            self._say(Wanted())
            yield item
            _, item = self._asked.get()


def _plain(result: Features | Failure) -> Features | Failure:
    """The same with plain arrays, which travel uncopied, in the place of mapped ones."""
    if isinstance(result, Failure):
        return result
    return replace(result, clips={layer: rows.view(np.ndarray) for layer, rows in result.clips.items()})


def main(device: str, num_threads: int, num_decoders: int, make: Callable[..., Extractor] = Extractor) -> None:
    """Serve the run that started this process with what `make` gives, until it goes away."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not stand between our messages
    torch.set_num_threads(num_threads)
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    try:
        _Program(answers, device, num_decoders).serve(make)
    except BrokenPipeError:  # the run is gone
        os._exit(0)
    except BaseException:
        traceback.print_exc()  # what nobody foresaw costs this process; the run reads why
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
