"""The videos below an address, as the store tells of them: page by page, so that the first come before the last are asked for.

S3 is asked for pages of 1,000 keys whatever the folders are; other stores, and web servers that show the files of a folder as a
page of links, are asked folder by folder.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

from featx.containers import VIDEO_SUFFIXES
from featx.errors import UsageError
from featx.remote.addresses import is_http, public_address
from featx.remote.system import Found, Store, open_store, reason_of

__all__ = ["Listed", "names_folder", "videos_below"]

MAX_DEPTH = 64  # of folders: a link on a server may lead back up


class Listed(NamedTuple):
    """A video of a store: its path below the address listed, its own address, and its bytes and time of change, 0: not told."""

    relative: str
    address: str
    size_bytes: int
    mtime_ns: int


def names_folder(address: str) -> bool:
    """Whether an address stands for what lies below it: by a slash at its end, in a store also without a video's suffix."""
    if is_http(address):
        return address.endswith("/")
    return posixpath.splitext(address)[1].lower() not in VIDEO_SUFFIXES


def videos_below(address: str) -> Iterator[Listed]:
    """The videos below an address, in the store's order: what has a container's suffix, and no hidden part in its path.

    Raises UsageError where the store cannot be listed.
    """
    store = open_store(address)
    scheme, web = address.partition("://")[0], is_http(address)
    top = store.path.rstrip("/") + "/"
    try:
        for found in _files(store):
            relative = unquote(found.name[len(top) :]) if web else found.name[len(top) :]
            if not found.name.startswith(top) or "/." in f"/{relative}":
                continue
            if posixpath.splitext(relative)[1].lower() not in VIDEO_SUFFIXES:
                continue
            own = found.name if web else f"{scheme}://{found.name.lstrip('/')}"
            yield Listed(relative, own, found.size_bytes or 0, found.mtime_ns)
    except UsageError:
        raise
    except Exception as error:  # of the store's package, whatever it is
        raise UsageError(
            f"{public_address(address)} cannot be listed: {reason_of(error)}; check the address and who may read it, or "
            "name the videos one a line with --list and --allow-urls"
        ) from None


def _files(store: Store) -> Iterator[Found]:
    if hasattr(store.system, "call_s3"):
        return _s3_files(store)
    return _files_by_folder(store)


def _s3_files(store: Store) -> Iterator[Found]:
    bucket, key, _ = store.system.split_path(store.path)
    key = key.strip("/")
    asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", **getattr(store.system, "req_kw", {})}
    while True:
        page = store.system.call_s3("list_objects_v2", **asked)
        for entry in page.get("Contents", ()):
            yield Found.of({"name": f"{bucket}/{entry['Key']}", "size": entry["Size"], **entry})
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _files_by_folder(store: Store) -> Iterator[Found]:
    web = is_http(store.address)
    waiting, seen = [(store.path.rstrip("/") + "/" * web, 0)], set()
    while waiting:
        folder, depth = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        if depth > MAX_DEPTH:
            raise UsageError(
                f"{public_address(store.address)} has folders more than {MAX_DEPTH} deep; name the folders of the videos"
            )
        for info in store.system.ls(folder, detail=True):
            name = info["name"]
            if web and ("?" in name or "#" in name or not name.startswith(folder)):
                continue  # links that sort the page, or lead elsewhere
            if info["type"] != "directory":
                yield Found.of(info)
            elif name != folder:
                waiting.append((name, depth + 1))
