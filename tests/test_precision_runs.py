"""--precision on a real run: bf16 on the CPU is recorded, kept by a run that goes on, and kept apart from fp32."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from test_cli import run
from test_run import same_features

import featx
from featx.errors import ProvenanceError, UsageError
from featx.extractor import Extractor
from featx.provenance import Provenance, common
from featx.run import extract_to


@pytest.fixture(scope="module")
def rough(clips_folder, tmp_path_factory):
    """A run in bf16, in two goes, and the same in one."""
    folder = tmp_path_factory.mktemp("rough")
    (folder / "clips/cat").mkdir(parents=True)
    shutil.copy(clips_folder / "dog/001.avi", folder / "clips/cat")
    options = {"layers": ["pool5"], "batch_size": 1}
    extract_to(folder / "clips", folder / "f.h5", precision="bf16", **options)
    (folder / "clips/dog").mkdir()
    shutil.copy(clips_folder / "dog/001.avi", folder / "clips/dog")
    extract_to(folder / "clips", folder / "f.h5", layers=["pool5"])
    extract_to(folder / "clips", folder / "whole.h5", precision="bf16", **options)
    return folder


def test_it_is_recorded_and_kept(rough):
    with featx.open(rough / "f.h5") as features:
        made = features.provenance
        assert (made.precision, made.engine, made.batch_size, len(features)) == ("bf16", "folded-cpu", 1, 2)
    assert same_features(rough / "f.h5", rough / "whole.h5")


def test_it_is_bf16_indeed(rough):
    with featx.open(rough / "f.h5") as features:
        key = features.keys[0]
        found = features[key].descriptors["pool5"]
        exact = featx.extract(next(rough.glob(f"clips/{key}.*")), layers=["pool5"]).descriptors["pool5"]
    assert 1e-9 < 1 - float(found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)) < 1e-3


def test_it_does_not_mix_with_fp32(rough, tmp_path):
    with pytest.raises(ProvenanceError, match="precision is 'bf16' in .*, 'fp32' in this run"):
        extract_to(rough / "clips", rough / "f.h5", layers=["pool5"], precision="fp32", engine="torch")
    extract_to(rough / "clips/cat", tmp_path / "fp32.h5", layers=["pool5"])
    with pytest.raises(ProvenanceError, match="precision is 'bf16' in"):
        featx.merge([rough / "f.h5", tmp_path / "fp32.h5"], tmp_path / "both.h5")


def test_the_command_line(capsys, rough, tmp_path):
    video = rough / "clips/dog/001.avi"
    code, *_ = run(capsys, "extract", video, "-o", tmp_path / "f.h5", "--precision", "bf16", "--batch-size", 1)
    assert code == 0
    code, out, _ = run(capsys, "info", tmp_path / "f.h5")
    assert "    precision          bf16" in out.splitlines()
    code, _, err = run(capsys, "extract", video, "-o", tmp_path / "g.h5", "--precision", "bf16", "--engine", "winograd")
    assert code == 2 and "engine 'winograd' computes in fp32, but precision 'bf16' was asked for" in err


def test_auto_is_fp32_on_the_cpu():
    with Extractor(device="cpu") as extractor:
        assert extractor.engine.precision == extractor.provenance.precision == "fp32"
        assert extractor.engine.settled and not extractor.engine.wants_clips and not extractor.engine.is_beside
        notes = []
        extractor.prepare([], notes.append)
        assert notes == []


def test_a_precision_without_a_gpu():
    with pytest.raises(UsageError, match="'tf32' was asked for, or the output was begun with it, but tf32 needs a GPU"):
        Extractor(device="cpu", precision="tf32")


def test_files_of_several_batch_sizes_go_on_with_the_smallest():
    with Extractor(device="cpu") as extractor:
        made = extractor.provenance
    assert isinstance(made, Provenance)
    several = [(str(size), dataclasses.replace(made, batch_size=size)) for size in (8, 2, 4)]
    assert common(several) == dataclasses.replace(made, batch_size=2)
    assert common(several[:1]).batch_size == 8 and common([]) is None
