"""From what `--device` says to the devices that a run uses, one process each."""

from __future__ import annotations

import re

import torch

from featx.engine import choose_device
from featx.errors import UsageError

__all__ = ["worker_devices"]

REMEDY = "a list names each device, as cuda:0,cuda:2 or cpu,cpu do"


def worker_devices(name: str) -> tuple[str, ...]:
    """The devices of a run, one name each: all visible GPUs for "cuda" and, where there is one, for "auto".

    A list, "cuda:0,cuda:2", names them one by one; a device that is named twice gets two processes. One name: the run needs
    no further process.

    Raises UsageError for a name that is none, a device that is not there, and a list of two kinds, whose numbers would agree
    to rounding only.
    """
    names = [part.strip() for part in name.split(",")]
    if len(names) == 1:
        device = choose_device(name)
        num_gpus = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
        return (name,) if num_gpus == 1 else tuple(f"cuda:{i}" for i in range(num_gpus))
    for part in names:
        if part in ("", "auto", "cuda"):
            raise UsageError(f"'{part}' stands in the devices '{name}', but {REMEDY}")
        choose_device(part)
    if len({re.sub(r":\d+$", "", part) for part in names}) > 1:
        raise UsageError(
            f"the devices '{name}' are of two kinds, whose numbers agree to rounding only; take devices of one kind"
        )
    return tuple(names)
