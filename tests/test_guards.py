"""Leak guards, each with a case that must be warned of and one that must not; and figures far from the published ones."""

import numpy as np
import pytest
from feature_files import make_provenance, write_file

from featx.catalog import get_checkpoint
from featx.compact import pca
from featx.descriptors import l2_normalise
from featx.evaluation import svm_eval
from featx.evaluation.published import far_off, likely_causes, published_figure, published_source

KEYS = [f"{c}/v_{c}_g{g:02d}_c{i:02d}" for c in ("Archery", "Biking") for g in range(1, 5) for i in range(1, 4)]


@pytest.fixture
def place(tmp_path):
    """Feature files for `KEYS` (24 videos in 8 groups), and lists whose two splits test groups 1 and 2."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for n in (1, 2):
        for side, test in (("train", False), ("test", True)):
            names = [f"{key}.avi\n" for key in KEYS if (f"_g{n:02d}_" in key) == test]
            (folder / f"{side}list{n:02d}.txt").write_text("".join(names))
    return tmp_path


def make(path, **provenance):
    rng = np.random.default_rng(0)
    rows = {key: l2_normalise((key[0] == "A") - 0.5 + rng.standard_normal(20)) for key in KEYS}
    return write_file(path, {"fc6": rows}, **provenance)


def warnings(features, dataset="folders", **options):
    return svm_eval(features, dataset, **options).warnings


def test_fair_evaluations_are_not_warned_of(place):
    features = make(place / "f.h5")
    assert warnings(features, splits=place / "lists") == warnings(features) == ()


def test_groups_on_both_sides(place):
    features = make(place / "f.h5")
    (warning,) = warnings(features, "scenes")
    assert (
        "both sides of every split: 8 (Archery g01, Archery g02, Archery g03 …), so the accuracy is flattered"
        in warning
    )
    lists = place / "lists"
    (lists / "trainlist01.txt").write_text((lists / "trainlist01.txt").read_text() + "Biking/v_Biking_g01_c03.avi\n")
    kept = [line for line in (lists / "testlist01.txt").read_text().splitlines() if "Biking_g01_c03" not in line]
    (lists / "testlist01.txt").write_text("\n".join(kept))
    (warning,) = warnings(features, splits=lists)
    assert "on both sides of split 1: 1 (Biking g01)" in warning
    assert warnings(features, splits=lists, numbers=(2,)) == ()


def test_random_folds_that_ignore_groups(place):
    features = make(place / "f.h5")
    text = "".join(f"{key},{key.split('/')[0]},{i % 3}\n" for i, key in enumerate(KEYS))
    (place / "random.csv").write_text(text)
    (warning,) = warnings(features, "csv", splits=place / "random.csv")
    assert "both sides of every split: 8" in warning
    (place / "grouped.csv").write_text("".join(f"{key},{key.split('/')[0]},{key[-7:-4]}\n" for key in KEYS))
    assert warnings(features, "csv", splits=place / "grouped.csv") == ()


@pytest.mark.parametrize(
    ("checkpoint", "dataset", "warned"),
    [
        ("c3d-ucf101", "ucf101", True),
        ("resnext101-ucf101", "ucf101", True),
        ("resnext101-64f-hmdb51", "hmdb51", True),
        ("c3d-sports1m", "ucf101", False),
        ("resnext101-ucf101", "hmdb51", False),
        ("mine-ucf101", "ucf101", True),
        ("mine-other", "ucf101", False),
    ],
)
def test_weights_that_know_the_data_set(place, monkeypatch, checkpoint, dataset, warned):
    from featx.evaluation import datasets, folders
    from featx.evaluation.datasets import Dataset

    row = datasets.DATASETS[dataset]
    rows = {dataset: Dataset(row.name, row.title, folders.load, trained_as=row.trained_as)}  # any lists will do
    monkeypatch.setattr("featx.evaluation.datasets.DATASETS", rows)
    found = warnings(make(place / "f.h5", checkpoint=checkpoint), dataset, splits=place / "lists")
    assert len(found) == warned
    if warned:
        assert found[0].startswith(f"{checkpoint} was trained on {row.title}") and "only a split" in found[0]


def test_a_net_that_was_trained_on_classes_of_these_names(place):
    """Archery is a class of Kinetics-400 in lower case, and of UCF101 as it stands here."""
    for checkpoint, warned in (("c3d-ucf101", True), ("resnet18-kinetics", False), ("c3d-sports1m", False)):
        found = warnings(make(place / f"{checkpoint}.h5", checkpoint=checkpoint))
        assert len(found) == warned
        assert not warned or "was trained on classes of these names (Sports-1M, then UCF101)" in found[0]


def test_a_basis_that_saw_test_rows(place):
    features, lists = make(place / "f.h5"), place / "lists"
    pca(features, place / "all.h5", dims=5)
    (warning,) = warnings(place / "all.h5", splits=lists)
    assert "the PCA basis was fitted on all 24 videos, test videos among them" in warning and "--dims" in warning
    pca(features, place / "train.h5", dims=5, fit_on=lists / "trainlist01.txt")
    assert warnings(place / "train.h5", splits=lists, numbers=(1,)) == ()
    (warning,) = warnings(place / "train.h5", splits=lists)  # split 2 tests group 2, on which the basis was fitted
    assert "with test videos of split 2 (6) among them" in warning
    (warning,) = warnings(place / "train.h5")
    assert "whether test videos are among them cannot be told" in warning


# ------------------------------------------------------------------------------------------------------ published figures


def test_figures_are_those_of_the_papers():
    """The tables of the papers a second time."""
    for checkpoint, dataset, layer, metric, figure in (
        ("c3d-sports1m", "ucf101", "fc6", "accuracy", 82.3),
        ("c3d-sports1m", "hmdb51", "fc6", "accuracy", 51.6),
        ("c3d-sports1m", "yupenn", "fc6", "accuracy", 98.1),
        ("c3d-sports1m", "maryland", "fc6", "accuracy", 87.7),
        ("c3d-sports1m", "objects", "fc6", "accuracy", 22.3),
        ("c3d-sports1m", "activitynet", "fc6", "map", 67.68),
        ("c3d-sports1m", "aslan", "pool5+fc6+fc7+prob", "accuracy", 78.3),
        ("c3d-sports1m", "aslan", "pool5+fc6+fc7+prob", "auc", 86.5),
        ("c3d-sports1m", "sports1m", "prob", "clip-top-1", 44.9),
        ("c3d-sports1m", "sports1m", "prob", "top-1", 60.0),
        ("c3d-sports1m", "sports1m", "prob", "top-5", 84.4),
        ("res3d-sports1m", "ucf101", "res5b", "accuracy", 83.1),
        ("res3d-sports1m", "hmdb51", "res5b", "accuracy", 51.3),
        ("res3d-sports1m", "aslan", "res5b+pool5+prob", "accuracy", 78.8),
        ("res3d-sports1m", "aslan", "res5b+pool5+prob", "auc", 86.6),
        ("res3d-sports1m", "sports1m", "prob", "top-1", 65.6),
        ("p3d199-sports1m", "ucf101", "pool5", "accuracy", 88.6),
        ("p3d199-sports1m", "yupenn", "pool5", "accuracy", 99.5),
        ("p3d199-sports1m", "maryland", "pool5", "accuracy", 94.6),
        ("p3d199-sports1m", "activitynet", "pool5", "accuracy", 75.12),
        ("p3d199-sports1m", "activitynet", "pool5", "top-3", 87.71),
        ("p3d199-sports1m", "activitynet", "pool5", "map", 78.86),
        ("p3d199-sports1m", "aslan", "res4b35+res5c+pool5+prob", "accuracy", 80.8),
        ("p3d199-sports1m", "aslan", "res4b35+res5c+pool5+prob", "auc", 87.9),
        ("p3d199-sports1m", "sports1m", "prob", "top-5", 87.4),
        ("p3d199-kinetics", "ucf101", "pool5", "accuracy", None),
    ):
        assert published_figure(checkpoint, dataset, layer, metric=metric) == figure, (checkpoint, dataset, metric)
    kinetics = "18 54.2 78.1, 34 60.1 81.9, 50 61.3 83.1, 101 62.8 83.9, 152 63.0 84.4, 200 63.1 84.4"
    nets = [(f"resnet{depth}", *rest) for depth, *rest in (row.split() for row in kinetics.split(","))]
    nets += [("preresnet200", 63.0, 83.7), ("wideresnet50", 64.1, 85.3), ("resnext101", 65.1, 85.7)]
    for net, top_1, top_5 in [*nets, ("densenet121", 59.7, 81.9), ("densenet201", 61.3, 83.3)]:
        figures = get_checkpoint(f"{net}-kinetics").published["kinetics400"]
        assert figures == {"prob:top-1": float(top_1), "prob:top-5": float(top_5)}, net
    assert "never released" in published_source("c3d-sports1m", "ucf101", "fc6")
    assert published_source("c3d-sports1m", "activitynet", "fc6").startswith("Qiu et al. 2017, table 4")


def test_a_figure_more_than_two_points_off_has_three_causes():
    causes = ["one", "two", "three", "four"]
    assert far_off("70.00 %", 70.0, 72.0, causes) == far_off("70.00 %", 70.0, None, causes) == []
    (text,) = far_off("70.00 %", 70.0, 72.1, causes)
    assert text == "70.00 % is 2.1 points below the published 72.1 %; likeliest: (1) one; (2) two; (3) three"
    assert "5.0 points above the published 65 %" in far_off("70.00 %", 70.0, 65.0, causes)[0]


@pytest.mark.parametrize(
    ("changes", "dataset", "words"),
    [
        ({}, "ucf101", ["never released", "mean cube", "converted"]),
        (
            {"stride": 16, "mean_cube_sha256": "ab"},
            "ucf101",
            ["never released", "stride 16 in place of 8", "converted"],
        ),
        ({"num_clips_even": 10}, "yupenn", ["10 evenly spread clips", "mean cube", "converted"]),
        ({"fps": 15.0, "mean_cube_sha256": "ab"}, "yupenn", ["another rate", "converted", "C"]),
        ({"checkpoint": "p3d199-sports1m", "stride": 16}, "ucf101", ["20 clips", "L2-normalise", "converted"]),
        ({"checkpoint": "p3d199-sports1m", "num_clips_even": 20}, "aslan", ["converted", "C", "re-encoded"]),
        ({"checkpoint": "of-mine"}, "ucf101", ["converted", "C", "re-encoded"]),
    ],
)
def test_causes_are_what_is_known_to_differ_first(changes, dataset, words):
    causes = list(likely_causes(make_provenance(**changes), dataset))
    assert len(causes) >= 3
    for cause, word in zip(causes, words, strict=False):
        assert word in cause
    assert next(likely_causes(make_provenance(), dataset, num_left_out=7)) == "7 listed videos were left out"
