"""frame_times.py: the time of each frame, how long the last one is shown, and where a video ends; all computed by hand."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
from conftest import write_video

from featx.damage import Damage
from featx.decode_pool import DecodePool, Ended
from featx.errors import VideoError
from featx.frame_times import Clock
from featx.video import count_frames, read_frames, read_header

MILLISECOND = Fraction(1, 1000)


def seconds_of(path) -> list[float]:
    return [frame.seconds for frame in read_frames(path)]


def clocked(stamps, fps, durations=None):
    """The times of frames with these stamps, in seconds or None, and the clock."""
    clock = Clock(1 / fps, by_packet=False)
    durations = durations or [0] * len(stamps)
    frames = [
        SimpleNamespace(pts=None if t is None else round(1000 * t), time_base=MILLISECOND, duration=round(1000 * d))
        for t, d in zip(stamps, durations, strict=True)
    ]
    return [clock.seconds(i, frame) for i, frame in enumerate(frames)], clock


def write_stamped(path, times, last_duration=0.0, fps=25):
    """Pictures that each stand alone, at any times that do not fall, in packets without durations of their own but the last."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i, seconds in enumerate(times):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i % 250, np.uint8), format="bgr24")
            (packet,) = stream.encode(picture.reformat(format="yuvj420p"))
            packet.pts = packet.dts = round(1000 * seconds)
            packet.time_base = MILLISECOND
            packet.duration = round(1000 * last_duration) if i == len(times) - 1 else 0
            container.mux(packet)
    return path


# ------------------------------------------------------------------------------------------------------------ stamps that rise


@pytest.mark.parametrize("fps", [25, 1.9, 30000 / 1001])
def test_stamps_that_rise_are_the_times_to_the_bit(fps):
    rng = random.Random(0)
    stamps = [1.4]
    for _ in range(200):
        stamps.append(stamps[-1] + rng.choice([0.001, 0.033, 0.04, 0.5, 7]))
    exact = [float(Fraction(round(1000 * t), 1000)) for t in stamps]
    assert clocked(stamps, fps)[0] == [t - exact[0] for t in exact]


# ------------------------------------------------------------------------------------------------------------ and that do not


@pytest.mark.parametrize(
    ("fps", "stamps", "expected"),
    [
        (25, [0, None, None, 0.5, 0.54], [0, 0.04, 0.08, 0.5, 0.54]),
        (25, [0, 0.04, 0.04, 0.12, 0.16], [0, 0.04, 0.08, 0.12, 0.16]),  # a constant rate fills the hole
        (25, [0, 0.04, 0.12, 0.08, 0.16], [0, 0.04, 0.12, 0.12, 0.16]),
        (25, [0, 0.04, 0.08, 0.04, 0.16], [0, 0.04, 0.08, 0.12, 0.16]),
        (2, [0, 5, 5.03, 5.03, 5.06, 5.09, 9], [0, 5, 5.03, 5.03, 5.06, 5.09, 9]),
        (2, [0, 5, 5.03, 5.09, 5.06, 5.12, 9], [0, 5, 5.03, 5.09, 5.09, 5.12, 9]),
        # stamped frames that an average frame has overtaken wait for it
        (2, [0, 5, None, 5.03, 5.06, 5.6, 5.7], [0, 5, 5.5, 5.5, 5.5, 5.6, 5.7]),
        (25, [100, 100.04, 3, 100.12, 100.16], [0, 0.04, 0.08, 0.12, 0.16]),  # one wild stamp
        (25, [0] * 8, [i / 25 for i in range(8)]),  # a clock that stands
        (2, [0, 5, 5, 5, 5, 5, 5, 5, 9], [0, 5, 5, 5, 5, 5, 5.5, 6, 9]),
        # two files that were joined, of 2.5 and 3 s
        (25, [0, 1, 1.2, 2.46, 0, 1, 1.2, 1.3, 2, 2.5, 2.9], [0, 1, 1.2, 2.46, 2.5, 2.54, 2.58, 2.62, 4.5, 5, 5.4]),
        (2, [0, 3, 6, 0, 1, 2, 2.1, 2.2, 2.3, 3], [0, 3, 6, 6.5, 7, 7.5, 8, 8.7, 8.8, 9.5]),
        # whose parts are short
        (25, [i / 25 for i in range(12)] * 2, [i / 25 for i in range(24)]),
    ],
)
def test_stamps_that_do_not_rise(fps, stamps, expected):
    times, _ = clocked(stamps, fps)
    assert times == pytest.approx(expected, abs=1e-9)
    assert all(a < b for a, b in pairwise(times))


def test_times_rise_whatever_the_stamps():
    rng = random.Random(1)
    for _ in range(300):
        stamps = [rng.choice([None, *range(8), rng.uniform(-20, 20)]) for _ in range(60)]
        times, _ = clocked(stamps, rng.choice([0.5, 2, 25, 240]))
        assert all(a < b for a, b in pairwise(times)) and math.isfinite(times[-1])


def test_a_repeated_stamp_in_a_burst_moves_no_other_frame(tmp_path):
    """A recorded screen, 1.9 frames a second on average: 3 s of it at 30 frames a second, one of which comes twice."""
    burst = [20 + i / 30 for i in range(1, 91)]
    times = [0, 10, 20, *burst[:16], burst[15], *burst[16:], 40, 50]
    stamped = [round(1000 * t) / 1000 for t in times]
    assert seconds_of(write_stamped(tmp_path / "screen.mkv", times)) == pytest.approx(stamped, abs=1e-9)
    assert clocked(times, len(times) / 50)[0] == pytest.approx(stamped, abs=1e-9)


