"""Leave one out, ActivityNet, CSV and clip-level objects: the loaders by hand, and the results by scikit-learn."""

import json

import numpy as np
import pytest
from feature_files import write_file
from sklearn.decomposition import PCA
from sklearn.svm import LinearSVC

from featx.cli import main
from featx.descriptors import l2_normalise
from featx.errors import UsageError
from featx.evaluation import activitynet, fitting, objects, scenes, svm_eval
from featx.evaluation.datasets import DATASETS
from featx.evaluation.fitting import in_row_space
from featx.evaluation.metrics import mean_average_precision
from featx.evaluation.protocol import Entry, Request
from featx.evaluation.tables import read_table
from featx.features import ClipTable

D = 40


def draw(names, label_of, noise=1.2, seed=0, **own):
    """name -> unit vector near the centre of its class."""
    rng = np.random.default_rng(seed)
    centres = {label: rng.standard_normal(D) for label in sorted({label_of(name) for name in names})}
    return {name: l2_normalise(centres[label_of(name)] + noise * rng.standard_normal(D)) for name in names}


def fit(rows, labels):
    return LinearSVC(dual="auto", random_state=0, tol=1e-7, max_iter=100_000).fit(np.asarray(rows, np.float64), labels)


# --------------------------------------------------------------------------------------------------------- leave one out

SCENES = [f"{c}/{i}" for c in ("beach", "forest", "street") for i in range(5)]


def folder_of(key):
    return key.split("/")[0]


def test_leave_one_out_by_hand():
    protocol = scenes.load(Request(("a/1", "a/2", "b/1", "b/2")))
    assert protocol.classes == ("a", "b") and protocol.leave_one_out and len(protocol.splits) == 4
    third = protocol.splits[2]
    assert third.test == (Entry("b/1", "b"),)
    assert third.train == (Entry("a/1", "a"), Entry("a/2", "a"), Entry("b/2", "b"))


@pytest.mark.parametrize("dims", [(), (4,)])
def test_leave_one_out_equals_scikit_learn(tmp_path, dims):
    """15 rows of 40 dimensions: training happens in the rows' own space."""
    vectors = draw(SCENES, folder_of, noise=2.5)
    result = svm_eval(write_file(tmp_path / "f.h5", {"fc6": vectors}), "scenes", dims=dims, metrics=["top-2"])
    x, labels = np.stack([vectors[key] for key in SCENES]).astype(np.float64), [folder_of(key) for key in SCENES]
    hits = []
    for i in range(len(SCENES)):
        rest = np.arange(len(SCENES)) != i
        train, test = x[rest], x[[i]]
        if dims:
            pca = PCA(4).fit(train)
            train, test = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in map(pca.transform, (train, test)))
        svm = fit(train, np.array(labels)[rest])
        best = svm.classes_[np.argsort(-svm.decision_function(test)[0])]
        hits.append((labels[i] == best[0], labels[i] in best[:2]))
    (split,) = result.runs[-1].splits
    assert (split.name, split.num_train, split.num_test) == ("leave one out", 14, 15)
    assert split.accuracy == pytest.approx(100 * np.mean([first for first, _ in hits]))
    assert split.figures == {"top-2": pytest.approx(100 * np.mean([second for _, second in hits]))}
    for c in ("beach", "forest", "street"):
        own = [first for (first, _), label in zip(hits, labels, strict=True) if label == c]
        assert split.per_class[c] == pytest.approx(100 * np.mean(own))
    assert 30 < split.accuracy < 100 and result.runs[0].num_dims == D


def test_the_rows_own_space_changes_no_angle():
    rows = np.random.default_rng(0).standard_normal((6, 50)).astype(np.float32)
    turned = in_row_space(rows)
    assert turned.shape == (6, 6) and turned.dtype == np.float32
    np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=1e-4, atol=1e-4)
    assert in_row_space(rows.T) is not None and in_row_space(rows.T).shape == (50, 6)
    twice = np.concatenate([rows, rows])  # no full rank
    np.testing.assert_allclose(in_row_space(twice) @ in_row_space(twice).T, twice @ twice.T, rtol=1e-4, atol=1e-4)


