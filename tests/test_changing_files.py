"""Files that grow, vanish or are replaced while a run is on."""

from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import write_noise_video

from featx.clip_frames import HostFrames
from featx.extractor import Extractor
from featx.features import Failure
from featx.plan import VideoItem


@pytest.fixture(scope="module")
def extractor():
    with Extractor(stride=99) as made:
        yield made


@pytest.fixture
def path(tmp_path):
    return write_noise_video(tmp_path / "a.mp4", 40)


def result_when(extractor, monkeypatch, path, happens):
    """What comes of a video when something happens to its file after its first frames."""
    prepare, calls = HostFrames.prepare, []

    def prepare_after_it(self, *args):
        if not calls:
            happens()
        calls.append(1)
        return prepare(self, *args)

    monkeypatch.setattr(HostFrames, "prepare", prepare_after_it)
    (result,) = extractor.extract_many([VideoItem("a", path)])
    return result


def grow(path):
    with open(path, "ab") as file:
        file.write(b"more")


def test_a_file_that_grows_fails(extractor, monkeypatch, path):
    result = result_when(extractor, monkeypatch, path, lambda: grow(path))
    assert isinstance(result, Failure)
    assert result.reason == "changed while it was read; the same command takes it again"
    assert result.size_bytes != path.stat().st_size  # so that the next run does take it again


def test_a_file_that_is_replaced_fails(extractor, monkeypatch, path, tmp_path):
    other = write_noise_video(tmp_path / "b.mp4", 41)
    result = result_when(extractor, monkeypatch, path, lambda: os.replace(other, path))
    assert "changed while it was read" in result.reason


def test_a_file_that_vanishes_gives_all_its_features_or_fails(extractor, monkeypatch, path):
    """Which of the two depends on whether its container had been followed to the end by then."""
    expected = extractor.extract(path)
    result = result_when(extractor, monkeypatch, path, path.unlink)
    if isinstance(result, Failure):
        assert "no such file" in result.reason.lower()
        return
    assert result.num_frames == 40
    for layer in extractor.layers:
        assert np.array_equal(result.descriptors[layer], expected.descriptors[layer])


def test_a_file_that_is_gone_is_a_failure(extractor, tmp_path):
    (result,) = extractor.extract_many([VideoItem("a", tmp_path / "a.mp4")])
    assert result.reason == "cannot be opened: no such file"