def test_joined_transport_streams_keep_their_distances(tmp_path):
    """The second part, which begins at the first's own stamp again, comes an average frame after it."""
    uneven = [0, 0.04, 0.08, 0.12, 0.16, 0.2, 1, 1.04, 1.5, 2.04]
    parts = [
        write_video(tmp_path / f"{i}.ts", 10, times=uneven, codec="libx264", options={"bf": "0"}) for i in range(2)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    average = 1 / read_header(joined).fps
    # the packets are counted anew in the second part, which the reader takes for a sign of damage
    found = [frame.seconds for frame in read_frames(joined, damage=Damage("keep"))]
    assert found[:10] == pytest.approx(uneven, abs=1e-4)
    assert found[14:] == pytest.approx([2.04 + average + t for t in uneven[4:]], abs=1e-4)


# ------------------------------------------------------------------------------------------------------------- where it ends


@pytest.mark.parametrize(
    ("fps", "stamps", "durations", "shown"),
    [
        (25, [0, 0.04, 0.08], [0.04] * 3, 0.04),
        (25, [0, 0.04, 0.08], [0.04, 0.04, 3], 3),  # held
        (25, [0], [3], 3),
        (25, [0], [0], 0.04),
        (25, [0, 0.04, 61], [0, 0, 0], 0.04),  # not the gap before it
        (0.5, [0, 0.04, 6], [0, 0, 0.04], 0.04),
        (30000 / 1001, [0, 0.033, 0.067], [0.033] * 3, 1001 / 30000),  # rounded by its container
        (25, [0, 0.04, 0.08], [0.02] * 3, 0.04),  # of fields
        (25, [0, 0.04, 0.08], [0, 0, -1], 0.04),
    ],
)
def test_the_last_frame_is_shown_for_its_own_duration_else_an_average_frame(fps, stamps, durations, shown):
    times, clock = clocked(stamps, fps, durations)
    assert clock.shown_seconds() == pytest.approx(shown, abs=1e-9)
    assert clock.ends_after() == pytest.approx(times[-1] + shown, abs=1e-9)


def ends(paths, fps=None):
    with DecodePool(1) as pool:
        return [event for event in pool.decode(paths, fps) if isinstance(event, Ended)]


def test_a_constant_rate_ends_after_whole_frames(tmp_path):
    rates = (25, Fraction(30000, 1001))
    paths = {
        write_video(tmp_path / f"{float(fps):.0f}{suffix}", 31, fps=fps): 31 / fps
        for fps in rates
        for suffix in (".mp4", ".mkv", ".avi", ".ts")
    }
    for path, ended in zip(paths, ends(list(paths)), strict=True):
        assert ended.duration_seconds == ended.source_seconds == pytest.approx(float(paths[path]), abs=5e-4), path
        assert ended.num_frames == 31
    for path, ended in zip(paths, ends(list(paths), 5), strict=True):
        assert ended.num_frames == math.floor(paths[path] * 5) and ended.duration_seconds == ended.num_frames / 5
        assert ended.source_seconds == pytest.approx(float(paths[path]), abs=5e-4)


@pytest.mark.parametrize(
    ("times", "last_duration", "end", "slots"),
    [
        ([i / 25 for i in range(50)], 3.0, 4.96, 24),  # 1.96 s and then held for 3 s
        ([i / 25 for i in range(26)] + [61.0], 0.04, 61.04, 305),
    ],
)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_last_frame_ends_where_the_header_says(tmp_path, suffix, times, last_duration, end, slots):
    path = write_stamped(tmp_path / f"a{suffix}", times, last_duration)
    assert read_header(path).duration_seconds == pytest.approx(end)
    (plain,), (five,) = ends([path]), ends([path], 5)
    assert (plain.num_frames, plain.duration_seconds) == (len(times), pytest.approx(end))
    assert (five.num_frames, five.duration_seconds, five.source_seconds) == (slots, slots / 5, pytest.approx(end))
    assert count_frames(path, fps=5) == slots


def test_a_last_frame_that_is_held_for_ever_is_not_filled_with_repeats(tmp_path):
    path = write_stamped(tmp_path / "a.mkv", [0, 0.04], 9000)
    assert ends([path])[0].duration_seconds == pytest.approx(9000.04)
    with pytest.raises(VideoError, match="its last frame is shown for 9000 s; without --fps that does not matter"):
        count_frames(path, fps=5)


@pytest.mark.parametrize(("codec", "format"), [("libx264", "h264"), ("mpeg2video", "mpeg2video")])
def test_a_bare_stream_runs_at_the_rate_that_it_tells(tmp_path, codec, format):
    """Without a container libav makes up 25 frames a second, whatever the stream itself says."""
    path = tmp_path / "a.bare"
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(60):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * i, np.uint8), format="bgr24")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    assert read_header(path).fps == 30000 / 1001
    assert seconds_of(path) == pytest.approx([i * 1001 / 30000 for i in range(60)], abs=1e-4)
    assert ends([path])[0].duration_seconds == pytest.approx(2.002, abs=1e-4)
    assert count_frames(path, fps=5) == 10
