"""Several processes, and what it costs to hand out videos: a part of examples/benchmark.py, `--only workers`.

The network only waits, and nothing is decoded, so that a machine of two cores can show what four devices would do: how the
rate grows with the workers, and how much processor time the run itself takes for a video, from 1,000 videos to 100,000.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from featx.catalog import get_checkpoint
from featx.extractor import provenance_of
from featx.features import Features
from featx.plan import VideoItem
from featx.profile import Stopwatch
from featx.workers import ExtractorPool, program
from featx.workers.local import LocalWorker

__all__ = ["main", "measure_workers"]

CARD = get_checkpoint("res3d-mini")
NUM_DIMS = 512


class Waiting:
    """What a worker asks of an Extractor; a video takes `video_seconds`, and a descriptor of constants comes of it.

    Options that a pool settles, such as the engine, mean nothing to it.
    """

    def __init__(self, device: str, num_decoders: int, backbone: str, video_seconds: float, **_: object) -> None:
        self.stopwatch, self.num_decoders, self._seconds = Stopwatch(), num_decoders, video_seconds
        self.decode = "cpu"
        self.checkpoint, self.sampling, self.num_dims = CARD, CARD.sampling, {"pool5": NUM_DIMS}
        self.save, self.dtype, self.on_corrupt = "descriptors", np.dtype("float32"), "fail"
        self.aggregation = self.views = None
        self.engine = SimpleNamespace(note="", batch_size=1)
        self.provenance = provenance_of(
            CARD, CARD.sampling, checkpoint_sha256="0" * 64, layers=("pool5",), precision="fp32", save=self.save,
            dtype="float32", engine="torch-cpu", batch_size=1,
        )  # fmt: skip

    def prepare(self, items: object, on_note: object) -> None:
        """Nothing is to be settled."""

    def extract_many(self, items: Iterable[VideoItem]) -> Iterator[Features]:
        descriptor = np.full(NUM_DIMS, NUM_DIMS**-0.5, np.float32)
        for item in items:
            if self._seconds:
                time.sleep(self._seconds)
            yield Features(item.key, str(item.path), 16, 1, 25.0, 0.64, descriptors={"pool5": descriptor})

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def main(device: str, num_threads: int, num_decoders: int) -> None:
    """The program of a worker."""
    program.main(device, num_threads, num_decoders, Waiting)


def measure_workers(quick: bool = False) -> None:
    """Print both figures."""
    start = partial(LocalWorker, program="benchmark_workers", folders=[str(Path(__file__).parent)])
    seconds, num_videos, num_rounds = 0.1, (5 if quick else 30), (1 if quick else 5)
    print(f"\nworkers with a network that waits {1000 * seconds:.0f} ms a video; medians of {num_rounds} rounds")
    alone = None
    for num_workers in (1, 2) if quick else (1, 2, 4):
        rounds = _run(start, num_workers, num_workers * num_videos, seconds, num_rounds)
        rate = num_workers * num_videos / statistics.median(wall for wall, _ in rounds)
        alone = alone or rate
        print(
            f"  {num_workers} workers {rate:8.1f} videos/s   {rate / alone / num_workers:6.1%} of linear   "
            f"{rate * seconds / num_workers:6.1%} of what waiting alone allows",
            flush=True,
        )
    print("what the run itself takes a video, with 2 workers that do not wait")
    for num_videos in (100, 1000) if quick else (1000, 10_000, 100_000):
        ((wall, processor),) = _run(start, 2, num_videos, 0.0, 1)
        print(
            f"  {num_videos:7} videos {1e6 * processor / num_videos:8.0f} µs of processor time, "
            f"{1e6 * wall / num_videos:6.0f} µs from one to the next",
            flush=True,
        )


def _run(
    start: partial, num_workers: int, num_videos: int, video_seconds: float, num_rounds: int
) -> list[tuple[float, float]]:
    """Seconds for that many videos, and this process's processor time, round by round."""
    rounds = []
    with ExtractorPool("res3d-mini", ("cpu",) * num_workers, start_worker=start, video_seconds=video_seconds) as pool:
        pool.prepare([])
        for _ in range(num_rounds):
            items = (VideoItem(f"{i:07d}", Path(f"{i:07d}.mp4")) for i in range(num_videos))
            wall, processor = time.perf_counter(), time.process_time()
            count = sum(1 for _ in pool.extract_many(items))
            if count != num_videos:
                raise AssertionError(f"{count} of {num_videos} videos came back")
            rounds.append((time.perf_counter() - wall, time.process_time() - processor))
    return rounds