def test_what_is_planted_in_the_row_left_out_changes_nothing_that_is_fitted(tmp_path, monkeypatch):
    """Ten times another class's centre in place of the first video: only its own split may train the same SVM as before."""
    vectors = draw(SCENES, folder_of, noise=2.5)
    planted = vectors | {SCENES[0]: 10 * np.mean([vectors[key] for key in SCENES[10:]], axis=0)}
    fit_svm, trained = fitting.fit_linear_svm, []

    def remember(rows, labels, **options):
        model = fit_svm(rows, labels, **options)
        trained.append(model.scores(rows))  # on its training rows: weights differ by the turn of the space
        return model

    monkeypatch.setattr(fitting, "fit_linear_svm", remember)
    monkeypatch.setattr("featx.evaluation.evaluate.splits_at_once", lambda *a: 1)  # in their order
    for name, rows in (("clean", vectors), ("planted", planted)):
        svm_eval(write_file(tmp_path / f"{name}.h5", {"fc6": rows}), "scenes", dims=(3,))
    clean, told = trained[: 2 * len(SCENES)], trained[2 * len(SCENES) :]
    same = [np.allclose(a, b, atol=1e-3) for a, b in zip(clean, told, strict=True)]
    assert same[:2] == [True, True] and not any(same[2:])  # of each split the SVM as it is, then after PCA


@pytest.mark.parametrize(("dataset", "num_classes", "num_videos"), [("yupenn", 14, 30), ("maryland", 13, 10)])
def test_scene_data_sets_are_counted(dataset, num_classes, num_videos):
    keys = [f"c{c:02d}/{i:02d}" for c in range(num_classes) for i in range(num_videos)]
    load = DATASETS[dataset].load
    assert len(load(Request(tuple(keys))).splits) == num_classes * num_videos
    with pytest.raises(
        UsageError, match=f"{num_videos - 1} videos in 'c00', but {dataset} has {num_classes} classes of"
    ):
        load(Request(tuple(keys[1:])))
    assert len(load(Request(tuple(keys[1:]), allow_missing=True)).splits) == num_classes * num_videos - 1
    for more in (["c00/x"], ["x/1", "x/2"]):
        with pytest.raises(UsageError, match="--dataset scenes takes any"):
            load(Request((*keys, *more), allow_missing=True))


def test_leave_one_out_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="class 'b' has 1 video, but leaving one out needs 2"):
        scenes.load(Request(("a/1", "a/2", "b/1")))
    with pytest.raises(UsageError, match="'x' has no parent folder"):
        scenes.load(Request(("x", "a/1")))
    with pytest.raises(UsageError, match="scenes has no lists"):
        scenes.load(Request(("a/1",), tmp_path))
    with pytest.raises(UsageError, match="split 3 is asked for, but scenes leaves out every video"):
        scenes.load(Request(("a/1",), numbers=(3,)))
    with pytest.raises(UsageError, match="leaving out each of 2001 videos trains as many SVMs, and 2000 are the most"):
        scenes.load(Request(tuple(f"{i % 2}/{i}" for i in range(2001))))
    with pytest.raises(UsageError, match="folds is 5"):
        scenes.load(Request(("a/1",), folds=5))
    features = write_file(tmp_path / "f.h5", {"fc6": draw(SCENES, folder_of)})
    with pytest.raises(UsageError, match="metric is 'map', but leaving one out"):
        svm_eval(features, "scenes", metrics=["map"])


# ----------------------------------------------------------------------------------------------------------- ActivityNet

ACTIONS = {f"train{i:06d}": ["surf", "iron", "wax"][i % 3] for i in range(18)} | {
    f"valid{i:06d}": ["surf", "iron", "wax"][i % 3] for i in range(9)
}


