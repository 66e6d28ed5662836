"""What a run makes of Ctrl-C and of being told to end: finish the videos in flight once, stop at once the second time.

    anywhere                    a signal raises Interrupted in the main thread: files written aside vanish, workers end
    while videos are extracted  the first signal only asks: no further video is begun, and those in flight have GRACE_SECONDS;
                                the second signal, or the end of that time, raises Interrupted

A signal that was ignored when the program started, as `nohup` and a script's `&` do, stays ignored.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from featx.errors import FeatxError

__all__ = ["Interrupted", "Interrupts", "signal_name"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Somebody waits at a terminal, or will press Ctrl-C again; who sends SIGTERM mostly sends SIGKILL 10 or 30 seconds later.
GRACE_SECONDS = {signal.SIGINT: 60.0, signal.SIGTERM: 8.0, signal.SIGHUP: 8.0}
NOTE_SECONDS = 5.0  # what is still in flight is told so often
GOES_ON = "the same command goes on"
JOIN_SECONDS = (
    2.0  # nobody may read what it tells, or a second signal have come while the lock of a progress bar was taken
)


def signal_name(number: int) -> str:
    """What a signal is called; those for real time have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Interrupted(KeyboardInterrupt):
    """The program is to end now, since a signal says so."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells count: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class Interrupts:
    """The signal handlers of a program, while its ``with`` block lasts; elsewhere than in the main thread, none."""

    def __init__(self) -> None:
        self.asked = 0  # the signal that came first while videos were extracted
        self.raised: Interrupted | None = (
            None  # so that it counts though a library that it met made another error of it
        )
        self.begun_anew = False  # the program has put away what was there, as --overwrite says, and would do so again
        self._graceful = False
        self._before: dict[int, object] = {}
        self._wake: int | None = None  # a pipe to the thread that tells and counts the time

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def goes_on(self) -> str:
        """Which command goes on with what is finished, in words."""
        return GOES_ON.replace("command", "command without --overwrite") if self.begun_anew else GOES_ON

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within, errors say which command goes on as `goes_on` does."""
        try:
            yield
        except FeatxError as error:
            error.args = (str(error).replace(GOES_ON, self.goes_on), *error.args[1:])
            raise

    @contextmanager
    def graceful(self, in_flight: Callable[[], list[str]], on_note: Callable[[str], None]) -> Iterator[None]:
        """Within, the first signal sets `asked`, by which the caller begins nothing new; `in_flight` names what is under way.

        `on_note` is called from a thread of its own: what a signal handler prints could meet a print half-way.
        """
        if not self._before:
            yield
            return
        listen, self._wake = os.pipe()
        thread = threading.Thread(target=self._attend, args=(listen, in_flight, on_note), daemon=True)
        thread.start()
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False
            wake, self._wake = self._wake, None
            os.close(wake)  # the thread leaves
            thread.join(JOIN_SECONDS)
            if not thread.is_alive():
                os.close(listen)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._graceful or self.asked:
            self._graceful = False
            self.raised = Interrupted(self.asked or number)
            raise self.raised
        self.asked = number
        if self._wake is not None:
            os.write(self._wake, bytes([number]))

    def _attend(self, listen: int, in_flight: Callable[[], list[str]], on_note: Callable[[str], None]) -> None:
        """Wait for the first signal; then tell what is waited for, and end the wait when its time is over."""
        told = os.read(listen, 1)
        if not told:
            return
        number = signal.Signals(told[0])
        how = "press Ctrl-C again" if number == signal.SIGINT else "send it again"
        waited, limit = 0.0, GRACE_SECONDS[number]
        on_note(
            f"{number.name}: no further video is begun; {_named(in_flight())} in flight are finished within {limit:g} s "
            f"({how} to stop now, and they are begun anew next time)"
        )
        while waited < limit:
            if select.select([listen], [], [], min(NOTE_SECONDS, limit - waited))[0]:
                return  # all is done
            waited += NOTE_SECONDS
            on_note(f"still in flight after {min(waited, limit):g} s: {_named(in_flight())}")
        on_note("they are given up, and begun anew next time")
        signal.pthread_kill(threading.main_thread().ident, number)  # wakes it where it waits


def _named(keys: list[str]) -> str:
    videos = f"{len(keys)} video" + "s" * (len(keys) != 1)
    return videos + (f" ({', '.join(keys[:2])}{' …' * (len(keys) > 2)})" if keys else "")
