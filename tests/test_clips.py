"""clips.py against hand-worked cases, and the streaming form against the readable one."""

import doctest
import itertools

import pytest

from featx import clips
from featx.clips import Clip, ClipWindow, Sampling, count_clips, plan_clips
from featx.errors import UsageError, VideoError


def starts(num_frames, **sampling):
    return [clip.start_frame for clip in plan_clips(num_frames, Sampling(**sampling))]


@pytest.mark.parametrize(
    ("num_frames", "sampling", "expected"),
    [
        (16, dict(length=16, stride=8), [0]),
        (23, dict(length=16, stride=8), [0]),
        (24, dict(length=16, stride=8), [0, 8]),
        (32, dict(length=16, stride=16), [0, 16]),  # the last full clip counts when the number divides evenly
        (15, dict(length=8, stride=8, frame_step=2), [0]),
        (22, dict(length=8, stride=8, frame_step=2), [0]),
        (23, dict(length=8, stride=8, frame_step=2), [0, 8]),
        (20, dict(length=4, stride=8), [0, 8, 16]),  # stride above span leaves gaps
        (17, dict(length=16, stride=8, tail="pad"), [0, 8]),
        (16, dict(length=16, stride=8, tail="pad"), [0]),
        (39, dict(length=16, stride=20, tail="pad"), [0, 20]),
        (40, dict(length=16, stride=20, tail="pad"), [0, 20]),  # frames 36-39 lie in the gap before the next start
        (41, dict(length=16, stride=20, tail="pad"), [0, 20, 40]),
        (100, dict(length=16, num_clips_even=5), [0, 21, 42, 63, 84]),
        (100, dict(length=16, num_clips_even=1), [42]),
        (18, dict(length=16, num_clips_even=20), [0, 1, 2]),
        (18, dict(length=16, num_clips_even=10**9), [0, 1, 2]),
        (3, dict(length=16, num_clips_even=20), [0]),
    ],
)
def test_starts(num_frames, sampling, expected):
    assert starts(num_frames, **sampling) == expected


def test_more_even_clips_than_starts_are_all_starts():
    for last_start in range(12):
        for num_clips in range(2, 30):
            slow = sorted({i * last_start // (num_clips - 1) for i in range(num_clips)})
            assert starts(last_start + 2, length=2, num_clips_even=num_clips) == slow


def test_short_videos_loop_pad_or_are_refused():
    assert plan_clips(3, Sampling(length=5, short="loop")) == [Clip(0, 3, (0, 1, 2, 0, 1))]
    assert plan_clips(3, Sampling(length=5, short="pad")) == [Clip(0, 3, (0, 1, 2, 2, 2))]
    assert plan_clips(4, Sampling(length=4, frame_step=2, short="loop")) == [Clip(0, 4, (0, 2, 0, 2))]
    with pytest.raises(VideoError, match="3 frames, but one clip spans 5"):
        plan_clips(3, Sampling(length=5, short="skip"))
    with pytest.raises(VideoError, match="no frames"):
        plan_clips(0, Sampling(length=5))


def test_padded_tail_repeats_the_last_frame():
    assert plan_clips(6, Sampling(length=4, stride=4, tail="pad"))[-1] == Clip(4, 6, (4, 5, 5, 5))


@pytest.mark.parametrize("short", clips.SHORT_POLICIES)
@pytest.mark.parametrize(("tail", "num_clips_even"), [("drop", None), ("pad", None), ("drop", 1), ("drop", 4)])
def test_window_equals_plan_for_every_small_video(short, tail, num_clips_even):
    for num_frames, length, stride, frame_step in itertools.product(range(0, 34), (1, 2, 5), (1, 2, 3, 9), (1, 2, 4)):
        sampling = Sampling(length, stride, frame_step, num_clips_even, None, short, tail)
        window = ClipWindow(sampling, num_frames)
        streamed, most_held = [], 0
        try:
            for frame in range(num_frames):
                streamed.append(window.push(frame))
                most_held = max(most_held, len(window._held))
            streamed.append(window.finish())
        except VideoError:
            assert count_clips(num_frames, sampling) == 0
            with pytest.raises(VideoError):
                plan_clips(num_frames, sampling)
            continue
        planned = plan_clips(num_frames, sampling)
        streamed = [pair for pair in streamed if pair is not None]
        assert [clip[:1] + clip[2:] for clip, _ in streamed] == [clip[:1] + clip[2:] for clip in planned]
        assert [clip.end_frame for clip, _ in streamed] == [clip.end_frame for clip in planned]
        assert [tuple(frames) for _, frames in streamed] == [clip.frames for clip in planned]
        assert count_clips(num_frames, sampling) == len(planned)
        assert most_held <= max(sampling.span, 1)


def test_window_equals_plan_for_every_small_list_of_starts():
    for num_frames, length, frame_step in itertools.product(range(1, 11), (1, 2, 4), (1, 2)):
        sampling = Sampling(length, frame_step=frame_step, listed=True)
        for count in (1, 2, 3):
            for listed in itertools.combinations(range(9), count):
                window = ClipWindow(sampling, listed_starts=listed)
                streamed, most_held = [], 0
                try:
                    for frame in range(num_frames):
                        streamed.append(window.push(frame))
                        most_held = max(most_held, len(window._held))
                    assert window.finish() is None
                except VideoError:
                    assert listed[-1] + sampling.span > num_frames
                    assert count_clips(num_frames, sampling, listed) == 0
                    with pytest.raises(VideoError, match="is listed from frame"):
                        plan_clips(num_frames, sampling, listed)
                    continue
                streamed = [pair for pair in streamed if pair is not None]
                assert [clip for clip, _ in streamed] == plan_clips(num_frames, sampling, listed)
                assert [clip.start_frame for clip, _ in streamed] == list(listed)
                assert [clip.frames for clip, _ in streamed] == [
                    tuple(range(start, start + sampling.span, frame_step)) for start in listed
                ]
                assert [tuple(frames) for _, frames in streamed] == [clip.frames for clip, _ in streamed]
                assert count_clips(num_frames, sampling, listed) == len(listed)
                assert most_held <= sampling.span


@pytest.mark.parametrize(
    ("with_it", "reason"),
    [
        (dict(num_clips_even=3), "3 evenly spread clips"),
        (dict(tail="pad"), "never completed"),
        (dict(short="pad"), "never"),
    ],
)
def test_nothing_else_places_listed_clips(with_it, reason):
    with pytest.raises(UsageError, match=reason):
        Sampling(listed=True, **with_it)


@pytest.mark.parametrize("listed", [None, (), (3, 3), (5, 4), (-1, 2)])
def test_listed_starts_must_rise(listed):
    with pytest.raises(ValueError, match="rising"):
        ClipWindow(Sampling(listed=True), listed_starts=listed)


@pytest.mark.parametrize(
    "wrong",
    [dict(length=0), dict(stride=-1), dict(frame_step=1.5), dict(fps=0), dict(short="drop"), dict(tail="loop"),
     dict(num_clips_even=0), dict(tail="pad", num_clips_even=3), dict(fps=5, listed=True)],
)  # fmt: skip
def test_sampling_checks_itself(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).split("_")[0]):
        Sampling(**wrong)


def test_the_drawing_in_the_docstring():
    assert doctest.testmod(clips).failed == 0
