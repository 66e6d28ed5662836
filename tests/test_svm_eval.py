import json
import re
from functools import partial

import numpy as np
import pytest
from feature_files import write_file
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from sklearn.svm import LinearSVC

from featx.cli import main
from featx.compact import pca
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.evaluation import DATASETS, compare, fitting, svm_eval, ucf101

CLASSES = ("Archery", "Biking", "Diving", "YoYo")
KEYS = [f"{c}/v_{c}_g{g:02d}_c{i:02d}" for c in CLASSES for g in range(1, 7) for i in range(1, 4)]
TESTED = {1: (1, 2), 2: (3, 4)}  # split -> groups that test
D = 30


def make_vectors(seed=0):
    rng = np.random.default_rng(seed)
    centres = dict(zip(CLASSES, rng.standard_normal((4, D)), strict=True))
    return {key: l2_normalise(centres[key.split("/")[0]] + 2.5 * rng.standard_normal(D)) for key in KEYS}


def is_test(key, split):
    return int(re.search(r"_g(\d+)_", key)[1]) in TESTED[split]


@pytest.fixture
def splits(tmp_path, monkeypatch):
    monkeypatch.setattr(ucf101, "NUM_CLASSES", 4)
    monkeypatch.setattr(ucf101, "COUNTS", {1: (48, 24), 2: (48, 24)})
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "classInd.txt").write_text("".join(f"{i} {c}\n" for i, c in enumerate(CLASSES, 1)))
    for n in TESTED:
        train = [f"{k}.avi {CLASSES.index(k.split('/')[0]) + 1}\n" for k in KEYS if not is_test(k, n)]
        (folder / f"trainlist{n:02d}.txt").write_text("".join(train))
        (folder / f"testlist{n:02d}.txt").write_text("".join(f"{k}.avi\n" for k in KEYS if is_test(k, n)))
    return folder


@pytest.fixture
def features(tmp_path):
    return write_file(tmp_path / "features.h5", {"fc6": make_vectors()})


def by_hand(vectors, split, dims=None, C=1.0):
    """Accuracy in % of one split with scikit-learn only."""
    train = [k for k in sorted(vectors) if not is_test(k, split)]
    test = [k for k in sorted(vectors) if is_test(k, split)]
    x, z = (np.stack([vectors[k] for k in keys]).astype(np.float64) for keys in (train, test))
    if dims is not None:
        fitted = PCA(dims, svd_solver="full").fit(x)
        x, z = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (fitted.transform(x), fitted.transform(z)))
    svm = LinearSVC(C=C, dual="auto", random_state=0).fit(x, [k.split("/")[0] for k in train])
    return 100 * np.mean(svm.predict(z) == [k.split("/")[0] for k in test])


def test_accuracies_equal_scikit_learn(features, splits):
    result = svm_eval(features, "ucf101", splits=splits, dims=(8, 3), C=2.0)
    vectors = make_vectors()
    assert [(run.num_dims, run.pca) for run in result.runs] == [(D, False), (3, True), (8, True)]
    for run, dims in zip(result.runs, (None, 3, 8), strict=True):
        expected = [by_hand(vectors, n, dims, C=2.0) for n in TESTED]
        assert [split.accuracy for split in run.splits] == pytest.approx(expected)
        assert run.mean == pytest.approx(np.mean(expected))
        assert 25 < run.mean < 100
    split = result.runs[0].splits[0]
    assert (split.name, split.num_train, split.num_test) == ("split 1", 48, 24)
    assert np.mean(list(split.per_class.values())) == pytest.approx(split.accuracy)  # classes of equal size
    assert (result.num_classes, result.chance, result.accuracy) == (4, 25, result.runs[0].mean)


