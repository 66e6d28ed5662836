"""How long something lasts, in the two units that matter to a reader."""

from __future__ import annotations

__all__ = ["duration_text"]

HOUR, DAY = 3600, 86400
# from so many seconds on, in such units: the large one and its seconds, the small one and its seconds
UNITS = ((2 * DAY, "days", DAY, "h", HOUR), (HOUR, "h", HOUR, "min", 60), (60, "min", 60, "s", 1))


def duration_text(seconds: float) -> str:
    """Seconds in words: "4.2 s", "3 min 5 s", "7 h 58 min", "12 days 4 h"; from a year on "3.2 years"."""
    if seconds >= 365 * DAY:
        return f"{seconds / 365 / DAY:,.1f} years"
    for least, large, unit, small, part in UNITS:
        if seconds >= least:
            whole, rest = divmod(round(seconds / part), unit // part)
            return f"{whole} {large} {rest} {small}"
    return f"{seconds:.1f} s"
