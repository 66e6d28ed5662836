"""The twelve measures by a slow and literal form, View2.mat written by scipy, and the protocol by scikit-learn."""

import json
import math

import numpy as np
import pytest
from feature_files import write_file
from scipy.io import savemat
from sklearn.metrics import auc, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featx.cli import main
from featx.compact import pca
from featx.descriptors import l2_normalise
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.evaluation import aslan, similarity
from featx.evaluation.measures import FLOOR, NORMS, measure_pairs
from featx.evaluation.pairs import Pair, read_pairs

# ---------------------------------------------------------------------------------------------------------- the measures


def literally(x1, x2, norm):
    """The list of the benchmark's paper, entry by entry, in plain Python."""

    def over(part, whole):
        return part / whole if whole else 0.0

    def normalised(x):
        whole = {"sum": sum(x), "l2": math.sqrt(sum(v * v for v in x)), "none": 1.0}[norm]
        return [over(v, whole) for v in x]

    both = list(zip(x1, x2, strict=True))
    numbers = [
        sum(a * b for a, b in both),
        math.sqrt(sum(a * b for a, b in both)),
        math.sqrt(sum(math.sqrt(a) * math.sqrt(b) for a, b in both)),
        math.sqrt(sum(over(a * b, a + b) for a, b in both)),
        over(sum(a * b for a, b in both), math.sqrt(sum(a * a for a in x1)) * math.sqrt(sum(b * b for b in x2))),
        math.sqrt(sum(over((a - b) ** 2, a + b) for a, b in both)),
        sum(abs(a - b) for a, b in both),
        math.sqrt(sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in both)),
    ]
    p1, p2 = normalised([a + FLOOR for a in x1]), normalised([b + FLOOR for b in x2])
    x1, x2 = normalised(x1), normalised(x2)
    both = list(zip(x1, x2, strict=True))
    divergence = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p1, p2, strict=True)) / 2
    return [
        *numbers,
        math.sqrt(sum((a - b) ** 2 for a, b in both)),
        divergence,
        sum(over(math.sqrt(max(a, b)), math.sqrt(a + b)) for a, b in both),
        over(sum(min(a, b) for a, b in both), sum(x1) * sum(x2)),
    ]


def sparse(seed, n=12, d=30):
    """Rows as a ReLU leaves them: most entries 0, some rows 0 altogether."""
    rows = np.maximum(np.random.default_rng(seed).standard_normal((n, d)) - 0.8, 0)
    rows[0] = 0
    return l2_normalise(rows)