def test_the_confusion_is_that_of_scikit_learns_predictions(features, splits):
    run = svm_eval(features, "ucf101", splits=splits).runs[0]
    vectors, expected = make_vectors(), 0
    for n, split in zip(TESTED, run.splits, strict=True):
        train, test = ([k for k in sorted(vectors) if is_test(k, n) is tested] for tested in (False, True))
        svm = LinearSVC(dual="auto", random_state=0).fit(
            np.stack([vectors[k] for k in train]), [k.split("/")[0] for k in train]
        )
        found = svm.predict(np.stack([vectors[k] for k in test]))
        expected = expected + confusion_matrix([k.split("/")[0] for k in test], found, labels=CLASSES)
        assert sum(map(sum, (row.values() for row in split.confusion.values()))) == split.num_test
        assert all(count > 0 for row in split.confusion.values() for count in row.values())
        hits = sum(row.get(true, 0) for true, row in split.confusion.items())
        assert 100 * hits / split.num_test == pytest.approx(split.accuracy)
    assert run.classes == CLASSES
    np.testing.assert_array_equal(run.confusion, expected)
    assert 0 < np.trace(expected) < expected.sum()


def test_lengths_of_descriptors_do_not_matter(tmp_path, features, splits):
    scaled = {key: (i + 1) * row for i, (key, row) in enumerate(make_vectors().items())}
    result = svm_eval(write_file(tmp_path / "scaled.h5", {"fc6": scaled}), "ucf101", splits=splits)
    assert result.accuracy == svm_eval(features, "ucf101", splits=splits).accuracy


def test_numbers_chooses_splits(features, splits):
    both, second = (svm_eval(features, "ucf101", splits=splits, numbers=n).runs[0].splits for n in ((), (2,)))
    assert second == both[1:]


def test_what_is_planted_in_test_rows_changes_nothing_that_is_fitted(tmp_path, features, splits, monkeypatch):
    """Give the test rows of split 1 a direction of huge variance that tells their class."""
    planted = make_vectors()
    for key in KEYS:
        if is_test(key, 1):
            planted[key] = planted[key] + 50 * np.eye(D, dtype=np.float32)[CLASSES.index(key.split("/")[0])]
    planted = write_file(tmp_path / "planted.h5", {"fc6": planted})
    bases, models = [], []
    fit_basis, fit_svm = fitting.fit_basis, fitting.fit_linear_svm
    monkeypatch.setattr(fitting, "fit_basis", lambda *a, **k: bases.append(fit_basis(*a, **k)) or bases[-1])
    monkeypatch.setattr(fitting, "fit_linear_svm", lambda *a, **k: models.append(fit_svm(*a, **k)) or models[-1])
    for path in (features, planted):
        svm_eval(path, "ucf101", splits=splits, numbers=(1,), dims=(5,))
    np.testing.assert_array_equal(bases[0].components, bases[1].components)
    np.testing.assert_array_equal(bases[0].mean, bases[1].mean)
    for clean, other in zip(models[:2], models[2:], strict=True):
        np.testing.assert_array_equal(clean.weights, other.weights)


def without(path, dropped, **options):
    return write_file(path, {"fc6": {k: v for k, v in make_vectors().items() if not dropped(k)}}, **options)


def test_missing_videos(tmp_path, splits):
    fewer = without(
        tmp_path / "fewer.h5", lambda k: k.endswith("g01_c01"), failures=[("YoYo/v_YoYo_g01_c01", "no frames")]
    )
    with pytest.raises(
        UsageError, match=r"4 of 72 listed videos are not in .*: Archery/v_Archery_g01_c01.avi, .* …"
    ) as e:
        svm_eval(fewer, "ucf101", splits=splits)
    assert "1 of them failed in extraction; YoYo/v_YoYo_g01_c01.avi: no frames" in str(e.value)
    assert "--allow-missing" in str(e.value)
    result = svm_eval(fewer, "ucf101", splits=splits, allow_missing=True)
    assert [(s.num_train, s.num_test) for s in result.runs[0].splits] == [(48, 20), (44, 24)]
    assert any("4 of 72 listed videos" in note and "left out" in note for note in result.notes)


def test_three_classes_of_the_official_list(tmp_path, splits):
    three = without(tmp_path / "three.h5", lambda k: k.startswith("Diving"))
    result = svm_eval(three, "ucf101", splits=splits, allow_missing=True)
    expected = [by_hand({k: v for k, v in make_vectors().items() if not k.startswith("Diving")}, n) for n in TESTED]
    assert [s.accuracy for s in result.runs[0].splits] == pytest.approx(expected)
    assert list(result.runs[0].per_class) == ["Archery", "Biking", "YoYo"] and result.num_classes == 3
    assert "split 1: classes without a training video, dropped: 1; left: 3" in result.notes
    assert "the published figures are for all 4 classes" in result.notes


