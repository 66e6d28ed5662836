"""svm-eval and svm-fit by the labels that a feature file keeps, as lists of segments bring them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from feature_files import make_provenance, write_file

import featx
from featx.errors import UsageError
from featx.evaluation import svm_eval, svm_fit
from featx.evaluation.datasets import DATASETS
from featx.evaluation.protocol import Request
from featx.evaluation.rows import group_numbers
from featx.store import write_features

KEYS = [f"{video}/{s:06d}.000-{s + 5:06d}.500" for video in "abcdef" for s in (0, 10, 20, 30)]
LABELS = ["jump" if s < 20 else "run" for _ in "abcdef" for s in (0, 10, 20, 30)]


def load(**request):
    return DATASETS["stored"].load(Request(tuple(KEYS), labels=tuple(LABELS), **request))


@pytest.fixture
def features(tmp_path):
    """Segments of six videos, and a video without a label."""
    rng = np.random.default_rng(0)
    rows = {key: [5.0 * (label == "run"), 5.0 * (label == "jump"), *rng.uniform(0, 1, 2)]
            for key, label in zip(KEYS, LABELS, strict=True)}  # fmt: skip
    plain = write_file(tmp_path / "plain.h5", {"fc6": rows | {"whole": [1, 1, 1, 1]}})
    with featx.open(plain) as held:
        label_of = dict(zip(KEYS, LABELS, strict=True))
        videos = [replace(held[key], label=label_of.get(key, "")) for key in held.keys]
    write_features(tmp_path / "f.h5", make_provenance(), videos)
    return tmp_path / "f.h5"


def test_segments_of_a_video_are_never_parted():
    protocol = load()
    assert protocol.classes == ("jump", "run") and len(protocol.splits) == 5
    tested = []
    for split in protocol.splits:
        train, test = ({name[0] for name, _ in side} for side in (split.train, split.test))
        assert not train & test
        tested += sorted(test)
    assert sorted(tested) == list("abcdef")
    assert len(set(group_numbers(KEYS, LABELS).tolist())) == 6  # in the cross-validation of C too


def test_a_file_of_folds_names_videos_or_segments(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text(f"key,fold\na.mp4,train\nb,train\nc,test\nf,test\n{KEYS[-1]},train\n")
    (split,) = load(folder=path).splits
    assert sorted(name for name, _ in split.train) == KEYS[:8] + KEYS[-1:]
    assert sorted(name for name, _ in split.test) == KEYS[8:12] + KEYS[20:23]
    path.write_text("a,1\nb,2\nz,2\n")
    with pytest.raises(UsageError, match=r"1 of 3 names in .*folds.csv are neither .*: z; extract them"):
        load(folder=path)
    assert [split.name for split in load(folder=path, allow_missing=True).splits] == ["fold 1", "fold 2"]


def test_a_file_that_names_a_video_with_two_folds_is_refused(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("a,train\nb,test\na,train\nb,train\n")
    with pytest.raises(
        UsageError, match=r"folds.csv: 'b' has the folds 'test' and 'train'; it has one, so drop a line"
    ):
        load(folder=path)


def test_segments_of_one_video_on_both_sides_are_warned_of(features, tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text(
        "".join(f"{key},{'test' if key.startswith(('a/000010', 'c/00002')) else 'train'}\n" for key in KEYS)
    )
    (warning,) = svm_eval(features, "stored", splits=path).warnings
    assert "segments of one video train and test: 2 videos (a, c), so the accuracy is flattered" in warning
    assert svm_eval(features, "stored", folds=3).warnings == ()


def test_segments_are_not_left_out_one_by_one():
    keys = tuple(f"{name}/{key}" for name in ("jump", "run") for key in KEYS)
    with pytest.raises(UsageError, match=r"'jump/a/000000.000-000005.500' is a segment, .*; take --dataset folders"):
        DATASETS["scenes"].load(Request(keys))


def test_both_commands_learn_from_them(features, tmp_path):
    result = svm_eval(features, "stored", folds=3)
    assert result.runs[0].mean == 100 and any("1 of 25 videos have no label" in note for note in result.notes)
    assert any("24 rows of 6 videos" in note for note in result.notes)
    model, notes = svm_fit(features, tmp_path / "model.h5", labels="stored")
    assert model.classes == ("jump", "run") and "1 of 25 videos have no label; not used" in notes
    folds = tmp_path / "folds.csv"
    folds.write_text("".join(f"{video},{'test' if video == 'f' else 'train'}\n" for video in "abcdef"))
    model, _ = svm_fit(features, tmp_path / "split.h5", dataset="stored", splits=folds, number=1)
    assert model.classes == ("jump", "run")
    bare = write_file(tmp_path / "bare.h5", {"fc6": {"a": [1, 0]}})
    for learn in (lambda: svm_eval(bare, "stored"), lambda: svm_fit(bare, tmp_path / "no.h5", labels="stored")):
        with pytest.raises(
            UsageError, match="no video of .* has a label; labels are those of 'featx extract --segments'"
        ):
            learn()


def test_class_folders_are_those_of_the_videos():
    keys = tuple(f"{name}/v{i}/{s:06d}.000-{s + 5:06d}.500" for name in ("jump", "run") for i in (1, 2) for s in (0, 9))
    protocol = DATASETS["folders"].load(Request(keys))
    assert protocol.classes == ("jump", "run")
    for split in protocol.splits:
        assert not {name[:-22] for name, _ in split.train} & {name[:-22] for name, _ in split.test}