@pytest.mark.parametrize("norm", NORMS)
def test_the_twelve_measures_equal_the_list(norm):
    a, b = sparse(0), sparse(1)
    a[1], b[2], b[3] = 0, 0, a[3]  # a zero vector with one that is not, on either side, and a pair of equals
    found = measure_pairs(a, b, norm)
    assert found.shape == (12, 12) and np.isfinite(found).all()
    expected = [literally(x.tolist(), y.tolist(), norm) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_two_vectors_by_hand():
    """(1, 0, 3) and (1, 2, 0): products 1, 0, 0; sums 2, 2, 3; differences 0, -2, 3. To sum 1: (1/4, 0, 3/4), (1/3, 2/3, 0)."""
    (found,) = measure_pairs(np.array([[1.0, 0, 3]]), np.array([[1.0, 2, 0]]))
    divergence = (1 / 4 - 1 / 3) * math.log(3 / 4) / 2  # the first entry's part
    by_hand = [
        1,
        1,
        1,
        math.sqrt(1 / 2),
        1 / math.sqrt(10 * 5),
        math.sqrt(4 / 2 + 9 / 3),
        5,
        math.sqrt(2 + 3),
        math.sqrt((1 / 12) ** 2 + (2 / 3) ** 2 + (3 / 4) ** 2),
        None,
        math.sqrt(1 / 3) / math.sqrt(7 / 12) + 1 + 1,
        1 / 4,
    ]
    for i, value in enumerate(by_hand):
        assert value is None or found[i] == pytest.approx(value), f"number {i + 1}"
    # entries of 0 stand as FLOOR / sum, so that each of the two other parts is a large but finite number
    floor_1, floor_2 = FLOOR / 4, FLOOR / 3
    parts = (2 / 3) * math.log((2 / 3) / floor_1) + (3 / 4) * math.log((3 / 4) / floor_2)
    assert found[9] == pytest.approx(divergence + parts / 2, rel=1e-4)


def test_measures_are_the_same_either_way_round_and_stay_finite():
    a, b = sparse(2), sparse(3)
    np.testing.assert_allclose(measure_pairs(a, b), measure_pairs(b, a), atol=1e-12)
    for rows in (np.zeros((2, 5)), np.full((2, 5), 1e-30), np.full((2, 5), 1e30)):
        assert np.isfinite(measure_pairs(rows, np.eye(5)[:2])).all()
    same = measure_pairs(a, a)
    np.testing.assert_allclose(same[:, [5, 6, 7, 8, 9]], 0, atol=1e-9)
    with pytest.raises(ValueError, match="without negative entries"):
        measure_pairs(-a, b)


# ------------------------------------------------------------------------------------------------------------- the pairs


def view2(seed=0):
    """A table of ASLAN's form: fold n pairs samples 1 + 369 n to 369 (n + 1), of random actions."""
    rng = np.random.default_rng(seed)
    table = np.empty((600, 5, 10))
    for n in range(10):
        table[:, :2, n] = 1 + 369 * n + rng.integers(0, 369, (600, 2))
        table[:, 2, n] = rng.permutation(np.repeat([0, 1], 300))
        table[:, 3, n], table[:, 4, n] = 5, 5 + (1 - table[:, 2, n])
    return table


def test_view2_by_hand(tmp_path):
    table = view2()
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": table})
    table[0, :2, 3] = 17, 3697
    table[0, 2, 3], table[1, 2, 3] = 1, 0
    table[2:, 2, 3] = np.repeat([0, 1], 299)
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": table.astype(np.uint16)})
    folds = read_pairs(tmp_path / "View2.mat", ["ASLAN_0017", "x/y_3697", "other"])
    assert [fold.name for fold in folds] == [f"fold {n}" for n in range(1, 11)]
    assert all(len(fold.pairs) == 600 and sum(pair.same for pair in fold.pairs) == 300 for fold in folds)
    assert folds[3].pairs[0] == Pair("ASLAN_0017", "x/y_3697", True)
    assert folds[0].pairs[5].first == f"{int(table[5, 0, 0]):04d}"


def test_pairs_that_do_not_do(tmp_path):
    def refused(message, name="View2.mat", text=None, keys=(), **tables):
        if tables:
            savemat(tmp_path / name, tables)
        elif text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=message):
            read_pairs(tmp_path / name, keys)

    refused("cannot read .*absent.mat", "absent.mat")
    refused("is no MATLAB file of version 5", text="no such thing" * 100)
    refused("action_splits_pairs is not there", other=view2())
    refused(r"has the shape \(599, 5, 10\), but is \(600, 5, 10\)", action_splits_pairs=view2()[1:])
    for place, value, message in (
        ((0, 2, 0), 2, "a fold has not 300 pairs"),
        ((0, 0, 0), 0, "not numbered from 1 to 3697"),
        ((0, 0, 0), 3698, "not numbered from 1 to 3697"),
        ((0, 1, 0), 1.5, "not numbered from 1 to 3697"),
    ):
        table = view2()
        table[place] = value
        refused(message, action_splits_pairs=table)
    refused("'a/0001' and 'b/0001' both end", action_splits_pairs=view2(), keys=("a/0001", "b/0001"))
    refused("line 1: 'a,b,1' is not first,second,same,fold", "p.csv", "a,b,1\n")
    refused("says 'yes', but the same is 1", "p.csv", "a,b,yes,1\n")
    refused("has the fold 'train', but pairs are cross-validated", "p.csv", "a,b,1,train\na,c,0,test\n")
    refused("fold 1 has pairs of one kind only", "p.csv", "a,b,1,1\na,c,0,2\n")
    refused("has 1 fold, but one tests", "p.csv", "a,b,1,1\na,c,0,1\n")


# ---------------------------------------------------------------------------------------------------------- the protocol

D = 25
FOLDS = 4


