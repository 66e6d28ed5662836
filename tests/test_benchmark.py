"""examples/benchmark*.py, by stand-ins: what fails, what is counted, and what is said; test_examples.py runs the programs."""

from __future__ import annotations

import io
import os
import re
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from conftest import write_noise_video
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import benchmark
import benchmark_device
import benchmark_files
from benchmark_device import Ceilings, shares
from benchmark_sections import Sections
from benchmark_traffic import Traffic, gain_of_graph, least_traffic, reason_below

import featx
from featx import decode_pool, hardware_decode
from featx.backbones import build
from featx.backbones.base import Backbone
from featx.backbones.blocks import BatchNorm
from featx.catalog import get_checkpoint
from featx.decode_pool import Chunk
from featx.engine.precision import Tried
from featx.errors import UsageError
from featx.extractor import LONG_RUN_VIDEOS

CEILINGS = Ceilings("bf16", 800.0, 4000.0, 50.0, 50.0, {"fp32": 50.0, "tf32": 400.0, "fp16": 800.0})
USUAL = 3  # decode workers
NO_GPU = hardware_decode.why_no_hardware("0")


@pytest.fixture(autouse=True)
def usual_num_workers(monkeypatch):
    monkeypatch.setattr(decode_pool, "default_num_workers", lambda: USUAL)


# ---------------------------------------------------------------------------------------------------------- what fails


def test_a_section_that_fails_is_told_and_the_others_go_on(capsys):
    def fails(depth: int):
        if depth == 0:
            raise ValueError("the reason")
        fails(depth - 1)

    sections, went_on = Sections(), []
    with sections.section("first"):
        fails(20)
    with sections.section("second"):
        went_on.append("second")
    said = capsys.readouterr().out
    assert "first FAILED, the benchmark goes on" in said and "ValueError: the reason" in said
    assert len(said.splitlines()) < 12  # not all twenty calls
    assert went_on == ["second"] and sections.failed == ["first"] and sections.exit_code() == 1
    assert capsys.readouterr().out.endswith("FAILED: first\n")


def test_what_a_section_that_fails_held_is_free_and_a_lost_gpu_ends_nothing(monkeypatch):
    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def fails():
        held = torch.zeros(2)
        there.append(weakref.ref(held))
        raise ValueError("the reason")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: [found.append(there[0]()), lost()])
    sections, there, found = Sections(), [], []
    with sections.section("first"):
        fails()
    assert sections.failed == ["first"] and found == [None]


def test_an_interrupt_ends_the_benchmark():
    sections = Sections()
    with pytest.raises(KeyboardInterrupt), sections.section("first"):
        raise KeyboardInterrupt
    assert sections.exit_code() == 0


@pytest.mark.parametrize("where", ["made_up_weights", "load", "Engine", "measured"])
def test_a_network_that_fails_costs_only_itself(monkeypatch, capsys, where):
    """Wherever its figures break, the next network's come, and the program says so at its end."""

    def breaks(*args, **options):
        raise OSError(f"no {where}")

    def rate(engine, clips, seconds):
        return 10.0

    monkeypatch.setattr(Ceilings, "measured", breaks if where == "measured" else lambda *args: CEILINGS)
    monkeypatch.setattr(benchmark_device, "forward_rate", rate)
    if where == "made_up_weights":
        monkeypatch.setattr(benchmark_device, "made_up_weights", breaks)
    if where == "load":
        load = benchmark_device.checkpoints.load
        monkeypatch.setattr(benchmark_device, "made_up_weights", lambda card, clips, folder: folder / "absent")
        monkeypatch.setattr(
            benchmark_device.checkpoints, "load", lambda card, weights: breaks() if weights else load(card, weights)
        )
    args = ["--quick", "--only", "ceilings", "--only", "precisions"]
    first = ["--backbone", "resnet18-kinetics"] if where in ("made_up_weights", "load") else []
    if where == "Engine":
        engine = benchmark_device.Engine
        monkeypatch.setattr(
            benchmark_device, "Engine", lambda *a, precision, **o: (breaks if precision == "bf16" else engine)(
                *a, precision=precision, **o
            ),
        )  # fmt: skip
    assert benchmark.main([*args, *first, "--backbone", "res3d-mini"]) == 1
    said = capsys.readouterr().out
    assert f"OSError: no {where}" in said and "\nFAILED: " in said
    row = next(line for line in said.splitlines() if line.startswith("  fp32 "))
    assert "10.00 clips/s" in row
    assert ("of unknown ceilings" if where == "measured" else "of the bf16 matrix rate") in row


