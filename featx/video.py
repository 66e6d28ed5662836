"""Frames of a video, exactly as OpenCV would give them, one at a time. A video is a file, or a folder of numbered images.

Runs in the decode workers, so it knows nothing of torch. Pixels come from swscale's fast path (BICUBIC without the
"accurate" flags), which is what OpenCV's reader uses; one scaler is kept for the whole video, since building one costs more
than using it. Frames keep the decoder's order, which is the order of presentation: time stamps of packed B-frames in AVI
are swapped though the order is right, so nothing is ever sorted by them.

A GPU's decoder may take the place of the processor's for streams whose standard fixes every pixel; its frames, which come as
NV12, are put into the form in which the processor's decoder gives them, and are the same from there on.

Where the frames are to be converted elsewhere, those of the common kinds come as planes of luma and chroma instead: see
featx/yuv.py. Whether the rule there gives swscale's pixels is tried out, once a process for each matrix and range; where it
does not, as on a processor for which swscale has other code, frames come as BGR.

A folder of images has no clock: its frame rate and all its times are NaN, and `fps` is refused. For optical flow the two
images of a frame become two channels, x in the place of blue and y in that of green; red is 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.reformatter import Interpolation, VideoReformatter

from featx import hardware_decode
from featx.container_faults import broken_at
from featx.containers import missing_bytes, num_indexed
from featx.damage import Damage
from featx.errors import VideoError
from featx.frame_folders import IMAGE_SUFFIXES, FrameFolder, read_frame_folder
from featx.frame_times import Clock, resample, slots_within
from featx.hardware_decode import as_the_processor_gives_it
from featx.images import read_image, read_image_header
from featx.lost_ends import BROADCAST, Ends
from featx.yuv import FULL_RANGE, Planes, YuvForm, planes_to_bgr, yuv_form

__all__ = [
    "Frame",
    "VideoHeader",
    "count_frames",
    "libraries",
    "missing_decoders",
    "read_frames",
    "read_header",
    "read_picture",
]

# 16384 x 8192; a header that claims more is taken for damage, and nothing of that size is allocated
MAX_PIXELS = 2**27

# 7.8 days at 25 frames a second; what is remembered of a frame, its time, stays below so many times 8 bytes
MAX_FRAMES = 2**24

# libav's readers of files that hold their video themselves. Not among them: lists of other files or addresses to open
# (concat, hls, dash, sdp, image2), which a file of any name could be, and devices.
_FORMATS = (
    "amv apng asf asf_o av1 avi avs2 avs3 bink cavsvideo cdxl dhav dirac dnxhd dv evc flic flv gif gxf h261 "
    "h263 h264 hevc ivf kux live_flv m4v matroska mjpeg mjpeg_2000 mlv mov mpeg mpegts mpegvideo mxf nsv nut nuv obu ogg "
    "pva rl2 rm roq smk swf thp ty vc1 vc1test vivo vvc wtv yuv4mpegpipe"
)

_NO_TIMESTAMPS = 0x80  # of a format that holds a bare stream: AVFMT_NOTIMESTAMPS

# so many times in a row a container is read on after an error, where damage is kept
_MAX_READ_ERRORS = 16

# metadata in any code page: up to its version 18 PyAV refuses what is not UTF-8 unless it is told otherwise
_ANY_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

# how libav names what it is given, for a reader who does not know its error codes
_OPEN_REASONS = {
    av.error.InvalidDataError: "not a video, or damaged at its start",
    av.error.EOFError: "not a video, or cut at its start",
    av.error.PermissionError: "no permission to read it",
    av.error.FileNotFoundError: "no such file",
    av.error.ArgumentError: "not one of the kinds of video file that are taken",
    MemoryError: "its header asks for more memory than a video may take",
}

av.logging.set_level(None)


class Frame(NamedTuple):
    """One picture: `index` from 0 in order of presentation, `seconds` after the first frame, BGR uint8 (H, W, 3) or planes.

    `seconds` is NaN in a folder of images.
    """

    index: int
    seconds: float
    pixels: np.ndarray | Planes


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
    return header if fps is None else replace(header, num_frames=slots_within(header.duration_seconds, fps))


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
    damage: Damage | None = None,
) -> int:
    """Decode a whole video and count the frames that `read_frames` would give."""
    damage = damage or Damage()
    if os.path.isdir(path):
        return sum(1 for _ in _images(_folder(path, fps, flow), on_decoded, damage))
    return sum(1 for _ in _sequence(path, fps, on_decoded, flow, damage))


def read_frames(
    path: str | os.PathLike,
    fps: float | None = None,
    on_decoded: Callable[[], None] = lambda: None,
    flow: bool = False,
    damage: Damage | None = None,
    planar: bool = False,
    on_end: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Frame]:
    """Decode a video, frame by frame.

    With `fps`, frames are dropped and repeated so that `fps` of them come a second (see `resample`). Rotation metadata is
    applied. `on_decoded` is called at every decoded frame, whether it is passed on or not, `on_end` after the last one with the
    seconds after the first at which the video ends, whatever `fps` (not of a folder of images). `flow` asks for optical flow,
    which only a folder can hold. `pixels` is a read-only view, strided where rows are padded or rotated; the same array
    comes again where a frame is repeated. With `planar` it is `featx.yuv.Planes` for every frame whose BGR follows from them
    exactly: upright progressive 8-bit 4:2:0 of even height with a known matrix.

    Raises VideoError, after the last good frame, for a stream that is damaged or cut short: the reason says where. With
    `damage` of the policy keep, all frames come that the decoder gives, those it marks as corrupt included, and `damage`
    tells what was wrong. VideoError comes all the same where no frame does, where the stream does not end (more frames than
    the file has bytes, or than MAX_FRAMES), and for frames of more than MAX_PIXELS.
    """
    damage = damage or Damage()
    if os.path.isdir(path):
        yield from _images(_folder(path, fps, flow), on_decoded, damage)
        return
    reformatter = VideoReformatter()
    converted, pixels = None, None
    for index, (seconds, frame) in enumerate(_sequence(path, fps, on_decoded, flow, damage, on_end)):
        if frame is not converted:
            converted, pixels = frame, (_to_planes(frame) if planar else None) or _to_bgr(reformatter, frame)
        yield Frame(index, seconds, pixels)


def read_picture(path: str | os.PathLike, seconds: float | None = None, flow: bool = False) -> np.ndarray:
    """One frame to show a video by, BGR uint8 (H, W, 3): at or shortly before `seconds`, None for the middle.

    A file is searched by its index for a frame that can be decoded alone; where that fails its first frame is taken. Of a
    folder of images it is the middle one. Raises VideoError where no frame can be had.
    """
    if os.path.isdir(path):
        paths = _folder(path, None, flow).frames
        chosen = paths[len(paths) // 2]
        pictures = [read_image(image) for image in chosen]
        return pictures[0] if len(chosen) == 1 else _flow(chosen, pictures)
    if seconds is None or not math.isfinite(seconds):
        seconds = _file_header(path, flow).duration_seconds / 2
    frame = _frame_near(path, seconds, flow) or _frame_near(path, None, flow)
    if frame is None:
        raise VideoError("no frame can be decoded")
    return _to_bgr(VideoReformatter(), frame)


def _frame_near(path: str | os.PathLike, seconds: float | None, flow: bool) -> av.VideoFrame | None:
    """The first frame that decodes from where the index says that `seconds` lie, or from the start; None if none does."""
    with _open(path, flow) as container:
        stream = _video_stream(container)
        try:
            if seconds is not None:
                first = stream.start_time or 0
                container.seek(first + int(seconds / stream.time_base), stream=stream)
            for _, frame in zip(range(_MAX_READ_ERRORS), container.decode(stream), strict=False):
                if not frame.is_corrupt:
                    return frame
        except (av.error.FFmpegError, TypeError, ZeroDivisionError, OverflowError):  # no index, or no clock
            pass
    return None


def _folder(path: str | os.PathLike, fps: float | None, flow: bool) -> FrameFolder:
    """The frames of a folder, which must not be asked for so many a second."""
    folder = read_frame_folder(path, flow)
    if fps is not None:
        raise VideoError(
            f"a folder of images has no time stamps, so {fps:g} frames a second cannot be taken from it; --fps 0 takes its "
            "images as they are"
        )
    return folder


def _images(folder: FrameFolder, on_decoded: Callable[[], None], damage: Damage) -> Iterator[Frame]:
    """Every image of a folder, or pair of images, decoded; all of one size."""
    shape, index = None, 0
    for paths in folder.frames:
        try:
            pictures = [read_image(path) for path in paths]
        except VideoError as error:
            damage.note("image", f"{error} and left out", folder.path)
            continue
        for path, picture in zip(paths, pictures, strict=True):
            shape = shape or picture.shape
            if picture.shape != shape:
                sizes = "{1}x{0}, but {3}x{2}".format(*shape[:2], *picture.shape[:2])
                raise VideoError(f"its first image is {sizes} in {path.name}; frames of a video have one size")
        on_decoded()
        yield Frame(index, math.nan, pictures[0] if len(paths) == 1 else _flow(paths, pictures))
        index += 1
    if not index:
        raise VideoError(f"no frames: {damage.text}")


def _flow(paths: tuple[Path, ...], pictures: list[np.ndarray]) -> np.ndarray:
    """Two grey pictures (H, W, 3) -> one of x, y, 0, uint8 (H, W, 3)."""
    out = np.zeros_like(pictures[0])
    for channel, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        if (picture != picture[..., :1]).any():
            raise VideoError(f"{path.name} is coloured; an image of optical flow is grey")
        out[..., channel] = picture[..., 0]
    return out


def _sequence(
    path: str | os.PathLike,
    fps: float | None,
    on_decoded: Callable[[], None],
    flow: bool,
    damage: Damage,
    on_end: Callable[[float], None] = lambda seconds: None,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with their times, resampled where that was asked for, and not more than any video has."""
    with _open_to_decode(path, flow) as container:
        stream = _video_stream(container)
        clock = Clock(1 / _frame_rate(stream), by_packet=container.format.name == "avi")
        timed = _decoded(path, container, stream, clock, on_decoded, damage)
        if fps is not None:
            timed = resample(timed, fps, clock.shown_seconds, _stamp_seconds(stream))
        for index, pair in enumerate(timed):
            if index == MAX_FRAMES:
                raise VideoError(f"more than {MAX_FRAMES} frames; cut it into several videos")
            yield pair
        on_end(clock.ends_after())


