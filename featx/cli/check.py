"""`featx check`: whether a feature file is whole."""

from __future__ import annotations

import json
from pathlib import Path

import click

from featx.cli.help import Command


@click.command("check", cls=Command, epilog="Example: featx check features.h5")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(file: Path, as_json: bool) -> int:
    """Check whether a feature file, with the parts beside it, is whole: every table against its checksums, and its values.

    FILE is a feature file or a folder of them. A stranger's file too: it is read in a process of its own.

    Exit codes: 0 all is right, 1 damaged, with a line for everything that is wrong, 2 wrong usage.
    """
    from featx.integrity import check

    report = check(file)
    if as_json:
        files = [{"path": str(checked.path), "problems": list(checked.problems)} for checked in report.files]
        found = {"good": report.is_good, "videos": report.num_videos, "files": files, "problems": list(report.problems)}
        click.echo(json.dumps(found, indent=2))
        return 0 if report.is_good else 1
    for checked in report.files:
        for problem in checked.problems:
            click.echo(f"{checked.path}: {problem}")
    for problem in report.problems:
        click.echo(problem)
    if report.is_good:
        number = len(report.files)
        click.echo(f"{file}: {report.num_videos} videos in {number} file{'s' * (number != 1)}, all is right")
        return 0
    return 1
