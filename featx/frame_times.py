"""When each frame is shown, and which frames are shown at another rate: Clock and resample. Knows no decoder.

Times of packed B-frames in AVI are swapped though the decoder's order is right, so there they are taken by packet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from featx.errors import VideoError

__all__ = ["Clock", "resample"]

# a longer gap between two frames is taken for a damaged stamp, and is not filled with repeated frames
MAX_GAP_SECONDS = 600.0


def resample(
    timed: Iterator[tuple[float, object]], fps: float, frame_seconds: float, stamp_seconds: float = 0.0
) -> Iterator[tuple[float, object]]:
    """Drop and repeat the items of ``(seconds, item)`` pairs so that `fps` of them come a second.

    Output slot k, at k / fps seconds after the first item, is the item shown at that moment: the last one that has begun. At
    a constant rate that is item floor(k * rate / fps), as torchvision takes them. The output lasts as long as the input, in
    whole slots, and at least one: `frame_seconds` is how long the last item is shown. `stamp_seconds` is how coarse the
    times are: one that is later by at most half of it has begun. Raises VideoError for a gap, or a
    `frame_seconds`, of more than MAX_GAP_SECONDS.
    """
    if frame_seconds > MAX_GAP_SECONDS:
        raise VideoError(f"its header gives a frame {frame_seconds:.0f} s; without --fps that does not matter")
    early = stamp_seconds / 2 * fps + 1e-6  # in slots
    slot, num_out, held, start = 0, 0, None, None
    waiting: deque[object] = deque()  # items of slots that may yet turn out to reach beyond the end
    for seconds, item in timed:
        start = seconds if start is None else start
        first_slot = math.ceil((seconds - start) * fps - early)  # that this item is shown in
        if first_slot - slot > MAX_GAP_SECONDS * fps:
            raise VideoError(
                f"time stamps jump from {start + slot / fps:.2f} to {seconds:.2f} s; without --fps they do not matter"
            )
        whole_slots = math.floor((seconds - start + frame_seconds) * fps + early)
        for _ in range(slot, first_slot):
            waiting.append(held)
            while waiting and num_out < whole_slots:
                yield start + num_out / fps, waiting.popleft()
                num_out += 1
        slot, held = max(slot, first_slot), item
    if start is not None:
        num_slots = max(whole_slots, 1)
        waiting.extend([held] * (num_slots - slot))
        while waiting and num_out < num_slots:
            yield start + num_out / fps, waiting.popleft()
            num_out += 1


class Clock:
    """The time of each frame: by packet in AVI, whose frame stamps are unreliable, else by stamps kept rising."""

    def __init__(self, frame_seconds: float, by_packet: bool) -> None:
        # The k-th frame of an AVI stands in its k-th packet that is not empty; empty ones stand for dropped frames.
        self._packets: deque[float] | None = deque() if by_packet else None
        self._frame_seconds = frame_seconds
        self._first: float | None = None  # stamp of the first frame, on the container's clock
        self._last: float | None = None  # seconds of the latest frame, after the first
        self._shown_until = -math.inf  # by the frames' own durations, on the container's clock

    def note(self, packet) -> None:
        """Take in the next packet that is not empty."""
        if self._packets is not None and packet.dts is not None:
            self._packets.append(float(packet.dts * packet.time_base))

    def seconds(self, index: int, frame) -> float:
        """Seconds of the next frame after the first one."""
        stamp = None
        if self._packets is not None:
            stamp = self._packets.popleft() if self._packets else None
        elif frame.pts is not None and frame.time_base is not None:
            stamp = float(frame.pts * frame.time_base)
            duration = getattr(frame, "duration", 0) or 0  # older versions of PyAV do not tell
            self._shown_until = max(self._shown_until, stamp + float(duration * frame.time_base))
        now = None if stamp is None else stamp - (self._first or 0.0)
        if index == 0:
            self._first, now = stamp or 0.0, 0.0
        elif now is None or now <= self._last:
            now = self._last + self._frame_seconds
        self._last = now
        return now

    def end_seconds(self) -> float:
        """When the latest frame ends, on the container's clock: after an average duration, or its own where that is longer."""
        return max((self._first or 0.0) + (self._last or 0.0) + self._frame_seconds, self._shown_until)
