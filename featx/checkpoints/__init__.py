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
from featx.catalog import WEIGHTS_FOLDER, Checkpoint
from featx.checkpoints.caffe_names import caffe_naming
from featx.checkpoints.files import file_form, file_sha256, read_tensors
from featx.checkpoints.mean_cube import with_mean_cube
from featx.checkpoints.names import Naming, namings
from featx.errors import CheckpointError

__all__ = ["LoadedCheckpoint", "load", "with_mean_cube"]

NUM_LISTED = 3  # names of each kind that an error lists before it only counts


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A backbone with its weights: in eval mode, float32, on the CPU, without gradients.

    `sha256` is that of the file at `path`; `naming` says whose names the file uses.
    """

    backbone: Backbone
    sha256: str
    path: Path
    naming: str


def load(checkpoint: Checkpoint, weights: str | Path | None = None) -> LoadedCheckpoint:
    """Build the checkpoint's backbone with the weights of a file; None takes the file embedded in featx.

    The file is the authors' Caffe file, or safetensors or PyTorch's in our own names or those of a known port, and must
    hold every tensor, each of the right shape, floating and finite, and no other. A port without a classifier gives a
    backbone without the layer prob. Raises CheckpointError otherwise, and where `weights` is None but the card's file is
    not embedded.
    """
    path = _locate(checkpoint) if weights is None else Path(weights)
    sha256 = file_sha256(path)
    if weights is None and sha256 != checkpoint.sha256:
        raise CheckpointError(
            f"{path} has SHA-256 {sha256}, but the card of {checkpoint.name} says {checkpoint.sha256}; install featx again"
        )
    backbone, naming = _fit(checkpoint, read_tensors(path), path)
    return LoadedCheckpoint(backbone, sha256, path, naming.label)


def _locate(checkpoint: Checkpoint) -> Path:
    if checkpoint.embedded:
        return WEIGHTS_FOLDER / checkpoint.file
    what = f"the file '{checkpoint.file}'" if checkpoint.file else "the published file"
    raise CheckpointError(
        f"{checkpoint.name} needs weights that featx does not carry; get {what} or a port of it and name it with "
        f"--weights FILE: {' or '.join(checkpoint.source)}"
    )


def _fit(checkpoint: Checkpoint, tensors: dict[str, Tensor], path: Path) -> tuple[Backbone, Naming]:
    """Put tensors of any known naming into a backbone, each in its place, or list what does not fit."""
    backbone = _skeleton(checkpoint)
    if file_form(path) == "caffe":
        known = [caffe_naming(backbone.state_dict(), tensors)]
    else:
        known = namings(checkpoint.architecture, backbone.state_dict())
    naming = max(known, key=lambda naming: len(naming.ours.keys() & tensors.keys()))
    if naming.arguments:
        backbone = _skeleton(checkpoint, **naming.arguments)
    skeleton = backbone.state_dict()
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
    if not any(problems.values()):  # only then are the values worth a look, and of a size that is known
        for name in shared:
            problem = _value_problem(naming.ours[name], tensors[name])
            if problem:
                problems.setdefault(problem, []).append(name)
    if any(problems.values()):
        raise CheckpointError(
            f"weights '{path}' do not fit {checkpoint.name} (read in {naming.label} names): {_describe(problems)}; "
            f"take another --weights or --backbone"
        )
    state = {ours: tensors[theirs].detach().float().contiguous() for theirs, ours in naming.ours.items()}
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
            listed = ", ".join(names[:NUM_LISTED])
            parts.append(f"{problem}: {listed}" + (f", … ({len(names)} in all)" if len(names) > NUM_LISTED else ""))
    return "; ".join(parts)
