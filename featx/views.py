"""Several views of one clip, crops at several places of its frames and their mirror images, whose features are averaged.

crops 1        crops 3              crops 5
+---------+    +---------+          +---------+
|   ___   |    |___   ___|          |1 |   |2 |      3: where the frame is upright, above each other
|  |   |  |    |1 |2 |3  |          |--+ 5 +--|
|  |___|  |    |__|__|___|          |3 |   |4 |
+---------+    +---------+          +---------+
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from featx.errors import UsageError
from featx.resize import Window

__all__ = ["NUM_CROPS", "Views", "place_crops"]

NUM_CROPS = (1, 3, 5, 10)


@dataclass(frozen=True)
class Views:
    """Which views of a clip go through the network, in this order: crop by crop, each followed by its mirror image.

    `crops` 1: the card's own crop, mostly the centre. 3: along the long side of the resized frame (the width where both are
    equal) at its start, where the card's own lies, and at its end; across it all lie where the card's own does. 5: the four
    corners (top left, top right, bottom left, bottom right) and the card's own. 10: the five with `flip`, and kept as these.
    `flip` adds the mirror image, left for right, of every crop; in optical flow its horizontal part x becomes 255 - x, since
    what moved to the left then moves to the right (0 lies at 127.5). `is_flow` says that frames are optical flow.

    Raises UsageError for another number of crops, and for 10 with `flip`.
    """

    crops: int = 1
    flip: bool = False
    is_flow: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.crops, bool) or self.crops not in NUM_CROPS:
            raise UsageError(f"crops is {self.crops!r}, but must be one of {', '.join(map(str, NUM_CROPS))}")
        if self.crops == 10 and self.flip:
            raise UsageError("crops is 10, which are 5 and their mirror images; leave flip out, or take 5 with it")
        if self.crops == 10:
            object.__setattr__(self, "crops", 5)
            object.__setattr__(self, "flip", True)

    @property
    def num_views(self) -> int:
        """Views of a clip: so many times the work of one."""
        return self.crops * (2 if self.flip else 1)

    def of_clip(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """The views of a clip, uint8 (T, crop, crop, 3) each.

        `frames`: (T, crop, crop, 3), or where there are several crops (T, crops, crop, crop, 3).
        """
        for i in range(self.crops):
            view = frames if frames.ndim == 4 else np.ascontiguousarray(frames[:, i])
            yield view
            if self.flip:
                yield self._mirrored(view)

    def _mirrored(self, view: np.ndarray) -> np.ndarray:
        mirrored = np.ascontiguousarray(view[:, :, ::-1])
        if self.is_flow:
            mirrored[..., 0] = 255 - mirrored[..., 0]
        return mirrored


def place_crops(own: Window, height: int, width: int, crops: int) -> list[Window]:
    """Where `crops` (1, 3 or 5) crops lie in a resized frame; `own` is the card's. See Views."""
    if crops == 1:
        return [own]
    top, left, h, w = own
    bottom, right = height - h, width - w
    if crops == 3 and width >= height:
        return [Window(top, x, h, w) for x in (0, left, right)]
    if crops == 3:
        return [Window(y, left, h, w) for y in (0, top, bottom)]
    corners = [Window(y, x, h, w) for y in (0, bottom) for x in (0, right)]
    return [*corners, own]
