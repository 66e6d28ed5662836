"""Bad input costs one video: a folder of everything that a folder may hold, through the real command."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hostile_files import BAD, GOOD, copy_good, write_folder

from featx import store
from featx.plan import key_of
from featx.run import extract_to

OPTIONS = ["--stride", "400"]  # one of them comes to some thousand frames before it is found out


def key(name: bytes, is_folder: bool) -> str:
    return key_of(os.fsdecode(name), keep_suffix=is_folder)


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """(folder, output, the finished process) of one run over all of it."""
    folder, output = tmp_path_factory.mktemp("hostile") / "videos", tmp_path_factory.mktemp("out") / "features.h5"
    write_folder(folder)
    arguments = [sys.executable, "-m", "featx", "extract", str(folder), "-o", str(output), "--timeout", "20", *OPTIONS]
    return folder, output, subprocess.run(arguments, capture_output=True, timeout=300, check=False)


def test_the_run_ends_with_1_and_without_a_traceback(hostile_run):
    _, _, process = hostile_run
    assert process.returncode == 1, process.stderr.decode()
    assert b"Traceback" not in process.stderr and b"Traceback" not in process.stdout


def test_every_bad_one_is_a_line_with_its_reason(hostile_run):
    folder, output, process = hostile_run
    lines = [line for line in process.stderr.decode().splitlines() if line.startswith("failed: ")]
    assert len(lines) == len(BAD)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", process.stderr.decode().replace("\r", ""))
    with store.open_features(output) as features:
        reasons = {failure.key: failure.reason for failure in features.failures}
    assert set(reasons) == {key(name, (folder / os.fsdecode(name)).is_dir()) for name in BAD}
    for name, (_, pattern) in BAD.items():
        reason = reasons[key(name, (folder / os.fsdecode(name)).is_dir())]
        assert re.search(pattern, reason) and "\n" not in reason, (name, reason)
        assert sum(line.endswith(f": {reason}") for line in lines) >= 1, name


def test_every_good_one_has_the_features_of_a_run_without_the_bad(hostile_run, tmp_path):
    folder, output, _ = hostile_run
    copy_good(folder, tmp_path / "good")
    extract_to(tmp_path / "good", tmp_path / "good.h5", stride=400)
    with store.open_features(output) as features, store.open_features(tmp_path / "good.h5") as clean:
        assert features.keys == clean.keys
        assert sorted(features.keys) == sorted(key(name, (folder / os.fsdecode(name)).is_dir()) for name in GOOD)
        for name, (_, num_frames) in GOOD.items():
            video = key(name, (folder / os.fsdecode(name)).is_dir())
            assert features[video].num_frames == num_frames, name
        for layer in features.layers:
            assert np.array_equal(features.descriptors(layer), clean.descriptors(layer))


def test_the_same_command_finds_all_of_them_again(hostile_run):
    """Names of any bytes are stored in a way in which they are matched."""
    folder, output, _ = hostile_run
    summary = extract_to(folder, output, stride=400)
    assert (summary.num_present, len(summary.failed_before), summary.num_videos) == (len(GOOD), len(BAD), 0)


def test_info_and_a_list_take_such_names_too(hostile_run, tmp_path):
    folder, output, _ = hostile_run
    arguments = [sys.executable, "-m", "featx", "info", str(output), "--videos"]
    text = subprocess.run(arguments, capture_output=True, check=True).stdout.decode()
    assert r"new\nline: 5 frames" in text and "caf%E9: 5 frames" in text and r"\x1b[31mred: 5 frames" in text
    names = [name for name in GOOD if b"\n" not in name]
    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(folder) + b"/" + name for name in names))
    summary = extract_to([], output, lists=[tmp_path / "list.txt"], stride=400)
    assert summary.num_present == len(names) and summary.exit_code == 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users")
def test_a_file_without_permission_is_a_line(hostile_run, tmp_path):
    folder, _, _ = hostile_run
    (tmp_path / "videos").mkdir()
    for name in ("with space.mp4", "one_frame.mp4"):
        (tmp_path / "videos" / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "videos/with space.mp4").chmod(0)
    command = [sys.executable, "-m", "featx", "extract", str(tmp_path / "videos"), "-o", str(tmp_path / "f.h5")]
    if os.geteuid() == 0:  # for whom permissions mean nothing, unless that right is laid down
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
        try:
            subprocess.run([*drop, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("root reads every file, and setpriv is not here to change that")
        command = [*drop, *command]
    process = subprocess.run(command, capture_output=True, check=False)
    assert process.returncode == 1
    assert b"with space.mp4): cannot be read: Permission denied" in process.stderr
