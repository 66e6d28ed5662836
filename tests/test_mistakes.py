"""Whatever a user gets wrong costs one line, which names value, rule and remedy, and writes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mistake_world import build, snapshot
from mistakes import FAILURES, MISTAKES

from featx.cli import COMMANDS, main
from featx.cli.weights import command as weights

ROWS = [
    (f"{name} {row[0]}" if name != "featx" else row[0], *row[1:]) for name, rows in MISTAKES.items() for row in rows
]
MIN_ROWS = 3  # of a command


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build(folder)
    return folder


@pytest.fixture
def world(made, monkeypatch) -> Iterator[Path]:
    """The folder, as the current one of a machine without GPU and without stored weights; it must stay as it is."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("FEATX_HOME", str(made / "home"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = snapshot(made)
    yield made
    assert snapshot(made) == before


def told(capsys, line: str) -> tuple[int, str]:
    """The exit code of a command line, and the one line that it tells."""
    with pytest.raises(SystemExit) as exit:
        main(shlex.split(line))
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.endswith("\n"), error
    return exit.value.code, error


@pytest.mark.parametrize(("line", "value", "rule", "remedy"), ROWS, ids=[row[0].strip() for row in ROWS])
def test_a_mistake_costs_one_line_that_names_value_rule_and_remedy(capsys, world, line, value, rule, remedy):
    if line.split()[0] in ("embed", "filters"):
        pytest.importorskip("matplotlib", reason="draws a picture")
    code, error = told(capsys, line)
    assert code == 2
    assert error.startswith("featx: error: ") and "Traceback" not in error
    for words in (value, rule, remedy):
        assert words in error


@pytest.mark.parametrize(("line", "video", "reason"), FAILURES, ids=[row[0] for row in FAILURES])
def test_a_video_that_fails_costs_one_line_that_names_it_and_the_reason(capsys, world, line, video, reason):
    code, error = told(capsys, line)
    assert code == 1
    assert error.startswith("would fail: ") and video in error and reason in error


def test_no_row_stands_twice_and_rule_and_remedy_are_not_the_same_words():
    assert len({row[0] for row in ROWS}) == len(ROWS)
    for line, _, rule, remedy in ROWS:
        assert rule not in remedy and remedy not in rule, line


def test_every_command_has_its_mistakes():
    names = {name for name in COMMANDS if name != "weights"} | {f"weights {name}" for name in weights.commands}
    assert MISTAKES.keys() - {"featx", "weights"} == names
    for name, rows in MISTAKES.items():
        assert len(rows) >= MIN_ROWS, name
