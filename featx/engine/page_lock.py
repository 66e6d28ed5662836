"""Memory that a GPU may copy from by itself, while the program goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch

__all__ = ["page_lock"]

PORTABLE = 1  # cudaHostRegisterPortable: for every GPU of the process


def page_lock(memory: np.ndarray, device: torch.device) -> Callable[[], None] | None:
    """Lock memory that lies there already, such as a shared one; returns what undoes it, or None where that is refused.

    It must be undone before the memory is given back, once nothing is copied from it any more.
    """
    runtime, address = torch.cuda.cudart(), memory.ctypes.data

    def unlock() -> None:
        # on that device, since another, the thread's own, may have no context yet, and would get one; a failed one says so
        with suppress(RuntimeError), torch.cuda.device(device):
            runtime.cudaHostUnregister(address)

    with torch.cuda.device(device):
        if int(runtime.cudaHostRegister(address, memory.nbytes, PORTABLE)) == 0:
            return unlock
        try:  # CUDA remembers the refusal, and would report it as the failure of the next kernel, which is this
            torch.zeros(1, device=device).add_(1)
        except RuntimeError:
            pass
    return None
