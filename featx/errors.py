"""Every error that featx raises on purpose.

FeatxError                    anything featx refuses to do; the message gives the value, the rule and the remedy
├── UsageError                a request that cannot be met as it stands (also a ValueError)
│   ├── UnknownNameError      a name that is in no table; suggests the nearest ones
│   └── ProvenanceError       feature files, or a file and a request, that were not made in the same way
├── CheckpointError           weights that are missing, damaged, or not the card's
├── FeatureFileError          a feature file that is damaged, or not one at all
└── VideoError                one video that cannot be turned into frames or clips; costs that video only

LacksWarning                  features are read of which some are missing, since a run has not ended or a shard is not there
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "FeatureFileError",
    "FeatxError",
    "LacksWarning",
    "ProvenanceError",
    "UnknownNameError",
    "UsageError",
    "VideoError",
    "one_line",
]

# of so many names all are listed where none is near, and of more the first few
MAX_NAMES, FEW_NAMES = 20, 6
MIN_INSIDE = 4  # letters and digits of a name that is looked for inside others

# controls, line and paragraph separators, marks that turn the direction of what follows, and bytes that are not UTF-8
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """A text, such as one with a file's name in it, for a line of a terminal, a log or a feature file.

    A newline becomes ``\\n``, an escape ``\\x1b``, a byte that is not UTF-8 ``\\xff``.
    """
    return _UNPRINTABLE.sub(lambda match: _escaped(match[0]), text)


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


class FeatxError(Exception):
    """Anything featx refuses to do. Its message is one line, whatever names stand in it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class LacksWarning(UserWarning):
    """Features are read that are not all there; the line says what is missing."""


class UsageError(FeatxError, ValueError):
    """A request that cannot be met as it stands."""


class UnknownNameError(UsageError):
    """A name that is in no table.

    The message is ``unknown <kind> '<name>'; did you mean '<nearest>'? <remedy>``; without a near name all are listed.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        nearest = [*self._with_all_of(name), *difflib.get_close_matches(name, self.known, n=3, cutoff=0.5)]
        nearest = list(dict.fromkeys(nearest))[:3] or self._by_first_word(name)
        if nearest:
            hint = "did you mean " + " or ".join(f"'{n}'" for n in nearest) + "?"
        else:
            shown = self.known if len(self.known) <= MAX_NAMES else self.known[:FEW_NAMES]
            more = f", … ({len(self.known)} in all)" if len(self.known) > len(shown) else ""
            hint = f"known: {', '.join(shown)}{more}."
        super().__init__(f"unknown {kind} '{name}'; {hint} {remedy}".rstrip())

    def _with_all_of(self, name: str) -> list[str]:
        """'r3d_18', as another program calls it, stands in 'tv-r3d18-kinetics', however the words are joined."""
        squeezed = _squeezed(name)
        inside = [known for known in self.known if squeezed in _squeezed(known)] if len(squeezed) >= MIN_INSIDE else []
        return inside if len(inside) <= 3 else []

    def _by_first_word(self, name: str) -> list[str]:
        """'cd3' is far from 'c3d-sports1m', but near its first word."""
        heads = {known.split("-")[0] for known in self.known}
        near = difflib.get_close_matches(name.split("-")[0], heads, n=1, cutoff=0.5)
        return [known for known in self.known if known.split("-")[0] in near]


class ProvenanceError(UsageError):
    """Feature files, or a file and a request, that were not made in the same way."""


class CheckpointError(FeatxError):
    """Weights that are missing, damaged, or not the card's."""


class FeatureFileError(FeatxError):
    """A feature file that is damaged, or not one at all."""


class VideoError(FeatxError):
    """One video that cannot be turned into frames or clips; it costs that video and no other."""
