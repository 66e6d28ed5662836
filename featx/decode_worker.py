"""The program of one decode worker: `main(FD)` in a process of its own; knows av and numpy only.

It takes jobs as JSON lines on stdin and answers with JSON lines on stdout. Frames travel through shared memory: the arena
that the parent opened as file descriptor FD, laid out as

    | heartbeat int64 | busy int64 | ... 64 bytes | slot 0 | slot 1 | ... |

A slot holds a chunk of frames of one size, BGR uint8 (n, H, W, 3). The heartbeat counts decoded frames, so that the parent
sees that a long job is alive without a message a frame; busy is the processor time that decoding has taken, in nanoseconds.

    parent -> worker   {"decode": PATH, "fps": F, "flow": B, "on_corrupt": POLICY, "count_first": B}
                       {"count": PATH, "fps": F, "flow": B, "on_corrupt": POLICY}
                       {"free": SLOT}   {"grown": SLOT_BYTES}
    worker -> parent   {"ready": true} at first   {"start": {"fps", "num_frames", "first_number"}}   {"grow": FRAME_BYTES}
                       {"chunk": SLOT, "shape": [n, H, W], "seconds": [...]}
                       {"end": {"fps", "num_frames", "duration_seconds", "damage"}}   {"error": REASON}

A file from a stranger may ask for any amount of memory, so the worker's own is limited. It ends with its parent, whatever it
is doing: a thread waits for the pipe to close.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import resource
import sys
import threading
import time
import traceback
from typing import BinaryIO

import numpy as np

from featx import video
from featx.damage import Damage
from featx.errors import VideoError, one_line

# What a worker may take for itself besides the arena: four 8-bit frames of MAX_PIXELS in a decoder, and their BGR twice
MEMORY_BYTES = 2 * 2**30
HEADER_BYTES = 64
NUM_SLOTS = 3
MAX_CHUNK_FRAMES = 32
NICENESS = 10  # of a worker beside the forward pass: about a tenth of a core that both want


class _Arena:
    """The worker's view of the shared memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map()

    def _map(self) -> None:
        self._memory = mmap.mmap(self._descriptor, 0)
        self._heartbeat, self._busy = np.split(np.frombuffer(self._memory, np.int64, 2), 2)
        self.slot_bytes = (len(self._memory) - HEADER_BYTES) // NUM_SLOTS

    def grown(self) -> None:
        """Map again, after the parent made the file larger."""
        self._map()

    def beat(self) -> None:
        self._heartbeat[0] += 1

    def note_busy(self, nanoseconds: int) -> None:
        self._busy[0] = nanoseconds

    def slot(self, index: int, num_bytes: int) -> np.ndarray:
        return np.frombuffer(self._memory, np.uint8, num_bytes, HEADER_BYTES + index * self.slot_bytes)


