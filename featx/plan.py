"""Step 1, plan: from what the user names (files, folders, lists) to a list of videos with unique keys."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from featx import remote
from featx.c3d_lists import is_clip_line, read_c3d_lists
from featx.containers import VIDEO_SUFFIXES
from featx.errors import UsageError, VideoError
from featx.frame_folders import IMAGE_SUFFIXES, first_number, holds_frames
from featx.lists import read_text
from featx.reachable import hindrance
from featx.segments import Segment, read_segments, unique_names, video_of
from featx.shards import Shard

__all__ = [
    "VideoItem",
    "folders_below",
    "key_of",
    "listed_start_frames",
    "of_shard",
    "plan_videos",
    "utf8",
    "video_item",
]

KEY_FORMS = ("name", "path")
MAX_WAYS = 100  # on which links may lead to one folder
Found = TypeVar("Found")
LIST_SUFFIXES = (".txt", ".csv", ".lst", ".json", ".h5")


@dataclass(frozen=True)
class VideoItem:
    """A video to extract: its key in the feature file, and where it lies: a file, or a folder of numbered images.

    `listed_starts`, rising, are the starts of its clips where they are listed, as the list numbers frames: from 0 in a
    file, by the numbers of the images in a folder. `label` is kept in the feature file. `url`: where the video is to be
    fetched from, with `path` only a suffix until it is, and `size_bytes` and `mtime_ns` what a store's listing told of it,
    0 where nothing did. `segment`: the part of the video that is taken, None for all of it.
    """

    key: str
    path: Path
    listed_starts: tuple[int, ...] | None = None
    label: str = ""
    url: str = ""
    segment: Segment | None = None
    size_bytes: int = 0
    mtime_ns: int = 0

    @property
    def video_key(self) -> str:
        """The key, of a segment that of its video: all segments of a video go to one shard."""
        return self.key if self.segment is None else video_of(self.key)

    @property
    def path_text(self) -> str:
        """The address less its secrets, or the path as valid UTF-8, escaped as keys are: what files and messages hold of it."""
        return utf8(remote.public_address(self.url)) if self.url else key_of(self.path, keep_suffix=True)

    def start_frames(self, first_number: int) -> tuple[int, ...] | None:
        """The listed starts counted from 0, where the first frame has the number `first_number`; None if none are listed.

        Raises VideoError for a start before the first frame.
        """
        if self.listed_starts is None:
            return None
        if self.listed_starts[0] < first_number:
            raise VideoError(f"a clip is listed from {self.listed_starts[0]} on, but the first image is {first_number}")
        return tuple(start - first_number for start in self.listed_starts)


def plan_videos(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    keys_from: str = "name",
    c3d_lists: str | os.PathLike | Sequence[str | os.PathLike] = (),
    allow_urls: bool = False,
    segments: str | os.PathLike | Sequence[str | os.PathLike] = (),
) -> list[VideoItem]:
    """The videos named by `inputs` (files and folders) and `lists` (files with a path a line), sorted by key.

    Folders are searched recursively for files with a container suffix, and for folders of numbered images, each of which is
    a video; where a folder holds both, its images are no frames, unless the folder itself is listed. Hidden files and
    folders are passed over, links are followed once. A key is the path relative to the folder given, without suffix; for a
    single file its stem; for a listed file the path as written, without suffix and without the folder common to the list.
    A folder of images has no suffix to lose. With `keys_from` "path" a key is the path as given, suffix included. Bytes of
    a name that are not UTF-8 become ``%FF`` in the key. `c3d_lists`, lists of the C3D tool, stand alone.
    Addresses: what lies below one of a store (``s3://bucket/folder/``), or of a web server that shows its folders
    (``https://host/folder/``), has keys relative to it, like a folder's; that of one video is host and path, or bucket and key,
    less the suffix. `allow_urls`: addresses may be listed, but for C3D's lists and segments, and http and https be named; a
    store's may be named without. `segments`: CSV files of parts of videos, see `featx.segments`; the key of a part is that of
    a listed video, "/" and its times.

    Raises UsageError for a path that does not exist, an input without videos, and for two files of one key.
    """
    if keys_from not in KEY_FORMS:
        raise UsageError(f"keys_from is '{keys_from}', but must be one of {', '.join(KEY_FORMS)}")
    inputs, lists, c3d_lists, segments = (
        [given] if isinstance(given, str | os.PathLike) else list(given)
        for given in (inputs, lists, c3d_lists, segments)
    )
    if c3d_lists and (inputs or lists or segments):
        other = (inputs or lists or segments)[0]
        raise UsageError(
            f"{c3d_lists[0]} lists the clips of videos, so {other} cannot be taken with it; extract them on their own"
        )
    whole_paths = keys_from == "path"
    found = _from_c3d_lists(c3d_lists, whole_paths) if c3d_lists else _named(inputs, lists, whole_paths, allow_urls)
    found = [*found, *(item for file in segments for item in _from_segments(Path(file), whole_paths))]
    items: dict[str, VideoItem] = {}
    for item in found:
        other = items.setdefault(item.key, item)
        listed_apart = other is not item and item.listed_starts is not None
        if (other.path, other.url) != (item.path, item.url) and (
            listed_apart or other.url or item.url or not _same_file(other.path, item.path)
        ):
            remedy = "rename one, or take whole paths as keys with '--keys-from path'"
            if _shown(other) == _shown(item):  # the query may sign a request, and is written in part only
                remedy = (
                    "they differ in what is not written of an address; extract them one by one to files of their own"
                )
            raise UsageError(f"two videos have the key '{item.key}': {_shown(other)} and {_shown(item)}; {remedy}")
        if (other.segment, other.label) != (item.segment, item.label):
            raise UsageError(
                f"'{item.key}' is listed twice, with the labels '{other.label}' and '{item.label}', or times less than a "
                "millisecond apart; correct the lists"
            )
    if not items:
        raise UsageError("no videos to extract; name video files, folders, or a list with --list")
    return [items[key] for key in sorted(items)]


def video_item(path: str | os.PathLike) -> VideoItem:
    """The item of one video alone: its key is the file's stem, or the name of the folder of images."""
    path = Path(path)
    return VideoItem(key_of(path.resolve().name, keep_suffix=True) if os.path.isdir(path) else key_of(path.name), path)


def of_shard(items: list[VideoItem], shard: Shard | None) -> list[VideoItem]:
    """The videos of a shard; all of them where it is None. The segments of a video stay together."""
    return items if shard is None else [item for item in items if shard.holds(item.video_key)]


def listed_start_frames(item: VideoItem, flow: bool) -> tuple[int, ...] | None:
    """The listed starts of a video, counted from 0; None where none are listed. Raises VideoError as the extraction would."""
    if item.listed_starts is None:
        return None
    return item.start_frames(first_number(item.path, flow))


def key_of(path: str | os.PathLike, keep_suffix: bool = False) -> str:
    """The key of a relative path: "/" between folders, no suffix, and always valid UTF-8, reversibly."""
    path = Path(path)
    text = (path if keep_suffix else path.with_suffix("")).as_posix()
    return utf8(re.sub(r"%(?=[0-9A-F]{2})", "%25", text))  # so that an escape in the key can only be ours


def utf8(text: str) -> str:
    """The text with ``%FF`` for a byte that is not UTF-8."""
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def _named(inputs: Sequence, lists: Sequence, whole_paths: bool, allow_urls: bool) -> Iterator[VideoItem]:
    for given in inputs:
        named = Path(given)
        if remote.is_address(str(given)) and not os.path.exists(named):
            yield from _at_address(str(given), whole_paths, allow_urls)
        elif os.path.isdir(named):
            found = list(_below(named, _search))
            if not found:
                raise UsageError(
                    f"no videos in {named}; looked for folders of numbered images (.jpg .png), and files "
                    f"{' '.join(sorted(VIDEO_SUFFIXES))}; name another folder, or the files themselves"
                )
            for path, is_folder in found:
                relative = path.relative_to(named) if path != named else Path(named.resolve().name)
                key = key_of(path if whole_paths else relative, keep_suffix=whole_paths or is_folder)
                yield VideoItem(key, path)
        elif named.suffix.lower() in LIST_SUFFIXES:
            if named.suffix.lower() == ".h5":
                raise UsageError(f"{named} is no video; a feature file to write, or to continue, is named with -o")
            raise UsageError(f"{named} is no video; if it is a list of videos, a path a line, name it with --list")
        elif named.suffix.lower() in IMAGE_SUFFIXES:
            raise UsageError(f"{named} is an image; name its folder, whose numbered images are one video")
        elif os.path.exists(named):
            yield VideoItem(key_of(named if whole_paths else named.name, whole_paths), named)
        elif why := hindrance(named):
            raise UsageError(f"{named} cannot be read: {why}; check the path, and who may read it")
        else:
            raise UsageError(f"no such file or folder: {named}; check the path, or name a list of videos with --list")
    for list_file in map(Path, lists):
        lines = [line.strip() for line in read_text(list_file).split("\n") if line.strip()]
        urls = [line for line in lines if remote.is_address(line) and not os.path.exists(line)]
        addresses = set(urls)
        for url in urls:
            _require_allowed(url, allow_urls)
            if url.endswith("/"):
                raise UsageError(f"the list {list_file} names the folder {url}, but a line is a video; name it outside")
            yield _url_item(url, whole_paths)
        paths = [Path(line) for line in lines if line not in addresses]
        if urls and not paths:
            continue
        if not paths:
            raise UsageError(f"the list {list_file} names no videos; write a path a line")
        if all(is_clip_line(str(path)) and not os.path.exists(path) for path in paths):
            raise UsageError(f"the list {list_file} holds 'path start_frame label' a line; name it with --c3d-list")
        for key, path in zip(_listed_keys(paths, list_file, whole_paths), paths, strict=True):
            yield VideoItem(key, path)


def _at_address(url: str, whole: bool, allowed: bool) -> Iterator[VideoItem]:
    """The video of an address, or those below one. The user names a store with their own rights; a list may be a stranger's."""
    remote.require_address(url)
    if remote.is_http(url):
        _require_allowed(url, allowed)
    if not remote.names_folder(url):
        yield _url_item(url, whole)
        return
    if os.path.splitext(url)[1].lower() in LIST_SUFFIXES:
        raise UsageError(
            f"{url} is no video; fetch it first; a list of videos, an address a line, is named with --list"
        )
    num_found = 0
    for num_found, found in enumerate(remote.videos_below(url), 1):  # noqa: B007 - counts them
        key = key_of(remote.public_address(found.address) if whole else found.relative, keep_suffix=whole)
        yield VideoItem(
            key, _unfetched(found.address), url=found.address, size_bytes=found.size_bytes, mtime_ns=found.mtime_ns
        )
    if not num_found:
        more = ", and a server that shows no list of its files needs --list" if remote.is_http(url) else ""
        raise UsageError(
            f"no videos below {remote.public_address(url)}; looked for files {' '.join(sorted(VIDEO_SUFFIXES))}{more}; name "
            "another address, or the videos one a line with --list and --allow-urls"
        )


def _shown(item: VideoItem) -> str:
    return item.path_text if item.url else str(item.path)


def _require_allowed(url: str, allowed: bool) -> None:
    if not allowed:
        raise UsageError(
            f"{remote.public_address(url)} is an address, and featx reads files; fetch it yourself, or allow it with "
            "--allow-urls"
        )
    remote.require_address(url)


def _url_item(url: str, whole: bool) -> VideoItem:
    name = remote.public_address(url) if whole else remote.address_name(url)
    return VideoItem(key_of(name, keep_suffix=whole), _unfetched(url), url=url)


@cache
def _unfetched_of(suffix: str) -> Path:
    return Path("video" + suffix)


def _unfetched(url: str) -> Path:
    """Stands for the path of a video that is not here yet; one object for a million."""
    return _unfetched_of(os.path.splitext(remote.address_name(url))[1][:16])


def _from_c3d_lists(c3d_lists: Sequence, whole_paths: bool) -> Iterator[VideoItem]:
    videos = read_c3d_lists(c3d_lists)
    keys = _listed_keys([video.path for video in videos], c3d_lists[0], whole_paths)
    for key, video in zip(keys, videos, strict=True):
        yield VideoItem(key, video.path, tuple(video.starts), video.label)


def _from_segments(list_file: Path, whole_paths: bool) -> Iterator[VideoItem]:
    listed = read_segments(list_file)
    names = _listed_keys([row.path for row in listed], list_file, whole_paths)
    keys = [f"{name}/{row.segment.name}" for name, row in zip(names, listed, strict=True)]
    for key, row in unique_names(zip(keys, listed, strict=True)):
        yield VideoItem(key, row.path, label=row.label, segment=row.segment)


def _listed_keys(paths: Sequence[Path], list_file: Path, whole_paths: bool) -> Iterator[str]:
    """The keys of listed paths; a file that does not exist is a failure of that video, not of the run."""
    absolute = [path for path in paths if path.is_absolute()]
    if absolute and len(absolute) != len(paths):
        raise UsageError(f"the list {list_file} mixes absolute and relative paths, such as {absolute[0]}; use one kind")
    for path in paths:
        remote.require_no_address(path, "fetch it first, or list whole videos with --list")
    common = "" if whole_paths else os.path.commonpath([path.parent for path in paths])
    for path in paths:
        yield key_of(path.relative_to(common) if common else path, keep_suffix=whole_paths or os.path.isdir(path))


def folders_below(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, each with the names of its files, sorted; links are followed as for videos.

    Raises UsageError for a folder that cannot be read.
    """
    return _below(top, lambda folder: _names_in(folder, hidden=True))


def _names_in(folder: Path, hidden: bool) -> tuple[list[tuple[Path, list[str]]], list[Path]]:
    """A folder with the names of its files, and the folders in it."""
    try:
        with os.scandir(folder) as scan:  # its entries know without another look which are folders
            entries = sorted((e.name, _is_folder(e)) for e in scan if hidden or not e.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error
    files = [name for name, is_dir in entries if not is_dir]
    return [(folder, files)], [folder / name for name, is_dir in entries if is_dir]


def _below(top: Path, search: Callable[[Path], tuple[list[Found], list[Path]]]) -> Iterator[Found]:
    """What a search of a folder and those below it finds; it tells of each what it holds, and which folders.

    A link back up ends there. Links side by side can make any number of ways to one folder, so there is a limit.
    """
    num_ways: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(top, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        identity = _identity(folder)
        if identity in above:
            continue
        num_ways[identity] += 1
        if num_ways[identity] > MAX_WAYS:
            raise UsageError(
                f"links lead to the folder {folder} on more than {MAX_WAYS} ways; name the folders of the videos instead"
            )
        found, folders = search(folder)
        yield from found
        below = above | {identity} if folders else above
        waiting += [(path, below) for path in reversed(folders)]


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot read the folder {folder}: {error.strerror}; its videos would be missing")


def _search(folder: Path) -> tuple[list[tuple[Path, bool]], list[Path]]:
    """What one folder holds: videos, as (path, whether it is a folder of images), and folders."""
    ((_, names),), folders = _names_in(folder, hidden=False)
    videos = [name for name in names if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    # beside folders, one image whose name happens to end in a number is a picture of something, not a video of one frame
    if not videos and holds_frames(names, at_least=2 if folders else 1):
        return [(folder, True)], folders
    return [(folder / name, False) for name in videos], folders


def _is_folder(entry: os.DirEntry) -> bool:
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()  # a link to itself is no folder


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
