"""`featx completion`: the script with which a shell completes featx's command lines."""

from __future__ import annotations

import contextlib
import io

import click
from click.shell_completion import get_completion_class, shell_complete

from featx.cli.help import Command

__all__ = ["VARIABLE", "command", "complete"]

VARIABLE = "_FEATX_COMPLETE"  # the script sets it when it asks featx for what may stand here

# as click's script has it, and so that a key with a space, or what else a shell reads, stays one word
PLAIN_IN_BASH = "COMPREPLY+=($value)"
QUOTED_IN_BASH = 'COMPREPLY+=("$(printf %q "$value")")'

EXAMPLES = """\b
Examples:
  featx completion bash > ~/.featx-completion.bash
  featx completion fish > ~/.config/fish/completions/featx.fish
"""


@click.command("completion", cls=Command, epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script with which a shell completes commands, options, cards, layers, keys and files at Tab.

    bash, from 4.4 on: write it to a file, and let ~/.bashrc read that: source ~/.featx-completion.bash

    zsh: write it to ~/.featx-completion.zsh, and let ~/.zshrc read that, after compinit.

    fish: write it to ~/.config/fish/completions/featx.fish, where fish finds it.
    """
    root = click.get_current_context().find_root().command
    # the script itself: `source()` would first ask the bash that is installed how old it is
    completion = get_completion_class(shell)(root, {}, "featx", VARIABLE)
    script = completion.source_template % completion.source_vars()
    click.echo(script.replace(PLAIN_IN_BASH, QUOTED_IN_BASH) if shell == "bash" else script)


def complete(cli: click.Command, instruction: str) -> int:
    """Answer a shell that asks, by the value of VARIABLE; return the exit code.

    Whatever is wrong with the line so far, the shell gets no answer, and no message.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return shell_complete(cli, {}, "featx", VARIABLE, instruction)
    except Exception:
        return 1
