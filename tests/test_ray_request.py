"""What is asked of a Ray cluster, and what an actor does of itself; none of it needs Ray."""

from __future__ import annotations

import builtins
import random

import pytest

import featx
from featx.errors import UsageError
from featx.features import Failure
from featx.plan import VideoItem
from featx.workers import ray_cluster, ray_program
from featx.workers.protocol import FACTS, Absent, Drained, Lost, Opened, Wanted
from featx.workers.ray_cluster import RayRequest, Share, shares

CPUS = [{"CPU": 16.0}, {"CPU": 8.0}, {"memory": 1e9}]
GPUS = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 64.0}]


@pytest.mark.parametrize(
    ("nodes", "device", "asked", "expected"),
    [
        (CPUS, "auto", {}, Share("cpu", 6, 4, 0)),
        (CPUS, "cpu", {"num_cpus": 16}, Share("cpu", 1, 16, 0)),
        (CPUS, "cpu", {"num_workers": 2}, Share("cpu", 2, 4, 0)),
        ([{"CPU": 1.0}, {"CPU": 2.0}], "auto", {}, Share("cpu", 3, 1, 0)),
        (GPUS, "auto", {}, Share("cuda", 5, 8, 1)),
        (GPUS, "cuda", {"num_gpus": 0.5}, Share("cuda", 10, 4, 0.5)),
        ([{"CPU": 20.0, "GPU": 1.0}], "cuda", {"num_gpus": 0.1}, Share("cuda", 10, 2, 0.1)),
        ([{"CPU": 8.0, "GPU": 4.0}], "cuda", {"num_gpus": 0.4}, Share("cuda", 8, 1, 0.4)),  # two a GPU, not ten in all
        (GPUS, "cuda", {"num_cpus": 16}, Share("cuda", 2, 16, 1)),
        (GPUS, "cpu", {}, Share("cpu", 26, 4, 0)),
        ([{"CPU": 2.0, "GPU": 4.0}], "auto", {}, Share("cuda", 2, 1, 1)),
        ([], "cuda", {"num_workers": 3}, Share("cuda", 3, 1, 1)),
    ],
)
def test_workers_take_what_the_nodes_have(nodes, device, asked, expected):
    assert shares(RayRequest("auto", **asked), device, nodes) == expected


@pytest.mark.parametrize(
    ("nodes", "device", "asked", "words"),
    [
        (CPUS, "cuda", {}, "1 GPU, but no node of the Ray cluster has as much; the largest has 16 CPUs and 0 GPUs"),
        (CPUS, "auto", {"num_cpus": 64}, "asks for 64 CPUs, but no node"),
        ([], "auto", {}, "say --ray-workers where Ray starts nodes"),
        (CPUS, "cuda:1", {}, "Ray says which GPU"),
        (GPUS, "cpu", {"num_gpus": 1}, "the device is cpu; take --device cuda"),
    ],
)
def test_what_no_node_has_is_refused(nodes, device, asked, words):
    with pytest.raises(UsageError, match=words):
        shares(RayRequest("auto", **asked), device, nodes)


def test_requests_check_themselves():
    for address in ("auto", "local", "head:6379", "[::1]:6379"):
        assert RayRequest(address).address == address
    for wrong in ({"address": "head"}, {"address": ":1"}, {"address": "auto", "num_workers": 0},
                  {"address": "auto", "num_gpus": 0}, {"address": "auto", "num_cpus": 0}):  # fmt: skip
        with pytest.raises(UsageError, match="must be"):
            RayRequest(**wrong)


def test_without_ray_it_is_told_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "ray":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'featx\[ray\]'"):
        ray_cluster.RayPool("res3d-mini", RayRequest("local"))


def test_only_the_same_featx_will_do(monkeypatch):
    code = ray_program.code_of()
    assert code.startswith(f"{featx.__version__} ") and not ray_program.why_not(code)
    assert "another featx" in ray_program.why_not(code[:-1] + "x")
    monkeypatch.setattr(featx, "__version__", "0.0.1")
    told = ray_program.why_not(code)
    assert "featx 0.0.1, but the run is of" in told and "install the same" in told


class Echo:
    """What an actor asks of an Extractor: every video fails, in the order in which they come."""

    def __init__(self, device, num_decoders, weights, **options):
        assert (device, num_decoders, weights) == ("cpu", 2, "the weights")
        for name in FACTS:
            setattr(self, name, None)
        self.engine = self
        self.note, self.batch_size, self.num_decoders, self.stopwatch, self.decode = "", 1, 2, self, "cpu"

    def prepare(self, items, on_note):
        on_note("ready")

    def extract_many(self, items):
        for item in items:
            if item.key == "5":
                raise RuntimeError("nobody foresaw it")
            yield Failure(item.key, item.path_text, "none")

    def all_seconds(self):
        return {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_an_actor_takes_messages_in_their_order_however_they_come(tmp_path):
    videos = [VideoItem(str(i), tmp_path / f"{i}.mp4") for i in range(6)]
    told = [
        ("open", ({}, videos)),
        ("videos", videos[:3]),
        ("videos", videos[3:5]),
        ("end", None),
        ("videos", videos[5:]),
    ]
    program = ray_program.Program("cpu", 1, 2, Echo)
    numbers = list(range(len(told)))
    random.Random(3).shuffle(numbers)
    for number in numbers:
        program.tell(number, told[number], "the weights" if number == 0 else None)
    events = []
    while not events or not isinstance(events[-1], Lost):
        events += program.hear()
    assert [event.failure.key for event in events if isinstance(event, Absent)] == ["0", "1", "2", "3", "4"]
    (opened,) = (event for event in events if isinstance(event, Opened))
    assert "torch" in opened.kind and "libavcodec" in opened.kind
    assert sum(isinstance(event, Wanted) for event in events) == 6
    assert sum(isinstance(event, Drained) for event in events) == 1
    assert events[-1].reason == "RuntimeError: nobody foresaw it"
