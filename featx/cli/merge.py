"""`featx merge`: feature files into one."""

from __future__ import annotations

from pathlib import Path

import click

from featx.cli.help import Command
from featx.cli.json_output import json_option, print_json

EXAMPLES = """\b
Examples:
  featx merge monday.h5 tuesday.h5 -o week.h5
  featx merge shards/ -o all.h5
"""


@click.command("merge", cls=Command, epilog=EXAMPLES)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The feature file to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "--partial",
    is_flag=True,
    help="Join what there is, though shards are missing or runs have not ended; the file tells so.",
)
@json_option
def command(inputs: tuple[Path, ...], output: Path, overwrite: bool, partial: bool, as_json: bool) -> None:
    """Join feature files, or a file with its parts, into one file.

    INPUT is a feature file or a folder of them; they must have been made in the same way. Of shards ('featx extract --shard')
    all must be there, each once; every run must have come to its end. `featx merge F.h5 -o F.h5` takes the
    parts in F.h5.parts into F.h5, also those of a run that has not, and tells so.
    """
    from featx.run import merge

    num_videos = merge(inputs, output, overwrite=overwrite, partial=partial)
    if as_json:
        print_json({"output": output, "num_videos": num_videos})
    else:
        click.echo(f"{output}: {num_videos} videos")
