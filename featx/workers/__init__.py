"""Extraction by several processes: one Extractor a device, one shared queue of videos, the same results.

protocol.py   what a worker is asked, and what it says: the same for any place where workers may run
pool.py       several workers as if they were one Extractor
deal.py       which video goes where, and what becomes of those of a lost worker
server.py     a worker's end of the protocol
local.py      a worker that is a process of this machine: the run's side
program.py    … and the worker's own
wire.py       messages through a pipe, large arrays uncopied
order.py      the largest videos first
ray_cluster.py  the workers of a Ray cluster, its only importer with ray_worker.py and ray_host.py
ray_worker.py   a worker that is an actor: the run's side
ray_host.py     … what finds featx on its machine
ray_program.py  … and what that featx does
"""

from __future__ import annotations

import os

from featx.catalog import Checkpoint
from featx.devices import worker_devices
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.workers.order import largest_first
from featx.workers.pool import ExtractorPool

__all__ = ["ExtractorPool", "largest_first", "open_extractor"]


def open_extractor(
    backbone: str | os.PathLike | Checkpoint,
    *,
    ray: str | None = None,
    ray_workers: int | None = None,
    ray_cpus: int | None = None,
    ray_gpus: float | None = None,
    **options: object,
) -> Extractor | ExtractorPool:
    """An Extractor on the device that `options` name, or where they name several, as many in processes of their own.

    With `ray`, the address of a Ray cluster, its actors: so many, and with what each asks for, see `featx.workers.ray_cluster`.
    All are used in the same way, once `prepare` has been called. Raises what `Extractor` raises, and UsageError for parts of
    such a request without an address.
    """
    if ray is not None:
        from featx.workers.ray_cluster import RayPool, RayRequest

        return RayPool(backbone, RayRequest(ray, ray_workers, ray_cpus, ray_gpus), **options)
    for name, value in {"ray_workers": ray_workers, "ray_cpus": ray_cpus, "ray_gpus": ray_gpus}.items():
        if value is not None:
            raise UsageError(f"{name} is {value}, but no Ray cluster is named; name it with --ray, or leave that out")
    devices = worker_devices(str(options.pop("device", "auto")))
    if len(devices) == 1:
        return Extractor(backbone, device=devices[0], **options)
    return ExtractorPool(backbone, devices, **options)
