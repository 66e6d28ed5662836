"""C3D: the 3D ConvNet of Tran et al. 2015 (figure 3; published: conv3d_deepnetA_sport1m)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.errors import UsageError

__all__ = ["C3D"]

POOLED_SIDE = 4  # height and width of pool5 for a crop of 112, which the shape of fc6's weights presumes


class C3D(Backbone):
    """Eight 3x3x3 convolutions, five max pools, two fully connected layers and a classifier.

    Clips are (N, in_channels, T, 112, 112); T is 16 for the published weights, and at most that, so that pool5 leaves
    one time step. With 16 frames and the published widths: conv5b 512x2x7x7, pool5 512x1x4x4 (8192 in the order C, T,
    H, W), fc6 and fc7 4096, prob num_classes; all but prob are after a ReLU. Pools round sizes up and pad nothing, as
    Caffe's do. `widths` are the channels of conv1a, conv2a, conv3*, conv4* and conv5*; `num_classes` None leaves out
    fc8, and with it the layer prob.
    """

    def __init__(
        self,
        num_classes: int | None = 487,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        fc_width: int = 4096,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self._levels: list[tuple[list[str], tuple[int, int, int]]] = []  # (convolutions, kernel of the pool after them)
        channels = in_channels
        for number, width in enumerate(widths, start=1):
            names = [f"conv{number}{letter}" for letter in ("a" if number < 3 else "ab")]
            for name in names:
                self.add_module(name, nn.Conv3d(channels, width, 3, padding=1))
                channels = width
            self._levels.append((names, (1, 2, 2) if number == 1 else (2, 2, 2)))
        self.fc6 = nn.Linear(channels * POOLED_SIDE**2, fc_width)
        self.fc7 = nn.Linear(fc_width, fc_width)
        self.fc8 = None if num_classes is None else nn.Linear(fc_width, num_classes)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        for number, (names, kernel) in enumerate(self._levels, start=1):
            for name in names:
                yield name, lambda x, name=name: F.relu(getattr(self, name)(x), inplace=True)
            yield f"pool{number}", lambda x, kernel=kernel: F.max_pool3d(x, kernel, kernel, ceil_mode=True)
        yield "fc6", lambda x: F.relu(self.fc6(self._flatten(x)), inplace=True)
        yield "fc7", lambda x: F.relu(self.fc7(x), inplace=True)
        if self.fc8 is not None:
            yield "prob", lambda x: F.softmax(self.fc8(x), dim=1)

    @staticmethod
    def _flatten(pool5: Tensor) -> Tensor:
        if pool5.shape[2:] != (1, POOLED_SIDE, POOLED_SIDE):
            raise UsageError(
                f"C3D's fc6 needs a pool5 of 1x{POOLED_SIDE}x{POOLED_SIDE}, but these clips give "
                f"{'x'.join(map(str, pool5.shape[2:]))}; use at most 16 frames a clip and a crop of 112, or layer pool5"
            )
        return pool5.flatten(1)  # (N, C, 1, 4, 4) -> (N, C * 16)
