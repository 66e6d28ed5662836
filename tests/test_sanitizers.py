"""The kernels under the address and undefined-behaviour sanitizers, on memory of exactly the size that they may touch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import featx

CPP = Path(featx.__file__).parent / "engine" / "cpp"
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
DRIVER = Path(__file__).with_name("kernels_driver.cpp")


@pytest.mark.long
def test_the_kernels_are_clean(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    sources = [*sorted(CPP.glob("*.cpp")), DRIVER]
    flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-Wall", "-Wextra", "-Werror", f"-I{CPP}"]
    build = [compiler, *flags, *SANITIZE, *map(str, sources), "-o", str(tmp_path / "driver")]
    built = subprocess.run(build, capture_output=True, text=True)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("g++ lacks the sanitizers' libraries")
    assert built.returncode == 0, built.stderr
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    ran = subprocess.run([tmp_path / "driver"], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    if ran.stdout == "unsupported\n":
        pytest.skip("this processor has no AVX2")
    assert (ran.stdout, ran.stderr) == ("clean\n", "")
