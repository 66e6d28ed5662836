"""What a run says to an extraction worker, and what it hears, wherever the worker runs.

    run     open ─────────▶ give, give, give … end_round ──────────────▶ give … end_round ─▶ …  close
    worker        ▶ Opened        ▶ Wanted, Finished, Wanted … ▶ Drained       ▶ …         and Noted, at any time

A round is one call of `Extractor.extract_many`: it begins with the first video given, and after `end_round` the batch that is
left over goes through the network. `Absent` may stand for `Finished`; and instead of `Opened` there may come `Refused`, or
`Unfit` where not the request is wrong but the machine. A worker that is lost in any way says `Lost` last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from featx import errors
from featx.errors import FeatxError, UsageError
from featx.features import Failure, Features
from featx.plan import VideoItem

__all__ = [
    "Absent",
    "Drained",
    "Event",
    "ExtractionWorker",
    "Finished",
    "Hear",
    "Lost",
    "Noted",
    "Opened",
    "Refused",
    "StartWorker",
    "Unfit",
    "Wanted",
]

# what a run asks of an Extractor, besides the features of its videos
FACTS = ("checkpoint", "sampling", "provenance", "num_dims", "save", "dtype", "aggregation", "views", "on_corrupt")


@dataclass(frozen=True)
class Opened:
    """The worker's Extractor is ready; its attributes of the names in FACTS, and what is to be said of its engine.

    `kind` describes what computes, for workers on several machines: where it differs, numbers agree to rounding only.
    `decode`: who is found to decode here.
    """

    facts: dict[str, object]
    note: str
    kind: str = ""
    decode: str = "cpu"

    @classmethod
    def of(cls, extractor: object, kind: str = "") -> Opened:
        facts = {name: getattr(extractor, name) for name in FACTS}
        return cls(facts, extractor.engine.note, kind, extractor.decode)


@dataclass(frozen=True)
class Noted:
    """A one-line remark for the user."""

    text: str


@dataclass(frozen=True)
class Wanted:
    """A decoder of the worker has begun its last video: another may be given."""


@dataclass(frozen=True, eq=False)
class Finished:
    """One video is done, in batches of so many clips, which can become fewer where a GPU's memory is full."""

    result: Features | Failure
    batch_size: int


@dataclass(frozen=True, eq=False)
class Absent:
    """One video cannot be read where the worker is, though perhaps elsewhere: it failed as told."""

    failure: Failure


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
class Unfit:
    """The worker's machine will not do, and why: such as another featx there."""

    reason: str


@dataclass(frozen=True)
class Lost:
    """The worker is gone, and why; what it had been given comes back from nowhere. `with_machine`: all of its machine is."""

    reason: str
    with_machine: bool = False


Event = Opened | Noted | Wanted | Finished | Absent | Drained | Refused | Unfit | Lost


class ExtractionWorker(Protocol):
    """One Extractor somewhere else. No call waits for an answer; answers are Events, heard from a thread of the worker's.

    `device` is what computes, `name` what messages call the worker, and `machine` tells its machine from others, "" where
    all are on one; from `Opened` on both stay as they are.
    """

    device: str
    name: str
    machine: str

    def open(self, options: dict, items: Sequence[VideoItem]) -> None:
        """Make the Extractor, for such videos. `options`: its arguments, `backbone` among them, less the device."""

    def give(self, items: Sequence[VideoItem]) -> None:
        """Some more videos of this round."""

    def end_round(self) -> None:
        """No more videos in this round."""

    def close(self) -> None:
        """End the worker, whatever it is doing. Nothing is heard of it afterwards."""


Hear = Callable[[ExtractionWorker, Event], None]
StartWorker = Callable[[str, Hear], ExtractionWorker]
