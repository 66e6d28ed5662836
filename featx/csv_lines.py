"""Tables of comma-separated values: each line ends with a newline, and a key may hold whatever it likes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from typing import TextIO

from featx.errors import FeatureFileError
from featx.lists import read_text

__all__ = ["csv_reader", "csv_writer"]


class _Lines:
    """A file whose lines end with a newline though they come with a carriage return before it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


def csv_writer(file: TextIO):
    """A writer as `csv.writer` makes; `file` is opened with newline "".

    It quotes a carriage return as well as a newline, which would else tear its row: csv quotes only what ends its own lines.
    """
    return csv.writer(_Lines(file), lineterminator="\r\n")


def csv_reader(path: str | os.PathLike) -> Iterator[list[str]]:
    """The rows of a file, lists of cells; an empty line is []. Bytes that are not UTF-8 are as `read_text` keeps them.

    Raises FeatureFileError for a quotation mark that is not closed, UsageError for a file that cannot be read.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        yield from rows
    except csv.Error as error:
        raise FeatureFileError(
            f"{path}: line {rows.line_num} is not comma-separated values ({error}); a quotation mark in a cell is written twice"
        ) from error
