"""The command line: one file a command, each a parse, one API call and a print; loaded only when it is used."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
from click.shell_completion import CompletionItem

from featx import __version__
from featx.cli.completion import VARIABLE, complete
from featx.cli.help import CONTEXT_SETTINGS, Group, examples_of
from featx.cli.streams import print_any_name, silence, tell, unprinted
from featx.errors import FeatxError, LacksWarning, UsageError, one_line
from featx.interrupt import Interrupts

# command name -> module of featx.cli; the module's `command` is the click command
COMMANDS = {
    "check": "check",
    "classify": "classify",
    "completion": "completion",
    "doctor": "doctor",
    "extract": "extract",
    "export": "export",
    "import": "import_",
    "info": "info",
    "merge": "merge",
    "pca": "pca",
    "svm-eval": "svm_eval",
    "svm-fit": "svm_fit",
    "svm-predict": "svm_predict",
    "search": "search",
    "similarity": "similarity",
    "report": "report",
    "embed": "embed",
    "filters": "filters",
    "models": "models",
    "weights": "weights",
}

# the commands in the order in which they are met; one that stands in no section is listed last
SECTIONS = {
    "Extract": ("extract", "merge"),
    "Look": ("info", "check", "report", "search", "classify", "embed"),
    "Compact and evaluate": ("pca", "svm-eval", "svm-fit", "svm-predict", "similarity"),
    "Weights and networks": ("weights", "models", "filters"),
    "Exchange": ("import", "export"),
    "This machine": ("doctor", "completion"),
}

# read without importing the command, so that `featx --help` starts no numpy and no torch; a line of 80 columns each
SUMMARIES = {
    "check": "Check whether a feature file is whole: tables, checksums.",
    "classify": "Name what a network sees in videos, with scores.",
    "completion": "Let a shell complete command lines: bash, zsh or fish.",
    "doctor": "Tell what this machine has, and what is slow or missing.",
    "extract": "Extract features from videos into a feature file.",
    "export": "Write features as npy, npz, CSV, Parquet, or HDF5 groups.",
    "import": "Read another program's features into a feature file.",
    "info": "Print what a feature file holds and how it was made.",
    "merge": "Join a feature file with its parts, or several files.",
    "pca": "Make the descriptors of a feature file compact.",
    "svm-eval": "Run the linear-SVM protocol of a data set.",
    "svm-fit": "Train a linear SVM on labelled videos and keep it.",
    "svm-predict": "Label videos with a kept SVM.",
    "search": "Find the nearest videos or moments, and duplicates.",
    "similarity": "Tell pairs of videos of the same action (ASLAN).",
    "report": "Show what a feature file holds as one page for a browser.",
    "embed": "Draw descriptors, or clips, on a plane by class (t-SNE).",
    "filters": "Draw the filters of a network's first convolution.",
    "models": "List the architectures: layers, dimensions, sizes.",
    "weights": "List, fetch, store and verify published weights.",
}


# of what the system refuses, wherever that is met
REMEDIES = {
    errno.EACCES: "allow this user to read and to enter it, or name another place",
    errno.EPERM: "allow this user to read and to enter it, or name another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EMFILE: "allow more open files, with 'ulimit -n'",
}


class _Commands(Group):
    """Finds commands by name, and imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"featx.cli.{COMMANDS[name]}").command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for section in _sections().values() for name in section if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=SUMMARIES[name]) for name in names] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for heading, names in _sections().items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), SUMMARIES[name]) for name in names])


def _sections() -> dict[str, tuple[str, ...]]:
    listed = {name for names in SECTIONS.values() for name in names}
    others = tuple(name for name in COMMANDS if name not in listed)
    return {**SECTIONS, **({"More": others} if others else {})}


