"""Step 2, decode: persistent worker processes that turn videos into chunks of frames in shared memory.

A decoder that crashes or hangs costs its video: the worker is killed and another takes its place. Workers are started as
programs of their own, not forked or spawned, so that a user's script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import base64
import json
import math
import mmap
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from featx.decode_worker import HEADER_BYTES, NUM_SLOTS
from featx.errors import FeatxError, one_line
from featx.interrupt import signal_name
from featx.job_supply import JobSupply
from featx.yuv import YuvForm

__all__ = ["Arena", "Chunk", "DecodePool", "Ended", "Failed", "Picture", "Spent", "Started"]

# Imports this very featx, and nothing from the folder in which the user happens to be. Signals to all of a job are the parent's
# to answer: it ends the workers when it has no more use for them.
_PROGRAM = (
    "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]; "
    "import sys; sys.path[0] = sys.argv[1]; from featx.decode_worker import main; main(int(sys.argv[2]), *sys.argv[3:])"
)
_OWN_FOLDER = str(Path(__file__).resolve().parents[1])

SLOT_BYTES = 8 * 2**20  # grown for larger frames
TIMEOUT_SECONDS = 60.0
HELD_POLL_SECONDS = 0.001  # how often memory is looked after that a device still copies from
KEEP_BYTES = 384 * 2**20  # a worker that holds more after a video is replaced; an ordinary one holds some 80 MB
GPU_KEEP_BYTES = 2 * 2**30  # of one that a GPU decodes for: a driver and its context take some hundred MB
WORKER_FILES, OTHER_FILES = 5, 160  # that a worker keeps open here, and room for all else: feature files, models
MAX_LOST_STARTS = 3  # so often a worker may be killed from outside before it has begun


@dataclass(frozen=True)
class Started:
    """Frames of video `index` will follow. `num_frames` is counted, and None unless that was asked for.

    `first_number` is the number of the first image in a folder of images, 0 in a video file.
    """

    index: int
    fps: float
    num_frames: int | None
    first_number: int = 0


@dataclass(frozen=True)
class Spent:
    """Seconds that workers had a video in hand and room for its frames, and how many of these they were on a processor; and
    `lacking_seconds` in which the whole pool had no videos: half as many where half of the workers had none.
    """

    seconds: float = 0.0
    processor_seconds: float = 0.0
    lacking_seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass(eq=False)
class Arena:
    """The memory that one worker shares with us, uint8, all of it.

    `is_locked`: whether a device may read it by itself, None while nobody has asked; `before_closing`: called before it is
    given up, the last one first.
    """

    memory: np.ndarray
    is_locked: bool | None = None
    before_closing: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        while self.before_closing:
            self.before_closing.pop()()


@dataclass(eq=False)
class Chunk:
    """The next frames of video `index`; seconds (n,).

    `frames`: BGR uint8 (n, H, W, 3). Where planes were asked for and the frames have them, `yuv` is not None, and `frames`
    are their luma, U and V side by side, uint8 (n, bytes), of pictures of `size` (H, W). They lie in `arena` and are valid
    until the next event is taken, or, where `held_until` is set by then, until it returns True.
    """

    index: int
    frames: np.ndarray
    seconds: list[float]
    size: tuple[int, int]
    yuv: YuvForm | None = None
    arena: Arena | None = None
    held_until: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Ended:
    """All frames of video `index` have come.

    `duration_seconds` is that of the frames that came, whole slots where `fps` of them were asked for; `source_seconds` is when
    the video itself ends.
    """

    index: int
    fps: float
    num_frames: int
    duration_seconds: float
    source_seconds: float
    damage: str = ""  # what was wrong with a video that is kept all the same


@dataclass(frozen=True)
class Failed:
    """Video `index` cannot be decoded, and why; chunks that came before count for nothing."""

    index: int
    reason: str


@dataclass(frozen=True)
class Picture:
    """The thumbnail of video `index`, a WebP or JPEG file."""

    index: int
    data: bytes


class DecodePool:
    """Up to `num_workers` decode processes, one video each at a time. Use it in a ``with`` block, or call `close`.

    `timeout_seconds`: a worker that decodes no frame for so long is killed, and its video fails. Time in which this very
    process stood still, in a suspended job say, does not count. `gpu`: see `featx.hardware_decode.use_hardware`.
    `num_slots`: how many chunks of a worker may be on their way at once.
    """

    def __init__(
        self,
        num_workers: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        gpu: str | None = None,
        num_slots: int = NUM_SLOTS,
    ) -> None:
        self._gpu, self._num_slots = gpu, num_slots
        self._num_workers, self._timeout_seconds = min(num_workers, _allowed_workers(num_workers)), timeout_seconds
        self._poll_seconds = min(1.0, timeout_seconds / 4)
        self._num_lost_starts = 0
        self._workers: list[_WorkerProcess] = []  # started when there is work for them
        self._held: deque[tuple[_WorkerProcess, int, Chunk]] = deque()  # slots that are still copied from
        self._spent_before = Spent()  # by the workers that are gone, and while videos lacked
        self.num_started = 0
        self.closed = False

    def decode(
        self,
        paths: Iterable[Path],
        fps: float | None = None,
        count_first: bool = False,
        flow: bool = False,
        on_corrupt: str = "fail",
        planar: bool = False,
    ) -> Iterator[Started | Chunk | Ended | Failed]:
        """Decode videos, several at once; events of one video come in order, those of different videos mixed.

        A video's `index` is its place in `paths`, which is read only as workers become free. `flow`: of folders, the
        optical flow; `on_corrupt`: see `featx.damage`; `planar`: chunks of planes where frames have them. One call at a
        time. Raises FeatxError where workers cannot start.
        """
        options = {"fps": fps, "flow": flow, "count_first": count_first, "on_corrupt": on_corrupt, "planar": planar}
        yield from self._serve(enumerate({"decode": os.fspath(path)} | options for path in paths))

    def count(
        self, paths: Iterable[Path], fps: float | None = None, flow: bool = False, on_corrupt: str = "fail"
    ) -> Iterator[Ended | Failed]:
        """Decode videos only to count the frames that `decode` would give; otherwise as there."""
        options = {"fps": fps, "flow": flow, "on_corrupt": on_corrupt}
        yield from self._serve(enumerate({"count": os.fspath(path)} | options for path in paths))

    def pictures(
        self, videos: Iterable[tuple[Path, float | None]], max_bytes: int, flow: bool = False
    ) -> Iterator[Picture | Failed]:
        """A thumbnail of each video, at about so many seconds, None for its middle; see `featx.images.encode_thumbnail`."""
        options = {"max_bytes": max_bytes, "flow": flow}
        yield from self._serve(
            enumerate({"picture": os.fspath(path), "seconds": seconds} | options for path, seconds in videos)
        )

    def _serve(self, jobs: Iterator[tuple[int, dict]]) -> Iterator[Started | Chunk | Ended | Failed | Picture]:
        if self.closed:
            raise ValueError("the decode pool is closed")
        busy: dict[_WorkerProcess, tuple[int, dict]] = {}
        again: list[tuple[int, dict]] = []  # jobs of workers that were lost before they had begun
        idle = list(self._workers)
        with selectors.DefaultSelector() as selector, JobSupply(jobs) as supply:
            selector.register(supply.wake, selectors.EVENT_READ)

            def hand_out() -> None:
                while len(busy) < self._num_workers:
                    index, job = again.pop() if again else supply.take() or (None, None)
                    if job is None or self.closed:  # meanwhile, by the thread that gave up waiting for this one
                        return
                    while idle and not self._keep(idle[-1]):
                        idle.pop()
                    worker = idle.pop() if idle else self._start()
                    worker.send(job)
                    worker.touch()
                    busy[worker] = index, job
                    selector.register(worker.stdout, selectors.EVENT_READ, worker)

            def take_back(worker: _WorkerProcess) -> tuple[int, dict]:
                selector.unregister(worker.stdout)
                return busy.pop(worker)

            hand_out()
            while (busy or not supply.is_over) and not self.closed:
                num_lacking, began = 0 if supply.is_over else self._num_workers - len(busy), time.monotonic()
                ready = selector.select(timeout=HELD_POLL_SECONDS if self._held else self._poll_seconds)
                if num_lacking:
                    share = num_lacking / self._num_workers
                    self._spent_before += Spent(lacking_seconds=share * (time.monotonic() - began))
                for key, _ in ready:
                    if key.data is None:  # a job has come
                        continue
                    for message in key.data.messages():
                        yield from self._event(key.data, busy[key.data][0], message)
                        if message.keys() & {"end", "error", "picture"}:
                            take_back(key.data)
                            idle.append(key.data)
                self._free_slots()
                # A worker with something to say waits for us, however long we took; only a mute one is judged.
                speaking = {key.data for key, _ in selector.select(timeout=0)}
                for worker in list(busy):
                    silent_seconds = worker.silent_seconds(at_most=2 * self._poll_seconds)
                    patience = self._timeout_seconds if worker.ready else max(self._timeout_seconds, TIMEOUT_SECONDS)
                    if not worker.ended and (worker in speaking or silent_seconds <= patience):
                        continue
                    silence = f"no frame decoded for {self._timeout_seconds:g} s (--timeout)"
                    reason = worker.last_words() if worker.ended else silence
                    index, job = take_back(worker)
                    was_ready, was_killed = worker.ready, worker.killed()
                    self._end(worker)
                    if was_ready:
                        yield Failed(index, one_line(reason))
                        continue
                    self._num_lost_starts += 1  # its video is not to blame
                    if not was_killed or self._num_lost_starts > MAX_LOST_STARTS:
                        raise FeatxError(f"decode workers cannot start: {reason}")
                    again.append((index, job))
                hand_out()

    def _event(
        self, worker: _WorkerProcess, index: int, message: dict
    ) -> Iterator[Started | Chunk | Ended | Failed | Picture]:
        worker.touch()
        if "chunk" in message:
            chunk = worker.chunk(index, message)
            yield chunk
            self._held.append((worker, message["chunk"], chunk))
            self._free_slots()
        elif "start" in message:
            yield Started(index, **message["start"])
        elif "end" in message:
            yield Ended(index, **message["end"])
        elif "grow" in message:
            worker.grow(message["grow"])
        elif "picture" in message:
            yield Picture(index, base64.b64decode(message["picture"]))
        elif "ready" in message:
            worker.ready = True
        else:
            yield Failed(index, message["error"])

    def _free_slots(self) -> None:
        """Give back what nobody reads any more, in the order in which it came."""
        while self._held and (self._held[0][2].held_until is None or self._held[0][2].held_until()):
            worker, slot, _ = self._held.popleft()
            worker.send({"free": slot})
            worker.touch()  # the wait was ours

    def spent(self) -> Spent:
        """What decoding has taken so far, in all workers together; without their start."""
        return sum((worker.spent() for worker in self._workers), self._spent_before)

    def _start(self) -> _WorkerProcess:
        try:
            self._workers.append(_WorkerProcess(self._gpu, self._num_slots))
        except OSError as error:
            raise FeatxError(
                f"a decode worker cannot start: {error.strerror or error}; there are {len(self._workers)} already; allow "
                "more open files (ulimit -n) or processes (ulimit -u)"
            ) from error
        self.num_started += 1
        return self._workers[-1]

    def _end(self, worker: _WorkerProcess) -> None:
        self._spent_before += worker.spent()
        worker.close()
        self._workers.remove(worker)
        self._held = deque(held for held in self._held if held[0] is not worker)

    def _keep(self, worker: _WorkerProcess) -> bool:
        """Whether an idle worker may take another job.

        One that died while it had nothing to do is let go, and no video is to blame; so is one that holds much memory, after
        very large frames or because a library lost some of it over a broken file.
        """
        if worker.exited() or worker.held_bytes() > (KEEP_BYTES if self._gpu is None else GPU_KEEP_BYTES):
            self._end(worker)
            return False
        return True

    def close(self) -> None:
        """End the workers; a closed pool decodes nothing more."""
        self._spent_before = self.spent()
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        self._held.clear()
        self.closed = True

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _WorkerProcess:
    """The parent's side of one worker: the process, its pipes, its arena."""

    def __init__(self, gpu: str | None, num_slots: int) -> None:
        self._num_slots = num_slots
        self._arena = _anonymous_file()
        with ExitStack() as opened:  # is undone where the next thing fails
            opened.callback(os.close, self._arena)
            os.ftruncate(self._arena, HEADER_BYTES + num_slots * SLOT_BYTES)
            self._map()
            self._errors = opened.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, _OWN_FOLDER, str(self._arena), *([] if gpu is None else [gpu])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=[self._arena],
                start_new_session=True,  # so that a Ctrl-C at the terminal does not reach it while it starts
            )
            opened.pop_all()
        self.stdout = self._process.stdout
        self._unread = b""
        self.ready = False  # it has started and said so
        self.ended = False  # its pipe is closed, and all that it said has been read
        self.touch()

    def send(self, message: dict) -> None:
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.ended = True

    def messages(self) -> Iterator[dict]:
        """What has arrived; call when `stdout` is readable."""
        data = os.read(self.stdout.fileno(), 2**16)
        self.ended = self.ended or not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        yield from (json.loads(line) for line in lines if line.startswith(b"{"))

    def chunk(self, index: int, message: dict) -> Chunk:
        """What a worker says that it has put into a slot."""
        n, height, width = message["shape"]
        form = message["yuv"] and YuvForm(*message["yuv"])
        half = (height + 1) // 2 * ((width + 1) // 2)
        shape = (n, height, width, 3) if form is None else (n, height * width + 2 * half)
        start = HEADER_BYTES + message["chunk"] * self._slot_bytes
        frames = np.frombuffer(self._memory, np.uint8, math.prod(shape), start).reshape(shape)
        return Chunk(index, frames, message["seconds"], (height, width), form, self._shared)

    def grow(self, frame_bytes: int) -> None:
        """Make every slot large enough for a frame of that size."""
        self._shared.close()
        os.ftruncate(self._arena, HEADER_BYTES + self._num_slots * frame_bytes)
        self._map()
        self.send({"grown": frame_bytes})

    def _map(self) -> None:
        self._memory = mmap.mmap(self._arena, 0)
        self._shared = Arena(np.frombuffer(self._memory, np.uint8))
        self._heartbeat, self._busy, num_slots, self._at_work = np.split(np.frombuffer(self._memory, np.int64, 4), 4)
        num_slots[:] = self._num_slots
        self._slot_bytes = (len(self._memory) - HEADER_BYTES) // self._num_slots
        self._last_beat = -1

    def spent(self) -> Spent:
        return Spent(int(self._at_work[0]) / 1e9, int(self._busy[0]) / 1e9)

    def touch(self) -> None:
        """Note that the worker is alive, or that it waited for us."""
        self._silent_seconds, self._looked_at = 0.0, time.monotonic()

    def silent_seconds(self, at_most: float) -> float:
        """For how long there has been no sign of life. A look counts for `at_most` so many seconds since the one before it,
        so that a worker is not blamed for the time in which nobody looked."""
        now, beat = time.monotonic(), int(self._heartbeat[0])
        self._silent_seconds += min(now - self._looked_at, at_most)
        self._looked_at = now
        if beat != self._last_beat:
            self._last_beat, self._silent_seconds = beat, 0.0
        return self._silent_seconds

    def held_bytes(self) -> int:
        """Memory of its own, where the system tells, and the arena."""
        own_pages = 0
        try:
            with open(f"/proc/{self._process.pid}/statm") as statm:
                _, resident, shared, *_ = map(int, statm.read().split())
            own_pages = resident - shared
        except (OSError, ValueError):
            pass
        return own_pages * mmap.PAGESIZE + len(self._memory)

    def killed(self) -> bool:
        """Whether a signal has ended it."""
        return (self._process.poll() or 0) < 0

    def exited(self) -> bool:
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Why a dead worker died."""
        code = self._process.wait()
        if code < 0:
            return f"the decoder crashed ({signal_name(-code)})"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return "the decoder failed: " + (lines[-1] if lines else f"exit code {code}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._shared.close()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            try:
                pipe.close()
            except BrokenPipeError:  # unsent bytes for a dead worker
                pass
        arena, self._arena = self._arena, -1
        if arena >= 0:  # once: the number may be another file's by now
            os.close(arena)


def _anonymous_file() -> int:
    """A file descriptor of memory without a name, so that nothing is left behind however the run ends."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("featx-frames")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - its descriptor is duplicated and outlives it
    return os.dup(file.fileno())


def _allowed_workers(num_workers: int) -> int:
    """How many workers may have their files open at once; the system is asked for as many as are wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OTHER_FILES + num_workers * WORKER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return num_workers
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    except (OSError, ValueError):  # some systems allow less than they say
        pass
    return max(1, (soft - OTHER_FILES) // WORKER_FILES)


def default_num_workers() -> int:
    """One decoder a core that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
