"""images.py against OpenCV's imread, and what is refused."""

from __future__ import annotations

import struct
import zlib

import av
import cv2
import numpy as np
import pytest

from featx.errors import VideoError
from featx.images import read_image, read_image_header


def picture(height=61, width=83, seed=0):
    """Smooth colours with noise, uint8 (H, W, 3): chroma changes from pixel to pixel."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3)).astype(np.float32)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 12, (height, width, 3))
    return fine.clip(0, 255).astype(np.uint8)


def differences(path):
    return np.abs(read_image(path).astype(int) - cv2.imread(str(path)))


@pytest.mark.parametrize("quality", [10, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_jpeg_is_opencvs_but_for_the_rounding_of_the_dct(tmp_path, sampling, quality):
    path, factor = tmp_path / "a.jpg", getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    for seed, size in enumerate([(61, 83), (120, 160), (16, 4), (7, 9)]):
        cv2.imwrite(str(path), picture(*size, seed=seed), options)
        difference = differences(path)
        assert difference.max() <= 3
        if difference.size > 10_000:
            assert difference.mean() <= 0.08 and (difference > 1).mean() <= 0.02


@pytest.mark.parametrize("option", ["PROGRESSIVE", "OPTIMIZE", "RST_INTERVAL"])
def test_other_forms_of_jpeg(tmp_path, option):
    cv2.imwrite(
        str(tmp_path / "a.jpg"), picture(), [getattr(cv2, f"IMWRITE_JPEG_{option}"), 2 if option[0] == "R" else 1]
    )
    assert differences(tmp_path / "a.jpg").max() <= 3


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_jpeg_as_ffmpeg_writes_it(tmp_path, pix_fmt):
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 84, 62, pix_fmt, 1
    frame = av.VideoFrame.from_ndarray(picture(62, 84), format="bgr24").reformat(format=pix_fmt)
    (packet,) = [*encoder.encode(frame), *encoder.encode(None)]
    (tmp_path / "a.jpg").write_bytes(bytes(packet))
    assert differences(tmp_path / "a.jpg").max() <= 3


@pytest.mark.parametrize("transform", [0, 1])
def test_what_adobes_marker_says_of_the_colours_is_heeded(tmp_path, transform):
    """Transform 0 marks the three channels as R, G, B, 1 as Y, Cb, Cr."""
    path = tmp_path / "a.jpg"
    factor = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    cv2.imwrite(str(path), picture(), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
    data = path.read_bytes()
    jfif_bytes = 2 + struct.unpack_from(">H", data, 4)[0]
    marker = b"\xff\xee\x00\x0eAdobe\0\x64" + bytes(4) + bytes([transform])
    path.write_bytes(data[:2] + marker + data[2 + jfif_bytes :])
    assert differences(path).max() <= (1 if transform == 0 else 3)


def test_grey_jpeg_is_within_one_level(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), picture()[..., 0])
    assert differences(tmp_path / "a.jpg").max() <= 1


SIXTEEN = np.random.default_rng(1).integers(0, 2**16, (31, 45, 4), dtype=np.uint16)
PNGS = {
    "bgr": picture(),
    "bgra": np.dstack([picture(), picture()[..., 0]]),
    "grey": picture()[..., 0],
    "grey 16": SIXTEEN[..., 0],
    "bgr 16": SIXTEEN[..., :3],
    "bgra 16": SIXTEEN,
}


@pytest.mark.parametrize("kind", PNGS)
def test_png_equals_opencvs(tmp_path, kind):
    cv2.imwrite(str(tmp_path / "a.png"), PNGS[kind])
    assert not differences(tmp_path / "a.png").any()


def png(width, height, bits, colour, rows, extra=b""):
    """A PNG written from the format's description: `rows` are the bytes of the scan lines, unfiltered."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("colour", [0, 3])
def test_png_of_few_bits_and_with_a_palette(tmp_path, bits, colour):
    rng = np.random.default_rng(bits)
    palette = rng.integers(0, 256, 3 * 2**bits, dtype=np.uint8).tobytes()
    plte = struct.pack(">I", len(palette)) + b"PLTE" + palette + struct.pack(">I", zlib.crc32(b"PLTE" + palette))
    rows = [rng.integers(0, 256, 2 * bits, dtype=np.uint8).tobytes() for _ in range(9)]
    (tmp_path / "a.png").write_bytes(png(16, 9, bits, colour, rows, plte if colour == 3 else b""))
    assert not differences(tmp_path / "a.png").any()


def exif(orientation, order):
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    return b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied_as_opencv_does(tmp_path, orientation, order):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), picture(40, 56))
    data = path.read_bytes()
    path.write_bytes(data[:2] + exif(orientation, order) + data[2:])
    assert read_image(path).shape == ((56, 40, 3) if orientation >= 5 else (40, 56, 3))
    assert differences(path).max() <= 3


def test_the_header_tells_the_size(tmp_path):
    for name, codec in (("a.jpg", "mjpeg"), ("a.png", "png")):
        cv2.imwrite(str(tmp_path / name), picture(20, 30))
        assert read_image_header(tmp_path / name) == (codec, 20, 30, 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_cut_image_is_refused_wherever_it_is_cut(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), picture(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    data = (tmp_path / name).read_bytes()
    for length in (0, 1, 2, 3, 8, 20, 100, len(data) // 2, len(data) - 50, len(data) - 12, len(data) - 1):
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(VideoError, match=f"{name} is "):
            read_image(tmp_path / name)


def test_a_damaged_png_is_refused_and_a_damaged_jpeg_where_it_shows(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), picture())
        data = (tmp_path / name).read_bytes()
        refused = 0
        for _ in range(60):
            damaged = bytearray(data)
            damaged[rng.integers(40, len(data) - 12)] ^= 1 << rng.integers(8)
            (tmp_path / name).write_bytes(damaged)
            try:
                assert read_image(tmp_path / name).dtype == np.uint8
            except VideoError:
                refused += 1
        assert refused == 60 if name == "a.png" else refused > 0


def test_what_is_not_taken_is_refused_with_its_reason(tmp_path):
    def refused(name, data, reason):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoError, match=reason):
            read_image(tmp_path / name)

    refused("text.jpg", b"not an image", "text.jpg is neither JPEG nor PNG")
    refused("large.png", png(60_000, 60_000, 8, 0, []), "60000x60000 pixels")
    cv2.imwrite(str(tmp_path / "a.jpg"), picture(16, 16))
    jpeg = bytearray((tmp_path / "a.jpg").read_bytes())
    frame = jpeg.index(b"\xff\xc0")
    refused("twelve.jpg", jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :], "3 channels of 12 bits")
    refused("four.jpg", jpeg[: frame + 9] + b"\4" + jpeg[frame + 10 :], "4 channels of 8 bits")
    with pytest.raises(VideoError, match="absent.png cannot be read: No such file"):
        read_image(tmp_path / "absent.png")


def test_an_animation_is_not_a_frame(tmp_path):
    with av.open(str(tmp_path / "a.apng"), "w", format="apng") as container:
        stream = container.add_stream("apng", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        for i in range(2):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90 * i, np.uint8), format="rgb24"))
            )
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="an animation"):
        read_image(tmp_path / "a.apng")
