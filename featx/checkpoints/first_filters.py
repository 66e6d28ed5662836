"""The filters of a net's first convolution, as they meet pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from featx.catalog import Checkpoint
from featx.checkpoints import load
from featx.errors import CheckpointError, UsageError

__all__ = ["Filters", "first_filters"]


@dataclass(frozen=True, eq=False)
class Filters:
    """`weights` float32 (N, C, T, H, W) of the convolution called `layer` of the net `name`; C is in `channel_order`."""

    name: str
    layer: str
    weights: np.ndarray
    channel_order: str

    def __post_init__(self) -> None:
        channels = {"flow": 2, "rgb": 3, "bgr": 3}.get(self.channel_order)
        if self.weights.ndim != 5 or self.weights.shape[1] != channels:
            raise UsageError(
                f"filters have the shape {self.weights.shape}, but must be (N, {channels}, T, H, W) for {self.channel_order}"
            )


def first_filters(checkpoint: Checkpoint, weights: str | Path | None = None) -> Filters:
    """The first convolution that a clip meets; None for `weights` takes the card's own file or the stored one.

    Each channel is divided by its `std`, so that what is compared is what a step of one grey level does. Raises
    CheckpointError as `featx.checkpoints.load` does, and where no convolution takes the clip's channels.
    """
    backbone = load(checkpoint, weights).backbone
    channels = checkpoint.clip_shape[0]
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv3d) and module.in_channels == channels:
            std = np.array(checkpoint.preprocess.std, np.float32).reshape(-1, 1, 1, 1)
            values = module.weight.detach().numpy() / std
            return Filters(checkpoint.name, name, values, checkpoint.preprocess.channel_order)
    raise CheckpointError(
        f"{checkpoint.name} has no convolution of {channels} channels, so there are no filters to show"
    )
