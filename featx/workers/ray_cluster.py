"""Extraction by the actors of a Ray cluster: who connects, how many workers there are, and what each asks for.

Where actors run, and what becomes of the cluster, is Ray's business. What it needs to know is here, and the rest is as with
workers of this machine: `pool`, `deal`, and `ray_worker` for the run's side of one worker, `ray_host` and `ray_program` for the
actor's.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import featx
from featx import checkpoints
from featx.catalog import Checkpoint, get_checkpoint
from featx.errors import FeatxError, UsageError
from featx.extractor import Extractor
from featx.interrupt import SIGNALS
from featx.workers.pool import ExtractorPool

__all__ = ["RayPool", "RayRequest", "Share", "shares"]

DEVICES = ("auto", "cpu", "cuda")
CPUS_OF_A_WORKER = 4  # where no GPU computes: beyond it two workers are faster than one of twice the size
AHEAD = 4  # videos that wait in a worker: the next ones are under way before it has none
CONNECT_SECONDS = 5.0
MAX_SHOWN = 300  # characters of what Ray says
STARTS_ONE = "'ray start --head' starts one, and '--ray local' one of this machine alone for this run"


@dataclass(frozen=True)
class RayRequest:
    """What is asked of Ray: the cluster's `address` (host:port, "auto", or "local" for one of this machine alone, for this
    run), and where they are not left to `shares`, `num_workers`, and `num_cpus` and `num_gpus` of each.

    Raises UsageError for what cannot be.
    """

    address: str
    num_workers: int | None = None
    num_cpus: int | None = None
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.address not in ("auto", "local"):
            host, _, port = self.address.rpartition(":")
            if "://" in self.address or not host or not port.isdigit():
                raise UsageError(
                    f"the Ray cluster '{self.address}' must be HOST:PORT, auto or local; a run is started on a machine of the "
                    "cluster, such as by 'ray job submit'"
                )
        for name in ("num_workers", "num_cpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} of Ray is {value}, but must be at least 1")
        if self.num_gpus is not None and not 0 < self.num_gpus <= 1:
            raise UsageError(f"num_gpus of a Ray worker is {self.num_gpus}, but must be above 0 and at most 1, its own")


@dataclass(frozen=True)
class Share:
    """So many workers, and what each asks Ray for."""

    device: str  # "cpu" or "cuda"
    num_workers: int
    num_cpus: int
    num_gpus: float


def shares(request: RayRequest, device: str, nodes: Sequence[dict[str, float]]) -> Share:
    """The workers of a run on nodes with such resources ("CPU", "GPU"), on GPUs where `device` is "cuda", or "auto" and
    there are any.

    A GPU each, with its part of the node's processors; without GPUs four processors each, or fewer where the smallest node has
    fewer; and as many workers as fit. Raises UsageError for another device, and where none fits and `num_workers` is not given.
    """
    if device not in DEVICES:
        raise UsageError(
            f"device '{device}' was asked for, but Ray says which GPU a worker gets; take auto, cpu or cuda with --ray"
        )
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= (request.num_gpus or 1)]
    if device == "auto":
        device = "cuda" if with_gpus else "cpu"
    if device == "cpu" and request.num_gpus is not None:
        raise UsageError(f"{request.num_gpus:g} GPUs a worker are asked for, but the device is cpu; take --device cuda")
    num_gpus = (request.num_gpus or 1.0) if device == "cuda" else 0.0
    usable = with_gpus if device == "cuda" else [node for node in nodes if node.get("CPU", 0) >= 1]
    parts = [int(node.get("CPU", 0) / (_fit_gpus(node["GPU"], num_gpus) if num_gpus else 1)) for node in usable]
    num_cpus = request.num_cpus or max(1, min(parts, default=1) if num_gpus else min([CPUS_OF_A_WORKER, *parts]))
    fit = [
        int(min(node.get("CPU", 0) // num_cpus, _fit_gpus(node["GPU"], num_gpus) if num_gpus else float("inf")))
        for node in usable
    ]
    num_workers = request.num_workers or sum(fit)
    if not num_workers:
        asked = f"{num_cpus} CPUs" + f" and {num_gpus:g} GPU" * bool(num_gpus)
        most = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
        raise UsageError(
            f"a worker asks for {asked}, but no node of the Ray cluster has as much; the largest has {most.get('CPU', 0):g} "
            f"CPUs and {most.get('GPU', 0):g} GPUs; ask for less with --ray-cpus, or say --ray-workers where Ray starts nodes"
        )
    return Share(device, num_workers, num_cpus, num_gpus)


def _fit_gpus(num_node_gpus: float, num_gpus: float) -> int:
    """Workers that get so much of a GPU of a node; none gets it of two."""
    each = int(1 / num_gpus + 1e-6)  # 0.1 is a little more than a tenth
    return int(num_node_gpus) * each + int(num_node_gpus % 1 / num_gpus + 1e-6)


class RayPool(ExtractorPool):
    """An ExtractorPool of the actors of a Ray cluster; `options` are those of `Extractor`, `device` "auto", "cpu" or "cuda".

    Weights are loaded here, and travel once to each node. Raises what `Extractor` raises for options that are wrong on any
    machine, UsageError for wrong requests, and FeatxError where no cluster answers.
    """

    def __init__(self, backbone: str | os.PathLike | Checkpoint, request: RayRequest, **options: object) -> None:
        device = str(options.pop("device", "auto"))
        if device not in DEVICES:
            shares(request, device, ())
        card, loaded = _loaded(backbone, options)
        if request.address not in ("auto", "local"):
            _require_answer(request.address)
        ray = require()
        self._disconnect = _connect(ray, request.address)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            share = shares(request, device, nodes)
            from featx.workers.ray_worker import RayWorker

            start = partial(RayWorker, start=_starter(ray, share), weights=ray.put(loaded))
            name = "cuda:0" if share.num_gpus else "cpu"  # Ray shows an actor its own GPU only
            super().__init__(card, (name,) * share.num_workers, start_worker=start, ahead=AHEAD, late=True, **options)
        except BaseException:
            self._disconnect()
            raise

    def close(self) -> None:
        """End the actors, and the connection that was made for them."""
        workers = [seat.worker for seat in self.seats]
        super().close()
        for worker in workers:
            worker.join()
        disconnect, self._disconnect = self._disconnect, lambda: None
        disconnect()


def require() -> ModuleType:
    """The package ray. Raises UsageError, with what to install, where it is missing."""
    try:
        # neither a page about the cluster nor a report of its use belongs to an extraction
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
    except ImportError:
        raise UsageError(
            "--ray needs Ray, which is not installed; install it with \"pip install 'featx[ray]'\", on every node, or leave "
            "--ray out"
        ) from None
    return ray


def _loaded(backbone: object, options: dict) -> tuple[Checkpoint, checkpoints.LoadedCheckpoint]:
    """The card with its variant and mean, and its weights, taken out of `options`; what is wrong on any machine is raised."""
    card, variant = get_checkpoint(backbone), options.pop("variant", None)
    card = card.with_variant(variant) if variant else card
    length = options.get("length") or card.sampling.length
    card = checkpoints.with_chosen_mean(card, options.pop("mean", None), length)
    options["mean"] = "card"  # by now it is what was chosen
    loaded = checkpoints.load(card, options.pop("weights", None))
    machines_own = {"engine": "torch", "precision": "auto", "device": "cpu", "decode": "cpu", "pixels": "host"}
    Extractor(card, weights=loaded, **{**options, **machines_own}).close()
    return card, loaded


def _starter(ray: ModuleType, share: Share) -> Callable[[str], object]:
    """What starts an actor on a device, and gives its handle."""
    from featx.workers import ray_host
    from featx.workers.ray_program import code_of

    ray.cloudpickle.register_pickle_by_value(ray_host)
    host = ray.remote(ray_host.Host).options(
        num_cpus=share.num_cpus,
        num_gpus=share.num_gpus,
        max_concurrency=4,
        max_restarts=0,  # a lost one is replaced by the pool, which knows what it had
        scheduling_strategy="SPREAD",
    )
    home, code = str(Path(featx.__file__).resolve().parents[1]), code_of()
    return lambda device: host.remote(home, os.getcwd(), code, device, share.num_cpus, share.num_cpus)


def _connect(ray: ModuleType, asked: str) -> Callable[[], None]:
    """Connect this process to a cluster; gives what ends that again."""
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if asked not in ("auto", connected):
            raise UsageError(
                f"Ray '{asked}' was asked for, but this program is connected to {connected}; say ray='auto' to use that"
            )
        return lambda: None
    address = (os.environ.get("RAY_ADDRESS") or _address_here(ray)) if asked == "auto" else asked
    if asked == "auto" and address not in ("auto", "local"):
        _require_answer(address)
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        with _own_signals():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **local)
    except (Exception, SystemExit) as error:  # it ends the program where a cluster does not answer
        told = " ".join(str(error.__cause__ or error).split())[:MAX_SHOWN]
        raise FeatxError(
            f"cannot connect to the Ray cluster '{address}' ({told}); it must be of this Ray {ray.__version__}, and this "
            f"machine a node of it; RAY_AUTH_MODE=token is for one that asks for a token; {STARTS_ONE}"
        ) from error
    # what Ray prints of nodes and processes that end would stand on stdout; the run tells of them itself
    printing = ray._private.worker
    before, printing._worker_logs_enabled = getattr(printing, "_worker_logs_enabled", True), False

    def disconnect() -> None:
        ray.shutdown()
        printing._worker_logs_enabled = before

    return disconnect


def _address_here(ray: ModuleType) -> str:
    """That of the cluster which was started on this machine, as Ray has noted it: it may be gone, for which Ray waits long."""
    try:
        return ray._private.services.canonicalize_bootstrap_address("auto") or "auto"
    except Exception:  # not Ray's public interface
        return "auto"


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FeatxError(f"no Ray cluster answers at '{address}' ({reason}); {STARTS_ONE}") from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Put back the handlers that Ray replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
