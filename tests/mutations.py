"""Valid small files of several containers, and ways of damaging them, for the tests that decode what nobody meant to write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import write_noise_video

NUM_FRAMES = 24

# file name -> codec
CONTAINERS = {
    "h264.mp4": "libx264",
    "mpeg4.mkv": "mpeg4",
    "mpeg4.avi": "mpeg4",
    "vp9.webm": "libvpx-vp9",
    "mpeg1.mpg": "mpeg1video",
    "h264.ts": "libx264",
    "flv1.flv": "flv1",
    "mjpeg.mov": "mjpeg",
}


def write_originals(folder: Path) -> list[Path]:
    """A video of NUM_FRAMES frames in every container."""
    folder.mkdir(exist_ok=True)
    return [
        write_noise_video(
            folder / name, NUM_FRAMES, seed=seed, codec=codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p"
        )
        for seed, (name, codec) in enumerate(CONTAINERS.items())
    ]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of the ways of MUTATIONS, drawn at random like its places."""
    return bytes(list(MUTATIONS.values())[rng.integers(len(MUTATIONS))](bytearray(data), rng))


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    """One to thirty bits, anywhere."""
    for place in rng.integers(len(data), size=rng.integers(1, 31)):
        data[place] ^= 1 << rng.integers(8)
    return data


def flip_header_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    """One to eight bits in the first or the last 600 bytes, where sizes, counts and indexes stand."""
    places = rng.integers(min(600, len(data)), size=rng.integers(1, 9))
    for place in places if rng.integers(2) else len(data) - 1 - places:
        data[place] ^= 1 << rng.integers(8)
    return data


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    """The end is missing."""
    return data[: rng.integers(len(data))]


def swap_blocks(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Two blocks of one length change places."""
    size = int(rng.integers(1, len(data) // 4))
    first, second = sorted(rng.integers(0, len(data) - size, 2))
    data[first : first + size], data[second : second + size] = data[second : second + size], data[first : first + size]
    return data


def erase(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A block becomes zeros or ones."""
    start, size = rng.integers(len(data)), int(rng.integers(1, len(data) // 4))
    end = min(start + size, len(data))
    data[start:end] = bytes([255 * int(rng.integers(2))]) * (end - start)
    return data


def take_out(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A block is missing, and what follows stands where it was."""
    start = rng.integers(len(data))
    del data[start : start + int(rng.integers(1, len(data) // 4))]
    return data


MUTATIONS = {f.__name__: f for f in (flip_bits, flip_header_bits, cut, swap_blocks, erase, take_out)}
