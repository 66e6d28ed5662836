"""One JPEG or PNG image as OpenCV's imread gives it: BGR uint8 (H, W, 3). Knows av and numpy only.

PNG pixels are equal. JPEG pixels are those of libjpeg but for the rounding of its inverse DCT, for which libav has another
integer form: the planes differ by one level in 2 to 3 % of the samples, which the conversion to BGR widens to at most 3
levels. So that nothing else differs, the chroma planes are spread and converted here, by libjpeg's integer rules.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation

from featx.errors import VideoError

__all__ = ["ImageHeader", "encode_thumbnail", "read_image", "read_image_header"]

# as for videos: a header that claims more is taken for damage, and nothing of that size is allocated
MAX_PIXELS = 2**27
# as many as that of uncompressed 16-bit RGBA; a larger file is no image, and is not read
MAX_BYTES = 8 * MAX_PIXELS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

# libav's pixel formats of JPEG with luma and chroma -> (height, width) of a luma plane in units of the chroma planes'
SUBSAMPLINGS = {
    "yuvj444p": (1, 1), "yuv444p": (1, 1), "yuvj422p": (1, 2), "yuv422p": (1, 2),
    "yuvj420p": (2, 2), "yuv420p": (2, 2), "yuvj440p": (2, 1), "yuv440p": (2, 1), "yuvj411p": (1, 4),
}  # fmt: skip

# pixel formats of PNG with one byte or two a sample -> channels in a pixel, bytes in a sample
PACKED = {
    "gray": (1, 1), "ya8": (2, 1), "rgb24": (3, 1), "rgba": (4, 1),
    "gray16be": (1, 2), "ya16be": (2, 2), "rgb48be": (3, 2), "rgba64be": (4, 2),
}  # fmt: skip

# longest side in pixels and quality of a thumbnail, the first that is small enough taken
THUMBNAILS = ((208, 75), (176, 70), (160, 60), (160, 40), (128, 35), (96, 30), (64, 20))

av.logging.set_level(None)


class ImageHeader(NamedTuple):
    """What an image says of itself: size in pixels before it is turned upright, and its EXIF orientation, 1 (upright) to 8."""

    codec: str
    height: int
    width: int
    orientation: int


def read_image_header(path: Path) -> ImageHeader:
    """Read the header of an image. Raises VideoError, naming the image, where it is no whole JPEG or PNG."""
    return _header(path, _bytes(path))


def read_image(path: Path) -> np.ndarray:
    """Read an image as BGR uint8 (H, W, 3), upright: an EXIF orientation is applied, as OpenCV does.

    Grey is repeated in all channels, transparency is dropped, and of 16 bits the upper 8 are kept.
    Raises VideoError, naming the image, for one that is damaged, cut short, or of another kind (CMYK, 12 bits).
    """
    data = _bytes(path)
    header = _header(path, data)
    context = av.CodecContext.create(header.codec, "r")
    context.thread_count = 1
    context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    try:
        frames = context.decode(av.Packet(data)) + context.decode(None)
    except av.error.FFmpegError as error:
        raise VideoError(f"{path.name} is damaged") from error
    if not frames or frames[0].is_corrupt:
        raise VideoError(f"{path.name} is damaged")
    frame = frames[0]
    if (frame.height, frame.width) != (header.height, header.width):
        raise VideoError(f"{path.name} is damaged: its header and its picture have different sizes")
    return _upright(_to_bgr(path, frame), header.orientation)


def encode_thumbnail(pixels: np.ndarray, max_bytes: int) -> bytes:
    """A small copy of BGR uint8 (H, W, 3) as WebP, or as JPEG where libav was built without it.

    Its longest side is at most 208 pixels, fewer where it would take more than `max_bytes`; the smallest is kept in any case.
    """
    frame, data = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24"), b""
    for side, quality in THUMBNAILS:
        scale = min(1.0, side / max(frame.width, frame.height))
        data = _encode(frame, max(2, round(frame.width * scale)), max(2, round(frame.height * scale)), quality)
        if len(data) <= max_bytes:
            break
    return data


def _encode(frame: av.VideoFrame, width: int, height: int, quality: int) -> bytes:
    webp = "libwebp" in av.codecs_available
    context = av.CodecContext.create("libwebp" if webp else "mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p" if webp else "yuvj420p"
    context.time_base = Fraction(1, 25)
    # JPEG's own scale is 2 (best) to 31, in libav's units of 118
    context.options = {"quality": str(quality)} if webp else {"flags": "+qscale", "global_quality": str(118 * 4)}
    small = frame.reformat(width=width, height=height, format=context.pix_fmt, interpolation=Interpolation.AREA)
    small.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(small), *context.encode(None)])


def _bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(f"{path.name} is not a regular file")  # a pipe would be waited for without an end
        if status.st_size > MAX_BYTES:
            raise VideoError(f"{path.name} has {status.st_size} bytes; at most {MAX_BYTES} are taken for an image")
        return path.read_bytes()
    except OSError as error:
        raise VideoError(f"{path.name} cannot be read: {error.strerror}") from error


# --------------------------------------------------------------------------------------------------------------- headers


def _header(path: Path, data: bytes) -> ImageHeader:
    if data.startswith(PNG_SIGNATURE):
        codec, found = "png", _png_facts(path, data)
    elif data.startswith(JPEG_SIGNATURE):
        codec, found = "mjpeg", _jpeg_facts(path, data)
    else:
        raise VideoError(f"{path.name} is {'neither JPEG nor PNG' if data else 'an empty file'}")
    height, width, orientation = found
    if not 0 < height * width <= MAX_PIXELS:
        raise VideoError(f"{path.name} says that it has {width}x{height} pixels; 1 to {MAX_PIXELS} are taken")
    return ImageHeader(codec, height, width, orientation)


def _png_facts(path: Path, data: bytes) -> tuple[int, int, int]:
    """(height, width, orientation) by the chunks of a PNG, all of which must be there."""
    size, orientation, place = (0, 0), 1, len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR" and len(body) == 13:
            size = struct.unpack_from(">II", body)
        elif kind == b"eXIf":
            orientation = _orientation(body)
        elif kind == b"acTL":
            raise VideoError(f"{path.name} is an animation; a frame is a single picture")
        elif kind == b"IEND":
            return size[1], size[0], orientation
        place += 12 + length
    raise VideoError(f"{path.name} is cut short")


def _jpeg_facts(path: Path, data: bytes) -> tuple[int, int, int]:
    """(height, width, orientation) by the segments of a JPEG, which must come to its end marker."""
    height, width, orientation = 0, 0, 1
    for marker, body in _jpeg_segments(data):
        if marker == 0xD9:
            return height, width, orientation
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:  # a frame header, SOFn
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            if bits != 8 or channels not in (1, 3):
                raise VideoError(f"{path.name} has {channels} channels of {bits} bits; JPEG frames have 1 or 3 of 8")
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
    raise VideoError(f"{path.name} is cut short")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of every segment, up to the end marker; stops early where the file does."""
    next_marker = re.compile(
        rb"\xff[\x01-\xcf\xd8-\xfe]"
    )  # in coded data, FF stands before 00 or a restart marker only
    place = 2
    while match := next_marker.search(data, place):
        marker, place = data[match.end() - 1], match.end()
        if marker == 0xD9:
            yield marker, b""
            return
        if place + 2 > len(data):
            return
        length = struct.unpack_from(">H", data, place)[0]
        yield marker, data[place + 2 : place + length]
        place += length


