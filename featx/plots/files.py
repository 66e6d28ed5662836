"""What can be found out before a picture is drawn: its kind, its place, and whether there is something to draw with."""

from __future__ import annotations

import os
from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.results import check_output

__all__ = ["SUFFIXES", "check_picture", "require_matplotlib"]

SUFFIXES = (".png", ".svg", ".pdf")
PICTURES = (b"\x89PNG\r\n", b"<?xml", b"%PDF-")  # what they begin with


def check_picture(path: str | os.PathLike) -> None:
    """Raise UsageError where a picture cannot be drawn or written: better now than after an hour's work.

    It replaces a picture, and nothing else.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw {path}: the suffix decides the kind of picture; use {', '.join(SUFFIXES)}")
    check_output(path, own=PICTURES)
    require_matplotlib()


def require_matplotlib() -> None:
    """Raise UsageError, with the remedy, where matplotlib is missing or cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "matplotlib"
        problem = "is not installed" if missing else f"cannot be imported ({error})"
        raise UsageError(
            f"pictures are drawn by matplotlib, which {problem}; install it with: pip install 'featx[plots]'"
        ) from None
