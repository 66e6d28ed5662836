"""The program of one decode worker: `main(FD)` in a process of its own; knows av and numpy only.

It takes jobs as JSON lines on stdin and answers with JSON lines on stdout. Frames travel through shared memory: the arena
that the parent opened as file descriptor FD, laid out as

    | heartbeat int64 | busy int64 | number of slots int64 | at work int64 | ... 64 bytes | slot 0 | slot 1 | ... |

A slot holds a chunk of frames of one size, BGR uint8 (n, H, W, 3), or where planes were asked for and the frames have them,
luma, U and V of each, uint8 (n, bytes), with the numbers of their `YuvForm`. The heartbeat counts decoded frames, so that
the parent sees that a long job is alive without a message a frame. In nanoseconds, busy is the processor time that decoding has
taken, and at work all the time that the worker did not wait for the parent, whatever it went to: a slow disk, a GPU that
decodes, others on its core.

    parent -> worker   {"decode": PATH, "fps": F, "flow": B, "on_corrupt": POLICY, "count_first": B, "planar": B}
                       {"count": PATH, "fps": F, "flow": B, "on_corrupt": POLICY}
                       {"picture": PATH, "seconds": S, "flow": B, "max_bytes": N}
                       {"free": SLOT}   {"grown": SLOT_BYTES}
    worker -> parent   {"ready": true} at first   {"start": {"fps", "num_frames", "first_number"}}   {"grow": FRAME_BYTES}
                       {"chunk": SLOT, "shape": [n, H, W], "seconds": [...], "yuv": [...] or null}
                       {"end": {"fps", "num_frames", "duration_seconds", "source_seconds", "damage"}}   {"error": REASON}
                       {"picture": BASE64} of a thumbnail

A file from a stranger may ask for any amount of memory, so the worker's own is limited. It ends with its parent, whatever it
is doing: a thread waits for the pipe to close.
"""

from __future__ import annotations

import base64
import json
import math
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

from featx import hardware_decode, video
from featx.damage import Damage
from featx.errors import VideoError, one_line
from featx.images import encode_thumbnail
from featx.yuv import Planes, YuvForm

# What a worker may take for itself besides the arena: four 8-bit frames of MAX_PIXELS in a decoder, and their BGR twice
MEMORY_BYTES = 2 * 2**30
GPU_MEMORY_BYTES = 4 * MEMORY_BYTES  # a driver maps more than it uses
HEADER_BYTES = 64
NUM_SLOTS = 3  # where the parent does not say
MAX_CHUNK_FRAMES = 32  # of BGR; twice as many of planes, which are half as large
NICENESS = 10  # of a worker beside the forward pass: about a tenth of a core that both want


