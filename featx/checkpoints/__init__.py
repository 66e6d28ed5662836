"""From a card and a file of weights to a backbone: strictly, from tensors only, never with random weights.

    loaded = load(get_checkpoint("c3d-sports1m"), "c3d.pickle")
    loaded.backbone(clips, ["fc6"])

A file either fits its card in every tensor, or is refused with what does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featx.backbones import build
from featx.backbones.base import Backbone
from featx.catalog import CHECKPOINTS, WEIGHTS_FOLDER, Checkpoint
from featx.checkpoints.cache import Origin, read_record
from featx.checkpoints.files import file_form, file_sha256, read_tensors, without_counters
from featx.checkpoints.identify import card_namings, match_shapes
from featx.checkpoints.identity import require_own_file
from featx.checkpoints.input_scale import require_input_scale
from featx.checkpoints.mean_cube import with_chosen_mean, with_mean_cube
from featx.checkpoints.names import Naming
from featx.errors import CheckpointError

__all__ = ["LoadedCheckpoint", "fit", "load", "require_input_scale", "with_chosen_mean", "with_mean_cube"]

ANOTHER = "take another file or another card, or name a card of your own with --card"
NUM_LISTED = 3  # names of each kind that an error lists before it only counts
MAX_SHOWN = 120  # characters of a name in it


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A backbone with its weights: in eval mode, float32, on the CPU, without gradients.

    `sha256` is that of the file at `path`, or for a file that featx stored that of the published file it was made from, which
    is its `origin`; `naming` says whose names the file at `path` uses.
    """

    backbone: Backbone
    sha256: str
    path: Path
    naming: str
    origin: Origin | None = None


def load(checkpoint: Checkpoint, weights: str | Path | LoadedCheckpoint | None = None) -> LoadedCheckpoint:
    """Build the checkpoint's backbone with the weights of a file; None takes the card's own file or the cached one.

    What was loaded for it already, be it by another process, is taken as it is.

    The file is the authors' Caffe file, or safetensors or PyTorch's in our own names or those of a known port, and must
    hold every tensor, each of the right shape, floating and finite, and no other. A port without a classifier gives a
    backbone without the layer prob. Raises CheckpointError otherwise, for a file that is told to be another card's or not the
    published one (see `featx.checkpoints.identity`), and where `weights` is None but there is no file, with how to get it.
    """
    if isinstance(weights, LoadedCheckpoint):
        return weights
    if weights is None:
        return _load_own(checkpoint)
    path = Path(weights)
    sha256 = file_sha256(path)
    return _loaded(checkpoint, path, sha256, require_own_file(checkpoint, path, sha256))


def _loaded(checkpoint: Checkpoint, path: Path, sha256: str, origin: Origin | None) -> LoadedCheckpoint:
    backbone, naming = fit(checkpoint, path)
    # the origin's, so that every way of naming one published file agrees
    return LoadedCheckpoint(backbone, origin.sha256 if origin else sha256, path, naming.label, origin)


def _load_own(checkpoint: Checkpoint) -> LoadedCheckpoint:
    """The weights of the file to read where none is named."""
    if checkpoint.embedded or (checkpoint.folder is not None and checkpoint.file):
        path = (WEIGHTS_FOLDER if checkpoint.embedded else checkpoint.folder) / checkpoint.file
        sha256 = file_sha256(path)
        if checkpoint.sha256 not in (None, sha256):
            remedy = "install featx again" if checkpoint.embedded else "correct the card, or get its file again"
            raise CheckpointError(
                f"{path} has SHA-256 {sha256}, but the card of {checkpoint.name} says {checkpoint.sha256}; {remedy}"
            )
        origin = None if checkpoint.embedded else require_own_file(checkpoint, path, sha256)
        return _loaded(checkpoint, path, sha256, origin)
    record = read_record(checkpoint.name) if checkpoint.folder is None else None
    if record is None:
        raise CheckpointError(_how_to_get(checkpoint))
    try:
        return _loaded(checkpoint, record.checked_path(), record.sha256, record.origin)
    except CheckpointError:  # another process may have stored them anew, and dropped that file
        again = read_record(checkpoint.name)
        if again in (record, None):
            raise
    return _loaded(checkpoint, again.checked_path(), again.sha256, again.origin)