@pytest.mark.parametrize(
    ("args", "reason"),
    [(["--device", "cuda"], "finds no GPU"), (["--backbone", "none-such"], "unknown backbone 'none-such'"),
     (["--device", "cpu,cuda"], "stands in the devices")],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_line(monkeypatch, capsys, args, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(args) == 2
    said = capsys.readouterr()
    assert said.out == "" and reason in said.err and said.err.count("\n") == 1


def test_lines_come_out_at_once(monkeypatch):
    """Also into a pipe: what a benchmark had found is not lost with it."""
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    benchmark.main(["--backbone", "none such"])
    assert out.line_buffering


def test_python_is_started_anew_with_its_own_options(monkeypatch):
    ran = []
    monkeypatch.setattr(os, "execv", lambda program, argv: ran.append((program, argv)))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-u", "examples/benchmark.py", "--quick"])
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    benchmark.sleep_while_waiting()
    assert ran == []
    monkeypatch.delenv("OMP_WAIT_POLICY")
    benchmark.sleep_while_waiting()
    assert ran == [(sys.executable, [sys.executable, "-u", "examples/benchmark.py", "--quick"])]
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.parametrize(
    ("given", "networks", "files"),
    [([], True, False), (["--quick"], False, False), (["--quick", "--compile"], True, True),
     (["--no-compile"], False, False), (["--compile"], True, True)],
)  # fmt: skip
def test_networks_are_compiled_unless_it_is_to_be_quick(given, networks, files):
    args = benchmark._arguments(["--device", "cuda", *given])
    assert (args.compile_networks, args.compile_files) == (networks, files)


@pytest.mark.parametrize(
    ("given", "num_files"),
    [([], 2000), (["--quick"], 4), (["--quick", "--num-files", "9"], 9), (["--quick", "--device", "cuda"], 2000)],
)
def test_files_are_as_many_as_asked_for(given, num_files):
    args = benchmark._arguments(given)
    assert (args.num_files, args.decode) == (num_files, "cpu")


# ----------------------------------------------------------------------------------------------- traffic and reasons


class Tiny(Backbone):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, 2, 3, padding=1), BatchNorm(2)
        self.conv2, self.bn2 = nn.Conv3d(2, 2, 1, bias=False), BatchNorm(2)
        self.fc = nn.Linear(8, 5)

    def stages(self):
        yield "conv1", lambda x: functional.relu(self.bn1(self.conv1(x)))
        yield "conv2", lambda x: functional.relu(self.bn2(self.conv2(x)) + x)
        yield "pool", lambda x: functional.max_pool3d(x, 2)
        yield "fc", lambda x: functional.relu(self.fc(x.flatten(1)))


def test_the_traffic_of_a_small_net_by_hand():
    """Clips of 3x2x4x4: BatchNorm, residual, ReLU and flattening move nothing of their own."""
    clip, map_, pooled, out = 3 * 32, 2 * 32, 2 * 4, 5
    conv1, conv2 = (clip + map_, 3 * 2 * 27 + 2), (map_ + map_, 2 * 2)  # the residual is what it reads anyway
    pool, fc = (map_ + pooled, 0), (pooled + out, 8 * 5 + 5)
    net, shape = Tiny().eval(), (3, 2, 4, 4)
    layers = [conv1, conv2, pool, fc]
    assert least_traffic(net, shape, ["fc"]) == Traffic(sum(n for n, _ in layers), sum(w for _, w in layers), 4)
    assert least_traffic(net, shape, ["pool"]) == Traffic(sum(n for n, _ in layers[:3]), 168, 3)
    # 10 clips a batch of 2-byte numbers: the weights are read once for them
    assert Traffic(430, 200, 4).bytes_per_clip(10, 2) == 2 * 430 + 2 * 20


def test_another_tensors_residual_is_read():
    class Skipping(Tiny):
        def stages(self):
            yield "conv1", self.conv1
            yield "conv2", lambda x: self.conv2(functional.max_pool3d(x, 3, 1, 1)) + x

    assert least_traffic(Skipping().eval(), (3, 2, 4, 4), ["conv2"]).activations == (96 + 64) + (64 + 64) + (3 * 64)


def test_the_traffic_of_c3d():
    """Its 17.7 M weights of the eight convolutions and 8192x4096 of fc6; eight convolutions, five pools, fc6."""
    card = get_checkpoint("c3d-sports1m")
    with torch.device("meta"):
        net = build(card.architecture, **card.build_arguments).eval()
    traffic = least_traffic(net, card.clip_shape, ["fc6"])
    filters = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    assert traffic.num_layers == 14
    assert traffic.weights == sum(27 * a * b + b for a, b in filters) + 8192 * 4096 + 4096
    maps = [64 * 16 * 112 * 112, 128 * 16 * 56 * 56]  # the two that are largest, each written once and read once
    assert 2 * sum(maps) < traffic.activations < 4 * sum(maps)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"traffic": 0.5}, "bound by memory traffic, at least 50% of the device's copies"),
        ({"traffic": 0.5, "graph_gain": 2.0}, "bound by memory traffic"),  # a device that moves as much is busy
        (
            {"traffic": 0.1, "graph_gain": 1.5},
            "bound by kernels so short that .* 1.50 times as fast as starting them one by one",
        ),
        ({"traffic": 0.1, "layer_seconds": 1e-5}, "bound by short kernels: a layer takes 10 µs, as little as starting"),
        ({"traffic": 0.1, "graph_gain": 1.1, "layer_seconds": 1e-5, "is_graph": True}, ".* a layer takes 10 µs$"),
        ({"traffic": 0.3, "graph_gain": 1.1, "layer_seconds": 1e-3}, "bound by neither"),
        ({"own": ("fp32", 0.8), "traffic": 0.1}, "bound by products in fp32, at 80% "),
        ({"own": ("fp32", 0.5), "traffic": 0.6}, "bound by memory traffic"),
        ({"own": ("fp32", 0.1)}, "bound by neither"),
        ({}, "bound by neither"),
    ],
)
def test_the_reason_is_the_largest_share_or_short_kernels(found, reason):
    assert re.match(reason, reason_below(**found))


