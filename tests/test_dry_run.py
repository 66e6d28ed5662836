"""The bytes that a dry run tells, against the files that runs make; which videos are read."""

import itertools
import json

import numpy as np
import pytest
from conftest import write_noise_video
from feature_files import make_provenance
from test_cli import run

from featx.dry_run import dry_run
from featx.features import ClipTable, Failure, Features
from featx.run import extract_to
from featx.store import write_features
from featx.store.sizes import TOLERANCE, TOLERANCE_BYTES, FileSizes, row_bytes

KEPT = [
    {"save": save, "dtype": dtype, "bins": bins, "clip_times": clip_times, "num_layers": num_layers}
    for save, dtype, bins, num_layers in itertools.product(
        ("descriptors", "clips", "both"), ("float32", "float16"), (0, 3), (1, 3)
    )
    for clip_times in ((0, 1) if save == "descriptors" else (0,))
    if (dtype == "float16") == (num_layers == 3)
]


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: " ".join(map(str, kept.values())))
@pytest.mark.parametrize(("num_videos", "key_length"), [(1, 5), (200, 37)])
def test_sizes_are_those_of_written_files(tmp_path, kept, num_videos, key_length):
    """Over the whole of what may be kept, with rows made up."""
    layers, save, dims, num_clips = [f"layer{i}" for i in range(kept["num_layers"])], kept["save"], 12, 3
    provenance = make_provenance(layers=tuple(layers), **{n: kept[n] for n in ("save", "dtype", "bins", "clip_times")})
    table = ClipTable(*(np.zeros(num_clips, dtype) for dtype in ("i8", "i8", "f8", "f8")))

    def arrays(shape, dtype, wanted=True):
        return {layer: np.zeros(shape, dtype) for layer in layers} if wanted else {}

    videos = [
        Features(
            *(f"{i:05d}".ljust(key_length, "k"), "p" * key_length, 30, num_clips, 25.0, 1.2),
            descriptors=arrays(dims, "f4", save != "clips"),
            clips=arrays((num_clips, dims), kept["dtype"], save != "descriptors"),
            bins=arrays((kept["bins"], dims), kept["dtype"], kept["bins"]),
            clip_table=table if provenance.has_clip_table else None,
        )
        for i in range(num_videos)
    ]
    write_features(tmp_path / "f.h5", provenance, videos)
    sizes = FileSizes(len(layers) * dims, len(layers), save, kept["dtype"], kept["bins"], provenance.has_clip_table)
    told = sizes.fixed_bytes + sum(
        row_bytes("videos", (video.key, video.path)) + sizes.video_bytes + num_clips * sizes.clip_bytes
        for video in videos
    )
    assert told == pytest.approx((tmp_path / "f.h5").stat().st_size, rel=TOLERANCE, abs=TOLERANCE_BYTES)


OPTIONS = [
    {"aggregate": "bins", "bins": 7, "dtype": "float16", "save": "both", "layers": ["pool5", "res5b"], "num_clips": 2},
    {"clip_times": True, "content_hash": True},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of several lengths, under names of several lengths, one of which is none."""
    folder = tmp_path_factory.mktemp("v")
    for i, num_frames in enumerate((16, 25, 33, 17)):
        name = "ä" * 7 * i + f"{i}.avi"
        write_noise_video(folder / name, num_frames, seed=i)
    (folder / "broken.avi").write_bytes(b"no video")
    return folder


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(map(str, options.values())))
def test_the_bytes_told_are_those_of_the_file(folder, tmp_path, options):
    told = dry_run(folder, output=tmp_path / "f.h5", **options)
    made = extract_to(folder, tmp_path / "f.h5", **options)
    assert (told.num_videos, told.num_clips) == (made.num_videos, made.num_clips) == (4, made.num_clips)
    assert told.num_bytes == pytest.approx((tmp_path / "f.h5").stat().st_size, rel=TOLERANCE, abs=TOLERANCE_BYTES)


def test_a_clip_and_a_video_take_what_their_columns_do():
    both = FileSizes(100, 2, "both", "float16", 5, True)
    assert both.clip_bytes == 100 * 2 + 4 * 8 and both.video_bytes == 100 * 4 + 5 * 100 * 2
    plain = FileSizes(100, 2, "descriptors", "float16", 0, False)
    assert plain.clip_bytes == 0 and plain.video_bytes == 400
    assert row_bytes("videos", ("12345678", "é1")) == 9 * 8 + 5 * 32 + 8 + 8


def test_videos_that_would_fail_are_told(folder):
    (failure,) = dry_run(folder).failures
    assert isinstance(failure, Failure) and failure.key == "broken"


def test_videos_of_addresses_do_not_fail_and_are_in_no_sum(capsys, clips_folder, tmp_path):
    (tmp_path / "list.txt").write_text("s3://bucket/a.mp4\nhttps://host/b.mp4?token=00ff\n")
    listed = ("extract", "--list", tmp_path / "list.txt", "--allow-urls", "--dry-run")
    code, out, err = run(capsys, *listed, clips_folder / "dog/000.mp4")
    assert code == 0 and err == "" and "1 videos, " in out
    assert "2 videos of addresses are not among them: nothing is fetched" in out
    code, out, _ = run(capsys, *listed, "--json", "--shard", "1/1")
    told = json.loads(out)
    assert code == 0 and (told["num_addresses"], told["failures"], told["num_videos"]) == (2, [], 0)
    code, out, err = run(capsys, *listed, "--estimate")
    assert code == 2 and "such as s3://bucket/a.mp4, and nothing is fetched to estimate; name files" in err
