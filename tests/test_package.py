"""The package as it is installed: a wheel holds code, cards and weights, and works from anywhere."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def make_wheel(folder, **environment):
    source = folder / "source"  # links, so that no build folder is left in the project
    source.mkdir()
    for name in ("setup.cfg", "setup.py", "README.md", "LICENSE", "featx", "weights"):
        (source / name).symlink_to(ROOT / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, cwd=folder, env=os.environ | environment)
    return next(folder.glob("featx-*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return make_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_without_a_compiler(tmp_path_factory):
    return make_wheel(tmp_path_factory.mktemp("wheel"), CC="/bin/false", CXX="/bin/false")


def test_a_wheel_holds_every_module_card_and_weight(wheel_without_a_compiler):
    names = set(zipfile.ZipFile(wheel_without_a_compiler).namelist())
    for path in (ROOT / "featx").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "featx/report/page").iterdir():
        assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "weights").iterdir():
        if path.suffix in (".py", ".json", ".safetensors"):
            assert f"featx/weights/{path.name}" in names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)


def run_installed(wheel, folder, code, *args):
    """What the code prints where only the wheel is on the path."""
    zipfile.ZipFile(wheel).extractall(folder / "site")
    begin = "import sys, featx; from pathlib import Path\nassert Path(featx.__file__).parents[1] == Path(sys.argv[1])\n"
    output = subprocess.run(
        [sys.executable, "-c", begin + code, str(folder / "site"), *map(str, args)],
        env=os.environ | {"PYTHONPATH": str(folder / "site")},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    return output.stdout


EXTRACT = """
from featx import engine
print(featx.extract(sys.argv[2]).descriptors['pool5'].shape, engine.unavailable('winograd') or 'winograd')
from featx.cli import main
main(['info', '--engine'])
"""


@pytest.mark.long
def test_a_wheel_extracts_without_the_source(wheel, clips_folder, tmp_path):
    first = run_installed(wheel, tmp_path, EXTRACT, clips_folder / "dog/001.avi").splitlines()[0]
    assert first.startswith("(")
    if shutil.which("g++") and "avx2" in Path("/proc/cpuinfo").read_text():
        assert first.endswith(" winograd")


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


@needs_compiler
@pytest.mark.long
def test_a_wheel_holds_the_kernels_for_every_python(wheel):
    """The library is called through ctypes: it knows no Python."""
    python, abi, platform = wheel.stem.split("-")[2:]
    assert (python, abi) == ("cp310", "abi3") and platform.startswith("linux_")
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if "_native" in name] == ["featx/engine/_native.abi3.so"]
    assert not [name for name in names if name.endswith((".cpp", ".h"))]


@pytest.mark.long
def test_without_a_compiler_it_installs_and_extracts(wheel_without_a_compiler, clips_folder, tmp_path):
    assert not [name for name in zipfile.ZipFile(wheel_without_a_compiler).namelist() if "_native" in name]
    lines = run_installed(wheel_without_a_compiler, tmp_path, EXTRACT, clips_folder / "dog/001.avi").splitlines()
    reason = "the native kernels were not built; they need a C++ compiler when featx is installed"
    assert lines[0].startswith("(") and lines[0].endswith(reason)
    assert f"    winograd  {reason}" in lines and lines[1].startswith(("engine    onednn", "engine    torch"))


def copy_source(folder):
    """A copy of what is needed to build, without what was built."""
    for name in ("featx", "weights"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_native*", "__pycache__"))
    for name in ("setup.cfg", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.long
def test_a_source_distribution_can_be_built_from(tmp_path):
    source = copy_source(tmp_path)
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], check=True, cwd=source, capture_output=True)
    with tarfile.open(next((source / "dist").glob("featx-*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in [
        *(ROOT / "featx").rglob("*.py"),
        *(ROOT / "featx/engine/cpp").iterdir(),
        *(ROOT / "weights").glob("*.json"),
    ]:
        assert path.relative_to(ROOT).as_posix() in names
    assert {"setup.py", "setup.cfg", "LICENSE", "README.md"} <= names
    assert not [name for name in names if "_native" in name]


@needs_compiler
@pytest.mark.long
def test_an_editable_install_has_the_kernels(tmp_path):
    source = copy_source(tmp_path)
    code = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=source, capture_output=True)
    assert [path.name for path in (source / "featx/engine").glob("_native*")] == ["_native.abi3.so"]


def test_torch_is_capped_and_setup_py_is_small():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert "torch>=2.4,<2.14" in config["options"]["install_requires"]
    assert len((ROOT / "setup.py").read_text().splitlines()) < 30


def test_nothing_else_lies_at_the_top_level():
    tracked = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    allowed = {"setup.cfg", "setup.py", "featx", "weights", "tests", "examples", "README.md", "LICENSE"}
    assert {name for name in tracked.stdout.split() if not name.startswith(".")} <= allowed