def annotations(**changes):
    database = {
        name: {
            "subset": "training" if name.startswith("train") else "validation",
            "annotations": [{"segment": [1.0, 3.5], "label": label}],
            "duration": 9.0,
        }
        for name, label in ACTIONS.items()
    }
    database["tested00001"] = {"subset": "testing", "annotations": []}
    # 2 s of waxing, 4 s of surfing in two pieces: trains as surf
    database["train000002"]["annotations"] = [
        {"segment": [0, 2], "label": "surf"},
        {"segment": [2, 4], "label": "wax"},
        {"segment": [4, 6], "label": "surf"},
    ]
    database["valid000000"]["annotations"].append({"segment": [5.0, 6.0], "label": "iron"})
    return {"version": "VERSION 1.3", "taxonomy": [], "database": database} | changes


@pytest.fixture
def small_activitynet(monkeypatch, tmp_path):
    monkeypatch.setattr(activitynet, "NUM_CLASSES", 3)
    monkeypatch.setattr(activitynet, "COUNTS", {"training": 18, "validation": 9})

    def write(text):
        path = tmp_path / "annotations.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    return write


def test_activitynet_by_hand(small_activitynet):
    path = small_activitynet(annotations())
    protocol = activitynet.load(Request(("videos/v_train000000", "train000001"), path))
    assert protocol.classes == ("iron", "surf", "wax")
    (split,) = protocol.splits
    assert (split.name, len(split.train), len(split.test)) == ("validation", 18, 9)
    assert split.train[:3] == (
        Entry("v_train000000", "surf"),
        Entry("train000001", "iron"),
        Entry("train000002", "surf"),
    )
    assert protocol.other_labels == {"train000002": ("wax",), "valid000000": ("iron",)}
    assert "videos of several classes: 2" in protocol.notes[0]


def test_activitynet_counts_are_the_official_ones():
    assert activitynet.COUNTS == {"training": 10_024, "validation": 4_926} and activitynet.NUM_CLASSES == 200


def test_activitynet_figures_equal_an_independent_computation(tmp_path, small_activitynet):
    vectors = draw(list(ACTIONS), ACTIONS.get, noise=2)
    features = write_file(tmp_path / "f.h5", {"fc6": {f"v_{name}": v for name, v in vectors.items()}})
    result = svm_eval(features, "activitynet", splits=small_activitynet(annotations()))
    trained = {**ACTIONS, "train000002": "surf"}
    train, test = (sorted(name for name in ACTIONS if name.startswith(s)) for s in ("train", "valid"))
    svm = fit([vectors[n] for n in train], [trained[n] for n in train])
    scores = svm.decision_function([vectors[n] for n in test])
    classes = svm.classes_.tolist()
    truth = np.array([[c == ACTIONS[n] or (c, n) == ("iron", "valid000000") for c in classes] for n in test])
    best = [classes[i] for i in scores.argmax(axis=1)]
    hits = [truth[i, classes.index(c)] for i, c in enumerate(best)]
    (split,) = result.runs[0].splits
    assert split.accuracy == pytest.approx(100 * np.mean(hits)) and 30 < split.accuracy < 100
    assert split.figures == {"top-3": 100, "map": pytest.approx(mean_average_precision(scores, truth))}
    # the figures that are printed for C3D, beside ours
    assert result.runs[0].published == 65.8 and result.runs[0].published_figures == {"top-3": 81.16, "map": 67.68}


