"""Frames that decoders drop without an error: pictures of HEVC that cannot be decoded, and streams cut between key frames."""

from __future__ import annotations

import av
import numpy as np
import pytest

from featx.damage import Damage
from featx.errors import VideoError
from featx.lost_ends import Ends
from featx.video import read_frames

KEY = 20  # every so many frames
CODECS = {
    "hevc": ("libx265", {"x265-params": f"keyint={KEY}:min-keyint={KEY}:scenecut=0:bframes=2:log-level=none"}),
    "h264": ("libx264", {"g": str(KEY), "bf": "2", "sc_threshold": "0"}),
}


@pytest.fixture(params=CODECS)
def codec(request):
    try:
        av.Codec(CODECS[request.param][0], "w")
    except ValueError:
        pytest.skip(f"PyAV {av.__version__} cannot write {request.param}")
    return request.param


def write(path, codec, num_frames=60):
    """A square that moves before a ground whose brightness is twice the frame's index."""
    name, options = CODECS[codec]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(name, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(num_frames):
            pixels = np.full((64, 96, 3), 2 * i, np.uint8)
            pixels[10:30, i : i + 20] = 200
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        out.mux(stream.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]


def remux(source, path, keep):
    """The packets for which keep(index, packet) holds, in another file."""
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for k, packet in enumerate(p for p in container.demux(stream) if p.size):
            if keep(k, packet):
                packet.stream = copy
                out.mux(packet)
    return path


@pytest.mark.parametrize("which", ["first key", "second key", "between"])
def test_an_overwritten_picture_is_damage(tmp_path, codec, which):
    path = write(tmp_path / "v.mp4", codec)
    assert len(list(read_frames(path))) == 60
    keys = [k for k, (_, _, is_key) in enumerate(packets(path)) if is_key]
    place, size, _ = packets(path)[{"first key": keys[0], "second key": keys[1], "between": 9}[which]]
    data = bytearray(path.read_bytes())
    data[place + 6 : place + size] = bytes([0x55]) * (size - 6)  # all but the length and the header
    path.write_bytes(data)
    with pytest.raises(VideoError, match="^damaged: "):
        list(read_frames(path))
    damage = Damage("keep")
    kept = list(read_frames(path, damage=damage))
    assert 0 < len(kept) <= 60 and damage.text.startswith("damaged: ")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_stream_that_begins_between_two_key_frames_is_damaged(tmp_path, codec, suffix):
    path = remux(write(tmp_path / "v.mp4", codec), tmp_path / f"late.{suffix}", lambda k, _: k >= 5)
    with pytest.raises(VideoError, match="damaged: (no frame comes out of its first|the decoder failed after 0 good)"):
        list(read_frames(path))
    damage = Damage("keep")
    first = next(read_frames(path, damage=damage))
    assert first.pixels[40:].mean() == pytest.approx(2 * KEY, abs=8)


def test_a_broadcast_begins_anywhere(tmp_path, codec):
    path = remux(write(tmp_path / "v.ts", codec), tmp_path / "late.ts", lambda k, _: k >= 5)
    first, *_ = frames = [(frame.pixels[40:].mean(), frame.seconds) for frame in read_frames(path)]
    assert first[0] == pytest.approx(2 * KEY, abs=8) and first[1] == 0 and len(frames) == 60 - KEY


@pytest.mark.parametrize("codec", ["hevc"], indirect=True)  # H.264 decodes on from what it has
def test_a_key_frame_that_is_gone_is_missed(tmp_path, codec):
    whole = write(tmp_path / "v.mp4", codec)
    last = [k for k, (_, _, is_key) in enumerate(packets(whole)) if is_key][-1]
    path = remux(whole, tmp_path / "gone.mp4", lambda k, _: k != last)
    with pytest.raises(VideoError, match="^damaged: "):
        list(read_frames(path))


def test_a_stream_cut_at_a_key_frame_is_whole(tmp_path, codec):
    whole = write(tmp_path / "v.mp4", codec)
    second = [k for k, (_, _, is_key) in enumerate(packets(whole)) if is_key][1]
    path = remux(whole, tmp_path / "cut.mp4", lambda k, _: k >= second)
    assert len(list(read_frames(path))) == 60 - KEY


def symptoms(packets, frames, format_name="mov,mp4"):
    """Of ticks of 1/100 s, 25 frames a second: 8 frames are 0.32 s, so that up to 0.4 s may be missing."""
    ends = Ends(format_name)
    for ticks in packets:
        ends.note_packet(ticks)
    for ticks in frames:
        ends.note_frame(ticks)
    return list(ends.symptoms(0.01, 0.04))


def test_the_ends_by_hand():
    assert symptoms([8, 0, 4, 12], [0, 4, 8, 12]) == []
    assert symptoms([0, 4, 400, 404], [40, 400, 404]) == []
    assert symptoms([0, 4, 400, 404], [41, 400, 404]) == ["no frame comes out of its first 0.41 s"]
    assert symptoms([0, 4, 400, 504], [0, 400]) == ["no frame comes out of its last 1.04 s"]
    assert symptoms([0, None, 400], [400]) == symptoms([0, 400], [400], "mpegts") == symptoms([0, 400], []) == []
