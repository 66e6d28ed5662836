"""Where featx keeps what it may lose: the user's own cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from featx.errors import UsageError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """$FEATX_HOME, else the platform's place for caches; it need not exist yet. Raises UsageError where no home is known."""
    try:
        if os.environ.get("FEATX_HOME"):
            return Path(os.environ["FEATX_HOME"]).expanduser()
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "featx"
        base = os.environ.get("XDG_CACHE_HOME", "")
        return (
            Path(base) if os.path.isabs(base) else Path.home() / ".cache"
        ) / "featx"  # XDG: a relative path is ignored
    except RuntimeError as error:  # the user, or the one named, is unknown to this machine
        wrong = f"FEATX_HOME is {named}, but " if (named := os.environ.get("FEATX_HOME")) else ""
        raise UsageError(f"{wrong}{str(error).rstrip('.')}, for featx's cache; set FEATX_HOME to a folder") from None
