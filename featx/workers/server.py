"""The worker's end of the protocol, wherever it runs: asked message by message, it serves a run with an Extractor.

Messages are ("open", (options, items)) first, then ("videos", [VideoItem, …]) and ("end", None) as they come; the answers are
the events of `protocol`.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from featx.errors import FeatxError
from featx.extractor import Extractor
from featx.features import Failure, Features
from featx.plan import VideoItem
from featx.workers.protocol import Absent, Drained, Event, Finished, Noted, Opened, Refused, Wanted

__all__ = ["Server"]


class Server:
    """Answers a run through `say`, from one thread that calls `serve`; `ask` may be called from any.

    `kind` describes what computes here, see `protocol.Opened`.
    """

    def __init__(
        self, device: str, num_threads: int, num_decoders: int, say: Callable[[Event], None], kind: str = ""
    ) -> None:
        self._device, self._num_threads, self._num_decoders = device, num_threads, num_decoders
        self._say, self._kind = say, kind
        self._asked: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self._in_work: dict[str, VideoItem] = {}

    def ask(self, message: tuple[str, object]) -> None:
        """One message of the run."""
        kind, content = message
        for each in content if kind == "videos" else (content,):
            self._asked.put((kind, each))

    def serve(self, make: Callable[..., Extractor] = Extractor) -> None:
        """Round after round with what `make` gives; returns where the request cannot be met, as was then said."""
        torch.set_num_threads(self._num_threads)
        if torch.device(self._device).type == "cuda":
            torch.cuda.set_device(self._device)
        _, (options, items) = self._asked.get()
        try:
            with make(device=self._device, num_decoders=self._num_decoders, **options) as extractor:
                extractor.prepare(items, lambda text: self._say(Noted(text)))
                self._say(Opened.of(extractor, self._kind))
                while True:
                    _, first = self._asked.get()
                    for result in extractor.extract_many(self._videos(first)):
                        self._say(self._told(result, extractor.engine.batch_size))
                    self._say(Drained(extractor.stopwatch.all_seconds(), extractor.num_decoders))
        except FeatxError as error:
            self._say(Refused.of(error))

    def _videos(self, item: VideoItem | None) -> Iterator[VideoItem]:
        """The videos of a round; another is asked for as soon as a decoder takes one."""
        while item is not None:
            self._in_work[item.key] = item
            self._say(Wanted())
            yield item
            _, item = self._asked.get()

    def _told(self, result: Features | Failure, batch_size: int) -> Finished | Absent:
        item = self._in_work.pop(result.key)
        if isinstance(result, Failure):
            return Finished(result, batch_size) if os.access(item.path, os.R_OK) else Absent(result)
        # plain arrays, which travel uncopied, in the place of mapped ones
        plain = {layer: rows.view(np.ndarray) for layer, rows in result.clips.items()}
        return Finished(replace(result, clips=plain), batch_size)
