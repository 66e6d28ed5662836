"""svm-fit and svm-predict: what is kept is what was trained, and it is applied to what it was trained on."""

import csv
import json

import h5py
import numpy as np
import pytest
from feature_files import write_file
from sklearn.decomposition import PCA
from sklearn.svm import LinearSVC
from test_cli import run
from test_svm_eval import CLASSES, KEYS, TESTED, D, is_test, make_vectors, splits  # noqa: F401

from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, ProvenanceError, UsageError
from featx.evaluation import SVMModel, svm_eval, svm_fit, svm_predict, write_predictions
from featx.provenance import PIXELS_VERSION

NEW = [f"new/{i}" for i in range(9)]


@pytest.fixture
def features(tmp_path):
    return write_file(tmp_path / "features.h5", {"fc6": make_vectors()})


@pytest.fixture
def fresh(tmp_path):
    rows = np.random.default_rng(9).standard_normal((len(NEW), D))
    return write_file(tmp_path / "new.h5", {"fc6": dict(zip(NEW, rows, strict=True))}, engine="onednn", batch_size=8)


def matrix(vectors):
    return np.stack([vectors[key] for key in sorted(vectors)]).astype(np.float64)


@pytest.mark.parametrize("dims", [None, 6])
def test_scores_are_scikit_learns(tmp_path, features, fresh, dims):
    model, _ = svm_fit(features, tmp_path / "m.h5", labels="folders", dims=dims, C=0.5)
    assert model.classes == CLASSES and model.num_train == 72 and model.C == 0.5
    train, labels = matrix(make_vectors()), [key.split("/")[0] for key in sorted(KEYS)]
    test = l2_normalise(np.random.default_rng(9).standard_normal((len(NEW), D))).astype(np.float64)
    if dims:
        fitted = PCA(dims, svd_solver="full").fit(train)
        train, test = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in map(fitted.transform, (train, test)))
    svm = LinearSVC(C=0.5, dual=False, tol=1e-8, max_iter=9999).fit(train, labels)
    for prediction, scores in zip(
        svm_predict(fresh, tmp_path / "m.h5", top=4), svm.decision_function(test), strict=True
    ):
        order = np.argsort(-scores)
        assert prediction.labels == tuple(svm.classes_[order])
        assert prediction.scores == pytest.approx(scores[order], abs=5e-3)


def test_a_split_predicts_what_svm_eval_counted(tmp_path, features, splits):  # noqa: F811
    evaluated = svm_eval(features, "ucf101", splits=splits, numbers=(2,), dims=(5,))
    model, _ = svm_fit(features, tmp_path / "m.h5", dataset="ucf101", splits=splits, number=2, dims=5)
    assert "training videos of split 2" in model.trained_on
    right = [p.labels[0] == p.key.split("/")[0] for p in svm_predict(features, model) if is_test(p.key, 2)]
    assert 100 * np.mean(right) == pytest.approx(evaluated.runs[1].mean)


def test_what_is_read_is_what_was_written(tmp_path, features):
    model, _ = svm_fit(features, tmp_path / "m.h5", labels="folders", dims=5)
    read = SVMModel.load(tmp_path / "m.h5")
    for ours, theirs in ((model.linear, read.linear), (model.basis, read.basis)):
        for name, value in vars(ours).items():
            np.testing.assert_array_equal(value, getattr(theirs, name), err_msg=name)
    for name in ("classes", "sources", "C", "solver", "num_train", "trained_on", "featx_version"):
        assert getattr(model, name) == getattr(read, name)
    with h5py.File(tmp_path / "m.h5") as h5:  # numbers and text only: nothing to unpickle
        kinds = []
        h5.visititems(lambda name, item: kinds.append(item.dtype.kind) if isinstance(item, h5py.Dataset) else None)
    assert set(kinds) <= set("fiu")


def test_labels_from_a_csv_file(tmp_path, features, capsys):
    table = tmp_path / "labels.csv"
    table.write_text("key,label\n" + "".join(f"{k},{'yoyo' if 'YoYo' in k else 'other'}\n" for k in KEYS[3:]))
    code, out, _ = run(capsys, "svm-fit", features, "--labels", table, "-o", tmp_path / "m.h5", "--quiet")
    assert code == 0 and "2 classes from 69 videos (labels.csv), C 1" in out
    assert SVMModel.load(tmp_path / "m.h5").classes == ("other", "yoyo")

    def refused(text, message):
        table.write_text(text)
        with pytest.raises(UsageError, match=message):
            svm_fit(features, tmp_path / "x.h5", labels=table)

    refused("nobody,a\n" + "".join(f"{k},{k[0]}\n" for k in KEYS), "1 of 73 labelled videos are not in .*: nobody")
    assert svm_fit(features, tmp_path / "x.h5", labels=table, allow_missing=True)[1][0].endswith("left out")
    (tmp_path / "x.h5").unlink()
    table.write_text('"Archery,a\n')
    with pytest.raises(FeatureFileError, match="labels.csv: line 1 is not comma-separated values"):
        svm_fit(features, tmp_path / "x.h5", labels=table)
    refused(f"{KEYS[0]}\n", "line 1, 'Archery/.*', is not 'key,label'")
    refused(f"{KEYS[0]},a\n{KEYS[0]},b\n", "line 2 labels 'Archery/.*' b, an earlier one a")
    refused(f"{KEYS[0]},a\n{KEYS[1]},a\n", "all videos are of class a")
    refused("key,label\n", "labels no video")


