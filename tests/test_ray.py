"""workers/ray_*.py on a real Ray cluster of three nodes of this machine: the bits of one process, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_noise_video
from test_interrupt import lives, tell

import featx
from featx import run
from featx.cli import main
from featx.interrupt import Interrupts
from featx.workers.protocol import Opened

# its tests import it: that takes a second, and all of them are long
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra 'ray')")

NUM_VIDEOS = 24
SAME = {"batch_size": 1, "engine": "torch"}


def node_options(num_cpus: int) -> dict:
    """Those of a small node, whose helpers get ports here: Ray gives up a node whose helpers take long to tell theirs."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in names]
        ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    return {"num_cpus": num_cpus, "object_store_memory": 80 * 2**20, "include_dashboard": False, **ports}


def start_cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(**node_options(0))
        for _ in range(2):
            cluster.add_node(**node_options(1), wait=False)
        cluster.wait_for_nodes()
    except BaseException:
        cluster.shutdown()
        raise
    return cluster


@pytest.fixture(scope="module")
def cluster():
    """Three nodes, of which the run's own one does not compute, and the others have a processor each."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = tempfile.mkdtemp(prefix="featx-ray-")  # a short path: sockets lie in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            cluster = start_cluster()
        except Exception as error:  # it gives a node half a minute, which on a busy machine is little
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"Ray cannot start a cluster here: {error}")
        for number, handler in handlers.items():  # Ray replaces them
            signal.signal(number, handler)
        yield cluster
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def one_thread():
    """As many as a worker on a node has: with more, sums are added up in another order."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder of small videos, one of which is none, and what one process makes of it."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "videos").mkdir()
    for i in range(NUM_VIDEOS):
        write_noise_video(folder / f"videos/{i:02d}.mp4", 16 + i % 8, seed=i)
    (folder / "videos/broken.mp4").write_bytes(b"no video" * 100)
    with one_thread():
        run.extract_to(folder / "videos", folder / "whole.h5", save="both", **SAME)
    return folder


class Started:
    """The workers that a test's run starts; `all_open` waits for them."""

    def __init__(self, monkeypatch):
        from featx.workers import ray_worker

        self.workers, self._open = [], threading.Semaphore(0)
        start = ray_worker.RayWorker.__init__

        def noted(worker, device, hear, **options):
            def hears(worker, event):
                hear(worker, event)
                if isinstance(event, Opened):
                    self._open.release()

            start(worker, device, hears, **options)
            self.workers.append(worker)

        monkeypatch.setattr(ray_worker.RayWorker, "__init__", noted)

    def all_open(self, *_):
        for _ in self.workers[1:]:  # the first is open when a run begins
            assert self._open.acquire(timeout=120)


def require_same(one, two):
    with featx.open(one) as a, featx.open(two) as b:
        assert a.keys == b.keys and a.provenance == b.provenance and len(a) == NUM_VIDEOS
        assert a.failures == b.failures and len(a.failures) == 1
        assert np.array_equal(a.descriptors("pool5"), b.descriptors("pool5"))
        for key in a.keys:
            assert np.array_equal(a[key].clips["pool5"], b[key].clips["pool5"]) and a[key].path == b[key].path


def node_of(cluster, worker):
    (node,) = (node for node in cluster.worker_nodes if node.node_id == worker.machine)
    return node


@pytest.mark.long
def test_three_nodes_give_the_bits_of_one_process_though_one_is_killed(cluster, videos, tmp_path, monkeypatch):
    started, notes, done = Started(monkeypatch), [], []

    def kill(result):
        done.append(result.key)
        if len(done) == 3:
            cluster.remove_node(node_of(cluster, started.workers[1]), allow_graceful=False)

    summary = run.extract_to(
        videos / "videos", tmp_path / "f.h5", save="both", ray=cluster.address, on_planned=started.all_open,
        on_result=kill, on_note=notes.append, **SAME,
    )  # fmt: skip
    print("\n".join(notes))
    assert (summary.num_videos, summary.exit_code, len(summary.failures)) == (NUM_VIDEOS, 1, 1)
    require_same(tmp_path / "f.h5", videos / "whole.h5")
    lost = [note for note in notes if "was lost (its node cannot be reached any more); its" in note]
    assert len(lost) == 1 and lost[0].endswith("videos in flight are given out again")
    import ray

    assert not ray.is_initialized() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.long
def test_a_killed_worker_costs_what_it_had(cluster, videos, tmp_path, monkeypatch, capsys):
    """Through the command, which tells the same in JSON."""
    if len(cluster.worker_nodes) < 2:
        cluster.add_node(**node_options(1))
    from featx.workers import ray_worker

    give, given, killed = ray_worker.RayWorker.give, [], []

    def kill(worker, items):
        give(worker, items)
        given.extend(items)
        if len(given) > 6 and not killed:
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    monkeypatch.setattr(ray_worker.RayWorker, "give", kill)
    arguments = [
        "--save",
        "both",
        "--batch-size",
        "1",
        "--engine",
        "torch",
        "--ray",
        cluster.address,
        "--json",
        "--profile",
    ]
    with pytest.raises(SystemExit) as exit:
        main(["extract", str(videos / "videos"), "-o", str(tmp_path / "f.h5"), *arguments])
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert exit.value.code == 1 == summary["exit_code"] and summary["num_videos"] == NUM_VIDEOS
    assert "was lost (its worker process has died); its" in told.err and "the bottleneck is" in told.err
    assert "Traceback" not in told.err and "raylet" not in told.err
    require_same(tmp_path / "f.h5", videos / "whole.h5")


@pytest.mark.long
def test_a_killed_run_leaves_no_actor_and_the_same_command_goes_on(cluster, videos, tmp_path, monkeypatch):
    program = """if True:
        import os, signal, sys
        from featx import parts, run
        from featx.workers import ray_worker
        parts.PART_SECONDS = 0.0
        workers, start = [], ray_worker.RayWorker.__init__
        ray_worker.RayWorker.__init__ = lambda self, *args, **options: (workers.append(self), start(self, *args, **options))[0]
        done = []
        def kill(result):
            done.append(result)
            if len(done) == 6:
                print(*(worker.pid for worker in workers), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        run.extract_to(*sys.argv[1:3], save="both", batch_size=1, engine="torch", ray=sys.argv[3], on_result=kill)
    """
    command = [sys.executable, "-c", program, str(videos / "videos"), str(tmp_path / "f.h5"), cluster.address]
    environment = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1])}
    killed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -signal.SIGKILL
    done = []

    def at_first(result):
        done.append(result.key)
        tell(signal.SIGINT) if len(done) == 1 else None

    with Interrupts() as interrupts:
        summary = run.extract_to(
            videos / "videos", tmp_path / "f.h5", save="both", ray=cluster.address, interrupts=interrupts, on_result=at_first,
            retry_failed=True, **SAME,
        )  # fmt: skip
    assert summary.exit_code == 130 and 1 <= summary.num_present < NUM_VIDEOS - len(done)
    assert not any(lives(int(pid)) for pid in killed.stdout.split() if pid != "0")
    with one_thread():  # without Ray
        summary = run.extract_to(videos / "videos", tmp_path / "f.h5", save="both", retry_failed=True, **SAME)
    assert summary.exit_code == 1 and summary.num_present >= 1
    require_same(tmp_path / "f.h5", videos / "whole.h5")
