"""video.py: frames against OpenCV's, and what is refused."""

from __future__ import annotations

import os
import shutil
import struct

import av
import cv2
import numpy as np
import pytest
from conftest import write_noise_video, write_video

from featx.containers import missing_bytes
from featx.errors import VideoError
from featx.frame_times import resample
from featx.video import count_frames, read_frames, read_header


def opencv_frames(path):
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("mpeg4.avi", "mpeg4", "yuv420p", (48, 64)),
        ("h264.mp4", "libx264", "yuv420p", (50, 66)),
        ("ten_bit.mkv", "libx264", "yuv420p10le", (48, 64)),
        ("odd_444.mp4", "libx264", "yuv444p", (45, 61)),
        ("gray.mkv", "ffv1", "gray", (48, 64)),
        ("rgb.mkv", "ffv1", "bgr0", (48, 64)),
        ("mjpeg.avi", "mjpeg", "yuvj420p", (48, 64)),
        ("mpeg1.mpg", "mpeg1video", "yuv420p", (48, 64)),
        ("vp9.webm", "libvpx-vp9", "yuv420p", (48, 64)),
    ],
)
def test_pixels_and_order_equal_opencvs(tmp_path, name, codec, pix_fmt, size):
    path = write_noise_video(tmp_path / name, 12, size=size, codec=codec, pix_fmt=pix_fmt)
    ours, theirs = [frame.pixels for frame in read_frames(path)], opencv_frames(path)
    assert len(ours) == len(theirs) == 12
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_frames_come_in_order_of_presentation_with_b_frames(tmp_path):
    path = write_video(
        tmp_path / "b.mp4", 30, codec="libx264", options={"bf": "3", "qp": "0"}, brightness=lambda i: 20 + 7 * i
    )
    brightness = [frame.pixels.mean() for frame in read_frames(path)]
    assert np.abs(np.diff(brightness) - 7).max() <= 2
    assert count_frames(path) == 30


def test_seconds_follow_uneven_time_stamps(tmp_path):
    times = [0.0, 0.02, 0.1, 0.11, 0.4]
    path = write_video(tmp_path / "vfr.mkv", 5, times=times, codec="libx264")
    assert [frame.seconds for frame in read_frames(path)] == pytest.approx(times, abs=0.0015)


def test_seconds_start_at_the_first_frame(tmp_path):
    path = write_video(tmp_path / "late.mkv", 3, times=[2.0, 2.5, 3.0], codec="libx264")
    assert [frame.seconds for frame in read_frames(path)] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("seconds", "fps", "expected"),
    [
        ([0, 0.1, 0.2, 0.3], 10, "abcd"),
        ([0, 0.1, 0.2, 0.3], 20, "aabbccdd"),
        ([0, 0.1, 0.2, 0.3], 5, "ac"),
        ([0, 0.033, 0.067, 0.1], 30, "abcd"),  # millisecond stamps do not make a frame come twice
        ([0, 0.5], 10, "aaaaab"),
    ],
)
def test_resample(seconds, fps, expected):
    frame_seconds, stamp_seconds = (0.1, 0.0) if fps != 30 else (1 / 30, 0.001)
    out = list(resample(zip(seconds, "abcd"), fps, lambda: frame_seconds, stamp_seconds))  # noqa: B905
    assert "".join(item for _, item in out) == expected
    assert [s for s, _ in out] == pytest.approx([i / fps for i in range(len(out))])


def test_resampling_a_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", 50, fps=25, brightness=lambda i: 20 + 4 * i, options={"qscale": "1"})
    halved = [frame.pixels.mean() for frame in read_frames(path, fps=12.5)]
    assert len(halved) == count_frames(path, fps=12.5) == 25
    assert np.diff(halved).mean() == pytest.approx(8, abs=0.3)


def rotated(path, degrees):
    """Copy an MP4 with another rotation in its track header's matrix (ISO 14496-12, section 8.3.2)."""
    data = bytearray(path.read_bytes())
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    place = data.index(b"tkhd") + 4 + 40
    values = [matrix[0] << 16, matrix[1] << 16, 0, matrix[2] << 16, matrix[3] << 16, 0, 0, 0, 1 << 30]
    data[place : place + 36] = struct.pack(">9i", *values)
    out = path.with_name(f"rotated_{degrees}.mp4")
    out.write_bytes(data)
    return out


@pytest.mark.parametrize(("degrees", "shape"), [(90, (64, 48, 3)), (180, (48, 64, 3)), (270, (64, 48, 3))])
def test_rotation_is_applied_as_opencv_does(tmp_path, degrees, shape):
    path = rotated(write_noise_video(tmp_path / "upright.mp4", 3, codec="libx264"), degrees)
    ours, theirs = [frame.pixels for frame in read_frames(path)], opencv_frames(path)
    assert ours[0].shape == shape
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_header(tmp_path):
    header = read_header(write_video(tmp_path / "a.mp4", 50, size=(48, 64), fps=25))
    assert (header.height, header.width, header.fps, header.num_frames, header.codec) == (48, 64, 25, 50, "mpeg4")
    assert header.duration_seconds == pytest.approx(2)


