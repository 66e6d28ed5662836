"""An extraction worker that is a process of this machine: the run's side of it.

It is started as a program of its own, as decode workers are, so that a user's script needs no ``if __name__ ==
"__main__"``; and it leaves signals to the run, which ends it when it has no more use for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from featx.errors import one_line
from featx.interrupt import signal_name
from featx.plan import VideoItem
from featx.workers.protocol import Hear, Lost
from featx.workers.wire import read_message, write_message

__all__ = ["LocalWorker"]

# Imports this very featx, and nothing from the folder in which the user happens to be.
_PROGRAM = (
    "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]; "
    "import sys; from importlib import import_module; sys.path[:1] = sys.argv[1].split('|'); "
    "import_module(sys.argv[2]).main(sys.argv[3], *map(int, sys.argv[4:]))"
)
_OWN_FOLDER = str(Path(__file__).resolve().parents[2])
END_SECONDS = 2.0  # a process that is told to end and does not is killed


class LocalWorker:
    """A process with an Extractor on `device`, `num_threads` of the processor for it, and `num_decoders` decode workers.

    `program`: a module whose `main` serves as that of `featx.workers.program` does, found in `folders` where featx has it not.
    `hear` is called from a thread of this worker's, in the order of what the process says. See `protocol.ExtractionWorker`.
    """

    def __init__(
        self,
        device: str,
        hear: Hear,
        num_threads: int = 1,
        num_decoders: int = 1,
        program: str = "featx.workers.program",
        folders: Sequence[str] = (),
    ) -> None:
        self.device = self.name = device
        self.machine = ""
        self._hear, self._closed = hear, False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _PROGRAM, "|".join((_OWN_FOLDER, *folders))),
                *(program, device, str(num_threads), str(num_decoders)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": str(num_threads)},
            start_new_session=True,  # so that a Ctrl-C at the terminal does not reach it while it starts
        )
        threading.Thread(target=self._listen, name=f"featx-{device}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, options: dict, items: Sequence[VideoItem]) -> None:
        """Make the Extractor and prepare it for such videos; `Opened` or `Refused` will be heard."""
        self._send(("open", (options, list(items))))

    def give(self, items: Sequence[VideoItem]) -> None:
        """Some more videos of this round."""
        self._send(("videos", list(items)))

    def end_round(self) -> None:
        """No more videos in this round."""
        self._send(("end", None))

    def close(self) -> None:
        """End the process."""
        self._closed = True
        try:
            self._process.stdin.close()  # which it takes for the end, wherever it is
        except OSError:
            pass
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: tuple[str, object]) -> None:
        try:
            write_message(self._process.stdin, message)
        except BrokenPipeError:  # it is gone, as the thread will say
            pass

    def _listen(self) -> None:
        try:
            while True:
                event = read_message(self._process.stdout)
                if self._closed:
                    return
                self._hear(self, event)
        except EOFError:
            if not self._closed:
                self._hear(self, Lost(self._last_words()))
        except Exception as error:  # what it said cannot be taken; without a word the run would wait for ever
            if not self._closed:
                self._hear(self, Lost(one_line(f"what it said cannot be read: {error or type(error).__name__}")))
        finally:
            self._process.stdout.close()
            self._errors.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"it was ended by {signal_name(-code)}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"
