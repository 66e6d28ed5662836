"""A folder of many feature files beside one file of the same videos: a part of examples/benchmark.py, `--only folders`.

The videos are made up and lie in the files as shards have them, mixed. A known folder was opened before; a new one was not.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import featx
from featx.features import Features
from featx.per_video import imported
from featx.store import write_features

__all__ = ["measure_folders"]

LAYER = "fc6"


def measure_folders(quick: bool = False) -> None:
    """Print what opening and reading take, in both forms, and how much more the folder takes."""
    sizes = [(70, 3, 16)] if quick else [(1000, 100, 512), (1000, 50, 4096)]
    for num_files, num_each, num_dims in sizes:
        with tempfile.TemporaryDirectory() as name, _home(Path(name) / "home"):
            folder, one = Path(name) / "many", Path(name) / "one.h5"
            _write(folder, num_files, num_each, num_dims)
            featx.merge([folder], one)
            time.sleep(0 if quick else 4)  # what changed a moment ago is not remembered
            print(f"\n{num_files} files of {num_each} videos, {num_dims} numbers each; medians, in ms")
            print(f"  {'':28}{'one file':>10}{'folder':>10}{'ratio':>8}")
            _compare(one, folder, 1 if quick else 5)


class _home:
    """featx's cache folder elsewhere, so that the user's own is not touched."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._before = folder, os.environ.get("FEATX_HOME")

    def __enter__(self) -> None:
        os.environ["FEATX_HOME"] = str(self._folder)

    def __exit__(self, *_: object) -> None:
        os.environ.pop("FEATX_HOME")
        if self._before is not None:
            os.environ["FEATX_HOME"] = self._before


def _write(folder: Path, num_files: int, num_each: int, num_dims: int) -> None:
    rng, unknown = np.random.default_rng(0), float("nan")
    times = {"fps": unknown, "duration_seconds": unknown, "start_seconds": unknown, "end_seconds": unknown}
    for number in range(num_files):
        rows = rng.standard_normal((num_each, num_dims)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        keys = [f"class{i % 101:03d}/video{i * num_files + number:08d}" for i in range(num_each)]
        videos = (
            Features(key=key, path=f"/videos/{key}.avi", num_frames=0, num_clips=0, descriptors={LAYER: row}, **times)
            for key, row in zip(keys, rows, strict=True)
        )
        write_features(folder / f"part-{number:05d}.h5", imported("made up", LAYER), videos)


def _compare(one: Path, folder: Path, num_rounds: int) -> None:
    began = time.perf_counter()
    featx.open(folder).close()
    new = time.perf_counter() - began
    opening = [_median(lambda path=path: featx.open(path).close(), num_rounds) for path in (one, folder)]
    _say("open, new", opening[0], new)
    _say("open, known", *opening)
    with featx.open(one) as a, featx.open(folder) as b:
        rng = np.random.default_rng(1)
        some = np.sort(rng.integers(len(a), size=min(256, len(a))))
        reads: dict[str, Callable[[featx.FeatureSet], object]] = {
            "the whole matrix": _whole,
            "blocks of 4,096 rows": lambda features: [block.sum() for block in features.blocks(LAYER)],
            f"{len(some)} rows at random": lambda features: features.rows(LAYER, some),
            "a column of numbers": lambda features: features.column("num_frames"),
            "a column of texts": lambda features: features.column("path"),
        }
        if not np.array_equal(a.descriptors(LAYER), b.descriptors(LAYER)):
            raise AssertionError("the folder and the file hold other numbers")
        for name, read in reads.items():
            _say(
                name, *(_median(lambda read=read, features=features: read(features), num_rounds) for features in (a, b))
            )


def _whole(features: featx.FeatureSet) -> np.ndarray:
    rows = features.descriptors(LAYER)
    return np.array(rows) if isinstance(rows, np.memmap) else rows  # one file's is read when it is touched


def _median(run: Callable[[], object], num_rounds: int) -> float:
    seconds = []
    for _ in range(num_rounds):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _say(name: str, one: float, many: float) -> None:
    print(f"  {name:28}{1000 * one:10.1f}{1000 * many:10.1f}{many / max(one, 1e-9):8.1f}", flush=True)