def test_activitynet_files_that_are_not_the_official_one(tmp_path, small_activitynet):
    def refused(message, text, **request):
        with pytest.raises(UsageError, match=message):
            activitynet.load(Request((), small_activitynet(text), **request))

    refused("is not a JSON file", "{")
    refused("has no 'database'", "[]")
    refused("version 'VERSION 1.2', but the protocol is that of VERSION 1.3", annotations(version="VERSION 1.2"))
    refused("split 2 does not exist", annotations(), numbers=(2,))
    fewer = annotations()
    del fewer["database"]["valid000003"]
    refused("has 8 validation videos, but ActivityNet v1.3 has 9", fewer)
    for change, message in (
        ({"annotations": []}, "'valid000003' has no annotations"),
        ({"annotations": [{"label": "x"}]}, "an annotation of 'valid000003' lacks"),
        ({"annotations": [{"label": "x", "segment": [1]}]}, "an annotation of 'valid000003' lacks"),
        ({"subset": None, "annotations": None}, "has 8 validation videos"),
    ):
        odd = annotations()
        odd["database"]["valid000003"].update(change)
        refused(message, odd)
    odd = annotations()
    odd["database"]["valid000003"] = {"annotations": []}
    refused("'valid000003' has no subset", odd)
    odd = annotations()
    odd["database"]["valid000003"]["annotations"][0]["label"] = "fourth"
    refused("has 4 classes", odd)
    with pytest.raises(UsageError, match="activitynet needs its list file"):
        activitynet.load(Request(()))
    with pytest.raises(UsageError, match="is no file; --splits takes the annotation file"):
        activitynet.load(Request((), tmp_path))


# ------------------------------------------------------------------------------------------------------------------- CSV


def load_csv(tmp_path, text, **request):
    (tmp_path / "folds.csv").write_text(text)
    return DATASETS["csv"].load(Request((), tmp_path / "folds.csv", **request))


def test_csv_folds_by_hand(tmp_path):
    text = 'Fold,label,key,remark\n2,cat,a,\n10,cat,"b, c.avi",x\n\n2, dog ,d,\n10,dog,e,\n'
    protocol = load_csv(tmp_path, text)
    assert protocol.classes == ("cat", "dog") and [s.name for s in protocol.splits] == ["fold 2", "fold 10"]
    assert protocol.splits[0].test == (Entry("a", "cat"), Entry("d", "dog"))
    assert protocol.splits[0].train == protocol.splits[1].test == (Entry("b, c.avi", "cat"), Entry("e", "dog"))
    assert load_csv(tmp_path, text, numbers=(2,)).splits == protocol.splits[1:]


def test_csv_of_train_and_test(tmp_path):
    (split,) = load_csv(tmp_path, "a,cat,train\nb,dog,train\nc,cat,test\n").splits
    assert split.name == "test" and split.test == (Entry("c", "cat"),) and len(split.train) == 2


def test_csv_result_equals_scikit_learn(tmp_path):
    vectors = draw(SCENES, folder_of, noise=2.5)
    features = write_file(tmp_path / "f.h5", {"fc6": vectors})
    (tmp_path / "folds.csv").write_text("".join(f"{key}.avi,{folder_of(key)},{key[-1]}\n" for key in SCENES))
    result = svm_eval(features, "csv", splits=tmp_path / "folds.csv", metrics=("map",))
    assert [split.name for split in result.runs[0].splits] == [f"fold {i}" for i in range(5)]
    for i, split in enumerate(result.runs[0].splits):
        train, test = ([key for key in SCENES if (key[-1] == str(i)) == tested] for tested in (False, True))
        svm = fit([vectors[key] for key in train], [folder_of(key) for key in train])
        rows = np.stack([vectors[key] for key in test])
        assert split.accuracy == pytest.approx(100 * np.mean(svm.predict(rows) == [folder_of(key) for key in test]))
        truth = np.array([[folder_of(key) == c for c in svm.classes_] for key in test])
        expected = mean_average_precision(svm.decision_function(rows), truth)
        assert split.figures == {"map": pytest.approx(expected)}