class _Arena:
    """The worker's view of the shared memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map()

    def _map(self) -> None:
        self._memory = mmap.mmap(self._descriptor, 0)
        self._heartbeat, self._busy, (num_slots,), self._at_work = np.split(np.frombuffer(self._memory, np.int64, 4), 4)
        self.num_slots = int(num_slots)
        self.slot_bytes = (len(self._memory) - HEADER_BYTES) // self.num_slots

    def grown(self) -> None:
        """Map again, after the parent made the file larger."""
        self._map()

    def beat(self) -> None:
        self._heartbeat[0] += 1

    def note_time(self, busy: int, at_work: int) -> None:
        self._busy[0], self._at_work[0] = busy, at_work

    def slot(self, index: int) -> np.ndarray:
        return np.frombuffer(self._memory, np.uint8, self.slot_bytes, HEADER_BYTES + index * self.slot_bytes)


class _Chunk:
    """Frames of one size and form that are written into a slot as they come."""

    def __init__(self, slot: int, memory: np.ndarray, pixels: np.ndarray | Planes) -> None:
        self.slot, self.layout, self.seconds = slot, _layout(pixels), []
        self._memory, self._frame_bytes = memory, _num_bytes(pixels)
        most = MAX_CHUNK_FRAMES * (2 if isinstance(pixels, Planes) else 1)
        self._capacity = min(len(memory) // self._frame_bytes, most)

    def is_full(self) -> bool:
        return len(self.seconds) == self._capacity

    def write(self, pixels: np.ndarray | Planes, seconds: float) -> None:
        start = len(self.seconds) * self._frame_bytes
        place = self._memory[start : start + self._frame_bytes]
        if isinstance(pixels, Planes):
            pixels.write_to(place)
        else:
            place.reshape(pixels.shape)[:] = pixels
        self.seconds.append(seconds)

    def message(self) -> dict:
        height, width, yuv = self.layout
        return {"chunk": self.slot, "shape": [len(self.seconds), height, width], "seconds": self.seconds, "yuv": yuv}


def _layout(pixels: np.ndarray | Planes) -> tuple[int, int, YuvForm | None]:
    """What the frames of a chunk have in common: height, width, and how their planes become BGR."""
    return (*pixels.luma.shape, pixels.form) if isinstance(pixels, Planes) else (*pixels.shape[:2], None)


def _num_bytes(pixels: np.ndarray | Planes) -> int:
    return pixels.num_bytes if isinstance(pixels, Planes) else pixels.nbytes


class _Worker:
    def __init__(self, descriptor: int, answers: BinaryIO) -> None:
        self._arena = _Arena(descriptor)
        self._answers = answers
        self._free = list(range(self._arena.num_slots))
        self._busy_at_start, self._waits_end = time.process_time_ns(), time.monotonic_ns()  # the imports are behind us
        self._at_work = 0
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
            job = self._next_message()
            if "free" in job:
                self._free.append(job["free"])
                continue
            try:
                damage = Damage(job.get("on_corrupt", "fail"))
                if "picture" in job:
                    pixels = video.read_picture(job["picture"], job["seconds"], job["flow"])
                    self._send({"picture": base64.b64encode(encode_thumbnail(pixels, job["max_bytes"])).decode()})
                elif "count" in job:
                    self._count(job["count"], job["fps"], job["flow"], damage)
                else:
                    self._decode(job["decode"], job["fps"], job["flow"], job["count_first"], job["planar"], damage)
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
        self._end(shown, num_frames, num_frames / shown, num_frames / shown, damage)

    def _decode(
        self, path: str, fps: float | None, flow: bool, count_first: bool, planar: bool, damage: Damage
    ) -> None:
        header = video.read_header(path, flow=flow)
        shown_fps = fps or header.fps
        num_counted = None
        if count_first:  # the symptoms are noted when it is decoded again
            num_counted = video.count_frames(path, fps, self._arena.beat, flow, Damage(damage.on_corrupt))
        self._send({"start": {"fps": shown_fps, "num_frames": num_counted, "first_number": header.first_number}})
        chunk: _Chunk | None = None
        num_frames, ends = 0, []
        try:
            for frame in video.read_frames(path, fps, self._arena.beat, flow, damage, planar, ends.append):
                if chunk is not None and (chunk.is_full() or _layout(frame.pixels) != chunk.layout):
                    self._send(chunk.message())
                    chunk = None
                if chunk is None:
                    slot = self._take_slot(_num_bytes(frame.pixels))
                    chunk = _Chunk(slot, self._arena.slot(slot), frame.pixels)
                chunk.write(frame.pixels, frame.seconds)
                num_frames += 1
        except BaseException:
            if chunk is not None:  # whose frames count for nothing
                self._free.append(chunk.slot)
            raise
        self._send(chunk.message())
        (source_seconds,) = ends or [math.nan]  # of a folder of images
        self._end(shown_fps, num_frames, source_seconds if fps is None else num_frames / fps, source_seconds, damage)

    def _end(self, fps: float, num_frames: int, duration_seconds: float, source_seconds: float, damage: Damage) -> None:
        end = {
            "fps": fps,
            "num_frames": num_frames,
            "duration_seconds": duration_seconds,
            "source_seconds": source_seconds,
            "damage": one_line(damage.text),
        }
        self._send({"end": end})

    def _take_slot(self, frame_bytes: int) -> int:
        """Wait for a free slot, and for the parent to make all of them larger where a frame does not fit."""
        if frame_bytes > self._arena.slot_bytes:
            while len(self._free) < self._arena.num_slots:  # the parent may move memory only when it reads none of it
                self._free.append(self._next_message()["free"])
            self._send({"grow": frame_bytes})
            self._next_message()
            self._arena.grown()
        while not self._free:
            self._free.append(self._next_message()["free"])
        return self._free.pop()

    def _next_message(self) -> dict:
        self._note_time()
        message = self._messages.get()
        self._waits_end = time.monotonic_ns()
        return message

    def _note_time(self) -> None:
        """What went by since the parent was last waited for was work."""
        now = time.monotonic_ns()
        self._at_work, self._waits_end = self._at_work + now - self._waits_end, now
        self._arena.note_time(time.process_time_ns() - self._busy_at_start, self._at_work)

    def _send(self, message: dict) -> None:
        self._note_time()
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()


def _leave_with_parent(parent: int) -> None:
    """End this process when its parent has ended, however it did: a long decode would not notice."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main(descriptor: int, gpu: str | None = None) -> None:
    """Serve the parent that opened the arena with this file descriptor, until it goes away. `gpu`: which is to decode."""
    _limit_memory(MEMORY_BYTES if gpu is None else GPU_MEMORY_BYTES)
    os.nice(NICENESS)
    threading.Thread(target=_give_way_as_session, daemon=True).start()
    hardware_decode.use_hardware(gpu)
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


def _limit_memory(most: int) -> None:
    """Let an allocation beyond so many bytes fail, which costs a video, and not the machine's memory, which costs the run."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