def test_the_gain_of_a_graph_is_read_from_what_an_engine_says():
    tried = [Tried("folded", 0.02, 1e-7), Tried("cudnn", 0.01, 1e-7), Tried("cudnn-graph", 0.005, 1e-7)]
    others = [
        Tried("compile", problem="no compiler"),
        Tried("cudnn-graph-search", 0.001, 1e-7),
        Tried("folded-graph", 0.002, 1e-7),
    ]
    note = "engines tried: " + "; ".join(one.line(64) for one in (*tried, *others))
    notes = ["precision bf16 is the fastest: bf16 6,400 clips/s", note]
    for taken in ("cudnn-graph", "cudnn", "cudnn-graph-search", "cudnn-search"):
        assert gain_of_graph(notes, taken) == 2.0
    assert gain_of_graph(notes, "folded") == 10.0  # not that of the plan that was taken before
    assert gain_of_graph(notes, "compile") is None and gain_of_graph([], "cudnn") is None
    assert gain_of_graph(["engines tried: " + tried[1].line(64)], "cudnn") is None


def test_shares_of_the_ceilings_by_hand():
    """1000 clips/s of 80 GFLOP are 80 TFLOP/s, a tenth of 800; 2 bytes of 1.0e9 numbers are 2000 GB/s, half of 4000."""
    traffic = Traffic(990_000_000, 100_000_000, 20)
    told = shares(1000.0, 10, "bf16", 80.0, traffic, CEILINGS, "torch", [])
    assert told == [
        " 10.0% of the bf16 matrix rate, at least 50.0% of the copy rate",
        "    below 30% of the bf16 matrix rate: bound by memory traffic, at least 50% of the device's copies",
    ]
    assert len(shares(3000.0, 10, "bf16", 80.0, traffic, CEILINGS, "torch", [])) == 1  # 30 %: no reason is needed
    few = Traffic(1_000_000, 0, 20)
    assert shares(500.0, 10, "fp32", 80.0, few, CEILINGS, "torch", [])[1].endswith(
        "bound by products in fp32, at 80% of the device's rate of these"
    )
    # 10 clips in 3.3 ms, and 200 layers: 17 µs each
    assert "a layer takes 17 µs" in shares(3000.0, 10, "bf16", 1.0, Traffic(10**6, 0, 200), CEILINGS, "torch", [])[1]
    assert "copy rate" not in shares(1000.0, 10, "bf16", 80.0, None, CEILINGS, "torch", [])[0]


# --------------------------------------------------------------------------------------------------------------- files


