"""The help of every command: a sentence, examples that parse, options under headings with their defaults, 100 columns."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import click
import pytest

from featx.cli import COMMANDS, SECTIONS, SUMMARIES, cli, main
from featx.cli.headings import ELSEWHERE, HEADINGS, heading_of, name_of
from featx.cli.help import FEW_OPTIONS, PAGE_COLUMNS, examples_of


def _walk(command: click.Command, *names: str):
    """Every command and subcommand, with its names."""
    yield names, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from _walk(command.get_command(context, name), *names, name)


ALL = list(_walk(cli, "featx"))
EACH = pytest.mark.parametrize(("names", "command"), ALL, ids=[" ".join(names) for names, _ in ALL])


def page(names: tuple[str, ...], columns: int = PAGE_COLUMNS) -> str:
    """What `featx NAMES --help` prints in a terminal of so many columns."""
    context = cli.make_context("featx", [], resilient_parsing=True, terminal_width=columns)
    command: click.Command = cli
    for name in names[1:]:
        command = command.get_command(context, name)
        context = click.Context(command, parent=context, info_name=name)
    return command.get_help(context)


@EACH
def test_it_opens_with_one_sentence_and_examples(names, command):
    lines = page(names).splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(names)} ")
    paragraphs = "\n".join(lines[1:]).strip().split("\n\n")
    sentence = " ".join(paragraphs[0].split())
    assert sentence[0].isupper() and sentence.endswith(".") and ". " not in sentence
    heading, *examples = paragraphs[1].splitlines()
    assert heading == ("Example:" if len(examples) == 1 else "Examples:")
    assert [line.strip() for line in examples] == examples_of(command) != []


@EACH
def test_its_examples_parse(names, command):
    for line in examples_of(command):
        words = shlex.split(line.partition(" > ")[0])
        assert words[0] == "featx"
        context, args = cli.make_context("featx", words[1:]), words[1:]
        while isinstance(context.command, click.Group):
            name, found, args = context.command.resolve_command(context, args)
            context = found.make_context(name, list(args), parent=context)  # raises for what does not parse
        assert context.command_path.split()[: len(names)] == list(names) or names == ("featx",)


@EACH
def test_every_option_stands_once_under_a_heading_with_its_default(names, command):
    text = page(names)
    assert "\nOther:" not in text
    context = click.Context(command, show_default=True)
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    formatter = context.make_formatter()
    command.format_options(context, formatter)
    for option in options:
        name = re.escape(name_of(option))
        assert len(re.findall(rf"^  (-\w, )?{name}(?![\w-])", formatter.getvalue(), re.MULTILINE)) == 1, option
        assert option.help or isinstance(option.type, click.Choice), option
        record = " ".join(option.get_help_record(context)[1].split()).lower()
        if not option.is_flag and isinstance(option.default, (str, int, float)) and option.default != "":
            assert "[default: " in record, option
        assert record.count("default: ") <= 1, option
    if len(options) > FEW_OPTIONS + 1:
        assert all(heading_of(command.name, option) for option in options) and "\nOptions:" not in text


@EACH
@pytest.mark.parametrize("columns", [80, PAGE_COLUMNS, 200])
def test_it_is_no_wider_than_a_page(names, command, columns):
    assert max(map(len, page(names, min(columns, PAGE_COLUMNS)).splitlines())) <= PAGE_COLUMNS


def test_the_headings_name_options_that_there_are():
    there = {name_of(param) for _, command in ALL for param in command.get_params(click.Context(command))}
    assert {name for names in HEADINGS.values() for name in names} <= there
    assert len(sum(HEADINGS.values(), ())) == len(set(sum(HEADINGS.values(), ())))
    of = {command.name: {name_of(param) for param in command.params} for _, command in ALL}
    assert all(option in of[name] for name, option in ELSEWHERE)


def test_the_headings_of_extract_come_in_the_order_of_its_work():
    headings = re.findall(r"^(\S.*):$", page(("featx", "extract")), re.MULTILINE)
    assert headings == [
        *("Examples", "Input", "Network and weights", "Clips", "Output"),
        *("When something fails", "Speed", "Before a run", "What is printed"),
    ]


def test_the_commands_are_listed_in_sections_with_a_line_each():
    text = page(("featx",), 80)
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(COMMANDS) == sorted(SUMMARIES)
    places = [text.index(f"\n{heading}:") for heading in SECTIONS]
    assert places == sorted(places)
    for name, summary in SUMMARIES.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", text, re.MULTILINE), name


@pytest.mark.parametrize(("names", "command"), [each for each in ALL if isinstance(each[1], click.Group)])
def test_no_line_of_a_list_of_commands_is_cut(names, command):
    assert "..." not in page(names, 80).replace("[ARGS]...", "")


def test_without_arguments_featx_prints_its_help(capsys):
    for args, names in ([], ("featx",)), (["weights"], ("featx", "weights")):
        with pytest.raises(SystemExit) as exit:
            main(args)
        captured = capsys.readouterr()
        assert exit.value.code == 2
        assert (captured.out + captured.err).startswith(f"Usage: {' '.join(names)} ")


def test_python_m_featx_is_the_command():
    output = subprocess.run([sys.executable, "-m", "featx", "--version"], capture_output=True, text=True).stdout
    assert output.startswith("featx, version ")


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("extarct", "'extract'"),
        ("weights lsit", "'list'"),
        ("extract a.mp4 -o f.h5 --backbon c3d-sports1m", "--backbone"),
        ("svm-eval f.h5 --datset ucf101", "--dataset"),
        ("extract a.mp4 -o f.h5 --backbone c3d-sport1m", "'c3d-sports1m'"),
        ("classify a.mp4 --backbone r3d18_k", "'r3d18-k'"),
        ("extract a.mp4 -o f.h5 --layer pool", "'pool5'"),
        ("models resnt34", "'resnet34'"),
        ("weights show c3d-sport1m", "'c3d-sports1m'"),
        ("filters c3d-sport1m -o f.png", "'c3d-sports1m'"),
        ("import f.npy -o f.h5 --backbone c3d-sport1m", "--name"),
    ],
)
def test_a_misspelled_name_suggests_the_right_one(capsys, tmp_path, monkeypatch, line, nearest):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.npy").touch()
    with pytest.raises(SystemExit) as exit:
        main(line.split())
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1
    assert nearest in error and ("did you mean" in error or line.startswith("import"))
