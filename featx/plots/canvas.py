"""What all pictures share: matplotlib without its global state, a palette, text that can be measured, and files.

The palette is that of Okabe and Ito (2008), made to be told apart by people with any kind of colour vision, without its
yellow, which is hardly seen on white; dashes and marker shapes go with the colours, so that no colour stands alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from featx.errors import one_line
from featx.evaluation.results import write_bytes
from featx.plots.files import MAKER

__all__ = [
    "COLOURS",
    "DASHES",
    "GREY",
    "MARKERS",
    "dark",
    "line_style",
    "marker_style",
    "name_legend",
    "new_figure",
    "shorten",
    "style",
    "text_boxes",
    "write_picture",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # those that differ when they are small
GREY = "#666666"
DOTS_PER_INCH = 150
MAX_NAME = 40  # characters of a class's or a feature's name

# nothing of the user's own settings goes into a picture, so that the same record gives the same one
SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a "$" in a class's name is a dollar
    "svg.hashsalt": "featx",
    "svg.fonttype": "path",  # measured here, and the same everywhere
    "pdf.fonttype": 42,
    "figure.dpi": DOTS_PER_INCH,
    "savefig.dpi": DOTS_PER_INCH,
}
# no date, or the same picture would be other bytes every time
METADATA = {
    ".png": {"Software": MAKER},
    ".svg": {"Creator": MAKER, "Date": None},
    ".pdf": {"Creator": MAKER, "CreationDate": None},
}


@contextmanager
def style() -> Iterator[None]:
    """What figures are made and written in, also as a decorator: matplotlib's defaults and our SETTINGS."""
    with matplotlib.rc_context():
        matplotlib.style.use("default")
        matplotlib.rcParams.update(SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, with a canvas of its own that can measure text; pyplot knows nothing of it."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def write_picture(path: str | os.PathLike, make: Callable[[], Figure]) -> None:
    """Write a figure, cut to what is on it, as the path's suffix says. Raises UsageError where that fails."""
    suffix = Path(path).suffix.lower()
    picture = io.BytesIO()
    with style():
        make().savefig(
            picture,
            format=suffix[1:],
            bbox_inches="tight",
            pad_inches=0.08,
            metadata=METADATA[suffix],
            facecolor="white",
        )
    write_bytes(path, picture.getvalue())


def shorten(name: str, length: int = MAX_NAME) -> str:
    """A name from a file for a label: one line, its middle left out where it is long."""
    name = one_line(name)
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def line_style(i: int) -> dict[str, object]:
    """Colour, dashes and marker of the i-th of several lines; 7 x 4 of them differ."""
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[(i + 2 * (i // len(COLOURS))) % len(DASHES)],
        "marker": MARKERS[i % len(MARKERS)],
    }


def marker_style(i: int) -> dict[str, object]:
    """Colour and shape of the points of the i-th of many classes, filled or hollow: 7 x 16 of them differ.

    Sevens and sixteens have no common divisor, so that neighbours differ in colour and in shape.
    """
    colour, shape = COLOURS[i % len(COLOURS)], i % (2 * len(MARKERS))
    filled = shape < len(MARKERS)
    return {
        "marker": MARKERS[shape % len(MARKERS)],
        "facecolors": colour if filled else "none",
        "edgecolors": "white" if filled else colour,
        "linewidths": 0.3 if filled else 0.8,
    }


def name_legend(legend: Legend, names: Sequence[str]) -> None:
    """Write the names of a legend's entries; matplotlib itself leaves out those that begin with "_"."""
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)


def dark(colour: str) -> tuple[float, float, float]:
    """A colour in which small text is read well on white."""
    return tuple(0.65 * value for value in to_rgb(colour))


def text_boxes(axes: Axes, texts: Sequence[Text]) -> list[tuple[float, float]]:
    """Width and height of each text, in dots."""
    renderer = axes.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    return [(box.width, box.height) for box in boxes]