def test_a_class_whose_training_videos_are_missing_is_not_tested_either(tmp_path, splits):
    partial = without(tmp_path / "partial.h5", lambda k: k.startswith("Diving") and not is_test(k, 1))
    result = svm_eval(partial, "ucf101", splits=splits, numbers=(1,), allow_missing=True)
    assert result.runs[0].splits[0].num_test == 18 and "Diving" not in result.runs[0].per_class


def test_a_class_without_test_videos(tmp_path, splits):
    partial = without(tmp_path / "partial.h5", lambda k: k.startswith("Diving") and is_test(k, 1))
    result = svm_eval(partial, "ucf101", splits=splits, numbers=(1,), allow_missing=True)
    assert result.runs[0].per_class["Diving"] is None
    assert "split 1: classes trained but without a test video: Diving" in result.notes


def test_names_match_by_base_name_and_the_rest_is_counted(tmp_path, features, splits):
    moved = {f"all/{k.split('/')[1]}": v for k, v in make_vectors().items()} | {"all/other": np.ones(D)}
    result = svm_eval(write_file(tmp_path / "moved.h5", {"fc6": moved}), "ucf101", splits=splits)
    assert result.runs == svm_eval(features, "ucf101", splits=splits).runs
    assert any("1 of 73 videos" in note and "none of the lists" in note for note in result.notes)


def test_a_missing_video_is_not_replaced_by_one_of_another_class(tmp_path):
    """Numbered names: Bowling/6, in the file but in no list, is not Archery/6, which failed."""
    rng = np.random.default_rng(0)
    rows = {f"{c}/{i}": rng.standard_normal(5) for c in ("Archery", "Bowling") for i in range(1, 8)}
    del rows["Archery/6"]
    features = write_file(tmp_path / "f.h5", {"fc6": rows}, failures=[("Archery/6", "no frames")])
    listed = [key for key in [*rows, "Archery/6"] if key != "Bowling/6"]
    table = tmp_path / "folds.csv"
    table.write_text("".join(f"{key}.avi,{key.split('/')[0]},{int(key[-1]) % 2}\n" for key in listed))
    with pytest.raises(UsageError, match=r"1 of 13 listed videos are not in .*: Archery/6.avi \(1 of them failed"):
        svm_eval(features, "csv", splits=table)
    (result,) = (svm_eval(features, "csv", splits=table, allow_missing=True),)
    assert sum(split.num_test for split in result.runs[0].splits) == 12


def test_failed_videos_are_told_of_where_no_list_misses_them(tmp_path):
    features = write_file(
        tmp_path / "f.h5", {"fc6": make_vectors()}, failures=[("YoYo/x", "no frames"), ("a/y", "cut")]
    )
    for dataset in ("folders", "scenes"):
        assert "2 videos failed in extraction and are in no split: YoYo/x, a/y" in svm_eval(features, dataset).notes


def test_zeros_are_told_of(tmp_path):
    rows = make_vectors() | dict.fromkeys(KEYS[:3], np.zeros(D))
    result = svm_eval(write_file(tmp_path / "f.h5", {"fc6": rows}), "folders")
    assert any("3 of 72 videos in" in note and "are all zeros at fc6" in note for note in result.notes)


def test_files_of_different_videos_are_said_not_to_be_comparable(tmp_path, features, splits):
    fewer = without(tmp_path / "fewer.h5", lambda k: k.endswith("g01_c01"))
    note = "the feature files do not train and test the same videos, so their figures are of different tests"
    assert all(note in result.notes for result in compare([features, fewer], "folders"))
    assert all(note in r.notes for r in compare([features, fewer], "ucf101", splits=splits, allow_missing=True))
    more = write_file(tmp_path / "more.h5", {"fc6": make_vectors(1) | {"Archery/other": np.ones(D)}})
    assert not any(note in result.notes for result in compare([features, more], "ucf101", splits=splits))


