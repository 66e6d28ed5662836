"""Whether a path can be looked at: a folder that is closed to us, or a name that is too long, is told, not raised."""

from __future__ import annotations

import os

__all__ = ["hindrance"]


def hindrance(path: str | os.PathLike) -> str:
    """Why a path cannot be looked at, in the system's words; "" where it can, and where nothing is there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:
        return "a name holds no zero byte"
    return ""
