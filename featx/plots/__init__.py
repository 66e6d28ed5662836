"""The papers' pictures, drawn from records; the only room that imports matplotlib, which comes with ``featx[plots]``.

    draw_curves([curve(result), …], "curves.svg")          accuracy against dimensions after PCA
    draw_confusion(result, "confusion.png")                what was taken for what
    draw_roc([similarity(…), …], "roc.pdf")                pairs told apart
    draw_embedding(embed(…), "tsne.png")                   videos or clips on a plane, by class
    draw_filters(first_filters(…), "filters.png")          the first convolution, time from left to right
    draw_overview(frames, features, "fc6", embed(…), …)    a video's frames, clips and descriptor, and where it lies

Each has a twin, `curves_figure` and so on, that gives the matplotlib Figure instead. The suffix of the path decides between
PNG, SVG and PDF; the same record gives the same bytes. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib

# public name -> module of featx.plots
_PUBLIC = {
    "check_picture": "files",
    "confusion_figure": "confusion",
    "curves_figure": "curves",
    "draw_confusion": "confusion",
    "draw_curves": "curves",
    "draw_embedding": "embedding",
    "draw_filters": "filters",
    "draw_overview": "overview",
    "draw_roc": "roc",
    "embedding_figure": "embedding",
    "filters_figure": "filters",
    "overview_figure": "overview",
    "roc_figure": "roc",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'featx.plots' has no attribute '{name}'")
    if _PUBLIC[name] != "files":
        from featx.plots.files import require_matplotlib

        require_matplotlib()
    return getattr(importlib.import_module(f"featx.plots.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
