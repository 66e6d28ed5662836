"""Videos behind http and https addresses, where the user allows them: fetched whole, then decoded like any file.

A decoder that reads from the network takes a dropped connection for the end of the video. So a video is first fetched to a
file, by the downloader of weights (bounded, resumed, http and https only), and a server that does not say how long a file is
is refused: a short one could not be told from a whole one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from featx.checkpoints.download import download
from featx.content import content_sha256
from featx.errors import CheckpointError
from featx.features import Failure, Features
from featx.plan import VideoItem

__all__ = ["UrlVideos"]


class UrlVideos:
    """Stands between a plan and an Extractor: `local` turns addresses into files in `folder`, `results` back into addresses.

    `stopped` is asked during a transfer, and ends it. Files of the plan pass through both untouched.
    """

    def __init__(self, folder: Path, content_hash: bool = False, stopped: Callable[[], bool] = lambda: False) -> None:
        self._folder, self._content_hash, self._stopped = folder, content_hash, stopped
        self._items: dict[str, VideoItem] = {}  # key -> the item with its local file
        self._failed: list[Failure] = []
        self._left = False  # nobody takes results any more
        shutil.rmtree(folder, ignore_errors=True)  # of a run that died

    def local(self, items: Iterable[VideoItem]) -> Iterator[VideoItem]:
        """The same items, those of an address with the path of what was fetched; what cannot be fetched is a Failure."""
        for number, item in enumerate(items):
            if self._left:
                return
            if not item.url:
                yield item
                continue
            target = self._folder / f"{number}{Path(item.path.name).suffix[:16]}"
            try:
                download(item.url, target, need_length=True, on_progress=self._go_on)
            except CheckpointError as error:
                reason = str(error).partition("; ")[0].removeprefix(f"{item.url} ")
                self._failed.append(Failure(item.key, item.url, reason))
                self._drop(target)
                continue
            except _Stopped:
                return
            self._items[item.key] = replace(item, path=target)
            yield self._items[item.key]

    def results(self, results: Iterable[Features | Failure]) -> Iterator[Features | Failure]:
        """The same results, with the addresses as their paths, and a Failure for every video that was not fetched."""
        try:
            for result in results:
                yield from self._take_failed()
                item = self._items.pop(result.key, None)
                if item is None:
                    yield result
                    continue
                if self._content_hash and isinstance(result, Features):
                    result = _with_hash(result, item.path)
                self._drop(item.path)
                yield replace(result, path=item.url, mtime_ns=0)
            yield from self._take_failed()
        finally:
            self._left = True  # a transfer in another thread ends at its next piece
            shutil.rmtree(self._folder, ignore_errors=True)

    def _take_failed(self) -> Iterator[Failure]:
        while self._failed:
            yield self._failed.pop(0)

    def _go_on(self, num_bytes: int, total: int | None) -> None:
        if self._left or self._stopped():
            raise _Stopped

    @staticmethod
    def _drop(target: Path) -> None:
        for suffix in ("", ".part", ".part.json"):  # the downloader's names
            target.with_name(target.name + suffix).unlink(missing_ok=True)


def _with_hash(features: Features, path: Path) -> Features | Failure:
    try:
        return replace(features, sha256=content_sha256(path))
    except OSError as error:
        reason = f"what was fetched cannot be read again for its hash: {error.strerror or error}"
        return Failure(features.key, features.path, reason, features.size_bytes)


class _Stopped(Exception):
    """The run is to end now."""
