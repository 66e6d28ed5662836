"""--json: what a command did, or found, as one JSON object on stdout; whatever else is told goes to stderr."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import click

__all__ = ["json_option", "print_json"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")


def print_json(record: object, **more: object) -> None:
    """Print a dataclass or a dict, with further entries. Paths become text, and numbers that JSON has not, null."""
    facts = dict(record) if isinstance(record, dict) else _plain(record)
    click.echo(json.dumps(_plain({**facts, **more}), indent=2, allow_nan=False))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
