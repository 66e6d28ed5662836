"""What completes the values of options and arguments in a shell: names of cards, layers, networks, data sets, keys.

Nothing here imports torch, and nothing raises: a shell that waits for Tab wants an answer soon, or none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

import featx.weights

__all__ = ["DATASETS", "METHODS", "NORMS", "SCALINGS", "SOLVERS", "completer_of"]

Completer = Callable[[click.Context, str], list[CompletionItem]]
Names = Callable[[click.Context], Iterable[str]]

DEFAULT_BACKBONE = "res3d-mini"
MAX_KEYS = 20_000  # of a feature file: more are not read while somebody waits

# As where they are used, whose imports take seconds; a test compares them.
DATASETS = (
    *("ucf101", "hmdb51", "yupenn", "maryland", "scenes", "activitynet", "objects", "folders", "stored", "csv"),
)
SOLVERS = ("auto", "newton", "liblinear")
METHODS = ("tsne", "pca")
NORMS = ("sum", "l2", "none")
SCALINGS = ("standard", "l2")


def completer_of(command: str | None, param: click.Parameter) -> Completer | None:
    """What completes a parameter of a command; None leaves it to its type: choices, and files for a path."""
    name = max(param.opts, key=len)
    names = NAMES.get((command, name)) or NAMES.get((None, name))
    if names is None:
        return None
    return lambda ctx, incomplete: _complete(names, ctx, incomplete, (command, name) in OR_FILES)


def _complete(names: Names, ctx: click.Context, incomplete: str, or_files: bool) -> list[CompletionItem]:
    """The names that begin so; a file's name where none does and a file may be meant, since shells mix them not."""
    try:
        found = [name for name in names(ctx) if name.startswith(incomplete)]
    except Exception:  # a damaged file, a folder that may not be read, …: the command itself will say it
        found = []
    if not found and or_files:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in found]


def _cards(ctx: click.Context) -> list[str]:
    return sorted(path.stem for path in Path(featx.weights.__file__).parent.glob("*.json"))


def _card(ctx: click.Context) -> dict:
    """The card that is typed already, as its JSON; the default one where none is."""
    own = ctx.params.get("card")
    name = ctx.params.get("backbone") or DEFAULT_BACKBONE
    path = Path(own) if own else Path(featx.weights.__file__).parent / f"{name}.json"
    return json.loads(path.read_text())


def _layers_of_card(ctx: click.Context) -> list[str]:
    return list(_card(ctx)["layers"])


def _variants(ctx: click.Context) -> list[str]:
    return list(_card(ctx).get("variants", ()))


def _feature_file(ctx: click.Context) -> str:
    """The feature file that is typed already; where the line ends in an option, click has not yet told which it is."""
    given = ctx.params.get("features") or (*ctx.args, *getattr(ctx, "_protected_args", ()))
    return str(given if isinstance(given, (str, Path)) else given[0])


def _layers_of_file(ctx: click.Context) -> list[str]:
    from featx.store import open_features

    with open_features(Path(_feature_file(ctx)), warn=False) as features:
        return list(features.layers)


def _layers_of_import(ctx: click.Context) -> list[str]:
    return _layers_of_card(ctx) if ctx.params.get("backbone") or ctx.params.get("card") else []


def _keys(ctx: click.Context) -> list[str]:
    from featx.store import open_features

    with open_features(Path(_feature_file(ctx)), warn=False) as features:
        return list(features.keys) if len(features) <= MAX_KEYS else []


def _architectures(ctx: click.Context) -> list[str]:
    from featx.backbones import ARCHITECTURES

    return list(ARCHITECTURES)


def _these(*names: str) -> Names:
    return lambda ctx: names


# (command, name of the parameter) -> names; None stands for every command
NAMES: dict[tuple[str | None, str], Names] = {
    (None, "--backbone"): _cards,
    (None, "--variant"): _variants,
    (None, "--layer"): _layers_of_file,
    ("extract", "--layer"): _layers_of_card,
    ("import", "--layer"): _layers_of_import,
    ("search", "--query"): _keys,
    ("models", "name"): _architectures,
    ("filters", "backbone"): _cards,
    ("show", "name"): _cards,
    ("get", "name"): _cards,
    ("add", "name"): _cards,
    ("verify", "name_or_file"): _cards,
    (None, "--dataset"): _these(*DATASETS),
    (None, "--device"): _these("auto", "cpu", "cuda"),
    (None, "--solver"): _these(*SOLVERS),
    (None, "--method"): _these(*METHODS),
    (None, "--norm"): _these(*NORMS),
    (None, "--scaling"): _these(*SCALINGS),
    (None, "--metric"): _these("accuracy", "top-3", "top-5", "map"),
    ("svm-fit", "--labels"): _these("folders", "stored"),
    ("embed", "--labels"): _these("folders"),
}

# these may be a file as well
OR_FILES = {
    *(("search", "--query"), ("show", "name"), ("verify", "name_or_file")),
    *(("svm-fit", "--labels"), ("embed", "--labels")),
}
