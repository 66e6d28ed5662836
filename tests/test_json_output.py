"""--json: every command that tells something tells it as one JSON object on stdout, of a shape that stays."""

from __future__ import annotations

import importlib.util
import json

import click
import numpy as np
import pytest
import torch
from feature_files import write_file
from small_weights import cards, trained_state  # noqa: F401 - a fixture

import featx
from featx.cli import COMMANDS, cli, main
from featx.cli.json_output import print_json
from featx.cli.weights import command as weights

DRAWN = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="draws a picture")
RECORD = {"card", "file", "sha256", "origin", "mean", "version", "path", "findings"}

# a command line in the folder of `place`, and the names of what it prints
SHAPES = {
    "merge one.h5 -o m.h5": "output num_videos",
    "pca one.h5 -o c.h5 --dims 2": "output num_videos num_clips layers",
    "export clips.h5 --format c3d -o blobs": "folder num_videos num_clips num_files prefix_list",
    "export clips.h5 --format npz -o m.npz": "output format layer unit num_videos num_rows num_dims",
    "import m.npy --keys keys.txt -o i.h5": "output num_videos num_dims num_zero layer num_clips averaged",
    "report one.h5 -o r.html --no-thumbnails": (
        "output num_videos num_classes num_failures num_thumbnails num_bytes layers notes"
    ),
    "embed one.h5 -o e.png --method pca": (
        "output num_points checkpoint layer unit method seed num_rows classes notes"
    ),
    "filters res3d-mini -o f.png": "output name layer num_filters shape",
    "svm-fit one.h5 --labels folders -o model.h5": ("output classes num_train trained_on C solver num_dims pca notes"),
    "svm-predict one.h5 --model kept.h5": "output model videos",
    "svm-predict one.h5 --model kept.h5 -o labels.csv": "output model videos",
    "search one.h5 --query run/0 -k 2": None,
    "info one.h5": "made holds",
    "check one.h5": "good videos files problems",
    "weights show c3d-sports1m": None,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    rows = {f"{name}/{i}": np.eye(6)[i] + (name == "run") for name in ("jump", "run") for i in range(6)}
    rows = {key: row / np.linalg.norm(row) for key, row in rows.items()}
    write_file(place / "one.h5", {"fc6": rows})
    write_file(place / "clips.h5", {"fc6": {"a": np.ones(4096)}}, clips={"fc6": {"a": np.ones((2, 4096), np.float32)}})
    np.save(place / "m.npy", np.eye(3, dtype=np.float32))
    (place / "keys.txt").write_text("a\nb\nc\n")
    featx.svm_fit(place / "one.h5", place / "kept.h5", labels="folders")
    return place


@pytest.fixture
def place(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def run(capsys, line: str) -> tuple[int, dict, str]:
    with pytest.raises(SystemExit) as exit:
        main(line.split())
    captured = capsys.readouterr()
    return exit.value.code, json.loads(captured.out, parse_constant=pytest.fail), captured.err


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=DRAWN if line.split()[0] in ("embed", "filters") else ()) for line in SHAPES]
)
def test_a_command_prints_one_object_and_nothing_else(capsys, place, line):
    code, facts, err = run(capsys, line + " --json")
    assert (code, err) == (0, "")
    assert isinstance(facts, dict) and (SHAPES[line] is None or list(facts) == SHAPES[line].split())


def test_every_command_has_json():
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in COMMANDS if name != "weights"] + list(
        weights.commands.values()
    )
    for command in commands:
        if command.name != "completion":  # a script
            assert any("--json" in param.opts for param in command.params), command.name


def test_predictions_are_those_of_the_api(capsys, place):
    _, facts, _ = run(capsys, "svm-predict one.h5 --model kept.h5 --top 2 --json")
    predictions = featx.svm_predict("one.h5", "kept.h5", top=2)
    assert [video["key"] for video in facts["videos"]] == [each.key for each in predictions]
    assert [[c["score"] for c in video["classes"]] for video in facts["videos"]] == [
        list(p.scores) for p in predictions
    ]


def test_a_dash_stands_for_stdout_where_json_takes_a_file(capsys, place):
    _, facts, err = run(capsys, "svm-eval one.h5 --dataset folders --folds 2 --seed 3 --json - --quiet")
    assert err == "" and facts == json.loads(json.dumps(featx.svm_eval("one.h5", "folders", folds=2, seed=3).as_dict()))
    _, facts, _ = run(capsys, "svm-eval one.h5 one.h5:fc6 --dataset folders --folds 2 --json - --quiet")
    assert len(facts["results"]) == 2
    pairs = "".join(f"run/{i},run/{i + 1},1,{f}\njump/{i},run/{i},0,{f}\n" for f, i in ((1, 0), (1, 2), (2, 3), (2, 4)))
    (place / "pairs.csv").write_text(pairs)
    _, facts, _ = run(capsys, "similarity one.h5 pairs.csv --json - --quiet")
    assert facts["accuracy"] == featx.similarity("one.h5", "pairs.csv").accuracy
    assert not (place / "-").exists()


@pytest.mark.parametrize(
    "line",
    [
        "search one.h5 --query run/0 -k 2",
        "search one.h5 --duplicates --threshold 0.1",
        "svm-eval one.h5 --dataset folders --folds 2 --quiet",
        pytest.param("embed one.h5 -o a.png --method pca", marks=DRAWN),
    ],
)
def test_a_dash_stands_for_stdout_where_a_table_takes_a_file(capsys, place, line):
    for name in ("-", "table.csv"):
        (place / "table.csv").unlink(missing_ok=True)
        with pytest.raises(SystemExit) as exit:
            main(f"{line} --csv {name}".split())
        captured = capsys.readouterr()
        assert (exit.value.code, captured.err) == (0, "")
        if name == "-":
            printed = captured.out
    assert printed == (place / "table.csv").read_text() and printed.count("\n") > 2 and not (place / "-").exists()


def test_info_tells_of_each_video_on_request(capsys, place):
    _, facts, _ = run(capsys, "info one.h5 --json --videos")
    assert [video["key"] for video in facts["videos"]] == sorted(
        f"{name}/{i}" for name in ("jump", "run") for i in range(6)
    )
    with featx.open("one.h5") as features:
        for name in ("num_frames", "num_clips", "label"):
            assert [video[name] for video in facts["videos"]] == features.column(name).tolist()


def test_weights_that_are_added_and_shown(capsys, cards, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("FEATX_HOME", str(tmp_path / "home"))
    card = "p3d199-small"
    _, facts, _ = run(capsys, f"weights show {card} --json")
    assert facts["stored"] is facts["path"] is None and facts["layers"] == cards[card].layers
    assert facts["sampling"]["length"] == 16 and facts["preprocess"]["crop"] == 160
    torch.save(trained_state(cards[card]), tmp_path / "w.pth")
    code, facts, err = run(capsys, f"weights add {card} {tmp_path / 'w.pth'} --json")
    assert (code, err) == (0, "") and facts.keys() == RECORD and facts["card"] == card
    code, facts, err = run(capsys, f"weights get {card} --json --quiet")
    assert (code, err) == (0, "") and facts.keys() == RECORD | {"fetched"} and facts["fetched"] is False
    _, facts, _ = run(capsys, f"weights show {card} --json")
    assert facts["path"].endswith(".safetensors") and facts["stored"]["origin"]["file"] == "w.pth"


def test_numbers_that_json_has_not_are_null(capsys):
    print_json({"fps": float("nan"), "all": (float("inf"), 1.5)}, more=None)
    assert json.loads(capsys.readouterr().out) == {"fps": None, "all": [None, 1.5], "more": None}