def _orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, in the first directory of EXIF data; 1 where it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        directory = struct.unpack_from(f"{order}I", tiff, 4)[0]
        count = struct.unpack_from(f"{order}H", tiff, directory)[0]
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * i)
            if (tag, kind) == (0x0112, 3) and 1 <= value <= 8:
                return value
    except struct.error:
        pass
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation: 5 to 8 lie on their side; rows are reversed in 3, 4, 7 and 8, columns in 2, 3, 6 and 7."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


# ---------------------------------------------------------------------------------------------------------------- pixels


def _to_bgr(path: Path, frame: av.VideoFrame) -> np.ndarray:
    kind = frame.format.name
    if kind in PACKED:
        channels, size = PACKED[kind]
        samples = _plane(frame, 0, channels * size).reshape(frame.height, frame.width, channels, size)[..., 0]
        return samples[..., [2, 1, 0]] if channels >= 3 else np.repeat(samples[..., :1], 3, axis=2)
    if kind in ("pal8", "monob", "monow"):
        return frame.to_ndarray(format="bgr24")  # a look-up: exact
    if kind == "gbrp":
        return np.stack([_plane(frame, i) for i in (1, 0, 2)], axis=2)  # G, B, R -> B, G, R
    if kind in SUBSAMPLINGS:
        luma = _plane(frame, 0)
        cb, cr = (_spread(_plane(frame, i), SUBSAMPLINGS[kind], luma.shape) for i in (1, 2))
        return _ycc_to_bgr(luma, cb, cr)
    raise VideoError(
        f"{path.name} holds pixels of the kind {kind}, which are not taken; save it as an ordinary JPEG or PNG"
    )


