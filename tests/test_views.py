"""Crops and mirror images: where they lie, what they hold, and that their features are averaged before all else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from brightness import see_brightness
from conftest import write_noise_video
from test_cli import run as run_cli

import featx
from featx import checkpoints
from featx.catalog import get_checkpoint
from featx.clips import plan_clips
from featx.engine import Engine
from featx.errors import ProvenanceError, UsageError
from featx.extractor import Extractor
from featx.preprocess import Preprocess
from featx.resize import Window
from featx.video import read_frames
from featx.views import Views, place_crops


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_noise_video(tmp_path_factory.mktemp("views") / "a.mp4", 16, size=(96, 128))


# ------------------------------------------------------------------------------------------------------------- where they lie


def test_crops_by_hand():
    own = Window(8, 29, 112, 112)  # of 128 x 171
    assert place_crops(own, 128, 171, 1) == [own]
    assert [(w.top, w.left) for w in place_crops(own, 128, 171, 3)] == [(8, 0), (8, 29), (8, 59)]
    assert [(w.top, w.left) for w in place_crops(Window(29, 8, 112, 112), 171, 128, 3)] == [(0, 8), (29, 8), (59, 8)]
    assert [(w.top, w.left) for w in place_crops(Window(8, 8, 112, 112), 128, 128, 3)] == [(8, 0), (8, 8), (8, 16)]
    corners = [(w.top, w.left) for w in place_crops(own, 128, 171, 5)]
    assert corners == [(0, 0), (0, 59), (16, 0), (16, 59), (8, 29)]


@pytest.mark.parametrize("crops", [3, 5])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (32, 40)])
def test_crops_are_cut_from_the_frame_resized_once(crops, shape):
    preprocess = Preprocess(crop=24, resize=32)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, *shape, 3), np.uint8))
    whole = preprocess.resize_frames(frames).numpy()
    found = preprocess.prepare_crops(frames, crops)
    assert found.shape == (3, crops, 24, 24, 3) and found.is_contiguous()
    windows = preprocess.crop_windows(*whole.shape[1:3], crops)
    for i, (top, left, height, width) in enumerate(windows):
        assert np.array_equal(found[:, i], whole[:, top : top + height, left : left + width])


def test_mirror_images_follow_their_crops_and_flow_changes_its_sign():
    frames = np.arange(2 * 2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3, 3)  # (T, crops, h, w, 3)
    views = list(Views(3, flip=True).of_clip(np.concatenate([frames, frames[:, :1]], axis=1)))
    assert len(views) == Views(3, flip=True).num_views == 6
    assert np.array_equal(views[2], frames[:, 1]) and np.array_equal(views[3], frames[:, 1][:, :, ::-1])
    flow = np.zeros((1, 2, 2, 3), np.uint8)
    flow[0, :, 0] = (200, 60, 0)  # to the right and down, at the left edge
    first, second = Views(flip=True, is_flow=True).of_clip(flow)
    assert first is flow
    assert second[0, :, 1].tolist() == [[55, 60, 0]] * 2 and second[0, :, 0].tolist() == [[255, 0, 0]] * 2


def test_ten_are_five_and_their_mirror_images():
    assert Views(10) == Views(5, flip=True) and Views(10).num_views == 10
    assert Views().num_views == 1


# ------------------------------------------------------------------------------------------------------ what becomes of them


def slowly(path, crops, flip):
    """Clip features (M, D) of every view, averaged in plain steps."""
    card = get_checkpoint("res3d-mini")
    net, preprocess = checkpoints.load(card).backbone, card.preprocess
    pixels = np.stack([f.pixels for f in read_frames(path)])
    frames = preprocess.resize_frames(torch.from_numpy(pixels)).numpy()
    rows = []
    for clip in plan_clips(len(frames), card.sampling):
        views = []
        for top, left, h, w in preprocess.crop_windows(*frames.shape[1:3], crops):
            view = frames[list(clip.frames), top : top + h, left : left + w]
            views += [view, view[:, :, ::-1]] if flip else [view]
        batch = torch.from_numpy(np.ascontiguousarray(np.stack(views)))
        with torch.inference_mode():
            values = net(preprocess.normalise(batch).contiguous(), ["pool5"])["pool5"].flatten(1).numpy()
        rows.append(values.astype(np.float64).mean(0))
    return np.stack(rows)


@pytest.mark.parametrize(("crops", "flip"), [(1, True), (3, False)])
def test_clip_features_are_the_mean_of_their_views(video, crops, flip):
    views = Views(crops, flip)
    expected = slowly(video, views.crops, views.flip)
    found = featx.extract(video, save="both", crops=crops, flip=flip, aggregate="max", engine="torch")
    np.testing.assert_allclose(found.clips["pool5"], expected, atol=1e-4 * np.abs(expected).max())
    largest = found.clips["pool5"].max(0)
    np.testing.assert_allclose(found.descriptors["pool5"], largest / np.linalg.norm(largest), atol=1e-6)


def test_bits_do_not_depend_on_the_neighbours_and_frames_are_resized_once(clips_folder, monkeypatch):
    batches, resized = [], []
    submit, prepare = Engine.submit, Preprocess.prepare_crops
    monkeypatch.setattr(Engine, "submit", lambda self, clips, *_: batches.append(len(clips)) or submit(self, clips))
    monkeypatch.setattr(
        Preprocess, "prepare_crops", lambda self, f, n, r: resized.append(len(f)) or prepare(self, f, n, r)
    )
    with Extractor(crops=3, batch_size=4, save="both", engine="torch") as extractor:
        together = {f.key: f for f in extractor.extract_many(featx.plan.plan_videos([clips_folder]))}
        assert batches[:-1] == [4] * 5 and sum(batches) == 3 * (4 + 2 + 1) and sum(resized) == 40 + 23 + 7
        alone = extractor.extract(clips_folder / "cat/000.mkv")
    assert np.array_equal(together["cat/000"].clips["pool5"], alone.clips["pool5"])
    assert np.array_equal(together["cat/000"].descriptors["pool5"], alone.descriptors["pool5"])


def test_views_are_recorded_shown_and_refused_elsewhere(clips_folder, tmp_path, capsys, monkeypatch):
    see_brightness(monkeypatch)
    folder, output = clips_folder / "cat", tmp_path / "f.h5"
    featx.extract_to(folder, output, crops=10, engine="torch")
    code, out, _ = run_cli(capsys, "info", output)
    assert code == 0 and "crops              5" in out and "flip               1" in out
    assert (
        featx.extract_to(folder, output, crops=5, flip=True, engine="torch").num_present == 1
    )  # another word for the same
    with pytest.raises(ProvenanceError, match="crops is 5 in .*, 1 in this run; flip is 1 in .*, 0 in this run"):
        featx.extract_to(folder, output, engine="torch")


def test_refusals(tmp_path):
    card = get_checkpoint("res3d-mini")
    cube = np.zeros((3, 8, 128, 171), np.float32)
    with pytest.raises(UsageError, match="2 views of a clip .* mean cube of res3d-mini .*'--mean card'"):
        Extractor(replace(card, preprocess=replace(card.preprocess, mean_cube=cube)), flip=True)
    whole = replace(card, preprocess=replace(card.preprocess, resize=(112, 112), crop_offset=None))
    with pytest.raises(UsageError, match="3 crops .* res3d-mini crops nothing: .*112x112"):
        Extractor(whole, crops=3)
    for wrong in (0, 2, True, "3"):
        with pytest.raises(UsageError, match="must be one of 1, 3, 5, 10"):
            Views(wrong)
    with pytest.raises(UsageError, match="leave flip out"):
        Views(10, flip=True)


def test_classes_of_many_views(clips_folder):
    (one,) = featx.classify(clips_folder / "dog/001.avi", crops=3, top=14, engine="torch")
    assert sum(guess.score for guess in one.guesses) == pytest.approx(1, abs=1e-5)
