"""A bank of still pictures for backgrounds, clothes and things: painted families, photographs and mixtures.

Crops of photographs (photographs.py) are flipped and recoloured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .draws import band_noise, choose, log_uniform, uniform
from .patterns import BANDS, PAINTERS, paint_band, soft_mask
from .photographs import Photographs, read_photographs

__all__ = ["BANDS", "FAMILIES", "Pictures", "draw_pictures"]

# Families and their shares in a bank.
FAMILIES = {
    "photo": 6,
    "mix": 2,
    "band": 2,
    "fractal": 1.5,
    "palette": 1.5,
    "stripes": 1,
    "checker": 1,
    "blobs": 1.5,
    "leaves": 3,
    "horizon": 2,
    "floor": 2,
    "wall": 1.2,
    "facade": 1.5,
    "gradient": 1,
}


@dataclass(frozen=True)
class Pictures:
    """A bank of N pictures."""

    pixels: Tensor  # (N, 3, S, S) float32, RGB, 0..1
    family: Tensor  # (N,) int64, index into FAMILIES, on the CPU
    band: Tensor  # (N,) int64, index into BANDS, on the CPU; -1 but for band-limited noise
    photograph: Tensor  # (N,) int64, which of the whole photographs, on the CPU; -1 but for the family "photo"


def draw_pictures(
    generator: Generator,
    num: int,
    size: int = 160,
    device: torch.device | str = "cpu",
    families: tuple[str, ...] = (),
    photographs: Photographs | None = None,
) -> Pictures:
    """Draw `num` pictures of `size` x `size` pixels, of all FAMILIES in their shares or of `families` alone.

    Photographs are crops of the whole ones of `photographs`, by default the installed packages'.

    They are made on the CPU, so that a seed means the same bank everywhere, and kept on `device`.
    """
    names = list(FAMILIES)
    shares = [share if not families or name in families else 0 for name, share in FAMILIES.items()]
    family = choose(generator, shares, num)
    band = torch.where(family == names.index("band"), torch.randint(len(BANDS), (num,), generator=generator), -1)
    whole = (photographs or read_photographs()).whole
    photograph = torch.where(family == names.index("photo"), torch.randint(len(whole), (num,), generator=generator), -1)
    pixels = torch.empty(num, 3, size, size)
    for row in range(num):
        photo = whole[int(photograph[row])]
        pixels[row] = _draw_picture(generator, names[int(family[row])], int(band[row]), photo, size)
    return Pictures(pixels.clamp_(0, 1).to(device), family, band, photograph)


def _draw_picture(generator: Generator, family: str, band: int, photo: Tensor, size: int) -> Tensor:
    if family == "band":
        return paint_band(generator, size, band)  # nothing is added: its label must stay true
    if family == "mix":
        return _mix(generator, photo, size)
    if family == "photo":
        return _crop(generator, photo, size)
    return _lit(generator, PAINTERS[family](generator, size))


def _lit(generator: Generator, picture: Tensor) -> Tensor:
    """Half of the pictures get light that changes slowly over them."""
    strength = float(uniform(generator, (), 0, 0.3))
    if strength < 0.15:
        return picture
    return picture * (1 + strength * band_noise(generator, 1, picture.shape[-1], 0, 2)).clamp_min(0.2)


def _mix(generator: Generator, photo: Tensor, size: int) -> Tensor:
    """Two pictures side by side or through each other."""
    names = [name for name in FAMILIES if name not in ("mix", "band")]
    picks = torch.randint(len(names), (2,), generator=generator).tolist()
    first, second = (_draw_picture(generator, names[pick], -1, photo, size) for pick in picks)
    if float(uniform(generator, ())) < 0.3:
        return torch.lerp(first, second, float(uniform(generator, (), 0.3, 0.7)))
    return torch.lerp(first, second, soft_mask(generator, size, float(log_uniform(generator, (), 0.01, 0.5))))


def _crop(generator: Generator, photo: Tensor, size: int) -> Tensor:
    """The richest of three crops of a photograph, upright or mirrored, larger or smaller, in other colours."""
    _, height, width = photo.shape
    side = int(min(height, width) * float(log_uniform(generator, (), 0.4, 1.0)))
    tops = torch.randint(height - side + 1, (3,), generator=generator).tolist()
    lefts = torch.randint(width - side + 1, (3,), generator=generator).tolist()
    crops = [photo[None, :, top : top + side, left : left + side] for top, left in zip(tops, lefts, strict=True)]
    crop = max(crops, key=lambda crop: float(crop[:, 1, ::8, ::8].std()))  # rather not a piece of empty sky
    crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=side > size, align_corners=False)[0]
    mirrored, upended, negative, twisted = (uniform(generator, (4,)) < torch.tensor([0.5, 0.08, 0.04, 0.3])).tolist()
    if mirrored:
        crop = crop.flip(2)
    if upended:
        crop = crop.flip(1)
    if negative:
        crop = 1 - crop
    return _recoloured(generator, crop, twisted)


def _recoloured(generator: Generator, picture: Tensor, twisted: bool) -> Tensor:
    """Other colours for the same light and shade: gains a channel, saturation, contrast; `twisted` permutes hues."""
    mean = picture.mean((1, 2), keepdim=True)
    if twisted:
        picture = picture[torch.randperm(3, generator=generator)]
    grey = picture.mean(0, keepdim=True)
    picture = grey + (picture - grey) * float(log_uniform(generator, (), 0.4, 1.7))
    gains = torch.exp(torch.randn((3, 1, 1), generator=generator) * 0.15)
    gains = gains / gains.mean()
    contrast = float(log_uniform(generator, (), 0.7, 1.25))
    return ((picture - mean) * contrast + mean) * gains