def test_the_command_prints_the_metrics_asked_for(tmp_path, capsys):
    features = write_file(tmp_path / "f.h5", {"fc6": draw(SCENES, folder_of, noise=2.5)})
    (tmp_path / "folds.csv").write_text("".join(f"{key},{folder_of(key)},{int(key[-1]) % 2}\n" for key in SCENES))
    command = ["svm-eval", str(features), "--dataset", "csv", "--splits", str(tmp_path / "folds.csv"), "--quiet"]
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--metric", "map", "--metric", "top-2", "--json", str(tmp_path / "r.json")])
    (run,) = svm_eval(features, "csv", splits=tmp_path / "folds.csv", metrics=("map", "top-2")).runs
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    for split in run.splits:
        assert (
            f"{split.accuracy:6.2f} %   map {split.figures['map']:.2f} %   top-2 {split.figures['top-2']:.2f} %   ("
            in out
        )
    assert f"{run.mean:6.2f} %   map {run.figures['map']:.2f} %   top-2 {run.figures['top-2']:.2f} %\n" in out
    assert json.loads((tmp_path / "r.json").read_text())["runs"][0]["mean_figures"] == run.figures
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--metric", "mAP"])
    assert exit_.value.code == 2 and "metric is 'mAP', but must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,cat,1\nb,dog,1\n", "has the fold '1' only"),
        ("a,cat,train\nb,dog,1\n", "has the folds 1, train; name them train and test, or otherwise throughout"),
        ("a,cat,1\na,cat,2\n", "'a' is listed twice"),
        ("a,cat,1\nb,dog,2\n", "class 'cat' has test videos and none to train on"),
        ("a,cat\n", "line 1: 'a,cat' is not key,label,fold"),
        ("key,label,fold\na,,1\n", "line 2: 'a,,1' is not key,label,fold"),
        ("key,label,fold\n", "a header and no rows"),
        ("\n", "the table is empty"),
        ('"a\n', "not CSV in UTF-8"),
    ],
)
def test_csv_that_does_not_do(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        load_csv(tmp_path, text)


def test_tables_know_their_columns_by_number_too(tmp_path):
    (tmp_path / "t.csv").write_text("v,0,5,cup\n")
    rows = read_table(tmp_path / "t.csv", objects.FORMS[0], other_forms=objects.FORMS[1:])
    assert rows == [{"video": "v", "start_frame": "0", "end_frame": "5", "label": "cup"}]


# --------------------------------------------------------------------------------------------------------------- objects


def test_a_clips_label_by_hand():
    labels = {
        **dict.fromkeys(range(8), "cup"),
        **dict.fromkeys(range(9, 17), "jar"),
        **dict.fromkeys(range(20, 27), "tin"),
    }
    assert objects.clip_label(labels, 0, 16) == "cup"  # 8 frames of cup, 7 of jar
    assert objects.clip_label(labels, 1, 17) == "jar"  # 7 and 8
    assert objects.clip_label({**labels, 8: "jar"}, 0, 16) == "cup"  # 8 each: the one that comes first
    assert objects.clip_label(labels, 17, 33) is None  # 7 frames of tin
    assert objects.clip_label({}, 0, 16) is None


VIDEOS = {"a/one": "cup", "a/two": "jar", "b/three": "cup", "b/four": "jar", "b/five": "jar"}


@pytest.fixture
def object_lists(tmp_path, monkeypatch):
    """Clips start at 0, 8, 16 …; frames 0 to 23 of each video are labelled, so that of five clips the last two show nothing."""
    monkeypatch.setattr(objects, "NUM_CLASSES", 2)
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "labels.csv").write_text("".join(f"{v},0,24,{label}\n" for v, label in VIDEOS.items()))
    (folder / "train.txt").write_text("a/one.avi\na/two.avi\nfour\n")
    (folder / "test.txt").write_text("b/three\nb/five.avi\n")
    return folder


def clip_file(path, videos=VIDEOS, dtype="float32", **provenance):
    names = [f"{key} {i}" for key in VIDEOS for i in range(5)]
    rows = draw(names, lambda name: VIDEOS[name.split()[0]], noise=1.5)
    clips = {key: 3 * np.stack([rows[f"{key} {i}"] for i in range(5)]).astype(dtype) for key in videos}
    means = {key: l2_normalise(rows.astype(np.float32).mean(axis=0)) for key, rows in clips.items()}
    return write_file(path, {"fc6": means}, clips={"fc6": clips}, dtype=dtype, **provenance), clips