@click.group(
    cls=_Commands,
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: featx extract examples/videos -o features.h5",
)
@click.version_option(__version__, prog_name="featx")
def cli() -> None:
    """Turn a folder of videos into spatiotemporal features with pretrained 3D ConvNets.

    'featx COMMAND --help' tells more of a command.
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all done, 1 some videos failed or a file is damaged, 2 wrong usage, 130 interrupted.

    Whatever is wrong is one line on stderr. 141: the reader of stdout left before the end.
    """
    # Threads that wait for the others shall sleep, not spin, or decoding and whatever else the machine does gets no core
    # while a layer ends: several times as slow. OpenMP reads it when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if os.environ.get(VARIABLE):  # a shell asks what may stand here
        sys.exit(complete(cli, os.environ[VARIABLE]))
    print_any_name()
    interrupts = Interrupts()
    try:
        _refuse_empty(sys.argv[1:] if args is None else args)
        with interrupts, _warnings_as_notes():
            code = _run(args, interrupts)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        kept = _what_is_kept(sys.argv[1:] if args is None else args, interrupts.goes_on)
        tell(f"featx: interrupted{kept}", err=True)
        sys.exit(getattr(error, "exit_code", 130))
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # which click has from 8.2 on
            error.show()
            sys.exit(2)
        tell(f"featx: error: {_told(error)}", err=True)
        sys.exit(2)
    except FeatxError as error:
        tell(f"featx: error: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        tell("featx: error: not enough memory; take a smaller --batch-size, or fewer layers", err=True)
        sys.exit(2)
    except OSError as error:
        sys.exit(_refused_by_the_system(error))
    except UnicodeError as error:
        tell(
            one_line(
                f"featx: error: a name or a text is not {getattr(error, 'encoding', 'UTF-8')} ({error}); rename it"
            ),
            err=True,
        )
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print what is not all there as a line on stderr, once."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", LacksWarning)
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
            if not issubclass(category, LacksWarning):
                show_others(message, category, *where, **more)
            elif str(message) not in told:
                told.add(str(message))
                click.echo(one_line(f"note: {message}"), err=True)

        warnings.showwarning = show
        yield


def _run(args: list[str] | None, interrupts: Interrupts) -> object:
    """What the command returns. Raises Interrupted, too, where a library made another error of the signal that met it."""
    try:
        args = sys.argv[1:] if args is None else list(args)
        with cli.make_context("featx", args, obj=interrupts) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as done:  # --help and --version
        return done.exit_code
    except Exception:
        if interrupts.raised is None:
            raise
        raise interrupts.raised from None


def _what_is_kept(args: Sequence[str], goes_on: str) -> str:
    """What a run that was interrupted leaves, where it leaves anything that counts; `goes_on`: by what it goes on."""
    if list(args[:2]) != ["weights", "get"] and (args[:1] != ["extract"] or "--dry-run" in args):
        return ""
    return f"; what is finished is kept, and {goes_on}"


def _refused_by_the_system(error: OSError) -> int:
    """Tell in one line what the system refused; returns the exit code."""
    if stream := unprinted(error):
        silence(getattr(sys, stream))
        if isinstance(error, BrokenPipeError):
            return 128 + signal.SIGPIPE  # as shells count; its reader wanted no more
        tell(f"featx: error: cannot write to {stream}: {error.strerror}; make room, or send it elsewhere", err=True)
        return 2
    named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    remedy = REMEDIES.get(error.errno, "check the path" if named else "check the files that are named, and the machine")
    tell(one_line(f"featx: error: {named}{error.strerror or error}; {remedy}"), err=True)
    return 2


def _refuse_empty(args: Sequence[str]) -> None:
    """Raise UsageError for an empty argument, which as a path would be the current folder."""
    if "" in args:
        before = f" behind '{args[args.index('') - 1]}'" if args[0] != "" else ""
        raise UsageError(
            f"argument '' is empty{before}, but every argument says something; a shell gives that for a variable that is not "
            "set: set it, or leave the argument out"
        )


def _told(error: click.ClickException) -> str:
    """What click says of a wrong command line, in one line that names the help of the command."""
    text = one_line(" ".join(error.format_message().split())).rstrip(".")
    text = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "featx"
    if isinstance(error, click.NoSuchOption):
        nearest = difflib.get_close_matches(error.option_name, error.possibilities or (), n=2, cutoff=0.7)
        nearest = nearest or list(error.possibilities or ())[:2]
        text = f"no such option '{error.option_name}'" + f"; did you mean {' or '.join(map(repr, nearest))}?" * bool(
            nearest
        )
    elif isinstance(error, click.MissingParameter) and context is not None:
        text += "".join(f", as in '{example}'" for example in examples_of(context.command)[:1])
    return f"{text} See '{command} --help'." if text.endswith("?") else f"{text}; see '{command} --help'"
