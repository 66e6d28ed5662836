"""Frames of a video, exactly as OpenCV would give them, one at a time. A video is a file, or a folder of numbered images.

Runs in the decode workers, so it knows nothing of torch. Pixels come from swscale's fast path (BICUBIC without the
"accurate" flags), which is what OpenCV's reader uses; one scaler is kept for the whole video, since building one costs more
than using it. Frames keep the decoder's order, which is the order of presentation: time stamps of packed B-frames in AVI
are swapped though the order is right, so nothing is ever sorted by them.

A folder of images has no clock: its frame rate and all its times are NaN, and `fps` is refused. For optical flow the two
images of a frame become two channels, x in the place of blue and y in that of green; red is 0.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from featx.containers import missing_bytes
from featx.errors import VideoError
from featx.frame_folders import IMAGE_SUFFIXES, FrameFolder, read_frame_folder
from featx.images import read_image, read_image_header

__all__ = ["VIDEO_SUFFIXES", "Frame", "VideoHeader", "count_frames", "read_frames", "read_header"]

VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .divx .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv".split()
)

# 16384 x 8192; a header that claims more is taken for damage, and nothing of that size is allocated
MAX_PIXELS = 2**27

# a longer gap between two frames is taken for a damaged stamp, and is not filled with repeated frames
MAX_GAP_SECONDS = 600.0

# how libav names what it is given, for a reader who does not know its error codes
_OPEN_REASONS = {
    av.error.InvalidDataError: "not a video, or damaged at its start",
    av.error.EOFError: "not a video, or cut at its start",
    av.error.PermissionError: "no permission to read it",
    av.error.FileNotFoundError: "no such file",
}

# what libav opens as a video though it only says where others lie
_PLAYLISTS = {"hls", "concat", "dash", "imf", "sdp", "webm_dash_manifest"}

av.logging.set_level(None)


class Frame(NamedTuple):
    """One picture: `index` from 0 in order of presentation, `seconds` after the first frame, BGR uint8 (H, W, 3).

    `seconds` is NaN in a folder of images.
    """

    index: int
    seconds: float
    pixels: np.ndarray


@dataclass(frozen=True)
class VideoHeader:
    """What a file says about its video before anything is decoded; every number may be wrong.

    `num_frames` is 0 where the header does not tell and no duration gives an estimate; `fps` in frames a second;
    `height` and `width` in pixels, after rotation is *not* yet applied. `first_number` is 0, in a folder of images the
    number of the first, and there `fps` and `duration_seconds` are NaN.
    """

    height: int
    width: int
    fps: float
    num_frames: int
    duration_seconds: float
    codec: str
    first_number: int = 0


def read_header(path: str | os.PathLike, fps: float | None = None, flow: bool = False) -> VideoHeader:
    """Read a video's header without decoding it; with `fps`, `num_frames` is what `read_frames` would give.

    Raises VideoError where there is no video to decode.
    """
    if os.path.isdir(path):
        folder = _folder(path, fps, flow)
        first = read_image_header(folder.frames[0][0])
        num_frames = len(folder.frames)
        return VideoHeader(first.height, first.width, math.nan, num_frames, math.nan, first.codec, folder.first_number)
    header = _file_header(path, flow)
    return header if fps is None else replace(header, num_frames=round(header.duration_seconds * fps))


def _file_header(path: str | os.PathLike, flow: bool) -> VideoHeader:
    with _open(path, flow) as container:
        stream = _video_stream(container)
        fps = _frame_rate(stream)
        if stream.duration is not None and stream.time_base is not None:
            duration_seconds = float(stream.duration * stream.time_base)
        else:
            duration_seconds = (container.duration or 0) / av.time_base
        num_frames = stream.frames or round(duration_seconds * fps)
        return VideoHeader(stream.height, stream.width, fps, num_frames, duration_seconds, stream.codec_context.name)


def count_frames(
    path: str | os.PathLike,
    fps: float | None = None,
    on_decoded: Callable[[], None] = lambda: None,
    flow: bool = False,
) -> int:
    """Decode a whole video and count the frames that `read_frames` would give."""
    if os.path.isdir(path):
        return sum(1 for _ in _images(_folder(path, fps, flow), on_decoded))
    return sum(1 for _ in _sequence(path, fps, on_decoded, flow))


def read_frames(
    path: str | os.PathLike,
    fps: float | None = None,
    on_decoded: Callable[[], None] = lambda: None,
    flow: bool = False,
) -> Iterator[Frame]:
    """Decode a video, frame by frame.

    With `fps`, frames are dropped and repeated so that `fps` of them come a second (see `resample`). Rotation metadata is
    applied. `on_decoded` is called at every decoded frame, whether it is passed on or not. `flow` asks for optical flow,
    which only a folder can hold. `pixels` is a read-only view, strided where rows are padded or rotated; the same array
    comes again where a frame is repeated.

    Raises VideoError, after the last good frame, for a stream that is damaged or cut short: the reason says where.
    """
    if os.path.isdir(path):
        yield from _images(_folder(path, fps, flow), on_decoded)
        return
    reformatter = VideoReformatter()
    converted, pixels = None, None
    for index, (seconds, frame) in enumerate(_sequence(path, fps, on_decoded, flow)):
        if frame is not converted:
            converted, pixels = frame, _to_bgr(reformatter, frame)
        yield Frame(index, seconds, pixels)


def resample(
    timed: Iterator[tuple[float, object]], fps: float, frame_seconds: float, stamp_seconds: float = 0.0
) -> Iterator[tuple[float, object]]:
    """Drop and repeat the items of ``(seconds, item)`` pairs so that `fps` of them come a second.

    Output slot k, at k / fps seconds after the first item, is the item shown at that moment: the last one that has begun. At
    a constant rate that is item floor(k * rate / fps), as torchvision takes them. The output lasts as long as the input, in
    whole slots, and at least one: `frame_seconds` is how long the last item is shown. `stamp_seconds` is how coarse the
    times are: one that is later by at most half of it has begun. Raises VideoError for a gap of more than MAX_GAP_SECONDS.
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


