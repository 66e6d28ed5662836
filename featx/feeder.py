"""Steps 2b and 3, resize and window: a thread that turns decoded frames into clips, a bounded way ahead of the forward pass.

Chunk (n, H, W, 3) uint8  ->  resize, crop once a frame  ->  window  ->  ClipReady (T, crop, crop, 3) uint8
"""

from __future__ import annotations

import queue
import threading
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from featx.clips import Clip, ClipWindow, Sampling
from featx.decode_pool import Chunk, DecodePool, Ended, Failed, Started
from featx.engine.resize import resize
from featx.errors import UsageError, VideoError
from featx.features import ClipTable, Failure, Features
from featx.frame_folders import file_stamp
from featx.plan import VideoItem
from featx.preprocess import Preprocess
from featx.profile import Stopwatch

__all__ = ["ClipReady", "Feeder", "VideoEnded", "VideoFailed"]

JOIN_SECONDS = 2.0  # its thread may wait for a server, which must not keep a run from ending; it is a daemon


@dataclass(frozen=True, eq=False)
class ClipReady:
    """The next clip of video `index`, its place among the items given."""

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


@dataclass(eq=False)
class _VideoInDecode:
    """Steps 2b and 3 for one video: its window of prepared frames, and the table of its clips so far."""

    item: VideoItem
    size_bytes: int
    mtime_ns: int
    failed: bool = False
    num_counted: int | None = None
    window: ClipWindow[torch.Tensor] | None = None
    clips: list[Clip] = field(default_factory=list)
    times: array = field(default_factory=lambda: array("d"))  # seconds of every frame


class Feeder:
    """Decodes, resizes and windows in a thread of its own, at most `ahead` events before the reader.

    Leaving its ``with`` block before the last event closes the pool, whose workers are then in the middle of videos. The thread
    is then waited for JOIN_SECONDS; where it takes longer, it ends by itself once it comes back from what holds it.
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
    ) -> None:
        self._pool, self._items, self._sampling, self._preprocess = pool, items, sampling, preprocess
        self._stopwatch, self._on_corrupt = stopwatch or Stopwatch(), on_corrupt
        self._videos: dict[int, _VideoInDecode] = {}
        self._queue: queue.Queue = queue.Queue(maxsize=max(ahead, 4))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="featx-feeder", daemon=True)
        self.num_started = 0
        self._finished = False

    def __enter__(self) -> Feeder:
        self._busy_before = self._pool.busy_seconds()
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._stop.set()
        self._thread.join(JOIN_SECONDS)
        if not self._finished:
            self._pool.close()
        self._stopwatch.add("decode", self._pool.busy_seconds() - self._busy_before)

    def events(self) -> Iterator[ClipReady | VideoEnded | VideoFailed]:
        """What the thread makes, in order for each video; raises what the thread raised."""
        while (event := self._queue.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
        self._finished = True

    def _run(self) -> None:
        try:
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

    def _clips(self) -> Iterator[ClipReady | VideoEnded | VideoFailed]:
        count_first = self._sampling.counts_first
        flow = self._preprocess.channel_order == "flow"
        for event in self._pool.decode(self._paths(), self._sampling.fps, count_first, flow, self._on_corrupt):
            try:
                yield from self._advance(self._videos[event.index], event)
            except VideoError as error:
                yield self._failed(event.index, str(error))
            if isinstance(event, Ended | Failed):
                del self._videos[event.index]

    def _paths(self) -> Iterator[Path]:
        for index, item in enumerate(self._items):
            if (item.listed_starts is None) == self._sampling.listed:
                raise UsageError(
                    f"'{item.key}' must come with listed_starts where listed clips are asked for, and only there"
                )
            try:
                self._videos[index] = _VideoInDecode(item, *file_stamp(item.path))
            except OSError:  # the decoder will say so
                self._videos[index] = _VideoInDecode(item, 0, 0)
            self.num_started += 1
            yield item.path

    def _advance(
        self, video: _VideoInDecode, event: Started | Chunk | Ended | Failed
    ) -> Iterator[ClipReady | VideoEnded | VideoFailed]:
        if video.failed:  # by us; what the decoder still has to say of it is passed over
            return
        if isinstance(event, Failed):
            yield self._failed(event.index, event.reason)
        elif isinstance(event, Started):
            video.num_counted = event.num_frames
            starts = video.item.start_frames(event.first_number)
            video.window = ClipWindow(self._sampling, event.num_frames, starts)
        elif isinstance(event, Chunk):
            video.times.extend(event.seconds)
            for frame in self._prepare(event.frames):
                yield from self._ready(event.index, video, video.window.push(frame))
        else:
            if video.num_counted not in (None, event.num_frames):
                raise VideoError(f"decoding it twice gave {video.num_counted} frames, then {event.num_frames}")
            yield from self._ready(event.index, video, video.window.finish())
            _require_unchanged(video)
            yield self._ended(video, event)

    def _prepare(self, frames: np.ndarray) -> torch.Tensor:
        """Resize and crop a chunk: uint8 (n, H, W, 3) -> (n, crop, crop, 3), a copy that outlives the chunk."""
        with self._stopwatch.time("resize"):
            return self._preprocess.prepare_frames(torch.from_numpy(frames), resize)

    def _ready(
        self, index: int, video: _VideoInDecode, clip: tuple[Clip, list[torch.Tensor]] | None
    ) -> Iterator[ClipReady]:
        if clip is not None:
            video.clips.append(clip[0])
            with self._stopwatch.time("resize"):
                # numpy's, since torch would take threads of its own beside those of the forward pass
                frames = torch.from_numpy(np.stack([frame.numpy() for frame in clip[1]]))
            yield ClipReady(index, frames)

    def _ended(self, video: _VideoInDecode, event: Ended) -> VideoEnded:
        expected = video.window.num_frames
        if event.num_frames != expected:
            raise AssertionError(f"{expected} of {event.num_frames} frames of {video.item.path} came through")
        times = np.append(np.frombuffer(video.times, np.float64), event.duration_seconds)
        starts = np.array([clip.start_frame for clip in video.clips], np.int64)
        ends = np.array([clip.end_frame for clip in video.clips], np.int64)
        features = Features(
            key=video.item.key,
            path=video.item.path_text,
            num_frames=event.num_frames,
            num_clips=len(video.clips),
            fps=event.fps,
            duration_seconds=event.duration_seconds,
            size_bytes=video.size_bytes,
            mtime_ns=video.mtime_ns,
            label=video.item.label,
            start_seconds=float(times[0]),  # 0, or NaN in a folder of images, which has no clock
            end_seconds=event.duration_seconds,
            damage=event.damage,
        )
        return VideoEnded(event.index, features, ClipTable(starts, ends, times[starts], times[ends]))

    def _failed(self, index: int, reason: str) -> VideoFailed:
        video = self._videos[index]
        video.failed = True
        failure = Failure(video.item.key, video.item.path_text, reason, video.size_bytes, video.mtime_ns)
        return VideoFailed(index, failure)


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
