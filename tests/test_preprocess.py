"""preprocess.py: every card against its authors' steps, done here with OpenCV, Pillow and plain arithmetic."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from featx.catalog import CHECKPOINTS
from featx.errors import UsageError, VideoError
from featx.preprocess import Preprocess


def picture(height, width, seed=0):
    """A smooth coloured picture with noise and some edges, uint8 BGR (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (12, 16, 3)).astype(np.float32)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + rng.uniform(-20, 20, (height, width, 3))
    fine[height // 3 : height // 2] = 255 - fine[height // 3 : height // 2]
    return np.clip(fine, 0, 255).astype(np.uint8)


@cache
def sized_picture(place):
    return picture(*SIZES[place], seed=place)


@cache
def by_authors(start, place):
    return AUTHORS[start](sized_picture(place))


def prepared(preprocess, frame):
    """What the network gets of one frame: float32 (C, crop, crop)."""
    frames = preprocess.prepare_frames(torch.from_numpy(frame)[None])  # (1, H, W, 3) -> (1, crop, crop, 3)
    return preprocess.normalise(frames[None])[0, :, 0].numpy()


# ------------------------------------------------------------------ what the authors' code does to a frame, written out here


def caffe(frame, size, crop, offset, mean, std=1.0):
    """OpenCV's resize, less a mean in BGR, a crop at (y, x)."""
    y, x = offset
    resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
    values = (resized.astype(np.float32) - np.array(mean, np.float32)) / np.float32(std)
    return values[y : y + crop, x : x + crop].transpose(2, 0, 1)  # (crop, crop, 3) -> (3, crop, crop)


def flow(frame):
    """P3D's flow: x and y in the first two channels."""
    return caffe(frame, (182, 242), 160, (11, 41), (128, 128, 128))[:2]


def pillow(frame):
    """Short side 112 with Pillow, the long one cut off, and a crop whose place is Python's round: uint8 RGB.

    In two calls, rows first and then columns: what one call did in the authors' Pillow. From 13 on one call begins with the
    columns where that is cheaper, and rounds other values in between.
    """
    height, width = frame.shape[:2]
    rgb = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
    if width < height:
        size = (112, int(112 * height / width))
    else:
        size = (int(112 * width / height), 112)
    resized = rgb.resize((size[0], height), Image.BILINEAR).resize(size, Image.BILINEAR)
    x, y = round((resized.width - 112) / 2), round((resized.height - 112) / 2)
    return np.asarray(resized.crop((x, y, x + 112, y + 112)))


def hara_2018(frame):
    """0 .. 255, less the mean of ActivityNet."""
    mean = torch.tensor([114.7748, 107.7354, 99.4750])
    return (torch.tensor(pillow(frame)).float() - mean).permute(2, 0, 1).numpy()


def hara_2020(frame):
    values = torch.tensor(pillow(frame)).float() / 255
    mean, std = torch.tensor([0.4345, 0.4051, 0.3775]), torch.tensor([0.2768, 0.2713, 0.2737])
    return ((values - mean) / std).permute(2, 0, 1).numpy()


def torchvision(frame):
    """To 128x171 in float32, rounded; the crop begins at round(16 / 2) and round(59 / 2), which is 30."""
    planes = torch.tensor(frame[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()  # (H, W, 3) -> (1, 3, H, W)
    resized = torch.nn.functional.interpolate(planes, (128, 171), mode="bilinear").round()[0, :, 8:120, 30:142]
    mean, std = torch.tensor([0.43216, 0.394666, 0.37645]), torch.tensor([0.22803, 0.22145, 0.216989])
    return ((resized / 255 - mean[:, None, None]) / std[:, None, None]).numpy()


def mmaction2(frame):
    """Short side 128, the long one to the nearest pixel; a crop whose place is rounded down; RGB less its means."""
    height, width = frame.shape[:2]
    factor = 128 / min(height, width)
    height, width = int(height * factor + 0.5), int(width * factor + 0.5)
    y, x = (height - 112) // 2, (width - 112) // 2
    rgb = cv2.resize(frame[:, :, ::-1].copy(), (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return (rgb - np.float32([104, 117, 128]))[y : y + 112, x : x + 112].transpose(2, 0, 1)


C3D = dict(size=(128, 171), crop=112, offset=(8, 29))
P3D = dict(size=(182, 242), crop=160, offset=(11, 41))  # the centre: both remainders are even

# the beginning of a card's name -> the authors' steps; the first that fits
AUTHORS = {
    "c3d-sports1m": lambda f: caffe(f, **C3D, mean=(100.61, 108.05, 107.81)),
    "c3d-ucf101": lambda f: caffe(f, **C3D, mean=(90.25, 97.66, 101.41)),
    "res3d-mini": lambda f: caffe(f, **C3D, mean=(128, 128, 128), std=64),
    "res3d-": lambda f: caffe(f, **C3D, mean=(128, 128, 128)),
    "p3d199-flow": flow,
    "p3d199-": lambda f: caffe(f, **P3D, mean=(104, 117, 123)),
    "mm-c3d-": mmaction2,
    "tv-": torchvision,
    "r3d": hara_2020,
    "resnet": hara_2018,
    "preresnet": hara_2018,
    "wideresnet": hara_2018,
    "resnext": hara_2018,
    "densenet": hara_2018,
}

# landscape, portrait, square; nothing to resize; sides that leave an odd remainder to the crop, of both kinds (37 and 39); up
SIZES = [(240, 320), (213, 160), (112, 149), (151, 112), (120, 120), (61, 91)]


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_a_card_prepares_frames_as_its_authors_do(name):
    start = next((start for start in AUTHORS if name.startswith(start)), None)
    assert start is not None, f"write down in AUTHORS how the authors of {name} prepare a frame"
    for place, size in enumerate(SIZES):
        ours = prepared(CHECKPOINTS[name].preprocess, sized_picture(place))
        assert np.array_equal(ours, by_authors(start, place)), size


@pytest.mark.parametrize(
    "name", sorted(name for name, card in CHECKPOINTS.items() if "port" in card.variants and card.clip_shape[0] == 3)
)
def test_the_input_of_p3ds_port(name):
    """RGB, divided by 255, mean and standard deviation of ImageNet; resized and cropped as the paper says."""
    frame = picture(240, 320)
    values = caffe(frame, **P3D, mean=(0, 0, 0))[::-1].copy()  # BGR -> RGB
    mean, std = (np.float32(three)[:, None, None] for three in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = (values / np.float32(255) - mean) / std
    assert np.array_equal(prepared(CHECKPOINTS[name].with_variant("port").preprocess, frame), expected)


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_prepare_is_resize_and_crop(name):
    preprocess = CHECKPOINTS[name].preprocess
    frames = torch.from_numpy(np.stack([picture(90, 131, 0), picture(90, 131, 1)]))
    assert torch.equal(preprocess.prepare_frames(frames), preprocess.crop_frames(preprocess.resize_frames(frames)))


def test_mean_cube_is_subtracted_before_the_crop():
    rng = np.random.default_rng(0)
    cube = rng.uniform(90, 110, (3, 2, 128, 171)).astype(np.float32)
    preprocess = Preprocess(crop=112, resize=(128, 171), crop_offset=(8, 29), channel_order="bgr", mean_cube=cube)
    frames = np.stack([picture(240, 320, seed) for seed in range(2)])
    ours = preprocess.normalise(preprocess.prepare_frames(torch.from_numpy(frames))[None])[0].numpy()
    clip = np.stack([cv2.resize(frame, (171, 128), interpolation=cv2.INTER_LINEAR) for frame in frames])
    at_full_size = clip.astype(np.float32).transpose(3, 0, 1, 2) - cube  # (T, h, w, 3) -> (3, T, h, w)
    assert np.array_equal(ours, at_full_size[:, :, 8:120, 29:141])
    assert len(preprocess.mean_cube_sha256()) == 64


@pytest.mark.parametrize(
    ("rounding", "size", "corner"),
    [("even", (117, 119), (2, 4)), ("down", (117, 119), (2, 3)), ("even", (113, 115), (0, 2)), ("down", (113, 115), (0, 1)),
     ("even", (112, 116), (0, 2)), ("down", (112, 116), (0, 2))],
)  # fmt: skip
def test_where_the_centre_is(rounding, size, corner):
    """Half of an odd remainder: 2.5 and 3.5 become 2 and 4, or 2 and 3."""
    y, x = np.mgrid[: size[0], : size[1]]
    places = np.stack([y, x, y], axis=-1).astype(np.uint8)[None]
    cropped = Preprocess(crop=112, crop_rounding=rounding).crop_frames(torch.from_numpy(places))
    assert cropped.shape == (1, 112, 112, 3) and tuple(cropped[0, 0, 0, :2].tolist()) == corner


@pytest.mark.parametrize(
    ("size", "down", "nearest"),
    [((240, 320), (112, 149), (112, 149)), ((320, 240), (149, 112), (149, 112)), ((100, 100), (112, 112), (112, 112)),
     ((240, 319), (112, 148), (112, 149)), ((112, 151), (112, 151), (112, 151)), ((361, 202), (200, 112), (200, 112))],
)  # fmt: skip
def test_short_side_keeps_the_aspect(size, down, nearest):
    assert Preprocess(crop=112, resize=112).resized_shape(*size) == down
    assert Preprocess(crop=112, resize=112, long_side="nearest").resized_shape(*size) == nearest


def test_a_scale_of_one_over_n_divides():
    preprocess = Preprocess(crop=16, scale=1 / 255)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(1, 1, 16, 16, 3)
    assert np.array_equal(preprocess.normalise(levels)[0, 0, 0].numpy().ravel(), np.arange(256, dtype=np.float32) / 255)
    half = Preprocess(crop=16, scale=0.3).normalise(levels)[0, 0, 0].numpy().ravel()
    assert np.allclose(half, np.arange(256) * 0.3)


@pytest.mark.parametrize(
    "wrong",
    [dict(crop=200, resize=(128, 171)), dict(crop=112, resize=(128, 171), crop_offset=(20, 0)), dict(crop=112, resize=100),
     dict(crop=1, channel_order="grb"), dict(crop=1, interpolation="cubic"), dict(crop=1, std=(1.0, 0.0, 1.0)),
     dict(crop=1, crop_rounding="up"), dict(crop=1, long_side="up"), dict(crop=1, scale=0.0),
     dict(crop=1, mean=(1.0, 2.0)), dict(crop=1, channel_order="flow", mean=(1.0, 2.0, 3.0)),
     dict(crop=4, resize=(8, 8), mean_cube=np.zeros((3, 2, 8, 9), np.float32))],
)  # fmt: skip
def test_preprocess_checks_itself(wrong):
    with pytest.raises(UsageError):
        Preprocess(**wrong)


NAN, INF = float("nan"), float("inf")
NOT_SIZES = [0, -5, 160.0, NAN, True, "8", [8], 10**9]
NOT_NUMBERS = [NAN, INF, -INF, True, "1", None, 1j, 1e300, 10**400]
CHECKED = [
    ("crop", [*NOT_SIZES, None], "a whole number from 1 to 16384"),
    ("resize", [*NOT_SIZES, 182.5, (8,), (8, 8, 8), (8, 8.0), (True, 8), (0, 8), {"h": 8}], "a whole number from 1 to 16384"),
    ("crop_offset", [(-1, 0), (0, -1), (0,), (0, 0, 0), (0, 1.0), (False, 0), 3, "00"], "two whole numbers of at least 0"),
    ("scale", [*NOT_NUMBERS, 0, -1.0, 1e-300, [1.0]], "a number above 0, within the range of float32"),
    ("mean", [("a", "b", "c"), *((0, 0, n) for n in NOT_NUMBERS), 5, "abc", None, (1, 2), (1, 2, 3, 4)], "three numbers"),
    ("std", [(1, 1, 0), (1, 1, -1), (1, 1, 1e-300), *((1, 1, n) for n in NOT_NUMBERS), 1, None, (1,)], "three numbers above 0"),
    ("mean_cube", [[[1.0]], "cube.npy", 5], "an array of float32 (3, T, h, w)"),
    *((n, [None, 5, ["down"], {}, "x"], "one of") for n in ("channel_order", "interpolation", "crop_rounding", "long_side")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "rule"), [(name, v, rule) for name, values, rule in CHECKED for v in values])
def test_each_field_is_named_with_its_rule(name, value, rule):
    """As a card's JSON may have them, whatever the type: one line that says field, value and rule."""
    with pytest.raises(UsageError) as error:
        Preprocess(**{"crop": 8, name: value})
    shown = tuple(value) if isinstance(value, list) and name in ("resize", "mean", "std") else value
    start = f"{name} is {shown!r}"[:100]
    assert str(error.value).startswith(start) and f", but must be {rule}" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


def test_numbers_of_numpy_and_lists_of_json_are_taken():
    preprocess = Preprocess(
        np.int64(4), [np.int32(8), 8], crop_offset=[0, 4], scale=np.float32(2), mean=[1, 2.5, 3], std=[]
    )
    assert preprocess.resize == (8, 8) and preprocess.crop_offset == (0, 4)
    assert preprocess.mean == (1, 2.5, 3) and preprocess.std == (1.0, 1.0, 1.0)
    assert Preprocess(8, channel_order="flow").mean == (0.0, 0.0)


def test_a_crop_larger_than_the_frame_is_refused():
    frames = torch.zeros((1, 10, 20, 3), dtype=torch.uint8)
    for prepare in (Preprocess(crop=16).crop_frames, Preprocess(crop=16).prepare_frames):
        with pytest.raises(VideoError, match="20x10 pixels are smaller than the crop of 16"):
            prepare(frames)


@pytest.mark.parametrize(
    ("scale", "mean", "good"),
    [
        (1 / 255, (0.4, 0.4, 0.4), True),
        (1 / 127.5, (1.0, 1.0, 1.0), True),
        (1.0, (110.0, 100.0, 255.0), True),
        (1 / 255, (110.0, 100.0, 90.0), False),  # grey levels where the scale asks for parts of one
        (1.0, (0.4, -0.1, 0.4), False),
    ],
)
def test_a_mean_that_no_pixel_can_have(scale, mean, good):
    if good:
        assert Preprocess(crop=16, scale=scale, mean=mean).mean == mean
    else:
        with pytest.raises(UsageError, match="mean is .*, but a pixel times the scale .* is from 0 to"):
            Preprocess(crop=16, scale=scale, mean=mean)
