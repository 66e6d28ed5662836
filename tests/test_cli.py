"""The command line: its results equal the API's, its mistakes cost one line and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest

import featx
from featx.cli import COMMANDS, SUMMARIES, main


def run(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err


def test_extract_equals_the_api(capsys, clips_folder, tmp_path):
    output = tmp_path / "f.h5"
    code, out, _ = run(
        capsys, "extract", clips_folder, "-o", output, "--layer", "pool5", "--layer", "res5b", "--stride", 4
    )
    assert code == 0
    assert out.splitlines()[0].startswith("backbone res3d-mini, the small embedded checkpoint")
    assert "3 videos done, 11 clips" in out and "0 failures" in out
    with featx.open(output) as features:
        assert features.keys == ["cat/000", "dog/000", "dog/001"]
        alone = featx.extract(clips_folder / "cat/000.mkv", layers=["pool5", "res5b"], stride=4)
        for layer in ("pool5", "res5b"):
            assert np.array_equal(features["cat/000"].descriptors[layer], alone.descriptors[layer])
    code, out, _ = run(
        capsys, "extract", clips_folder, "-o", output, "--layer", "pool5", "--layer", "res5b", "--stride", 4
    )
    assert code == 0 and "holds 3 of 3 videos" in out and "nothing to do; 3 videos present" in out


def test_failures_are_listed_and_give_exit_code_1(capsys, clips_folder, tmp_path):
    shutil.copy(clips_folder / "dog/001.avi", tmp_path / "good.avi")
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    code, out, err = run(capsys, "extract", tmp_path, "-o", tmp_path / "f.h5", "--quiet")
    assert (code, out) == (1, "")
    assert f"failed: bad ({tmp_path / 'bad.mp4'}): cannot be opened: not a video" in err
    code, out, err = run(capsys, "extract", tmp_path, "-o", tmp_path / "f.h5")
    assert code == 1 and "1 failed before (--retry-failed tries them again)" in out
    code, out, _ = run(capsys, "info", tmp_path / "f.h5")
    assert code == 0 and "bad" in out and "pool5" in out and "res3d-mini" in out
    with featx.open(tmp_path / "f.h5") as features:
        seconds = features.column("duration_seconds")[0]
    assert f" frames, {seconds:.1f} s\n" in out and "variant" not in out  # which a Res3D has none of


def test_json_summary(capsys, clips_folder, tmp_path):
    code, out, _ = run(capsys, "extract", clips_folder / "dog", "-o", tmp_path / "f.h5", "--json")
    summary = json.loads(out)
    assert code == 0 and (summary["num_videos"], summary["num_clips"], summary["exit_code"]) == (2, 5, 0)
    _, out, _ = run(capsys, "info", tmp_path / "f.h5", "--json")
    info = json.loads(out)
    assert info["holds"]["videos"] == 2 and info["made"]["stride"] == 8


def test_list_and_dry_run(capsys, clips_folder, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{clips_folder}/{n}\n" for n in ("dog/000.mp4", "cat/000.mkv")))
    for more, words in [((), "an estimate from the headers"), (("--count",), "counted by decoding")]:
        code, out, _ = run(capsys, "extract", "--list", tmp_path / "list.txt", "--dry-run", *more)
        assert code == 0 and words in out and "dog/000: 40 frames, 4 clips" in out and "6 clips" in out
    assert [p.name for p in tmp_path.iterdir()] == ["list.txt"]


def test_merge(capsys, clips_folder, tmp_path):
    for name in ("000.mp4", "001.avi"):
        run(capsys, "extract", clips_folder / "dog" / name, "-o", tmp_path / f"{name}.h5", "--quiet")
    code, out, _ = run(capsys, "merge", tmp_path / "000.mp4.h5", tmp_path / "001.avi.h5", "-o", tmp_path / "all.h5")
    assert code == 0 and "2 videos" in out
    with featx.open(tmp_path / "all.h5") as features:
        assert features.keys == ["000", "001"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["extarct"], "unknown command 'extarct'; did you mean 'extract'"),
        (["extract"], "name video files or folders"),
        (["extract", "{clips}"], "-o"),
        (["extract", "absent.mp4", "-o", "{tmp}/f.h5"], "no such file or folder: absent.mp4"),
        (["extract", "{tmp}", "-o", "{tmp}/f.h5"], "no videos in"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--backbone", "cd3"], "did you mean 'c3d-sports1m'"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--backbone", "c3d"], "c3d-sports1m"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--backbone", "c3d-sports1m"], "--weights FILE"),
        (
            ["extract", "{clips}", "-o", "{tmp}/f.h5", "--weights", "{clips}/notes.txt"],
            "which is no form of weights",
        ),
        (
            ["extract", "{clips}", "-o", "{tmp}/f.h5", "--card", "{tmp}/my.json"],
            "my.json' cannot be read (No such file",
        ),
        (
            ["extract", "{clips}", "-o", "{tmp}/f.h5", "--card", "my.json", "--backbone", "c3d-sports1m"],
            "both --card my.json and --backbone c3d-sports1m are given; leave one of them out",
        ),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--layer", "fc6"], "unknown layer of res3d-mini"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--device", "cuda:7"], "'cuda:7' was asked for"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--length", "0"], "length is 0"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--clips", "3", "--stride", "2"], "both num_clips 3 and stride 2"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--tail", "loop"], "'loop' is not one of 'drop', 'pad'"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--count"], "--count is given without --dry-run"),
        (["extract", "{clips}", "-o", "{tmp}"], "is a folder"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--engine", "fast"], "'fast' is not one of 'auto', 'winograd'"),
        (["extract", "{clips}", "-o", "{tmp}/f.h5", "--threads", "0"], "0 is not in the range 1<=x<=1024"),
        (["info"], "name a feature file, or give --engine"),
        (["info", "{clips}/notes.txt", "--engine"], "name a feature file, or give --engine"),
        (["info", "{clips}/notes.txt"], "not an HDF5 file"),
        (["info", "{tmp}/absent.h5"], "no such file"),
        (["merge", "{tmp}/absent.h5", "-o", "{tmp}/f.h5"], "no such file"),
    ],
)
def test_mistakes_cost_one_line(capsys, clips_folder, tmp_path, args, words):
    code, _, err = run(capsys, *(arg.format(clips=clips_folder, tmp=tmp_path) for arg in args))
    assert code == 2
    assert words in err.splitlines()[-1] and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_text_can_be_told(capsys, tmp_path):
    for folder in (b"a", b"b"):
        (tmp_path / os.fsdecode(folder)).mkdir()
        (tmp_path / os.fsdecode(folder) / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"nothing")
    code, _, err = run(capsys, "extract", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "f.h5")
    assert code == 2 and "two videos have the key 'caf%E9'" in err
    code, _, err = run(capsys, "extract", tmp_path / "a", "--dry-run")
    assert code == 1 and "would fail: caf%E9" in err
    code, _, err = run(capsys, "extract", tmp_path / "a", "-o", tmp_path / "f.h5")
    assert code == 1 and "failed: caf%E9" in err


def test_leftovers_of_a_dead_run_are_removed_and_those_of_others_kept(capsys, clips_folder, tmp_path):
    for name in (".f.h5.123.tmp", ".f.h5.x.h5.123.tmp"):
        (tmp_path / name).touch()
    assert run(capsys, "extract", clips_folder / "dog/001.avi", "-o", tmp_path / "f.h5")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".f.h5.x.h5.123.tmp", "f.h5"]


def test_every_command_has_a_summary_and_a_help_with_an_example(capsys):
    assert COMMANDS.keys() == SUMMARIES.keys()
    for name in COMMANDS:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0 and f"featx {name}" in out.split("Example", 1)[1]


def test_help_imports_nothing_heavy():
    code = (
        "import sys, featx.cli\ntry: featx.cli.main(['--help'])\n"
        "except SystemExit: print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize("given", [None, "active"])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(given):
    code = "import os, featx.cli\ntry: featx.cli.main(['--version'])\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout
    assert output.splitlines()[-1] == (given or "passive")


def test_the_engines_of_the_command_line_are_those_that_there_are():
    from featx.cli.clip_options import DEVICE_OPTIONS
    from featx.engine import ENGINES, GPU_ENGINES
    from featx.engine.precision import PRECISIONS

    command = click.Command("any")
    for option in DEVICE_OPTIONS:
        option(command)
    choices = {option.name: getattr(option.type, "choices", None) for option in command.params}
    assert tuple(choices["engine"]) == ("auto", *ENGINES, *GPU_ENGINES)
    assert tuple(choices["precision"]) == PRECISIONS


def test_version(capsys):
    assert run(capsys, "--version")[1] == f"featx, version {featx.__version__}\n"
