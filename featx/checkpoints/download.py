"""One published file from a plain URL to the disk: resumed where it broke off, checked before anything uses it.

    <target>.part         the bytes so far; locked while a process adds to them
    <target>.part.json    which file they are of: URL, ETag, Last-Modified, length
    <target>              the whole file, checked

A part goes on only if the server says that its file is still the same one; otherwise it begins anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from featx import __version__
from featx.durable import sync
from featx.errors import CheckpointError

__all__ = ["OwnDiskError", "download"]

Progress = Callable[[int, "int | None"], None]

BLOCK_BYTES = 1 << 18
MAX_BYTES = 8 << 30  # far above any published file; a server that never ends must not fill the disk
MAX_ATTEMPTS = 10  # in one call; an attempt that brings nothing is the last one, and so is one that is too slow
MIN_BYTES = (
    1 << 16
)  # a transfer that brings less in so many timeouts is ended: a server that drips would hold us for ever
MIN_BYTES_TIMEOUTS = 2


class OwnDiskError(CheckpointError):
    """The disk of this machine has no room for a file, which needs `num_bytes` more; 0: it cannot be written at all."""

    def __init__(self, message: str, num_bytes: int = 0) -> None:
        super().__init__(message)
        self.num_bytes = num_bytes


class _Broken(Exception):
    """A transfer that ended early; asking for the rest may help."""


class _Slow(_Broken):
    """A transfer that brought too little in its time; asking again would take as long."""


class _Changed(Exception):
    """The server's file is not the one that the part is of."""


