"""What a run says to an extraction worker, and what it hears, wherever the worker runs.

    run     open ─────────▶ give, give, give … end_round ──────────────▶ give … end_round ─▶ …  close
    worker        ▶ Opened        ▶ Wanted, Finished, Wanted … ▶ Drained       ▶ …

A round is one call of `Extractor.extract_many`: it begins with the first video given, and after `end_round` the batch that is
left over goes through the network. A worker that is lost in any way says `Lost` last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from featx import errors
from featx.clips import Sampling
from featx.errors import FeatxError, UsageError
from featx.features import Failure, Features
from featx.plan import VideoItem
from featx.provenance import Provenance

__all__ = [
    "Drained",
    "Event",
    "ExtractionWorker",
    "Finished",
    "Hear",
    "Lost",
    "Opened",
    "Refused",
    "StartWorker",
    "Wanted",
]


@dataclass(frozen=True)
class Opened:
    """The worker's Extractor is ready; what a run needs to know of it."""

    provenance: Provenance
    sampling: Sampling
    num_dims: dict[str, int]
    note: str  # of its engine


@dataclass(frozen=True)
class Wanted:
    """A decoder of the worker has begun its last video: another may be given."""


@dataclass(frozen=True, eq=False)
class Finished:
    """One video is done."""

    result: Features | Failure


@dataclass(frozen=True)
class Drained:
    """The round is over, every video given has come back; what its stages have taken since the start, in seconds."""

    seconds: dict[str, float]
    num_decoders: int


@dataclass(frozen=True)
class Refused:
    """The worker cannot do what it was asked: a FeatxError, by the name of its class."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: FeatxError) -> Refused:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return cls(next(kind for kind in kinds if kind != "UnknownNameError"), str(error))

    def error(self) -> FeatxError:
        """The error, to be raised by the run."""
        return getattr(errors, self.kind, UsageError)(self.message)


@dataclass(frozen=True)
class Lost:
    """The worker is gone, and why; what it had been given comes back from nowhere."""

    reason: str


Event = Opened | Wanted | Finished | Drained | Refused | Lost


class ExtractionWorker(Protocol):
    """One Extractor somewhere else. No call waits for an answer; answers are Events, heard from a thread of the worker's."""

    device: str

    def open(self, options: dict) -> None:
        """Make the Extractor. `options`: its arguments, `backbone` among them, less the device."""

    def give(self, item: VideoItem) -> None:
        """One more video of this round."""

    def end_round(self) -> None:
        """No more videos in this round."""

    def close(self) -> None:
        """End the worker, whatever it is doing. Nothing is heard of it afterwards."""


Hear = Callable[[ExtractionWorker, Event], None]
StartWorker = Callable[[str, Hear], ExtractionWorker]
