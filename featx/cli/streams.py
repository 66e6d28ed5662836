"""What is printed, where nobody may take it: a reader that has left, a log's disk that is full, a letter that is not known."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TextIO

import click

from featx.small_files import print_text

__all__ = ["print_any_name", "silence", "tell", "unprinted"]


def print_any_name() -> None:
    """Let stdout take names that are not UTF-8, and letters that its encoding lacks, as ``\\udcff`` and ``\\xe9``.

    In the C locale it gives back the bytes of such names, and stays so.
    """
    stream = sys.stdout
    if hasattr(stream, "reconfigure") and (stream.errors, stream.encoding.lower()) != ("surrogateescape", "utf-8"):
        stream.reconfigure(errors="backslashreplace")


def tell(text: str, err: bool = False) -> None:
    """Print a line of a long run, which goes on where that fails: from then on nothing is printed there.

    A reader that left, as ``head`` does, wanted no more; of a disk that is full stderr tells.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(text, err=err)
    except OSError as error:
        silence(stream)
        if not err and not isinstance(error, BrokenPipeError):
            tell(
                f"note: stdout takes no more ({error.strerror}); the run goes on, and what it would print is lost", True
            )


def unprinted(error: OSError) -> str:
    """ "stdout" or "stderr" where the error is that this could not be written, else ""."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code in (click.echo.__code__, print_text.__code__):
            return "stderr" if frame.f_locals.get("err") else "stdout"
    return ""


def silence(stream: TextIO | None) -> None:
    """Send nowhere what is printed from now on, and what is held still, of which Python would complain at its exit."""
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # what stands in for a stream in a test or a notebook
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
