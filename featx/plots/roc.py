"""ROC curves of pairs of videos: the share of like pairs found against the share of unlike ones taken for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from featx.errors import UsageError
from featx.plots.canvas import GREY, line_style, name_legend, new_figure, shorten, style, write_picture

if TYPE_CHECKING:
    from featx.evaluation import SimilarityResult

__all__ = ["draw_roc", "roc_figure"]

SIDE = 4.2  # inches


def draw_roc(results: Sequence[SimilarityResult], path: str | os.PathLike) -> None:
    """Draw the ROC curve of each result, with its area in the legend, and write it as the suffix of `path` says."""
    write_picture(path, lambda: roc_figure(results))


@style()
def roc_figure(results: Sequence[SimilarityResult]) -> Figure:
    """The figure that `draw_roc` writes."""
    if not results:
        raise UsageError("there are 0 results to draw; a ROC picture needs at least 1")
    figure = new_figure(SIDE + 1, SIDE + 1)
    axes = figure.add_axes((0.15, 0.15, SIDE / (SIDE + 1), SIDE / (SIDE + 1)))
    axes.plot((0, 100), (0, 100), color=GREY, linestyle=(0, (1, 3)), linewidth=1)
    lines, names = [], []
    for i, result in sorted(enumerate(results), key=lambda item: -item[1].auc):
        drawn = {**line_style(i), "marker": None}
        x, y = ([100 * share for share in result.roc[f"{kind}_positives"]] for kind in ("false", "true"))
        published = f" (published {result.published['auc']:.1f} %)" if "auc" in result.published else ""
        name = shorten(f"{result.checkpoint} {'+'.join(result.layers)}", 60)
        lines += axes.plot(x, y, **drawn, linewidth=1.6)
        names.append(f"{name}: {result.auc:.1f} %{published}")
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.set_xlabel("unlike pairs taken for like (%)")
    axes.set_ylabel("like pairs found (%)")
    axes.grid(color="#dddddd", linewidth=0.6)
    # outside the axes, where no curve can run through it; best first, chance last
    legend = axes.legend(
        [*lines, axes.lines[0]],
        [str(i) for i in range(len(lines) + 1)],
        title="area under the curve",
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(0, -0.13),
        frameon=False,
        handlelength=3,
        borderaxespad=0,
    )
    name_legend(legend, [*names, "chance: 50.0 %"])
    return figure
