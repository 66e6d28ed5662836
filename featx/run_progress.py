"""The bar of an extraction: videos done of those planned, clips a second, failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from featx.features import Failure
from featx.progress import Progress

if TYPE_CHECKING:
    from featx.features import Features
    from featx.run import Summary

__all__ = ["RunProgress"]


class RunProgress:
    """Follows a run through its callbacks, while its ``with`` block lasts; shows nothing unless `show`."""

    def __init__(self, show: bool) -> None:
        self._show = show
        self._progress = Progress("extract", unit="video", show=False)
        self._num_clips = self._num_failed = 0

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)

    def around(
        self,
        on_note: Callable[[str], None],
        on_planned: Callable[[Summary], None],
        on_result: Callable[[Features | Failure], None],
    ) -> tuple[Callable[[str], None], Callable[[Summary], None], Callable[[Features | Failure], None]]:
        """The same callbacks, with the bar: drawn from the plan on, and out of the way of a note."""

        def note(text: str) -> None:
            self._progress.clear()
            on_note(text)

        def planned(summary: Summary) -> None:
            on_planned(summary)
            total = summary.num_planned - summary.num_present - len(summary.failed_before)
            self._progress = Progress("extract", total=total, unit="video", show=self._show)

        def result(result: Features | Failure) -> None:
            failed = isinstance(result, Failure)
            self._num_failed += failed
            self._num_clips += 0 if failed else result.num_clips
            rate = self._num_clips / max(self._progress.seconds, 1e-9)
            self._progress.advance(1, f"{rate:.1f} clips/s" + f", {self._num_failed} failed" * bool(self._num_failed))
            on_result(result)

        return note, planned, result
