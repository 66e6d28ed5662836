"""How far a long work is: a bar where somebody looks, a line now and then where a log is kept.

    with Progress("training", total=len(videos), unit="video") as progress:
        for video in videos:
            ...
            progress.advance()

    a terminal    a bar that is redrawn in place
    a notebook    its own bar
    elsewhere     a pipe, a log file: plain lines, none in the first LINE_SECONDS, and no carriage return

All go to stderr.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable

from tqdm import tqdm

__all__ = ["LINE_SECONDS", "LINE_SHARE", "SILENT_SECONDS", "Progress"]

# A line is told LINE_SECONDS after the last, once LINE_SHARE of the work is done since, and SILENT_SECONDS after it anyhow.
LINE_SECONDS, LINE_SHARE, SILENT_SECONDS = 30.0, 0.1, 300.0

SHARE_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"  # of a work whose total is 1


class Progress:
    """Counts a work up to `total`, and shows it on stderr unless `show` is false.

    `total`: None where it is not known yet, see `start`; 1.0 and no `unit` for a work that is told in shares. The unit "B" is
    told in multiples. `keep`: leave the full bar on the terminal. `now` gives seconds. May be advanced from several threads.
    """

    def __init__(
        self,
        desc: str,
        *,
        total: float | None = None,
        unit: str = "",
        show: bool = True,
        keep: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.desc, self.total, self.unit, self.done = desc, total, unit, 0
        self._now, self._lock = now, threading.Lock()
        self._began = self._told_at = now()
        self._told, self._note = 0.0, ""
        self._bar: tqdm | None = None
        self._lines = False
        if not show or sys.stderr is None:
            return
        if _in_notebook():
            from tqdm.auto import tqdm as kind
        elif sys.stderr.isatty():
            kind = tqdm
        else:
            self._lines = True
            return
        scale = {"unit_scale": True, "unit_divisor": 1000} if unit == "B" else {}
        scale |= {} if unit else {"bar_format": SHARE_BAR}
        self._bar = kind(desc=desc, total=total, unit=unit or "it", dynamic_ncols=True, leave=keep, **scale)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return self._now() - self._began

    def start(self, total: float | None) -> None:
        """Begin to count, now that the whole is known, None where it stays unknown."""
        with self._lock:
            self.total, self.done, self._told = total, 0, 0.0
            self._began = self._told_at = self._now()
            if self._bar is not None:
                self._bar.reset(total)

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count so much more, never beyond the total; `note` is shown behind the numbers."""
        with self._lock:
            if self.total is not None:
                amount = min(amount, self.total - self.done)
            self.done += amount
            self._note = note
            if self._bar is not None:
                if note:
                    self._bar.set_postfix_str(note, refresh=False)
                self._bar.update(amount)
            elif self._lines and self._is_time():
                self._told, self._told_at = self.done, self._now()
                with contextlib.suppress(OSError):  # nobody reads it any more, or its disk is full: the work goes on
                    sys.stderr.write(self._line() + "\n")
                    sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away until it is drawn next, so that something else can be printed in its place."""
        if self._bar is not None:
            self._bar.clear()

    def _is_time(self) -> bool:
        since = self._now() - self._told_at
        if since < LINE_SECONDS:
            return False
        return not self.total or self.done - self._told >= LINE_SHARE * self.total or since >= SILENT_SECONDS

    def _line(self) -> str:
        """Such as "extract: 120 of 400 videos, 30 %, 01:10, 02:43 left, 12.0 clips/s"."""
        scale, unit = (1e6, " MB") if self.unit == "B" else (1, f" {self.unit}s")
        done, words = f"{self.done / scale:,.1f}" if self.unit == "B" else f"{self.done}", []
        if self.unit:
            of = (
                ""
                if self.total is None
                else f" of {self.total / scale:,.1f}"
                if scale > 1
                else f" of {self.total:,.0f}"
            )
            words.append(done + of + unit)
        if self.total:
            words.append(f"{100 * self.done / self.total:.0f} %")
        words.append(tqdm.format_interval(self.seconds))
        if self.total and self.done:
            words.append(tqdm.format_interval(self.seconds * (self.total - self.done) / self.done) + " left")
        return f"{self.desc}: " + ", ".join([*words, *([self._note] if self._note else [])])


def _in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this program."""
    try:
        return "IPKernelApp" in sys.modules["IPython"].get_ipython().config
    except (KeyError, AttributeError):
        return False
