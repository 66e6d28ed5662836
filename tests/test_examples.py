"""The renderer, the example videos and the benchmark in examples/."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_weights import SMALL, small_card

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))

import action_programs  # noqa: E402
import benchmark  # noqa: E402
import benchmark_inputs  # noqa: E402
import benchmark_plans  # noqa: E402
import make_descriptors  # noqa: E402
import pictures  # noqa: E402
import render_actions  # noqa: E402

from featx import checkpoints  # noqa: E402
from featx.engine import unavailable  # noqa: E402
from featx.evaluation import ucf101  # noqa: E402
from featx.evaluation.protocol import Request  # noqa: E402
from featx.store import open_features  # noqa: E402
from featx.video import read_frames  # noqa: E402

PARTNERS = [
    ("WalkForward", "WalkBackward"),
    ("ArmCirclesOut", "ArmCirclesIn"),
    ("Crouch", "Rise"),
    ("Punch", "Pull"),
    ("PedalForward", "PedalBackward"),
    ("CartwheelRight", "CartwheelLeft"),
    ("Wave", "SlowWave"),
]


def render(action: str = "Punch", clip_seed: int = 2, **options) -> render_actions.Clip:
    return render_actions.render_clip(action, (0, 1), (0, clip_seed), np.arange(0, 8, 2), 12, 48, 64, **options)


def test_a_clip_depends_on_its_seeds_only():
    clip, again, other = render(), render(), render(clip_seed=3)
    assert clip.frames.shape == (4, 48, 64, 3) and clip.frames.dtype == np.uint8
    assert np.array_equal(clip.frames, again.frames)
    assert not np.array_equal(clip.frames, other.frames)
    assert clip.texture == other.texture  # the group's


@pytest.mark.parametrize("action", action_programs.ACTIONS)
def test_the_figure_moves_and_its_limbs_keep_their_length(action):
    program = action_programs.ACTIONS[action]
    person = render_actions.draw_person(np.random.default_rng(0))
    phases = np.linspace(0, 1, 9)[:-1]
    joints = render_actions.skeleton(person, program.pose(phases), len(phases), program.frontal)
    for side in ("near", "far"):
        forearm = joints[f"{side}_hand"] - joints[f"{side}_elbow"]
        shin = joints[f"{side}_foot"] - joints[f"{side}_knee"]
        assert np.allclose(np.linalg.norm(forearm, axis=1), person.arm / 2)
        assert np.allclose(np.linalg.norm(shin, axis=1), person.leg / 2)
    assert max(np.ptp(point, axis=0).max() for point in joints.values()) > 0.15


def test_every_class_has_a_partner():
    assert sorted(name for pair in PARTNERS for name in pair) == sorted(action_programs.ACTIONS)


@pytest.mark.parametrize(("first", "second"), PARTNERS)
def test_partners_show_the_same_poses(first, second):
    """A single frame cannot tell them apart: same program, and over many videos the same share of every phase."""
    one, other = action_programs.ACTIONS[first], action_programs.ACTIONS[second]
    assert (one.pose, one.frontal, one.travel, one.cyclic) == (other.pose, other.frontal, other.travel, other.cyclic)
    assert one.reverse != other.reverse or one.period[1] < other.period[0] or other.period[1] < one.period[0]

    def phases(action: action_programs.Action) -> np.ndarray:
        rng = np.random.default_rng(0)
        drawn = [action_programs.draw_motion(action, np.arange(24), 24, rng)[0] for _ in range(2000)]
        drawn = np.concatenate(drawn)
        return drawn % 1.0 if action.cyclic else drawn

    bins = np.linspace(0, 1, 11)
    shares = [np.histogram(phases(action), bins)[0] / 48000 for action in (one, other)]
    assert np.allclose(*shares, atol=0.05)  # one frame of 24: a run-once program stands still a frame longer first


def test_the_example_videos_are_the_listed_ones():
    names = {path.relative_to(EXAMPLES / "videos").as_posix() for path in (EXAMPLES / "videos").rglob("*.mp4")}
    classes = [line.split() for line in (EXAMPLES / "splits" / "classInd.txt").read_text().splitlines()]
    numbers = {name: int(number) for number, name in classes}
    assert len(numbers) >= 8 and {name.split("/")[0] for name in names} == set(numbers)
    data = (path for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    assert sum(path.stat().st_size for path in data) < 1_200_000
    assert all(path.stat().st_size < 300_000 for path in (EXAMPLES / "pictures").iterdir())
    for number in ("01", "02", "03"):
        train = (EXAMPLES / "splits" / f"trainlist{number}.txt").read_text().splitlines()
        test = (EXAMPLES / "splits" / f"testlist{number}.txt").read_text().splitlines()
        labels = {line.split()[0]: int(line.split()[1]) for line in train}
        assert labels == {name: numbers[name.split("/")[0]] for name in labels}
        assert sorted([*labels, *test]) == sorted(names)
        groups = [{re.search(r"_(g\d\d)_", name)[1] for name in side} for side in (labels, test)]
        assert groups[0] and groups[1] and not groups[0] & groups[1]


def test_a_written_video_comes_back(tmp_path):
    clip = render()
    render_actions.write_video(tmp_path / "clip.mp4", clip.frames, crf=10)
    back = np.stack([frame.pixels[..., ::-1] for frame in read_frames(tmp_path / "clip.mp4")])
    assert back.shape == clip.frames.shape
    assert np.abs(back.astype(int) - clip.frames).mean() < 12


@pytest.mark.long
def test_the_benchmark_runs_and_says_what_it_leaves_out(capsys):
    assert benchmark.main(["--quick"]) == 0
    said = capsys.readouterr().out
    expected = [name for name in benchmark_plans.PLANS if name != "torch.compile, freezing"]
    rows = dict(re.findall(r"^  (\S.*?)  +([\d.]+)  \( *[\d.]+ +[\d.]+\)", said, re.MULTILINE))
    left_out = re.findall(r"^  (.*) is left out: .", said, re.MULTILINE)
    assert sorted([*rows, *left_out]) == sorted(expected) and all(float(rate) > 0 for rate in rows.values())
    assert {"torch eager", "torch folded, channels last", "torch.jit freeze"} <= rows.keys()
    assert ("featx winograd" in rows) == (not unavailable("winograd"))
    assert (
        "decode to BGR" in said
        and "end to end" in said
        and "where the time went: decode " in said
        and said.count("multiply-adds") >= 2
    )


@pytest.mark.long
def test_the_benchmark_of_a_device_runs_on_the_cpu_too(capsys):
    assert benchmark.main(["--quick", "--only", "ceilings", "--only", "precisions", "--only", "files"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"ceilings: fp32 matrix products +[\d.,]+ TFLOP/s", said)
    rows = re.findall(
        r"^  fp32 .* ([\d.,]+) clips/s .* ([\d.]+)% of the fp32 matrix rate, at least [\d.]+% of the copy rate",
        said,
        re.MULTILINE,
    )
    assert len(rows) == 1 and all(float(number.replace(",", "")) > 0 for number in rows[0])
    ends = re.findall(r"^  (\S+) 320x240: 4 videos, (\d+) clips in .* clips/s", said, re.MULTILINE)
    assert ends == [("MPEG-4", "12")] and said.count("of the smaller (") == 1


@pytest.mark.long
def test_the_forward_pass_of_a_device_is_measured_without_pyav(capsys, monkeypatch):
    def none(name, *args):
        return None if name == "av" else find_spec(name, *args)

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", none)
    assert benchmark.main(["--quick", "--only", "files"]) == 0
    assert "the files are left out: PyAV is not installed" in capsys.readouterr().out
    program = "import sys; sys.modules['av'] = None; import benchmark; print('without')"
    run = subprocess.run([sys.executable, "-c", program], cwd=EXAMPLES, capture_output=True, text=True, check=True)
    assert run.stdout == "without\n"


@pytest.mark.long
def test_the_benchmark_of_estimates_runs(capsys):
    assert benchmark.main(["--quick", "--only", "estimate"]) == 0
    out = capsys.readouterr().out
    assert "clips 12 / 12 = 1.000" in out and "sample: 3 of 6 videos" in out and "of 1 rounds" in out


@pytest.mark.long
def test_the_benchmark_of_workers_runs(capsys):
    assert benchmark.main(["--quick", "--only", "workers"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"  2 workers +[\d.]+ videos/s +[\d.]+% of linear", said) and "µs of processor time" in said


@pytest.mark.long
def test_the_benchmark_of_folders_runs(capsys):
    assert benchmark.main(["--quick", "--only", "folders"]) == 0
    said = capsys.readouterr().out
    assert "70 files of 3 videos" in said and re.search(r"open, known +[\d.]+ +[\d.]+ +[\d.]+\n", said)


@pytest.mark.parametrize("name", SMALL)
def test_made_up_weights_keep_numbers_of_a_size(name, tmp_path):
    card = small_card(name)
    shape = (2, card.sampling.length, card.preprocess.crop, card.preprocess.crop, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = benchmark_inputs.made_up_weights(card, clips, tmp_path)
    backbone = checkpoints.load(card, path).backbone
    checkpoints.require_input_scale(card, backbone, path)
    with torch.inference_mode():
        pool5 = backbone(card.preprocess.normalise(clips).contiguous(), ["pool5"])["pool5"]
    assert 1e-3 < float(pool5.abs().max()) < 1e4


@pytest.mark.long
def test_the_example_pictures_are_made_by_their_program(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install 'featx[plots]'")
    monkeypatch.setattr(sys, "argv", ["pictures.py", str(tmp_path), "--curve-dims", "5", "10"])
    pictures.main()
    made = {path.name for path in tmp_path.glob("*.png")}
    committed = {path.name for path in (EXAMPLES / "pictures").iterdir()}
    assert committed < made == {f"{name}.png" for name in ("overview", "curves", "confusion", "roc", "tsne", "filters")}
    pairs = [line.split(",") for line in (tmp_path / "pairs.csv").read_text().splitlines()[1:]]
    videos_of = {fold: {key for a, b, _, own in pairs if own == fold for key in (a, b)} for *_, fold in pairs}
    assert sum(map(len, videos_of.values())) == len(set().union(*videos_of.values()))  # no video is in two folds
    assert all((a.split("/")[0] == b.split("/")[0]) == (same == "1") for a, b, same, _ in pairs)


@pytest.mark.long
def test_synthetic_descriptors_have_ucf101s_sizes_and_splits(tmp_path, monkeypatch):
    """At full size but for the dimensions; svm-eval checks the lists' counts and groups."""
    monkeypatch.setattr(sys, "argv", ["make_descriptors.py", str(tmp_path), "--dims", "24"])
    make_descriptors.main()
    protocol = ucf101.load(Request((), tmp_path))
    with open_features(tmp_path / "descriptors.h5") as features:
        assert len(features) == 13_320 and features.num_dims("fc6") == 24
        listed = {name.removesuffix(".avi") for name, _ in (*protocol.splits[0].train, *protocol.splits[0].test)}
        assert listed == set(features.keys)
        rows = features.descriptors("fc6")
        assert (rows >= 0).all() and 0.5 < (rows == 0).mean() < 0.85  # sparse
    counts = make_descriptors.draw_counts(np.random.default_rng(0))
    assert counts.min() >= 4 and counts.max() <= 7
    again = (make_descriptors.make_descriptors(counts[:2], 8, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(*again)
