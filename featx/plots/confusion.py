"""The confusion matrix: which class was taken for which, readable for many classes too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from featx.plots.canvas import new_figure, shorten, style, write_picture

if TYPE_CHECKING:
    from featx.evaluation import SVMResult

__all__ = ["confusion_figure", "draw_confusion"]

PITCH = 0.135  # inches a class, at least: a line of the smallest text and a gap
SIDE = 4.5  # inches, of the matrix of a few classes
AROUND = 3.0  # inches on every side for names; what stays empty is cut away
FEW = 20  # classes, up to which the numbers stand in their cells


def draw_confusion(result: SVMResult, path: str | os.PathLike) -> None:
    """Draw the confusion matrix of the descriptors as they are, all splits together, and write it as the suffix says.

    Rows are true classes and add up to 100 %; a class that no split tests is grey. Colours go with the root of the share, so
    that single confusions are seen.
    """
    write_picture(path, lambda: confusion_figure(result))


@style()
def confusion_figure(result: SVMResult) -> Figure:
    """The figure that `draw_confusion` writes."""
    run = result.runs[0]
    counts, names = run.confusion, [shorten(name) for name in run.classes]
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(np.divide(100 * counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0))
    n = len(names)
    side = max(SIDE, PITCH * n)
    whole = side + 2 * AROUND
    figure = new_figure(whole, whole)
    axes = figure.add_axes((AROUND / whole, AROUND / whole, side / whole, side / whole))
    colours = colormaps["Blues"].with_extremes(bad="#bbbbbb")
    image = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 100), interpolation="nearest", aspect="auto")
    _name_classes(axes, names)
    for edge in np.arange(n - 1) + 0.5:  # lines lead from a cell to its names
        axes.axhline(edge, color="#d8d8d8", linewidth=0.4)
        axes.axvline(edge, color="#d8d8d8", linewidth=0.4)
    if n <= FEW:
        _write_numbers(axes, shares)
    name = shorten(result.name, 60)
    title = f"{name}, {result.dataset}: accuracy {result.accuracy:.1f} %, {int(counts.sum()):,} tests"
    _add_scale(figure, axes, image, title)
    return figure


def _name_classes(axes: Axes, names: list[str]) -> None:
    """Names at all four sides where there are many, so that none is far away."""
    many = len(names) > FEW
    places, size = range(len(names)), 7 if many else 9
    axes.set_xticks(places, names, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=2, pad=1.5, left=True, right=many, labelright=many, bottom=True, top=many, labeltop=many)
    axes.tick_params(axis="x", labelrotation=90)
    axes.spines[:].set_visible(True)
    axes.set_ylabel("true class", fontsize=10)
    axes.set_xlabel("class found", fontsize=10)


def _write_numbers(axes: Axes, shares: np.ma.MaskedArray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share is not np.ma.masked and share > 0:
            colour = "white" if share > 30 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=7)


def _add_scale(figure: Figure, axes: Axes, image: AxesImage, title: str) -> None:
    """What the colours mean, and the title, above whatever the names take."""
    names = axes.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    left, top = axes.get_position().x0, names.y1 / figure.dpi
    scale = figure.add_axes((left, (top + 0.3) / height, 2.4 / width, 0.11 / height))
    figure.colorbar(image, cax=scale, orientation="horizontal", ticks=[0, 1, 5, 20, 50, 100])
    scale.tick_params(labelsize=8, length=2)
    scale.set_title(
        "% of the true class" + "; grey: not tested" * bool(image.get_array().mask.any()), fontsize=8, loc="left"
    )
    figure.text(left, (top + 0.7) / height, title, fontsize=10, va="bottom")
