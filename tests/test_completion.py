"""What a shell is told at Tab: commands, options, cards, layers, keys; fast, and nothing where the line makes no sense."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.shell_completion import get_completion_class
from feature_files import write_file

from featx.catalog import CHECKPOINTS, get_checkpoint
from featx.cli import COMMANDS, cli, completers, main
from featx.cli.completion import VARIABLE, complete


def told(line: str, incomplete: str = "", shell: str = "bash") -> list[tuple[str, str]]:
    """The (type, value) of every answer for a line whose last word is `incomplete`."""
    completion = get_completion_class(shell)(cli, {}, "featx", VARIABLE)
    return [(item.type, item.value) for item in completion.get_completions(line.split(), incomplete)]


def values(line: str, incomplete: str = "") -> list[str]:
    answers = told(line, incomplete)
    assert {kind for kind, _ in answers} <= {"plain"}
    return [value for _, value in answers]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "f.h5"
    write_file(
        path, {"fc6": {"run/a": np.ones(3), "jump/b": np.ones(3)}, "fc7": {"run/a": np.ones(2), "jump/b": np.ones(2)}}
    )
    return path


def test_commands_and_options():
    assert set(values("")) == set(COMMANDS)
    assert values("", "svm-") == ["svm-eval", "svm-fit", "svm-predict"]
    assert values("weights") == ["add", "get", "list", "show", "verify"]
    assert values("extract", "--on-") == ["--on-corrupt", "--on-error"]
    assert values("extract a.mp4 --short") == ["loop", "pad", "skip"]


@pytest.mark.parametrize(
    "line",
    [
        "extract --backbone",
        "classify --backbone",
        "weights show",
        "weights get",
        "weights add",
        "filters",
        "weights verify",
    ],
)
def test_cards(line):
    assert values(line) == sorted(CHECKPOINTS)
    assert values(line, "tv-r3") == ["tv-r3d18-kinetics"]


@pytest.mark.parametrize("card", ["c3d-sports1m", "p3d199-kinetics", None])
def test_layers_and_variants_are_those_of_the_card_that_is_typed(card):
    named = f"--backbone {card}" if card else ""
    chosen = get_checkpoint(card or "res3d-mini")
    assert values(f"extract a.mp4 -o f.h5 {named} --layer") == list(chosen.layers)
    assert values(f"extract {named} --layer fc6 --layer", "po") == [
        name for name in chosen.layers if name.startswith("po")
    ]
    assert values(f"classify {named} --variant") == list(chosen.variants)


def test_layers_and_keys_are_those_of_the_feature_file_that_is_typed(features):
    for command in ("svm-eval", "svm-fit", "search", "pca", "report", "embed", "similarity", "export"):
        assert values(f"{command} {features} --layer") == ["fc6", "fc7"]
        assert values(f"{command} {features} --layer", "fc7") == ["fc7"]
    assert values(f"search {features} --query") == ["jump/b", "run/a"]
    assert told(f"search {features} --query", "new.m") == [("file", "new.m")]  # a video


def test_networks_data_sets_and_words():
    from featx.backbones import ARCHITECTURES
    from featx.evaluation import DATASETS
    from featx.evaluation.embedding import METHODS
    from featx.evaluation.measures import NORMS
    from featx.evaluation.svm import SOLVERS

    assert values("models") == list(ARCHITECTURES)
    assert values("svm-eval f.h5 --dataset") == list(DATASETS) == list(completers.DATASETS)
    assert values("svm-eval f.h5 --solver") == list(SOLVERS)
    assert values("embed f.h5 --method") == list(METHODS)
    assert sorted(values("similarity f.h5 p.csv --norm")) == sorted({*NORMS, "none"})


@pytest.mark.parametrize(
    "line", ["extract", "extract -o", "info", "merge a.h5", "pca f.h5 --fit-on", "weights add c3d-sports1m"]
)
def test_files_and_folders_are_left_to_the_shell(line):
    assert told(line, "vid") == [("file", "vid")]


@pytest.mark.parametrize(
    "line",
    [
        "extarct",
        "weights gte",
        "extract --backbone no-such --layer",
        "svm-eval absent.h5 --layer",
        "search --query",
        "extract --card absent.json --layer",
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_line_that_makes_no_sense_gets_no_answer_and_no_message(capsys, monkeypatch, line, shell):
    words = f"featx {line} "
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())) if shell != "fish" else "")
    assert complete(cli, f"{shell}_complete") in (0, 1)
    captured = capsys.readouterr()
    assert "Error" not in captured.out and captured.err == ""


def test_threads_that_are_typed_load_no_torch():
    code = (
        "import sys, featx.cli as f\nfrom click.shell_completion import BashComplete as B\n"
        "b = B(f.cli, {}, 'featx', 'X')\n"
        "for words in (['extract', '--threads', '2', '--layer'], ['models'], ['svm-eval', '--dataset'], ['']):\n"
        "    assert b.get_completions(words[:-1] if words == [''] else words, '')\n"
        "print([m for m in ('torch', 'sklearn', 'av') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_and_names_featx(capsys, shell):
    with pytest.raises(SystemExit) as exit:
        main(["completion", shell])
    captured = capsys.readouterr()
    assert exit.value.code == 0 and captured.err == ""
    assert f"{VARIABLE}={shell}_complete" in captured.out and "_featx_completion" in captured.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_a_line(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["completion", "bash"])
    (tmp_path / "script.bash").write_text(capsys.readouterr().out)
    (tmp_path / "featx").write_text(f'#!/bin/sh\nexec {sys.executable} -m featx "$@"\n')
    (tmp_path / "featx").chmod(0o755)
    program = (
        "source script.bash && COMP_WORDS=(featx extract --backbone c3d-sports1m --layer f) && COMP_CWORD=5 && "
        '_featx_completion featx && printf "%s\\n" "${COMPREPLY[@]}"'
    )
    program += (
        " && COMP_WORDS=(featx search f.h5 --query j) && COMP_CWORD=4 && COMPREPLY=() && " + program.split(" && ")[3]
    )
    program += ' && printf "%s\\n" "${COMPREPLY[@]}"'
    write_file(tmp_path / "f.h5", {"fc6": {"jump/a b": np.ones(3), "jump/*": np.ones(3)}})
    result = subprocess.run(
        ["bash", "--norc", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (result.stdout.splitlines(), result.stderr) == (["fc6", "fc7", "jump/\\*", "jump/a\\ b"], "")
