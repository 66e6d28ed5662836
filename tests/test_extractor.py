"""extractor.py against the readable list form: decode with OpenCV, plan the clips, run them one by one."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
import torch
from conftest import write_noise_video, write_video

import featx
from featx import checkpoints
from featx.catalog import get_checkpoint
from featx.clips import Sampling, plan_clips
from featx.engine import Engine
from featx.errors import CheckpointError, UnknownNameError, UsageError, VideoError
from featx.extractor import Extractor
from featx.features import Failure
from featx.plan import plan_videos
from featx.preprocess import Preprocess
from featx.video import read_frames


@cache
def embedded_net():
    return checkpoints.load(get_checkpoint("res3d-mini")).backbone


def slowly(path, sampling, layer, fps=None):
    """Clip features (M, D) in plain steps, with OpenCV's resize."""
    card = get_checkpoint("res3d-mini")
    net = embedded_net()
    height, width = card.preprocess.resize
    y, x = card.preprocess.crop_offset or ((height - 112) // 2, (width - 112) // 2)
    mean, std = np.array(card.preprocess.mean), np.array(card.preprocess.std)
    frames = [cv2.resize(f.pixels, (width, height), interpolation=cv2.INTER_LINEAR) for f in read_frames(path, fps)]
    rows = []
    for clip in plan_clips(len(frames), sampling):
        pixels = np.stack([frames[i][y : y + 112, x : x + 112] for i in clip.frames])
        if card.preprocess.channel_order == "rgb":
            pixels = pixels[..., ::-1]
        values = ((pixels * card.preprocess.scale - mean) / std).transpose(3, 0, 1, 2)  # (T, h, w, 3) -> (3, T, h, w)
        with torch.inference_mode():
            rows.append(net(torch.from_numpy(values.astype(np.float32))[None], [layer])[layer].flatten().numpy())
    return np.stack(rows)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("num_frames", "options", "sampling"),
    [
        (31, {}, Sampling(8, 8, 2)),
        pytest.param(5, {}, Sampling(8, 8, 2), marks=pytest.mark.long),
        (5, {"short": "pad"}, Sampling(8, 8, 2, short="pad")),
        (29, {"tail": "pad"}, Sampling(8, 8, 2, tail="pad")),
        pytest.param(40, {"num_clips": 3}, Sampling(8, 8, 2, 3), marks=pytest.mark.long),
        pytest.param(24, {"stride": 5, "frame_step": 1}, Sampling(8, 5, 1), marks=pytest.mark.long),
        (40, {"fps": 12.5}, Sampling(8, 8, 2, fps=12.5)),
    ],
)
def test_clip_features_equal_the_slow_form(tmp_path, num_frames, options, sampling):
    path = write_noise_video(tmp_path / "a.mp4", num_frames, size=(96, 128))
    features = featx.extract(path, layers=["pool5", "res5b"], save="both", **options)
    for layer in ("pool5", "res5b"):
        expected = slowly(path, sampling, layer, options.get("fps"))
        assert features.clips[layer].shape == expected.shape
        # the resize may differ from OpenCV's by one grey level
        assert min(cosine(a, b) for a, b in zip(features.clips[layer], expected, strict=True)) > 0.9999
        mean = features.clips[layer].astype(np.float64).mean(0)
        assert np.allclose(features.descriptors[layer], mean / np.linalg.norm(mean), atol=1e-6)
    clips = plan_clips(features.num_frames, sampling)
    assert features.clip_table.start_frame.tolist() == [clip.start_frame for clip in clips]
    assert features.clip_table.end_frame.tolist() == [clip.end_frame for clip in clips]
    fps = options.get("fps", 25)
    assert features.clip_table.start_seconds == pytest.approx([clip.start_frame / fps for clip in clips])
    assert features.clip_table.end_seconds == pytest.approx([clip.end_frame / fps for clip in clips])
    assert features.duration_seconds == pytest.approx(num_frames / 25)


def test_numbers_depend_neither_on_neighbours_nor_on_order(clips_folder):
    items = plan_videos([clips_folder])
    with Extractor(batch_size=3, save="both") as extractor:
        together = {f.key: f for f in extractor.extract_many(items)}
        backwards = {f.key: f for f in extractor.extract_many(items[::-1])}
        alone = {item.key: extractor.extract(item.path) for item in items}
    assert set(together) == {"cat/000", "dog/000", "dog/001"}
    for key, features in together.items():
        for other in (backwards[key], alone[key]):
            assert np.array_equal(features.descriptors["pool5"], other.descriptors["pool5"])
            assert np.array_equal(features.clips["pool5"], other.clips["pool5"])


def test_clips_share_batches_and_a_frame_is_resized_once(clips_folder, monkeypatch):
    batches, resized = [], []
    submit, resize = Engine.submit, Preprocess.prepare_frames
    monkeypatch.setattr(Engine, "submit", lambda self, clips, ready: batches.append(len(clips)) or submit(self, clips))
    monkeypatch.setattr(Preprocess, "prepare_frames", lambda self, f, r: resized.append(len(f)) or resize(self, f, r))
    with Extractor(batch_size=4, stride=2) as extractor:
        results = list(extractor.extract_many(plan_videos([clips_folder])))
    num_clips = sum(features.num_clips for features in results)
    assert num_clips == 13 + 5 + 1
    assert batches == [4, 4, 4, 4, 3]
    assert sum(resized) == 40 + 23 + 7


