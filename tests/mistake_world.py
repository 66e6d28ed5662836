"""A folder such as a user has, for the mistakes that can be made in it: videos, feature files, lists, cards, weights."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import torch
from conftest import write_noise_video
from feature_files import write_file

import featx
from featx.evaluation import svm_fit

__all__ = ["build", "snapshot"]

KEYS = [f"{name}/{number}" for name in ("jump", "run") for number in range(6)]
D = 8


class _Thing:
    """What no file of weights holds."""


def build(folder: Path) -> None:
    """Fill an empty folder."""
    _videos_and_lists(folder)
    _feature_files(folder)
    _tables(folder)
    _weights(folder)
    (folder / "old.html").write_text("<p>a page of the user's\n")
    (folder / "notes.txt").write_text("a text that is nothing else\n")
    (folder / "thesis.pdf").write_text("%PDF-1.4\n% a work of years\n")
    for name in ("pipe.png", "pipe.h5", "pipe.html"):
        os.mkfifo(folder / name)
    (folder / "folder").mkdir()
    (folder / "none").mkdir()


def snapshot(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Path -> (size, time) of every file below a folder, None for a folder; hidden ones too."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        for path in folder.rglob("*")
    }


def _videos_and_lists(folder: Path) -> None:
    write_noise_video(folder / "clip.avi", 20)
    (folder / "videos").mkdir()
    (folder / "videos/clip.mp4").write_bytes((folder / "clip.avi").read_bytes())
    (folder / "broken.mp4").write_text("nothing of a video")
    (folder / "empty.avi").touch()
    (folder / "empty.txt").touch()
    (folder / "list.txt").write_text("clip.avi\nabsent.avi\n")
    (folder / "address.txt").write_text("s3://bucket/a.mp4\n")
    (folder / "c3d_list.txt").write_text("clip.avi first 0\n")


def _write(path: Path, layers: dict, **more) -> Path:
    return write_file(path, layers, engine="torch-cpu", **more)


def _rows(keys: list[str], num_dims: int = D, seed: int = 0) -> dict[str, np.ndarray]:
    """What a layer behind a ReLU gives: no entry below 0."""
    vectors = np.abs(np.random.default_rng(seed).standard_normal((len(keys), num_dims))).astype(np.float32)
    return dict(zip(keys, vectors, strict=True))


def _feature_files(folder: Path) -> None:
    one = _write(folder / "one.h5", {"fc6": _rows(KEYS)})
    _write(folder / "two.h5", {"fc6": _rows(KEYS), "fc7": _rows(KEYS)})
    _write(folder / "more.h5", {"fc6": _rows(["swim/0", "swim/1"])})
    _write(folder / "negative.h5", {"fc6": {key: -row for key, row in _rows(KEYS).items()}})
    _write(folder / "failed.h5", {"fc6": {}}, failures=[("run/9", "not a video")])
    _write(folder / "strided.h5", {"fc6": _rows(["swim/2"])}, stride=4)
    write_file(
        folder / "res3d.h5",
        {"pool5": _rows(["swim/30"])},
        backbone="res3d",
        checkpoint="res3d-sports1m",
        checkpoint_sha256="cd" * 32,
        arguments="{}",
        length=8,
        crop=112,
        mean=(4.0, 5.0, 6.0),
    )
    for name, shard, key in (
        ("first", "1/3", "a"),
        ("first_again", "1/3", "b"),
        ("second", "2/3", "c"),
        ("half", "1/2", "d"),
    ):
        _write(folder / f"{name}.h5", {"fc6": _rows([key])}, shard=shard)
    clips = {"fc6": {"jump/0": np.ones((2, 4096), np.float32)}}  # as many as the layer has: it can be exported
    _write(folder / "clips.h5", {"fc6": _rows(["jump/0"], 4096)}, clips=clips)
    np.save(folder / "one_row.npy", np.ones((1, D), np.float32))
    (folder / "one_key.txt").write_text("run/0\n")
    featx.import_matrix(folder / "one_row.npy", folder / "imported.h5", "npy", keys=folder / "one_key.txt")
    with h5py.File(folder / "strange.h5", "w") as h5:
        h5["temperature"] = np.ones(3)
    featx.pca(one, folder / "compact.h5", dims=3)
    svm_fit(one, folder / "model.h5", labels="folders")
    content = bytearray(one.read_bytes())
    (folder / "cut.h5").write_bytes(content[: len(content) // 2])
    row = np.float32(_rows(KEYS)["run/3"]).tobytes()
    place = content.find(row)
    assert place > 0
    content[place] ^= 1
    (folder / "damaged.h5").write_bytes(content)


def _tables(folder: Path) -> None:
    (folder / "labels.csv").write_text("key,label\n" + "".join(f"{key},{key.split('/')[0]}\n" for key in KEYS))
    segments = "path,start_seconds,end_seconds\nclip.avi,0,0.5\n"
    (folder / "segments.csv").write_text(segments)
    (folder / "backwards.csv").write_text(segments + "clip.avi,2,1\n")
    (folder / "twice_segments.csv").write_text(segments + "clip.avi,0.0,0.50\n")
    (folder / "one_class.csv").write_text("".join(f"{key},jump\n" for key in KEYS))
    (folder / "twice.csv").write_text("run/1,jump\nrun/1,run\n")
    (folder / "strangers.csv").write_text("fly/8,fly\nsing/9,sing\n")
    (folder / "pairs.csv").write_text(
        "first,second,same,fold\nrun/0,run/1,1,1\njump/0,run/1,0,1\nrun/2,fly/9,1,2\nrun/2,jump/3,0,2\n"
    )
    (folder / "few_pairs.csv").write_text("run/0,run/1,1,1\njump/0,run/1,0,1\nrun/2,run/3,1,2\nrun/2,jump/3,0,2\n")
    (folder / "train.txt").write_text("run/0\nfly/9\n")
    (folder / "splits").mkdir()
    (folder / "splits/readme.txt").write_text("no list of a data set\n")
    matrix = np.stack(list(_rows(KEYS).values()))
    np.save(folder / "matrix.npy", matrix)
    np.save(folder / "cube.npy", np.zeros((3, 4, 5, 6)))
    np.savez(folder / "matrix.npz", features=matrix)
    holes = matrix.copy()
    holes[2, 3] = np.nan
    np.save(folder / "holes.npy", holes)
    (folder / "keys.txt").write_text("".join(f"{key}\n" for key in KEYS))
    (folder / "few_keys.txt").write_text("run/0\n")
    (folder / "same_keys.txt").write_text("run/0\n" * len(KEYS))
    (folder / "classes.txt").write_text("clip.avi 3\n")
    (folder / "high_class.txt").write_text("clip.avi 4711\n")


def _weights(folder: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3)}, folder / "other.pth")
    (folder / "thing.pth").write_bytes(pickle.dumps(_Thing()))
    torch.save({"model": _Thing()}, folder / "thing.pt")
    (folder / "no.json").write_text("name: mine\n")
    (folder / "list.json").write_text("[1, 2]\n")
    (folder / "half.json").write_text(json.dumps({"name": "mine"}))