def setting(**others) -> benchmark_files.Setting:
    plain = {"card": get_checkpoint("res3d-mini"), "devices": ("cpu",), "device": "cpu", "options": {"engine": "torch"}}
    return benchmark_files.Setting(**(plain | {"forward": 100.0, "decode": "cpu", "planar": True} | others))


class Pool:
    """DecodePool whose passes over the videos take 0.4 s of a clock, and 0.2 s of the workers' processor time."""

    made: ClassVar[list[Pool]] = []
    num_started = USUAL

    def __init__(self, num_workers, gpu=None, num_slots=None):
        self.now, self.passes, self.gpu = 0.0, [], gpu
        self.made.append(self)

    def decode(self, paths, fps=None, planar=False):
        self.passes.append((len(paths), planar))
        self.now += 0.4
        for index, _ in enumerate(paths):
            yield Chunk(index, None, [0.0] * 10, (4, 4))

    def spent(self):
        return decode_pool.Spent(self.now, self.now / 2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("planar", [True, False])
def test_decoding_alone_lasts_and_takes_the_extractors_form(monkeypatch, planar):
    """0.4 s a pass: three of them make a second."""
    monkeypatch.setattr(benchmark_files, "DecodePool", Pool)
    monkeypatch.setattr(Pool, "made", [])
    found = benchmark_files.decode_rate([Path("a")] * 100, setting(planar=planar), clock=lambda: Pool.made[0].now)
    assert Pool.made[0].passes == [(2 * USUAL, planar), *[(100, planar)] * 3]
    assert found.frames_per_second == pytest.approx(3000 / 1.2)
    assert found.seconds_per_frame == pytest.approx(0.6 / 3000)


def test_decoding_alone_is_measured_in_a_pool_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "default_num_workers", lambda: 1)
    video = write_noise_video(tmp_path / "a.mp4", 12)
    found = benchmark_files.decode_rate([video] * 4, setting(), seconds=0.0)
    assert found.frames_per_second > 0 and found.seconds_per_frame > 0 and found.num_started == 1


class Runs:
    """In place of featx.extract_to: what was asked for, and a summary of so many clips and decode workers."""

    def __init__(self, num_clips=30, num_decoders=1, notes=()):
        self.asked, self.num_clips, self.num_decoders, self.notes = [], num_clips, num_decoders, notes

    def __call__(self, videos, output, card, on_note=lambda note: None, **options):
        output.touch()
        self.asked.append((videos.name, options))
        for note in self.notes:
            on_note(note)
        profile = SimpleNamespace(
            wall_seconds=2.0, start_seconds=0.5, num_decoders=self.num_decoders, lines=lambda: ["the stages"]
        )
        return SimpleNamespace(
            num_videos=3, num_planned=3, num_clips=self.num_clips, num_frames=8 * self.num_clips, seconds=2.5,
            failures=[SimpleNamespace(reason="broken")], profile=profile,
        )  # fmt: skip


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys):
    """Measures a set of three videos, which `runs` stand in for; what was said."""
    for name in ("few", "many"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.mp4").touch()

    def measured(runs: Runs, num_started=USUAL, **others) -> str:
        decoding = benchmark_files.Decoding(1600.0, 1e-4, num_started)
        monkeypatch.setattr(featx, "extract_to", runs)
        monkeypatch.setattr(benchmark_files, "decode_rate", lambda paths, setting: decoding)
        benchmark_files.measure_set("H.264", tmp_path / "few", tmp_path / "many", tmp_path, setting(**others))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "many"]
        return capsys.readouterr().out

    return measured


def test_what_is_done_once_is_done_before(measured):
    runs = Runs(num_clips=30, notes=["a note"])
    said = measured(runs)
    options = {"device": "cpu", "engine": "torch"}
    assert runs.asked == [("few", options), ("many", options)]
    # 30 clips in 2 s beside 100 of the forward pass and 1600 / 8 of decoding
    assert "15.0 clips/s" in said and "200.0 clips/s: 15% of the smaller (forward)" in said
    assert said.index("a note") < said.index("15.0 clips/s") < said.index("the stages")
    assert "ms of processor time a clip" in said and "100 µs a frame" in said and "took the place" not in said


def test_files_without_clips_are_left_out(measured):
    assert "H.264 is left out: no clips came of 3 videos: broken" in measured(Runs(num_clips=0))


