"""--on-corrupt: what fails, what is kept, and what is recorded of it."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_noise_video
from hostile_files import write_images

from featx import store
from featx.cli import cli
from featx.damage import Damage
from featx.dry_run import dry_run
from featx.errors import UsageError, VideoError
from featx.extractor import Extractor
from featx.run import extract_to
from featx.video import count_frames, read_frames


def cut(path):
    data = path.read_bytes()
    path.write_bytes(
        data[: len(data) * 6 // 10 | 1]
    )  # odd, since packets of a transport stream are even and end where it ends
    return path


def flipped(path):
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) * 2 // 3, len(data) * 9 // 10, 100):
        data[place] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    return path


def gap(folder):
    (folder / "003.png").write_bytes(b"not a picture")
    return folder


# name -> (how a whole video becomes a damaged one, what is said of it)
DAMAGES = {
    "cut.avi": (cut, "cut short: [0-9]+ bytes are missing at its end; .*only [0-9]+ of 60 frames are found"),
    "cut.mkv": (cut, "cut short: "),
    "cut.mpg": (cut, "cut short: "),
    "cut.ts": (cut, "cut short: "),
    "cut.flv": (cut, "cut short: "),
    "flipped.avi": (flipped, "damaged: .*marks frame [0-9]+ as corrupt"),
    "flipped.mp4": (flipped, ".*marks frame [0-9]+ as corrupt"),
    "images": (gap, "damaged: 003.png is neither JPEG nor PNG and left out"),
}
CODECS = {".mpg": "mpeg1video", ".ts": "mpeg2video", ".flv": "flv1"}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    for name, (damage, _) in DAMAGES.items():
        path = folder / name
        if name == "images":
            write_images(path, 5)
        else:
            write_noise_video(path, 60, size=(96, 128), codec=CODECS.get(path.suffix, "mpeg4"))
        whole = [frame.pixels.copy() for frame in read_frames(path)]
        np.save(folder / f".{name}.npy", whole)
        damage(path)
    return folder


@pytest.mark.parametrize("name", DAMAGES)
def test_fail_raises_and_keep_tells_the_same(damaged, name):
    with pytest.raises(VideoError, match="^(damaged|cut short): "):
        list(read_frames(damaged / name))
    damage = Damage("keep")
    frames = list(read_frames(damaged / name, damage=damage))
    whole = np.load(damaged / f".{name}.npy")
    assert 0 < len(frames) <= len(whole)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert count_frames(damaged / name, damage=Damage("keep")) == len(frames)
    assert np.array_equal(frames[0].pixels, whole[0])
    assert len(damage.text) < 400 and "\n" not in damage.text
    assert re.search(DAMAGES[name][1], damage.text), damage.text


def test_a_whole_video_is_the_same_under_both(tmp_path):
    path = write_noise_video(tmp_path / "a.mp4", 20)
    damage = Damage("keep")
    kept = list(read_frames(path, damage=damage))
    assert damage.text == ""
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(kept, read_frames(path), strict=True))


def test_what_does_not_decode_at_all_fails_under_both(tmp_path):
    path = write_noise_video(tmp_path / "a.avi", 20)
    data = path.read_bytes()
    start = data.index(b"movi") + 12
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with pytest.raises(VideoError, match="no frames"):
        list(read_frames(path, damage=Damage("keep")))


def test_an_unknown_policy_names_those_there_are():
    for make in (lambda: Damage("skip"), lambda: Extractor(on_corrupt="skip")):
        with pytest.raises(UsageError, match="on_corrupt is 'skip', but must be one of fail, keep"):
            make()
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="timeout_seconds is .*, but must be above 0"):
            Extractor(timeout_seconds=seconds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_noise_video(folder / "whole.mp4", 40)
    flipped(write_noise_video(folder / "flipped.avi", 60, seed=1))
    (folder / "empty.mp4").touch()
    return folder


def test_features_record_the_damage_and_later_runs_heed_it(folder, tmp_path):
    output = tmp_path / "f.h5"
    kept = extract_to(folder, output, on_corrupt="keep", save="both", stride=99)
    assert (kept.num_videos, list(kept.damaged), len(kept.failures), kept.exit_code) == (2, ["flipped"], 1, 1)
    with store.open_features(output) as features:
        assert features["whole"].damage == ""
        assert features["flipped"].damage == kept.damaged["flipped"].strip()
        assert features["flipped"].num_clips == len(features["flipped"].clip_table) > 0
        assert features.column("damage").tolist() == [features["flipped"].damage, ""]

    again = extract_to(folder, output, on_corrupt="keep", save="both", stride=99)
    assert (again.num_present, list(again.damaged_before), again.damaged) == (2, ["flipped"], {})
    strict = extract_to(folder / "flipped.avi", output, save="both", stride=99)
    assert (strict.num_present, strict.damaged_before, strict.exit_code) == (1, again.damaged_before, 1)
    kept_alone = extract_to(folder / "flipped.avi", output, on_corrupt="keep", save="both", stride=99)
    assert kept_alone.exit_code == 0

    redone = extract_to(folder, output, refresh=True, save="both", stride=99)
    assert [failure.key for failure in redone.failures] == ["flipped"]
    with store.open_features(output) as features:
        assert features.keys == ["whole"] and len(features.failures) == 2
    retried = extract_to(folder, output, on_corrupt="keep", retry_failed=True, save="both", stride=99)
    assert list(retried.damaged) == ["flipped"]


def test_whole_videos_have_the_same_numbers_under_both(folder, tmp_path):
    for policy in ("fail", "keep"):
        extract_to(folder, tmp_path / f"{policy}.h5", on_corrupt=policy, stride=99)
    with store.open_features(tmp_path / "fail.h5") as fail, store.open_features(tmp_path / "keep.h5") as keep:
        assert fail.provenance == keep.provenance
        assert np.array_equal(fail.rows(fail.layers[0], [0]), keep.rows(keep.layers[0], [keep.keys.index("whole")]))


def test_evenly_spread_clips_and_dry_runs_know_the_policy(folder, tmp_path):
    summary = extract_to(folder / "flipped.avi", tmp_path / "f.h5", num_clips=2, on_corrupt="keep")
    assert summary.num_clips == 2
    assert dry_run(folder, count=True).num_videos == 1
    assert dry_run(folder, count=True, on_corrupt="keep").num_videos == 2


def test_the_command_and_info_tell(folder, tmp_path):
    output = str(tmp_path / "f.h5")
    keep = ["extract", str(folder), "-o", output, "--stride", "99", "--on-corrupt", "keep"]
    result = CliRunner().invoke(cli, keep, standalone_mode=False)
    assert result.return_value == 1 and "damaged, kept: flipped: damaged: " in result.output
    assert "2 videos done" in result.output and "1 failures, 1 kept damaged" in result.output
    again = CliRunner().invoke(cli, [*keep[:6], "--json"], standalone_mode=False)
    summary = json.loads(again.stdout)
    assert summary["exit_code"] == 1 and list(summary["damaged_before"]) == ["flipped"]
    assert "kept though they are damaged, such as 'flipped' (--refresh redoes them, and they fail)" in again.output
    assert "damaged before, kept: flipped: damaged: " in again.output
    info = CliRunner().invoke(cli, ["info", output], standalone_mode=False).output
    assert "damaged   1 videos, kept as far as they decode" in info and "    flipped: damaged: " in info
    facts = json.loads(CliRunner().invoke(cli, ["info", output, "--json"], standalone_mode=False).output)
    assert list(facts["holds"]["damaged"]) == ["flipped"]


def test_a_file_without_the_column_holds_whole_videos(folder, tmp_path):
    extract_to(folder / "whole.mp4", tmp_path / "old.h5", stride=99)
    with h5py.File(tmp_path / "old.h5", "a") as h5:
        del h5["videos/damage"], h5["checksums/videos/damage"]
    store.verify(tmp_path / "old.h5")
    with store.open_features(tmp_path / "old.h5") as features:
        assert features["whole"].damage == "" and features.column("damage").tolist() == [""]
    extract_to(folder, tmp_path / "old.h5", on_corrupt="keep", stride=99)  # old and new parts are one set
    with store.open_features(tmp_path / "old.h5") as features:
        assert [bool(text) for text in features.column("damage")] == [True, False]
