"""What can be found out before a picture is drawn: its kind, its place, and whether there is something to draw with."""

from __future__ import annotations

import os
from pathlib import Path

from featx.errors import UsageError
from featx.evaluation.results import check_output

__all__ = ["MAKER", "SUFFIXES", "check_picture", "require_matplotlib"]

SUFFIXES = (".png", ".svg", ".pdf")
MAKER = "featx"  # stands in every picture that is drawn here
# how a PNG, an SVG and a PDF begin, and how they name their maker, which is near their beginning or, in a PDF, their end
PICTURES = (
    (b"\x89PNG\r\n", b"Software\0featx"),
    (b"<?xml", b"<dc:title>featx</dc:title>"),
    (b"%PDF-", b"/Creator (featx)"),
)
NEAR_BYTES = 2**16


def check_picture(path: str | os.PathLike) -> None:
    """Raise UsageError where a picture cannot be drawn or written: better now than after an hour's work.

    It replaces a picture that was drawn here, and nothing else.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw {path}: the suffix decides the kind of picture; use {', '.join(SUFFIXES)}")
    check_output(path, text=False)
    if os.path.isfile(path) and os.path.getsize(path) and not _is_ours(path):
        raise UsageError(f"{path} exists and is no picture that featx drew; it is not replaced: choose another name")
    require_matplotlib()


def _is_ours(path: str | os.PathLike) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(NEAR_BYTES)
            file.seek(max(0, os.path.getsize(path) - NEAR_BYTES))
            tail = file.read()
    except OSError:
        return False
    return any(head.startswith(first) and (maker in head or maker in tail) for first, maker in PICTURES)


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
