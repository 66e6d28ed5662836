"""classification.py and `featx classify`: the layer prob by name, for a video and for its clips."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.catalog import WEIGHTS_FOLDER, get_checkpoint
from featx.classification import Classified, Guess, _best
from featx.cli import main
from featx.errors import UsageError
from featx.features import Failure
from featx.plan import plan_videos

VIDEOS = Path(__file__).parents[1] / "examples/videos"
MINI = get_checkpoint("res3d-mini")


def run(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main(["classify", *map(str, args)])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err


def by_hand(scores, top):
    """The best classes of (classes,) scores, best first."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:top]
    return [(i, MINI.labels[i]) for i in order], [scores[i] for i in order]


@pytest.fixture(scope="module")
def results(clips_folder):
    """More classes than there are, of every video and clip."""
    return featx.classify(clips_folder, top=100, each_clip=True, stride=4)


@pytest.fixture(scope="module")
def examples():
    """The best two classes of one video of each of five classes, and of its clips."""
    names = ["Wave", "Crouch", "CartwheelLeft", "WalkForward", "ArmCirclesIn"]
    found = featx.classify([VIDEOS / name / f"v_{name}_g01_c01.mp4" for name in names], top=2, each_clip=True)
    return {result.key.split("_")[1]: result for result in found}


def test_scores_are_the_mean_of_the_clips_softmax(results, clips_folder):
    with featx.Extractor(layers="prob", save="clips", stride=4) as extractor:
        extracted = {features.key: features for features in extractor.extract_many(plan_videos(clips_folder))}
    assert [result.key for result in results] == ["cat/000", "dog/000", "dog/001"]
    for result in results:
        features = extracted[result.key]
        prob, table = features.clips["prob"], features.clip_table
        assert np.allclose(prob.sum(axis=1), 1, atol=1e-6)  # softmax, not scaled to unit length
        names, scores = by_hand(prob.astype(np.float64).mean(axis=0), 14)
        assert [(guess.number, guess.label) for guess in result.guesses] == names
        assert [guess.score for guess in result.guesses] == pytest.approx(scores, abs=1e-7)
        assert (result.num_frames, result.num_clips) == (features.num_frames, features.num_clips)
        assert len(result.clips) == len(prob)
        for i, clip in enumerate(result.clips):
            names, scores = by_hand(prob[i], 14)
            assert [(guess.number, guess.label) for guess in clip.guesses] == names
            assert [guess.score for guess in clip.guesses] == pytest.approx(scores)
            assert (clip.start_frame, clip.end_frame) == (table.start_frame[i], table.end_frame[i])
            assert (clip.start_seconds, clip.end_seconds) == (table.start_seconds[i], table.end_seconds[i])


def test_the_command_equals_the_api(capsys, clips_folder):
    folder = clips_folder / "dog"
    code, out, err = run(capsys, folder, "--json", "--each-clip", "--clips", 2)
    told = json.loads(out)
    assert code == 0 and err.startswith("backbone res3d-mini")
    assert (told["backbone"], told["variant"], told["failures"]) == ("res3d-mini", "", [])
    results = featx.classify([folder], each_clip=True, num_clips=2)
    assert [video["key"] for video in told["videos"]] == [result.key for result in results]
    for video, result in zip(told["videos"], results, strict=True):
        assert [Guess(**guess) for guess in video["guesses"]] == list(result.guesses)
        assert len(video["guesses"]) == 5 and len(video["clips"]) == result.num_clips
        for clip, guessed in zip(video["clips"], result.clips, strict=True):
            assert [Guess(**guess) for guess in clip["guesses"]] == list(guessed.guesses)
            assert (clip["start_frame"], clip["end_seconds"]) == (guessed.start_frame, guessed.end_seconds)


def test_the_embedded_weights_know_their_classes(examples):
    right = sum(result.guesses[0].label == name for name, result in examples.items())
    assert right >= 4  # of five; there are 14 classes, which were learned from other renderings


