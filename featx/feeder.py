"""Steps 2b and 3, resize and window: a thread that turns decoded frames into clips, a bounded way ahead of the forward pass.

Chunk (n, H, W, 3) uint8  ->  resize, crop once a frame  ->  window  ->  ClipReady (T, crop, crop, 3) uint8

The pixels are made on the CPU or on the device that computes: see featx/clip_frames.py.
"""

from __future__ import annotations

import queue
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from featx.clip_frames import DeviceFrames, FrameOnDevice, HostFrames
from featx.clips import Clip, ClipWindow, Sampling
from featx.decode_pool import Chunk, DecodePool, Ended, Failed, Started
from featx.engine.batches import is_out_of_memory
from featx.errors import UsageError, VideoError
from featx.features import ClipTable, Failure, Features
from featx.frame_folders import file_stamp
from featx.plan import VideoItem
from featx.preprocess import Preprocess
from featx.profile import Stopwatch

__all__ = ["ClipReady", "Feeder", "MemoryFull", "VideoEnded", "VideoFailed", "check_item"]

T = TypeVar("T")

PASS_SEGMENTS = 500  # of a video, at most, whose features wait in memory, and in a file each, until the video has ended
JOIN_SECONDS = 2.0  # its thread may wait for a server, which must not keep a run from ending; it is a daemon


@dataclass(frozen=True, eq=False)
class ClipReady:
    """The next clip of video `index`, its place among the items given, or the next view of it."""

    index: int
    frames: torch.Tensor  # uint8 BGR (T, crop, crop, 3)
    ready: torch.cuda.Event | None = None  # after which frames on a GPU are there


@dataclass(frozen=True, eq=False)
class VideoEnded:
    """All clips of video `index` have come."""

    index: int
    features: Features  # without its arrays
    clip_table: ClipTable


@dataclass(frozen=True)
class VideoFailed:
    """Video `index` gives no features; clips of it that came before count for nothing."""

    index: int
    failure: Failure


@dataclass(frozen=True, eq=False)
class MemoryFull:
    """The memory of the device that makes the pixels is full: the thread waits for `freed` to be set, and tries again.

    All clips made so far have come before this. `what` does not fit; `num_asked`: so often room was made for it already.
    """

    what: str
    num_asked: int
    freed: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _VideoInDecode:
    """Steps 2b and 3 for one video: its window of prepared frames, and the table of its clips so far."""

    index: int
    item: VideoItem
    size_bytes: int
    mtime_ns: int
    failed: bool = False
    num_counted: int | None = None
    window: ClipWindow[torch.Tensor | FrameOnDevice] | None = None
    clips: list[Clip] = field(default_factory=list)
    times: array = field(default_factory=lambda: array("d"))  # seconds of every frame
    first_frame: int = 0  # of a segment, among the frames of the whole video
    seconds_after: float | None = None  # when the first frame behind a segment is shown

    def takes(self, seconds: float) -> bool:
        """Whether the frame at this time is one of its own."""
        return not self.failed and (self.item.segment is None or self.item.segment.holds(seconds))


@dataclass(eq=False)
class _Decoding:
    """One pass of a decoder: over a video, or over one of which segments are taken."""

    videos: list[_VideoInDecode]
    num_frames: int = 0  # so far


