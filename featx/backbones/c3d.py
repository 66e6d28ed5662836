"""C3D: the 3D ConvNet of Tran et al. 2015 (figure 3; published: conv3d_deepnetA_sport1m), and those of its search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from featx.backbones.base import Backbone, Stage
from featx.errors import UnknownNameError, UsageError

__all__ = ["C3D"]

LETTERS = "abcdefgh"  # of the convolutions in a group

POOL5S = ("caffe", "ported")


class C3D(Backbone):
    """3D convolutions in five groups, each with a max pool after it, two fully connected layers and a classifier.

    Clips are (N, in_channels, T, crop, crop); T is 16 for the published weights, and at most that, so that pool5 leaves
    one time step. With 16 frames and the published widths: conv5b 512x2x7x7, pool5 512x1x4x4 (8192 in the order C, T,
    H, W), fc6 and fc7 4096, prob num_classes; all but prob are after a ReLU. `widths` are the channels of conv1a,
    conv2a, conv3*, conv4* and conv5*, `convs` the numbers of convolutions of these groups, `depths` the kernels'
    extents in time; in space all kernels are 3x3. `num_classes` None leaves out fc8, and with it the layer prob.

    Pools round sizes up and pad nothing, as Caffe's do. `pool5` "ported" pads height and width by one and rounds
    down: the shape is that of "caffe", the windows are not. It is right only for weights that were trained with it.
    """

    def __init__(
        self,
        num_classes: int | None = 487,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        fc_width: int = 4096,
        in_channels: int = 3,
        convs: Sequence[int] = (1, 1, 2, 2, 2),
        depths: Sequence[int] = (3, 3, 3, 3, 3),
        crop: int = 112,
        pool5: str = "caffe",
    ) -> None:
        super().__init__()
        _check(widths, convs, depths, pool5)
        self._levels: list[tuple[list[str], tuple[int, int, int]]] = []  # (convolutions, kernel of the pool after them)
        channels = in_channels
        for number, (width, num_convs, depth) in enumerate(zip(widths, convs, depths, strict=True), start=1):
            names = [f"conv{number}{letter}" for letter in LETTERS[:num_convs]]
            for name in names:
                conv = nn.Conv3d(channels, width, (depth, 3, 3), padding=(depth // 2, 1, 1))
                self.add_module(name, conv)
                channels = width
            self._levels.append((names, (1, 2, 2) if number == 1 else (2, 2, 2)))
        self._pool5, self._crop = pool5, crop
        self._pooled_side = _pooled_side(crop, pool5)  # which the shape of fc6's weights presumes
        self.fc6 = nn.Linear(channels * self._pooled_side**2, fc_width)
        self.fc7 = nn.Linear(fc_width, fc_width)
        self.fc8 = None if num_classes is None else nn.Linear(fc_width, num_classes)

    def stages(self) -> Iterator[tuple[str, Stage]]:
        for number, (names, kernel) in enumerate(self._levels, start=1):
            for name in names:
                yield name, lambda x, name=name: F.relu(getattr(self, name)(x), inplace=True)
            if number == 5 and self._pool5 == "ported":
                yield "pool5", lambda x: F.max_pool3d(x, 2, 2, padding=(0, 1, 1))
            else:
                yield f"pool{number}", lambda x, kernel=kernel: F.max_pool3d(x, kernel, kernel, ceil_mode=True)
        yield "fc6", lambda x: F.relu(self.fc6(self._flatten(x)), inplace=True)
        yield "fc7", lambda x: F.relu(self.fc7(x), inplace=True)
        if self.fc8 is not None:
            yield "prob", lambda x: F.softmax(self.fc8(x), dim=1)

    def _flatten(self, pool5: Tensor) -> Tensor:
        side = self._pooled_side
        if pool5.shape[2:] != (1, side, side):
            raise UsageError(
                f"C3D's fc6 needs a pool5 of 1x{side}x{side}, but these clips give "
                f"{'x'.join(map(str, pool5.shape[2:]))}; use at most 16 frames a clip and a crop of {self._crop}, "
                "or layer pool5"
            )
        return pool5.flatten(1)  # (N, C, 1, 4, 4) -> (N, C * 16)


def _pooled_side(crop: int, pool5: str) -> int:
    side = crop
    for _ in range(4):
        side = -(-side // 2)
    return side // 2 + 1 if pool5 == "ported" else -(-side // 2)


def _check(widths: Sequence[int], convs: Sequence[int], depths: Sequence[int], pool5: str) -> None:
    for what, values in (("widths", widths), ("convs", convs), ("depths", depths)):
        if len(values) != 5 or min(values) < 1:
            raise UsageError(f"{what} of a C3D is {list(values)}; give 5 positive numbers")
    if any(depth % 2 == 0 for depth in depths):
        raise UsageError(f"depths of a C3D is {list(depths)}; extents in time are odd")
    if pool5 not in POOL5S:
        raise UnknownNameError("pool5", pool5, POOL5S)
    if max(convs) > len(LETTERS):
        raise UsageError(f"convs of a C3D is {list(convs)}; a group has at most {len(LETTERS)} convolutions")