def _folder(path: str | os.PathLike, fps: float | None, flow: bool) -> FrameFolder:
    """The frames of a folder, which must not be asked for so many a second."""
    folder = read_frame_folder(path, flow)
    if fps is not None:
        raise VideoError(
            f"a folder of images has no time stamps, so {fps:g} frames a second cannot be taken from it; --fps 0 takes its "
            "images as they are"
        )
    return folder


def _images(folder: FrameFolder, on_decoded: Callable[[], None]) -> Iterator[Frame]:
    """Every image of a folder, or pair of images, decoded; all of one size."""
    shape = None
    for index, paths in enumerate(folder.frames):
        pictures = [read_image(path) for path in paths]
        for path, picture in zip(paths, pictures, strict=True):
            shape = shape or picture.shape
            if picture.shape != shape:
                sizes = "{1}x{0}, but {3}x{2}".format(*shape[:2], *picture.shape[:2])
                raise VideoError(f"its first image is {sizes} in {path.name}; frames of a video have one size")
        on_decoded()
        yield Frame(index, math.nan, pictures[0] if len(paths) == 1 else _flow(paths, pictures))


def _flow(paths: tuple[Path, ...], pictures: list[np.ndarray]) -> np.ndarray:
    """Two grey pictures (H, W, 3) -> one of x, y, 0, uint8 (H, W, 3)."""
    out = np.zeros_like(pictures[0])
    for channel, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        if (picture != picture[..., :1]).any():
            raise VideoError(f"{path.name} is coloured; an image of optical flow is grey")
        out[..., channel] = picture[..., 0]
    return out


def _sequence(
    path: str | os.PathLike, fps: float | None, on_decoded: Callable[[], None], flow: bool = False
) -> Iterator[tuple[float, av.VideoFrame]]:
    with _open(path, flow) as container:
        stream = _video_stream(container)
        timed = _decoded(path, container, stream, on_decoded)
        yield from timed if fps is None else resample(timed, fps, 1 / _frame_rate(stream), _stamp_seconds(stream))


