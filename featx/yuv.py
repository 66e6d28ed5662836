"""Planes of luma and chroma, and the whole-number rule by which swscale's fast path makes BGR of them.

A frame whose BGR follows from its planes by this rule need not be converted where it is decoded: half the bytes travel, and
whoever computes converts what it needs. The rule, for 8-bit samples with one chroma sample for 2 x 2 of luma:

    part(sample, factor) = ((sample << 3) * factor) >> 16
    luma  = part(Y - offset, f.luma)                     offset: 16, or 0 in full range
    blue  = luma + part(U - 128, f.blue_of_u)
    green = luma + part(U - 128, f.green_of_u) + part(V - 128, f.green_of_v)
    red   = luma + part(V - 128, f.red_of_v)             each cut to 0 .. 255; chroma is repeated, not interpolated

It holds for even heights. Knows numpy only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

__all__ = ["Planes", "YuvForm", "planes_to_bgr", "yuv_form"]

# H.273's number of the matrix -> the shares of red and blue in luma. 2 is "unspecified", for which swscale takes BT.601.
LUMA_SHARES = {
    1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593),
}  # fmt: skip

FULL_RANGE = 2  # H.273 would call it 1; this is libav's number


class YuvForm(NamedTuple):
    """The numbers of the rule above for one matrix and range; factors are in 13 bits behind the point."""

    offset: int
    luma: int
    blue_of_u: int
    green_of_u: int
    green_of_v: int
    red_of_v: int


class Planes(NamedTuple):
    """One frame: luma (H, W), and U and V of half its height and width, rounded up; uint8, rows may be padded."""

    luma: np.ndarray
    u: np.ndarray
    v: np.ndarray
    form: YuvForm

    @property
    def num_bytes(self) -> int:
        """Without padding."""
        return self.luma.size + self.u.size + self.v.size

    def write_to(self, place: np.ndarray) -> None:
        """Write luma, U and V, row by row without padding, to uint8 (num_bytes,)."""
        start = 0
        for plane in self[:3]:
            place[start : start + plane.size].reshape(plane.shape)[:] = plane
            start += plane.size


@lru_cache(maxsize=64)
def yuv_form(matrix: int, full_range: bool) -> YuvForm | None:
    """The rule for a matrix by its number in H.273, or None where swscale has none or rounds in another way.

    The factors are rounded where swscale rounds: to 16 bits, from there to full range, then to 13 bits.
    """
    if matrix not in LUMA_SHARES:
        return None
    red, blue = LUMA_SHARES[matrix]
    green = 1 - red - blue
    shares = (2 * (1 - blue), 2 * blue * (1 - blue) / green, 2 * red * (1 - red) / green, 2 * (1 - red))
    of_u, green_of_u, green_of_v, of_v = (int(share * 255 / 224 * 2**16 + 0.5) for share in shares)
    if full_range:
        of_u, green_of_u, green_of_v, of_v = (
            (factor * 224 + 127) // 255 for factor in (of_u, green_of_u, green_of_v, of_v)
        )
    luma = 2**16 if full_range else 2**16 * 255 // 219
    to_13_bits = [(factor + 4) >> 3 for factor in (luma, of_u, -green_of_u, -green_of_v, of_v)]
    return YuvForm(0 if full_range else 16, *to_13_bits)


def planes_to_bgr(planes: Planes) -> np.ndarray:
    """The BGR picture of a frame, uint8 (H, W, 3), by the rule above: readable rather than fast."""
    form = planes.form
    height, width = planes.luma.shape

    def part(samples: np.ndarray, offset: int, factor: int) -> np.ndarray:
        return (((samples.astype(np.int32) - offset) << 3) * factor) >> 16

    def spread(chroma: np.ndarray) -> np.ndarray:
        return chroma.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]

    luma = part(planes.luma, form.offset, form.luma)
    blue = spread(part(planes.u, 128, form.blue_of_u))
    green = spread(part(planes.u, 128, form.green_of_u) + part(planes.v, 128, form.green_of_v))
    red = spread(part(planes.v, 128, form.red_of_v))
    return np.stack([luma + blue, luma + green, luma + red], axis=-1).clip(0, 255).astype(np.uint8)
