"""frame_folders.py: which images are frames; and folders of images through video.py, the pool and the extractor."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import write_noise_video
from test_cli import run

import featx
from featx import backbones, checkpoints
from featx.catalog import get_checkpoint
from featx.decode_pool import Chunk, DecodePool, Ended, Failed, Started
from featx.dry_run import dry_run
from featx.errors import UsageError, VideoError
from featx.extractor import Extractor
from featx.features import Failure
from featx.frame_folders import file_stamp, first_number, holds_frames, read_frame_folder
from featx.plan import VideoItem, plan_videos
from featx.preprocess import Preprocess
from featx.run import extract_to
from featx.video import count_frames, read_frames, read_header


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names_in(folder, flow=False):
    return [tuple(path.name for path in frame) for frame in read_frame_folder(folder, flow).frames]


def write_frames(folder, num_frames, name="{:06d}.png", start=1, size=(48, 64), grey=False, seed=0):
    """A folder of images of moving noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    wide = cv2.resize(
        rng.uniform(0, 255, (8, 8 + num_frames // 4, 3)).astype(np.float32),
        (size[1] + num_frames, size[0]),
        interpolation=cv2.INTER_CUBIC,
    )
    for i in range(num_frames):
        picture = wide[:, i : i + size[1]].clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / name.format(start + i)), picture[..., 0] if grey else picture)
    return folder


# -------------------------------------------------------------------------------------------------- which images are frames


@pytest.mark.parametrize(
    ("names", "ordered", "first"),
    [
        (["000001.jpg", "000002.jpg", "000003.jpg"], ["000001.jpg", "000002.jpg", "000003.jpg"], 1),
        (["f-10.png", "f-8.png", "f-9.png"] + [f"f-{i}.png" for i in range(8)], [f"f-{i}.png" for i in range(11)], 0),
        (["v1.5_0.JPG", "v1.5_1.jpg"], ["v1.5_0.JPG", "v1.5_1.jpg"], 0),
        (["1.jpeg", "notes.txt", ".DS_Store", "._1.jpeg"], ["1.jpeg"], 1),
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path, names, ordered, first):
    folder = touch(tmp_path / "v", *names)
    assert holds_frames(names)
    assert names_in(folder) == [(name,) for name in ordered]
    assert read_frame_folder(folder).first_number == first_number(folder) == first
    assert first_number(tmp_path / "v" / ordered[0]) == 0  # of a file


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["1.jpg", "3.jpg"], "a gap in the numbers: 3.jpg comes after 1.jpg"),
        (["5.jpg", "6.jpg"], "its first image is 5.jpg; numbers start at 0 or 1"),
        (["1.jpg", "01.jpg"], "two images have the number 1: 01.jpg and 1.jpg"),
        (["1.jpg", "2.png"], "images of two kinds, such as 1.jpg and 2.png"),
        (["a1.jpg", "b1.jpg"], "images of two namings, such as a1.jpg and b1.jpg"),
        (["1.jpg", "cover.jpg"], "holds cover.jpg among its numbered images"),
        (["cover.jpg", "notes.txt"], "a folder without numbered images"),
        (["flow_x_1.jpg", "flow_y_1.jpg"], "holds optical flow .flow_x_…, flow_y_…., but this checkpoint takes frames"),
    ],
)
def test_folders_that_are_no_video_say_why(tmp_path, names, reason):
    with pytest.raises(VideoError, match=reason):
        read_frame_folder(touch(tmp_path / "v", *names))


@pytest.mark.parametrize(("x", "y"), [("flow_x_", "flow_y_"), ("x_", "y_"), ("X", "Y"), ("box_x", "box_y")])
def test_flow_is_two_prefixes_that_differ_in_a_letter(tmp_path, x, y):
    folder = touch(tmp_path, *(f"{prefix}0000{i}.jpg" for prefix in (x, y) for i in (1, 2)))
    assert names_in(folder, flow=True) == [(f"{x}0000{i}.jpg", f"{y}0000{i}.jpg") for i in (1, 2)]
    touch(tmp_path, "img_00000.png", "img_00001.png", "img_00002.png")  # frames beside their flow
    assert names_in(folder) == [(f"img_0000{i}.png",) for i in range(3)]
    assert len(names_in(folder, flow=True)) == 2


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["1.jpg", "2.jpg"], "holds frames, but this checkpoint takes optical flow"),
        (
            ["flow_x_1.jpg", "flow_x_2.jpg", "flow_y_1.jpg"],
            "holds flow from flow_x_1.jpg to flow_x_2.jpg, but from flow_y_1",
        ),
        (["x1.jpg", "y0.jpg", "y1.jpg"], "holds flow from x1.jpg to x1.jpg, but from y0.jpg to y1.jpg"),
        (["x1.jpg", "y1.jpg", "ax1.jpg", "ay1.jpg"], "holds two optical flows, ax… and x…"),
    ],
)
def test_folders_that_are_no_flow_say_why(tmp_path, names, reason):
    with pytest.raises(VideoError, match=reason):
        read_frame_folder(touch(tmp_path, *names), flow=True)