def test_lost_decode_workers_are_told(measured):
    said = measured(Runs(num_decoders=USUAL + 2), num_started=USUAL + 1)
    assert f"decoding alone started {USUAL + 1} decode workers for {USUAL}: " in said
    assert f"the run started {USUAL + 2} decode workers for {USUAL}: " in said


@pytest.mark.parametrize(
    ("by_gpu", "expected"),
    [
        (None, "H.264 is left out: such pixels are the processor's alone, also with --decode cuda"),
        ((90, 90), "the GPU's video decoder gives 90 of 90 frames of the distinct files"),
        ((0, 90), "the GPU's video decoder gives 0 of 90 frames only of the distinct files"),
    ],
)
def test_whose_frames_they_are_is_told(measured, monkeypatch, by_gpu, expected):
    monkeypatch.setattr(benchmark_files, "decoded_by_gpu", lambda paths, gpu: by_gpu)
    runs = Runs()
    assert expected in measured(runs, decode="cuda")
    assert len(runs.asked) == (0 if by_gpu is None else 2)


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", "avi"), ("libx264", "mp4")])
def test_only_frames_tell_whether_the_gpu_decoded_them(tmp_path, monkeypatch, codec, suffix):
    """Without a GPU libav lets the processor decode, as it does where the GPU's decoder fails."""
    path = write_noise_video(tmp_path / f"a.{suffix}", 5, codec=codec)
    monkeypatch.setattr(hardware_decode, "_hardware", lambda gpu: (object(), None))
    original = benchmark_files.video._open
    monkeypatch.setattr(benchmark_files.video, "_open", lambda path, flow=False, hwaccel=None: original(path, flow))
    assert benchmark_files.decoded_by_gpu([path, path], "0") == (None if codec == "mpeg4" else (0, 10))
    assert not hardware_decode.is_used()


@pytest.mark.gpu
@pytest.mark.skipif(bool(NO_GPU), reason=f"needs a GPU's video decoder: {NO_GPU}")
def test_the_gpus_frames_are_known(tmp_path):
    path = write_noise_video(tmp_path / "a.mp4", 30, codec="libx264", size=(240, 320))
    assert benchmark_files.decoded_by_gpu([path], "0") == (30, 30)


@pytest.mark.parametrize("compiled", [False, True])
def test_files_are_compiled_for_only_where_that_is_asked_for(tmp_path, monkeypatch, compiled):
    prepared, sets = [], []

    class Extractor:
        engine = SimpleNamespace(batch_size=2, precision="fp32", name="torch")

        def __init__(self, card, **options):
            pass

        def prepare(self, items, on_note):
            prepared.append(len(items))

        def _make_frames(self):
            return SimpleNamespace(planar=False)

        __enter__, __exit__ = Pool.__enter__, Pool.__exit__

    def render(folder, num_videos, num_frames):
        (folder / "avi").mkdir()
        (folder / "avi" / "0.avi").touch()
        return {"MPEG-4": folder / "avi"}

    monkeypatch.setattr(featx, "Extractor", Extractor)
    monkeypatch.setattr(benchmark_files, "render", render)
    monkeypatch.setattr(benchmark_files, "forward_rate", lambda *args: 50.0)
    monkeypatch.setattr(benchmark_files, "measure_set", lambda *args: sets.append(args[-1]))
    args = ["--device", "cuda", "--num-files", "300", "--batch-size", "2", *["--compile"] * compiled]
    card, devices = get_checkpoint("res3d-mini"), ("cuda:0", "cuda:1")
    benchmark_files.measure_files(card, None, tmp_path, devices, benchmark._arguments(args), Sections())
    assert prepared == [300 if compiled else LONG_RUN_VIDEOS - 1]
    assert (sets[0].forward, sets[0].planar) == (100.0, False)
    assert sets[0].options == {
        "weights": None,
        "batch_size": 2,
        "precision": "fp32",
        "engine": "torch",
        "decode": "cpu",
    }


def test_a_precision_that_the_device_has_not_is_no_failure(monkeypatch, capsys):
    def refuses(*args, **options):
        raise UsageError("it needs a GPU")

    monkeypatch.setattr(Ceilings, "measured", lambda *args: CEILINGS)
    monkeypatch.setattr(benchmark_device, "Engine", refuses)
    assert benchmark.main(["--quick", "--only", "precisions"]) == 0
    assert "  fp32   is left out: it needs a GPU\n" in capsys.readouterr().out