@pytest.mark.parametrize("digit", ["²", "٣"])
def test_folds_named_by_odd_digits(tmp_path, features, digit):
    table = tmp_path / "folds.csv"
    table.write_text(
        "".join(f"{key},{key.split('/')[0]},{digit if '_g01_' in key else 'b'}\n" for key in KEYS), encoding="utf-8"
    )
    names = {split.name for split in svm_eval(features, "csv", splits=table).runs[0].splits}
    assert names == {f"fold {digit}", "fold b"}


def test_imported_features_may_have_a_plus_in_their_name(tmp_path):
    features = write_file(tmp_path / "f.h5", {"fc6": make_vectors()}, checkpoint="c3d + idt")
    assert svm_eval(features, "folders").name == "c3d + idt fc6"


def test_folders(features):
    result = svm_eval(features, "folders", folds=3)
    assert [split.name for split in result.runs[0].splits] == ["fold 1", "fold 2", "fold 3"]
    assert sum(split.num_test for split in result.runs[0].splits) == 72
    assert any("24 groups" in note for note in result.notes)


def test_published_figures_and_their_absence(tmp_path, features, splits):
    result = svm_eval(features, "ucf101", splits=splits, dims=(10, 11))
    assert [run.published for run in result.runs] == [82.3, 52.8, None]
    assert "table 3" in result.published_source
    own = write_file(tmp_path / "own.h5", {"pool5": make_vectors()}, checkpoint="res3d-mini", backbone="res3d")
    result = svm_eval(own, "ucf101", splits=splits)
    assert result.runs[0].published is None and "featx's own" in result.published_source
    assert "none known for c3d-sports1m fc6 on folders" in svm_eval(features, "folders").published_source


def test_a_basis_that_was_fitted_elsewhere_is_mentioned(tmp_path, features, splits):
    pca(features, tmp_path / "compact.h5", dims=10)
    result = svm_eval(tmp_path / "compact.h5", "ucf101", splits=splits)
    assert result.runs[0].published == 52.8  # the figure at 10 dimensions
    assert "the descriptors went through PCA fitted on all 72 videos" in result.notes


def test_refusals(tmp_path, features, splits):
    def refused(message, path=features, dataset="ucf101", error=UsageError, **options):
        with pytest.raises(error, match=message):
            svm_eval(path, dataset, **{"splits": splits, **options})

    refused("unknown data set 'ufc101'; did you mean 'ucf101'", dataset="ufc101", error=UnknownNameError)
    refused("unknown layer 'fc9'", layer="fc9", error=UnknownNameError)
    refused("C is 0, but must be a number above 0", C=0)
    refused("C is nan", C=float("nan"))
    refused("seed is -1", seed=-1)
    refused("dims is 31 for split 1, but PCA of 48 rows x 30 dimensions", dims=(5, 31))
    refused("it is a folder", json_path=tmp_path)
    refused("its folder does not exist", json_path=tmp_path / "absent" / "x.json")
    two = write_file(tmp_path / "two.h5", {"fc6": make_vectors(), "fc7": make_vectors(1)})
    refused("holds 2 layers; choose one with --layer, or as .*two.h5:fc6: fc6, fc7", path=two)
    strange = write_file(tmp_path / "strange.h5", {"fc6": {"a/x": np.ones(D), "b/y": np.ones(D)}})
    refused("72 of 72 listed videos are not in .*; check --splits", path=strange, allow_missing=True)
    one = without(tmp_path / "one.h5", lambda k: not k.startswith("YoYo"))
    refused("split 1: classes with training videos: 1, but an SVM needs 2", path=one, allow_missing=True)
    train_only = without(tmp_path / "train.h5", lambda k: is_test(k, 1))
    refused("split 1: none of its test videos", path=train_only, allow_missing=True, numbers=(1,))


def test_solvers_that_did_not_converge_are_noted(features, splits, monkeypatch):
    monkeypatch.setattr("sklearn.svm.LinearSVC", partial(LinearSVC, max_iter=1))
    result = svm_eval(features, "ucf101", splits=splits, solver="liblinear")
    assert any("before they converged: 2" in note for note in result.notes)
    assert not result.runs[0].splits[0].converged


def run_cli(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in ("svm-eval", *arguments)])
    return exit_.value.code, *capsys.readouterr()


