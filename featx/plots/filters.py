"""The first convolution as the papers print it: a tile a filter, its time from left to right, in the colours it looks for."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from featx.errors import UsageError
from featx.plots.canvas import GREY, new_figure, shorten, style, write_picture

if TYPE_CHECKING:
    from featx.checkpoints.first_filters import Filters

__all__ = ["draw_filters", "filters_figure", "tile_filters"]

WIDTH = 7.5  # inches, of the grid
TALLEST = 10.0
SHAPE = 0.55  # height of a grid for its width, about
CONTRAST = 0.44  # short of black and white, so that no weight looks like the background
BACKGROUND = 1.0


def draw_filters(filters: Filters, path: str | os.PathLike) -> None:
    """Draw every filter of the first convolution, and write it as the suffix of `path` says.

    Filters of three channels are in true colours, red for what answers to red; those of optical flow are grey, x above y.
    Each has its own scale, from its largest weight below zero (dark) to as much above (light): zero is mid grey.
    """
    write_picture(path, lambda: filters_figure(filters))


@style()
def filters_figure(filters: Filters) -> Figure:
    """The figure that `draw_filters` writes."""
    tiles = tile_filters(filters)
    n, height, width, _ = tiles.shape
    gap = 2 + (width > 40)  # in weights
    columns = _columns(n, height + gap, width + gap)
    rows = math.ceil(n / columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), BACKGROUND)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        grid[y : y + height, x : x + width] = tile
    inches = min(WIDTH, TALLEST * grid.shape[1] / grid.shape[0])
    tall = inches * grid.shape[0] / grid.shape[1]
    figure = new_figure(inches + 1, tall + 1)
    axes = figure.add_axes((0.5 / (inches + 1), 0.4 / (tall + 1), inches / (inches + 1), tall / (tall + 1)))
    axes.imshow(grid, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks(
        [r * (height + gap) + (height - 1) / 2 for r in range(rows)], [r * columns + 1 for r in range(rows)]
    )
    axes.tick_params(length=0, labelsize=8, labelcolor=GREY)
    axes.spines[:].set_visible(False)
    _, channels, depth, side, across = filters.weights.shape
    time = f"{depth} frames from left to right" if depth > 1 else "no extent in time"
    flow = "; x above y" * (channels == 2)
    title = f"{shorten(filters.name)} {filters.layer}: {n} filters of {side}x{across}, {time}{flow}; zero is mid grey"
    axes.set_title(title, loc="left", fontsize=9, color=GREY)
    return figure


def tile_filters(filters: Filters) -> np.ndarray:
    """The filters (N, C, T, H, W) as pictures, float64 (N, h, w, 3) of 0 to 1: their frames side by side, RGB.

    A line of background stands between frames, and between the channels of a filter that has not three.
    """
    weights = filters.weights.astype(np.float64)
    if weights.ndim != 5 or not weights.size:
        raise UsageError(f"filters have the shape {weights.shape}, but must be (N, C, T, H, W)")
    largest = np.abs(weights).max(axis=(1, 2, 3, 4), keepdims=True)
    values = 0.5 + CONTRAST * weights / np.where(largest > 0, largest, 1)
    n, channels, depth, height, width = values.shape
    if channels == 3:
        order = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}[filters.channel_order]
        frames = values[:, order].transpose(0, 2, 3, 4, 1)[:, None]  # (N, 3, T, H, W) -> (N, 1, T, H, W, 3)
    else:
        frames = np.repeat(values[..., None], 3, axis=-1)  # (N, C, T, H, W) -> (N, C, T, H, W, 3)
    rows = frames.shape[1]
    tiles = np.full((n, rows * (height + 1) - 1, depth * (width + 1) - 1, 3), BACKGROUND)
    for c in range(rows):
        for t in range(depth):
            y, x = c * (height + 1), t * (width + 1)
            tiles[:, y : y + height, x : x + width] = frames[:, c, t]
    return tiles


def _columns(n: int, height: int, width: int) -> int:
    """How many tiles stand in a row so that the whole has about the SHAPE, and the last row, if possible, no gap."""
    wanted = math.sqrt(n * height / width / SHAPE)

    def misfit(columns: int) -> float:
        left_over = math.ceil(n / columns) * columns - n
        return abs(math.log(columns / wanted)) + 4 * left_over / n

    return min(range(1, n + 1), key=misfit)
