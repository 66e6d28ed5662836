"""What the system has no more of: room for temporary files, open files, processes. It costs a line, or nothing."""

import errno
import os
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from featx import clip_rows, decode_pool
from featx.clip_rows import ClipRows
from featx.decode_pool import DecodePool
from featx.errors import FeatxError
from featx.workers import wire

pytestmark = pytest.mark.usefixtures("workers_of_its_own")


@contextmanager
def files_of_at_most(num_bytes):
    """As on a disk that is full but for so much; the system says EFBIG for ENOSPC."""
    before, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python's own files are not to be cut short
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes_none


def test_clip_features_that_find_no_room_end_the_run_with_a_remedy(monkeypatch):
    monkeypatch.setattr(clip_rows, "MEMORY_BYTES", 10_000)
    rows = ClipRows(500, np.dtype(np.float32))
    with files_of_at_most(50_000), pytest.raises(FeatxError, match="cannot be kept in .*: File too large; .*TMPDIR"):
        for _ in range(50):
            rows.append(np.ones(500, np.float32))
        rows.result()


def test_a_message_that_finds_no_room_on_the_disk_comes_into_memory(monkeypatch):
    monkeypatch.setattr(wire, "MAPPED_BYTES", 5000)
    sent, (read_end, write_end) = np.arange(20_000, dtype=np.float32), os.pipe()
    with os.fdopen(read_end, "rb", 0) as reader, os.fdopen(write_end, "wb", 0) as writer:
        thread = threading.Thread(target=wire.write_message, args=(writer, sent))
        thread.start()
        with files_of_at_most(1000):
            got = wire.read_message(reader)
        thread.join()
    assert np.array_equal(got, sent)


@pytest.mark.parametrize(("soft", "hard", "allowed"), [(1024, 1024, 8), (180, 180, 4), (36, 36, 1), (36, 10_000, 8)])
def test_there_are_as_many_decoders_as_files_may_be_open(monkeypatch, soft, hard, allowed):
    asked = []
    monkeypatch.setattr(decode_pool.resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(decode_pool.resource, "setrlimit", lambda which, limits: asked.append(limits))
    assert decode_pool._allowed_workers(8) == allowed
    assert asked == {1024: [], 180: [(180, 180)], 36: [(min(200, hard), hard)]}[soft]


def test_a_decoder_that_cannot_be_started_is_told_and_leaves_nothing_open(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for _ in range(10):  # others in this process may open a file meanwhile, but not so many
        with DecodePool(1) as pool, pytest.raises(FeatxError, match="cannot start: Too many open files; .*ulimit -n"):
            list(pool.count([tmp_path / "a.mp4"]))
    assert len(os.listdir("/dev/fd")) < before + 10
