"""What is done with a stream that is damaged, and what is remembered of it.

fail   the first symptom raises VideoError: a video is whole or it gives no features (the default)
keep   symptoms are noted and decoding goes on; the features come from what decodes, and the file says so
"""

from __future__ import annotations

import os

from featx.containers import missing_bytes
from featx.errors import UsageError, VideoError

__all__ = ["ON_CORRUPT", "Damage", "check_policy"]

ON_CORRUPT = ("fail", "keep")


def check_policy(on_corrupt: str) -> None:
    """Raise UsageError unless `on_corrupt` is a policy."""
    if on_corrupt not in ON_CORRUPT:
        raise UsageError(f"on_corrupt is '{on_corrupt}', but must be one of {', '.join(ON_CORRUPT)}")


class Damage:
    """The symptoms of one video, by the policy `on_corrupt`; `text` tells them, and is empty for a whole video.

    Of each kind of symptom the first is kept and the others are counted, so that the text stays short however long the
    video is. A missing end is named as their cause wherever there is one.
    """

    def __init__(self, on_corrupt: str = "fail") -> None:
        check_policy(on_corrupt)
        self.on_corrupt = on_corrupt
        self._cause = ""
        self._first: dict[str, str] = {}  # kind -> its first symptom
        self._counts: dict[str, int] = {}

    def note(self, kind: str, symptom: str, path: str | os.PathLike) -> None:
        """Take in a symptom of the file `path`. Raises VideoError with it where the policy is fail."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if kind not in self._first:
            lost = 0 if os.path.isdir(path) else missing_bytes(path)
            self._cause = f"cut short: {lost} bytes are missing at its end" if lost else "damaged"
            self._first[kind] = symptom
        if self.on_corrupt == "fail":
            raise VideoError(self.text)

    @property
    def text(self) -> str:
        """What was noted, on one line."""
        symptoms = [
            symptom + f" ({self._counts[kind]} times)" * (self._counts[kind] > 1)
            for kind, symptom in self._first.items()
        ]
        return (self._cause + ("; " if self._cause != "damaged" else ": ") + "; ".join(symptoms)) if symptoms else ""
