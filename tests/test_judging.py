"""How the embedded checkpoint is judged: baselines, folds that keep groups together, learning from few groups."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))

import baselines  # noqa: E402
import judge_mini  # noqa: E402
import mini_net  # noqa: E402
from local_descriptors import NUM_DESCRIPTORS, local_descriptors  # noqa: E402
from render_actions import write_video  # noqa: E402

from featx import matrices  # noqa: E402
from featx.clips import Sampling  # noqa: E402
from featx.store import open_features  # noqa: E402
from featx.video import read_frames  # noqa: E402


def test_a_histogram_is_the_counted_colours(tmp_path):
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[:, :16] = 255  # half black, half white
    write_video(tmp_path / "clip.mp4", frames, crf=1)
    histogram = baselines.colour_histogram(tmp_path / "clip.mp4")
    assert histogram[0] == pytest.approx(np.sqrt(0.5), abs=0.02)
    assert histogram[-1] == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_differences_tell_where_something_changes(tmp_path):
    frames = np.zeros((4, 128, 128, 3), np.uint8)
    frames[1::2, :64, :64] = 100
    write_video(tmp_path / "clip.mp4", frames, crf=1)
    found = baselines.frame_differences(tmp_path / "clip.mp4").reshape(8, 8)
    assert np.allclose(found[:4, :4], 100, atol=5) and np.allclose(found[5:, 5:], 0, atol=2)


@pytest.mark.long
def test_random_weights_are_equalised_over_clips_that_set_no_statistics():
    one = baselines.random_network(1, num_clips=6).state_dict()
    torch.manual_seed(1)
    assert torch.equal(one["conv1.weight"], mini_net.new_net().conv1.weight)
    assert not torch.equal(one["bn_conv1.running_mean"], torch.zeros(32))
    assert one["res5b.bn_branch2b.weight"].std() > 0.05  # a new network's are all 1


def test_cells_are_averaged_and_short_videos_repeat(tmp_path):
    frames = np.full((5, 48, 64, 3), 255, np.uint8)
    write_video(tmp_path / "clip.mp4", frames, crf=1)
    found = baselines.cells(tmp_path / "clip.mp4")
    assert found.shape == (NUM_DESCRIPTORS,) and found[63] == pytest.approx(1, abs=0.03)  # white


def test_cells_are_of_the_clips_that_the_network_sees(tmp_path):
    """Squares that jump: clip 2 of 3, and the last frame that stays where a short video is completed."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (13, 7, 7, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    for num, sampling, clips in (
        (13, Sampling(8, stride=2, frame_step=1), [range(8), range(2, 10), range(4, 12)]),
        (6, Sampling(8, frame_step=1, short="pad"), [[0, 1, 2, 3, 4, 5, 5, 5]]),
    ):
        write_video(tmp_path / "clip.mp4", frames[:num], crf=1)
        pixels = torch.from_numpy(np.stack([frame.pixels for frame in read_frames(tmp_path / "clip.mp4")])).float()
        own = [local_descriptors(pixels[list(clip)].permute(3, 0, 1, 2)[None] / 255).mean((0, 2, 3)) for clip in clips]
        assert np.allclose(
            baselines.cells(tmp_path / "clip.mp4", sampling), torch.stack(own).mean(0).numpy(), atol=1e-5
        )


def test_neighbours_stay_together():
    keys = [f"a/a_{i}" for i in range(1, 12)] + [f"b/b_{i}" for i in range(1, 6)]
    folds = judge_mini.neighbours_folds(keys, 5)
    assert [folds[f"a/a_{i}"] for i in range(1, 12)] == [1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # a_10 is after a_9
    assert [folds[f"b/b_{i}"] for i in range(1, 6)] == [1, 2, 3, 4, 5]


def test_groups_stay_together():
    keys = [f"A/v_A_g{g:02d}_c{c:02d}" for g in (1, 2, 5, 9) for c in (1, 2)]
    assert list(judge_mini.group_folds(keys, 3).values()) == [1, 1, 2, 2, 3, 3, 1, 1]


def test_few_groups_are_learnt_from_and_the_others_judge(tmp_path):
    """Groups that lie apart, but on their class's side: right from any; noise: a coin."""
    random = np.random.default_rng(0)
    keys = [f"{label}/v_g{g:02d}_c{c:02d}" for label in "AB" for g in range(12) for c in (1, 2)]
    sides = np.repeat([[1.0], [-1.0]], 24, 0) * [3, 0] + [0, 1] * random.normal(size=(48, 2))
    for name, rows, low, high in (("sides", sides, 100, 100), ("noise", random.normal(size=(48, 2)), 35, 65)):
        matrices.write_matrix(tmp_path / f"{name}.h5", keys, rows.astype(np.float32), name=name, layer="x")
        assert low <= judge_mini.from_groups(tmp_path / f"{name}.h5", set(keys), 1, draws=20) <= high


def test_a_baseline_is_a_feature_file(tmp_path):
    for label, value in (("Dark", 20), ("Light", 230)):
        (tmp_path / "videos" / label).mkdir(parents=True)
        write_video(tmp_path / "videos" / label / "v_g01_c01.mp4", np.full((4, 32, 32, 3), value, np.uint8))
    baselines.write_baseline("histogram", tmp_path / "videos", tmp_path / "h.h5")
    with open_features(tmp_path / "h.h5") as features:
        assert list(features.keys) == ["Dark/v_g01_c01", "Light/v_g01_c01"]
        rows = np.asarray(features.descriptors("histogram"))
    assert rows.shape == (2, 512) and np.allclose(np.linalg.norm(rows, axis=1), 1) and rows[0] @ rows[1] < 0.1