def test_other_features_are_refused(tmp_path, features):
    svm_fit(features, tmp_path / "m.h5", labels="folders")

    def refused(message, layer="fc6", vectors=None, concat=(), **changes):
        path = write_file(tmp_path / "other.h5", {layer: vectors or make_vectors()}, **changes)
        with pytest.raises(UsageError, match=message):
            svm_predict(path, tmp_path / "m.h5", layer=layer, concat=concat)

    refused("trained on fc6, but .*other.h5 gives fc7", layer="fc7")
    refused("checkpoint_sha256 is 'abab.*' for the model, 'cdcd", checkpoint_sha256="cd" * 32)
    refused("checkpoint is 'c3d-sports1m' for the model, 'c3d-ucf101'", checkpoint="c3d-ucf101")
    refused(f"pixels_version is {PIXELS_VERSION} for the model, 1 in", pixels_version=1)
    refused("stride is 8 for the model, 16 in", stride=16)
    refused("30 dimensions for the model, 4 in", vectors={"a": np.ones(4)})
    refused("trained on c3d-sports1m fc6, but .* gives c3d-sports1m fc6 . c3d-sports1m fc6", concat=[features])
    two = write_file(tmp_path / "two.h5", {"fc7": make_vectors(1), "fc6": make_vectors()})  # the model knows its layer
    assert svm_predict(two, tmp_path / "m.h5") == svm_predict(features, tmp_path / "m.h5")


def test_joined_features(tmp_path, features):
    other = write_file(tmp_path / "other.h5", {"fc7": make_vectors(1)})
    svm_fit(features, tmp_path / "m.h5", labels="folders", concat=[other], C="auto")
    right = [p.labels[0] == p.key.split("/")[0] for p in svm_predict(features, tmp_path / "m.h5", concat=[other])]
    assert np.mean(right) > 0.9
    with pytest.raises(ProvenanceError, match="trained on c3d-sports1m fc6 . c3d-sports1m fc7, but .* --concat"):
        svm_predict(features, tmp_path / "m.h5")


def test_commands(tmp_path, features, fresh, capsys):
    model = tmp_path / "m.h5"
    assert run(capsys, "svm-fit", features, "--labels", "folders", "-o", model, "--quiet")[0] == 0
    code, _, err = run(capsys, "svm-fit", features, "--labels", "folders", "-o", model)
    assert code == 2 and "m.h5 exists" in err
    code, out, _ = run(capsys, "svm-predict", fresh, "--model", model, "--top", 2)
    rows = list(csv.DictReader(out.splitlines()))
    predictions = svm_predict(fresh, model, top=2)
    assert code == 0 and [row["key"] for row in rows] == NEW
    assert [(row["label"], row["label_2"]) for row in rows] == [p.labels for p in predictions]
    assert [float(row["score"]) for row in rows] == pytest.approx([p.scores[0] for p in predictions], abs=1e-6)
    for suffix in ("csv", "json"):
        assert run(capsys, "svm-predict", fresh, "--model", model, "-o", tmp_path / f"p.{suffix}", "--top", 2)[0] == 0
    assert (tmp_path / "p.csv").read_text() == out
    entries = json.loads((tmp_path / "p.json").read_text())
    assert [tuple(c["label"] for c in e["classes"]) for e in entries] == [p.labels for p in predictions]
    for arguments, message in [
        (("svm-predict", fresh, "--model", model, "--top", 9), "top is 9"),
        (("svm-predict", fresh, "--model", tmp_path / "no.h5"), "no such file"),
        (("svm-predict", fresh, "--model", fresh), "not a model"),
        (("svm-fit", features, "-o", tmp_path / "x.h5"), "either --labels"),
        (("svm-fit", features, "--dataset", "ucf101", "-o", tmp_path / "x.h5"), "choose it with --split"),
        (("svm-fit", fresh, "--labels", "folders", "-o", tmp_path / "x.h5"), "all videos are of class new"),
        (("svm-fit", features, "--labels", "folders", "-o", tmp_path / "no" / "x.h5"), "folder does not exist"),
    ]:
        code, _, err = run(capsys, *arguments)
        assert code == 2 and message in err, err


def test_a_damaged_model_is_refused(tmp_path, features):
    path = tmp_path / "m.h5"
    svm_fit(features, path, labels="folders")
    whole = path.read_bytes()
    model = SVMModel.load(path)
    at = whole.index(model.linear.weights.tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(FeatureFileError, match="damaged: arrays/weights"):
        SVMModel.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FeatureFileError, match="not a model, or damaged"):
        SVMModel.load(path)
    write_predictions(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text() == "key,label,score\n"
