"""How a backbone is executed: a fixed batch shape, one plan a device, the same numbers everywhere to a stated tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from featx.backbones.base import Backbone
from featx.errors import UsageError
from featx.preprocess import Preprocess

__all__ = ["Engine", "choose_device"]

# Clips a batch where the user does not say: a CPU gains nothing beyond a few, a GPU needs many to be busy.
AUTO_BATCH_SIZE = {"cpu": 4, "cuda": 32}


def choose_device(name: str) -> torch.device:
    """The device named by "auto", "cpu", "cuda" or "cuda:N"; "auto" is the first GPU, or the CPU where there is none.

    Raises UsageError for another name, and for a GPU that is not there: the CPU never stands in for it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in AUTO_BATCH_SIZE:
        raise UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(
                f"device '{name}' was asked for, but torch {torch.__version__} finds no GPU; use '--device cpu'"
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(
                f"device '{name}' was asked for, but there are only {torch.cuda.device_count()} GPUs, from cuda:0"
            )
    return device


class Engine:
    """Runs batches of clips through a backbone with plain torch in float32.

    Every batch has the same shape: a smaller one is filled up. The last bits of a result depend on the batch size, but
    not on a clip's place in the batch nor on the clips beside it, so equal runs give equal bits.
    """

    name = "torch"
    precision = "fp32"

    def __init__(
        self,
        backbone: Backbone,
        preprocess: Preprocess,
        layers: Sequence[str],
        *,
        length: int,
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        self.device = device
        self.batch_size = batch_size or AUTO_BATCH_SIZE[device.type]
        self.layers = tuple(layers)
        self._preprocess = preprocess
        self._backbone = backbone.eval().to(device)
        self._batch = torch.zeros(
            (self.batch_size, length, preprocess.crop, preprocess.crop, 3),
            dtype=torch.uint8,
            pin_memory=device.type == "cuda",
        )
        if device.type == "cuda":  # TF32 would be used for convolutions unasked
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False

    @property
    def description(self) -> str:
        """What is recorded in the feature file, such as "torch-cpu"."""
        return f"{self.name}-{self.device.type}"

    def run(self, clips: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
        """Compute the layers of at most `batch_size` clips.

        A clip is a uint8 BGR tensor (T, crop, crop, 3). Returns float32 (len(clips), D) a layer.
        """
        for place, clip in zip(self._batch, clips, strict=False):
            place.copy_(clip)
        self._batch[len(clips) :] = 0
        with torch.inference_mode():
            pixels = self._batch.to(self.device, non_blocking=True)
            activations = self._backbone(self._preprocess.normalise(pixels), self.layers)
            # (N, C, T, H, W) -> (N, D)
            return {layer: x[: len(clips)].flatten(1).float().cpu().numpy() for layer, x in activations.items()}
