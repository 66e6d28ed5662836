"""The hash of a video's content: of a file, or of the images in a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from featx.frame_folders import IMAGE_SUFFIXES

__all__ = ["content_sha256"]


def content_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; of a folder, of its images' names and hashes, by name.

    Raises OSError where it cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return _file_sha256(path)
    total = hashlib.sha256()
    for name in sorted(os.listdir(path)):
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            total.update(f"{_file_sha256(path / name)} ".encode() + os.fsencode(name) + b"\0")
    return total.hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
