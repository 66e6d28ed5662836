"""One command a table of the papers, on the stand-ins."""

import shlex
from pathlib import Path

import pytest
from data_set_stand_ins import STAND_INS, rows_of, set_small_counts
from feature_files import write_file

from featx.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """As of the example videos."""
    keys = [f"{video.parent.name}/{video.stem}" for video in sorted((ROOT / "examples/videos").glob("*/*.mp4"))]
    classes = sorted({key.split("/")[0] for key in keys})
    rows = rows_of({key: classes.index(key.split("/")[0]) for key in keys}, 3)
    path = tmp_path_factory.mktemp("examples") / "features.h5"
    return write_file(path, {"pool5": {key: row[0] for key, row in rows.items()}}, checkpoint="res3d-mini")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("svm-eval features.h5 --dataset scenes", ["leave one out", "(79 train, 80 test)"]),
        (
            "svm-eval features.h5 --dataset csv --splits folds.csv --metric top-3 --metric map",
            ["fold 3", "top-3", "map"],
        ),
        (
            "svm-eval activitynet.h5 --dataset activitynet --splits activity_net.v1-3.min.json --allow-missing",
            ["75.12 %   top-3 87.71 %   map 78.86 %", "1 of 27 listed videos are not in"],
        ),
        ("svm-eval objects.h5 --dataset objects --splits egocentric", ["clips without a label", "12 train, 6 test"]),
        (
            "similarity aslan.h5 View2.mat --json aslan.json",
            ["6000 pairs in 10 folds; 24 numbers a pair", "(standard error)"],
        ),
    ],
)
def test_commands_run_on_the_stand_ins(tmp_path, monkeypatch, capsys, features, command, words):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "features.h5").symlink_to(features)
    for name, make in STAND_INS.items():
        if name in command:
            make(tmp_path)
    monkeypatch.chdir(tmp_path)
    set_small_counts(monkeypatch)
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(command))
    out, err = capsys.readouterr()
    assert exit_.value.code == 0, err
    for word in words:
        assert word in out
