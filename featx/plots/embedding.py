"""Videos, or clips, on a plane: a point each, in the colour and the shape of its class."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from featx.plots.canvas import (
    COLOURS,
    GREY,
    dark,
    marker_style,
    name_legend,
    new_figure,
    shorten,
    style,
    text_boxes,
    write_picture,
)
from featx.plots.places import place_boxes

if TYPE_CHECKING:
    from featx.evaluation.embedding import Embedding

__all__ = ["densest_place", "draw_embedding", "embedding_figure"]

SIDE = 6.0  # inches, of the plane of a few classes
AREA = 1.1  # square inches a class
MAX_SIDE = 24.0
LINE = 0.17  # inches a line of the legend takes
FEW = 14  # classes, up to which a legend is enough, and no name covers a point
MARGIN = 3.0  # dots between two names
LOOKED_AT = 1000  # points of a class
HALO = withStroke(linewidth=2, foreground="white", alpha=0.85)


def draw_embedding(embedding: Embedding, path: str | os.PathLike) -> None:
    """Draw the points with a legend beside, and write it as the suffix of `path` says.

    Many classes are named on the plane too, each where its points are densest, or as near as there is room, with a line.
    """
    write_picture(path, lambda: embedding_figure(embedding))


@style()
def embedding_figure(embedding: Embedding) -> Figure:
    """The figure that `draw_embedding` writes."""
    classes = embedding.classes
    side = min(MAX_SIDE, max(SIDE, math.sqrt(AREA * len(classes))))
    figure = new_figure(side + 1, side + 1)
    axes = figure.add_axes((0.5 / (side + 1), 0.5 / (side + 1), side / (side + 1), side / (side + 1)))
    points, labels = embedding.points, np.array(embedding.labels, dtype=object)
    clusters = [points[labels == name] for name in classes]
    size = float(np.clip(6000 * side / len(points), 9, 45))  # smaller where there are many: they cover each other less
    for i, own in enumerate(clusters):
        drawn = marker_style(i)
        own_size = 1.7 * size if drawn["marker"] == "*" else size  # a star fills little of its square
        axes.scatter(*own.T, s=own_size, alpha=0.8, label=str(i), **drawn)
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.05 * np.maximum(high - low, 1e-6)
    axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
    axes.set(xticks=[], yticks=[])  # distances are what is looked at, and t-SNE's axes mean nothing
    axes.spines[:].set(visible=True, color="#bbbbbb")
    axes.set_title(_title(embedding), loc="left", fontsize=9, color=GREY)
    if len(classes) > FEW:
        _name_classes(axes, clusters, classes)
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        ncols=math.ceil(len(classes) / (side / LINE)),
        borderaxespad=0,
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
        columnspacing=0.8,
        markerscale=math.sqrt(30 / size),
    )
    name_legend(legend, [shorten(name, 30) for name in classes])
    return figure


def _title(embedding: Embedding) -> str:
    method = {"tsne": "t-SNE", "pca": "two principal components"}[embedding.method]
    of_all = f" of {embedding.num_rows:,}" if len(embedding.names) < embedding.num_rows else ""
    source = shorten(f"{embedding.checkpoint} {embedding.layer}", 60)
    return f"{method} of {source}: {len(embedding.names):,}{of_all} {embedding.unit}s, {len(embedding.classes)} classes"


def densest_place(points: np.ndarray) -> np.ndarray:
    """Where most of the points (n, 2) are: the median of the half around the point that has its nearest half closest by.

    Of one heap it is about the median; of several it lies in one of them, where the median may lie in none.
    """
    looked_at = points[:: math.ceil(len(points) / LOOKED_AT)].astype(np.float64)
    distances = np.linalg.norm(looked_at[:, None] - looked_at[None], axis=2)
    half = (len(looked_at) + 1) // 2
    centre = np.sort(distances, axis=1)[:, :half].sum(axis=1).argmin()
    return np.median(looked_at[np.argsort(distances[centre], kind="stable")[:half]], axis=0)


def _name_classes(axes: Axes, clusters: list[np.ndarray], classes: tuple[str, ...]) -> None:
    texts = [
        axes.text(
            0, 0, shorten(name, 30), ha="center", va="center", fontsize=7.5, fontweight="bold", path_effects=[HALO]
        )
        for name in classes
    ]
    box = axes.bbox
    anchors = np.array([axes.transData.transform(densest_place(own)) for own in clusters]) - (box.x0, box.y0)
    sizes = np.array(text_boxes(axes, texts))
    centres = place_boxes(anchors, sizes, (box.width, box.height), MARGIN)
    for i, (text, anchor, centre) in enumerate(zip(texts, anchors, centres, strict=True)):
        colour = dark(COLOURS[i % len(COLOURS)])
        text.set(position=centre / (box.width, box.height), transform=axes.transAxes, color=colour, zorder=4)
        if (np.abs(centre - anchor) > sizes[i] / 2).any():  # the name no longer covers its place
            ends = np.stack([anchor, centre]) / (box.width, box.height)
            axes.plot(*ends.T, transform=axes.transAxes, color=colour, linewidth=0.6, zorder=3, clip_on=False)