def test_a_wrong_frame_count_in_the_header_changes_nothing(tmp_path):
    path = write_noise_video(tmp_path / "a.avi", 20)
    data = bytearray(path.read_bytes())
    for place in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):  # dwTotalFrames, dwLength
        data[place : place + 4] = struct.pack("<I", 500)
    wrong = tmp_path / "wrong.avi"
    wrong.write_bytes(data)
    assert len(list(read_frames(wrong))) == 20


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4"])
def test_a_cut_file_is_refused_though_its_frames_decode(tmp_path, name):
    path = write_noise_video(tmp_path / name, 60)
    if name.endswith("mp4"):  # the index first, or nothing could be opened at all
        with (
            av.open(str(path)) as source,
            av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
        ):
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
        path = tmp_path / "fast.mp4"
    assert missing_bytes(path) == 0
    data = path.read_bytes()
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    assert missing_bytes(cut) == pytest.approx(len(data) - len(data) * 6 // 10, abs=1)
    with pytest.raises(VideoError, match="cut short"):
        list(read_frames(cut))


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_reader_that_loses_its_place_is_noticed(tmp_path, name):
    path = write_noise_video(tmp_path / name, 60, codec="libvpx-vp9" if name == "a.webm" else "mpeg4")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 8] = bytes(len(data) // 8)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged"):
        list(read_frames(path))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])  # without frames out of order, and with
def test_a_last_frame_that_is_shown_for_long_is_no_damage(tmp_path, codec):
    """The header's length counts it as long as it is shown, at the end of a slide show or a recorded screen."""

    def write(path, num_kept, last_duration):
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            pictures = [
                av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8), format="bgr24") for i in range(50)
            ]
            packets = [p for picture in pictures for p in stream.encode(picture.reformat(format="yuv420p"))]
            packets += stream.encode(None)
            packets[-1].duration = last_duration
            for packet in packets[:num_kept]:
                container.mux(packet)
        return path

    path = write(tmp_path / "slides.mkv", 50, 75)
    frames = list(read_frames(path))
    assert [round(frame.seconds * 25) for frame in frames] == list(range(50))
    # a header of 5 s before packets that end after 0.8 s: sound, but the rest was cut away
    declared = path.read_bytes().partition(b"DURATION")[2]
    text = declared[declared.index(b"00:00:0") :][:18]
    cut = write(tmp_path / "cut.mkv", 20, 0)
    data = cut.read_bytes()
    place = data.index(b"00:00:0", data.index(b"DURATION"))
    cut.write_bytes(data[:place] + text + data[place + 18 :])
    with pytest.raises(VideoError, match="the frames end after 0.[0-9]* of 4.9"):
        list(read_frames(cut))


def test_dropped_frames_of_an_avi_take_time(tmp_path):
    shown = [0, 1, 2, 3, 50, 51, 52, 60]
    path = write_video(tmp_path / "dropped.avi", len(shown), times=None, stamps=shown)
    assert [round(frame.seconds * 25) for frame in read_frames(path)] == shown
    assert count_frames(path, fps=5) == 12


def test_a_wild_time_stamp_is_not_filled_with_repeats(tmp_path):
    path = write_video(tmp_path / "gap.mkv", 3, times=[0.0, 0.04, 9000.0], codec="libx264")
    assert count_frames(path) == 3
    with pytest.raises(VideoError, match="time stamps jump from 0.04 to 9000.00 s"):
        count_frames(path, fps=25)


def test_damaged_frames_are_refused(tmp_path):
    path = write_noise_video(tmp_path / "a.avi", 60)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 3, len(data) * 2 // 3, 300):
        data[place] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged|cut short"):
        list(read_frames(path))


def audio_file(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_what_is_no_video_is_refused_with_its_reason(tmp_path):
    empty, text, audio = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "audio.mkv"
    empty.touch()
    text.write_text("not a video at all")
    audio_file(audio)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for path, reason in [
        (empty, "an empty file"),
        (text, "not a video"),
        (audio, "audio only"),
        (tmp_path / "absent.mp4", "no such file"),
        (tmp_path, "a folder"),
        (pipe, "not a regular file"),
    ]:
        with pytest.raises(VideoError, match=reason):
            next(read_frames(path))


def test_a_title_in_another_code_page_does_no_harm(tmp_path):
    """Not UTF-8, as programs of the nineties wrote it."""
    path = tmp_path / "title.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Caf\N{LATIN SMALL LETTER E WITH ACUTE}"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")
        container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace("\xe9".encode(), b"\xe9 "))
    assert [frame.pixels.mean() for frame in read_frames(path)] == pytest.approx([90], abs=4)


def test_a_name_with_a_scheme_is_still_a_file(tmp_path, monkeypatch):
    shutil.move(write_video(tmp_path / "a.mp4", 2), tmp_path / "http:a.mp4")
    monkeypatch.chdir(tmp_path)
    assert count_frames("http:a.mp4") == 2
