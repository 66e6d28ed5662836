"""Addresses: scheme://host/path, or scheme://bucket/key in a store; and what of them may stand in a file.

An address can hold a secret: a password before the host, a signature in the query. A password is refused; of a query only the
few parameters that say which video it is (SHOWN) are written into a feature file or a message, the others only used to fetch.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from featx.errors import UsageError

__all__ = [
    "SCHEMES",
    "address_name",
    "is_address",
    "is_http",
    "public_address",
    "public_text",
    "quoted",
    "require_address",
    "require_no_address",
]

# scheme -> the package that fsspec needs for it; "memory" is fsspec's own store, which ends with the process
SCHEMES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "memory": "fsspec",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_COLLAPSED = re.compile(rf"(?:{'|'.join(SCHEMES)}):/+[^/]")  # what pathlib makes of an address
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
# Parameters of a query that may be shown: those that number or name a video. Any other may sign a request or prove who asks,
# whatever its service calls it.
SHOWN = frozenset(
    "v id n i no number index item part video vid videoid video_id clip file filename name episode season camera cam "
    "start end t format quality resolution uuid uid path files title src name_id file_id fileid asset media".split()
)
MAX_VALUE = 40  # characters; no number or name of a video is longer
# what a host, or a bucket, can have behind a colon: a port, or what the names of access points are made of
_COLONS = re.compile(r"(\[[^\]]*\]?|[^:]*)(:\d+)?|arn:aws[a-z-]*:s3[a-z0-9-]*:[^@]*", re.I)


def is_address(text: object) -> bool:
    """Whether a text has the form of an address, whatever its scheme."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def is_http(address: str) -> bool:
    """Whether an address is one of the web, and not of a store."""
    return _scheme(address) in ("http", "https")


def require_address(address: str) -> str:
    """The address, if it is one that featx reads. Raises UsageError for other schemes, without a host, and with a password."""
    scheme = _scheme(address)
    host = address[len(scheme) + 3 :].partition("/")[0]
    if scheme not in SCHEMES or not host.partition("@")[2 * ("@" in host)].strip(":"):
        raise UsageError(
            f"{public_address(address)}: only http and https addresses, and those of stores (s3, gs), are read; fetch it "
            "yourself"
        )
    if _has_password(address):
        raise UsageError(
            f"{public_address(address)} holds a password, which the feature file would keep; leave it out: fsspec's own "
            "configuration is the place for it"
        )
    if is_http(address):
        try:
            parts = urlsplit(address)
            parts.netloc.encode("idna")
            parts.port  # noqa: B018 - raises where it is no number
        except ValueError as error:  # a bracket that is not closed, or what can be no host or port
            raise UsageError(f"{public_address(address)} is no address: {_reason(error)}; correct it") from None
    return address


def require_no_address(path: str | os.PathLike, remedy: str) -> None:
    """Raise UsageError where a path is an address, also one that has lost a slash as paths do, and no file has that name."""
    text = os.fspath(path)
    if isinstance(text, str) and (_SCHEME.match(text) or _COLLAPSED.match(text)) and not os.path.lexists(text):
        shown = public_address(re.sub(":/+", "://", text, count=1))
        raise UsageError(f"{shown} is an address, and this takes files of a disk; {remedy}")


def address_name(address: str) -> str:
    """Host and path, or bucket and key, of an address: what a video of it is called by."""
    if is_http(address):
        parts = urlsplit(address)
        return parts.netloc + parts.path
    return _SCHEME.sub("", address, count=1)


def public_address(address: str) -> str:
    """The address without what could be a secret: for files and messages."""
    match = _SCHEME.match(address)
    if match is None:
        return address
    if _has_password(address):  # which may hold any character
        _, at, rest = address[match.end() :].rpartition("@")
        address = f"{match[0]}…{at}{rest if at else ''}"
    if _scheme(address) not in ("http", "https"):  # a key of a store may hold any character, and has no query
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.partition("?")[0].partition("#")[0]
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() in SHOWN and len(value) <= MAX_VALUE and ";" not in name + value
    ]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


def public_text(text: str) -> str:
    """A text, such as a library's error, with every address in it made public."""
    return _IN_TEXT.sub(lambda match: public_address(match[0]), text)


def _has_password(address: str) -> bool:
    """Whether a name and a password stand before the host, also where the password holds a "/", as those of stores do."""
    host = _SCHEME.sub("", address, count=1).partition("/")[0]
    colons = _COLONS.fullmatch(host)
    return "@" in host or colons is None or bool(colons[2] and not is_http(address))


def quoted(address: str) -> str:
    """An address of the web as servers want it: what no address may hold, such as a space or a letter é, as %20 or %C3%A9."""
    start = len(_scheme(address)) + 3
    host, slash, rest = address[start:].partition("/")
    return address[:start] + host + slash + quote(rest, safe="%/:=&?#+!$,;@()*[]~", errors="surrogateescape")


def _reason(error: ValueError) -> str:
    return str(error.__cause__ or error).rpartition("(")[2].strip("()")


def _scheme(address: str) -> str:
    match = _SCHEME.match(address)
    return match[1].lower() if match else ""
