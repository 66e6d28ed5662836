"""Pictures: what they show is read back from what was drawn, and no label lies on another."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest

from featx.errors import UsageError
from featx.evaluation import Curve, Run, SimilarityResult, SplitResult, SVMResult
from featx.evaluation.embedding import Embedding
from featx.features import ClipTable, Features

pytest.importorskip("matplotlib", reason="matplotlib is not installed; pip install 'featx[plots]'")

from matplotlib.colors import to_rgb

from featx import plots
from featx.checkpoints.first_filters import Filters
from featx.plots.canvas import COLOURS, line_style, marker_style, shorten
from featx.plots.embedding import densest_place
from featx.plots.filters import tile_filters

NAMES_101 = tuple(f"{'Clean' * (i % 4)}AndJerk{'Handstand' * (i % 3)}Of{i:03d}" for i in range(101))
ODD = ("a$x$b$", "line\nbreak", "Ünïcode_{x}", "<b>&", "%FF", "x" * 300, "_hidden", "\udcff")


def svm_result(names, seed=0, untested=()):
    rng = np.random.default_rng(seed)
    confusion = {
        true: {found: int(count) for found, count in zip(names, rng.integers(0, 5, len(names)), strict=True) if count}
        for true in names
        if true not in untested
    }
    split = SplitResult("split 1", 9, 9, 82.3, dict.fromkeys(names, 80.0), 1.0, True, {}, confusion)
    return SVMResult(
        *("f.h5", (), "ucf101", "c3d", "c3d-sports1m", "fc6", 1.0, "newton", 0, len(names)),
        (Run(4096, False, None, (split,)),),
        *("", ()),
    )


def curve(name, offset=0.0, published=None):
    accuracies = tuple(50 + 10 * i + offset for i in range(4))
    return Curve(name, (10, 50, 100, 500), accuracies, (None, 61.0, None, None), 4096, 85 + offset, published)


def similarity_result(name, auc=80.0, published=None):
    roc = {"false_positives": [0.0, 0.25, 1.0], "true_positives": [0.0, 0.75, 1.0]}
    return SimilarityResult(
        *("f", "p", "b", name, ("fc6", "prob"), "sum", 0.0, "standard", 1.0, 0, 24, 100, 70.0, 1.0, auc, (), roc),
        *(published or {}, "", (), ()),
    )


def embedding(names, rows_a_class=4, seed=0, spread=10.0):
    rng = np.random.default_rng(seed)
    labels = tuple(name for name in names for _ in range(rows_a_class))
    centres = spread * np.repeat(rng.normal(size=(len(names), 2)), rows_a_class, axis=0)
    points = (centres + rng.normal(size=(len(labels), 2))).astype(np.float32)
    keys = tuple(map(str, range(len(labels))))
    return Embedding(keys, labels, points, "c3d-sports1m", "fc6", "video", "tsne", 0, len(labels))


def filters(channels=3, order="rgb", n=5, depth=3):
    rng = np.random.default_rng(0)
    return Filters("net", "conv1", rng.normal(size=(n, channels, depth, 3, 4)).astype(np.float32), order)


DRAWN = {
    plots.draw_curves: [curve("c3d fc6"), curve("p3d pool5", 1)],
    plots.draw_confusion: svm_result(("walk", "run", "fall")),
    plots.draw_roc: [similarity_result("c3d")],
    plots.draw_embedding: embedding(("walk", "run", "fall")),
    plots.draw_filters: filters(),
}


def boxes(texts, figure):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]


def assert_apart(texts, figure):
    drawn = boxes(texts, figure)
    for one, other in itertools.combinations(drawn, 2):
        overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(overlap) <= 0, (one, other)
    return drawn


def all_texts(figure):
    figure.draw_without_rendering()
    texts = list(figure.texts)
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_xticklabels")):
        texts += [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        texts += axes.get_legend().get_texts() if axes.get_legend() else []
    return texts


# ------------------------------------------------------------------------------------------------------------- the files


KINDS = {".png": b"\x89PNG", ".SVG": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize(
    ("draw", "suffix"),
    [*((draw, ".SVG") for draw in DRAWN), (plots.draw_filters, ".png"), (plots.draw_embedding, ".pdf")],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_the_suffix_decides_and_the_bytes_are_the_same_every_time(draw, suffix, tmp_path):
    for name in "ab":
        draw(DRAWN[draw], tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second and first.startswith(KINDS[suffix]) and len(first) > 2000
    assert len(list(tmp_path.iterdir())) == 2  # nothing is left beside
    plots.check_picture(tmp_path / f"a{suffix}")  # the next one may replace it
    assert "matplotlib.pyplot" not in sys.modules


def test_the_settings_of_the_user_change_nothing(tmp_path):
    import matplotlib

    plots.draw_confusion(DRAWN[plots.draw_confusion], tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "image.cmap": "jet"}):
        plots.draw_confusion(DRAWN[plots.draw_confusion], tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svgz", "missing/a.png"])
def test_what_cannot_be_drawn_is_refused_first(name, tmp_path):
    with pytest.raises(UsageError, match="cannot (draw|write) .*; "):
        plots.check_picture(tmp_path / name)


@pytest.mark.parametrize(
    "begin", [b"no picture", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4 my thesis", b"<?xml version='1.0'?>"]
)
def test_a_picture_replaces_nothing_else(begin, tmp_path):
    for name in ("a.png", "a.pdf", "a.svg"):
        (tmp_path / name).write_bytes(begin + b"\nnot drawn here")
        with pytest.raises(UsageError, match=f"{name} exists and is no picture that featx drew; it is not replaced"):
            plots.check_picture(tmp_path / name)


@pytest.mark.parametrize("problem", [None, "broken"])
def test_without_matplotlib_the_remedy_is_said(problem, tmp_path, monkeypatch):
    if problem is None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    else:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"matplotlib, which .*; install it with: pip install 'featx\[plots\]'"):
        plots.check_picture(tmp_path / "a.png")


def test_public_names_exist_and_are_documented():
    for name in plots.__all__:
        assert getattr(plots, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'draw_rok'"):
        plots.draw_rok  # noqa: B018


# ------------------------------------------------------------------------------------------------------------ the colours


def seen(colour, kind):
    """A colour as somebody sees it who lacks one kind of cones (Viénot, Brettel and Mollon 1999), linear RGB."""
    linear = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)])
    rows = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
        "all": np.eye(3),
    }[kind]
    return np.cbrt(np.clip(np.array(rows) @ linear, 0, 1))


@pytest.mark.parametrize("kind", ["all", "protan", "deutan"])
def test_colours_differ_for_everybody(kind):
    for one, other in itertools.combinations(COLOURS, 2):
        assert np.linalg.norm(seen(one, kind) - seen(other, kind)) > 0.1, (one, other)
    for colour in COLOURS:
        assert np.linalg.norm(seen(colour, kind) - 1) > 0.25, colour  # white paper


def test_101_classes_and_28_lines_have_their_own_look():
    assert len({tuple(map(str, marker_style(i).values())) for i in range(112)}) == 112
    assert len({(line_style(i)["color"], line_style(i)["linestyle"]) for i in range(28)}) == 28
    for i in range(100):
        one, other = marker_style(i), marker_style(i + 1)
        assert one["marker"] != other["marker"] and {*one.values()} != {*other.values()}


def test_names_are_shortened_in_the_middle():
    assert shorten("abcdefghij", 5) == "ab…ij" and shorten("abc", 5) == "abc" and shorten("a\nb") == "a\\nb"


# ------------------------------------------------------------------------------------------------------------ the curves


def test_curves_show_the_accuracies_and_published_figures():
    figure = plots.curves_figure([curve("c3d fc6", published=86.0), curve("p3d pool5", 1)], "ucf101")
    axes = figure.axes[0]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert ([10, 50, 100, 500], [50, 60, 70, 80]) in lines and ([10, 50, 100, 500], [51, 61, 71, 81]) in lines
    (column,) = {x[0] for x, y in lines if y in ([85.0], [86.0])}
    assert column > 500 and ([50, column], [61.0, 86.0]) in lines
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "50", "100", "500", "all"]
    assert [text.get_text() for text in axes.texts] == ["c3d fc6 (4,096)  85.0", "p3d pool5 (4,096)  86.0"]


@pytest.mark.parametrize("distance", [0, 0.05, 3])
def test_names_of_curves_that_end_together_do_not_overlap(distance):
    curves = [curve(f"net-{i} with a long name of its layer", distance * i, 85.0) for i in range(12)]
    figure = plots.curves_figure(curves, "a title")
    assert len(assert_apart(all_texts(figure), figure)) > 12 + 5
    tops = [text.get_position()[1] for text in figure.axes[0].texts]
    assert distance == 0 or tops == sorted(tops)  # in the order of the curves, so that lines to them do not cross


def test_dimensions_close_together_are_named_where_there_is_room():
    dims = (10, 11, 12, 13, 480, 490, 500)
    whole = Curve("a", dims, tuple(range(7)), (None,) * 7, 4096, 9.0, None)
    figure = plots.curves_figure([whole])
    assert_apart(all_texts(figure), figure)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[0] == "10" and labels[-1] == "all" and "" in labels


def test_a_curve_needs_points():
    with pytest.raises(UsageError, match="--dims"):
        plots.curves_figure([Curve("a", (), (), (), 4096, 9.0, None)])
    with pytest.raises(UsageError, match="0 results"):
        plots.roc_figure([])


# ------------------------------------------------------------------------------------------------- the confusion matrix


@pytest.mark.parametrize("names", [("walk", "run"), NAMES_101[:21], NAMES_101], ids=len)
def test_classes_of_a_confusion_matrix_are_legible(names):
    result = svm_result(names, untested=names[1:2])
    figure = plots.confusion_figure(result)
    texts = all_texts(figure)
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        sides = 2 if len(names) > 20 else 1
        assert [label.get_text() for label in labels if label.get_visible()][: len(names)] == list(map(shorten, names))
        assert sum(label.get_visible() for label in labels) == sides * len(names)
        assert all(label.get_fontsize() >= 7 for label in labels)
    assert_apart(texts, figure)
    shares = axes.images[0].get_array()
    counts = result.runs[0].confusion
    for i in range(len(names)):
        if i == 1:
            assert shares.mask[i].all()
        else:
            np.testing.assert_allclose(shares[i], 100 * counts[i] / counts[i].sum())
    if len(names) == 2:
        assert [text.get_text() for text in axes.texts] == [f"{share:.0f}" for share in shares[0] if share > 0]


# --------------------------------------------------------------------------------------------------------- the ROC curve


def test_roc_curves_are_named_with_their_areas():
    results = [similarity_result("res3d", 79.0), similarity_result("c3d", 80.0, {"auc": 86.5})]
    figure = plots.roc_figure(results)
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines]
    assert lines == [([0, 100], [0, 100]), *[([0, 25, 100], [0, 75, 100])] * 2]
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    expected = ["c3d fc6+prob: 80.0 % (published 86.5 %)", "res3d fc6+prob: 79.0 %", "chance: 50.0 %"]
    assert legend == expected  # best first
    assert_apart(all_texts(figure), figure)
    box = figure.axes[0].get_legend().get_window_extent()
    assert box.y1 < min(label.y0 for label in boxes(figure.axes[0].get_xticklabels(), figure))  # on no curve


# ---------------------------------------------------------------------------------------------------------- the embedding


def test_few_classes_have_a_legend_and_every_point_is_drawn():
    shown = embedding(("walk", "run", "fall"))
    figure = plots.embedding_figure(shown)
    axes = figure.axes[0]
    for name, heap in zip(shown.classes, axes.collections, strict=True):
        own = shown.points[[label == name for label in shown.labels]]
        np.testing.assert_allclose(heap.get_offsets(), own)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["fall", "run", "walk"]
    assert not axes.texts  # no name covers a point


@pytest.mark.parametrize("spread", [0.0, 10.0])
def test_names_of_101_classes_do_not_overlap(spread):
    shown = embedding(NAMES_101, spread=spread)
    figure = plots.embedding_figure(shown)
    drawn = assert_apart(all_texts(figure), figure)
    assert len(drawn) == 101 + 101 + 1  # on the plane, in the legend, and the title
    plane = figure.axes[0].get_window_extent()
    on_plane = boxes(figure.axes[0].texts, figure)
    assert len(on_plane) == 101
    assert all(plane.x0 - 1 <= box.x0 and box.x1 <= plane.x1 + 1 and box.y1 <= plane.y1 + 1 for box in on_plane)


def test_a_name_stands_where_its_class_is_densest():
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(100, 1, (40, 2))])
    assert np.abs(densest_place(heaps)).max() < 1
    np.testing.assert_allclose(densest_place(np.array([[3.0, 4.0]])), [3, 4])
    assert np.abs(densest_place(rng.normal(0, 1, (5000, 2)))).max() < 0.5


# ------------------------------------------------------------------------------------------------------------ the filters


def test_filters_are_tiles_of_frames_in_true_colours():
    shown = filters()
    tiles = tile_filters(shown)
    assert tiles.shape == (5, 3, 3 * 5 - 1, 3) and tiles.min() >= 0 and tiles.max() <= 1
    largest = np.abs(shown.weights[2]).max()
    for t, y, x, c in itertools.product(range(3), range(3), range(4), range(3)):
        expected = 0.5 + 0.44 * shown.weights[2, c, t, y, x] / largest
        assert tiles[2, y, 5 * t + x, c] == pytest.approx(expected)
    flipped = Filters("net", "conv1", shown.weights[:, ::-1], "bgr")
    np.testing.assert_array_equal(tile_filters(flipped), tiles)


def test_a_filter_that_looks_for_red_is_red_in_a_net_that_takes_bgr():
    weights = np.zeros((1, 3, 1, 1, 1), np.float32)
    weights[0, 2] = 2.0
    assert tile_filters(Filters("c3d", "conv1a", weights, "bgr"))[0, 0, 0] == pytest.approx([0.94, 0.5, 0.5])


def test_filters_of_flow_are_grey_x_above_y():
    shown = filters(2, "flow", depth=1)
    tiles = tile_filters(shown)
    assert tiles.shape == (5, 3 + 1 + 3, 4, 3) and (np.ptp(tiles, axis=3) == 0).all()
    largest = np.abs(shown.weights[0]).max()
    assert tiles[0, 5, 2, 0] == pytest.approx(0.5 + 0.44 * shown.weights[0, 1, 0, 1, 2] / largest)


@pytest.mark.parametrize("n", [1, 45, 64])
def test_every_filter_has_its_place_in_the_grid(n):
    shown = filters(n=n)
    figure = plots.filters_figure(shown)
    grid = np.asarray(figure.axes[0].images[0].get_array())
    tiles = tile_filters(shown)
    width, height = 14 + 2, 3 + 2
    columns = (grid.shape[1] + 2) // width
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * height, (i % columns) * width
        np.testing.assert_array_equal(grid[y : y + 3, x : x + 14], tile)
    firsts = [int(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    assert firsts == list(range(1, n + 1, columns))
    assert_apart(all_texts(figure), figure)


# ------------------------------------------------------------------------------------------------------- the whole job


@pytest.mark.parametrize(("num_frames", "num_clips"), [(24, 2), (3, 1), (400, 49)])
def test_the_overview_shows_frames_clips_and_features_where_they_lie(num_frames, num_clips):
    rng = np.random.default_rng(0)
    starts = 8 * np.arange(num_clips)
    clip_features = rng.random((num_clips, 240), dtype=np.float32)
    descriptor = clip_features.mean(axis=0) / np.linalg.norm(clip_features.mean(axis=0))
    features = Features(
        *("b/1", "b/1.mp4", num_frames, num_clips, 25.0, num_frames / 25, 0, 0),
        descriptors={"pool5": descriptor},
        clips={"pool5": clip_features},
        clip_table=ClipTable(starts, starts + 16, starts / 25, (starts + 16) / 25),
    )
    frames = [np.full((12, 20, 3), i % 256, np.uint8) for i in range(num_frames)]
    points = embedding(["a", "b"])
    points = replace(points, names=("b/1", *points.names[1:]))
    strip, clips, rows, plane = plots.overview_figure(frames, features, "pool5", points).axes
    assert [image.get_array()[0, 0, 0] for image in strip.images] == list(range(min(num_frames, 24)))
    assert [(bar.get_x(), bar.get_width()) for bar in clips.patches] == [(start, 16) for start in starts[:6]]
    heights = np.array([bar.get_height() for bar in rows.patches]).reshape(-1, 120)
    assert len(heights) == min(num_clips, 6) + 1
    pairs = descriptor.reshape(120, 2).mean(axis=1)
    np.testing.assert_allclose(heights[-1], 0.86 * pairs / pairs.max(), rtol=1e-5)
    np.testing.assert_array_equal(plane.collections[-1].get_offsets()[0], points.points[0])


# ----------------------------------------------------------------------------------------------------- whatever names are


def test_odd_names_are_drawn_as_they_are(tmp_path):
    plots.draw_confusion(svm_result(ODD), tmp_path / "a.png")
    plots.draw_embedding(embedding(ODD * 2), tmp_path / "b.svg")
    plots.draw_curves([curve(name) for name in ODD], tmp_path / "c.svg", title="$")
    plots.draw_roc([similarity_result(name) for name in ODD], tmp_path / "d.svg")
    figure = plots.confusion_figure(svm_result(ODD))
    legend = plots.embedding_figure(embedding(ODD)).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [shorten(name, 30) for name in sorted(ODD)]
    assert "a$x$b$" in [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert_apart(all_texts(figure), figure)
