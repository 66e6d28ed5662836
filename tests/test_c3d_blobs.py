"""c3d_blobs.py: the files against struct, there and back, and what is refused."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from conftest import write_noise_video
from feature_files import make_provenance, write_file
from test_cli import run

import featx
from featx.c3d_blobs import export_c3d, import_c3d
from featx.catalog import CHECKPOINTS, WEIGHTS_FOLDER
from featx.errors import FeatureFileError, ProvenanceError, UnknownNameError, UsageError
from featx.features import ClipTable, Features
from featx.store import write_features

# of one clip: (layer, suffix, (c, l, h, w)) by the nets' definitions
SHAPES = {
    "c3d-sports1m": [
        ("conv5b", "conv5b", (512, 2, 7, 7)),
        ("pool5", "pool5", (512, 1, 4, 4)),
        ("fc6", "fc6-1", (4096, 1, 1, 1)),
        ("fc7", "fc7-1", (4096, 1, 1, 1)),
        ("prob", "prob", (487, 1, 1, 1)),
    ],
    "c3d-ucf101": [("fc6", "fc6", (4096, 1, 1, 1)), ("prob", "prob", (101, 1, 1, 1))],
    "res3d-sports1m": [("res5b", "res5b", (512, 1, 7, 7)), ("pool5", "pool5", (512, 1, 1, 1))],
    "p3d199-sports1m": [
        ("res4b35", "res4b35", (1024, 2, 10, 10)),
        ("res5c", "res5c", (2048, 1, 5, 5)),
        ("pool5", "pool5", (2048, 1, 1, 1)),
    ],
}  # fmt: skip


def clip_file(path, backbone, keys=("v1",), starts=(0, 8, 24), layers=None, dtype=np.float32, seed=0):
    """A feature file with clip features of random numbers, as `featx extract --save both` would make it."""
    card = CHECKPOINTS[backbone]
    dims = {layer: card.layers[layer] for layer in layers or [card.default_layer]}
    rng = np.random.default_rng(seed)
    starts = np.array(starts)
    videos = [
        Features(
            key=key,
            path=f"{key}.avi",
            num_frames=99,
            num_clips=len(starts),
            fps=25.0,
            duration_seconds=4.0,
            descriptors={layer: np.ones(n, np.float32) for layer, n in dims.items()},
            clips={layer: rng.normal(size=(len(starts), n)).astype(dtype) for layer, n in dims.items()},
            clip_table=ClipTable(starts, starts + card.sampling.span, starts / 25, starts / 25),
        )
        for key in keys
    ]
    made = make_provenance(
        backbone=card.architecture,
        checkpoint=backbone,
        arguments=json.dumps(card.build_arguments),
        crop=card.preprocess.crop,
        layers=tuple(dims),
        length=card.sampling.length,
        save="both",
        dtype=np.dtype(dtype).name,
    )
    write_features(path, made, videos)
    return path


@pytest.mark.parametrize(("backbone", "layer", "suffix", "shape"), [(b, *row) for b in SHAPES for row in SHAPES[b]])
def test_a_file_is_five_ints_and_the_floats(tmp_path, backbone, layer, suffix, shape):
    source = clip_file(tmp_path / "f.h5", backbone, layers=[layer], starts=(0, 16))
    summary = export_c3d(source, tmp_path / "out")
    assert (summary.num_videos, summary.num_clips, summary.num_files) == (1, 2, 2)
    data = (tmp_path / f"out/v1/000016.{suffix}").read_bytes()
    assert struct.unpack_from("<5i", data) == (1, *shape)
    with featx.open(source) as features:
        values = features["v1"].clips[layer][1]
    assert data[20:] == struct.pack(f"<{values.size}f", *values)


def test_there_and_back_is_the_same_to_the_bit(capsys, tmp_path):
    (tmp_path / "in/dog").mkdir(parents=True)
    for name, num_frames in (("dog/v1.5.mp4", 40), ("cat.mp4", 20)):
        write_noise_video(tmp_path / "in" / name, num_frames)
    assert run(capsys, "extract", tmp_path / "in", "-o", tmp_path / "f.h5", "--save", "both",
               "--layer", "pool5", "--layer", "res5b")[0] == 0  # fmt: skip
    code, out, _ = run(capsys, "export", tmp_path / "f.h5", "--format", "c3d", "-o", tmp_path / "out")
    assert code == 0 and "10 files of 5 clips of 2 videos" in out
    prefixes = (tmp_path / "out/output_list_prefix.txt").read_text().splitlines()
    assert prefixes[0] == f"{tmp_path}/out/cat/000000" and len(prefixes) == 5
    assert len(list((tmp_path / "out/dog/v1.5").iterdir())) == 8
    code, out, _ = run(capsys, "import", tmp_path / "out", "-o", tmp_path / "back.h5", "--backbone", "res3d-mini")
    assert code == 0 and "2 videos, 5 clips, layers res5b, pool5" in out
    with featx.open(tmp_path / "f.h5") as ours, featx.open(tmp_path / "back.h5") as back:
        assert ours.keys == back.keys == ["cat", "dog/v1.5"] and ours.layers == back.layers
        for key in ours.keys:
            a, b = ours[key], back[key]
            for layer in ours.layers:
                assert np.array_equal(a.clips[layer], b.clips[layer])
                assert np.array_equal(a.descriptors[layer], b.descriptors[layer])
            assert np.array_equal(a.clip_table.start_frame, b.clip_table.start_frame)
            assert np.array_equal(a.clip_table.end_frame, b.clip_table.end_frame)
            assert b.num_frames == 0 and np.isnan([b.fps, b.duration_seconds, *b.clip_table.start_seconds]).all()
    code, out, _ = run(capsys, "info", tmp_path / "back.h5", "--videos")
    assert code == 0 and "cat: frames unknown, no frame rate, 1 clips" in out and "c3d-caffe" in out
    code, _, err = run(capsys, "extract", tmp_path / "in", "-o", tmp_path / "back.h5")
    assert code == 2 and "back.h5 was imported (c3d-caffe)" in err
    with pytest.raises(ProvenanceError, match="checkpoint_sha256"):
        featx.merge([tmp_path / "f.h5", tmp_path / "back.h5"], tmp_path / "both.h5")


def test_layers_are_chosen_and_float16_is_widened(tmp_path):
    source = clip_file(tmp_path / "f.h5", "c3d-sports1m", layers=["fc6", "fc7"], dtype=np.float16)
    assert export_c3d(source, tmp_path / "out", layers=["fc7"]).num_files == 3
    assert sorted(path.suffix for path in (tmp_path / "out/v1").iterdir()) == [".fc7-1"] * 3
    assert import_c3d(tmp_path / "out", tmp_path / "back.h5", "c3d-sports1m").layers == ("fc7",)
    with featx.open(source) as ours, featx.open(tmp_path / "back.h5") as back:
        assert np.array_equal(ours["v1"].clips["fc7"].astype(np.float32), back["v1"].clips["fc7"])
    with pytest.raises(UnknownNameError, match="unknown layer 'fc8'"):
        export_c3d(source, tmp_path / "more", layers=["fc8"])


def test_exports_that_cannot_be(tmp_path):
    source = clip_file(tmp_path / "f.h5", "c3d-sports1m")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UsageError, match="full exists and holds something"):
        export_c3d(source, tmp_path / "full")
    descriptors = write_file(tmp_path / "d.h5", {"fc6": {"a": np.ones(4096)}})
    with pytest.raises(UsageError, match="d.h5 holds no clip features, .*'--save clips'"):
        export_c3d(descriptors, tmp_path / "out")
    other = write_file(tmp_path / "o.h5", {"fc6": {"a": np.ones(8)}}, clips={"fc6": {"a": np.ones((2, 8), np.float32)}})
    with pytest.raises(UsageError, match="fc6 has 8 dimensions in .*o.h5, but 4096 in c3d;"):
        export_c3d(other, tmp_path / "out")
    for key in ("/tmp/a", "../a", "b/../../a"):
        with pytest.raises(UsageError, match="would lead out of the folder"):
            export_c3d(clip_file(tmp_path / "k.h5", "c3d-sports1m", keys=[key]), tmp_path / "out")
    featx.pca(clip_file(tmp_path / "m.h5", "c3d-sports1m", keys=["a", "b"]), tmp_path / "p.h5", dims=1)
    with pytest.raises(UsageError, match="has gone through PCA"):
        export_c3d(tmp_path / "p.h5", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def blobs(tmp_path):
    """A folder as the tool writes it: two videos, three clips each, fc6-1 and prob."""
    for video in ("a", "b"):
        (tmp_path / "blobs" / video).mkdir(parents=True)
        for start in (0, 8, 16):
            for layer, dims in (("fc6-1", 4096), ("prob", 487)):
                values = np.full(dims, start + 1, "<f4")
                (tmp_path / f"blobs/{video}/{start:06d}.{layer}").write_bytes(
                    struct.pack("<5i", 1, dims, 1, 1, 1) + values.tobytes()
                )
    (tmp_path / "blobs/list.txt").write_text("a list")
    return tmp_path / "blobs"


def test_files_without_the_suffix_of_the_data_are_the_same_layer(blobs, tmp_path):
    import_c3d(blobs, tmp_path / "one.h5", "c3d-sports1m")
    for path in blobs.glob("*/*.fc6-1"):
        path.rename(path.with_suffix(".fc6"))
    import_c3d(blobs, tmp_path / "two.h5", "c3d-sports1m")
    with featx.open(tmp_path / "one.h5") as one, featx.open(tmp_path / "two.h5") as two:
        assert one.layers == two.layers == ("fc6", "prob")
        assert np.array_equal(one["b"].clips["fc6"], two["b"].clips["fc6"])
        assert one["b"].clips["fc6"][:, 0].tolist() == [1, 9, 17]
        assert np.allclose(one["b"].descriptors["fc6"], 1 / 64)
        assert one["b"].clip_table.end_frame.tolist() == [16, 24, 32]
    (tmp_path / "one.h5").unlink()
    import_c3d(blobs / "a", tmp_path / "one.h5", "c3d-sports1m", layers="prob")  # one video's folder
    with featx.open(tmp_path / "one.h5") as one:
        assert one.keys == ["a"] and one.layers == ("prob",)


def broken(data, kind):
    return {
        "cut": data[:-4],
        "long": data + b"\0",
        "header": data[:10],
        "big-endian": struct.pack(">5i", 1, 4096, 1, 1, 1) + data[20:],
        "absurd": struct.pack("<5i", 1, 2**31 - 1, 2**31 - 1, 1, 1) + data[20:],
        "two clips": struct.pack("<5i", 2, 4096, 1, 1, 1) + data[20:] * 2,
        "other net": struct.pack("<5i", 1, 512, 1, 1, 1) + data[20 : 20 + 2048],
        "nan": data[:-4] + struct.pack("<f", np.nan),
        "inf": data[:-4] + struct.pack("<f", -np.inf),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "16400 bytes, but its header asks for 16404"),
        ("long", "16405 bytes, but its header asks for 16404"),
        ("header", "cut short: 10 bytes"),
        ("big-endian", r"its header .* is \(16777216, .*but must be \(1, 4096, 1, 1, 1\)"),
        ("absurd", "its header .* is"),
        ("two clips", r"its header .* is \(2, 4096"),
        ("other net", r"its header .* is \(1, 512"),
        ("nan", "not finite"),
        ("inf", "not finite"),
    ],
)
def test_damaged_files_are_refused_and_nothing_is_written(blobs, tmp_path, kind, reason):
    path = blobs / "b/000008.fc6-1"
    path.write_bytes(broken(path.read_bytes(), kind))
    with pytest.raises(FeatureFileError, match=rf"b/000008.fc6-1: .*{reason}"):
        import_c3d(blobs, tmp_path / "f.h5", "c3d-sports1m")
    assert [p.name for p in tmp_path.iterdir()] == ["blobs"]


def test_a_failed_import_leaves_what_was_there(blobs, tmp_path):
    output = tmp_path / "f.h5"
    import_c3d(blobs, output, "c3d-sports1m")
    before = output.read_bytes()
    with pytest.raises(UsageError, match="f.h5 exists"):
        import_c3d(blobs, output, "c3d-sports1m")
    (blobs / "b/000008.prob").write_bytes(b"")
    with pytest.raises(FeatureFileError):
        import_c3d(blobs, output, "c3d-sports1m", overwrite=True)
    assert output.read_bytes() == before
    import_c3d(blobs, output, "c3d-sports1m", layers=["fc6"], overwrite=True)
    with featx.open(output) as features:
        assert features.layers == ("fc6",) and len(features) == 2


def test_folders_that_are_not_understood(blobs, tmp_path):
    def refused(reason, error=UsageError, **options):
        with pytest.raises(error, match=reason):
            import_c3d(
                options.pop("folder", blobs), tmp_path / "f.h5", options.pop("backbone", "c3d-sports1m"), **options
            )

    refused("no such folder", folder=tmp_path / "absent")
    refused("unknown backbone 'c3d-sport'", UnknownNameError, backbone="c3d-sport")
    refused("unknown layer of c3d-sports1m: 'fc8'", UnknownNameError, layers=["fc8"])
    (tmp_path / "empty").mkdir()
    refused("no features of the C3D tool in .*000016 with .conv5b", folder=tmp_path / "empty")
    (blobs / "a/000000.fc8-1").write_bytes(b"")
    refused("unknown layer of c3d-sports1m in .*'fc8-1'.*--layer", UnknownNameError)
    import_c3d(blobs, tmp_path / "named.h5", "c3d-sports1m", layers=["fc6", "prob"])
    (blobs / "a/000000.fc8-1").unlink()
    (blobs / "a/000008.prob").rename(blobs / "a/clip8.prob")
    refused("clip8.prob: the name must be the number")
    (blobs / "a/clip8.prob").unlink()
    refused("the clip a/000008 has no file of prob")
    (blobs / "a/8.fc6").write_bytes((blobs / "a/000008.fc6-1").read_bytes())
    refused("000008.fc6-1 and .*8.fc6 are the same clip and layer")


def test_links_to_folders_are_followed_and_hidden_ones_are_not(blobs, tmp_path):
    (blobs / "b").rename(tmp_path / "elsewhere")
    (blobs / "b").symlink_to(tmp_path / "elsewhere")
    (blobs / "up").symlink_to(blobs)
    (blobs / ".trash").mkdir()
    (blobs / ".trash/000000.fc6-1").write_bytes(b"")
    import_c3d(blobs, tmp_path / "f.h5", "c3d-sports1m", layers="prob")
    with featx.open(tmp_path / "f.h5") as features:
        assert features.keys == ["a", "b"]
    (blobs / "c").symlink_to(blobs / "a")  # as videos, which then have two keys
    import_c3d(blobs, tmp_path / "g.h5", "c3d-sports1m", layers="prob")
    with featx.open(tmp_path / "g.h5") as features:
        assert features.keys == ["a", "b", "c"]


@pytest.mark.parametrize("start", ["9223372036854775807", "99999999999999999999", "9" * 200, str(2**31)])
def test_numbers_that_no_frame_has(start, blobs, tmp_path):
    (blobs / f"a/{start}.prob").touch()
    with pytest.raises(UsageError, match="the clip's first frame must be at most 2,147,483,647; correct the name"):
        import_c3d(blobs, tmp_path / "f.h5", "c3d-sports1m")


def test_a_pipe_among_them(blobs, tmp_path):
    (blobs / "b/000008.prob").unlink()
    os.mkfifo(blobs / "b/000008.prob")
    with pytest.raises(FeatureFileError, match=r"b/000008.prob: not a regular file"):
        import_c3d(blobs, tmp_path / "f.h5", "c3d-sports1m")


def test_the_first_frame_is_0_or_1(capsys, blobs, tmp_path):
    """The tool numbers the frames of a video file from 0, and the images of a folder from 1."""
    for path in [path for start in (16, 8, 0) for path in sorted(blobs.glob(f"b/{start:06d}.*"))]:
        path.rename(path.with_name(f"{int(path.stem) + 1:06d}{path.suffix}"))
    code, _, err = run(capsys, "import", blobs, "-o", tmp_path / "f.h5", "--backbone", "c3d-sports1m")
    assert code == 2 and "the first clip of b is numbered 1" in err and "--first-frame 1 or --first-frame 0" in err
    with pytest.raises(UsageError, match="a clip of a is numbered 0, but --first-frame is 1; import folders"):
        import_c3d(blobs, tmp_path / "f.h5", "c3d-sports1m", first_frame=1)
    with pytest.raises(UsageError, match="--first-frame is 2, but must be 0 or 1"):
        import_c3d(blobs, tmp_path / "f.h5", "c3d-sports1m", first_frame=2)
    for first_frame, starts in ((0, [1, 9, 17]), (1, [0, 8, 16])):
        args = (blobs / "b", "-o", tmp_path / f"{first_frame}.h5", "--backbone", "c3d-sports1m", "--layer", "prob")
        assert run(capsys, "import", *args, "--first-frame", first_frame)[0] == 0
        with featx.open(tmp_path / f"{first_frame}.h5") as features:
            table = features["b"].clip_table
            assert table.start_frame.tolist() == starts and table.end_frame.tolist() == [start + 16 for start in starts]
            assert features["b"].clips["prob"][:, 0].tolist() == [1, 9, 17]


def test_features_of_a_card_of_ones_own(capsys, tmp_path):
    """The feature file tells what its net is built like, so that export needs no card; import is told of one."""
    mini = json.loads((WEIGHTS_FOLDER / "res3d-mini.json").read_text())
    card = tmp_path / "mine.json"
    card.write_text(json.dumps(mini | {"name": "res3d-mine", "embedded": False}))
    (tmp_path / mini["file"]).symlink_to(WEIGHTS_FOLDER / mini["file"])
    write_noise_video(tmp_path / "v.mp4", 20)
    made, blobs, back = tmp_path / "f.h5", tmp_path / "out", tmp_path / "back.h5"
    assert run(capsys, "extract", tmp_path / "v.mp4", "-o", made, "--save", "both", "--card", card)[0] == 0
    assert run(capsys, "export", made, "--format", "c3d", "-o", blobs)[0] == 0
    assert run(capsys, "import", blobs, "-o", back, "--card", card)[0] == 0
    with featx.open(made) as ours, featx.open(back) as imported:
        assert np.array_equal(ours["v"].clips["pool5"], imported["v"].clips["pool5"])
    code, _, err = run(capsys, "import", blobs, "-o", tmp_path / "other.h5")
    assert code == 2 and "name the net that made the features with --backbone" in err
