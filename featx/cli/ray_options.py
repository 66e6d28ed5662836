"""The options by which a command runs on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

import click

__all__ = ["ray_options"]

RAY_OPTIONS = (
    click.option(
        "--ray",
        metavar="ADDRESS",
        help="Extract on a Ray cluster: HOST:PORT, auto, or local for one of this machine alone. Every node needs the same "
        "featx, and the videos under the same paths.",
    ),
    click.option(
        "--ray-workers",
        type=click.IntRange(1),
        metavar="N",
        help="Actors. Default: as many as the nodes have room for now.",
    ),
    click.option(
        "--ray-cpus",
        type=click.IntRange(1),
        metavar="N",
        help="CPUs that an actor asks Ray for. Default: its GPU's part of the node's; without GPUs 4, or what a node has.",
    ),
    click.option(
        "--ray-gpus",
        type=float,
        metavar="X",
        help="GPUs that an actor asks Ray for, such as 0.5 where two are to share one. Default: 1 with --device cuda.",
    ),
)


def ray_options(command: Callable) -> Callable:
    """Give a command --ray, --ray-workers, --ray-cpus and --ray-gpus."""
    for option in reversed(RAY_OPTIONS):
        command = option(command)
    return command
