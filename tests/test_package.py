"""The package as it is installed: a wheel holds code, cards and weights, and works from anywhere."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that no build folder is left in the project
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
    subprocess.run(command, check=True, cwd=folder)
    return next(folder.glob("featx-*.whl"))


def test_a_wheel_holds_every_module_card_and_weight(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "featx").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "weights").iterdir():
        if path.suffix in (".py", ".json", ".safetensors"):
            assert f"featx/weights/{path.name}" in names
    assert not any(name.startswith(("tests/", "examples/")) for name in names)


def test_a_wheel_extracts_without_the_source(wheel, clips_folder, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys, featx; from pathlib import Path\n"
        "assert Path(featx.__file__).parents[1] == Path(sys.argv[1]), featx.__file__\n"
        "print(featx.extract(sys.argv[2]).descriptors['pool5'].shape)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site"), str(clips_folder / "dog/001.avi")],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    assert output.stdout.startswith("(")


def test_torch_is_capped_and_setup_py_is_small():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert "torch>=2.4,<2.14" in config["options"]["install_requires"]
    assert len((ROOT / "setup.py").read_text().splitlines()) < 20


def test_nothing_else_lies_at_the_top_level():
    tracked = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    allowed = {"setup.cfg", "setup.py", "featx", "weights", "tests", "examples", "README.md", "LICENSE"}
    assert {name for name in tracked.stdout.split() if not name.startswith(".")} <= allowed
