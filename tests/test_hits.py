"""`featx classify --eval`: label lists by hand, hits against a slow count over the clips' scores, random clips."""

import csv
import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import featx
from featx.catalog import get_checkpoint
from featx.classification import Classified, Guess, GuessedClip
from featx.cli import main
from featx.cli.classify import _tell_hits
from featx.clips import ClipWindow, Sampling, count_clips, plan_clips
from featx.errors import UnknownNameError, UsageError
from featx.evaluation.hits import count_hits, hits
from featx.evaluation.labels import read_labels
from featx.plan import plan_videos

VIDEOS = Path(__file__).parents[1] / "examples/videos"
LABELS = get_checkpoint("res3d-mini").labels
NAMES = ("archery", "playing guitar", "Yo Yo")


# ----------------------------------------------------------------------------------------------------------- label lists


def read(tmp_path, text, name="labels.txt", names=NAMES):
    (tmp_path / name).write_text(text)
    return read_labels(tmp_path / name, names, 3)


def test_lists_by_hand(tmp_path):
    text = "a.mp4 2\nb c/take 2.avi 0,2\nb c/d.avi 1 , 2\nplaying_guitar/x.mp4\nYo Yo/y\narchery/z.mp4 0\n"
    assert read(tmp_path, text) == {
        "a.mp4": {2},
        "b c/take 2.avi": {0, 2},
        "b c/d.avi": {1, 2},
        "playing_guitar/x.mp4": {1},
        "Yo Yo/y": {2},
        "archery/z.mp4": {0},
    }
    text = "label,key\nPlaying Guitar;2,a\narchery,b\nyo_yo,b\n0,archery/c\n"
    assert read(tmp_path, text, "labels.csv") == {"a": {1, 2}, "b": {0, 2}, "archery/c": {0}}
    assert read(tmp_path, "a.mp4 2\nb.mp4 0,1\n", names=None) == {"a.mp4": {2}, "b.mp4": {0, 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 3\n", "has the label 3, but classes are numbered from 0 to 2"),
        ("archery/a.mp4 1\n", "which is playing guitar, but lies in archery, number 0: classes are numbered from 0"),
        ("archer/a.mp4\n", "unknown class of 'archer/a.mp4' in .* 'archer'; did you mean 'archery'"),
        ("a.mp4\n", "unknown class of 'a.mp4'"),
        ("", "the list is empty"),
    ],
)
def test_lists_that_do_not_do(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_names_need_a_card_with_labels(tmp_path):
    with pytest.raises(UsageError, match="the card knows no names of classes; write numbers, from 0"):
        read(tmp_path, "archery/a.mp4\n", names=None)
    with pytest.raises(UnknownNameError, match="did you mean 'archery'"):
        read(tmp_path, "a,archry\n", "labels.csv")


# ------------------------------------------------------------------------------------------------------------------ hits


def video(key, best, clips):
    guesses = tuple(Guess(n, str(n), 0.1) for n in best)
    clips = tuple(GuessedClip(0, 8, 0, 1, (Guess(n, str(n), 0.1),)) for n in clips)
    return Classified(key, key, 8, len(clips), guesses, clips)


def test_hits_by_hand():
    """Two videos and five clips: 3 clips right; the first video right at once, the second with its fifth class."""
    results = [video("a", (4, 1, 2, 3, 0), (4, 4, 7)), video("b", (1, 2, 3, 4, 9), (9, 2))]
    truth = {"a": frozenset({4}), "b": frozenset({8, 9})}
    assert count_hits(results, truth) == pytest.approx((100 * 3 / 5, 50, 100))
    assert count_hits(results, {"a": frozenset({0, 7}), "b": frozenset({0})}) == pytest.approx((20, 0, 50))


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Four videos of two classes, those of one said to show two others, in a CSV file: (folder, list, key -> numbers)."""
    folder = tmp_path_factory.mktemp("listed")
    truth = {}
    for i, name in enumerate(("Wave", "Crouch")):
        for g in (1, 2):
            key = f"{name}/v_{name}_g0{g}_c01"
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(VIDEOS / f"{key}.mp4", folder / name)
            truth[key] = {LABELS.index(name)} if i else {LABELS.index("Crouch"), LABELS.index("WalkBackward")}
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([(k, ";".join(LABELS[n] for n in sorted(v))) for k, v in truth.items()])
    return folder, folder / "labels.csv", truth


def slowly(folder, truth, **options):
    """The three figures from the scores of every clip."""
    with featx.Extractor(layers="prob", save="clips", **options) as extractor:
        prob = {f.key: f.clips["prob"] for f in extractor.extract_many(plan_videos(folder))}
    clips = [row.argmax() in truth[key] for key in truth for row in prob[key]]
    order = {key: np.argsort(-prob[key].astype(np.float64).mean(axis=0)).tolist() for key in truth}
    firsts, fives = ([bool(set(order[key][:k]) & truth[key]) for key in truth] for k in (1, 5))
    return len(clips), *(100 * np.mean(hit) for hit in (clips, firsts, fives))


@pytest.fixture(scope="module")
def of_random_clips(listed):
    return hits(listed[0], listed[1], num_clips_random=4, clips_seed=5)


@pytest.mark.parametrize("options", [{}, {"num_clips_random": 4, "clips_seed": 5}], ids=str)
def test_hits_equal_a_count_over_the_scores(listed, of_random_clips, options):
    folder, labels, truth = listed
    result = of_random_clips if options else hits(folder, labels)
    expected = slowly(folder, truth, **options)
    found = (result.num_clips, result.clip_hit_1, result.video_hit_1, result.video_hit_5)
    assert found == pytest.approx(expected) and result.num_videos == 4
    assert 0 < result.video_hit_1 < 100  # waving is called crouching or walking backward


def test_the_command_equals_the_api(listed, of_random_clips, capsys):
    folder, labels, _ = listed
    with pytest.raises(SystemExit) as exit_:
        main(["classify", str(folder), "--eval", str(labels), "--random-clips", "4", "--seed", "5", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert exit_.value.code == 0 and told == json.loads(json.dumps(of_random_clips.as_dict()))
    assert told["clips"] == "4 random clips a video, seed 5"


def test_what_is_printed(of_random_clips, capsys):
    card = get_checkpoint("resnet18-kinetics")
    result = dataclasses.replace(of_random_clips, published=card.published, published_sources=card.published_source)
    own = {"prob:top-1": "top-1", "prob:top-5": "top-5"}
    figures = {own[name]: figure for name, figure in card.published["kinetics400"].items()}
    assert _tell_hits(dataclasses.replace(result, published={"kinetics400": figures}), False) == 0
    out = capsys.readouterr().out
    assert f"clip hit@1  {result.clip_hit_1:6.2f} %\n" in out
    assert f"video hit@1 {result.video_hit_1:6.2f} %   (published: 54.20 % on kinetics400)\n" in out
    assert "(published: 78.10 % on kinetics400)" in out and "published on kinetics400: Hara et al. 2018, table 2" in out


def test_videos_that_are_not_there_not_listed_or_broken(listed, tmp_path, capsys):
    folder, _, _ = listed
    (tmp_path / "Wave").mkdir()
    shutil.copy(folder / "Wave/v_Wave_g01_c01.mp4", tmp_path / "Wave/a.mp4")
    (tmp_path / "Wave/b.mp4").write_bytes(b"nothing")
    (tmp_path / "Wave/unlisted.mp4").write_bytes(b"nothing")
    labels = tmp_path / "labels.txt"
    labels.write_text("Wave/a.mp4\nWave/b.mp4\nWave/absent.mp4\n")
    with pytest.raises(
        UsageError, match="1 of 3 listed videos are not among the inputs: Wave/absent.mp4; name their folder"
    ):
        hits(tmp_path, labels)
    result = hits(tmp_path, labels, allow_missing=True)
    assert result.num_videos == 1 and [failure.key for failure in result.failures] == ["Wave/b"]
    assert "1 of 3 videos are not listed; left out" in result.notes and "absent" in result.notes[0]
    assert _tell_hits(result, False) == 1 and "failed: Wave/b" in capsys.readouterr().err
    (failure,) = result.failures
    forged = dataclasses.replace(result, failures=(dataclasses.replace(failure, key="a\nfailed: b"),))
    _tell_hits(forged, False)
    assert capsys.readouterr().err.count("\n") == 1
    labels.write_text("Wave/b.mp4\n")
    with pytest.raises(UsageError, match="none of 1 listed videos could be classified; Wave/b: "):
        hits(tmp_path, labels)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--each-clip"], "--eval counts hits"),
        (["--random-clips", "0"], "num_clips_random is 0"),
        (["--random-clips", "3", "--stride", "2"], "both 3 random clips and stride 2"),
        (["--random-clips", "3", "--clips", "2"], "2 evenly spread and 3 random clips"),
        (["--random-clips", "3", "--tail", "pad"], "random clips leave no tail"),
    ],
)
def test_mistakes_cost_one_line(listed, capsys, args, words):
    folder, labels, _ = listed
    with pytest.raises(SystemExit) as exit_:
        main(["classify", str(folder), "--eval", str(labels), *args])
    captured = capsys.readouterr()
    assert exit_.value.code == 2 and not captured.out and words in captured.err.splitlines()[-1]


# ---------------------------------------------------------------------------------------------------------- random clips


@pytest.mark.parametrize("num_frames", [1, 5, 6, 7, 20, 200])
def test_random_clips_are_different_full_ones_and_the_window_finds_the_same(num_frames):
    sampling = Sampling(length=3, frame_step=2, num_clips_random=10, seed=3)  # a span of 5 frames
    clips = plan_clips(num_frames, sampling)
    window = ClipWindow(sampling, num_frames)
    streamed = [window.push(i) for i in range(num_frames)] + [window.finish()]
    assert [clip for clip in streamed if clip] == [(clip, list(clip.frames)) for clip in clips]
    starts = [clip.start_frame for clip in clips]
    assert starts == sorted(set(starts)) and len(starts) == count_clips(num_frames, sampling)
    assert len(starts) == max(1, min(10, num_frames - 4))
    assert num_frames < 5 or max(starts) + 5 <= num_frames


def test_random_clips_follow_their_seed():
    def starts(seed, num_frames=200):
        sampling = Sampling(num_clips_random=10, seed=seed)
        return [clip.start_frame for clip in plan_clips(num_frames, sampling)]

    assert starts(1) == starts(1) != starts(2) and starts(1) != starts(1, 201)
    assert starts(7) == sorted(random.Random("7 200").sample(range(185), 10))
    often = np.bincount([start for seed in range(2000) for start in starts(seed, 24)], minlength=9)
    assert len(often) == 9 and (often == 2000).all()  # nine starts, ten asked for: each of them once
    often = np.bincount([start for seed in range(2000) for start in starts(seed, 35)], minlength=20)
    assert abs(often - 1000).max() < 120  # ten of twenty: each as often as any other


def test_random_clips_leave_no_feature_file(tmp_path):
    with pytest.raises(UsageError, match="3 random clips are asked for, but a feature file records"):
        featx.extract_to(VIDEOS / "Wave", tmp_path / "f.h5", num_clips_random=3)
    with pytest.raises(UsageError, match="their starts are listed"):
        Sampling(num_clips_random=3, listed=True)


def test_other_digits_are_no_numbers(tmp_path):
    for label in ("²", "9" * 5000):
        with pytest.raises(UsageError, match="a"):
            read(tmp_path, f"key,label\na,{label}\n", "labels.csv")