class Feeder:
    """Decodes, resizes and windows in a thread of its own, at most `ahead` events before the reader.

    Leaving its ``with`` block before the last event closes the pool, whose workers are then in the middle of videos. The thread
    is then waited for JOIN_SECONDS; where it takes longer, it ends by itself once it comes back from what holds it.
    `frames`: where and how pixels are made (default: on the CPU).
    """

    def __init__(
        self,
        pool: DecodePool,
        items: Iterable[VideoItem],
        sampling: Sampling,
        preprocess: Preprocess,
        ahead: int,
        stopwatch: Stopwatch | None = None,
        on_corrupt: str = "fail",
        frames: HostFrames | DeviceFrames | None = None,
    ) -> None:
        self._pool, self._items, self._sampling, self._preprocess = pool, items, sampling, preprocess
        self._stopwatch, self._on_corrupt = stopwatch or Stopwatch(), on_corrupt
        self._frames = frames or HostFrames(preprocess)
        self._decoding: dict[int, _Decoding] = {}
        self._queue: queue.Queue = queue.Queue(maxsize=max(ahead, 4))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="featx-feeder", daemon=True)
        self.num_started = 0
        self._finished = False

    def __enter__(self) -> Feeder:
        self._spent_before = self._pool.spent()
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._stop.set()
        self._thread.join(JOIN_SECONDS)
        if not self._finished:
            self._pool.close()
        spent = self._pool.spent() - self._spent_before
        self._stopwatch.add("decode", spent.seconds)
        self._stopwatch.add("decode_processor", spent.processor_seconds)
        self._stopwatch.add("input", spent.lacking_seconds)

    def events(self) -> Iterator[ClipReady | VideoEnded | VideoFailed | MemoryFull]:
        """What the thread makes, in order for each video; raises what the thread raised.

        MemoryFull comes only where `frames` are made on a device, and must be answered.
        """
        while (event := self._queue.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
        self._finished = True

    def _run(self) -> None:
        try:
            with self._frames.at_work():
                for event in self._clips():
                    self._put(event)
            self._put(None)
        except _Stopped:
            pass
        except BaseException as error:
            try:
                self._put(error)
            except _Stopped:
                pass

    def _put(self, event: object) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(event, timeout=0.1)
            except queue.Full:
                continue
        raise _Stopped

    def _with_room(self, make: Callable[[], T], what: str) -> T:
        """What `make` gives, on a device whose memory is full once the reader has made room."""
        num_asked = 0
        while True:
            try:
                with self._stopwatch.time("resize"):
                    return make()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            full = MemoryFull(what, num_asked)  # only here, where nothing holds what had been made before it was full
            self._put(full)
            while not full.freed.wait(timeout=0.1):
                if self._stop.is_set():
                    raise _Stopped
            num_asked += 1

    def _clips(self) -> Iterator[ClipReady | VideoEnded | VideoFailed]:
        count_first = self._sampling.counts_first
        flow = self._preprocess.channel_order == "flow"
        planar = self._frames.planar
        for event in self._pool.decode(self._paths(), self._sampling.fps, count_first, flow, self._on_corrupt, planar):
            decoding = self._decoding[event.index]
            frames = self._prepare_wanted(decoding, event) if isinstance(event, Chunk) else ()
            for video in decoding.videos:
                try:
                    yield from self._advance(video, event, decoding, frames)
                except VideoError as error:
                    yield self._failed(video, str(error))
            if isinstance(event, Chunk):
                decoding.num_frames += len(event.seconds)
            elif isinstance(event, Ended | Failed):
                for video in self._decoding.pop(event.index).videos:
                    if video.item.url:  # it was fetched for this, and others wait for its room
                        video.item.path.unlink(missing_ok=True)

    def _paths(self) -> Iterator[Path]:
        for number, items in enumerate(_passes(self._items)):
            try:
                stamp = file_stamp(items[0].path)
            except OSError:  # the decoder will say so
                stamp = (0, 0)
            self._decoding[number] = _Decoding([])
            for item in items:
                check_item(item, self._sampling)
                self._decoding[number].videos.append(_VideoInDecode(self.num_started, item, *stamp))
                self.num_started += 1
            yield items[0].path

    def _prepare_wanted(
        self, decoding: _Decoding, chunk: Chunk
    ) -> Sequence[torch.Tensor | FrameOnDevice | VideoError | None]:
        """The frames of a chunk that any video takes, prepared, in their places; VideoError where that cannot be."""
        frames: list[torch.Tensor | FrameOnDevice | VideoError | None] = [None] * len(chunk.seconds)
        try:
            wanted = [i for i, t in enumerate(chunk.seconds) if any(video.takes(t) for video in decoding.videos)]
            if wanted:
                taken = slice(wanted[0], wanted[-1] + 1)
                what = f"{taken.stop - taken.start} frames of {chunk.size[1]}x{chunk.size[0]}"
                frames[taken] = self._with_room(lambda: self._frames.prepare(chunk, taken), what)
            return frames
        except VideoError as error:
            return [error] * len(frames)

    def _advance(
        self,
        video: _VideoInDecode,
        event: Started | Chunk | Ended | Failed,
        decoding: _Decoding,
        prepared: Sequence[torch.Tensor | FrameOnDevice | VideoError | None],
    ) -> Iterator[ClipReady | VideoEnded | VideoFailed]:
        if video.failed:  # by us; what the decoder still has to say of it is passed over
            return
        if isinstance(event, Failed):
            yield self._failed(video, event.reason)
        elif isinstance(event, Started):
            video.num_counted = event.num_frames
            starts = video.item.start_frames(event.first_number)
            video.window = ClipWindow(self._sampling, event.num_frames, starts)
        elif isinstance(event, Chunk):
            for i, (seconds, frame) in enumerate(zip(event.seconds, prepared, strict=True)):
                if not video.takes(seconds):
                    if video.times and video.seconds_after is None:  # the frame behind a segment
                        video.seconds_after = seconds
                        yield from self._finish(video)
                    continue
                if isinstance(frame, VideoError):
                    raise frame
                if not video.times:
                    video.first_frame = decoding.num_frames + i
                video.times.append(seconds)
                yield from self._ready(video, video.window.push(frame))
        else:
            if video.num_counted not in (None, event.num_frames):
                raise VideoError(f"decoding it twice gave {video.num_counted} frames, then {event.num_frames}")
            if video.item.segment is not None:
                video.item.segment.end_within(event.source_seconds)
                video.item.segment.require_frames(len(video.times))
            if video.seconds_after is None:
                yield from self._finish(video)
            _require_unchanged(video)
            yield self._ended(video, event)

    def _finish(self, video: _VideoInDecode) -> Iterator[ClipReady]:
        """The clips that the edge policies add after the last frame; the frames held are let go, of a segment at its end."""
        window, video.window = video.window, None
        yield from self._ready(video, window.finish())

    def _ready(
        self, video: _VideoInDecode, clip: tuple[Clip, list[torch.Tensor | FrameOnDevice]] | None
    ) -> Iterator[ClipReady]:
        if clip is not None:
            video.clips.append(clip[0])
            views = self._with_room(lambda: self._frames.views(clip[1]), f"a clip of {len(clip[1])} frames")
            ready = self._frames.mark()
            for view in views:
                yield ClipReady(video.index, view, ready)

    def _ended(self, video: _VideoInDecode, event: Ended) -> VideoEnded:
        num_frames, segment = len(video.times), video.item.segment
        if segment is None and event.num_frames != num_frames:
            raise AssertionError(f"{num_frames} of {event.num_frames} frames of {video.item.path} came through")
        after = event.duration_seconds if video.seconds_after is None else video.seconds_after
        times = np.append(np.frombuffer(video.times, np.float64), after)
        # a folder of images has no clock, and then no segments: NaN
        start_seconds = float(times[0]) if segment is None else segment.start_seconds
        end_seconds = event.duration_seconds if segment is None else segment.end_within(event.source_seconds)
        starts = np.array([clip.start_frame for clip in video.clips], np.int64)
        ends = np.array([clip.end_frame for clip in video.clips], np.int64)
        features = Features(
            key=video.item.key,
            path=video.item.path_text,
            num_frames=num_frames,
            num_clips=len(video.clips),
            fps=event.fps,
            duration_seconds=event.duration_seconds if segment is None else end_seconds - start_seconds,
            size_bytes=video.size_bytes,
            mtime_ns=video.mtime_ns,
            label=video.item.label,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            damage=event.damage,
        )
        table = ClipTable(video.first_frame + starts, video.first_frame + ends, times[starts], times[ends])
        return VideoEnded(video.index, features, table)

    def _failed(self, video: _VideoInDecode, reason: str) -> VideoFailed:
        video.failed = True
        failure = Failure(video.item.key, video.item.path_text, reason, video.size_bytes, video.mtime_ns)
        return VideoFailed(video.index, failure)


def _passes(items: Iterable[VideoItem]) -> Iterator[list[VideoItem]]:
    """The videos that one decoder reads in one pass: one, or the segments of a video that follow one another."""
    segments: list[VideoItem] = []
    for item in items:
        if segments and (item.segment is None or item.path != segments[0].path or len(segments) == PASS_SEGMENTS):
            yield segments
            segments = []
        if item.segment is None:
            yield [item]
        else:
            segments.append(item)
    if segments:
        yield segments


def check_item(item: VideoItem, sampling: Sampling) -> None:
    """Raise UsageError for a video from which clips cannot be cut in the way asked for."""
    if (item.listed_starts is None) == sampling.listed:
        raise UsageError(f"'{item.key}' must come with listed_starts where listed clips are asked for, and only there")
    if item.segment is not None and sampling.counts_first:
        raise UsageError(
            f"'{item.key}' is a segment, whose frames are counted only as they come, but evenly spread or random clips need "
            "their number before; take a stride"
        )


def _require_unchanged(video: _VideoInDecode) -> None:
    """Raise VideoError for a file that is another now than when its decoding began, such as one that is still copied.

    One that has gone meanwhile was read to its end before.
    """
    try:
        stamp = file_stamp(video.item.path)
    except OSError:
        return
    if stamp != (video.size_bytes, video.mtime_ns):
        raise VideoError("changed while it was read; the same command takes it again")


class _Stopped(Exception):
    """The reader of a feeder has left."""
