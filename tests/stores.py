"""Stores for tests: an S3-compatible server on this machine, and one in memory that can be told to misbehave."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Unreliable", "fill", "s3_server"]

BUCKET = "videos"


@contextmanager
def s3_server(patch: pytest.MonkeyPatch, home: Path) -> Iterator[object]:
    """An fsspec file system of an S3-compatible server on 127.0.0.1, which the environment's variables lead to."""
    pytest.importorskip("s3fs", reason="the package s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        _, port = running.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "who",
            "AWS_SECRET_ACCESS_KEY": "verysecretkey",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_CONFIG_FILE": str(home / "absent"),
            "AWS_SHARED_CREDENTIALS_FILE": str(home / "absent"),
        }.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem(use_listings_cache=False)
        system.mkdir(BUCKET)
        yield system
        s3fs.S3FileSystem.clear_instance_cache()
    finally:
        running.stop()


def fill(system: object, folder: Path, prefix: str) -> None:
    """Put the files of a folder into a store."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


class Unreliable:
    """Stands for the fsspec file system of one file, `data`; `trouble` is asked before every block with its number, from 0,
    counted over all tries, and may raise, change the file, or give another block.
    """

    def __init__(self, data: bytes, trouble: Callable[[Unreliable, int, bytes], bytes]) -> None:
        self.data, self.trouble, self.num_blocks, self.num_opened = data, trouble, 0, 0

    def info(self, path: str) -> dict[str, object]:
        return {"name": path, "size": len(self.data), "ETag": str(hash(self.data)), "type": "file"}

    def open(self, path: str, mode: str, **_: object) -> io.BytesIO:
        store, source = self, io.BytesIO(self.data)
        self.num_opened += 1

        class Source(io.BytesIO):
            def read(self, size: int = -1) -> bytes:
                store.num_blocks += 1
                return store.trouble(store, store.num_blocks - 1, source.read(size))

        return Source()