def test_text_is_a_line_a_class(capsys, examples):
    code, out, _ = run(capsys, VIDEOS / "Wave/v_Wave_g01_c01.mp4", "--top", 2, "--each-clip")
    result = examples["Wave"]
    lines = out.splitlines()
    assert code == 0 and lines[0] == "v_Wave_g01_c01  (24 frames, 2 clips)"
    assert lines[1:3] == [f"  {guess.score:.3f}  {guess.label}" for guess in result.guesses]
    assert lines[3].startswith("  frames 0-14, 0.00-1.00 s  0.") and lines[4].startswith(
        "  frames 8-22, 0.53-1.53 s  0."
    )
    assert lines[3].endswith(", ".join(f"{guess.score:.3f} {guess.label}" for guess in result.clips[0].guesses))
    assert len(lines) == 5


def test_all_classes_when_more_are_asked_for(results):
    for result in results:
        assert sorted(guess.label for guess in result.guesses) == sorted(MINI.labels)
        assert sum(guess.score for guess in result.guesses) == pytest.approx(1)
        scores = [guess.score for guess in result.guesses]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("top", [1, 5, 60, 400])
def test_of_equal_scores_the_lower_number_comes_first(top):
    scores = np.random.default_rng(0).choice(np.float32([0.0, 0.125, 0.25]), 300)
    in_order = [i for level in (0.25, 0.125, 0.0) for i in range(300) if scores[i] == level][:top]
    guesses = _best(scores, tuple(f"class {i}" for i in range(300)), top)
    assert guesses == tuple(Guess(i, f"class {i}", float(scores[i])) for i in in_order)


def test_a_video_that_fails_is_listed(capsys, clips_folder, tmp_path):
    shutil.copy(clips_folder / "dog/001.avi", tmp_path / "good.avi")
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    code, out, err = run(capsys, tmp_path, "--top", 1)
    assert code == 1 and out.startswith("good  (7 frames, 1 clip)\n") and len(out.splitlines()) == 2
    assert f"failed: bad ({tmp_path / 'bad.mp4'}): cannot be opened: not a video" in err
    bad, good = featx.classify(tmp_path)
    assert isinstance(bad, Failure) and isinstance(good, Classified)
    assert bad.key == "bad" and not good.clips


def test_a_card_without_labels(capsys, examples, tmp_path):
    video, named = VIDEOS / "Wave/v_Wave_g01_c01.mp4", examples["Wave"].guesses
    nameless = dataclasses.replace(MINI, labels=None)
    with pytest.raises(
        UsageError, match="res3d-mini has no labels for its 14 classes; take their numbers with --numbers"
    ):
        featx.classify(video, nameless)
    numbered = featx.classify(video, nameless, numbers=True, top=2)[0].guesses
    assert [(g.number, str(g.number), g.score) for g in named] == [tuple(g) for g in numbered]
    card = json.loads((WEIGHTS_FOLDER / "res3d-mini.json").read_text())
    for name in ("embedded", "sha256", "labels"):
        del card[name]
    (tmp_path / "mine.json").write_text(json.dumps(card | {"name": "res3d-mine"}))
    shutil.copy(WEIGHTS_FOLDER / "res3d-mini.safetensors", tmp_path)
    assert run(capsys, video, "--card", tmp_path / "mine.json")[0] == 2
    code, out, _ = run(capsys, video, "--card", tmp_path / "mine.json", "--numbers", "--top", 1)
    assert code == 0 and out.splitlines()[1] == f"  {named[0].score:.3f}  {named[0].number}"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "name video files or folders, or a list with --list"),
        (["absent.mp4"], "no such file or folder: absent.mp4"),
        (["{clips}", "--top", "0"], "top is 0, but must be at least 1 class"),
        (
            ["{clips}", "--backbone", "resnet34-kinetics", "--weights", "{clips}/notes.txt"],
            "which is no form of weights",
        ),
        (["{clips}", "--backbone", "r3d50-kms"], "r3d50-kms has no labels"),
        (["{clips}", "--clips", "3", "--stride", "2"], "both num_clips 3 and stride 2"),
    ],
)
def test_mistakes_cost_one_line(capsys, clips_folder, args, words):
    code, out, err = run(capsys, *(arg.format(clips=clips_folder) for arg in args))
    assert (code, out) == (2, "") and words in err.splitlines()[-1] and "Traceback" not in err


def test_a_card_without_prob(clips_folder):
    layers = {name: dims for name, dims in MINI.layers.items() if name != "prob"}
    with pytest.raises(UsageError, match="res3d-mini offers no layer prob"):
        featx.classify(clips_folder, dataclasses.replace(MINI, layers=layers))