def _how_to_get(checkpoint: Checkpoint) -> str:
    name = checkpoint.name
    if checkpoint.folder is not None:
        return f"card {name} names no file; give its weights with --weights FILE, or name them in the card as 'file'"
    what = f"the file '{checkpoint.file}'" if checkpoint.file else "the published file"
    by_hand = (
        f"get {what} or a port of it with a browser, then store it with 'featx weights add {name} FILE' or name it with "
        f"--weights FILE: {' or '.join(checkpoint.urls)}"
    )
    fetch = f"fetch them with 'featx weights get {name}', or " * bool(checkpoint.downloads)
    return f"{name} needs weights that are not here; {fetch}{by_hand}"


def fit(checkpoint: Checkpoint, path: Path) -> tuple[Backbone, Naming]:
    """Put the tensors of a file, in any known naming, into a backbone, whoever's file it is told to be.

    Raises CheckpointError with what does not fit.
    """
    tensors = read_tensors(path)
    backbone = _skeleton(checkpoint)
    caffe = file_form(path) == "caffe"
    known = card_namings(checkpoint, without_counters(backbone.state_dict()), tensors, caffe)
    if not known:
        raise CheckpointError(
            f"weights '{path}' are a Caffe file, but those of {checkpoint.name} were not published as one; "
            f"{_better_card(checkpoint, tensors, caffe)}{ANOTHER}"
        )
    # one that has just these names goes before one that has more of them
    naming = max(known, key=lambda n: (n.ours.keys() == tensors.keys(), len(n.ours.keys() & tensors.keys())))
    if naming.arguments:
        backbone = _skeleton(checkpoint, **naming.arguments)
    skeleton = without_counters(backbone.state_dict())
    expected = {theirs: skeleton[ours] for theirs, ours in naming.ours.items()}
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "surplus": [name for name in tensors if name not in expected],
    }
    shared = [name for name in expected if name in tensors]
    problems["wrong shape"] = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
        for name in shared
        if tensors[name].shape != expected[name].shape
    ]
    better = ""
    if any(problems.values()):
        better = _better_card(checkpoint, tensors, caffe)
    else:  # only now are the values worth a look, and of a size that is known
        for name in shared:
            problem = _value_problem(naming.ours[name], tensors[name])
            if problem:
                problems.setdefault(problem, []).append(name)
    if any(problems.values()):
        raise CheckpointError(
            f"weights '{path}' do not fit {checkpoint.name} (read in {naming.label} names): {_describe(problems)}; "
            f"{better}{ANOTHER}"
        )
    state = {ours: tensors[theirs].detach().float().contiguous() for theirs, ours in naming.ours.items()}
    for name in backbone.state_dict().keys() - skeleton.keys():
        state[name] = torch.zeros((), dtype=torch.int64)
    backbone.load_state_dict(state, strict=True, assign=True)
    return backbone.requires_grad_(False).eval(), naming


def _skeleton(checkpoint: Checkpoint, **changes: Any) -> Backbone:
    """The backbone with shapes only: no memory, no random numbers."""
    with torch.device("meta"):
        return build(checkpoint.architecture, **{**checkpoint.build_arguments, **changes})


def _value_problem(our_name: str, tensor: Tensor) -> str | None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point():
        return "not floating-point numbers"
    low, high = torch.aminmax(tensor.detach().float())  # NaN and infinities show in them, without a temporary
    if not torch.isfinite(low) or not torch.isfinite(high):
        return "not finite"
    if our_name.endswith(".running_var") and low < 0:
        return "negative variance"
    return None


def _describe(problems: dict[str, list[str]]) -> str:
    parts = []
    for problem, names in problems.items():
        if names:
            listed = ", ".join(_shown(name) for name in names[:NUM_LISTED])
            parts.append(f"{problem}: {listed}" + (f", … ({len(names)} in all)" if len(names) > NUM_LISTED else ""))
    return "; ".join(parts)


def _shown(name: str) -> str:
    """A name from a file, which may be anything, for one line of a message."""
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}…"


def _better_card(checkpoint: Checkpoint, tensors: dict[str, Tensor], caffe: bool) -> str:
    """Which card the file was more likely made for, as a clause of an error; "" where that is this very card."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    match = match_shapes(shapes, caffe, {**CHECKPOINTS, checkpoint.name: checkpoint}.values())[0]
    others = len(match.cards) - NUM_LISTED
    cards = " or ".join([*match.cards[:NUM_LISTED], *([f"{others} more"] if others > 0 else [])])
    if checkpoint.name in match.cards:
        return ""
    if match.exact:
        return f"it fits {cards} in every tensor; "
    if 2 * match.num_matched < match.num_expected:
        return "it fits no card of featx; "
    return f"it fits {cards} best, in {match.num_matched} of {match.num_expected} tensors; "
