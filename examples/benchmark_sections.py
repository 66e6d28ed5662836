"""The sections of a benchmark: one that fails is told, and costs none of the others."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

__all__ = ["Sections"]

TOLD_CALLS = 3  # of a traceback, the innermost


class Sections:
    """Which sections failed so far.

    >>> sections = Sections()
    >>> with sections.section("one that fails"):                                 # doctest: +SKIP
    ...     measure()
    >>> sections.exit_code()
    0
    """

    def __init__(self) -> None:
        self.failed: list[str] = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Go on after the ``with`` block whatever fails in it, and say what did. Ctrl-C still ends the benchmark."""
        try:
            yield
        except Exception as error:
            self.failed.append(name)
            told = "".join(
                traceback.format_exception(type(error), error, error.__traceback__, -TOLD_CALLS, chain=False)
            )
            print(f"\n  {name} FAILED, the benchmark goes on:\n    " + told.strip().replace("\n", "\n    "), flush=True)
            traceback.clear_frames(error.__traceback__)  # they hold memory of a device, and the error them
            gc.collect()
            if torch.cuda.is_initialized():
                with suppress(RuntimeError):  # some errors of CUDA stay for as long as the process
                    torch.cuda.empty_cache()

    def exit_code(self) -> int:
        """1 where a section failed; says which once more, since they stand far above."""
        if self.failed:
            print(f"\nFAILED: {', '.join(self.failed)}", flush=True)
        return 1 if self.failed else 0