def _decoded(
    path, container, stream, clock: Clock, on_decoded: Callable[[], None], damage: Damage
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every frame with its time in seconds after the first; the checks for damage, silent and other, are made here."""
    size_bytes, reformatter = os.path.getsize(path), VideoReformatter()
    ends = Ends(container.format.name)
    num_packets = num_chunks = num_frames = 0
    begun = container.format.name not in BROADCAST  # or once a key frame has come, on which all others build
    for packet in _packets(path, container, stream, damage):
        begun = begun or packet.is_keyframe
        if packet.is_corrupt:
            damage.note("packet", f"its container is broken after {num_frames} good frames", path)
        num_chunks += packet.size > 0
        if _is_encrypted(packet):
            raise VideoError("encrypted; without its key there is nothing to see")
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):  # says something of this machine, and nothing of the stream
                raise VideoError("its frames do not fit into the memory that a decoder may take") from error
            if begun:
                damage.note("decode", f"the decoder failed after {num_frames} good frames ({_text(error)})", path)
            continue
        if packet.size > 0:
            clock.note(packet)
            if not packet.is_discard:
                ends.note_packet(packet.pts)
            num_packets += not packet.is_discard
        for frame in frames:
            if frame.is_corrupt:
                damage.note("frame", f"the decoder marks frame {num_frames} as corrupt", path)
            if num_frames >= size_bytes:  # a frame takes a byte at least; here some come again and again
                raise VideoError(f"does not end: more frames come out of it than its {size_bytes} bytes")
            on_decoded()
            ends.note_frame(frame.pts)
            yield clock.seconds(num_frames, frame), as_the_processor_gives_it(reformatter, frame)
            num_frames += 1
    if not num_frames:
        raise VideoError("no frames: " + (damage.text or "the video stream is empty"))
    for symptom in _shortfalls(path, container, stream, num_packets, num_chunks, num_frames, clock):
        damage.note(symptom, symptom, path)
    for symptom in ends.symptoms(float(stream.time_base), 1 / _frame_rate(stream)):
        damage.note(symptom, symptom, path)


def _packets(path, container, stream, damage: Damage) -> Iterator[av.Packet]:
    """The packets of a stream, and at its end the empty one that makes the decoder give what it still holds."""
    num_errors, at_end = 0, False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (
            IndexError
        ):  # a packet of a stream that begins on the way, such as another sound; PyAV knows it from now on
            if at_end:
                return
            packets = container.demux(stream)
            continue
        except av.error.FFmpegError as error:
            damage.note("read", f"it cannot be read on ({_text(error)})", path)
            num_errors += 1
            if num_errors == _MAX_READ_ERRORS:
                end = av.Packet()
                end.stream = stream
                yield end
                return
            packets = container.demux(stream)  # which the error has ended
            continue
        num_errors, at_end = 0, not packet.size
        yield packet


def _is_encrypted(packet: av.Packet) -> bool:
    # older versions of PyAV do not tell; then the frames fail to decode
    has_sidedata = getattr(packet, "has_sidedata", None)
    return bool(has_sidedata and has_sidedata("encryption_info"))


def _shortfalls(
    path, container, stream, num_packets: int, num_chunks: int, num_frames: int, clock: Clock
) -> Iterator[str]:
    """What a stream that ended without an error lacks of what its container declares."""
    # Formats with fields or hidden frames use up to two packets a picture. Fewer pictures than that were lost in silence.
    if num_frames < 0.4 * num_packets:
        yield f"only {num_frames} frames came out of {num_packets} packets"
    # Some writers leave a wrong size in an otherwise whole file, and packed streams hold one frame less than they say.
    if missing_bytes(path) and (not stream.frames or num_chunks < stream.frames):
        yield f"the file ends after {num_frames} frames"
    # An AVI reader that loses its place looks for the next chunk in silence. The index knows how many there are, whatever
    # the header says, which is often wrong; without an index the header is all there is.
    if container.format.name == "avi":
        num_declared = num_indexed(path, stream.index) or stream.frames
        if num_chunks < num_declared:
            yield f"only {num_chunks} of {num_declared} frames are found"
    # Readers of other formats look for the next sound place in silence too.
    place = broken_at(path)
    if place is not None:
        yield f"its container is broken at byte {place}"
    # Some cuts leave a sound container; a header that tells how long the stream is does not fit them.
    declared = _declared_seconds(container, stream)
    if declared and clock.end_seconds() < 0.95 * declared - 2 / _frame_rate(stream):
        yield f"the frames end after {clock.end_seconds():.2f} of {declared:.2f} s"


def _declared_seconds(container, stream) -> float | None:
    """The length of the video stream by its header, in MKV, WebM and FLV, where that tells the stream's own."""
    if container.format.name not in ("matroska,webm", "flv"):
        return None
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (ValueError, OverflowError):
        alone = len(container.streams) == 1 and container.duration
        return container.duration / av.time_base if alone else None


def libraries() -> dict[str, str]:
    """The libraries of libav that read, decode and convert pixels: name -> version."""
    names = ("libavcodec", "libavformat", "libswscale")
    return {name: ".".join(map(str, av.library_versions[name])) for name in names}


def missing_decoders(names: Iterable[str]) -> list[str]:
    """Those of `names`, as libav calls them, that it cannot decode here."""
    missing = []
    for name in names:
        try:
            av.Codec(name, "r")
        except ValueError:  # also UnknownCodecError
            missing.append(name)
    return missing


def _open_to_decode(path: str | os.PathLike, flow: bool):
    """Open a video, with the GPU's decoder where there is one for it."""
    container = _open(path, flow)
    if not hardware_decode.is_used():
        return container
    try:
        accelerator = hardware_decode.accelerator_for(_video_stream(container).codec_context)
    except BaseException:
        container.close()
        raise
    if accelerator is None:
        return container
    container.close()
    return _open(path, flow, accelerator)


def _open(path: str | os.PathLike, flow: bool = False, hwaccel: HWAccel | None = None):
    path = Path(path)
    if flow:
        raise VideoError(
            "a video file, but this checkpoint takes optical flow: a folder of images such as flow_x_00001.jpg with "
            "flow_y_00001.jpg"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise VideoError("an image; its folder stands for the video, so name that")
    try:
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise VideoError("cannot be opened: not a regular file")  # a pipe would be waited for without an end
        if os.path.isfile(path) and path.stat().st_size == 0:
            raise VideoError("an empty file")
        # file: so that a name such as "http:x.mp4" or "-" is still a local file
        options = {"format_whitelist": _FORMATS.replace(" ", ","), "protocol_whitelist": "file"}
        return av.open("file:" + os.fspath(path), container_options=options, hwaccel=hwaccel, **_ANY_METADATA)
    except (av.error.FFmpegError, OSError) as error:
        reason = next((text for kind, text in _OPEN_REASONS.items() if isinstance(error, kind)), _text(error))
        if os.path.isfile(path) and (lost := missing_bytes(path)):
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
    options = {"max_pixels": str(MAX_PIXELS)}  # for sizes that change on the way
    if stream.codec_context.codec.canonical_name == "hevc":
        options["err_detect"] = "explode"  # else pictures that it cannot decode are left out in silence
    stream.codec_context.options = options
    stream.codec_context.thread_count = 1  # one decoder a core, several videos at once: threads inside one gain little
    return stream


def _frame_rate(stream) -> float:
    """Frames a second from the header; 25 where it gives none (needed only for frames without a time stamp)."""
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if (
        stream.container.format.flags & _NO_TIMESTAMPS
    ):  # where the average is of times that libav made up, at 25 a second
        rates[:2] = rates[1::-1]
    return float(next((rate for rate in rates if rate and rate > 0), 25))


def _stamp_seconds(stream) -> float:
    """How coarse the time stamps are, such as Matroska's milliseconds; 0 where the clock ticks once a frame, as AVI's."""
    tick = float(stream.time_base or 0)
    return tick if tick <= 0.002 else 0.0


def _to_bgr(reformatter: VideoReformatter, frame: av.VideoFrame) -> np.ndarray:
    """Convert to BGR uint8 (H, W, 3), upright."""
    _check_size(frame)
    bgr = reformatter.reformat(frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1)
    plane = bgr.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(bgr.height, plane.line_size)
    pixels = rows[:, : bgr.width * 3].reshape(bgr.height, bgr.width, 3)
    if frame.rotation % 90 == 0:
        pixels = np.rot90(pixels, frame.rotation // 90 % 4)  # the stored angle is counterclockwise, as numpy's
    return pixels


def _check_size(frame: av.VideoFrame) -> None:
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError(f"a frame of {frame.width}x{frame.height} pixels; at most {MAX_PIXELS} pixels are taken")


def _to_planes(frame: av.VideoFrame) -> Planes | None:
    """The planes of a frame, or None where its BGR does not follow from them."""
    kind = frame.format.name
    if kind not in ("yuv420p", "yuvj420p") or frame.height % 2 or frame.rotation or frame.interlaced_frame:
        return None  # fields are converted one by one
    form = _form(kind, int(frame.colorspace), int(frame.color_range))
    planes = frame.planes
    if form is None or any(plane.line_size <= 0 for plane in planes):  # a picture stored upside down
        return None
    _check_size(frame)
    views = (
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width] for plane in planes
    )
    return Planes(*views, form)


@cache
def _form(kind: str, matrix: int, color_range: int) -> YuvForm | None:
    """The rule for frames that say this of themselves; None where swscale, tried on noise, gives other pixels."""
    form = yuv_form(matrix, full_range=kind == "yuvj420p" or color_range == FULL_RANGE)
    if form is None:
        return None
    frame = av.VideoFrame(70, 64, kind)
    rng = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(rng.integers(0, 256, plane.buffer_size, dtype=np.uint8).tobytes())
    try:
        frame.colorspace, frame.color_range = matrix, color_range
        expected = _to_bgr(VideoReformatter(), frame)
    except (AttributeError, av.error.FFmpegError):
        return None
    views = (np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes)
    return form if np.array_equal(planes_to_bgr(Planes(*views, form)), expected) else None


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
