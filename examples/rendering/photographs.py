"""Photographs: the sample pictures inside installed packages, and a folder of one's own, whole ones and cut-out things.

The packages are scikit-learn and, where it is installed, scikit-image. In a folder, a PNG with transparency is a thing cut
out of its background (objects.py moves it about); everything else is a picture (pictures.py takes crops of it).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Photographs", "read_photographs"]

CUTOUT_SIDE = 112  # in pixels, of a cut-out thing
LEAST_SIDE = 448  # in pixels: the shorter side that larger photographs are brought to
SUFFIXES = (".jpg", ".jpeg", ".png")

_SAMPLES = {
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "skimage": (
        "data",
        ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
         "gravel.png", "motorcycle_left.png", "rocket.jpg"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Photographs:
    """`whole`: float32 (3, h, w), RGB, 0..1, of any size. `cutouts`: uint8 (M, 4, S, S), RGB times cover, and cover.

    A cut-out thing lies in the disc that its square holds, upright, as large as it fits.
    """

    whole: tuple[Tensor, ...]
    cutouts: Tensor


@lru_cache(maxsize=2)
def read_photographs(folder: Path | None = None) -> Photographs:
    """The installed packages' photographs and, in the order of their paths, those of `folder`.

    Raises ValueError for a folder without any, and PyAV's errors for a file that is no image.
    """
    whole = [_whole(_read(path)) for path in _samples()]
    cutouts = []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder else []
    if folder and not paths:
        raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)}); give a folder of photographs")
    for path in paths:
        pixels = _read(path)
        if int(pixels[..., 3].min()) < 128:
            cutouts.append(_cutout(pixels))
        else:
            whole.append(_whole(pixels))
    return Photographs(
        tuple(whole), torch.stack(cutouts) if cutouts else torch.empty(0, 4, CUTOUT_SIDE, CUTOUT_SIDE).byte()
    )


def _samples() -> list[Path]:
    found = []
    for package, (folder, names) in _SAMPLES.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            found += [Path(spec.origin).parent / folder / name for name in names]
    return [path for path in found if path.exists()]


def _read(path: Path) -> np.ndarray:
    """An image as RGBA uint8 (h, w, 4)."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgba")


def _whole(pixels: np.ndarray) -> Tensor:
    photo = torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1).float().div_(255)  # (h, w, 4) -> (3, h, w)
    scale = LEAST_SIDE / min(photo.shape[1:])
    return photo if scale >= 1 else _resized(photo, scale)


def _cutout(pixels: np.ndarray) -> Tensor:
    """RGBA (h, w, 4) -> (4, S, S), the seen part of it as large as fits in the square's disc."""
    cover = pixels[..., 3:] / 255.0
    image = torch.from_numpy(np.concatenate([pixels[..., :3] / 255.0 * cover, cover], 2)).permute(2, 0, 1).float()
    rows, columns = torch.nonzero(image[3].amax(1) > 0.1), torch.nonzero(image[3].amax(0) > 0.1)
    image = image[:, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    image = _resized(image, (CUTOUT_SIDE - 4) / float(np.hypot(*image.shape[1:])))
    _, height, width = image.shape
    square = torch.zeros(4, CUTOUT_SIDE, CUTOUT_SIDE)
    top, left = (CUTOUT_SIDE - height) // 2, (CUTOUT_SIDE - width) // 2
    square[:, top : top + height, left : left + width] = image
    return square.clamp_(0, 1).mul_(255).round_().byte()


def _resized(image: Tensor, scale: float) -> Tensor:
    size = [max(1, round(scale * side)) for side in image.shape[1:]]
    return F.interpolate(image[None], size, mode="bilinear", antialias=scale < 1, align_corners=False)[0]
