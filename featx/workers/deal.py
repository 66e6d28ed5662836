"""Hands the videos of a run to extraction workers in small groups, and takes back their results, as one Extractor gives them.

A worker is given a video when it has begun one before, so that a few wait in each and no more: the fastest takes the most, and
at the end none has a heap left. The videos of a lost worker are given out again when all others have been, each alone and
where possible on another machine, so that one which ends every process that touches it is named, and costs no other. One that
a machine does not have is given to another machine at once.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from featx.errors import UsageError
from featx.features import Failure, Features
from featx.frame_folders import file_stamp
from featx.plan import VideoItem
from featx.workers.protocol import (
    Absent,
    Drained,
    Event,
    ExtractionWorker,
    Finished,
    Lost,
    Opened,
    Refused,
    Unfit,
    Wanted,
)

if TYPE_CHECKING:
    from featx.workers.pool import ExtractorPool, Seat

__all__ = ["Deal"]

MAX_LOSSES = 2  # of worker processes with one video in work, which then is to blame
MAX_MACHINE_LOSSES = 5  # of whole machines: mostly they end for reasons of their own
MAX_ABSENT = 8  # videos in a row that a machine does not have: it gets no more, or it would soon have been offered all
TELL_SECONDS, PATIENCE_SECONDS = 20.0, 300.0  # that what no machine at work has waits for one that has not come yet


class Deal:
    """One call of `extract_many`: which videos are where."""

    def __init__(self, pool: ExtractorPool, items: Iterable[VideoItem]) -> None:
        self._pool = pool
        self._supply = _Supply(items, pool.put)
        self._stock: deque[VideoItem] = deque()  # at hand, not yet given
        self._lost: list[VideoItem] = []  # in flight once with a worker that was lost
        self._lost_on: dict[str, str] = {}  # key -> the machine
        self._losses: Counter[tuple[str, bool]] = Counter()  # of a key, of its process or all of its machine
        self._absent: dict[str, tuple[VideoItem, Failure]] = {}  # key -> not on a machine, not yet given to another
        self._absent_on: dict[str, dict[str, str]] = defaultdict(
            dict
        )  # key -> machines, and how workers there are called
        self._num_ordered = 0  # of the supply, not yet come
        self._exhausted = False
        self._waits = [TELL_SECONDS, PATIENCE_SECONDS]  # until workers that have not come count no more

    def results(self) -> Iterator[Features | Failure]:
        self._supply.start()
        try:
            yield from self._hand_out()
            while not self._is_over():
                for source, event in self._pool.messages(self._patience()):
                    if source is None:
                        self._lose_patience()
                    elif source is self._supply:
                        self._take_in(event)
                    else:
                        yield from self._heard(source, event)
                yield from self._hand_out()
        finally:
            self._supply.stop()

    def _is_over(self) -> bool:
        busy = any(seat.in_round or seat.in_flight for seat in self._pool.seats)
        return self._exhausted and not (self._stock or self._lost or self._absent or busy)

    def _patience(self) -> float | None:
        """Seconds to wait for a worker that has not come yet, where nothing else can come; None for any time."""
        seats = self._pool.seats
        can_come = self._num_ordered or any(seat.in_flight for seat in seats) or not any(seat.opened for seat in seats)
        return self._waits[0] if self._waits and not can_come else None

    def _lose_patience(self) -> None:
        self._waits.pop(0)
        if self._waits:
            self._pool.on_note(
                f"what no machine at work can read waits for those that have not started, {PATIENCE_SECONDS:.0f} seconds"
            )

    # ------------------------------------------------------------------------------------------------------ what is heard

    def _take_in(self, event: object) -> None:
        if isinstance(event, BaseException):
            raise event
        if event is None:
            self._exhausted, self._num_ordered = True, 0
        else:
            self._num_ordered -= 1
            self._stock.append(event)

    def _heard(self, worker: ExtractionWorker, event: Event) -> Iterator[Features | Failure]:
        seat = self._pool.seat_of(worker)
        if seat is None:  # closed meanwhile
            return
        if isinstance(event, Wanted):
            seat.wanted += 1
        elif isinstance(event, Finished):
            del seat.in_flight[event.result.key]
            seat.num_absent = 0
            engine = self._pool.engine
            engine.batch_size = min(engine.batch_size, event.batch_size)
            yield event.result
        elif isinstance(event, Absent):
            yield from self._elsewhere(seat, event.failure)
        elif isinstance(event, Drained):
            if seat.in_flight:
                raise AssertionError(f"{list(seat.in_flight)} did not come back from {worker.name}")
            seat.drained, seat.in_round, seat.ending, seat.wanted = event, False, False, self._pool.ahead
        elif isinstance(event, Lost):
            yield from self._again(self._pool.replace(seat, event.reason), seat, event)
        elif seat.opened is None and isinstance(event, Refused | Unfit):
            self._pool.replace(seat, event.reason if isinstance(event, Unfit) else event.message, may_start=False)
        elif isinstance(event, Opened) and self._pool.late:
            try:
                self._pool.on_event(worker, event)
            except UsageError as error:  # it would make other features: the run is not to end for it
                self._pool.replace(seat, str(error), may_start=False)
        else:
            self._pool.on_event(worker, event)

    def _again(self, items: list[VideoItem], seat: Seat, lost: Lost) -> Iterator[Failure]:
        """Take back what was in flight with a lost worker; a Failure for what was so too often."""
        for item in items:
            self._losses[item.key, lost.with_machine] += 1
            if self._losses[item.key, False] == MAX_LOSSES:
                told = "two worker processes were lost while it was in work"
            elif self._losses[item.key, True] == MAX_MACHINE_LOSSES:
                told = f"{MAX_MACHINE_LOSSES} machines were lost while it was in work"
            elif item.url and not item.path.exists():  # what was fetched went when it was read
                told = "a worker process was lost while it was in work (--retry-failed fetches it again)"
            else:
                self._lost.append(item)
                self._lost_on[item.key] = seat.worker.machine
                continue
            yield _failure(item, f"{told}; of the last, on {seat.worker.name}: {lost.reason}")

    def _elsewhere(self, seat: Seat, failure: Failure) -> Iterator[Failure]:
        """Take back a video that a worker's machine does not have; its Failure where it is nowhere."""
        item = seat.in_flight.pop(failure.key)
        if not os.access(item.path, os.R_OK):
            yield failure
            return
        seat.num_absent += 1
        if seat.num_absent in (1, MAX_ABSENT):
            many = f"{MAX_ABSENT} videos in a row, such as " * (seat.num_absent > 1)
            self._pool.on_note(f"{seat.worker.name} cannot read {many}'{item.path}', though it can be read here")
        self._absent_on[item.key][seat.worker.machine] = seat.worker.name
        self._absent[item.key] = item, failure

    # ------------------------------------------------------------------------------------------------------ what is given

    def _hand_out(self) -> Iterator[Failure]:
        """Give what is at hand to who wants it; order what more is wanted; end rounds that get no more."""
        yield from self._give_up()
        hungry = [seat for seat in self._pool.seats if seat.wanted and not seat.ending]
        groups: dict[Seat, list[VideoItem]] = {}
        for seat in hungry:
            others = [key for key in self._absent if seat.worker.machine not in self._absent_on[key]]
            for key in others[: seat.wanted]:
                self._add(groups, seat, self._absent.pop(key)[0])
        hungry = [seat for seat in hungry if seat.wanted and self._may_take(seat)]
        while self._stock and hungry:
            seat = min(hungry, key=lambda seat: len(seat.in_flight))
            self._add(groups, seat, self._stock.popleft())
            if not seat.wanted:
                hungry.remove(seat)
        for seat, group in groups.items():
            seat.worker.give(group)
        if not self._exhausted:
            for _ in range(sum(seat.wanted for seat in hungry) - self._num_ordered):
                self._num_ordered += 1
                self._supply.order()
            self._make_room()
            return
        if self._stock:  # of a worker that was lost before it could be given
            return
        for seat in self._pool.seats:
            if seat.in_round and not seat.ending:
                self._end_round(seat)
            elif self._lost and seat.wanted and not seat.in_round:
                self._give_alone(seat)

    def _give_up(self) -> Iterator[Failure]:
        """Failures of the videos that no machine of a worker has, though this one does."""
        seats = [seat for seat in self._pool.seats if seat.opened is not None or self._waits]
        for key, (item, failure) in list(self._absent.items()):
            places = self._absent_on[key]
            if seats and all(seat.opened is not None and seat.worker.machine in places for seat in seats):
                del self._absent[key]
                told = f"it cannot be read on {', '.join(places.values())}, though it can be where the run was started"
                reason = f"{told}; every machine must see videos under the same path ({failure.reason})"
                yield _failure(item, reason)

    def _make_room(self) -> None:
        """What was fetched, and lost, takes room that others wait for which are still to be fetched: it cannot be the last.

        One worker ends its round for it.
        """
        seats = [
            seat for seat in self._pool.seats if any(item.url and self._may_have(seat, item) for item in self._lost)
        ]
        if any(seat.ending for seat in seats):
            return
        seat = min((seat for seat in seats if seat.wanted), key=lambda seat: len(seat.in_flight), default=None)
        if seat is not None and seat.in_round:
            self._end_round(seat)
        elif seat is not None:
            self._give_alone(seat)

    def _may_have(self, seat: Seat, item: VideoItem) -> bool:
        """Whether a lost video is for this worker: where possible, one of another machine."""
        machine = self._lost_on.get(item.key, "")
        return seat.worker.machine != machine or not any(self._is_other(other, machine) for other in self._pool.seats)

    def _give_alone(self, seat: Seat) -> None:
        """A video that was lost before, in a round of its own; what was fetched goes first."""
        for item in sorted(self._lost, key=lambda item: not item.url):
            if self._may_have(seat, item):
                self._lost.remove(item)
                groups: dict[Seat, list[VideoItem]] = {}
                self._add(groups, seat, item)
                seat.worker.give(groups[seat])
                self._end_round(seat)
                return

    def _may_take(self, seat: Seat) -> bool:
        """Not where a machine lacks videos that another one, which lacks fewer, may have."""
        machine, seats = seat.worker.machine, self._pool.seats
        return seat.num_absent < MAX_ABSENT or not any(
            other.worker.machine != machine and other.num_absent < MAX_ABSENT if other.opened else self._waits
            for other in seats
        )

    @staticmethod
    def _is_other(seat: Seat, machine: str) -> bool:
        return seat.opened is not None and seat.worker.machine != machine

    @staticmethod
    def _add(groups: dict[Seat, list[VideoItem]], seat: Seat, item: VideoItem) -> None:
        groups.setdefault(seat, []).append(item)
        seat.in_flight[item.key] = item
        seat.in_round, seat.wanted = True, seat.wanted - 1

    @staticmethod
    def _end_round(seat: Seat) -> None:
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


def _failure(item: VideoItem, reason: str) -> Failure:
    """The failure of a video, which stays one until its file changes."""
    try:
        stamp = (item.size_bytes, item.mtime_ns) if item.url else file_stamp(item.path)
    except OSError:
        stamp = (0, 0)
    return Failure(item.key, item.path_text, reason, *stamp)
