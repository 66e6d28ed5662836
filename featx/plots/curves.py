"""Accuracy against dimensions after PCA, a curve a descriptor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from featx.errors import UsageError
from featx.plots.canvas import GREY, dark, line_style, new_figure, shorten, style, text_boxes, write_picture
from featx.plots.places import spread

if TYPE_CHECKING:
    from featx.evaluation import Curve

__all__ = ["curves_figure", "draw_curves"]

WIDTH, HEIGHT = 5.6, 3.8  # inches, of the axes
LINE = 0.19  # inches a label takes
COLUMN_GAP = 0.12  # of the axis, before the column of descriptors as they are
GAP = 5  # dots between two names of dimensions


def draw_curves(curves: Sequence[Curve], path: str | os.PathLike, title: str = "") -> None:
    """Draw accuracy in % against dimensions (logarithmic), a line a curve, and write it as the suffix of `path` says.

    Descriptors as they are stand in a column of their own at the right, joined to their curves by dots; published figures are
    hollow. Raises UsageError for no curves and for one without points.
    """
    write_picture(path, lambda: curves_figure(curves, title))


@style()
def curves_figure(curves: Sequence[Curve], title: str = "") -> Figure:
    """The figure that `draw_curves` writes."""
    if not curves or any(not curve.dims for curve in curves):
        raise UsageError("a curve needs accuracies after PCA; evaluate with dims (--dims 10 --dims 50 …)")
    tall = max(HEIGHT, LINE * len(curves) + 0.4)
    figure = new_figure(WIDTH + 3, tall + 1)
    axes = figure.add_axes((0.7 / (WIDTH + 3), 0.6 / (tall + 1), WIDTH / (WIDTH + 3), tall / (tall + 1)))
    dims = sorted({d for curve in curves for d in curve.dims})
    column = dims[-1] * max(1.3, (dims[-1] / dims[0]) ** COLUMN_GAP)
    for i, curve in enumerate(curves):
        _draw_curve(axes, curve, line_style(i), column)
    axes.set_xscale("log")
    axes.set_xlabel("dimensions after PCA")
    axes.set_ylabel("accuracy (%)")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.margins(x=0.04, y=0.06)
    _label_dimensions(axes, dims, column)
    _label_ends(axes, curves, column)
    notes = ["hollow: published"] if _has_published(curves) else []
    for line, text in enumerate([*notes, *([shorten(title, 90)] if title else [])]):
        y = (0.6 + tall + 0.08 + 0.22 * line) / (tall + 1)
        kind = {"color": GREY, "fontsize": 8} if text in notes else {"fontsize": 10}
        figure.text(0.7 / (WIDTH + 3), y, text, **kind)
    return figure


def _has_published(curves: Sequence[Curve]) -> bool:
    return any(value is not None for curve in curves for value in (*curve.published, curve.whole_published))


def _draw_curve(axes: Axes, curve: Curve, drawn: dict[str, object], column: float) -> None:
    alone = {**drawn, "linestyle": "none"}
    joint = (curve.dims[-1], column), (curve.accuracies[-1], curve.whole)
    axes.plot(*joint, color=drawn["color"], linestyle=(0, (1, 3)), linewidth=1)
    axes.plot(curve.dims, curve.accuracies, **drawn, linewidth=1.5, markersize=4.5)
    axes.plot([column], [curve.whole], **alone, markersize=6)
    published = [*zip(curve.dims, curve.published, strict=True), (column, curve.whole_published)]
    published = [(x, value) for x, value in published if value is not None]
    if published:
        axes.plot(*zip(*published, strict=True), **alone, markerfacecolor="none", markersize=9)


def _label_dimensions(axes: Axes, dims: Sequence[int], column: float) -> None:
    """Ticks at the dimensions that were evaluated, named where there is room."""
    axes.set_xticks([*dims, column], [*(f"{d:,}" for d in dims), "all"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.figure.draw_without_rendering()  # so that axis and labels have their places
    labels = axes.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    kept = [len(labels) - 1, 0]  # the ends first
    for i in range(1, len(labels) - 1):
        if all(boxes[i].x0 - boxes[k].x1 > GAP or boxes[k].x0 - boxes[i].x1 > GAP for k in kept):
            kept.append(i)
    axes.set_xticks([*dims, column], [label.get_text() if i in kept else "" for i, label in enumerate(labels)])


def _label_ends(axes: Axes, curves: Sequence[Curve], column: float) -> None:
    """Each curve's name behind its last point, moved up or down where names would meet."""
    to_dots, to_axes = axes.transData.transform, axes.transAxes.inverted().transform
    x, _ = to_axes(to_dots((column, curves[0].whole)))
    heights = [to_axes(to_dots((column, curve.whole)))[1] for curve in curves]
    texts = [
        axes.text(x + 0.08, 0, f"{shorten(curve.name, 60)} ({curve.whole_dims:,})  {curve.whole:.1f}", va="center")
        for curve in curves
    ]
    line = max(height for _, height in text_boxes(axes, texts)) / axes.bbox.height
    places = spread(heights, 1.15 * line)
    places -= max(0.0, places.max() - 1) + min(0.0, places.min())
    for i, (text, height, place) in enumerate(zip(texts, heights, places, strict=True)):
        colour = line_style(i)["color"]
        text.set(y=place, transform=axes.transAxes, color=dark(colour))
        leader = (x + 0.015, x + 0.035, x + 0.07), (height, height, place)
        axes.plot(*leader, transform=axes.transAxes, color=colour, linewidth=0.6, clip_on=False)
