"""Runs that are killed at random moments: what they leave is sound, and going on ends with the bits of an uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_noise_video
from small_weights import SMALL, trained_state

import featx
from featx import catalog
from featx.checkpoints.safetensors import write_safetensors


def tiny_card(folder: Path) -> Path:
    """A card of a small 3D ResNet, and its weights."""
    card = {
        "name": "res3d-tiny", "architecture": "res3d", "arguments": SMALL["res3d-sports1m"][1], "classes": 5, "data": "none",
        "sampling": {"length": 8, "stride": 8, "frame_step": 1},
        "preprocess": {"resize": [36, 48], "crop": 32, "channel_order": "rgb"},
        "layers": {"pool5": 3, "prob": 5}, "default_layer": "prob", "licence": "mine", "file": "tiny.safetensors",
    }  # fmt: skip
    (folder / "tiny.json").write_text(json.dumps(card))
    write_safetensors(folder / "tiny.safetensors", trained_state(catalog.read_card_file(folder / "tiny.json")))
    return folder / "tiny.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of 16 videos, a card, and the feature file of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("kill")
    (folder / "videos").mkdir()
    for i in range(16):
        write_noise_video(folder / f"videos/{i:02d}.mp4", 12 + 3 * i, seed=i)
    card = tiny_card(folder)
    featx.extract_to(folder / "videos", folder / "whole.h5", card, save="both", engine="torch")
    return folder, card


def drive(folder: Path, **what) -> dict:
    program = [sys.executable, str(Path(__file__).parent / "kill_driver.py"), json.dumps(what)]
    environment = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    (folder / "cwd").mkdir()
    done = subprocess.run(program, capture_output=True, text=True, cwd=folder / "cwd", env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def extract_args(folder: Path, card: Path, output: Path) -> list[str]:
    options = ["--card", str(card), "--save", "both", "--engine", "torch"]
    return ["extract", str(folder / "videos"), "-o", str(output), *options]


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(4, 0), pytest.param(60, 1, marks=pytest.mark.long), pytest.param(60, 2, marks=pytest.mark.long)],
)
def test_a_killed_extraction_goes_on_to_the_same_bits(made, tmp_path, kills, seed):
    folder, card = made
    output = tmp_path / "f.h5"
    args = extract_args(folder, card, output)
    report = drive(tmp_path, args=args, output=str(output), reference=str(folder / "whole.h5"), kills=kills, seed=seed)
    assert report["left"] == ["f.h5"] and report["happened"]["videos kept"], report
    print(report)


@pytest.mark.parametrize("command", ["merge", "pca"])
@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.long)])
def test_a_killed_merge_or_pca_is_done_again(made, tmp_path, command, kills):
    folder, _ = made
    args = {"merge": [], "pca": ["--dims", "2"]}[command]
    args = [command, str(folder / "whole.h5"), "-o", str(tmp_path / "f.h5"), "--overwrite", *args]
    reference = tmp_path / "reference.h5"
    if command == "pca":
        featx.pca(folder / "whole.h5", reference, dims=2)
    else:
        featx.merge([folder / "whole.h5"], reference)
    report = drive(tmp_path, args=args, output=str(tmp_path / "f.h5"), reference=str(reference), kills=kills, seed=3)
    assert report["left"] == ["f.h5"], report
    print(report)
