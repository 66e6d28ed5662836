"""Step 1, plan: from what the user names (files, folders, lists) to a list of videos with unique keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featx.errors import UsageError
from featx.video import VIDEO_SUFFIXES

__all__ = ["VideoItem", "plan_videos"]

KEY_FORMS = ("name", "path")
LIST_SUFFIXES = (".txt", ".csv", ".lst", ".json", ".h5")


@dataclass(frozen=True)
class VideoItem:
    """A video to extract: its key in the feature file, and where it lies."""

    key: str
    path: Path

    @property
    def path_text(self) -> str:
        """The path as valid UTF-8, escaped in the same way as keys: what files and messages hold of it."""
        return key_of(self.path, keep_suffix=True)


def plan_videos(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
) -> list[VideoItem]:
    """The videos named by `inputs` (files and folders) and `lists` (files with a path a line), sorted by key.

    Folders are searched recursively for files with a container suffix; hidden files and folders are passed over, links are
    followed once. A key is the path relative to the folder given, without suffix; for a single file its stem; for a listed
    file the path as written, without suffix and without the folder common to the list. With `keys_from` "path" it is
    the path as given, suffix included. Bytes of a name that are not UTF-8 become ``%FF`` in the key.

    Raises UsageError for a path that does not exist, an input without videos, and for two files of one key.
    """
    if keys_from not in KEY_FORMS:
        raise UsageError(f"keys_from is '{keys_from}', but must be one of {', '.join(KEY_FORMS)}")
    inputs, lists = ([given] if isinstance(given, str | os.PathLike) else given for given in (inputs, lists))
    items: dict[str, VideoItem] = {}
    for item in _named(inputs, lists, keys_from == "path"):
        other = items.setdefault(item.key, item)
        if other.path != item.path and not _same_file(other.path, item.path):
            raise UsageError(
                f"two videos have the key '{item.key}': {other.path} and {item.path}; "
                "rename one, or take whole paths as keys with '--keys-from path'"
            )
    if not items:
        raise UsageError("no videos to extract; name video files, folders, or a list with --list")
    return [items[key] for key in sorted(items)]


def key_of(path: str | os.PathLike, keep_suffix: bool = False) -> str:
    """The key of a relative path: "/" between folders, no suffix, and always valid UTF-8, reversibly."""
    path = Path(path)
    text = (path if keep_suffix else path.with_suffix("")).as_posix()
    text = re.sub(r"%(?=[0-9A-F]{2})", "%25", text)  # so that an escape in the key can only be ours
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def _named(inputs: Sequence, lists: Sequence, whole_paths: bool) -> Iterator[VideoItem]:
    for named in map(Path, inputs):
        if named.is_dir():
            found = sorted(_videos_below(named))
            if not found:
                raise UsageError(f"no videos in {named}; suffixes looked for: {' '.join(sorted(VIDEO_SUFFIXES))}")
            for path in found:
                yield VideoItem(key_of(path if whole_paths else path.relative_to(named), whole_paths), path)
        elif named.suffix.lower() in LIST_SUFFIXES:
            raise UsageError(f"{named} is no video; if it is a list of videos, a path a line, name it with --list")
        elif named.exists():
            yield VideoItem(key_of(named if whole_paths else named.name, whole_paths), named)
        else:
            raise UsageError(f"no such file or folder: {named}")
    for list_file in map(Path, lists):
        paths = _listed(list_file)
        if whole_paths:
            yield from (VideoItem(key_of(path, True), path) for path in paths)
        else:
            common = os.path.commonpath([path.parent for path in paths])
            yield from (VideoItem(key_of(path.relative_to(common) if common else path), path) for path in paths)


def _listed(list_file: Path) -> list[Path]:
    """The paths of a list; a file that does not exist is a failure of that video, not of the run."""
    try:
        text = list_file.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise UsageError(f"cannot read the list {list_file}: {error.strerror}") from error
    if "\0" in text:
        raise UsageError(f"the list {list_file} is not a text file; it holds a path a line")
    paths = [Path(line.strip()) for line in text.split("\n") if line.strip()]
    if not paths:
        raise UsageError(f"the list {list_file} names no videos; it holds a path a line")
    absolute = [path for path in paths if path.is_absolute()]
    if absolute and len(absolute) != len(paths):
        raise UsageError(f"the list {list_file} mixes absolute and relative paths, such as {absolute[0]}; use one kind")
    return paths


def _videos_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Search a folder; `above` are the folders on the way to it, so that a link back up ends there."""
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        entries = [] if identity in above else sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}; its videos would be missing") from error
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _videos_below(path, above | {identity})
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            yield path


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
