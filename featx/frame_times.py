"""When each frame is shown, and which frames are shown at another rate: Clock and resample. Knows no decoder.

Times of packed B-frames in AVI are swapped though the decoder's order is right, so there they are taken by packet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

from featx.errors import VideoError

__all__ = ["Clock", "resample", "slots_within"]

# a longer gap between two frames is taken for a damaged stamp, and is not filled with repeated frames
MAX_GAP_SECONDS = 600.0

# so many frames in a row may lie behind an earlier one before the clock is set
MAX_BEHIND = 4
# a stamp that lies further back than this, and than MAX_BEHIND average frames, is not that of a neighbour
FAR_SECONDS = 1.0
# between two stamps that Matroska, FLV and ASF round to milliseconds
ROUNDING_SECONDS = 0.00101


def resample(
    timed: Iterator[tuple[float, object]], fps: float, shown_seconds: Callable[[], float], stamp_seconds: float = 0.0
) -> Iterator[tuple[float, object]]:
    """Drop and repeat the items of ``(seconds, item)`` pairs so that `fps` of them come a second.

    Output slot k, at k / fps seconds after the first item, is the item shown at that moment: the last one that has begun. At
    a constant rate that is item floor(k * rate / fps), as torchvision takes them. The output lasts as long as the input, in
    whole slots, and at least one: `shown_seconds` is asked after the last item how long that one is shown. `stamp_seconds`
    is how coarse the times are: one that is later by at most half of it has begun. Raises VideoError for a gap, or a last
    item, of more than MAX_GAP_SECONDS.
    """
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
        whole_slots = math.floor((seconds - start) * fps + early)  # before it, which are whole however long it is shown
        for _ in range(slot, first_slot):
            waiting.append(held)
            while waiting and num_out < whole_slots:
                yield start + num_out / fps, waiting.popleft()
                num_out += 1
        slot, held = max(slot, first_slot), item
    if start is not None:
        shown = shown_seconds()
        if shown > MAX_GAP_SECONDS:
            raise VideoError(f"its last frame is shown for {shown:.0f} s; without --fps that does not matter")
        num_slots = max(math.floor((seconds - start + shown) * fps + early), 1)
        waiting.extend([held] * (num_slots - slot))
        while waiting and num_out < num_slots:
            yield start + num_out / fps, waiting.popleft()
            num_out += 1


def slots_within(duration_seconds: float, fps: float) -> int:
    """How many frames `resample` gives of a video that lasts so long, to a millisecond; 0 for one of no length."""
    return max(math.floor((duration_seconds + 0.0005) * fps + 1e-6), 1) if duration_seconds > 0 else 0


class Clock:
    """The time of each frame: by packet in AVI, whose frame stamps are unreliable, else by its stamp; always rising.

    A frame without a stamp comes an average frame after the one before it, and so does one whose stamp does not rise, repeated
    or swapped, where frames come at the average rate; elsewhere the least step later, so that the stamps after it hold as they
    are. Where stamps lie back for longer, as in files that were joined, the clock is set once, and they keep their distances.
    """

    def __init__(self, frame_seconds: float, by_packet: bool) -> None:
        # The k-th frame of an AVI stands in its k-th packet that is not empty; empty ones stand for dropped frames.
        self._packets: deque[float] | None = deque() if by_packet else None
        self._frame_seconds = frame_seconds
        self._far = max(FAR_SECONDS, MAX_BEHIND * frame_seconds)
        self._first: float | None = None  # stamp of the first frame, on the container's clock
        self._last: float | None = None  # seconds of the latest frame, after the first
        self._gap = frame_seconds  # between the latest two frames
        self._own_seconds = 0.0  # of the latest frame, by its own duration; 0 where it tells none
        self._shown_until = -math.inf  # by the frames' own durations, on the container's clock
        self._set_by = 0.0  # seconds that the clock was set forward, in all
        self._stamp = self._top = 0.0  # of the latest frame that has one, and the highest, in seconds as `_last`
        self._num_behind = 0  # latest frames in a row whose stamps are none above the highest
        self._landing = 0.0  # by how much to set the clock, so that the first of them comes an average frame later

    def note(self, packet) -> None:
        """Take in the next packet that is not empty."""
        if self._packets is not None and packet.dts is not None:
            self._packets.append(float(packet.dts * packet.time_base))

    def seconds(self, index: int, frame) -> float:
        """Seconds of the next frame after the first one."""
        stamp, self._own_seconds = None, 0.0
        if self._packets is not None:
            stamp = self._packets.popleft() if self._packets else None
        elif frame.pts is not None and frame.time_base is not None:
            stamp = float(frame.pts * frame.time_base)
            duration = getattr(frame, "duration", 0) or 0  # older versions of PyAV do not tell
            self._own_seconds = float(duration * frame.time_base)
            self._shown_until = max(self._shown_until, stamp + self._own_seconds)
        if index == 0:
            self._first, self._last = stamp or 0.0, 0.0
            return 0.0
        if stamp is None:
            now = self._last + self._frame_seconds
        else:
            now = self._rising(stamp - self._first + self._set_by)
        self._gap, self._last = now - self._last, now
        return now

    def _rising(self, now: float) -> float:
        """The time of a frame that is stamped so many seconds after the first one."""
        before, self._stamp = self._stamp, now
        least = math.nextafter(self._last, math.inf)
        if now > self._last or (now > self._top and self._last - now <= self._far):
            self._top, self._num_behind = now, 0
            return max(now, least)  # the latter behind frames without stamps, which turn out to have come too late
        average = self._last + self._frame_seconds
        if not self._num_behind or before - now > self._far:
            self._num_behind, self._landing = 0, average - now
        self._num_behind += 1
        if self._num_behind <= MAX_BEHIND:
            return average if self._last - now > self._far or self._is_even() else least
        if now == before:  # the clock stands, and says nothing
            self._landing = average - now
            return average
        self._set_by += self._landing
        self._stamp = self._top = now + self._landing
        self._num_behind = 0
        return max(self._top, least)

    def _is_even(self) -> bool:
        """Whether the latest frame came an average frame after the one before it."""
        return abs(self._gap - self._frame_seconds) <= ROUNDING_SECONDS

    def shown_seconds(self) -> float:
        """How long the latest frame is shown where none follows it: by its own duration, else an average frame.

        At a constant rate the average is taken as well for a duration that is not longer: those are rounded, or of a field.
        """
        own, average = self._own_seconds, self._frame_seconds
        if own <= 0 or (self._is_even() and own <= average + ROUNDING_SECONDS):
            return average
        return own

    def ends_after(self) -> float:
        """Seconds after the first frame at which the latest one ends where none follows it."""
        return self._last + self.shown_seconds()

    def end_seconds(self) -> float:
        """When the latest frame ends, on the container's clock: after an average duration, or its own where that is longer."""
        return max((self._first or 0.0) + (self._last or 0.0) + self._frame_seconds, self._shown_until)
