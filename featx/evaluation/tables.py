"""Small CSV files that say something of videos: named columns, in a header line or in the order stated."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from featx.errors import UsageError

__all__ = ["read_mapping", "read_table"]


def read_table(
    path: Path, columns: Sequence[str], *, other_forms: Sequence[Sequence[str]] = ()
) -> list[dict[str, str]]:
    """The rows of a UTF-8 CSV file, column -> text without surrounding space; empty lines are passed over.

    A first line that holds all names of `columns` is the header, and may name more; without one the columns are
    `columns`, in that order. `other_forms` are other sets of columns that will do. Raises UsageError, naming the line.
    """
    forms = [tuple(columns), *map(tuple, other_forms)]
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not CSV in UTF-8"
        raise UsageError(
            f"{path}: cannot be read as a table of {','.join(columns)} ({reason}); name such a file"
        ) from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise UsageError(f"{path}: the table is empty; write {','.join(columns)} a line")
    header = [cell.lower() for cell in lines[0][1]]
    named = next((form for form in forms if set(form) <= set(header)), None)
    if named:
        lines = lines[1:]
    else:
        header = named = next((form for form in forms if len(form) == len(header)), forms[0])
    rows = []
    for number, cells in lines:
        row = dict(zip(header, cells, strict=False))
        if len(cells) != len(header) or not all(row[name] for name in named):
            raise UsageError(f"{path}, line {number}: '{','.join(cells)}' is not {','.join(header)}; write such lines")
        rows.append({name: row[name] for name in named})
    if not rows:
        raise UsageError(f"{path}: the table has a header and no rows; write {','.join(columns)} a line")
    return rows


def read_mapping(path: Path, key: str, value: str) -> dict[str, str]:
    """The table of two columns as a dictionary. Raises UsageError too where a key has two values."""
    found: dict[str, str] = {}
    for row in read_table(path, (key, value)):
        if found.setdefault(row[key], row[value]) != row[value]:
            raise UsageError(
                f"{path}: '{row[key]}' has the {value}s '{found[row[key]]}' and '{row[value]}'; it has one, so drop a line"
            )
    return found
