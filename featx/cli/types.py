"""Types of options that click does not have."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["ByteCount", "PathOrAddress", "WholeNumber"]

_SIZE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,9})?) *(?P<unit>[kKMGT]?i?)B?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class PathOrAddress(click.Path):
    """A path, or an address as it was written: as a path it would lose a slash."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from featx.remote import is_address

        return value if is_address(value) else super().convert(value, param, ctx)


class WholeNumber(click.types.IntParamType):
    """An integer that libraries can take; what is too small for an option is told by what takes it."""

    def __init__(self, most: int = 2**32 - 1) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = super().convert(value, param, ctx)
        if abs(number) > self.most:
            wrong = f"large; take {self.most:,} at most" if number > 0 else f"small; take -{self.most:,} at least"
            self.fail(f"'{value}' is too {wrong}", param, ctx)
        return number


class ByteCount(click.ParamType):
    """A number of bytes: 2000000, 500MB (10^6), 4GiB (2^30)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"'{value}' is no number of bytes; write one such as 500MB or 4GiB", param, ctx)
        unit = match["unit"]
        base = 1024 if unit.endswith("i") else 1000
        return int(float(match["number"]) * base ** _POWERS[unit.removesuffix("i").lower()])
