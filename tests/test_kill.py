"""Runs that are killed at random moments: what they leave is sound, and going on ends with the bits of an uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import write_noise_video
from small_weights import SMALL, cards, save_port, small_card, trained_state  # noqa: F401  (cards is a fixture)
from test_download import file, serve  # noqa: F401  (serve is a fixture)

import featx
import featx.c3d_blobs
from featx import catalog, store
from featx.catalog import Source
from featx.checkpoints import acquire
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


@pytest.fixture(scope="module")
def driver():
    """`driver(folder, **job)` answers what `kill_driver` tells of a job whose commands run in the folder."""
    program = [sys.executable, str(Path(__file__).parent / "kill_driver.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def drive(folder: Path, **job) -> dict:
            process.stdin.write(json.dumps({"folder": str(folder), **job}) + "\n")
            process.stdin.flush()
            report = json.loads(process.stdout.readline())
            assert "error" not in report, report["error"]
            print(report)
            return report

        yield drive
        process.kill()


def extract_args(folder: Path, card: Path, output: Path) -> list[str]:
    options = ["--card", str(card), "--save", "both", "--engine", "torch"]
    return ["extract", str(folder / "videos"), "-o", str(output), *options]


@pytest.mark.parametrize(
    ("kills", "seed"),
    [(2, 0), pytest.param(60, 1, marks=pytest.mark.long), pytest.param(60, 2, marks=pytest.mark.long)],
)
def test_a_killed_extraction_goes_on_to_the_same_bits(driver, made, tmp_path, kills, seed):
    folder, card = made
    output = tmp_path / "f.h5"
    place = {"kind": "features", "place": str(output), "reference": str(folder / "whole.h5")}
    report = driver(tmp_path, args=extract_args(folder, card, output), **place, kills=kills, seed=seed)
    assert report["left"] == ["f.h5"] and report["happened"]["kept"], report


@pytest.mark.long
def test_a_killed_extraction_by_several_processes_goes_on_too(driver, made, tmp_path):
    folder, card = made
    output = tmp_path / "f.h5"
    args = [*extract_args(folder, card, output), "--device", "cpu,cpu"]
    place = {"kind": "features", "place": str(output), "reference": str(folder / "whole.h5")}
    report = driver(tmp_path, args=args, **place, kills=12, seed=5)
    assert report["left"] == ["f.h5"] and report["happened"]["kept"], report


@pytest.fixture(scope="module")
def parts(made, tmp_path_factory):
    """A folder with f.h5 and its parts, which together are the reference, and the same in two shards."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "in parts/f.h5.parts").mkdir(parents=True)
    with store.open_features(made[0] / "whole.h5") as features:
        videos, provenance = [features[key] for key in features.keys], features.provenance
    store.write_features(folder / "in parts/f.h5", provenance, videos[::3])
    for i in (1, 2):
        store.write_features(folder / f"in parts/f.h5.parts/part-{i:08d}.h5", provenance, videos[i::3])
        store.write_features(folder / f"shard{i}.h5", provenance, videos[i - 1 :: 2])
    return folder


@pytest.mark.parametrize("command", ["merge shards", "merge parts", "pca"])
@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.long)])
def test_a_killed_merge_or_pca_is_done_again(driver, made, parts, tmp_path, command, kills):
    whole, output, reference = made[0] / "whole.h5", tmp_path / "f.h5", tmp_path / "reference.h5"
    place = {"kind": "features", "place": str(output), "reference": str(reference)}
    if command == "pca":
        args = ["pca", str(whole), "-o", str(output), "--dims", "2", "--overwrite"]
        featx.pca(whole, reference, dims=2)
    else:
        featx.merge([whole], reference)
        shards = [output] if command == "merge parts" else [parts / "shard1.h5", parts / "shard2.h5"]
        args = ["merge", *map(str, shards), "-o", str(output), "--overwrite"]
    if command == "merge parts":
        place["template"] = str(parts / "in parts")
    report = driver(tmp_path, args=args, **place, kills=kills, seed=3, full_bytes=20_000)
    assert report["left"] == ["f.h5"], report


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.long)])
def test_a_killed_export_leaves_no_half_folder(driver, made, tmp_path, kills):
    whole, reference, output = made[0] / "whole.h5", tmp_path / "reference", tmp_path / "blobs"
    featx.c3d_blobs.export_c3d(whole, reference)
    args = ["export", str(whole), "--format", "c3d", "-o", str(output)]
    place = {"kind": "folder", "place": str(output), "reference": str(reference)}
    report = driver(tmp_path, args=args, **place, kills=kills, seed=4, full_bytes=2_000)
    assert report["left"] == ["blobs"], report


PIECES = 16


class Slow:
    """A connection on which a file takes its time."""

    def __init__(self, to) -> None:
        self.to = to

    def write(self, data: bytes) -> None:
        step = max(1000, len(data) // PIECES)
        for i in range(0, len(data), step):
            self.to.write(data[i : i + step])
            time.sleep(0.005)

    def __getattr__(self, name: str) -> object:
        return getattr(self.to, name)


@pytest.mark.long  # test_download.py kills one
@pytest.mark.parametrize("kills", [60])
def test_killed_weights_get_goes_on_to_the_same_bytes(driver, serve, cards, tmp_path, monkeypatch, kills):  # noqa: F811
    card = cards["c3d-small"]
    content = save_port(card, trained_state(card), tmp_path / "port.pickle", "DavideA's port").read_bytes()

    def answer(handler):
        handler.wfile = Slow(handler.wfile)
        with suppress(OSError):  # the reader was killed
            file(content)(handler)

    server = serve(answer)
    source = Source(server.url, "published.pickle", "a port", plain=True)
    reference, home = tmp_path / "reference", tmp_path / "home"
    monkeypatch.setenv("FEATX_HOME", str(reference))
    acquire.get(small_card("c3d-sports1m", (source,)))
    place = {"kind": "cache", "place": str(home), "reference": str(reference)}
    args = ["weights", "get", "c3d-small", "--quiet"]
    what = {"published": ("c3d-sports1m", server.url), "full_bytes": len(content) // 2}
    report = driver(tmp_path, args=args, **place, **what, kills=kills, seed=5)
    assert report["left"] == sorted(str(p.relative_to(reference)) for p in reference.rglob("*") if p.is_file())
