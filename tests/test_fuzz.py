"""Mutated files of eight containers: no crash, no hang, no leak, and none that is shorter without a word unless said here.

What is accepted under `fail` has the frames of the original, or as many of them. Two things pass all the same. A flipped bit
of a picture that still decodes: these codecs have no checksum, so the pixels are others and nobody can know. And a damaged
index or picture header that declares less itself, consistently, such as the number of samples of an MP4. The long form
counts both: of 4,800 files 4,070 were refused, 496 came with the same pixels, 203 with other pixels in all frames, 31 with
fewer frames.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import write_noise_video
from mutations import CONTAINERS, MUTATIONS, NUM_FRAMES, mutate, write_originals

from featx import decode_pool, store
from featx.decode_pool import Chunk, DecodePool, Ended, Failed
from featx.run import extract_to

pytestmark = pytest.mark.usefixtures("workers_of_its_own")

OTHER_PIXELS, SHORTER = 0.07, 0.015  # at most so large a share of the files


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return write_originals(tmp_path_factory.mktemp("originals") / "whole")


def write_mutants(originals: list[Path], folder: Path, number: int, seed: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(number):
        original = originals[i % len(originals)]
        paths.append(folder / f"{i:04d}{original.suffix}")
        paths[-1].write_bytes(mutate(original.read_bytes(), rng))
    return paths


def decoded(pool: DecodePool, paths: list[Path], on_corrupt: str = "fail") -> dict[int, tuple[Ended | Failed, str]]:
    """index -> (the last event, a hash of all pixels)"""
    hashes = {i: hashlib.sha1() for i in range(len(paths))}
    last = {}
    for event in pool.decode(paths, on_corrupt=on_corrupt):
        if isinstance(event, Chunk):
            hashes[event.index].update(event.frames.tobytes())
        elif isinstance(event, Ended | Failed):
            assert event.index not in last
            last[event.index] = event
    return {i: (event, hashes[i].hexdigest()) for i, event in sorted(last.items())}


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def fuzz(originals: list[Path], folder: Path, number: int, seed: int) -> Counter:
    """Decode mutants with a whole neighbour after every tenth; returns how many fared in which way."""
    mutants = write_mutants(originals, folder, number, seed)
    neighbour = write_noise_video(folder / "neighbour.mp4", 9, seed=99)
    paths = [path for i, mutant in enumerate(mutants) for path in [mutant, *([neighbour] * (i % 10 == 9))]]
    fared: Counter = Counter()
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with DecodePool(2, timeout_seconds=30) as pool:
        whole = {path.suffix: result for path, result in zip(originals, decoded(pool, originals).values(), strict=True)}
        (expected,) = decoded(pool, [neighbour]).values()
        results = decoded(pool, paths)
        assert sorted(results) == list(range(len(paths)))
        for path, (event, pixels) in zip(paths, results.values(), strict=True):
            if path == neighbour:
                assert pixels == expected[1] and event.num_frames == 9
            elif isinstance(event, Failed):
                fared["failed"] += 1
                assert event.reason and "\n" not in event.reason
                assert "decoder crashed" not in event.reason and "no frame decoded" not in event.reason, path
                fared["unforeseen"] += event.reason.startswith("the decoder failed")  # an exception that nobody named
            elif pixels == whole[path.suffix][1]:
                fared["same"] += 1
            else:
                fared["other pixels" if event.num_frames >= NUM_FRAMES else "shorter"] += 1
        assert len(pool._workers) <= 2
        if descriptors:
            assert max(resident_bytes(worker._process.pid) for worker in pool._workers) < 2 * decode_pool.KEEP_BYTES
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors
    return fared


def check(fared: Counter, number: int) -> None:
    assert sum(fared.values()) - fared["unforeseen"] == number
    assert fared["unforeseen"] == 0
    assert fared["other pixels"] <= OTHER_PIXELS * number + 3, fared
    assert fared["shorter"] <= SHORTER * number + 1, fared


def test_a_few(originals, tmp_path):
    check(fuzz(originals, tmp_path / "mutants", 96, seed=1), 96)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_many(originals, tmp_path, seed):
    fared = fuzz(originals, tmp_path / "mutants", 1200, seed)
    print(dict(fared))
    check(fared, 1200)


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_cut_is_accepted(originals, tmp_path, name):
    """But for a cut between two packets of an MPEG stream, which have no length as a whole."""
    (original,) = [path for path in originals if path.name == name]
    data, rng = original.read_bytes(), np.random.default_rng(0)
    paths = []
    for length in rng.integers(1, len(data) - 2000, 12):
        if original.suffix == ".ts" and length % 188 == 0:
            length += 1
        paths.append(tmp_path / f"{length}{original.suffix}")
        paths[-1].write_bytes(data[:length])
    with DecodePool(2) as pool:
        assert all(isinstance(event, Failed) for event, _ in decoded(pool, paths).values())


@pytest.mark.long
def test_kept_damage_is_decoded_in_the_same_way_twice(originals, tmp_path):
    paths = write_mutants(originals, tmp_path / "mutants", 64, seed=2)
    with DecodePool(2) as pool:
        once, twice = (decoded(pool, paths, "keep") for _ in range(2))
    assert once == twice
    kept = [event for event, _ in once.values() if isinstance(event, Ended) and event.damage]
    assert len(kept) > 10 and all("\n" not in event.damage and len(event.damage) < 500 for event in kept)


@pytest.mark.long
def test_a_run_over_them_keeps_neighbours_and_keys(originals, tmp_path):
    write_mutants(originals, tmp_path / "videos", 40, seed=3)
    for i in range(3):
        write_noise_video(tmp_path / f"videos/{10 * i:04d}_whole.mp4", 20, seed=i)
    summary = extract_to(tmp_path / "videos", tmp_path / "all.h5", stride=99)
    assert summary.num_planned == 43 == summary.num_videos + len(summary.failures)
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in (tmp_path / "videos").glob("*_whole.mp4"):
        path.rename(alone / path.name)
    extract_to(alone, tmp_path / "alone.h5", stride=99)
    with store.open_features(tmp_path / "all.h5") as features, store.open_features(tmp_path / "alone.h5") as clean:
        assert len(clean.keys) == 3
        for key in clean.keys:
            for layer in clean.layers:
                assert np.array_equal(features[key].descriptors[layer], clean[key].descriptors[layer])
        assert {*features.keys, *(failure.key for failure in features.failures)} == {
            *clean.keys,
            *(f"{i:04d}" for i in range(40)),
        }


def test_every_mutation_changes_something(originals):
    data = originals[0].read_bytes()
    for mutation in MUTATIONS.values():
        assert bytes(mutation(bytearray(data), np.random.default_rng(4))) != data