def test_the_stamp_changes_with_any_image(tmp_path):
    folder = write_frames(tmp_path / "v", 4)
    before = file_stamp(folder)
    assert before[0] == sum(path.stat().st_size for path in folder.iterdir())
    (folder / "note.txt").write_text("not of the video")
    assert file_stamp(folder) == before
    os.utime(folder / "000002.png", ns=(0, before[1] + 1))
    assert file_stamp(folder) == (before[0], before[1] + 1)
    assert file_stamp(folder / "000001.png")[0] == (folder / "000001.png").stat().st_size


# ------------------------------------------------------------------------------------------------------------ their pixels


def test_frames_are_opencvs_and_have_no_times(tmp_path):
    folder = write_frames(tmp_path / "v", 5, start=0)
    frames = list(read_frames(folder))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4] and all(math.isnan(frame.seconds) for frame in frames)
    for i, frame in enumerate(frames):
        assert np.array_equal(frame.pixels, cv2.imread(str(folder / f"{i:06d}.png")))
    header = read_header(folder)
    assert (header.height, header.width, header.num_frames, header.codec) == (48, 64, 5, "png")
    assert math.isnan(header.fps) and math.isnan(header.duration_seconds)
    assert count_frames(folder) == 5


def test_flow_goes_into_two_channels(tmp_path):
    write_frames(tmp_path, 3, "flow_x_{:05d}.png", grey=True, seed=1)
    write_frames(tmp_path, 3, "flow_y_{:05d}.png", grey=True, seed=2)
    for i, frame in enumerate(read_frames(tmp_path, flow=True), start=1):
        for channel, letter in enumerate("xy"):
            expected = cv2.imread(str(tmp_path / f"flow_{letter}_{i:05d}.png"), cv2.IMREAD_GRAYSCALE)
            assert np.array_equal(frame.pixels[..., channel], expected)
        assert not frame.pixels[..., 2].any()


def test_frames_that_do_not_belong_together_are_refused(tmp_path):
    folder = write_frames(tmp_path / "sizes", 3)
    write_frames(folder, 1, start=2, size=(50, 64))
    with pytest.raises(VideoError, match="its first image is 64x48, but 64x50 in 000002.png"):
        list(read_frames(folder))
    folder = write_frames(tmp_path / "cut", 3)
    (folder / "000003.png").write_bytes((folder / "000003.png").read_bytes()[:-20])
    with pytest.raises(VideoError, match="000003.png is cut short"):
        count_frames(folder)
    write_frames(tmp_path / "flow", 2, "x{}.png")
    write_frames(tmp_path / "flow", 2, "y{}.png", grey=True)
    with pytest.raises(VideoError, match="x1.png is coloured"):
        list(read_frames(tmp_path / "flow", flow=True))
    with pytest.raises(VideoError, match="no time stamps, so 5 frames a second cannot be taken from it; --fps 0"):
        count_frames(folder, fps=5)
    with pytest.raises(VideoError, match="a video file, but this checkpoint takes optical flow"):
        read_header(write_noise_video(tmp_path / "a.mp4", 3), flow=True)


def test_the_pool_decodes_folders(tmp_path):
    folders = [write_frames(tmp_path / "a", 40), write_frames(tmp_path / "b", 3, start=0)]
    with DecodePool(2) as pool:
        events = list(pool.decode([*folders, tmp_path], count_first=True))
        counts = {event.index: event for event in pool.count([*folders, tmp_path])}
    starts = {event.index: event for event in events if isinstance(event, Started)}
    assert (starts[0].num_frames, starts[0].first_number, starts[1].first_number) == (40, 1, 0)
    ends = {event.index: event for event in events if isinstance(event, Ended)}
    assert (ends[0].num_frames, ends[1].num_frames) == (40, 3) == (counts[0].num_frames, counts[1].num_frames)
    assert math.isnan(ends[0].fps) and math.isnan(ends[0].duration_seconds)
    assert sum(len(event.seconds) for event in events if isinstance(event, Chunk)) == 43
    assert [event.index for event in events if isinstance(event, Failed)] == [2] and isinstance(counts[2], Failed)


