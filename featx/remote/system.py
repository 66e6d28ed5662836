"""An address -> the store behind it. The only importer of fsspec; imported when an address is used.

Who may read and write what is fsspec's business: its configuration files and variables (``FSSPEC_S3_KEY`` …,
``~/.config/fsspec/*.json``), and below it those of the store's own package (``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` …).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from featx.errors import UsageError, one_line
from featx.remote.addresses import SCHEMES, public_address, public_text, require_address

__all__ = ["Found", "Store", "has_settings", "open_store", "reason_of"]

MAX_REASON = 300  # characters of a library's error that are told
# of a file's parts that s3fs holds in memory at once, 50 MB each; the user's own configuration goes before it
OPTIONS = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "timeModified", "created")
_VERSIONS = ("ETag", "etag", "generation", "md5Hash")


@dataclass(frozen=True)
class Found:
    """A file of a store: its name there, bytes (None where the store does not tell), time of change in ns (whole seconds; 0:
    not told), and the store's own word for its content, such as an ETag.
    """

    name: str
    size_bytes: int | None
    mtime_ns: int = 0
    version: str = ""

    @classmethod
    def of(cls, info: dict[str, Any]) -> Found:
        """From what fsspec tells of a file."""
        when = next((info[name] for name in _TIMES if info.get(name)), None)
        version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
        size = info.get("size")
        return cls(info["name"], None if size is None else int(size), _nanoseconds(when), version)

    @property
    def stamp(self) -> tuple[int | None, int, str]:
        """What is another one where the file is."""
        return self.size_bytes, self.mtime_ns, self.version


@dataclass(frozen=True)
class Store:
    """The store of an address: `system`, an fsspec file system, and the `path` that the address names in it."""

    address: str
    system: Any
    path: str

    def look(self) -> Found:
        """What the store now tells of the file. Raises as fsspec does."""
        return Found.of(self.system.info(self.path))


def open_store(address: str) -> Store:
    """The store of an address; nothing is asked of it yet.

    Raises UsageError for an address of another kind, and where a package for it is missing or cannot be set up.
    """
    require_address(address)
    scheme = address.partition(":")[0].lower()
    try:
        import fsspec
    except ImportError:
        raise _missing(address, "fsspec") from None
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError:
        raise _missing(address, SCHEMES[scheme]) from None
    configured = fsspec.config.conf.get(scheme, {})
    options = {name: value for name, value in OPTIONS.get(scheme, {}).items() if name not in configured}
    try:
        # a listing that fsspec kept would hide what changed, and takes the memory of all keys
        system = kind(**options, use_listings_cache=False)
    except Exception as error:  # whatever a package finds wrong with its configuration
        raise UsageError(
            f"{public_address(address)}: its store cannot be set up ({reason_of(error)}); correct fsspec's configuration"
        ) from None
    return Store(address, system, kind._strip_protocol(address))


def has_settings(address: str) -> bool:
    """Whether fsspec is configured for the scheme of an address, as for an https server that wants a token."""
    try:
        import fsspec
    except ImportError:
        return False
    return bool(fsspec.config.conf.get(address.partition(":")[0].lower()))


def reason_of(error: BaseException) -> str:
    """Why a store's package failed, in one line without secrets."""
    if isinstance(error, FileNotFoundError):
        return "there is no such thing"
    text = public_text(str(error)).strip()
    if isinstance(error, PermissionError):
        text = f"access is denied: {text}" if text else "access is denied"
    return one_line(text.splitlines()[0] if text else type(error).__name__)[:MAX_REASON]


def _missing(address: str, package: str) -> UsageError:
    more = " gcsfs" if package == "gcsfs" else ""
    return UsageError(
        f"{public_address(address)} needs the package {package}, which is not installed for {sys.executable}; "
        f"pip install 'featx[cloud]'{more}"
    )


def _nanoseconds(when: object) -> int:
    """A time as stores tell it, in whole seconds: a listing and a question for one file round it differently."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when.replace("Z", "+00:00"))
        except ValueError:
            return 0
    if isinstance(when, datetime):
        when = (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
    return int(when) * 10**9 if isinstance(when, int | float) else 0
