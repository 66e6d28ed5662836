"""The whole job in one picture: a video's frames, its clips, their features, the descriptor, and where it lies among others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from featx.plots.canvas import COLOURS, GREY, dark, marker_style, name_legend, new_figure, shorten, style, write_picture

if TYPE_CHECKING:
    from featx.evaluation.embedding import Embedding
    from featx.features import Features

__all__ = ["draw_overview", "overview_figure"]

WIDTH, HEIGHT = 11.0, 4.0  # inches
MAX_FRAMES, MAX_CLIPS = 24, 6  # that can still be told apart
BARS = 120  # strips of a row of numbers, each the mean of those beside each other


def draw_overview(
    frames: Sequence[np.ndarray], features: Features, layer: str, embedding: Embedding, path: str | os.PathLike
) -> None:
    """Draw how `features` came about, and write the picture as the suffix of `path` says.

    `frames`: all frames of the video, RGB uint8 (H, W, 3) each. `features` must hold clip features and the descriptor of
    `layer`. `embedding` holds the video and others as points, the video under its key.
    """
    write_picture(path, lambda: overview_figure(frames, features, layer, embedding))


@style()
def overview_figure(frames: Sequence[np.ndarray], features: Features, layer: str, embedding: Embedding) -> Figure:
    """The figure that `draw_overview` writes."""
    figure = new_figure(WIDTH, HEIGHT)
    left, right = 0.02, 0.60
    strip = figure.add_axes((left, 0.74, right - left, 0.18))
    clips = figure.add_axes((left, 0.52, right - left, 0.20), sharex=strip)
    rows = figure.add_axes((left, 0.06, right - left, 0.36))
    plane = figure.add_axes((0.64, 0.06, 0.26, 0.86))
    table = features.clip_table
    _draw_strip(strip, frames, f"{shorten(features.key)}: {features.num_frames} frames, {features.fps:g} a second")
    _draw_clips(clips, table.start_frame[:MAX_CLIPS], table.end_frame[:MAX_CLIPS])
    _draw_rows(rows, features.clips[layer][:MAX_CLIPS], features.descriptors[layer], layer)
    _draw_plane(plane, embedding, features.key)
    return figure


def _heading(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=8, color=GREY, pad=3)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_strip(axes: Axes, frames: Sequence[np.ndarray], text: str) -> None:
    """Frames side by side, each over its own unit of the axis, cut to the upright middle that fits there."""
    shown = frames[:MAX_FRAMES]
    box = axes.get_window_extent()
    aspect = box.width / len(shown) / box.height
    for i, frame in enumerate(shown):
        height, width, _ = frame.shape
        keep = min(width, max(1, round(height * aspect)))
        first = (width - keep) // 2
        axes.imshow(frame[:, first : first + keep], extent=(i + 0.03, i + 0.97, 0, 1), aspect="auto")
    axes.set(xlim=(0, len(shown)), ylim=(0, 1))
    _heading(axes, text)


def _draw_clips(axes: Axes, starts: np.ndarray, ends: np.ndarray) -> None:
    """A bar a clip under the frames that it takes."""
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        axes.barh(-i, end - start, left=start, height=0.62, color=colour, alpha=0.85)
        axes.text(
            (start + end) / 2,
            -i,
            f"clip {i}: frames {start} to {end - 1}",
            color="white",
            ha="center",
            va="center",
            fontsize=7,
        )
    axes.set_ylim(-len(starts) + 0.4, 0.6)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_rows(axes: Axes, clip_features: np.ndarray, descriptor: np.ndarray, layer: str) -> None:
    """The clip features as rows of strips, and the descriptor below them."""
    rows = [*clip_features, descriptor]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(clip_features))] + ["#000000"]
    for i, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        parts = np.array([part.mean() for part in np.array_split(np.abs(row), min(BARS, len(row)))])
        heights = 0.86 * parts / max(float(parts.max()), 1e-12)
        below = -i - 0.35 * (i == len(rows) - 1)
        axes.bar(np.arange(len(parts)), heights, bottom=below, width=0.8, color=colour)
        name = f"clip {i}" if i < len(clip_features) else "descriptor"
        axes.text(len(parts) + 0.5, below + 0.05, name, fontsize=7, color=dark(colour), va="bottom")
    axes.set(xlim=(-0.5, 1.13 * min(BARS, len(descriptor))), ylim=(-len(rows) + 0.6, 0.9))
    _heading(axes, f"{layer}, {len(descriptor):,} numbers a clip; their mean, L2-normalised, is the descriptor")


def _draw_plane(axes: Axes, embedding: Embedding, key: str) -> None:
    """All videos as points, the one that is told about in a ring."""
    labels = np.array(embedding.labels, dtype=object)
    for i, name in enumerate(embedding.classes):
        axes.scatter(*embedding.points[labels == name].T, s=22, alpha=0.85, label=str(i), **marker_style(i))
    place = embedding.points[list(embedding.names).index(key)]
    axes.scatter(*place, s=160, facecolors="none", edgecolors="black", linewidths=1.2)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1), borderaxespad=0, frameon=False, fontsize=6.5, handletextpad=0.1
    )
    name_legend(legend, [shorten(name, 24) for name in embedding.classes])
    method = {"tsne": "t-SNE", "pca": "principal components"}[embedding.method]
    _heading(axes, f"{len(embedding.names):,} videos on a plane ({shorten(embedding.layer, 20)}, {method})")
    axes.spines[:].set(visible=True, color="#bbbbbb")
