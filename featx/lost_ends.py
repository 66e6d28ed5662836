"""Frames that a decoder drops in silence at either end of a stream: packets whose times no frame reaches.

A stream that was cut between two key frames begins with packets that cannot be decoded, and one that lost a key frame may end
with such packets; no decoder makes an error of either. Every packet that is to be shown carries the time of a frame, so the
frames must begin and end about where the packets do.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["BROADCAST", "Ends"]

BROADCAST = ("mpegts", "mpeg")  # formats whose recordings begin anywhere
# Pictures that refer across a cut, and are rightly left out, come in groups of less than this.
_SLACK_FRAMES, _SLACK_SECONDS = 8, 0.4


class Ends:
    """The first and the last time of a stream's packets and of its frames, in ticks."""

    def __init__(self, format_name: str) -> None:
        self._is_sure = format_name not in (*BROADCAST, "avi")  # whose packets carry no times of pictures
        self._packets: tuple[int, int] | None = None
        self._frames: tuple[int, int] | None = None

    def note_packet(self, ticks: int | None) -> None:
        """Take in the time of a packet whose picture is to be shown."""
        self._packets = self._widened(self._packets, ticks)

    def note_frame(self, ticks: int | None) -> None:
        """Take in the time of a frame."""
        self._frames = self._widened(self._frames, ticks)

    def symptoms(self, tick_seconds: float, frame_seconds: float) -> Iterator[str]:
        """What is missing, in words; nothing where the times do not tell."""
        if not self._is_sure or self._packets is None or self._frames is None:
            return
        slack = max(_SLACK_FRAMES * frame_seconds, _SLACK_SECONDS)
        before = (self._frames[0] - self._packets[0]) * tick_seconds
        after = (self._packets[1] - self._frames[1]) * tick_seconds
        if before > slack:
            yield f"no frame comes out of its first {before:.2f} s"
        if after > slack:
            yield f"no frame comes out of its last {after:.2f} s"

    def _widened(self, span: tuple[int, int] | None, ticks: int | None) -> tuple[int, int] | None:
        if ticks is None:
            self._is_sure = False
            return span
        return (ticks, ticks) if span is None else (min(span[0], ticks), max(span[1], ticks))
