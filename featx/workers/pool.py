"""Several extraction workers used as one Extractor: made ready together, replaced where one is lost, closed at the end.

Which video goes where is `deal`'s to say.
"""

from __future__ import annotations

import os
import queue
import threading
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
from featx.workers.deal import Deal
from featx.workers.local import LocalWorker
from featx.workers.protocol import Drained, Event, ExtractionWorker, Lost, Noted, Opened, Refused, StartWorker, Unfit

__all__ = ["ExtractorPool"]

ALL_TOGETHER = ("decode", "decode_processor")  # time of all decoders; of the other stages the workers' mean is shown
SAMPLE_ITEMS = 1000  # as many videos are shown to the first worker, which may look at their first clips
MAX_STARTS = 3  # of a late worker that is lost each time before it was ready
WAIT_SECONDS = 20.0  # after so long it is told that the first worker is waited for


@dataclass(eq=False)
class Seat:
    """One worker and what the pool knows of it."""

    worker: ExtractionWorker
    num_starts: int = 1  # of workers in this place, since one was ready
    opened: Opened | None = None
    wanted: int = 0  # videos that may be given now
    in_round: bool = False
    ending: bool = False  # it was told that its round gets no more
    num_absent: int = 0  # videos in a row that its machine does not have
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
    `Extractor`; `start_worker` starts a worker on one of `devices`. So many videos as `ahead` wait in a worker at most.
    `late`: workers may become ready while videos are extracted, or never; a run begins with the first, and one whose machine
    will not do is left out.
    """

    def __init__(
        self,
        backbone: str | os.PathLike | Checkpoint,
        devices: tuple[str, ...],
        *,
        start_worker: StartWorker | None = None,
        ahead: int = 1,
        late: bool = False,
        **options: object,
    ) -> None:
        self._options = {"backbone": backbone, **options}
        self._options.pop("num_decoders", None)
        self.on_note: Callable[[str], None] = lambda note: None
        self._start_worker = start_worker or _local(len(devices), options.get("num_decoders"))
        self._inbox: queue.Queue[tuple[object, object]] = queue.Queue(maxsize=4 * len(devices))
        self.seats: list[Seat] = []
        self.ahead, self.late = ahead, late
        self._gone: list[Drained] = []  # of workers that were lost
        self._kinds: set[str] = set()  # of machines that were told of
        self._closing = threading.Event()
        self._extracting = False
        self.stopwatch = Stopwatch()
        self.num_decoders = 0
        for device in devices:  # all load their libraries meanwhile
            self.seats.append(Seat(self._start_worker(device, self._hear)))

    # ------------------------------------------------------------------------------------------------------------- workers

    def prepare(self, items: Sequence[VideoItem], on_note: Callable[[str], None] = lambda note: None) -> None:
        """Make the Extractors ready for these videos; `on_note` gets one-line remarks, now and later.

        The first worker settles what an Extractor finds out for itself, such as batch size, engine and decoder; the others
        are made so, and all must make features in the same way. Raises what `Extractor` raises, UsageError where they do not
        agree, and FeatxError where a worker cannot start; where workers are late, only if none can.
        """
        self.on_note = on_note
        first = self._open_first(items[:SAMPLE_ITEMS])
        # whatever was asked for: the first may have had to halve its batches
        settled = {**self._options, "device": first.worker.device, "batch_size": None}
        keep_plan(self.provenance, settled)
        del settled["device"]
        if not self.late:  # other machines may have no video decoder that is as fast
            settled["decode"] = first.opened.decode
        self._options = settled
        others = [seat for seat in self.seats if seat is not first]
        for seat in others:
            seat.worker.open(settled, ())
        while not self.late and any(seat.opened is None for seat in others):
            source, event = self._inbox.get()
            if isinstance(event, Lost):
                raise FeatxError(f"the worker for '{source.name}' cannot start: {event.reason}")
            self.on_event(source, event)

    def _open_first(self, items: Sequence[VideoItem]) -> Seat:
        """The first worker that is ready, by which the pool has its attributes."""
        first = self.seats[0]
        first.worker.open(self._options, items)
        while first.opened is None:
            try:
                source, event = self._inbox.get(timeout=WAIT_SECONDS if self.late else None)
            except queue.Empty:
                self.on_note("the first worker is not yet ready; it is waited for")
                source, event = self._inbox.get()
            seat = self.seat_of(source)
            if isinstance(event, Lost | Unfit) and self.late and seat is not None:
                self.replace(seat, event.reason, isinstance(event, Lost))
                if seat is first:
                    first = self.seats[0]
                    first.worker.open(self._options, items)
            elif isinstance(event, Lost | Unfit):
                raise FeatxError(f"the worker for '{source.name}' cannot start: {event.reason}")
            else:
                self.on_event(source, event)
        for name, value in first.opened.facts.items():
            setattr(self, name, value)
        is_beside = first.worker.device.startswith("cuda")
        self.engine = _Engines(first.opened.note, self.provenance.batch_size, is_beside)
        return first

    def on_event(self, worker: ExtractionWorker, event: Event) -> None:
        """Take in what is not of a single video. Raises the error of a worker that refuses, or does not agree."""
        if isinstance(event, Noted):
            self.on_note(f"{worker.name}: {event.text}")
            return
        if isinstance(event, Refused):
            raise event.error()
        seat = self.seat_of(worker)
        if seat is None or not isinstance(event, Opened):
            return
        self._require_agreement(worker, event)
        seat.opened, seat.wanted, seat.num_starts = event, self.ahead, 1
        if event.kind not in self._kinds and self._kinds:
            self.on_note(
                f"{worker.name} has {event.kind}, others {next(iter(self._kinds))}; their numbers agree to rounding, not to "
                "the bit"
            )
        self._kinds.add(event.kind)

    def _require_agreement(self, worker: ExtractionWorker, event: Opened) -> None:
        if not hasattr(self, "provenance"):  # it is the first
            self._first_name = worker.name
            return
        ours, now = self.provenance, event.facts["provenance"]
        ours.require_agreement(
            now, f"on {self._first_name}", f"on {worker.name}", "Name devices of one kind with --device."
        )
        if (now.batch_size, now.engine) != (ours.batch_size, ours.engine):
            raise UsageError(
                f"'{worker.name}' runs {now.engine} with batches of {now.batch_size}, but '{self._first_name}' "
                f"{ours.engine} with batches of {ours.batch_size}, and last bits differ; name equal devices"
            )

    def seat_of(self, worker: ExtractionWorker) -> Seat | None:
        return next((seat for seat in self.seats if seat.worker is worker), None)

    def _hear(self, worker: ExtractionWorker, event: Event) -> None:
        """Called by a worker's thread; waits while the run is behind."""
        self.put((worker, event))

    def put(self, message: tuple[object, object]) -> None:
        """Give a message to the thread of the run; waits while it is behind."""
        while not self._closing.is_set():
            try:
                return self._inbox.put(message, timeout=0.1)
            except queue.Full:
                continue

    def messages(self, seconds: float | None = None) -> Iterator[tuple[object, object]]:
        """What has come, at least one message, for which it waits; (None, None) where none comes within so many seconds."""
        try:
            first = self._inbox.get(timeout=seconds)
        except queue.Empty:
            first = None, None
        yield first
        for _ in range(self._inbox.qsize()):  # the run is their only taker
            yield self._inbox.get()

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
            yield from Deal(self, items).results()
            whole = True
        finally:
            self._extracting = False
            self._note_times()
            if not whole:
                self.close()

    def replace(self, seat: Seat, reason: str, may_start: bool = True) -> list[VideoItem]:
        """Take a lost worker's place with a new one; returns the videos that were lost with it.

        One that was lost before it was ready is not replaced, since its device may be lost; a late one is, a few times,
        unless it may not start. Raises FeatxError where none is left.
        """
        name, lost = seat.worker.name, list(seat.in_flight.values())
        seat.worker.close()
        self._gone.append(seat.drained)
        self.seats.remove(seat)
        if seat.opened is not None:
            self.on_note(
                f"the worker on {name} was lost ({reason}); its {len(lost)} videos in flight are given out again"
            )
        if may_start and (seat.opened is not None or (self.late and seat.num_starts < MAX_STARTS)):
            num_starts = 1 if seat.opened is not None else seat.num_starts + 1
            self.seats.append(Seat(self._start_worker(seat.worker.device, self._hear), num_starts))
            if hasattr(self, "provenance"):  # else it is opened when what all have in common is settled
                self.seats[-1].worker.open(self._options, ())
                if self.late and not any(seat.opened for seat in self.seats):
                    self.on_note("no worker is at work now; a new one is waited for")
        elif not self.seats:
            raise FeatxError(f"no worker is left, and none can start on {name}: {reason}; the same command goes on")
        else:
            self.on_note(f"no new worker can start on {name} ({reason}); the others go on without it")
        return lost

    def _note_times(self) -> None:
        """The stages' times so far, into `stopwatch`."""
        told = [*self._gone, *(seat.drained for seat in self.seats)]
        self.num_decoders = sum(each.num_decoders for each in told)
        for stage in {name for each in told for name in each.seconds}:
            total = sum(each.seconds.get(stage, 0.0) for each in told)
            share = total / len(self.seats) if stage not in ALL_TOGETHER and self.seats else total
            self.stopwatch.add(stage, share - self.stopwatch.seconds(stage))

    def close(self) -> None:
        """End the workers."""
        self._closing.set()
        for seat in self.seats:
            seat.worker.close()
        self.seats.clear()

    def __enter__(self) -> ExtractorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _local(num_workers: int, num_decoders: int | None) -> StartWorker:
    """Starts processes here, each with its share of the threads and of the cores for decoding."""
    num_threads = max(1, torch.get_num_threads() // num_workers)
    num_decoders = max(1, (num_decoders or decode_pool.default_num_workers()) // num_workers)
    return partial(LocalWorker, num_threads=num_threads, num_decoders=num_decoders)
