"""Decoding by a GPU (`--decode cuda`), where that gives the processor's own frames."""

from __future__ import annotations

import ctypes
from functools import cache

import av
from av.codec.hwaccel import HWAccel
from av.video.reformatter import VideoReformatter

__all__ = [
    "accelerator_for",
    "as_the_processor_gives_it",
    "is_exact_codec",
    "is_used",
    "use_hardware",
    "why_no_hardware",
]

# Streams that a GPU may decode: every decoder must give the same pixels for these, but not for MPEG-4 Part 2 or MPEG-2, whose
# standards leave the rounding of the transform open.
_EXACT_CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
_8_BIT_420 = ("yuv420p", "yuvj420p")
_FULL_RANGE = 2  # as libav counts

_gpu: str | None = None  # the number of the GPU that decodes what this process decodes


def use_hardware(gpu: str | None) -> None:
    """From now on let the GPU of this number decode what this process decodes, where it can; None: the processor again.

    Streams whose pixels are not fixed by their standard, or that are not 8-bit 4:2:0, stay with the processor, so that frames
    are the same either way. What the GPU's decoder does not tell is damage inside of a picture.
    """
    global _gpu
    _gpu = gpu


def is_used() -> bool:
    """Whether a GPU decodes here what it can."""
    return _gpu is not None


def why_no_hardware(gpu: str) -> str:
    """Why the GPU of this number cannot decode here, in a few words; "" where it can."""
    try:
        HWAccel("cuda", device=gpu).create(av.Codec("h264", "r"))
    except NotImplementedError:
        return f"PyAV {av.__version__} is built without it"
    except (av.error.FFmpegError, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"no NVIDIA driver answers for GPU {gpu} ({text})"
    try:  # FFmpeg asks for it only when it decodes, and where it is not there lets the processor decode, unsaid
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        return "the driver's libnvcuvid.so.1 is missing (a container needs the driver capability 'video')"
    return ""


def is_exact_codec(name: str) -> bool:
    """Whether every decoder gives the same pixels for streams of libav's decoder of this name."""
    try:
        return av.Codec(name, "r").canonical_name in _EXACT_CODECS
    except ValueError:  # images, and what this build has none for
        return False


def accelerator_for(codec_context: av.VideoCodecContext) -> HWAccel | None:
    """What a stream is opened with that the GPU decodes to the processor's frames; None for one that it does not."""
    if codec_context.codec.canonical_name not in _EXACT_CODECS or codec_context.pix_fmt not in _8_BIT_420:
        return None
    return _hardware(_gpu)[0]


@cache
def _hardware(gpu: str) -> tuple[HWAccel, HWAccel | None]:
    """What videos are opened with, and what keeps the GPU's context from one to the next: to make one takes longer than many
    a video. None where the process uses the GPU otherwise, which FFmpeg does not share: then each video has its own context.
    """
    shared = HWAccel("cuda", device=gpu, options={"primary_ctx": "1"})
    try:
        return shared, shared.create(av.Codec("h264", "r"))
    except (NotImplementedError, av.error.FFmpegError, OSError, ValueError):
        return HWAccel("cuda", device=gpu), None


def as_the_processor_gives_it(reformatter: VideoReformatter, frame: av.VideoFrame) -> av.VideoFrame:
    """A frame as the processor's decoder gives it: NV12, of a GPU's, with U and V apart; any other as it is."""
    if frame.format.name != "nv12":
        return frame
    kind = "yuvj420p" if int(frame.color_range) == _FULL_RANGE else "yuv420p"
    return reformatter.reformat(frame, format=kind, threads=1)