@dataclass(frozen=True)
class _Validators:
    """What tells whether a server's file is still the one that a part is of."""

    url: str
    etag: str = ""
    last_modified: str = ""
    num_bytes: int | None = None

    @property
    def if_range(self) -> str:
        """The value of If-Range: a strong ETag, else the date, else ""."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def proves(self, other: _Validators) -> bool:
        """Whether `other` repeats what If-Range was: a server that does not know that header repeats nothing."""
        return bool(self.if_range) and self.if_range == (
            other.etag if self.if_range == self.etag else other.last_modified
        )

    def contradicts(self, other: _Validators) -> bool:
        pairs = [(self.etag, other.etag), (self.last_modified, other.last_modified), (self.num_bytes, other.num_bytes)]
        return any(mine and theirs and mine != theirs for mine, theirs in pairs)


def download(
    url: str,
    target: Path,
    *,
    sha256_prefix: str = "",
    sha1: str = "",
    need_length: bool = False,
    on_progress: Progress = lambda num_bytes, total: None,
    timeout_seconds: float = 30.0,
) -> Path:
    """Fetch `url` (http or https) to `target`, which appears complete and checked or not at all.

    `sha256_prefix` (first hexadecimal digits) and `sha1` are what the file must hash to, "" where nothing is published.
    `need_length`: refuse a server that does not tell the file's length, which a broken transfer then would not show.
    `on_progress` gets the bytes that are here and the total, None where the server does not tell. What a broken transfer
    brought is kept for the next call; one that brings less than MIN_BYTES in MIN_BYTES_TIMEOUTS times `timeout_seconds` is
    ended. Raises CheckpointError for everything that goes wrong, and of it OwnDiskError where that is our disk.
    """
    _require_http(url, url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target) as part:
            if (sha256_prefix or sha1) and target.exists() and not _wrong_hash_of(target, sha256_prefix, sha1):
                return target  # a run died between fetching it and using it
            resumed = _fetch_all(url, target, part, need_length, on_progress, timeout_seconds)
            wrong = _wrong_hash(part, sha256_prefix, sha1)
            if wrong and resumed:  # the two halves may be of different files
                part.truncate(0)
                _fetch_all(url, target, part, need_length, on_progress, timeout_seconds)
                wrong = _wrong_hash(part, sha256_prefix, sha1)
            if wrong:
                part.truncate(0)
                raise CheckpointError(
                    f"{url} gave a file with {wrong}; it was thrown away; try again, or another source"
                )
            os.fsync(part.fileno())
            os.replace(_paths(target)[0], target)
            sync(target.parent)
            _paths(target)[1].unlink(missing_ok=True)
    except OSError as error:  # the network's are caught where they arise
        raise OwnDiskError(
            f"{target} cannot be written ({error.strerror or error}); make room, or set $FEATX_HOME to another folder"
        ) from None
    return target


# ------------------------------------------------------------------------------------------------------- one transfer


def _fetch_all(
    url: str, target: Path, part: BinaryIO, need_length: bool, on_progress: Progress, timeout_seconds: float
) -> bool:
    """Bring the part to its full length; returns whether it began with bytes of an earlier call."""
    size = part.seek(0, os.SEEK_END)
    resumed = size > 0
    for _ in range(MAX_ATTEMPTS):
        before = part.seek(0, os.SEEK_END)
        try:
            _fetch(url, target, part, need_length, on_progress, timeout_seconds)
            return resumed
        except _Changed:
            part.truncate(0)
            resumed = False
        except _Broken as broken:
            size = part.seek(0, os.SEEK_END)
            reason = str(broken)
            if size <= before or isinstance(broken, _Slow):
                break
    else:
        reason = f"{MAX_ATTEMPTS} attempts"
    kept = (
        f" after {size:,} bytes, which are kept: the same command goes on from there" if size else "; try again later"
    )
    raise CheckpointError(f"{url} cannot be fetched ({reason}){kept}")


def _fetch(
    url: str, target: Path, part: BinaryIO, need_length: bool, on_progress: Progress, timeout_seconds: float
) -> None:
    size = part.seek(0, os.SEEK_END)
    known = _read_validators(target) if size else None
    if known is not None and known.url == url and known.num_bytes == size:
        return  # an earlier call ended between the last byte and the rename
    headers = {"User-Agent": f"featx/{__version__}", "Accept-Encoding": "identity"}
    if known is not None and known.url == url and known.if_range:
        headers |= {"Range": f"bytes={size}-", "If-Range": known.if_range}
    else:
        part.truncate(0)
        size, known = 0, None
    with _open(url, headers, timeout_seconds) as response:
        now = _validators(url, response)
        if response.status == 206:
            if _range_start(response) != size or known is None or not known.proves(now) or known.contradicts(now):
                raise _Changed
        else:
            _require_a_file(url, response)
            part.truncate(0)
            size = 0
            _write_validators(target, now)
        if need_length and now.num_bytes is None and not response.chunked:
            raise CheckpointError(
                f"{url} does not say how long it is, so that a part could pass for the whole; fetch it yourself"
            )
        if now.num_bytes is not None:
            _require_room(url, target, size, now.num_bytes)
        part.seek(size)
        on_progress(size, now.num_bytes)
        for block in _blocks(response, timeout_seconds):
            part.write(block)
            size += len(block)
            if size > MAX_BYTES:
                raise CheckpointError(
                    f"{url} gives more than {MAX_BYTES:,} bytes, which is taken for an error; it was stopped"
                )
            on_progress(size, now.num_bytes)
        part.flush()
    if now.num_bytes is not None and size < now.num_bytes:
        raise _Broken(f"the connection ended at {size:,} of {now.num_bytes:,} bytes")
    if now.num_bytes is not None and size > now.num_bytes:
        raise _Changed


def _blocks(response: http.client.HTTPResponse, timeout_seconds: float) -> Iterator[bytes]:
    """The body as it arrives, in pieces of at most BLOCK_BYTES; the time between two is at most `timeout_seconds`."""
    num_bytes, seconds = 0, 0.0  # of the window in which MIN_BYTES must come
    while True:
        began = time.monotonic()
        try:
            block = response.read1(BLOCK_BYTES)  # not read, which waits until a block is full
        except http.client.IncompleteRead as error:
            if error.partial:
                yield error.partial
            raise _Broken("the connection ended early") from None  # a further read would look like the file's end
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(_reason(error)) from None
        if not block:
            return
        seconds += min(time.monotonic() - began, timeout_seconds)  # more is time in which we were suspended
        num_bytes += len(block)
        yield block
        if num_bytes >= MIN_BYTES:
            num_bytes, seconds = 0, 0.0
        elif seconds > MIN_BYTES_TIMEOUTS * timeout_seconds:
            raise _Slow(f"only {num_bytes:,} bytes came in {seconds:.0f} s")


def _open(url: str, headers: dict[str, str], timeout_seconds: float) -> http.client.HTTPResponse:
    opener = urllib.request.OpenerDirector()  # not the default one, which would read file: and ftp: as well
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond our bytes: they are of another file
            raise _Changed from None
        if error.code in (301, 302, 303, 307, 308):
            raise CheckpointError(f"{url} redirects in a circle or astray; take another source") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Broken(f"the server says {error.code} {error.reason}") from None
        raise CheckpointError(
            f"{url} cannot be fetched (the server says {error.code} {error.reason}); the file may have moved: "
            "find it elsewhere and use 'featx weights add'"
        ) from None
    except urllib.error.URLError as error:
        raise _Broken(_reason(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_reason(error)) from None
    except ValueError as error:  # such as a redirect to http://[x/, or a host's name beyond all length
        raise CheckpointError(f"{url} cannot be fetched: no possible address ({error}); take another source") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and from https never to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_http(newurl, req.full_url)
        if req.type == "https" and urlsplit(newurl).scheme == "http":
            raise CheckpointError(
                f"{req.full_url} redirects from https to {newurl}, which anyone could forge; not followed"
            )
        return super().redirect_request(
            req, fp, 307 if code == 308 else code, msg, headers, newurl
        )  # new in Python 3.11

    def http_error_302(self, req, fp, code, msg, headers):
        if "location" in headers:
            _require_http(urllib.parse.urljoin(req.full_url, headers["location"]), req.full_url)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _require_http(url: str, asked: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise CheckpointError(f"'{url}' is no possible address ({error}); take another source") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        led = f"{asked} redirects to '{url}'" if asked != url else f"'{url}' is asked for"
        raise CheckpointError(f"{led}, but only http and https are read; take another source")


def _require_a_file(url: str, response: http.client.HTTPResponse) -> None:
    if response.headers.get_content_type() == "text/html":
        raise CheckpointError(
            f"{url} gives a web page, not a file; fetch it with a browser and use 'featx weights add'"
        )
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise CheckpointError(
            f"{url} gives its file encoded as '{encoding}', which was not asked for; take another source"
        )


def _require_room(url: str, target: Path, size: int, total: int) -> None:
    if total > MAX_BYTES:
        raise CheckpointError(f"{url} has {total:,} bytes, which is taken for an error; take another source")
    free = shutil.disk_usage(target.parent).free
    if total - size > free:
        raise OwnDiskError(
            f"{url} needs {total - size:,} bytes more, but {target.parent} has {free:,}; make room, or set $FEATX_HOME to "
            "another folder",
            total - size,
        )


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


# ----------------------------------------------------------------------------------------- what a part is of, and hashes


def _paths(target: Path) -> tuple[Path, Path]:
    return target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")


@contextmanager
def _locked(target: Path) -> Iterator[BinaryIO]:
    """The part, open for reading and writing, for this process alone."""
    path = _paths(target)[0]
    with open(path, "a+b") as handle:  # makes it where there is none
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckpointError(f"{target.name} is being fetched by another process; wait for it") from None
        try:
            with open(path, "r+b") as part:
                yield part
        finally:
            _drop_empty(target)


def _drop_empty(target: Path) -> None:
    """A part without a byte is of no use to the next call."""
    part, validators = _paths(target)
    if part.exists() and part.stat().st_size == 0:
        part.unlink()
        validators.unlink(missing_ok=True)


def _validators(url: str, response: http.client.HTTPResponse) -> _Validators:
    headers = response.headers
    length = (
        headers.get("Content-Range", "").rpartition("/")[2] if response.status == 206 else headers["Content-Length"]
    )
    num_bytes = int(length) if length and re.fullmatch(r"\d{1,18}", length) else None
    return _Validators(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), num_bytes)


def _range_start(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d{1,18})-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _read_validators(target: Path) -> _Validators | None:
    try:
        fields = json.loads(_paths(target)[1].read_text(encoding="utf-8"))
        return _Validators(**fields)
    except (OSError, ValueError, TypeError):
        return None


def _write_validators(target: Path, validators: _Validators) -> None:
    _paths(target)[1].write_text(json.dumps(asdict(validators)), encoding="utf-8")


def _wrong_hash_of(path: Path, sha256_prefix: str, sha1: str) -> str:
    with open(path, "rb") as file:
        return _wrong_hash(file, sha256_prefix, sha1)


def _wrong_hash(part: BinaryIO, sha256_prefix: str, sha1: str) -> str:
    """ "" for the published file, else which hash it has and which it must have."""
    for name, expected in (("sha256", sha256_prefix), ("sha1", sha1)):
        if expected:
            part.seek(0)
            digest = hashlib.new(name)
            while block := part.read(1 << 20):
                digest.update(block)
            if not digest.hexdigest().startswith(expected.lower()):
                beginning = " beginning" if len(expected) < len(digest.hexdigest()) else ""
                return f"{name.upper()} {digest.hexdigest()}, not{beginning} {expected}"
    return ""
