"""The hash of a video's content: of a file, or of the images in a folder."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from featx.frame_folders import IMAGE_SUFFIXES

__all__ = ["content_sha256"]


def content_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; of a folder, of its images' names and hashes, by name.

    Raises OSError where it cannot be read.
    """
    path = Path(path)
    images = tuple(sorted(filter(_is_image, os.listdir(path)))) if os.path.isdir(path) else None
    files = [path] if images is None else [path / name for name in images]
    return _sha256(path, images, tuple(map(_state, files)))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _state(file: Path) -> tuple[int, ...]:
    """What changes whenever a file is written to, whatever its time is set to afterwards."""
    status = os.stat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=8)  # the segments of a video follow one another
def _sha256(path: Path, images: tuple[str, ...] | None, states: tuple) -> str:
    if images is None:
        return _file_sha256(path)
    total = hashlib.sha256()
    for name in images:
        total.update(f"{_file_sha256(path / name)} ".encode() + os.fsencode(name) + b"\0")
    return total.hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