def test_a_bad_video_leaves_the_others_unharmed(clips_folder, tmp_path):
    write_noise_video(tmp_path / "good.mp4", 20)
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with Extractor() as extractor:
        results = {r.key: r for r in extractor.extract_many(plan_videos([tmp_path]))}
        assert isinstance(results["bad"], Failure) and "not a video" in results["bad"].reason
        alone = extractor.extract(tmp_path / "good.mp4")
        with pytest.raises(VideoError, match="bad.mp4: cannot be opened"):
            extractor.extract(tmp_path / "bad.mp4")
    assert np.array_equal(results["good"].descriptors["pool5"], alone.descriptors["pool5"])


def test_leaving_early_and_starting_again(clips_folder):
    items = plan_videos([clips_folder])
    with Extractor() as extractor:
        first = next(iter(extractor.extract_many(items)))
        again = {f.key: f for f in extractor.extract_many(items)}
    assert np.array_equal(first.descriptors["pool5"], again[first.key].descriptors["pool5"])
    assert len(again) == 3


def test_one_extractor_extracts_one_set_at_a_time(clips_folder):
    with Extractor() as extractor:
        results = extractor.extract_many(plan_videos([clips_folder]))
        first = next(results)
        with pytest.raises(UsageError, match="is extracting already"):
            extractor.extract(clips_folder / "dog/001.avi")
        assert {first.key} | {f.key for f in results} == {"cat/000", "dog/000", "dog/001"}


def test_layers_keep_one_order_and_one_may_be_a_string(clips_folder):
    assert Extractor(layers=["prob", "pool5"]).layers == Extractor(layers=["pool5", "prob"]).layers == ("pool5", "prob")
    assert Extractor(layers="prob").layers == ("prob",)


def test_modules_beside_the_user_are_not_imported(clips_folder, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    assert featx.extract(clips_folder / "dog/001.avi").num_clips == 1


def test_short_videos_may_be_skipped(tmp_path):
    write_video(tmp_path / "short.mp4", 14)
    with pytest.raises(VideoError, match="short: 14 frames, but one clip spans 15"):
        featx.extract(tmp_path / "short.mp4", short="skip")


def test_float16_clips_and_what_is_kept(clips_folder):
    path = clips_folder / "dog/000.mp4"
    full, half = featx.extract(path, save="both"), featx.extract(path, save="clips", dtype="float16")
    assert half.clips["pool5"].dtype == np.float16 and not half.descriptors
    assert np.array_equal(half.clips["pool5"], full.clips["pool5"].astype(np.float16))
    assert featx.extract(path).clips == {}


def test_many_clips_go_to_disk_and_come_back(clips_folder, monkeypatch):
    from featx import clip_rows

    path = clips_folder / "dog/000.mp4"
    in_memory = featx.extract(path, save="both").clips["pool5"]
    monkeypatch.setattr(clip_rows, "MEMORY_BYTES", 1000)
    on_disk = featx.extract(path, save="both").clips["pool5"]
    assert isinstance(on_disk, np.memmap) and np.array_equal(on_disk, in_memory)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone": "res3d-mimi"}, UnknownNameError, "did you mean 'res3d-mini'"),
        ({"backbone": "c3d"}, UsageError, "c3d-sports1m"),
        ({"backbone": "c3d-sports1m"}, CheckpointError, "--weights"),
        ({"layers": ["pool6"]}, UnknownNameError, "unknown layer of res3d-mini: 'pool6'; did you mean 'pool5'"),
        ({"device": "cuda:99"}, UsageError, "'cuda:99' was asked for"),
        ({"device": "gpu"}, UsageError, "unknown device 'gpu'"),
        ({"batch_size": 0}, UsageError, "batch_size is 0"),
        ({"stride": 0}, UsageError, "stride is 0"),
        ({"length": "16"}, UsageError, "length is '16'"),
        ({"fps": "25"}, UsageError, "fps is '25'"),
        ({"num_clips": 3, "stride": 8}, UsageError, "both num_clips 3 and stride 8"),
        ({"save": "all"}, UsageError, "save is 'all'"),
        ({"variant": "port"}, UsageError, "has no variants"),
        ({"weights": "absent.pt"}, CheckpointError, "absent.pt"),
    ],
)
def test_wrong_requests(options, error, message):
    with pytest.raises(error, match=message):
        Extractor(**options)


@pytest.fixture
def overflowing(monkeypatch):
    """An engine whose third clip gives a number that is none; the list's first word is its precision."""
    precision, num_clips, submit = ["fp32"], [0], Engine.submit

    def broken(self, clips, ready):
        done = submit(self, clips, ready)
        for row in range(len(clips)):
            num_clips[0] += 1
            if num_clips[0] == 3:
                done.result()["res5b"][row, 7] = wrong[0]
        return done

    wrong = [np.inf]
    monkeypatch.setattr(Engine, "submit", broken)
    monkeypatch.setattr(Engine, "precision", property(lambda self: precision[0]))
    return precision, wrong


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_video_whose_activations_are_not_finite_fails_alone(clips_folder, overflowing, precision, wrong, batch_size):
    overflowing[0][0], overflowing[1][0] = precision, wrong
    with Extractor(layers=["res5b"], batch_size=batch_size, device="cpu", num_decoders=1) as extractor:
        found = {result.key: result for result in extractor.extract_many(plan_videos([clips_folder]))}
    failure = found.pop("dog/000")  # after the two clips of cat/000
    reason = "clip 0 gives values that are not finite in res5b"
    remedy = ", which fp16 may not hold; take --precision bf16 or fp32 in another output"
    assert isinstance(failure, Failure) and failure.reason == reason + remedy * (precision == "fp16")
    assert len(found) == 2 and all(np.isfinite(f.descriptors["res5b"]).all() for f in found.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu(clips_folder):
    path = clips_folder / "dog/000.mp4"
    cpu, gpu = (featx.extract(path, device=device, precision="fp32").descriptors["pool5"] for device in ("cpu", "cuda"))
    assert 1 - cosine(cpu, gpu) < 1e-6
