"""Who decodes where that is left open (`--decode auto`): the processor, or a GPU's video decoder where that is faster here.

Both decode the first videos of the run, with as many workers as it will have: how many frames a second a GPU's decoder gives
beside so many cores is told by no data sheet. The processor is left for clearly more frames only, and for the same ones.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, takewhile
from pathlib import Path

import numpy as np

from featx.decode_pool import Chunk, DecodePool, Ended, Failed
from featx.errors import FeatxError, VideoError
from featx.hardware_decode import is_exact_codec
from featx.plan import VideoItem
from featx.video import read_header

__all__ = ["is_gpu_faster", "videos_to_try"]

VIDEOS_A_WORKER = 2
MOST_PIXELS = (
    2**30
)  # of a video: some 500 frames of 1080p, or nine minutes of 320x240; longer ones take too long to try
MEASURED_SECONDS = 1.5  # of each, and to the end of the videos that are begun then
MOST_SECONDS = 60.0  # whatever headers say, nothing takes longer
DIGESTED_EVERY = 16  # frames of a video one is compared, and the last: of all it would take a core
# so many times the processor's frames a second, since a GPU's decoder does not tell damage inside of a picture
PAYS = 1.1
PAYS_SECONDS = (
    60.0  # of decoding by the processor; in less a GPU's decoder hardly wins the time that it takes to be tried
)
READ_BYTES = 16 * 2**20  # of a video, before: the second must not find on hand what the first had to fetch from a disk


def videos_to_try(items: Sequence[VideoItem], num_workers: int) -> list[Path]:
    """The first short files that a GPU decodes to the processor's frames, a few a worker; none where most are others."""
    wanted = VIDEOS_A_WORKER * num_workers
    looked_at = islice(dict.fromkeys(item.path for item in items[: 4 * wanted] if not item.url), 2 * wanted)
    is_to_try = {path: _is_to_try(path) for path in looked_at}
    found = [path for path, is_one in is_to_try.items() if is_one]
    return found[:wanted] if num_workers <= len(found) and len(is_to_try) <= 2 * len(found) else []


def _is_to_try(path: Path) -> bool:
    try:
        header = read_header(path)
        if not is_exact_codec(header.codec) or header.num_frames * header.height * header.width > MOST_PIXELS:
            return False
        with open(path, "rb") as file:
            return bool(file.read(READ_BYTES))
    except (OSError, VideoError):  # the run will say so
        return False


@dataclass
class _Decoded:
    num_frames: int = 0
    num_videos: int = 0
    seconds: float = 0.0
    # index -> digests of frames, told by their numbers in the video, since chunks are cut otherwise by every worker; and how
    # it ended: of one that failed that alone, since frames of its last chunk may be lost
    told: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.num_frames / max(self.seconds, 1e-9)


def is_gpu_faster(
    cpu: DecodePool,
    gpu: DecodePool,
    paths: Sequence[Path],
    num_workers: int,
    num_videos: int,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[bool, str]:
    """Whether the pool of a GPU is to decode a run of so many videos like these, and a line to tell, "" for none.

    The processor is measured before and after the GPU, and its better rate counts: what else the machine does comes and goes.
    A pool that took too long is closed.
    """
    try:
        on_cpu = _measured(cpu, paths, num_workers, clock)
        if on_cpu.seconds / max(on_cpu.num_videos, 1) * num_videos < PAYS_SECONDS:
            return False, ""
        on_gpu = _measured(gpu, paths, num_workers, clock)
        cpu_rate = max(on_cpu.rate, _measured(cpu, paths, num_workers, clock).rate)
    except (FeatxError, OSError) as error:
        return False, f"the processor decodes, since the GPU's decoder cannot be tried: {error}"
    both = on_cpu.told.keys() & on_gpu.told.keys()
    if any(on_cpu.told[i] != on_gpu.told[i] for i in both):
        return False, "the processor decodes, since the GPU's decoder gives other frames of the first videos"
    rates = f"{on_gpu.rate:,.0f} frames/s of the first videos beside the processor's {cpu_rate:,.0f}"
    if on_gpu.rate <= PAYS * cpu_rate:
        return False, f"the processor decodes: the GPU's decoder gives {rates}"
    return True, (
        f"the GPU's decoder is taken: it gives {rates}, and the same frames; damage inside of a picture, which it does not "
        "tell, is told with '--decode cpu'"
    )


def _measured(pool: DecodePool, paths: Sequence[Path], num_workers: int, clock: Callable[[], float]) -> _Decoded:
    """What a pool gives once all its workers have started, and a GPU's have opened it. Raises FeatxError."""
    smallest = min(paths, key=lambda path: path.stat().st_size)
    _decode(pool, [smallest] * num_workers, clock)
    begun = clock()
    return _decode(pool, takewhile(lambda _: clock() - begun < MEASURED_SECONDS, cycle(paths)), clock)


def _decode(pool: DecodePool, paths: Iterable[Path], clock: Callable[[], float]) -> _Decoded:
    decoded, begun = _Decoded(), clock()
    num_before: dict[int, int] = defaultdict(int)  # frames of a video
    last: dict[int, tuple[bytes, np.ndarray]] = {}
    for event in pool.decode(paths, planar=True):
        told = decoded.told[event.index]
        if isinstance(event, Chunk):
            number, num_frames = num_before[event.index], len(event.seconds)
            for i in range(-number % DIGESTED_EVERY, num_frames, DIGESTED_EVERY):
                told.append(_digest(_what(event, i), event.frames[i]))
            last[event.index] = _what(event, -1), event.frames[-1].copy()
            num_before[event.index] = number + num_frames
            decoded.num_frames += num_frames
        elif isinstance(event, Ended | Failed):
            decoded.num_videos += 1
            final = last.pop(event.index, None)
            if isinstance(event, Failed):
                told.clear()
            elif final is not None:
                told.append(_digest(*final))
            told.append(type(event).__name__)
        decoded.seconds = clock() - begun
        if decoded.seconds > MOST_SECONDS:
            pool.close()
            raise FeatxError(f"the first videos take longer than {MOST_SECONDS:.0f} s")
    return decoded


def _what(chunk: Chunk, place: int) -> bytes:
    """What a frame of a chunk is beside its bytes."""
    return repr((chunk.size, chunk.yuv, chunk.seconds[place])).encode()


def _digest(what: bytes, frame: np.ndarray) -> str:
    digest = hashlib.sha256(what)
    digest.update(frame)
    return digest.hexdigest()
