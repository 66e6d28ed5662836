"""The actor: featx, found on the machine where Ray has started it, and its messages, for `ray_worker` on the run's side.

This module is sent to that machine as it is, since a featx has still to be found there: it may use nothing of featx before.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys

__all__ = ["Host"]


class Host:
    """An actor with an Extractor on `device`. Its methods are called from several threads.

    `home`: where the run's featx lies, which is taken where it lies there on this machine too; `folder`: that of the run, which
    relative paths of videos are from; `code`: what this featx must be, see `ray_program.code_of`. `num_threads` and
    `num_decoders` are shares of the processor.
    """

    def __init__(
        self, home: str, folder: str, code: str, device: str, num_threads: int, num_decoders: int, make: object = None
    ) -> None:
        self._program, self._problem = None, ""
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as at the command line; read when torch is loaded
        # the folder of the run is first on Ray's path, and what lies in it is no library
        sys.path[:] = [path for path in sys.path if path not in ("", folder)]
        if os.path.isfile(os.path.join(home, "featx", "__init__.py")):
            sys.path.insert(0, home)
        if os.path.isdir(folder):
            os.chdir(folder)
        try:
            program = importlib.import_module("featx.workers.ray_program")
            self._problem = program.why_not(code)
            self._program = program.Program(device, num_threads, num_decoders, make)
        except Exception as error:  # whatever a library is missing there
            self._problem = (
                f"featx cannot be loaded there ({type(error).__name__}: {error}); install the same featx there"
            )

    def look(self) -> tuple[str, int, str, str, str]:
        """The machine's name, the process, why they will not do ("" where they will), and Ray's node and its address."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return socket.gethostname(), os.getpid(), self._problem, node, ray.util.get_node_ip_address()

    def tell(self, number: int, message: tuple, weights: object = None) -> None:
        """The message of that number, from 0; messages may come in any order. `weights` belong to the Extractor's options."""
        self._program.tell(number, message, weights)

    def hear(self) -> list:
        """The next events, at least one, for which it waits."""
        return self._program.hear()
