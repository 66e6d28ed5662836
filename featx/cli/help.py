"""How the help of a command is laid out: one sentence, examples that run, the rest, and the options under headings.

    @click.command("check", cls=Command, epilog="Example: featx check features.h5")

The first paragraph of a command's docstring is its sentence, the lines of its epilog that begin with "featx" are its examples;
featx/cli/headings.py says under which heading an option stands, featx/cli/completers.py what completes its value.
"""

from __future__ import annotations

import inspect

import click

from featx.cli.completers import completer_of
from featx.cli.headings import HEADINGS, heading_of
from featx.cli.types import WholeNumber
from featx.errors import UnknownNameError

__all__ = ["CONTEXT_SETTINGS", "PAGE_COLUMNS", "Command", "Group", "examples_of"]

PAGE_COLUMNS = 100
CONTEXT_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": PAGE_COLUMNS,
    "show_default": True,
}
FEW_OPTIONS = 8  # besides --help: so many need no headings


def examples_of(command: click.Command) -> list[str]:
    """The command lines of a command's epilog, each of which runs where its files are there."""
    lines = [line.strip().removeprefix("Example: ") for line in (command.epilog or "").splitlines()]
    return [line for line in lines if line.startswith("featx ")]


class Command(click.Command):
    """A command whose help opens with a sentence and examples, and whose options stand under headings."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if param.type is click.INT:
                param.type = WholeNumber()
            if "[default:" in (getattr(param, "help", None) or ""):
                param.show_default = False  # its text says it in words
            complete = completer_of(self.name, param)
            if complete is not None:
                param.shell_complete = complete

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sentence, *rest = inspect.cleandoc(self.help or "").split("\n\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(sentence)
        examples = examples_of(self)
        if examples:
            with formatter.section("Example" + "s" * (len(examples) > 1)):
                for line in examples:  # as they are: they are copied
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        for paragraph in rest:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(paragraph)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {}
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        flat = len(options) <= FEW_OPTIONS + 1
        for param in options:
            record = param.get_help_record(ctx)
            if record is not None:
                rows.setdefault("Options" if flat else heading_of(self.name, param) or "Other", []).append(record)
        for heading in ("Options", *HEADINGS, "Other"):
            if heading in rows:
                with formatter.section(heading):
                    formatter.write_dl(rows[heading])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples stand at the top."""


class Group(Command, click.Group):
    """A command with subcommands; a mistyped one costs a line that names the nearest."""

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            kind = "command" if ctx.parent is None else f"command of {ctx.command_path}:"
            raise UnknownNameError(kind, args[0], names, f"See '{ctx.command_path} --help'.")
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)