class _Worker:
    def __init__(self, descriptor: int, answers: BinaryIO) -> None:
        self._arena = _Arena(descriptor)
        self._answers = answers
        self._free = list(range(NUM_SLOTS))
        self._started_at = time.process_time_ns()  # the imports are behind us
        self._messages: queue.SimpleQueue[dict] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            self._messages.put(json.loads(line))
        os._exit(0)  # the parent is gone, or wants no more

    def serve(self) -> None:
        """Decode until the parent closes the pipe."""
        self._send({"ready": True})
        while True:
            job = self._messages.get()
            if "free" in job:
                self._free.append(job["free"])
                continue
            try:
                damage = Damage(job["on_corrupt"])
                if "count" in job:
                    self._count(job["count"], job["fps"], job["flow"], damage)
                else:
                    self._decode(job["decode"], job["fps"], job["flow"], job["count_first"], damage)
            except VideoError as error:
                self._send({"error": str(error)})
            except MemoryError:
                self._send({"error": "its frames do not fit into memory"})
            except OSError as error:
                self._send({"error": f"cannot be read: {error.strerror or error}"})

    def _count(self, path: str, fps: float | None, flow: bool, damage: Damage) -> None:
        header = video.read_header(path, flow=flow)
        num_frames = video.count_frames(path, fps, self._arena.beat, flow, damage)
        shown = fps or header.fps
        self._end(shown, num_frames, num_frames / shown, damage)

    def _decode(self, path: str, fps: float | None, flow: bool, count_first: bool, damage: Damage) -> None:
        header = video.read_header(path, flow=flow)
        shown_fps = fps or header.fps
        num_counted = None
        if count_first:  # the symptoms are noted when it is decoded again
            num_counted = video.count_frames(path, fps, self._arena.beat, flow, Damage(damage.on_corrupt))
        self._send({"start": {"fps": shown_fps, "num_frames": num_counted, "first_number": header.first_number}})
        chunk: list[np.ndarray] = []
        seconds: list[float] = []
        num_frames, last, before_last = 0, 0.0, 0.0
        for frame in video.read_frames(path, fps, self._arena.beat, flow, damage):
            if chunk and (frame.pixels.shape != chunk[0].shape or len(chunk) == self._capacity(chunk[0].nbytes)):
                self._flush(chunk, seconds)
            chunk.append(frame.pixels)
            seconds.append(frame.seconds)
            num_frames, last, before_last = num_frames + 1, frame.seconds, last
        self._flush(chunk, seconds)
        # the last picture is shown as long as the one before it
        shown = last - before_last if num_frames > 1 else 1 / shown_fps
        self._end(shown_fps, num_frames, last + shown, damage)

    def _end(self, fps: float, num_frames: int, duration_seconds: float, damage: Damage) -> None:
        end = {
            "fps": fps,
            "num_frames": num_frames,
            "duration_seconds": duration_seconds,
            "damage": one_line(damage.text),
        }
        self._send({"end": end})

    def _capacity(self, frame_bytes: int) -> int:
        return max(1, min(MAX_CHUNK_FRAMES, self._arena.slot_bytes // frame_bytes))

    def _flush(self, chunk: list[np.ndarray], seconds: list[float]) -> None:
        """Copy the chunk into a slot and announce it; both lists are emptied."""
        frame_bytes = chunk[0].nbytes
        if frame_bytes > self._arena.slot_bytes:
            while len(self._free) < NUM_SLOTS:  # the parent may move memory only when it reads none of it
                self._free.append(self._messages.get()["free"])
            self._send({"grow": frame_bytes})
            self._messages.get()
            self._arena.grown()
        while not self._free:
            self._free.append(self._messages.get()["free"])
        slot = self._free.pop()
        place = self._arena.slot(slot, frame_bytes * len(chunk)).reshape(len(chunk), *chunk[0].shape)
        for i, pixels in enumerate(chunk):
            place[i] = pixels
        self._send({"chunk": slot, "shape": list(place.shape[:3]), "seconds": seconds})
        chunk.clear()
        seconds.clear()

    def _send(self, message: dict) -> None:
        self._arena.note_busy(time.process_time_ns() - self._started_at)
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent has ended, however it did: a long decode would not notice."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main(descriptor: int) -> None:
    """Serve the parent that opened the arena with this file descriptor, until it goes away."""
    _limit_memory()
    os.nice(NICENESS)
    threading.Thread(target=_give_way_as_session, daemon=True).start()
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between our lines
    try:
        _Worker(descriptor, answers).serve()
    except BrokenPipeError:  # the parent is gone
        os._exit(0)
    except BaseException:
        # What nobody foresaw costs this process and its video, and the parent reads why. Python itself must not end it: that
        # waits for the listening thread.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _give_way_as_session() -> None:
    """The same niceness for this process's session, where Linux shares cores out between sessions ("autogroup").

    There a worker, a session of its own, would get as much of a core as all threads of the forward pass together, whose
    threads on the other cores would wait for the one that lost its core.
    """
    for _ in range(20):
        try:
            with open("/proc/self/autogroup", "w") as autogroup:
                autogroup.write(str(NICENESS))
            return
        except BlockingIOError:  # the system takes ten a second
            time.sleep(0.1)
        except OSError:  # it has none
            return


def _limit_memory() -> None:
    """Let an allocation beyond MEMORY_BYTES fail, which costs a video, instead of the machine's memory, which costs the run."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
