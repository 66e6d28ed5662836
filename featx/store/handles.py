"""Files that stay open for reading while they are few: a process may open a thousand, and a set may have more."""

from __future__ import annotations

import errno
import io
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Handles"]

MOST = 256  # kept open, and no more than a quarter of what the process may open


class Handles:
    """The files that were read last. One that is let go of here stays open as long as a reader still has it."""

    def __init__(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._capacity = MOST if limit == resource.RLIM_INFINITY else max(4, min(MOST, limit // 4))
        self._files: OrderedDict[str, io.FileIO] = OrderedDict()

    def get(self, path: str, require: Callable[[io.FileIO], None]) -> io.FileIO:
        """A file opened for reading; `require` raises where it is not the one it should be. Raises OSError."""
        file = self._files.pop(path, None)
        if file is None:
            try:
                file = io.FileIO(path)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self.close()
                file = io.FileIO(path)
            require(file)
        self._files[path] = file
        if len(self._files) > self._capacity:
            with suppress(KeyError):  # another thread let go of all
                self._files.popitem(last=False)
        return file

    def close(self) -> None:
        """Let go of all of them."""
        self._files.clear()