@pytest.fixture
def place(tmp_path):
    """aslan.h5 with two layers of 48 videos, 12 a fold, and pairs.csv with 40 pairs a fold; (path, vectors, pairs)."""
    rng = np.random.default_rng(0)
    actions = {f"v{i:02d}": i // 4 for i in range(12 * FOLDS)}  # twelve actions of four videos
    centres = rng.standard_normal((12, D))
    vectors = {
        layer: {
            key: l2_normalise(np.maximum(centres[action] + noise * rng.standard_normal(D), 0))
            for key, action in actions.items()
        }
        for layer, noise in (("fc6", 1.5), ("prob", 2.0))
    }
    pairs = []
    for fold in range(FOLDS):
        own = [key for key, action in actions.items() if action // 3 == fold]
        every = [(a, b) for i, a in enumerate(own) for b in own[:i]]
        same = [(a, b, 1, fold) for a, b in every if actions[a] == actions[b]]
        other = [(a, b, 0, fold) for a, b in every if actions[a] != actions[b]]
        pairs += same + [other[i] for i in rng.permutation(len(other))[: len(same)]]
    (tmp_path / "pairs.csv").write_text("".join(f"{a}.avi,{b}.avi,{s},{f}\n" for a, b, s, f in pairs))
    write_file(tmp_path / "aslan.h5", vectors)
    return tmp_path, vectors, pairs


def by_hand(vectors, pairs, norm="sum", scaling="standard", C=1.0):
    """Accuracies and decision values of all folds, with scikit-learn only."""
    numbers = np.concatenate(
        [
            [literally(vectors[layer][a].tolist(), vectors[layer][b].tolist(), norm) for a, b, _, _ in pairs]
            for layer in ("fc6", "prob")
        ],
        axis=1,
    )
    same, fold_of = (np.array([pair[i] for pair in pairs]) for i in (2, 3))
    accuracies, scores = [], np.empty(len(pairs))
    for fold in range(FOLDS):
        train, test = numbers[fold_of != fold], numbers[fold_of == fold]
        if scaling == "standard":
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
        else:
            train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
        svm = LinearSVC(C=C, dual="auto", random_state=0, tol=1e-7, max_iter=100_000).fit(train, same[fold_of != fold])
        accuracies.append(100 * np.mean(svm.predict(test) == same[fold_of == fold]))
        scores[fold_of == fold] = svm.decision_function(test)
    return accuracies, scores, same, fold_of


@pytest.mark.parametrize(
    "options", [{}, {"norm": "l2"}, {"norm": "none", "C": 0.1}, {"scaling": "l2"}], ids=lambda options: str(options)
)
def test_the_result_equals_scikit_learns(place, options):
    path, vectors, pairs = place
    result = similarity(path / "aslan.h5", path / "pairs.csv", **options)
    accuracies, scores, same, fold_of = by_hand(vectors, pairs, **options)
    assert [fold.accuracy for fold in result.folds] == pytest.approx(accuracies, abs=1e-9)
    assert [fold.auc for fold in result.folds] == pytest.approx(
        [100 * roc_auc_score(same[fold_of == n], scores[fold_of == n]) for n in range(FOLDS)], abs=0.1
    )
    assert result.accuracy == pytest.approx(np.mean(accuracies)) and 60 < result.accuracy < 100
    assert result.standard_error == pytest.approx(np.std(accuracies, ddof=1) / 2)
    assert result.auc == pytest.approx(100 * roc_auc_score(same, scores), abs=0.1)
    assert (result.num_numbers, result.num_pairs, result.layers) == (24, len(pairs), ("fc6", "prob"))
    x, y = result.roc["false_positives"], result.roc["true_positives"]
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1) and auc(x, y) == pytest.approx(result.auc / 100)


def test_what_is_planted_in_a_folds_pairs_changes_nothing_that_is_fitted_without_it(place, monkeypatch):
    """Give the videos of fold 0 vectors that tell its labels, on another scale."""
    path, vectors, _ = place
    planted = {
        layer: {key: (90 * np.eye(D)[int(key[1:]) // 4] if int(key[1:]) < 12 else row) for key, row in rows.items()}
        for layer, rows in vectors.items()
    }
    write_file(path / "planted.h5", planted)
    scales, models = [], []
    fit_scaling, fit_svm = aslan.fit_scaling, aslan.fit_linear_svm
    probe = np.random.default_rng(1).random((5, 24))
    monkeypatch.setattr(aslan, "fit_scaling", lambda *a: scales.append(fit_scaling(*a)(probe)) or fit_scaling(*a))
    monkeypatch.setattr(aslan, "fit_linear_svm", lambda *a, **k: models.append(fit_svm(*a, **k)) or models[-1])
    clean, told = (similarity(path / name, path / "pairs.csv") for name in ("aslan.h5", "planted.h5"))
    np.testing.assert_array_equal(scales[0], scales[FOLDS])
    np.testing.assert_array_equal(models[0].weights, models[FOLDS].weights)
    assert not np.array_equal(scales[1], scales[FOLDS + 1])  # where fold 0 trains, it does count
    assert told.folds[0] != clean.folds[0]


def test_layers_and_blocks_of_pairs(place, monkeypatch):
    path, _, _ = place
    whole = similarity(path / "aslan.h5", path / "pairs.csv")
    monkeypatch.setattr(aslan, "BLOCK_VALUES", 7 * D)
    assert similarity(path / "aslan.h5", path / "pairs.csv", layers=("prob", "fc6")) == whole
    one = similarity(path / "aslan.h5", path / "pairs.csv", layers=("prob",))
    assert one.num_numbers == 12 and one.layers == ("prob",)


def test_a_number_that_never_changes_tells_nothing():
    rows = np.c_[np.full(9, 0.1) + 1e-17, np.arange(9.0)]
    scaled = aslan.fit_scaling(rows, "standard")(rows)
    np.testing.assert_array_equal(scaled[:, 0], 0)
    np.testing.assert_allclose(scaled[:, 1].std(), 1)


def test_missing_videos(place):
    path, vectors, pairs = place
    fewer = {layer: {k: v for k, v in rows.items() if k != "v05"} for layer, rows in vectors.items()}
    write_file(path / "fewer.h5", fewer)
    with pytest.raises(UsageError, match=r"1 of \d+ videos in pairs are not in .*: v05"):
        similarity(path / "fewer.h5", path / "pairs.csv")
    result = similarity(path / "fewer.h5", path / "pairs.csv", allow_missing=True)
    left = sum("v05" not in pair for pair in pairs)
    assert result.num_pairs == left and f"pairs left out: {len(pairs) - left} of {len(pairs)}" in result.notes[0]


def test_warnings(place):
    path, _, _ = place
    assert similarity(path / "aslan.h5", path / "pairs.csv").warnings == ()
    mixed = (path / "pairs.csv").read_text() + "v00.avi,v01.avi,1,3\n"
    (path / "mixed.csv").write_text(mixed)
    (warning,) = similarity(path / "aslan.h5", path / "mixed.csv").warnings
    assert "videos stand in the pairs of several folds (2 times" in warning


def test_refusals(place):
    path, vectors, _ = place

    def refused(message, features="aslan.h5", error=UsageError, **options):
        with pytest.raises(error, match=message):
            similarity(path / features, path / "pairs.csv", **options)

    refused("norm is 'l1', but must be one of sum, l2, none", norm="l1")
    refused("scaling is 'x', but must be one of standard, l2", scaling="x")
    refused("C is 0", C=0)
    refused("seed is -1", seed=-1)
    refused("unknown layer 'fc9'", layers=("fc9",), error=UnknownNameError)
    refused("its folder does not exist", json_path=path / "absent/x.json")
    pca(path / "aslan.h5", path / "compact.h5", dims=5)
    refused("the fc6 descriptor of 'v.*' has entries below 0, .* not after PCA", "compact.h5")
    broken = {layer: {**rows, "v07": np.full(D, np.inf)} for layer, rows in vectors.items()}
    write_file(path / "broken.h5", broken)
    refused("the fc6 descriptor of 'v07' is not finite", "broken.h5", error=FeatureFileError)


def run_cli(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["similarity", *map(str, arguments)])
    return exit_.value.code, *capsys.readouterr()


def test_the_command_equals_the_api(place, capsys):
    path, _, _ = place
    options = ("--layer", "prob", "--norm", "l2", "-C", 0.5, "--json", path / "r.json")
    code, out, err = run_cli(capsys, path / "aslan.h5", path / "pairs.csv", *options)
    result = similarity(path / "aslan.h5", path / "pairs.csv", layers=("prob",), norm="l2", C=0.5)
    assert (code, err) == (0, "")  # a bar is for terminals
    assert json.loads((path / "r.json").read_text()) == json.loads(json.dumps(result.as_dict()))
    assert f"{result.accuracy:.2f} % ± {result.standard_error:.2f} (standard error)" in out
    assert f"{result.auc:.2f} % area" in out and "12 numbers a pair" in out and "none known" in out
    code, out, err = run_cli(capsys, path / "aslan.h5", path / "absent.csv", "--quiet")
    assert code == 2 and not out and len(err.splitlines()) == 1


def test_published_figures_stand_beside_the_layers_of_the_paper(place):
    path, vectors, _ = place
    four = {layer: vectors["fc6"] for layer in ("pool5", "fc6", "fc7", "prob")}
    result = similarity(write_file(path / "four.h5", four), path / "pairs.csv")
    assert result.published == {"accuracy": 78.3, "auc": 86.5} and "table 4" in result.published_source
    assert result.num_numbers == 48 and "published" not in similarity(path / "aslan.h5", path / "pairs.csv").published


def test_a_figure_far_from_the_papers_comes_with_its_causes(place):
    path, vectors, _ = place
    rows = {key: row for key, row in vectors["fc6"].items() if key != "v05"}
    layers = dict.fromkeys(("res4b35", "res5c", "pool5", "prob"), rows)
    features = write_file(path / "p3d.h5", layers, checkpoint="p3d199-sports1m", backbone="p3d199")
    for scaling in ("standard", "l2"):
        result = similarity(features, path / "pairs.csv", allow_missing=True, scaling=scaling)
        (causes,) = [note.partition("likeliest: ")[2] for note in result.notes if "likeliest" in note]
        assert causes.startswith("(1) 1 listed videos were left out; (2)")
        assert ("(2) the paper scales the numbers of each pair to length 1 (--scaling l2)" in causes) == (
            scaling != "l2"
        )