# -------------------------------------------------------------------------------------------------------- as planned videos


def keys(*args, **kwargs):
    return [item.key for item in plan_videos(*args, **kwargs)]


def test_folders_of_images_are_found_listed_and_named(tmp_path, monkeypatch):
    root = tmp_path / "data"
    touch(root / "dog" / "v1.5", "1.jpg", "2.jpg")
    touch(root / "dog" / "v2" / "flow", "x_1.jpg", "y_1.jpg")
    touch(root / "dog" / "v2", "frame0.png", "frame1.png")
    touch(root / "cat", "a.mp4", "a1.jpg", "cover.jpg")  # beside a video, images are no frames
    touch(root / "figures", "plan.png")
    assert keys([root]) == ["cat/a", "dog/v1.5", "dog/v2", "dog/v2/flow"]
    assert keys([root / "dog" / "v1.5"]) == ["v1.5"]
    monkeypatch.chdir(root / "dog" / "v1.5")
    assert keys(["."]) == ["v1.5"]
    monkeypatch.chdir(root)
    assert keys(["dog"], keys_from="path") == ["dog/v1.5", "dog/v2", "dog/v2/flow"]
    (tmp_path / "list.txt").write_text("dog/v1.5\ncat\ncat/a.mp4\n")
    assert keys([], tmp_path / "list.txt") == ["cat", "cat/a", "dog/v1.5"]
    touch(root / "dog", "v2.avi")
    with pytest.raises(UsageError, match=r"two videos have the key 'v2': dog/v2 and dog/v2.avi|dog/v2.avi and dog/v2"):
        keys(["dog"])
    with pytest.raises(UsageError, match=r"v1.5/1.jpg is an image; name its folder"):  # v1.5/*.jpg is not many videos
        keys(["dog/v1.5/1.jpg", "dog/v1.5/2.jpg"])
    with pytest.raises(VideoError, match="an image; its folder stands for the video"):
        read_header("dog/v1.5/1.jpg")
    with pytest.raises(UsageError, match="no videos in figures; looked for folders of numbered images"):
        keys(["figures"])


def test_a_folder_of_frames_gives_the_features_of_its_video(capsys, tmp_path):
    video = write_noise_video(tmp_path / "v1.avi", 31)
    folder = tmp_path / "frames" / "v1"
    folder.mkdir(parents=True)
    for frame in read_frames(video):
        cv2.imwrite(str(folder / f"image_{frame.index + 1:05d}.png"), frame.pixels)
    of_video, of_frames = (featx.extract(path, save="both") for path in (video, folder))
    assert np.array_equal(of_video.clips["pool5"], of_frames.clips["pool5"])
    assert (of_frames.key, of_frames.num_frames, of_frames.num_clips) == ("v1", 31, of_video.num_clips)
    table = of_frames.clip_table
    assert table.start_frame.tolist() == of_video.clip_table.start_frame.tolist()
    for unknown in (of_frames.fps, of_frames.duration_seconds, of_frames.start_seconds, of_frames.end_seconds,
                    *table.start_seconds, *table.end_seconds):  # fmt: skip
        assert math.isnan(unknown)

    output = tmp_path / "f.h5"
    code, out, _ = run(capsys, "extract", tmp_path / "frames", "-o", output, "--save", "both")
    assert code == 0 and "1 videos done" in out
    with featx.open(output) as features:
        assert features.keys == ["v1"] and math.isnan(features.column("fps")[0])
        assert np.array_equal(features["v1"].clips["pool5"], of_video.clips["pool5"])
    code, out, _ = run(capsys, "info", output, "--videos")
    assert "(1 videos have no frame rate)" in out and "v1: 31 frames, no frame rate, 3 clips" in out
    code, out, _ = run(capsys, "info", output, "--json")
    assert json.loads(out)["holds"]["hours"] == 0
    assert featx.merge([output], tmp_path / "copy.h5") == 1

    summary = extract_to(tmp_path / "frames", output, save="both")
    assert (summary.num_present, summary.changed) == (1, [])
    os.utime(folder / "image_00007.png", ns=(0, 2**62))
    assert extract_to(tmp_path / "frames", output, save="both").changed == ["v1"]
    (folder / "image_00009.png").unlink()
    summary = extract_to(tmp_path / "frames", output, save="both", refresh=True)
    assert [failure.reason for failure in summary.failures] == [
        "a gap in the numbers: image_00010.png comes after image_00008.png"
    ]


