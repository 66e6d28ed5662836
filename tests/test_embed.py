"""`featx embed` and `featx filters`: what is put on the plane, and which weights are shown."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
import torch
from feature_files import write_file
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from small_weights import small_card, trained_state

from featx.catalog import get_checkpoint
from featx.checkpoints.first_filters import Filters, first_filters
from featx.cli import main
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.evaluation import embed
from featx.evaluation.embedding import METHODS

CLASSES = ("fall", "run", "walk")


def make_rows(seed=0, dims=20):
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(3, dims))
    return {f"{c}/{i:02d}": centres[k] + rng.normal(size=dims) for k, c in enumerate(CLASSES) for i in range(12)}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    rng, rows = np.random.default_rng(1), make_rows()
    clips = {
        key: (row + 0.1 * rng.normal(size=(2 + i % 3, 20))).astype(np.float32)
        for i, (key, row) in enumerate(rows.items())
    }
    path = tmp_path_factory.mktemp("embed") / "f.h5"
    return write_file(path, {"fc6": rows}, clips={"fc6": clips})


def run(capsys, *args):
    with pytest.raises(SystemExit) as exit:
        main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err


# ----------------------------------------------------------------------------------------------------------- the points


def test_pca_gives_the_distances_of_scikit_learns(features):
    embedding = embed(features, method="pca")
    rows = make_rows()
    expected = PCA(2).fit_transform(l2_normalise(np.stack([rows[key] for key in sorted(rows)])).astype(np.float64))
    assert embedding.names == tuple(sorted(rows)) and embedding.classes == CLASSES
    assert embedding.labels == tuple(key.split("/")[0] for key in sorted(rows))
    np.testing.assert_allclose(pdist(embedding.points), pdist(expected), atol=1e-5)


def test_tsne_keeps_classes_together_and_is_the_same_every_time(features):
    embedding, again = embed(features), embed(features)
    assert np.array_equal(embedding.points, again.points) and embedding.points.dtype == np.float32
    assert np.array_equal(embedding.points, embed(features, seed=1).points)  # which is for samples
    labels = np.array(embedding.labels)
    for i, point in enumerate(embedding.points):  # the nearest other point is of the same class
        distances = np.linalg.norm(embedding.points - point, axis=1)
        assert labels[np.argsort(distances)[1]] == labels[i]


def test_clips_have_the_class_of_their_video(features):
    embedding = embed(features, clips=True, method="pca")
    assert len(embedding.names) == embedding.num_rows == sum(2 + i % 3 for i in range(36)) and embedding.unit == "clip"
    assert embedding.names[:3] == ("fall/00 @0", "fall/00 @8", "fall/01 @0")
    assert all(name.startswith(f"{label}/") for name, label in zip(embedding.names, embedding.labels, strict=True))


@pytest.mark.parametrize("clips", [False, True])
def test_a_sample_holds_rows_of_the_whole(features, clips):
    whole, part = (embed(features, clips=clips, method="pca", max_rows=n) for n in (1000, 30))
    assert len(part.names) == 30 and part.num_rows == len(whole.names)
    assert any("30 of" in note and "seed 0" in note for note in part.notes)
    assert list(part.names) == [name for name in whole.names if name in part.names]  # in their order, none twice
    assert part.names != embed(features, clips=clips, method="pca", max_rows=30, seed=1).names
    # the very rows of these names: nearest in the whole are nearest in the part
    both = [whole.names.index(name) for name in part.names]
    assert np.corrcoef(pdist(part.points), pdist(whole.points[both]))[0, 1] > 0.99


def test_labels_from_a_table(features, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "".join(f"{key}.avi,{'odd' if int(key[-1]) % 2 else 'even'}\n" for key in list(make_rows())[:20]) + "x,odd\n"
    )
    embedding = embed(features, labels=table, method="pca")
    assert len(embedding.names) == 20 and embedding.classes == ("even", "odd")
    assert dict(zip(embedding.names, embedding.labels, strict=True))["fall/03"] == "odd"
    assert "1 of 21 videos" in embedding.notes[0] and "16 of 36 videos are not in" in embedding.notes[1]


def test_a_table_that_labels_a_video_twice_is_refused(features, tmp_path):
    (tmp_path / "labels.csv").write_text("fall/00,x\nfall/01,y\nfall/00,y\n")
    with pytest.raises(UsageError, match="'fall/00' has the labels 'x' and 'y'"):
        embed(features, labels=tmp_path / "labels.csv", method="pca")


def test_segments_have_the_class_of_their_video(tmp_path):
    rows = {f"{key}/{s:06d}.000-{s + 5:06d}.000": row + s for key, row in make_rows().items() for s in (0, 5)}
    embedding = embed(write_file(tmp_path / "f.h5", {"fc6": rows}), method="pca")
    assert embedding.classes == CLASSES


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_equal", [5, 9, 10])
def test_few_rows_and_equal_rows_and_rows_of_zeros_do(tmp_path, method, num_equal):
    rng = np.random.default_rng(0)
    rows = {f"a/{i}": np.ones(3) if i < num_equal else rng.normal(size=3) for i in range(10)} | {"a/z": np.zeros(3)}
    points = embed(write_file(tmp_path / "f.h5", {"fc6": rows}), method=method).points
    assert np.isfinite(points).all() and np.ptp(points[:num_equal], axis=0).max() < 1e-3
    same = write_file(tmp_path / "same.h5", {"fc6": {f"a/{i}": np.ones(1) for i in range(num_equal)}})
    assert not embed(same, method=method).points.any()


def test_mistakes_say_what_to_do(features, tmp_path):
    for options, error, words in (
        ({"method": "umap"}, UsageError, "must be one of tsne, pca"),
        ({"seed": -1}, UsageError, "seed is -1"),
        ({"max_rows": 2}, UsageError, "at least 5"),
        ({"layer": "fc7"}, UnknownNameError, "fc7"),
        ({"labels": tmp_path / "none.csv"}, UsageError, "cannot be read"),
        ({"csv_path": tmp_path / "missing/a.csv"}, UsageError, "its folder does not exist"),
    ):
        with pytest.raises(error, match=words):
            embed(features, **options)
    (tmp_path / "other.csv").write_text("b,c\n")
    with pytest.raises(UsageError, match="none of the videos"):
        embed(features, labels=tmp_path / "other.csv")
    with pytest.raises(UsageError, match="no parent folder .* --labels"):
        embed(write_file(tmp_path / "flat.h5", {"fc6": {str(i): np.ones(3) for i in range(9)}}))
    with pytest.raises(UsageError, match="2 videos have a label"):
        embed(write_file(tmp_path / "few.h5", {"fc6": {f"a/{i}": np.ones(3) for i in range(2)}}))
    with pytest.raises(FeatureFileError, match="'a/3' is not finite"):
        rows = {f"a/{i}": np.full(3, np.nan if i == 3 else 1) for i in range(9)}
        embed(write_file(tmp_path / "nan.h5", {"fc6": rows}))
    with pytest.raises(UsageError, match="holds 2 layers"):
        embed(write_file(tmp_path / "two.h5", {"fc6": make_rows(), "fc7": make_rows()}))
    with pytest.raises(UsageError, match="clip"):
        embed(write_file(tmp_path / "plain.h5", {"fc6": make_rows()}), clips=True)


# ---------------------------------------------------------------------------------------------------------- the filters


@pytest.mark.parametrize("name", ["c3d-sports1m", "res3d-sports1m", "p3d199-flow-kinetics", "p3d199-kinetics"])
def test_first_filters_are_the_first_convolution_on_pixels(name, tmp_path):
    card = small_card(name)
    state = trained_state(card)
    torch.save(state, tmp_path / "w.pth")
    filters = first_filters(card, tmp_path / "w.pth")
    first = next(key for key, tensor in state.items() if tensor.ndim == 5)
    assert f"{filters.layer}.weight" == first and filters.channel_order == card.preprocess.channel_order
    expected = state[first].numpy() / np.array(card.preprocess.std, np.float32).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(filters.weights, expected)


def test_filters_of_another_number_of_channels_are_refused():
    with pytest.raises(UsageError, match="must be \\(N, 2, T, H, W\\) for flow"):
        Filters("net", "conv1", np.zeros((4, 3, 1, 3, 3), np.float32), "flow")


# ------------------------------------------------------------------------------------------------------ the command line


def test_the_commands_draw(capsys, features, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install 'featx[plots]'")
    points, picture = tmp_path / "points.csv", tmp_path / "a.png"
    code, out, _ = run(capsys, "embed", features, "-o", picture, "--method", "pca", "--max", 20, "--csv", points)
    assert code == 0 and out.startswith("20 videos of 3 classes, c3d-sports1m fc6, by pca, drawn to")
    assert "note: 20 of 36 rows" in out and picture.read_bytes().startswith(b"\x89PNG")
    expected = embed(features, method="pca", max_rows=20)
    rows = list(csv.DictReader(points.open()))
    assert [(row["name"], row["label"]) for row in rows] == list(zip(expected.names, expected.labels, strict=True))
    np.testing.assert_allclose([(float(row["x"]), float(row["y"])) for row in rows], expected.points, rtol=1e-5)
    code, out, _ = run(capsys, "filters", "res3d-mini", "-o", tmp_path / "f.svg")
    number = len(first_filters(get_checkpoint("res3d-mini")).weights)
    assert (code, out) == (0, f"{number} filters of res3d-mini, conv1, drawn to {tmp_path / 'f.svg'}\n")
    args = ("svm-eval", features, "--dataset", "folders", "--quiet")
    code, out, err = run(capsys, *args, "--dims", 2, "--dims", 5, "--plot-curves", tmp_path / "c.pdf")
    assert code == 0 and (tmp_path / "c.pdf").exists(), err
    code, out, err = run(capsys, *args, "--plot-confusion", tmp_path / "m.svg")
    assert code == 0 and (tmp_path / "m.svg").exists(), err
    write_file(tmp_path / "positive.h5", {"fc6": {key: np.abs(row) for key, row in make_rows().items()}})
    pairs = [
        (f"{c}/{2 * k + i:02d}", f"{d}/{6 + i:02d}", c == d, k)
        for k in range(3)
        for i in (0, 1)
        for c in CLASSES
        for d in CLASSES
    ]
    (tmp_path / "pairs.csv").write_text("".join(f"{a},{b},{int(same)},{k}\n" for a, b, same, k in pairs))
    code, out, err = run(
        capsys, "similarity", tmp_path / "positive.h5", tmp_path / "pairs.csv", "--quiet", "--plot", tmp_path / "r.png"
    )
    assert code == 0 and (tmp_path / "r.png").exists(), err


COMMANDS = (
    ("embed", "none.h5", "-o"),
    ("filters", "res3d-mini", "-o"),
    ("similarity", "none.h5", "none.csv", "--plot"),
    ("svm-eval", "none.h5", "--dataset", "folders", "--dims", "2", "--plot-curves"),
    ("svm-eval", "none.h5", "--dataset", "folders", "--plot-confusion"),
)


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: f"{args[0]} {args[-1]}")
def test_what_cannot_be_drawn_is_refused_before_any_work(args, capsys, tmp_path, monkeypatch):
    """The feature files do not even exist."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *args, "a.jpg")
    assert (code, out) == (2, "") and "use .png, .svg, .pdf" in err and len(err.splitlines()) == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run(capsys, *args, "a.png")
    assert (code, out) == (2, "") and "pip install 'featx[plots]'" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_pictures_that_nothing_is_given_for_are_refused(capsys, features, tmp_path):
    args = ("svm-eval", features, "--dataset", "folders")
    assert "--dims" in run(capsys, *args, "--plot-curves", tmp_path / "a.png")[2]
    code, _, err = run(capsys, "svm-eval", features, features, *args[2:], "--plot-confusion", tmp_path / "a.png")
    assert code == 2 and "draws one feature file, but 2 are given" in err
    for given in ((), ("res3d-mini", "--card", "x.json")):
        code, _, err = run(capsys, "filters", *given, "-o", tmp_path / "a.png")
        assert code == 2 and "one of the two" in err
