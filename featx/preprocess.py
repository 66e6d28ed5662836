"""What happens to a frame between the decoder and the first convolution, as the weights were trained.

decoded frame      (H, W, 3) uint8 BGR
  resize, crop     (crop, crop, 3) uint8 BGR once a frame, though clips overlap
clip of T frames   (T, crop, crop, 3) uint8  what travels to the device
  channel order, scale, mean, std            on the device
network input      (3, T, crop, crop) float32
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featx.errors import UsageError, VideoError

__all__ = ["Preprocess"]

CHANNEL_ORDERS = ("bgr", "rgb")
INTERPOLATIONS = ("bilinear", "bilinear-antialias")


@dataclass(frozen=True, eq=False)
class Preprocess:
    """The preprocessing of one checkpoint.

    `resize`: (height, width) in pixels, or one number for the short side with the aspect kept, or None.
    `interpolation`: "bilinear" is OpenCV's INTER_LINEAR (no antialiasing; within one grey level of it),
    "bilinear-antialias" Pillow's. `crop`: side of the square that goes into the network; `crop_offset`: its (y, x) top left
    corner, None for the centre. A value becomes ``(pixel * scale - mean) / std`` with `mean` and `std` in `channel_order`.
    `mean_cube`, float32 (3, T, h, w) in `channel_order`, takes the place of `mean` and is subtracted before the crop.
    """

    crop: int
    resize: tuple[int, int] | int | None = None
    interpolation: str = "bilinear"
    crop_offset: tuple[int, int] | None = None
    channel_order: str = "rgb"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mean_cube: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "crop_offset", "mean", "std"):  # a card's JSON has lists
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.channel_order not in CHANNEL_ORDERS:
            raise UsageError(f"channel_order is '{self.channel_order}', but must be one of {', '.join(CHANNEL_ORDERS)}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation is '{self.interpolation}', but must be one of {', '.join(INTERPOLATIONS)}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError(f"mean {self.mean} and std {self.std} must be three numbers each, std above 0")
        if isinstance(self.resize, tuple):
            y, x = self.crop_offset or (0, 0)
            if len(self.resize) != 2 or y + self.crop > self.resize[0] or x + self.crop > self.resize[1]:
                raise UsageError(f"a crop of {self.crop} at {(y, x)} does not fit into frames resized to {self.resize}")
        elif self.resize is not None and self.resize < self.crop:
            raise UsageError(f"a crop of {self.crop} does not fit into frames resized to a short side of {self.resize}")
        cube = self.mean_cube
        if cube is not None and (cube.ndim != 4 or cube.shape[0] != 3 or cube.shape[2:] != self.resize):
            raise UsageError(f"the mean cube is {cube.shape}, but must be (3, T, h, w) with (h, w) = {self.resize}")

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of a frame of `height` x `width` pixels after the resize."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short = self.resize  # the long side is truncated, as torchvision and the authors' PIL code do
        if height <= width:
            return short, max(short, int(short * width / height))
        return max(short, int(short * height / width)), short

    def resize_frames(self, frames: Tensor) -> Tensor:
        """Resize uint8 (N, H, W, 3) frames to uint8 (N, h, w, 3)."""
        size = self.resized_shape(*frames.shape[1:3])
        if size == tuple(frames.shape[1:3]):
            return frames
        # a permuted view, not a copy: torch then takes its channels-last path, many times faster on large frames
        planes = frames.permute(0, 3, 1, 2)  # (N, H, W, 3) -> (N, 3, H, W)
        resized = functional.interpolate(
            planes,
            size=size,
            mode="bilinear",
            align_corners=False,
            antialias=self.interpolation == "bilinear-antialias",
        )
        return resized.permute(0, 2, 3, 1)  # (N, 3, h, w) -> (N, h, w, 3)

    def crop_frames(self, frames: Tensor) -> Tensor:
        """Cut resized (N, h, w, 3) frames to (N, crop, crop, 3): a view."""
        rows, columns = self._window(*frames.shape[1:3])
        return frames[:, rows, columns]

    def normalise(self, clips: Tensor) -> Tensor:
        """Turn cropped uint8 BGR clips (N, T, crop, crop, 3) into network input, float32 (N, 3, T, crop, crop)."""
        if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[2:] != (self.crop, self.crop, 3):
            raise ValueError(
                f"clips are {clips.dtype} {tuple(clips.shape)}, not uint8 (N, T, {self.crop}, {self.crop}, 3)"
            )
        pixels = clips.permute(0, 4, 1, 2, 3)  # (N, T, h, w, 3) -> (N, 3, T, h, w)
        if self.channel_order == "rgb":
            pixels = pixels.flip(1)
        values = pixels.to(torch.float32)
        if self.scale != 1.0:
            values = values * self.scale
        if self.mean_cube is not None:
            # cropping cube and clip alike equals subtracting at full size and cropping the difference
            rows, columns = self._window(*self.mean_cube.shape[2:])
            cube = np.ascontiguousarray(self.mean_cube[:, :, rows, columns], dtype=np.float32)
            values = values - torch.from_numpy(cube).to(values.device)
        elif any(self.mean):
            values = values - self._constants(self.mean, values)
        if self.std != (1.0, 1.0, 1.0):
            values = values / self._constants(self.std, values)
        return values.contiguous()

    def _window(self, height: int, width: int) -> tuple[slice, slice]:
        y, x = self.crop_offset or ((height - self.crop) // 2, (width - self.crop) // 2)
        if min(y, x) < 0 or y + self.crop > height or x + self.crop > width:
            raise VideoError(f"frames of {width}x{height} pixels are smaller than the crop of {self.crop}")
        return slice(y, y + self.crop), slice(x, x + self.crop)

    def mean_cube_sha256(self) -> str:
        """SHA-256 of the mean cube's float32 bytes, "" without one: what the feature file records of it."""
        if self.mean_cube is None:
            return ""
        return hashlib.sha256(np.ascontiguousarray(self.mean_cube, dtype="<f4").tobytes()).hexdigest()

    @staticmethod
    def _constants(three: tuple[float, float, float], like: Tensor) -> Tensor:
        return torch.tensor(three, dtype=torch.float32, device=like.device).view(1, 3, 1, 1, 1)
