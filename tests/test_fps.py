"""Frames a second: what a card asks for, what the user asks for instead, and which frames are taken."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from conftest import write_video

import featx
from featx.catalog import CHECKPOINTS, get_checkpoint
from featx.cli import main
from featx.dry_run import dry_run
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.features import Failure
from featx.frame_times import resample
from featx.plan import plan_videos
from featx.video import read_frames, read_header

MINI = get_checkpoint("res3d-mini")
AT_FIVE = dataclasses.replace(MINI, sampling=dataclasses.replace(MINI.sampling, fps=5))


@pytest.mark.parametrize(
    ("card", "fps", "expected"),
    [
        (MINI, None, 0.0),
        (MINI, 0, 0.0),
        (AT_FIVE, None, 5.0),
        (AT_FIVE, 0, 0.0),
        (AT_FIVE, 12.5, 12.5),
    ],
)
def test_what_is_recorded(card, fps, expected):
    with Extractor(card, fps=fps) as extractor:
        assert extractor.provenance.fps == expected and extractor.sampling.fps == (expected or None)


def test_as_filmed_despite_the_card(clips_folder, tmp_path):
    video = clips_folder / "dog/000.mp4"  # 40 frames, 25 a second
    filmed, by_card = (featx.extract(video, AT_FIVE, fps=fps) for fps in (0, None))
    assert (filmed.num_frames, by_card.num_frames) == (40, 8)
    with pytest.raises(SystemExit) as exit:
        main(["extract", str(video), "-o", str(tmp_path / "f.h5"), "--fps", "0", "--quiet"])
    assert exit.value.code == 0
    with featx.open(tmp_path / "f.h5") as features:
        assert features.provenance.fps == 0  # and the plain card's features are those of the other card as filmed
        assert np.array_equal(features["000"].descriptors["pool5"], filmed.descriptors["pool5"])


@pytest.mark.parametrize("fps", [-1, 2000, math.nan])
def test_other_numbers_are_refused(fps):
    with pytest.raises(UsageError, match="fps is"):
        Extractor(fps=fps)


def test_listed_clips_are_counted_in_frames_as_filmed():
    with pytest.raises(UsageError, match="res3d-mini takes 5 frames a second, but .* take these with --fps 0"):
        Extractor(AT_FIVE, listed_clips=True)
    with Extractor(AT_FIVE, listed_clips=True, fps=0) as extractor:
        assert extractor.provenance.fps == 0


def test_torchvisions_cards_ask_for_fifteen():
    assert {card.sampling.fps for name, card in CHECKPOINTS.items() if name.startswith("tv-")} == {15}


@pytest.mark.parametrize(
    "filmed", [10, 12.5, 15, 23.976, 24, 25, 29.97, 30, 45, 50, 59.94, 60, 30000 / 1001, 24000 / 1001]
)
def test_the_frames_taken_are_those_that_torchvision_takes(filmed):
    """torchvision takes frame floor(i * filmed / fps), whatever the stamps."""
    num_frames = 301
    ours = [i for _, i in resample(((i / filmed, i) for i in range(num_frames)), 15, lambda: 1 / filmed)]
    theirs = [math.floor(i * filmed / 15 + 1e-9) for i in range(math.floor(num_frames * 15 / filmed + 1e-9))]
    assert ours == theirs


@pytest.mark.parametrize("filmed", [24, 25, 29.97, 30, 60])
def test_stamps_in_milliseconds_change_nothing(filmed):
    """Matroska rounds a frame's time to a millisecond, which may fall behind the moment at which it is shown."""
    exact, rounded = (
        [i for _, i in resample(((stamp(i / filmed), i) for i in range(301)), 15, lambda: 1 / filmed, tick)]
        for stamp, tick in ((float, 0.0), (lambda s: round(s, 3), 0.001))
    )
    assert len(exact) == len(rounded)
    assert sum(a != b for a, b in zip(exact, rounded, strict=True)) <= (0 if filmed in (24, 25, 30, 60) else 8)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_containers_agree(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", 90, fps=30, brightness=lambda i: 20 + 2 * i, options={"qscale": "1"})
    filmed = [frame.pixels.copy() for frame in read_frames(path)]
    taken = [frame.pixels.copy() for frame in read_frames(path, fps=15)]
    assert len(taken) == 45 and all(np.array_equal(a, b) for a, b in zip(taken, filmed[::2], strict=True))


@pytest.mark.parametrize("num_frames", [37, 38, 62, 63, 75])
def test_headers_tell_the_frames_that_come(tmp_path, num_frames):
    """A slot that is not whole gives no frame, neither of a video nor of a segment at its end."""
    path = write_video(tmp_path / "a.mp4", num_frames)
    assert read_header(path, 2).num_frames == len(list(read_frames(path, 2))) == math.floor(num_frames / 25 * 2)
    (tmp_path / "s.csv").write_text(
        f"path,start_seconds,end_seconds\n{path},0,{num_frames / 25}\n{path},1,{num_frames / 25}\n"
    )
    with Extractor("res3d-mini", device="cpu", fps=2, short="pad") as extractor:
        results = list(extractor.extract_many(plan_videos((), segments=[tmp_path / "s.csv"])))
    told = dry_run((), segments=tmp_path / "s.csv", fps=2, short="pad")
    assert [result.key for result in results if isinstance(result, Failure)] == [failed.key for failed in told.failures]
    taken = [(result.key, result.num_frames) for result in results if not isinstance(result, Failure)]
    assert taken == [(key, frames) for key, frames, _ in told.videos] and len(taken) >= 1
