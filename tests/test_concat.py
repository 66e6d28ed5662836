"""Joined descriptors, C chosen on held-out groups, and several files beside each other."""

import csv
import json
import re

import numpy as np
import pytest
from feature_files import write_file
from test_cli import run
from test_svm_eval import CLASSES, KEYS, TESTED, D, by_hand, is_test, make_vectors, splits  # noqa: F401

from featx.descriptors import l2_normalise
from featx.errors import UsageError
from featx.evaluation import choose_c as choosing
from featx.evaluation import compare, curve, svm_eval
from featx.evaluation.choose_c import CANDIDATES, Settings, choose_c
from featx.evaluation.rows import group_numbers
from featx.evaluation.sources import read_descriptors
from featx.layer_names import split_layer
from featx.matrices import write_matrix


@pytest.fixture
def features(tmp_path):
    return write_file(tmp_path / "features.h5", {"fc6": make_vectors()})


@pytest.fixture
def idt(tmp_path):
    """Vectors from elsewhere, in another order, of other lengths, under base names."""
    rows = make_vectors(1)
    keys = sorted(rows, key=lambda key: key[::-1])
    write_matrix(
        tmp_path / "idt.h5", [k.split("/")[1] for k in keys], np.stack([7 * rows[k] for k in keys]), name="idt"
    )
    return tmp_path / "idt.h5"


def test_joined_descriptors(tmp_path, features, idt, splits):  # noqa: F811
    result = svm_eval(features, "ucf101", splits=splits, concat=[idt])
    first, second = make_vectors(), make_vectors(1)
    joined = {key: np.concatenate([first[key], second[key]]) for key in KEYS}
    assert [s.accuracy for s in result.runs[0].splits] == pytest.approx([by_hand(joined, n) for n in TESTED])
    assert result.runs[0].num_dims == 2 * D and result.runs[0].published is None
    assert result.name == "c3d-sports1m fc6 + idt features" and result.joined == (str(idt),)
    held = read_descriptors(features, concat=[f"{idt}:features", idt])
    np.testing.assert_allclose(held.rows, [np.r_[joined[key], second[key]] for key in held.keys], atol=1e-7)
    assert [source.num_dims for source in held.sources] == [D, D, D]


def test_videos_that_one_file_lacks(tmp_path, features, splits):  # noqa: F811
    some = {k: v for k, v in make_vectors(1).items() if not k.endswith("c03")}
    other = write_file(tmp_path / "other.h5", {"fc7": some})
    with pytest.raises(UsageError, match=r"24 of 72 videos of .*features.h5 are not in .*other.h5: Archery/.*_g01_c03"):
        svm_eval(features, "ucf101", splits=splits, concat=[other])
    result = svm_eval(features, "ucf101", splits=splits, concat=[other], allow_missing=True)
    assert sum(split.num_test for split in result.runs[0].splits) == 32
    assert any("24 of 72 videos" in note and "left out" in note for note in result.notes)
    strange = write_file(tmp_path / "strange.h5", {"fc7": {"a": np.ones(3)}})
    with pytest.raises(UsageError, match="72 of 72 videos"):
        read_descriptors(features, concat=[strange], allow_missing=True)


def test_a_layer_in_the_path(tmp_path):
    path = write_file(tmp_path / "two:b.h5", {"fc6": make_vectors(), "fc7": make_vectors(1)})
    assert split_layer(path) == (path, None) and split_layer(f"{path}:fc7") == (path, "fc7")
    assert read_descriptors(f"{path}:fc7").layer == "fc7"
    with pytest.raises(UsageError, match="names layer fc7, but --layer says fc6"):
        read_descriptors(f"{path}:fc7", layer="fc6")