def _plane(frame: av.VideoFrame, index: int, bytes_a_pixel: int = 1) -> np.ndarray:
    """A plane without its padding, uint8 (h, w * bytes_a_pixel)."""
    plane = frame.planes[index]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width * bytes_a_pixel]


def _spread(chroma: np.ndarray, factors: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Spread a chroma plane to `shape` by libjpeg's "fancy upsampling": 3/4 of the nearer sample, 1/4 of the farther one.

    What is below a whole is rounded down and up in turns. Planes of at most two columns, and 4:1:1, are repeated instead.
    """
    rows, columns = factors
    if (rows, columns) == (1, 1):
        return chroma
    if chroma.shape[1] <= 2 or columns == 4:
        return chroma.repeat(rows, 0).repeat(columns, 1)[: shape[0], : shape[1]]
    values = chroma.astype(np.int16)  # at most 16 * 255 below
    if rows == 2:
        values = _interleave(*(3 * values + _beside(values, step, 0) for step in (-1, 1)), axis=0)
    if columns == 1:
        values[0::2] += 1
        values[1::2] += 2
        values >>= 2
    else:
        shift, down, up = (4, 8, 7) if rows == 2 else (2, 1, 2)
        left, right = (3 * values + _beside(values, step, 1) for step in (-1, 1))
        values = _interleave(left + down, right + up, axis=1) >> shift
    return values[: shape[0], : shape[1]]


def _beside(values: np.ndarray, step: int, axis: int) -> np.ndarray:
    """The sample before (-1) or after (1) each one, at the edge the sample itself."""
    places = np.arange(values.shape[axis]) + step
    return values.take(places.clip(0, values.shape[axis] - 1), axis)


def _interleave(even: np.ndarray, odd: np.ndarray, axis: int) -> np.ndarray:
    shape = list(even.shape)
    shape[axis] *= 2
    out = np.empty(shape, even.dtype)
    by_axis = out if axis == 0 else out.T
    by_axis[0::2], by_axis[1::2] = (even, odd) if axis == 0 else (even.T, odd.T)
    return out


def _fixed(factor: float) -> int:
    return int(factor * 2**16 + 0.5)


# JFIF's conversion in 16 bits behind the point, rounded as libjpeg rounds it, for every value of a chroma sample
_CHROMA = np.arange(256, dtype=np.int32) - 128
_RED_OF_CR = ((_fixed(1.402) * _CHROMA + 2**15) >> 16).astype(np.int16)
_BLUE_OF_CB = ((_fixed(1.772) * _CHROMA + 2**15) >> 16).astype(np.int16)
_GREEN_OF_CR = -_fixed(0.714136286) * _CHROMA
_GREEN_OF_CB = -_fixed(0.344136286) * _CHROMA + 2**15


def _ycc_to_bgr(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
    """Three planes (H, W) -> BGR uint8 (H, W, 3)."""
    out = np.empty((*luma.shape, 3), np.uint8)
    green = ((_GREEN_OF_CB.take(cb) + _GREEN_OF_CR.take(cr)) >> 16).astype(np.int16)
    for channel, offset in enumerate((_BLUE_OF_CB.take(cb), green, _RED_OF_CR.take(cr))):
        offset += luma
        out[..., channel] = offset.clip(0, 255, out=offset)
    return out
