"""Files that nobody should have put into a folder of videos: one row each, with what featx has to say of it."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from conftest import write_noise_video, write_video

# good videos whose names or contents are odd: the folder's entry -> (maker, number of frames)
GOOD: dict[bytes, tuple[Callable[[Path], object], int]] = {}
# what gives no features: the folder's entry -> (maker, the reason's pattern)
BAD: dict[bytes, tuple[Callable[[Path], object], str]] = {}


def good(name: bytes | str, num_frames: int):
    def add(make):
        GOOD[os.fsencode(name)] = (make, num_frames)
        return make

    return add


def bad(name: bytes | str, reason: str):
    def add(make):
        BAD[os.fsencode(name)] = (make, reason)
        return make

    return add


# ------------------------------------------------------------------------------------------------------------------ names

for _name in (
    "with space.mp4",
    "new\nline.mp4",
    "-o.mp4",
    "--help.mp4",
    b"caf\xe9.mp4",
    "quote'\".mp4",
    "%d%03d%FF.mp4",
    "\x1b[31mred.mp4",
    "file:x,y|z.mp4",
    "ünï.mp4",
    "a" * 240 + ".mp4",
):
    good(_name, 5)(lambda path: write_noise_video(path, 5, seed=3))


# --------------------------------------------------------------------------------------------------------- odd, but right


@good("one_frame.mp4", 1)
def one_frame(path):
    write_noise_video(path, 1)


@good("one_pixel.avi", 3)
def one_pixel(path):
    write_video(path, 3, size=(1, 1), codec="ffv1", pix_fmt="bgr0")


@good("wide.avi", 2)
def wide(path):
    write_video(path, 2, size=(16, 16384), codec="mjpeg", pix_fmt="yuvj420p")


@good("metadata.avi", 4)
def metadata_in_no_known_coding(path):
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE---"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(4):
            picture = np.full((48, 64, 3), 40 * shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLE---", b"\xff\xfe\xe9\x80\xc3(\xa0\xa1"))


@good("linked.mp4", 5)
def linked(path):
    target = write_noise_video(path.parent / ".target.mp4", 5)
    path.symlink_to(target.name)


# ----------------------------------------------------------------------------------------------------------------- no video


@bad("empty.mp4", "an empty file")
def empty(path):
    path.touch()


@bad("garbage.mp4", "cannot be opened: not a video")
def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


@bad(b"bad\n\xffname.avi", "cannot be opened: not a video")
def garbage_with_a_bad_name(path):
    path.write_bytes(b"RIFF" + bytes(200))


@bad("text.mkv", "cannot be opened: not ")
def text(path):
    path.write_text("Dear reader, this is no video at all.\n" * 20)


@bad("list_of_others.mp4", "not one of the kinds of video file")
def a_list_that_names_other_files(path):
    write_noise_video(path.parent / ".secret.mp4", 5)
    path.write_text("ffconcat version 1.0\nfile .secret.mp4\n")


@bad("session.mp4", "not one of the kinds of video file")
def a_file_that_opens_a_port(path):
    path.write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n")


@bad("audio.mkv", "no video stream: audio only")
def audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@bad("zero_frames.avi", "no frames|cannot be opened")
def zero_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


@bad("absurd.avi", "frames of 12000x12000 pixels; at most 134217728 pixels are taken")
def an_absurd_header(path):
    data = bytearray(write_video(path, 3, codec="ffv1", pix_fmt="bgr0").read_bytes())
    struct.pack_into("<ii", data, data.index(b"strf") + 8 + 4, 12000, 12000)  # biWidth, biHeight
    path.write_bytes(data)


@bad("encrypted.mp4", "encrypted")
def encrypted(path):
    key = "00112233445566778899aabbccddeeff"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    plain = write_noise_video(path.parent / ".plain.mp4", 5)
    with av.open(str(plain)) as source, av.open(str(path), "w", options=options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


# -------------------------------------------------------------------------------------------------------------- cut, endless


@bad("truncated.mp4", "cut short")
def truncated_mp4(path):
    data = write_noise_video(path, 20).read_bytes()
    path.write_bytes(data[: len(data) // 2])


@bad("cut.avi", "cut short")
def truncated_avi(path):
    data = write_noise_video(path, 20).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@bad("shortfall.avi", "only 19 of 20 frames")
def a_chunk_that_is_not_found(path):
    data = bytearray(write_noise_video(path, 20).read_bytes())
    place = -1
    for _ in range(8):  # the eighth frame's chunk gets a name that no stream has
        place = data.index(b"00dc", place + 1)
    data[place : place + 4] = b"JUNK"
    path.write_bytes(data)


@bad("endless.mp4", "does not end: more frames come out of it than its")
def endless(path, num_edits=200):
    """An edit list that shows the same second over and over (ISO 14496-12, section 8.6.6)."""
    data = bytearray(write_noise_video(path, 25, size=(16, 16)).read_bytes())
    start = data.index(b"edts") - 4
    old = struct.unpack_from(">I", data, start)[0]
    entries = struct.pack(">Iihh", 1000, 0, 1, 0) * num_edits
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, num_edits) + entries
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    data[start : start + old] = edts
    for box in (b"moov", b"trak"):  # both around it; the pictures come before
        place = data.index(box) - 4
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(edts) - old)
    path.write_bytes(data)


# --------------------------------------------------------------------------------------------------------- not regular files


@bad("pipe.mp4", "not a regular file")
def pipe(path):
    os.mkfifo(path)


@bad("device.mp4", "not a regular file")
def device(path):
    path.symlink_to("/dev/zero")


@bad("socket.mp4", "not a regular file")
def a_socket(path):
    folder = os.getcwd()
    os.chdir(path.parent)  # a socket's whole path must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(folder)


@bad("dangling.mp4", "no such file")
def dangling(path):
    path.symlink_to("nowhere.mp4")


@bad("itself.mp4", "no such file|Too many levels")
def a_link_to_itself(path):
    path.symlink_to(path.name)


# ---------------------------------------------------------------------------------------------------------- folders of images


def write_images(folder: Path, num_images: int, name: bytes = b"%03d.png") -> None:
    folder.mkdir()
    for i in range(1, num_images + 1):
        picture = np.full((20, 30, 3), 10 * i, np.uint8)
        codec = av.CodecContext.create("png", "w")
        codec.width, codec.height, codec.pix_fmt, codec.time_base = 30, 20, "rgb24", 1
        (packet,) = codec.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        (folder / os.fsdecode(name % i)).write_bytes(bytes(packet))


@good("images", 4)
def images(path):
    write_images(path, 4)


@bad("images_with_a_pipe", "002.png is not a regular file")
def images_with_a_pipe(path):
    write_images(path, 3)
    (path / "002.png").unlink()
    os.mkfifo(path / "002.png")


@bad("images_with_garbage", r"img\\xff_2.png is neither JPEG nor PNG")
def images_with_garbage(path):
    write_images(path, 3, b"img\xff_%d.png")
    (path / os.fsdecode(b"img\xff_2.png")).write_bytes(b"not a picture")


def write_folder(folder: Path) -> None:
    """All of them, with a link back up."""
    folder.mkdir()
    for name, (make, _) in {**GOOD, **BAD}.items():
        make(folder / os.fsdecode(name))
    (folder / "deep").mkdir()
    (folder / "deep/up").symlink_to("..")


def copy_good(folder: Path, to: Path) -> None:
    """The good ones alone."""
    to.mkdir()
    for name in map(os.fsdecode, GOOD):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, to / name)