def test_c_is_the_best_on_held_out_groups():
    """Against the plain way: every candidate trained anew in every fold."""
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 240)
    groups = 10 * labels + rng.integers(0, 8, 240)
    rows = l2_normalise(rng.standard_normal((4, 12))[labels] + rng.standard_normal((80, 12))[groups] * 1.5)
    folds = StratifiedGroupKFold(choosing.FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(LinearSVC(dual=False, tol=1e-6, max_iter=9999), {"C": CANDIDATES}, cv=folds)
    search.fit(rows.astype(np.float64), labels, groups=groups)
    shares = []
    for solver in ("newton", "liblinear"):
        assert choose_c(rows, labels, groups, Settings("auto", solver), shares.append) == search.best_params_["C"]
    assert sum(shares) == pytest.approx(2)


def test_auto_never_sees_a_test_row(tmp_path, features, splits, monkeypatch):  # noqa: F811
    """What is planted in the test rows changes no chosen C, and no group is parted."""
    seen = []
    fit = choosing.fit_linear_svm
    monkeypatch.setattr(choosing, "fit_linear_svm", lambda rows, *a, **k: seen.append(rows) or fit(rows, *a, **k))
    result = svm_eval(features, "ucf101", splits=splits, C="auto", numbers=(1,))
    clean = seen.copy()
    planted = make_vectors()
    for key in KEYS:
        if is_test(key, 1):
            planted[key] = np.eye(D)[CLASSES.index(key.split("/")[0])]
    again = svm_eval(
        write_file(tmp_path / "planted.h5", {"fc6": planted}), "ucf101", splits=splits, C="auto", numbers=(1,)
    )
    for ours, theirs in zip(clean, seen[len(clean) :], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.runs[0].splits[0].C == again.runs[0].splits[0].C in CANDIDATES and result.C == "auto"


def test_groups():
    keys = ["a/v_a_g01_c01", "a/v_a_g01_c02", "b/v_b_g01_c01", "b/x", "b/y"]
    numbers = group_numbers(keys, ["a", "a", "b", "b", "b"])
    assert numbers[0] == numbers[1] and len(set(numbers.tolist())) == 4


def test_c_auto_needs_groups():
    with pytest.raises(UsageError, match="every class has one group"):
        choose_c(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), Settings("auto"))


def test_several_files_give_curves(tmp_path, features, idt, splits, capsys):  # noqa: F811
    moved = read_descriptors(idt)
    keys = [f"{key.split('_')[1]}/{key}" for key in moved.keys]
    write_matrix(tmp_path / "idt2.h5", keys, moved.rows, name="idt", layer="bow")
    paths = [features, f"{tmp_path / 'idt2.h5'}:bow"]
    results = compare(paths, "ucf101", splits=splits, dims=(10, 3))
    assert [result.name for result in results] == ["c3d-sports1m fc6", "idt bow"]
    alone = svm_eval(features, "ucf101", splits=splits, dims=(3, 10))
    assert results[0] == alone
    line = curve(alone)
    assert (
        line.dims == (3, 10) and line.published == (None, 52.8) and (line.whole_dims, line.whole_published) == (D, 82.3)
    )
    assert line.accuracies == tuple(run.mean for run in alone.runs[1:]) and line.whole == alone.accuracy

    table, whole = tmp_path / "t.csv", tmp_path / "r.json"
    options = ("--dataset", "ucf101", "--splits", splits, "--dims", 3, "--dims", 10, "--quiet")
    code, out, _ = run(capsys, "svm-eval", *paths, *options, "--csv", table, "--json", whole)
    assert code == 0
    means = [f"{run.mean:.2f}" for run in (*alone.runs[1:], alone.runs[0])]
    assert re.search(r"^c3d-sports1m fc6 +" + " +".join(means) + "$", out, re.MULTILINE)
    written = json.loads(whole.read_text())
    assert [r["accuracy"] for r in written["results"]] == [r.accuracy for r in results]
    assert written["curves"][0]["accuracies"] == list(line.accuracies)
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 2 * 3 * 3
    assert [float(r["accuracy"]) for r in rows if r["split"] == "mean"] == [x.mean for r in results for x in r.runs]
    code, _, err = run(capsys, "svm-eval", *paths, *options, "--csv", tmp_path / "no" / "x.csv")
    assert code == 2 and "its folder does not exist" in err
