"""preprocess.py against OpenCV and against arithmetic written out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from featx.catalog import CHECKPOINTS
from featx.errors import UsageError, VideoError
from featx.preprocess import Preprocess


def picture(height, width, seed=0):
    """A smooth coloured picture with some edges, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    noise = cv2.resize(
        rng.uniform(0, 255, (12, 16, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    noise[height // 3 : height // 2] = 255 - noise[height // 3 : height // 2]
    return np.clip(noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(240, 320), (256, 340), (1080, 1920), (64, 48), (129, 173)])
@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_resize_is_within_a_grey_level_of_opencvs(name, size):
    preprocess = CHECKPOINTS[name].preprocess
    if preprocess.interpolation != "bilinear":
        pytest.skip("not OpenCV's interpolation")
    frame = picture(*size)
    height, width = preprocess.resized_shape(*size)
    ours = preprocess.resize_frames(torch.from_numpy(frame)[None])[0].numpy()
    theirs = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert difference.mean() <= 0.3


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_normalise_is_the_cards_arithmetic(name):
    preprocess = CHECKPOINTS[name].preprocess
    height, width = preprocess.resized_shape(240, 320)
    frames = picture(height, width)[None]  # (1, h, w, 3) BGR
    cropped = preprocess.crop_frames(torch.from_numpy(frames))
    values = preprocess.normalise(cropped[None])
    assert values.shape == (1, 3, 1, preprocess.crop, preprocess.crop)
    assert values.dtype == torch.float32
    y, x = preprocess.crop_offset or ((height - preprocess.crop) // 2, (width - preprocess.crop) // 2)
    for row, column, channel in [(0, 0, 0), (5, 9, 1), (preprocess.crop - 1, preprocess.crop - 1, 2)]:
        source = channel if preprocess.channel_order == "bgr" else 2 - channel
        pixel = float(frames[0, y + row, x + column, source])
        expected = (pixel * preprocess.scale - preprocess.mean[channel]) / preprocess.std[channel]
        assert values[0, channel, 0, row, column].item() == pytest.approx(expected, abs=1e-4)


def test_mean_cube_is_subtracted_before_the_crop():
    rng = np.random.default_rng(0)
    cube = rng.uniform(90, 110, (3, 2, 8, 10)).astype(np.float32)
    preprocess = Preprocess(crop=4, resize=(8, 10), crop_offset=(2, 5), channel_order="bgr", mean_cube=cube)
    clip = rng.integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)
    ours = preprocess.normalise(preprocess.crop_frames(torch.from_numpy(clip))[None])[0].numpy()
    at_full_size = clip.astype(np.float32).transpose(3, 0, 1, 2) - cube  # (T, h, w, 3) -> (3, T, h, w)
    assert np.array_equal(ours, at_full_size[:, :, 2:6, 5:9])
    assert len(preprocess.mean_cube_sha256()) == 64


@pytest.mark.parametrize(
    ("size", "expected"), [((240, 320), (112, 149)), ((320, 240), (149, 112)), ((100, 100), (112, 112))]
)
def test_short_side_keeps_the_aspect(size, expected):
    assert Preprocess(crop=112, resize=112).resized_shape(*size) == expected


@pytest.mark.parametrize(
    "wrong",
    [dict(crop=200, resize=(128, 171)), dict(crop=112, resize=(128, 171), crop_offset=(20, 0)), dict(crop=112, resize=100),
     dict(crop=1, channel_order="grb"), dict(crop=1, interpolation="cubic"), dict(crop=1, std=(1.0, 0.0, 1.0)),
     dict(crop=4, resize=(8, 8), mean_cube=np.zeros((3, 2, 8, 9), np.float32))],
)  # fmt: skip
def test_preprocess_checks_itself(wrong):
    with pytest.raises(UsageError):
        Preprocess(**wrong)


def test_a_crop_larger_than_the_frame_is_refused():
    with pytest.raises(VideoError, match="20x10 pixels are smaller than the crop of 16"):
        Preprocess(crop=16).crop_frames(torch.zeros((1, 10, 20, 3), dtype=torch.uint8))
