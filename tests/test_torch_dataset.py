"""examples/torch_dataset.py: a loop over a feature file, with workers and without."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from feature_files import write_file
from torch.utils.data import DataLoader

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import torch_dataset


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    rows = {f"c/{i:03d}": rng.normal(size=6).astype(np.float32) for i in range(50)}
    return write_file(tmp_path / "f.h5", {"fc6": rows}), rows


@pytest.mark.parametrize("kind", [torch_dataset.Features, torch_dataset.PlainFeatures])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shuffled_loop_sees_every_video_once(features, kind, num_workers):
    path, rows = features
    data, seen = kind(path, "fc6"), {}
    assert len(data) == 50 and data[3][0] == "c/003"  # opened here, and not handed to the workers
    data.file = None
    for keys, batch in DataLoader(data, batch_size=8, shuffle=True, num_workers=num_workers):
        seen |= dict(zip(keys, batch.numpy(), strict=True))
    assert seen.keys() == rows.keys() and all(np.array_equal(seen[key], rows[key]) for key in rows)


def test_the_program_prints_the_same_of_both(features, capsys, monkeypatch):
    path, _ = features
    monkeypatch.setattr(sys, "argv", ["torch_dataset.py", str(path), "--layer", "fc6", "--workers", "0"])
    torch_dataset.main()
    ours, theirs = (
        [line.partition(": ")[2] for line in lines] for lines in np.array_split(capsys.readouterr().out.splitlines(), 2)
    )
    assert ours == theirs and ours[0].startswith("32 videos from c/000 on, rows (32, 6)")