def test_command_line_and_json_equal_the_api(tmp_path, features, splits, capsys):
    options = ("--dataset", "ucf101", "--splits", splits, "--split", 1, "--dims", 10, "-C", 2)
    code, out, err = run_cli(capsys, features, *options, "--per-class", "--json", tmp_path / "result.json")
    result = svm_eval(features, "ucf101", splits=splits, numbers=(1,), dims=(10,), C=2)
    assert (code, err) == (0, "")  # a bar is for terminals
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result.as_dict()))
    assert [path.name for path in tmp_path.glob("*result*")] == ["result.json"]
    means = [float(value) for value in re.findall(r"mean +([\d.]+) %", out)]
    assert means == pytest.approx([run.mean for run in result.runs], abs=0.005)
    assert re.findall(r"^ +published +([\d.]+) %", out, re.MULTILINE) == ["82.30", "52.80"] and "chance 25.0 %" in out
    for name, value in result.runs[0].per_class.items():
        assert f"{name}  {value:.1f} %" in out
    code, out, err = run_cli(capsys, features, *options, "--quiet")
    assert code == 0 and not err and not re.search(r"^ +Archery ", out, re.MULTILINE)


def test_both_solvers_agree(features, splits):
    newton, liblinear = (
        svm_eval(features, "ucf101", splits=splits, dims=(5,), solver=name) for name in ("newton", "liblinear")
    )
    assert newton.runs == liblinear.runs and (newton.solver, liblinear.solver) == ("newton", "liblinear")


def test_chance_is_of_the_classes_that_a_split_trains(tmp_path, splits):
    """Split 1 trains four classes, split 2 three."""
    partial = without(tmp_path / "partial.h5", lambda k: k.startswith("Diving") and not is_test(k, 2))
    result = svm_eval(partial, "ucf101", splits=splits, allow_missing=True)
    assert [split.chance for split in result.runs[0].splits] == pytest.approx([25, 100 / 3])
    assert result.num_classes == 4 and result.chance == pytest.approx((25 + 100 / 3) / 2)


def test_a_file_still_in_parts_is_said_to_be(tmp_path, features, splits):
    rest = tmp_path / "features.h5.parts"
    rest.mkdir()
    write_file(rest / "part-000001.h5", {"fc6": {"YoYo/other": np.ones(D)}})
    result = svm_eval(features, "ucf101", splits=splits)
    assert any("is still in parts (1 beside it)" in note for note in result.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "ufc101"), "did you mean 'ucf101'"),
        (("--dataset", "ucf101"), "needs its list files"),
        (("--dataset", "folders", "--layer", "fc9"), "unknown layer"),
        (("--dataset", "folders", "-C", "0"), "C is 0"),
        (("--dataset", "folders", "--solver", "netwon"), "did you mean 'newton'"),
        (("--dataset", "folders", "--device", "gpu"), "unknown device 'gpu'"),
        (("--dataset", "folders", "-C", "x"), "'x' is not a number, and not auto"),
        ((), "--dataset"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(features, capsys, arguments, message):
    code, _, err = run_cli(capsys, features, *arguments)
    assert code == 2 and message in err and "Traceback" not in err


def test_help_names_every_data_set(capsys):
    code, out, _ = run_cli(capsys, "--help")
    assert code == 0 and all(name in out for name in DATASETS)


def test_files_that_cannot_be_evaluated(tmp_path):
    with pytest.raises(FeatureFileError, match=r"absent.h5: no such file"):
        svm_eval(tmp_path / "absent.h5", "folders")
    broken = write_file(tmp_path / "nan.h5", {"fc6": {**make_vectors(), KEYS[5]: np.full(D, np.nan)}})
    with pytest.raises(FeatureFileError, match=f"fc6 descriptor of '{KEYS[5]}' is not finite"):
        svm_eval(broken, "folders")
    clips = {"fc6": {key: np.ones((2, D), np.float32) for key in KEYS}}
    clips_only = write_file(tmp_path / "clips.h5", {"fc6": make_vectors()}, clips=clips, save="clips")
    with pytest.raises(UsageError, match="clip features only"):
        svm_eval(clips_only, "folders")
