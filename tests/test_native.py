"""engine/native.py: the library of kernels, where it is and where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from featx.engine import native

needs_kernels = pytest.mark.skipif(native.kernels() is None, reason=native.why_not())


@needs_kernels
def test_the_processors_limit_is_a_number_of_its_kind():
    assert 1 < native.multiply_add_gflops(1, seconds=0.01) < 1000


@needs_kernels
@pytest.mark.long
def test_torch_and_the_kernels_share_one_pool_of_threads():
    """Both were linked to the same libgomp: the one that torch brings, or the system's."""
    code = (
        "from featx.engine import native; native.kernels(); import torch\n"
        "torch.set_num_threads(2); torch.relu(torch.zeros(1 << 22))\n"
        "names = {line.split()[-1] for line in open('/proc/self/maps') if '/libgomp' in line}\n"
        "print(len(names))"
    )
    maps = Path("/proc/self/maps")
    if not maps.exists() or not (Path(torch.__file__).parent / "lib/libgomp.so.1").exists():
        pytest.skip("this torch brings a libgomp under another name, or none")
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "1\n"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """As if the module lay in an empty folder."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    return tmp_path


def test_a_library_that_was_not_built(elsewhere):
    library, reason = native._load.__wrapped__()
    assert library is None and "were not built; they need a C++ compiler" in reason


def test_a_library_that_cannot_be_loaded(elsewhere):
    (elsewhere / "_native.abi3.so").write_bytes(b"nothing")
    library, reason = native._load.__wrapped__()
    assert library is None and reason.startswith("the native kernels cannot be loaded (") and "\n" not in reason


def test_a_processor_that_cannot_run_it(elsewhere, monkeypatch):
    (elsewhere / "_native.abi3.so").touch()
    monkeypatch.setattr(
        native.ctypes,
        "CDLL",
        lambda path: SimpleNamespace(featx_supported=lambda: 0, featx_interface=lambda: native.INTERFACE),
    )
    library, reason = native._load.__wrapped__()
    assert library is None and "has no AVX2, which the native kernels need" in reason


def test_a_library_of_other_sources(elsewhere, monkeypatch):
    """Its records may be laid out otherwise, so that it must not be called."""
    (elsewhere / "_native.abi3.so").touch()
    for old in (
        SimpleNamespace(featx_supported=lambda: 1),
        SimpleNamespace(featx_interface=lambda: native.INTERFACE - 1),
    ):
        monkeypatch.setattr(native.ctypes, "CDLL", lambda path, old=old: old)
        library, reason = native._load.__wrapped__()
        assert library is None and "are of another featx; install featx again" in reason
