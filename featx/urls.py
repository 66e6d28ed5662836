"""Videos behind addresses, of the web or of a store: fetched whole, a bounded way ahead, then decoded like any file.

A decoder that reads from the network takes a dropped connection for the end of the video. So a video is first fetched to a
file: from the web by the downloader of weights (bounded, resumed, http and https only), from a store through fsspec. A server
that does not say how long a file is is refused: a short one could not be told from a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from featx.features import Failure, Features
from featx.fetch_ahead import CACHE_BYTES, FetchAhead, Fetched
from featx.plan import VideoItem

__all__ = ["UrlVideos"]


class UrlVideos:
    """Stands between a plan and an Extractor: `local` turns addresses into files in `folder`, `results` back into addresses.

    `limit_bytes`: what the files may take together. `stopped` is asked during transfers, and ends them, and `local` with them;
    with `end_at_failure` so does the first video that cannot be fetched.
    Files of the plan pass through both untouched.
    """

    def __init__(
        self,
        folder: Path,
        content_hash: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        limit_bytes: int = CACHE_BYTES,
        end_at_failure: bool = False,
    ) -> None:
        self._end_at_failure = end_at_failure
        self._ahead = FetchAhead(folder, limit_bytes, content_hash, stopped)
        self._fetched: dict[str, Fetched] = {}  # key -> what is being decoded
        self._failed: list[Failure] = []
        self._left = False  # nobody takes results any more

    def local(self, items: Iterable[VideoItem]) -> Iterator[VideoItem]:
        """The same items, those of an address with the path of what was fetched, as they come.

        What cannot be fetched is a Failure among the results.
        """
        items = iter(items)
        for item in items:
            if self._left:
                return
            if item.url:
                items = chain([item], items)
                break
            yield item
        else:
            return
        for result in self._ahead.fetched(items):
            if isinstance(result, Failure):
                self._failed.append(result)
                if self._end_at_failure:
                    self._ahead.end()
                    return
            else:
                if result.item.url:
                    self._fetched[result.item.key] = result
                yield result.item

    def results(self, results: Iterable[Features | Failure]) -> Iterator[Features | Failure]:
        """The same results, with the addresses as their paths, and a Failure for every video that was not fetched."""
        try:
            for result in results:
                yield from self._take_failed()
                fetched = self._fetched.pop(result.key, None)
                if fetched is None:
                    yield result
                    continue
                self._ahead.drop(fetched.item.path)
                if isinstance(result, Features):
                    result = replace(result, sha256=fetched.sha256)
                yield replace(result, path=fetched.item.path_text, mtime_ns=fetched.mtime_ns)
            yield from self._take_failed()
        finally:
            self._left = True
            self._ahead.close()

    def _take_failed(self) -> Iterator[Failure]:
        while self._failed:
            yield self._failed.pop(0)