def test_objects_clips_by_hand(object_lists):
    starts = np.array([0, 8, 16])
    table = ClipTable(starts, starts + 16, starts / 25, starts / 25)
    protocol = objects.load(Request(("a/one", "a/two", "b/five"), object_lists, clip_table=lambda key: table))
    (split,) = protocol.splits
    assert split.train[:4] == (
        Entry("a/one @0", "cup"),
        Entry("a/one @8", "cup"),
        Entry("a/one @16", "cup"),  # frames 16 to 23: eight
        Entry("a/two @0", "jar"),
    )
    assert split.train[6] == Entry("four", "cup")  # not in the file, so by its name
    assert split.test == (Entry("b/three", "cup"), *(Entry(f"b/five @{s}", "jar") for s in (0, 8, 16)))
    assert protocol.notes == ("clips without a label for 8 frames, left out: 0",)


@pytest.mark.parametrize(("dtype", "save"), [("float32", "both"), ("float16", "both"), ("float32", "clips")])
def test_objects_result_equals_scikit_learn(tmp_path, object_lists, dtype, save):
    features, clips = clip_file(tmp_path / "f.h5", dtype=dtype, save=save)
    result = svm_eval(features, "objects", splits=object_lists)
    unit = {key: l2_normalise(rows[:3].astype(np.float32)) for key, rows in clips.items()}
    train, test = ("a/one", "a/two", "b/four"), ("b/three", "b/five")
    svm = fit(np.concatenate([unit[k] for k in train]), np.repeat([VIDEOS[k] for k in train], 3))
    hits = np.concatenate([svm.predict(unit[k]) == VIDEOS[k] for k in test])
    (split,) = result.runs[0].splits
    assert (split.num_train, split.num_test) == (9, 6)
    assert split.accuracy == pytest.approx(100 * hits.mean())
    assert "clips without a label for 8 frames, left out: 10" in result.notes
    assert any("10 of 25 clips in" in note for note in result.notes)
    assert result.runs[0].published == 22.3


def test_objects_that_the_file_lacks(tmp_path, object_lists):
    features, _ = clip_file(tmp_path / "f.h5", [v for v in VIDEOS if v != "b/four"])
    with pytest.raises(UsageError, match="1 of 13 listed clips are not in .*: four; extract them"):
        svm_eval(features, "objects", splits=object_lists)
    result = svm_eval(features, "objects", splits=object_lists, allow_missing=True)
    assert result.runs[0].splits[0].num_train == 6


def test_objects_that_cannot_be(tmp_path, object_lists):
    load = objects.load
    with pytest.raises(UsageError, match="evaluated clip by clip; extract with '--save clips'"):
        load(Request((), object_lists))
    features, _ = clip_file(tmp_path / "f.h5", fps=15.0)
    with pytest.raises(UsageError, match="made at 15 frames/s; extract with --fps 0"):
        svm_eval(features, "objects", splits=object_lists)
    request = Request((), object_lists, clip_table=lambda key: None)
    for text, message in (
        ("a/one,0,24,cup\na/one,23,jar\n", "is not video,start_frame,end_frame,label"),
        ("video,frame,label\na/one,3,cup\na/one,3,jar\n", "frame 3 of 'a/one' is 'cup' and 'jar'"),
        ("a/one,5,5,cup\n", "names no frames"),
        ("a/one,-1,cup\n", "names no frames"),
        ("a/one,x,cup\n", "names no frames"),
        ("a/one,1,cup\n", "has 1 classes, but the data set has 2"),
        ("a/one,1,cup\na/two,2,jar\n", "labels no frame of 3 listed videos: four, b.three, b.five.avi"),
    ):
        (object_lists / "labels.csv").write_text(text)
        with pytest.raises(UsageError, match=message):
            load(request)