def test_resampling_a_folder_is_refused_and_estimated_so(tmp_path):
    write_frames(tmp_path / "in" / "v", 40)
    for count in (False, True):
        assert dry_run(tmp_path / "in", count=count).videos == [("v", 40, 4)]
        assert "no time stamps" in dry_run(tmp_path / "in", count=count, fps=5).failures[0].reason
    with pytest.raises(VideoError, match="in/v: a folder of images has no time stamps"):
        featx.extract(tmp_path / "in" / "v", fps=5)
    assert featx.extract(tmp_path / "in" / "v", num_clips=2).num_clips == 2


# ------------------------------------------------------------------------------------------------------------ optical flow


@pytest.fixture(scope="module")
def flow_card(tmp_path_factory):
    """A small network for optical flow: its card and its weights."""
    arguments = {"widths": (4, 4, 4, 4, 4), "fc_width": 8, "in_channels": 2}
    preprocess = Preprocess(crop=112, resize=(128, 171), channel_order="flow", mean=(128, 128))
    card = dataclasses.replace(
        get_checkpoint("c3d-sports1m"),
        name="c3d-flow",
        classes=5,
        arguments=arguments,
        preprocess=preprocess,
        layers={"pool5": 64, "fc6": 8, "prob": 5},
        labels=None,
        variants={},
        namings=None,
    )
    torch.manual_seed(0)
    network = backbones.build("c3d", num_classes=5, **arguments)
    weights = tmp_path_factory.mktemp("flow") / "flow.pt"
    torch.save(network.state_dict(), weights)
    return card, weights


def test_a_flow_checkpoint_takes_x_and_y(tmp_path, flow_card):
    card, weights = flow_card
    root = tmp_path / "in"
    for letter, seed in (("x", 1), ("y", 2)):
        write_frames(root / "v", 20, f"flow_{letter}_{{:05d}}.png", grey=True, seed=seed, size=(128, 171))
    write_frames(root / "v", 21, "img_{:05d}.png", seed=3)
    write_frames(root / "rgb", 20)
    write_noise_video(root / "a.mp4", 20)
    shutil.copytree(root / "v", root / "only", ignore=shutil.ignore_patterns("img*"))
    with Extractor(card, weights=weights, layers=["pool5"], save="both", stride=4) as extractor:
        results = {result.key: result for result in extractor.extract_many(plan_videos(root / "v"))}
        results |= {
            r.key: r for r in extractor.extract_many([VideoItem("rgb", root / "rgb"), VideoItem("a", root / "a.mp4")])
        }
        assert extractor.provenance.mean == (128, 128) and extractor.provenance.channel_order == "flow"
    flow = [[cv2.imread(str(root / f"v/flow_{a}_{i:05d}.png"), 0) for i in range(1, 21)] for a in "xy"]
    clip = np.stack(flow)[:, 4:20, 8:120, 29:141].astype(np.float32) - 128  # (2, T, h, w), the second clip
    network = checkpoints.load(card, weights).backbone
    with torch.inference_mode():
        expected = network(torch.from_numpy(clip)[None], ["pool5"])["pool5"].flatten().numpy()
    assert results["v"].num_frames == 20 and np.abs(expected).max() > 0
    assert np.allclose(results["v"].clips["pool5"][1], expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert isinstance(results["rgb"], Failure) and "this checkpoint takes optical flow" in results["rgb"].reason
    assert isinstance(results["a"], Failure) and "a video file, but" in results["a"].reason
    assert featx.extract(root / "v").num_frames == 21  # the frames beside the flow
    with pytest.raises(VideoError, match="holds optical flow .* but this checkpoint takes frames"):
        featx.extract(root / "only")


@pytest.mark.parametrize("prefix", ["flow_x_", "flowy_", "x_", "v1_flow_Y", "clip-y"])
def test_half_an_optical_flow_is_no_video(tmp_path, prefix):
    for i in (1, 2):
        (tmp_path / f"{prefix}{i:05}.jpg").touch()
    with pytest.raises(VideoError, match="one half of an optical flow only"):
        read_frame_folder(tmp_path)


@pytest.mark.parametrize("prefix", ["", "img_", "flower_", "overflow", "box", "body_", "frame-"])
def test_other_prefixes_are_frames(tmp_path, prefix):
    for i in (1, 2):
        (tmp_path / f"{prefix}{i:05}.jpg").touch()
    assert len(read_frame_folder(tmp_path).frames) == 2
