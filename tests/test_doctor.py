"""What `featx doctor` tells, of machines that are as they should be and of those that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from featx import doctor, machine, video
from featx.cli import main
from featx.doctor import Examination, examine
from featx.engine import native
from featx.machine import Machine


@pytest.fixture(scope="module")
def examination() -> Examination:
    return examine()


def run(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main(["doctor", *args])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err


def levels(findings) -> set[str]:
    return {finding.level for finding in findings}


def test_this_machine_is_good(examination):
    assert examination.is_good and "broken" not in levels(examination.findings)
    assert examination.self_test["decode"] == examination.self_test["extract"] == "good"
    assert examination.versions["torch"] == torch.__version__ and all(
        examination.versions[name] for name in ("featx", "python", "av", "libavcodec", "numpy", "h5py", "hdf5")
    )
    assert "res3d-mini" in examination.weights["here"]


def test_the_json_has_a_stable_shape_and_the_text_says_the_same(capsys, monkeypatch, examination):
    monkeypatch.setattr(doctor, "examine", lambda: examination)
    code, out, err = run(capsys, "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert list(facts) == [
        *("good", "machine", "versions", "compute", "gpus", "weights", "self_test", "findings"),
    ]
    assert facts["compute"].keys() == {"device", "engine", "unavailable", "precisions", "threads", "settings"}
    assert facts["machine"].keys() == {
        *("system", "processor", "instructions", "cores", "cores_in_all", "core_limit"),
        *("memory_bytes", "free_memory_bytes", "free_disk_bytes"),
    }
    code, out, _ = run(capsys)
    assert (
        code == 0 and facts["machine"]["processor"] in out and "a made video is decoded and gives its features" in out
    )
    assert all(name in out and version in out for name, version in facts["versions"].items())


def test_something_broken_gives_exit_code_1_and_a_remedy(capsys, monkeypatch, examination):
    monkeypatch.setattr(video, "read_frames", lambda path: iter(()))
    test, findings = doctor._self_test()
    assert levels(findings) == {"broken"} and "0 frames are decoded" in test["decode"]
    changed = {**examination.__dict__, "self_test": test, "findings": tuple(findings)}
    monkeypatch.setattr(doctor, "examine", lambda: Examination(**changed))
    code, out, _ = run(capsys)
    assert code == 1 and "\nbroken       a made video cannot be decoded" in out and "pip install" in out


@pytest.mark.parametrize(
    ("version", "good"), [("2.3.9", False), ("2.4", True), ("2.13.1+cu130", True), ("2.14.0", False), ("3.0", False)]
)
def test_versions_out_of_the_tested_range_are_broken(monkeypatch, version, good):
    monkeypatch.setattr(doctor, "_requirements", lambda: ["torch<2.14,>=2.4", "av>=14.1"])
    findings = doctor._wrong_versions({"torch": version, "av": "18.0"})
    assert (not findings) == good and levels(findings) <= {"broken"}


@pytest.mark.parametrize(
    ("reason", "level"),
    [
        ("the native kernels were not built; they need a C++ compiler", "slow"),
        ("this processor (x86_64) has no AVX2, which the native kernels need", "slow"),
        ("the native kernels in _native.so are of another featx; install featx again", "broken"),
        ("the native kernels cannot be loaded (bad magic)", "broken"),
    ],
)
def test_native_kernels_that_refuse(monkeypatch, reason, level):
    monkeypatch.setattr(native, "why_not", lambda: reason)
    (finding,) = doctor._engine_findings()
    assert (finding.level, finding.text) == (level, reason) and finding.remedy


def _machine(cores: int = 8, limit: float | None = None, free: int = 10**11) -> Machine:
    return Machine("Linux", "a processor", (), cores, 8, limit, 10**11, free)


@pytest.mark.parametrize(
    ("settings", "here", "words"),
    [
        ({"OMP_NUM_THREADS": "1"}, _machine(), "OMP_NUM_THREADS is 1, so that at most 1 of 8 cores compute"),
        ({"OMP_WAIT_POLICY": "active"}, _machine(), "spin"),
        ({"KMP_BLOCKTIME": "200"}, _machine(), "spin"),
        ({}, _machine(limit=1.5), "4 threads compute, but this process has 1 cores' time only"),
    ],
)
def test_threads_that_are_too_few_too_many_or_spin(monkeypatch, settings, here, words):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    (finding,) = doctor._thread_findings(here, settings)
    assert finding.level == "slow" and words in finding.text
    assert doctor._thread_findings(_machine(), {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "8"}) == []


def test_no_room_no_decoder_no_extra(monkeypatch):
    found = doctor._room_findings(_machine(free=10**9), {"cache": 10**8, "temporary files": 10**10})
    assert [(each.level, each.text[:17]) for each in found] == [
        ("missing", "the disk of cache"),
        ("slow", "954 MB of memory "),
    ]
    monkeypatch.setattr(doctor, "DECODERS", ("h264", "no such codec"))
    (finding,) = doctor._decoder_findings()
    assert "no decoder for no such codec," in finding.text
    (finding,) = doctor._extra_findings({"matplotlib": ""})
    assert finding.remedy == "pip install 'featx[plots]'"


def test_weights_that_cannot_be_read_are_broken(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATX_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/c3d-sports1m.json").write_text("{")
    weights = doctor._weights()
    assert weights["folder"] == str(tmp_path) and weights["here"] == ["res3d-mini"]
    (finding,) = doctor._weights_findings(weights)
    assert finding.level == "broken" and "c3d-sports1m" in finding.text


def test_a_folder_of_weights_that_cannot_be_one_costs_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for home, problem in (
        ("file", "not a directory"),
        ("file/x", "not a directory"),
        ("x" * 300, "file name too long"),
    ):
        monkeypatch.setenv("FEATX_HOME", str(tmp_path / home))
        weights = doctor._weights()
        assert weights["here"] == ["res3d-mini"] and not weights["damaged"]
        (finding,) = doctor._weights_findings(weights)
        assert finding.text.endswith(f": {problem}") and "FEATX_HOME" in finding.remedy
        assert machine.free_disk_bytes(tmp_path / home) > 0


def test_a_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_nvidia_smi", lambda field: ["NVIDIA H200"])
    (finding,) = doctor._gpu_findings()
    assert finding.level == "slow" and "NVIDIA H200" in finding.text


def test_the_machine_is_read_from_the_files_of_linux(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2 fma\n")
    (tmp_path / "meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:  6000 kB\n")
    found = machine.look(tmp_path, tmp_path)
    assert (found.processor, found.instructions, found.core_limit) == ("A Processor", ("avx2", "fma"), None)
    assert (found.memory_bytes, found.free_memory_bytes) == (8000 * 1024, 6000 * 1024)
    for name, text in {"cpu.max": "150000 100000", "memory.max": "1024000", "memory.current": "24000"}.items():
        (tmp_path / name).write_text(text + "\n")
    found = machine.look(tmp_path, tmp_path)
    assert (found.core_limit, found.memory_bytes, found.free_memory_bytes) == (1.5, 1024000, 1000000)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    found = machine.look(tmp_path, tmp_path)
    assert (found.core_limit, found.memory_bytes) == (None, 8000 * 1024)
    assert machine.look(tmp_path / "none", tmp_path / "none").memory_bytes == 0  # another system


def test_no_name_of_a_user_is_told(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("USER", "alice")
    text = machine.without_names('"/home/alice/.cache", /home/alice, /scratch/alice/featx, /home/alicedata/x, malice/x')
    assert text == '"~/.cache", ~, /scratch/USER/featx, /home/alicedata/x, malice/x'


def test_the_environment_is_not_told(monkeypatch, examination):
    monkeypatch.setenv("FEATX_SECRET", "hunter2")
    assert doctor._thread_settings().keys() <= set(doctor.THREAD_VARIABLES)
    assert "hunter2" not in json.dumps(examination.as_dict())
    assert str(Path.home()) + "/" not in json.dumps(examination.as_dict())
