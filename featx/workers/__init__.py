"""Extraction by several processes: one Extractor a device, one shared queue of videos, the same results.

protocol.py   what a worker is asked, and what it says: the same for any place where workers may run
pool.py       hands out videos, takes back results, gives the videos of a lost worker to another
local.py      a worker that is a process of this machine: the parent's side
program.py    … and the worker's own
wire.py       messages through a pipe, large arrays uncopied
"""

from __future__ import annotations

import os

from featx.catalog import Checkpoint
from featx.devices import worker_devices
from featx.extractor import Extractor
from featx.workers.pool import ExtractorPool

__all__ = ["ExtractorPool", "open_extractor"]


def open_extractor(backbone: str | os.PathLike | Checkpoint, **options: object) -> Extractor | ExtractorPool:
    """An Extractor on the device that `options` name, or where they name several, as many in processes of their own.

    Both are used in the same way, once `prepare` has been called. Raises what `Extractor` raises.
    """
    devices = worker_devices(str(options.pop("device", "auto")))
    if len(devices) == 1:
        return Extractor(backbone, device=devices[0], **options)
    return ExtractorPool(backbone, devices, **options)
