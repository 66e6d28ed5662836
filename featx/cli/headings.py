"""Under which heading of a command's help an option stands: one table for all commands, in the order of the page."""

from __future__ import annotations

import click

__all__ = ["HEADINGS", "heading_of", "name_of"]

# heading -> options, by their long names
HEADINGS = {
    "Input": (
        *("--list", "--c3d-list", "--segments", "--shard", "--allow-urls", "--cache", "--cache-size", "--keys-from"),
        *("--format", "--keys", "--name", "--key-dataset", "--feature-dataset", "--videos"),
    ),
    "Search": ("--query", "-k", "--at", "--per-video", "--include-self", "--duplicates", "--threshold"),
    "Network and weights": ("--backbone", "--card", "--weights", "--mean", "--variant"),
    "Labels and splits": (
        *("--dataset", "--splits", "--split", "--folds", "--labels", "--eval"),
        "--allow-missing",
    ),
    "Features": ("--layer", "--concat", "--dims", "--norm", "--scaling", "--fit-on", "--basis", "--whiten", "--l2"),
    "Clips": (
        *("--length", "--stride", "--frame-step", "--clips", "--random-clips", "--fps", "--short", "--tail"),
        *("--crops", "--flip", "--first-frame"),
    ),
    "Training": ("--C", "--solver", "--metric", "--seed"),
    "Output": (
        *(
            "--output",
            "--save",
            "--dtype",
            "--aggregate",
            "--bins",
            "--timestamps",
            "--csv",
            "--overwrite",
            "--partial",
        ),
        *("--plot", "--plot-curves", "--plot-confusion", "--title", "--no-thumbnails", "--method", "--max"),
    ),
    "When something fails": (
        *("--on-error", "--on-corrupt", "--timeout", "--retry-failed", "--refresh", "--hash", "--repair"),
    ),
    "Speed": (
        *("--device", "--precision", "--decode", "--engine", "--threads", "--batch-size"),
        *("--ray", "--ray-workers", "--ray-cpus", "--ray-gpus"),
    ),
    "Before a run": ("--dry-run", "--count", "--estimate", "--machines", "--price", "--sample"),
    "What is printed": (
        *("--top", "--each-clip", "--numbers", "--per-class", "--profile", "--quiet", "--json", "--help"),
    ),
}

# where an option of the same name is about another thing
ELSEWHERE = {
    ("extract", "--layer"): "Network and weights",
    ("import", "--layer"): "Input",
    ("import", "--backbone"): "Input",
    ("import", "--card"): "Input",
    ("search", "--layer"): "Search",
    ("search", "--clips"): "Search",
    ("embed", "--clips"): "Features",
    ("embed", "--seed"): "Output",
    ("classify", "--seed"): "Clips",
    ("svm-eval", "--json"): "Output",
    ("similarity", "--json"): "Output",
}

_HEADING_OF = {name: heading for heading, names in HEADINGS.items() for name in names}


def name_of(param: click.Parameter) -> str:
    """The longest name of an option, such as "--output"; an argument's own, such as "features"."""
    return max(param.opts, key=len)


def heading_of(command: str | None, param: click.Parameter) -> str | None:
    """The heading of an option in the help of a command; None where the table does not have it."""
    name = name_of(param)
    return ELSEWHERE.get((command or "", name), _HEADING_OF.get(name))
