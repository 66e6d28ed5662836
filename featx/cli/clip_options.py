"""The options that say which videos a command takes, how clips are cut from them and where they are computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from featx.cli.types import WholeNumber
from featx.clips import SHORT_POLICIES, TAIL_POLICIES
from featx.damage import ON_CORRUPT

__all__ = ["clip_options", "decode_options", "device_options", "input_options", "keys_option", "view_options"]

MAX_BATCH, MAX_THREADS = 65_536, 1024  # more clips need terabytes, and of more threads OpenMP dies

INPUT_OPTIONS = (
    click.argument("inputs", nargs=-1, type=click.Path(), metavar="INPUT..."),
    click.option(
        "--list", "lists", multiple=True, type=click.Path(path_type=Path), help="A file with a video's path a line."
    ),
    click.option(
        "--allow-urls",
        is_flag=True,
        help="Take http and https addresses as videos too, and addresses in lists: each is fetched whole to a file, checked "
        "for its length, and then decoded.",
    ),
)

CLIP_OPTIONS = (
    click.option("--length", type=int, help="Frames a clip. Default: the card's."),
    click.option("--stride", type=int, help="Frames between the starts of neighbouring clips. Default: the card's."),
    click.option("--frame-step", type=int, help="Take every N-th frame in a clip. Default: the card's."),
    click.option("--clips", "num_clips", type=int, help="N evenly spread clips instead of a stride."),
    click.option(
        "--fps",
        type=float,
        help="Resample to so many frames a second, by time stamps; 0: as filmed. Default: the card's (mostly as filmed).",
    ),
    click.option(
        "--short", type=click.Choice(SHORT_POLICIES), default="loop", show_default=True, help="Videos below one clip."
    ),
    click.option(
        "--tail",
        type=click.Choice(TAIL_POLICIES),
        default="drop",
        show_default=True,
        help="Frames after the last clip.",
    ),
)

VIEW_OPTIONS = (
    click.option(
        "--crops",
        type=int,
        default=1,
        show_default=True,
        metavar="1|3|5|10",
        help="Crops of every clip whose features are averaged: 1 the card's own, mostly the centre; 3 along the long side; 5 "
        "the corners and the card's own; 10 the five and their mirror images. Each takes as long as a clip.",
    ),
    click.option("--flip", is_flag=True, help="Average every crop with its mirror image, left for right."),
)

DECODE_OPTIONS = (
    click.option(
        "--on-corrupt",
        type=click.Choice(ON_CORRUPT),
        default="fail",
        show_default=True,
        help="A video that is damaged or cut short fails, or is kept as far as it decodes, which is recorded.",
    ),
    click.option(
        "--timeout",
        "timeout_seconds",
        type=float,
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="A video fails when no frame of it is decoded for so long.",
    ),
    click.option(
        "--decode",
        type=click.Choice(["cpu", "cuda", "auto"]),
        default="cpu",
        show_default=True,
        help="cuda: the GPU's decoder, for H.264, HEVC, VP8, VP9 and AV1; the same frames, but damage inside of a picture is "
        "not told. auto: in featx extract, that one where a run of 200 videos or more on a GPU measures it to be faster; "
        "elsewhere cpu.",
    ),
)

# featx.engine has these names too, but imports torch
ENGINES = (
    *("auto", "winograd", "onednn", "torch"),
    *(form + how for form in ("folded", "cudnn", "compile") for how in ("", "-search", "-graph", "-graph-search")),
)

DEVICE_OPTIONS = (
    click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda or cuda:N. 'featx extract' takes several, such as cuda:0,cuda:2 or cpu,cpu, a process each, "
        "and all GPUs for cuda.",
    ),
    click.option("--batch-size", type=WholeNumber(MAX_BATCH), help="Clips a batch. Default: by the device."),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        metavar="NAME",
        help="What computes; 'featx info --engine' tells what there is.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
        default="auto",
        show_default=True,
        help="Of the numbers. auto: fp32 on the CPU; on a GPU the fastest that agrees with it on the first clips.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, MAX_THREADS),
        expose_value=False,
        callback=lambda ctx, option, value: None if ctx.resilient_parsing else _set_threads(value),
        help="Threads of the forward pass. Default: a core each.",
    ),
)

keys_option = click.option(
    "--keys-from", type=click.Choice(["name", "path"]), default="name", show_default=True, help="path keeps suffixes."
)


def input_options(command: Callable) -> Callable:
    """Give a command INPUT... and --list."""
    return _give(command, INPUT_OPTIONS)


def clip_options(command: Callable) -> Callable:
    """Give a command --length, --stride, --frame-step, --clips, --fps, --short and --tail."""
    return _give(command, CLIP_OPTIONS)


def view_options(command: Callable) -> Callable:
    """Give a command --crops and --flip."""
    return _give(command, VIEW_OPTIONS)


def decode_options(command: Callable) -> Callable:
    """Give a command --on-corrupt, --timeout and --decode."""
    return _give(command, DECODE_OPTIONS)


def device_options(command: Callable) -> Callable:
    """Give a command --device, --batch-size, --engine, --precision and --threads."""
    return _give(command, DEVICE_OPTIONS)


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _give(command: Callable, options: tuple[Callable, ...]) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command
