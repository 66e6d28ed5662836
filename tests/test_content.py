"""content.py: hashes of what videos hold, which are read once while nothing changes."""

import hashlib
import os

import pytest

from featx import content
from featx.content import content_sha256


@pytest.fixture
def read(monkeypatch):
    """The files that were read."""
    names, read = [], content._file_sha256
    monkeypatch.setattr(content, "_file_sha256", lambda path: (names.append(path.name), read(path))[1])
    return names


def test_the_segments_of_a_file_cost_one_reading(tmp_path, read):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    assert {content_sha256(path) for _ in range(8)} == {hashlib.sha256(b"one").hexdigest()}
    assert read == ["a.mp4"]
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_sha256(path) == hashlib.sha256(b"two").hexdigest()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        content_sha256(path)


def test_of_a_folder_every_image_counts(tmp_path, read):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    (tmp_path / "notes.txt").write_bytes(b"none")
    lines = (f"{hashlib.sha256(bytes([n])).hexdigest()} {n}.png\0" for n in (1, 2))
    assert content_sha256(tmp_path) == hashlib.sha256("".join(lines).encode()).hexdigest() == content_sha256(tmp_path)
    assert read == ["1.png", "2.png"]
    os.rename(tmp_path / "2.png", tmp_path / "3.png")
    content_sha256(tmp_path)
    assert len(read) == 4