def _decoded(path, container, stream, on_decoded: Callable[[], None]) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every frame with its time in seconds after the first; the checks for silent damage are made here."""
    clock = _Clock(container, stream)
    num_packets = num_frames = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            raise _damage(path, f"the decoder failed after {num_frames} good frames ({_text(error)})") from error
        if packet.size > 0:
            clock.note(packet)
            num_packets += not packet.is_discard
        for frame in frames:
            if frame.is_corrupt:
                raise _damage(path, f"the decoder marks frame {num_frames} as corrupt")
            on_decoded()
            yield clock.seconds(num_frames, frame), frame
            num_frames += 1
    if not num_frames:
        raise VideoError("no frames: the video stream is empty")
    # Formats with fields or hidden frames use up to two packets a picture. Fewer pictures than that were lost in silence.
    if num_frames < 0.4 * num_packets:
        raise _damage(path, f"only {num_frames} frames came out of {num_packets} packets")
    # Some writers leave a wrong size in an otherwise whole file, and packed streams hold one frame less than they say.
    lost = missing_bytes(path)
    if lost and (not stream.frames or num_frames < stream.frames - 1):
        raise _damage(path, f"the file ends after {num_frames} frames")
    # A Matroska reader that loses its place skips to the end without a word; its header tells how long the stream is.
    declared = _matroska_seconds(container, stream)
    if declared and clock.end_seconds() < 0.95 * declared - 2 / _frame_rate(stream):
        raise _damage(path, f"the frames end after {clock.end_seconds():.2f} of {declared:.2f} s")


def _matroska_seconds(container, stream) -> float | None:
    """The length of the video stream by its header, where Matroska (MKV, WebM) tells that of the stream itself."""
    if "matroska" not in container.format.name:
        return None
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        alone = len(container.streams) == 1 and container.duration
        return container.duration / av.time_base if alone else None


def _damage(path: str | os.PathLike, symptom: str) -> VideoError:
    """The error for a stream that went wrong: a missing end is the likelier cause wherever there is one."""
    lost = missing_bytes(path)
    return VideoError(f"cut short: {lost} bytes are missing at its end; {symptom}" if lost else f"damaged: {symptom}")


class _Clock:
    """The time of each frame: by packet in AVI, whose frame stamps are unreliable, else by stamps kept rising."""

    def __init__(self, container, stream) -> None:
        # The k-th frame of an AVI stands in its k-th packet that is not empty; empty ones stand for dropped frames.
        self._packets: deque[float] | None = deque() if container.format.name == "avi" else None
        self._frame_seconds = 1 / _frame_rate(stream)
        self._first: float | None = None  # stamp of the first frame, on the container's clock
        self._last: float | None = None  # seconds of the latest frame, after the first

    def note(self, packet: av.Packet) -> None:
        """Take in the next packet that is not empty."""
        if self._packets is not None and packet.dts is not None:
            self._packets.append(float(packet.dts * packet.time_base))

    def seconds(self, index: int, frame: av.VideoFrame) -> float:
        """Seconds of the next frame after the first one."""
        stamp = None
        if self._packets is not None:
            stamp = self._packets.popleft() if self._packets else None
        elif frame.pts is not None and frame.time_base is not None:
            stamp = float(frame.pts * frame.time_base)
        now = None if stamp is None else stamp - (self._first or 0.0)
        if index == 0:
            self._first, now = stamp or 0.0, 0.0
        elif now is None or now <= self._last:
            now = self._last + self._frame_seconds
        self._last = now
        return now

    def end_seconds(self) -> float:
        """When the latest frame ends, on the container's clock."""
        return (self._first or 0.0) + (self._last or 0.0) + self._frame_seconds


def _open(path: str | os.PathLike, flow: bool = False):
    path = Path(path)
    if flow:
        raise VideoError(
            "a video file, but this checkpoint takes optical flow: a folder of images such as flow_x_00001.jpg with "
            "flow_y_00001.jpg"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise VideoError("an image; its folder stands for the video, so name that")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise VideoError("cannot be opened: not a regular file")  # a pipe would be waited for without an end
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError("an empty file")
        # file: so that a name such as "http:x.mp4" or "-" is still a local file; metadata in any code page
        container = av.open(
            "file:" + os.fspath(path), metadata_errors="replace", options={"protocol_whitelist": "file"}
        )
        if container.format.name in _PLAYLISTS:
            raise VideoError(f"a playlist ({container.format.name}), which names other files; name those")
        return container
    except (av.error.FFmpegError, OSError) as error:
        reason = next((text for kind, text in _OPEN_REASONS.items() if isinstance(error, kind)), _text(error))
        if path.is_file() and (lost := missing_bytes(path)):
            reason = f"cut short, {lost} bytes are missing at its end"
        raise VideoError(f"cannot be opened: {reason}") from error


def _video_stream(container):
    """The stream that players show; a cover picture in a music file is not a video."""
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise VideoError("no video stream: " + ("audio only" if container.streams.audio else "nothing to decode"))
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoError("no decoder for its video stream")
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(f"frames of {stream.width}x{stream.height} pixels; at most {MAX_PIXELS} pixels are taken")
    stream.codec_context.thread_count = 1  # one decoder a core, several videos at once: threads inside one gain little
    return stream


def _frame_rate(stream) -> float:
    """Frames a second from the header; 25 where it gives none (needed only for frames without a time stamp)."""
    return float(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)


def _stamp_seconds(stream) -> float:
    """How coarse the time stamps are, such as Matroska's milliseconds; 0 where the clock ticks once a frame, as AVI's."""
    tick = float(stream.time_base or 0)
    return tick if tick <= 0.002 else 0.0


def _to_bgr(reformatter: VideoReformatter, frame: av.VideoFrame) -> np.ndarray:
    """Convert to BGR uint8 (H, W, 3), upright."""
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError(f"a frame of {frame.width}x{frame.height} pixels; at most {MAX_PIXELS} pixels are taken")
    bgr = reformatter.reformat(frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1)
    plane = bgr.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(bgr.height, plane.line_size)
    pixels = rows[:, : bgr.width * 3].reshape(bgr.height, bgr.width, 3)
    if frame.rotation % 90 == 0:
        pixels = np.rot90(pixels, frame.rotation // 90 % 4)  # the stored angle is counterclockwise, as numpy's
    return pixels


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
