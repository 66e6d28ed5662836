"""Hands the videos of a run to extraction workers one by one, and takes back their results, as one Extractor would give them.

A worker is given a video when it has begun the one before, so that one waits in each and no more: the fastest takes the most,
and at the end none has a heap left. The videos of a lost worker are given out again when all others have been, each alone, so
that one which ends every process that touches it is named, and costs no other.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from featx import decode_pool
from featx.catalog import Checkpoint
from featx.errors import FeatxError, UsageError
from featx.features import Failure, Features
from featx.plan import VideoItem
from featx.profile import Stopwatch
from featx.resume import keep_plan
from featx.workers.local import LocalWorker
from featx.workers.protocol import (
    Drained,
    Event,
    ExtractionWorker,
    Finished,
    Lost,
    Noted,
    Opened,
    Refused,
    StartWorker,
    Wanted,
)

__all__ = ["ExtractorPool"]

ALL_TOGETHER = "decode"  # is processor time of all workers; of the other stages their mean is shown
SAMPLE_ITEMS = 1000  # as many videos are shown to the first worker, which may look at their first clips


@dataclass(eq=False)
class _Seat:
    """One worker and what the pool knows of it."""

    worker: ExtractionWorker
    opened: Opened | None = None
    wanted: int = 0  # videos that may be given now
    in_round: bool = False
    ending: bool = False  # it was told that its round gets no more
    in_flight: dict[str, VideoItem] = field(default_factory=dict)
    drained: Drained = field(default_factory=lambda: Drained({}, 0))


@dataclass
class _Engines:
    """What a run asks of an Engine, of all workers' together."""

    note: str
    batch_size: int  # the smallest, where memory became short
    is_beside: bool  # batches are computed by GPUs


