"""The command line: one file a command, each a parse, one API call and a print; loaded only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from featx import __version__
from featx.errors import FeatxError, UnknownNameError, UsageError, one_line
from featx.interrupt import Interrupts

# command name -> module of featx.cli; the module's `command` is the click command
COMMANDS = {
    "check": "check",
    "classify": "classify",
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

# read without importing the command, so that `featx --help` starts no numpy and no torch
SUMMARIES = {
    "check": "Check whether a feature file is whole: structure, checksums, values.",
    "classify": "Name what a network sees in videos: its best classes, with scores.",
    "extract": "Extract features from videos into a feature file.",
    "export": "Write features as npy, npz, CSV, Parquet or HDF5 of other programs.",
    "import": "Read another program's features into a feature file.",
    "info": "Print what a feature file holds and how it was made.",
    "merge": "Join a feature file with its parts, or several shards, into one file.",
    "pca": "Make the descriptors of a feature file compact.",
    "svm-eval": "Run the linear-SVM protocol of a data set on a feature file.",
    "svm-fit": "Train a linear SVM on labelled videos and keep it.",
    "svm-predict": "Label videos with a kept SVM.",
    "search": "Find the nearest videos, or moments, of a query; find duplicates.",
    "similarity": "Tell pairs of videos that show the same action from others (ASLAN).",
    "report": "Show what a feature file holds as one page for a browser.",
    "embed": "Draw descriptors, or clips, on a plane by class (t-SNE).",
    "filters": "Draw the filters of a network's first convolution.",
    "models": "List the architectures: layers, dimensions, parameters, multiply-adds.",
    "weights": "List, fetch, store and verify published weights.",
}


class _Commands(click.Group):
    """Finds commands by name, imports one when it runs, and turns a FeatxError into one line and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"featx.cli.{COMMANDS[name]}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UnknownNameError("command", args[0], COMMANDS, "See 'featx --help'.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in COMMANDS])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: featx extract examples/videos -o features.h5",
)
@click.version_option(__version__, prog_name="featx")
def cli() -> None:
    """Turn a folder of videos into spatiotemporal features with pretrained 3D ConvNets."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all done, 1 some videos failed or a file is damaged, 2 wrong usage, 130 interrupted.

    Whatever is wrong is one line on stderr.
    """
    # Threads that wait for the others shall sleep, not spin, or decoding and whatever else the machine does gets no core
    # while a layer ends: several times as slow. OpenMP reads it when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        _refuse_empty(sys.argv[1:] if args is None else args)
        with Interrupts() as interrupts:
            code = cli.main(args=args, prog_name="featx", standalone_mode=False, obj=interrupts)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        click.echo("featx: interrupted; what is finished is kept, and the same command goes on", err=True)
        sys.exit(getattr(error.__cause__ or error, "exit_code", 130))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"featx: error: {_told(error)}", err=True)
        sys.exit(2)
    except FeatxError as error:
        click.echo(f"featx: error: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        click.echo("featx: error: not enough memory; take a smaller --batch-size, or fewer layers", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # the reader of our output went away (`| head`); keep Python from complaining again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


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
    text = (text[:1].lower() + text[1:]).replace(". Did you mean", "; did you mean")
    command = error.ctx.command_path if getattr(error, "ctx", None) is not None else "featx"
    return f"{text} See '{command} --help'." if text.endswith("?") else f"{text}; see '{command} --help'"