class ExtractorPool:
    """Several Extractors in processes of their own, used as if they were one. Use it in a ``with`` block, or call `close`.

    After `prepare` it has the attributes of an Extractor that `protocol.FACTS` names, and `engine`. `options` are those of
    `Extractor`; `start_worker` starts a worker on one of `devices`.
    """

    def __init__(
        self,
        backbone: str | os.PathLike | Checkpoint,
        devices: tuple[str, ...],
        *,
        start_worker: StartWorker | None = None,
        **options: object,
    ) -> None:
        self._options = {"backbone": backbone, **options}
        self._options.pop("num_decoders", None)
        self._on_note = lambda note: None
        self._start_worker = start_worker or _local(len(devices), options.get("num_decoders"))
        self._inbox: queue.Queue[tuple[object, object]] = queue.Queue(maxsize=4 * len(devices))
        self._seats: list[_Seat] = []
        self._gone: list[Drained] = []  # of workers that were lost
        self._closing = threading.Event()
        self._extracting = False
        self.stopwatch = Stopwatch()
        self.num_decoders = 0
        for device in devices:  # all load their libraries meanwhile
            self._seats.append(_Seat(self._start_worker(device, self._hear)))

    # ------------------------------------------------------------------------------------------------------------- workers

    def prepare(self, items: Sequence[VideoItem], on_note: Callable[[str], None] = lambda note: None) -> None:
        """Make the Extractors ready for these videos; `on_note` gets one-line remarks, now and later.

        The first worker settles what an Extractor finds out for itself, such as batch size and engine; the others are made
        so, and all must make features in the same way. Raises what `Extractor` raises, UsageError where they do not agree,
        and FeatxError where a worker cannot start.
        """
        self._on_note = on_note
        first = self._seats[0]
        first.worker.open(self._options, items[:SAMPLE_ITEMS])
        for name, value in self._wait_until_open(first).facts.items():
            setattr(self, name, value)
        self.engine = _Engines(first.opened.note, self.provenance.batch_size, first.worker.device.startswith("cuda"))
        settled = {**self._options, "device": first.worker.device}
        keep_plan(self.provenance, settled)
        del settled["device"]
        self._options = settled
        for seat in self._seats[1:]:
            seat.worker.open(settled, ())
        for seat in self._seats[1:]:
            self._wait_until_open(seat)

    def _wait_until_open(self, seat: _Seat) -> Opened:
        while seat.opened is None:
            source, event = self._inbox.get()
            if isinstance(event, Lost):
                raise FeatxError(f"the worker for '{source.device}' cannot start: {event.reason}")
            self._on_event(source, event)
        return seat.opened

    def _on_event(self, worker: ExtractionWorker, event: Event) -> None:
        if isinstance(event, Noted):
            self._on_note(f"{worker.device}: {event.text}")
            return
        if isinstance(event, Refused):
            raise event.error()
        seat = self._seat_of(worker)
        seat.opened, seat.wanted = event, 1
        first, now = self._seats[0], event.facts["provenance"]
        provenance = self.provenance if hasattr(self, "provenance") else now
        provenance.require_agreement(
            now, f"on {first.worker.device}", f"on {worker.device}", "Name devices of one kind with --device."
        )
        if (now.batch_size, now.engine) != (provenance.batch_size, provenance.engine):
            raise UsageError(
                f"'{worker.device}' runs {now.engine} with batches of {now.batch_size}, but '{first.worker.device}' "
                f"{provenance.engine} with batches of {provenance.batch_size}, and last bits differ; name equal devices"
            )

    def _seat_of(self, worker: ExtractionWorker) -> _Seat | None:
        return next((seat for seat in self._seats if seat.worker is worker), None)

    def _hear(self, worker: ExtractionWorker, event: Event) -> None:
        """Called by a worker's thread; waits while the run is behind."""
        self._put((worker, event))

    def _put(self, message: tuple[object, object]) -> None:
        while not self._closing.is_set():
            try:
                return self._inbox.put(message, timeout=0.1)
            except queue.Full:
                continue

    # ---------------------------------------------------------------------------------------------------------- extraction

    def extract_many(self, items: Iterable[VideoItem]) -> Iterator[Features | Failure]:
        """The features of many videos, or why there are none, in the order in which they are finished.

        Leaving it before the last result closes the pool, whose workers are then in the middle of videos. Raises UsageError
        while another call is not finished, and where the pool is closed; FeatxError where the last worker was lost.
        """
        if self._extracting or self._closing.is_set():
            raise UsageError("these workers are extracting already, or closed; make others")
        self._extracting = True
        whole = False
        try:
            yield from _Deal(self, items).results()
            whole = True
        finally:
            self._extracting = False
            self._note_times()
            if not whole:
                self.close()

    def _replace(self, seat: _Seat, reason: str) -> list[VideoItem]:
        """Take a lost worker's place with a new one; returns the videos that were lost with it.

        One that was lost before it was ready is not replaced: its device may be. Raises FeatxError where none is left.
        """
        device, lost = seat.worker.device, list(seat.in_flight.values())
        seat.worker.close()
        self._gone.append(seat.drained)
        self._seats.remove(seat)
        if seat.opened is not None:
            self._on_note(
                f"the worker on {device} was lost ({reason}); its {len(lost)} videos in flight are given out again"
            )
            self._seats.append(_Seat(self._start_worker(device, self._hear)))
            self._seats[-1].worker.open(self._options, ())
        elif self._seats:
            self._on_note(f"no new worker can start on {device} ({reason}); the others go on without it")
        else:
            raise FeatxError(f"no worker is left, and none can start on {device}: {reason}; the same command goes on")
        return lost

    def _note_times(self) -> None:
        """The stages' times so far, into `stopwatch`."""
        told = [*self._gone, *(seat.drained for seat in self._seats)]
        self.num_decoders = sum(each.num_decoders for each in told)
        for stage in {name for each in told for name in each.seconds}:
            total = sum(each.seconds.get(stage, 0.0) for each in told)
            share = total / len(self._seats) if stage != ALL_TOGETHER and self._seats else total
            self.stopwatch.add(stage, share - self.stopwatch.seconds(stage))

    def close(self) -> None:
        """End the workers."""
        self._closing.set()
        for seat in self._seats:
            seat.worker.close()
        self._seats.clear()

    def __enter__(self) -> ExtractorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Deal:
    """One call of `extract_many`: which videos are where."""

    def __init__(self, pool: ExtractorPool, items: Iterable[VideoItem]) -> None:
        self._pool = pool
        self._supply = _Supply(items, pool._put)
        self._stock: deque[VideoItem] = deque()  # at hand, not yet given
        self._lost: deque[VideoItem] = deque()  # in flight once with a worker that was lost
        self._lost_keys: set[str] = set()
        self._num_ordered = 0  # of the supply, not yet come
        self._exhausted = False

    def results(self) -> Iterator[Features | Failure]:
        self._supply.start()
        try:
            self._hand_out()
            while not self._is_over():
                source, event = self._pool._inbox.get()
                if source is self._supply:
                    self._take_in(event)
                else:
                    yield from self._heard(source, event)
                self._hand_out()
        finally:
            self._supply.stop()

    def _is_over(self) -> bool:
        busy = any(seat.in_round or seat.in_flight for seat in self._pool._seats)
        return self._exhausted and not self._stock and not self._lost and not busy

    def _take_in(self, event: object) -> None:
        if isinstance(event, BaseException):
            raise event
        if event is None:
            self._exhausted = True
        else:
            self._num_ordered -= 1
            self._stock.append(event)

    def _heard(self, worker: ExtractionWorker, event: Event) -> Iterator[Features | Failure]:
        seat = self._pool._seat_of(worker)
        if seat is None:  # closed meanwhile
            return
        if isinstance(event, Wanted):
            seat.wanted += 1
        elif isinstance(event, Finished):
            del seat.in_flight[event.result.key]
            engine = self._pool.engine
            engine.batch_size = min(engine.batch_size, event.batch_size)
            yield event.result
        elif isinstance(event, Drained):
            if seat.in_flight:
                raise AssertionError(f"{list(seat.in_flight)} did not come back from {worker.device}")
            seat.drained, seat.in_round, seat.ending, seat.wanted = event, False, False, 1
        elif isinstance(event, Lost) or (isinstance(event, Refused) and seat.opened is None):
            reason = event.reason if isinstance(event, Lost) else event.message
            yield from self._again(self._pool._replace(seat, reason), worker.device, reason)
        else:
            self._pool._on_event(worker, event)

    def _again(self, items: list[VideoItem], device: str, reason: str) -> Iterator[Failure]:
        for item in items:
            if item.key in self._lost_keys:
                told = f"two worker processes were lost while it was in work; of the last, on {device}: {reason}"
                yield Failure(item.key, item.path_text, told)
            elif item.url and not item.path.exists():  # what was fetched went when it was read
                told = (
                    f"a worker process was lost while it was in work, on {device}: {reason}; --retry-failed tries again"
                )
                yield Failure(item.key, item.path_text, told)
            else:
                self._lost_keys.add(item.key)
                self._lost.append(item)

    def _hand_out(self) -> None:
        """Give what is at hand to who wants it; order what more is wanted; end rounds that get no more."""
        hungry = [seat for seat in self._pool._seats if seat.wanted and not seat.ending]
        hungry.sort(key=lambda seat: len(seat.in_flight))
        for seat in hungry:
            while seat.wanted and self._stock:
                self._give(seat, self._stock.popleft())
        if not self._exhausted:
            for _ in range(sum(seat.wanted for seat in hungry) - self._num_ordered):
                self._num_ordered += 1
                self._supply.order()
            return
        if self._stock:  # of a worker that was lost before it could be given
            return
        for seat in self._pool._seats:
            if seat.in_round and not seat.ending:
                self._end_round(seat)
            elif self._lost and seat.wanted and not seat.in_round:
                self._give(seat, self._lost.popleft())
                self._end_round(seat)

    @staticmethod
    def _give(seat: _Seat, item: VideoItem) -> None:
        seat.in_flight[item.key] = item
        seat.in_round, seat.wanted = True, seat.wanted - 1
        seat.worker.give(item)

    @staticmethod
    def _end_round(seat: _Seat) -> None:
        seat.ending = True
        seat.worker.end_round()


class _Supply:
    """Takes videos from their iterator in a thread of its own, each when it is ordered: one may first have to be fetched."""

    def __init__(self, items: Iterable[VideoItem], put: Callable[[tuple[object, object]], None]) -> None:
        self._items, self._put = items, put
        self._orders = threading.Semaphore(0)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="featx-supply", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def order(self) -> None:
        """One more video, please."""
        self._orders.release()

    def stop(self) -> None:
        """It ends when it comes back from what holds it."""
        self._stopped = True
        self._orders.release()

    def _run(self) -> None:
        items = iter(self._items)
        try:
            while True:
                self._orders.acquire()
                if self._stopped:
                    return
                item = next(items, None)
                self._put((self, item))
                if item is None:
                    return
        except BaseException as error:
            self._put((self, error))


def _local(num_workers: int, num_decoders: int | None) -> StartWorker:
    """Starts processes here, each with its share of the threads and of the cores for decoding."""
    num_threads = max(1, torch.get_num_threads() // num_workers)
    num_decoders = max(1, (num_decoders or decode_pool.default_num_workers()) // num_workers)
    return partial(LocalWorker, num_threads=num_threads, num_decoders=num_decoders)
