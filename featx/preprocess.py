"""What happens to a frame between the decoder and the first convolution, as the weights were trained.

decoded frame      (H, W, 3) uint8 BGR
  resize, crop     (crop, crop, 3) uint8 BGR once a frame, though clips overlap
clip of T frames   (T, crop, crop, 3) uint8  what travels to the device
  channel order, scale, mean, std            on the device
network input      (3, T, crop, crop) float32

Optical flow, x and y in the places of blue and green, goes the same way and ends as (2, T, crop, crop).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError, VideoError
from featx.resize import INTERPOLATIONS, Window, resize
from featx.views import place_crops

if TYPE_CHECKING:  # torch is imported where it computes: a card can be read, and refused, without it
    from torch import Tensor

__all__ = ["Preprocess"]

Resizer = Callable[["Tensor", tuple[int, int], str, Window], "Tensor"]

CHANNEL_ORDERS = ("bgr", "rgb", "flow")
LONG_SIDES = ("down", "nearest")
CROP_ROUNDINGS = ("down", "even")
MAX_SIDE = 16_384  # pixels; no video has more, and a slip of the pen would fill the memory
FLOAT32_MIN, FLOAT32_MAX = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


@dataclass(frozen=True, eq=False)
class Preprocess:
    """The preprocessing of one checkpoint.

    `resize`: (height, width) in pixels, or one number for the short side with the aspect kept, or None. `long_side` is then
    rounded "down" (torchvision, Hara's code) or to the "nearest" pixel (mmaction2). `interpolation`, each to the last grey
    level: "bilinear" is OpenCV's INTER_LINEAR, "bilinear-antialias" Pillow's before 13, "bilinear-float" torchvision's
    without antialias. `crop`: side of the square that goes into the network; `crop_offset`: its (y, x) top left corner, None
    for the centre: half of what is left over, which `crop_rounding` rounds "down" (mmaction2) or half to "even" (torchvision,
    Hara's code). A value becomes ``(pixel * scale - mean) / std`` in float32, with `mean` and `std` in
    `channel_order`; where `scale` is 1 / n, such as 1 / 255, pixels are divided by n.
    There are as many numbers as channels, 3, or 2 where `channel_order` is "flow" (x, y); () stands for 0 and for 1.
    `mean_cube`, float32 (3, T, h, w) in `channel_order`, takes the place of `mean` and is subtracted before the crop.

    Raises UsageError, which names the field, for values of another type or outside these ranges: sizes are whole numbers of
    at least 1, offsets of at least 0; the others are numbers that float32 can hold, `scale` and `std` above 0.
    """

    crop: int
    resize: tuple[int, int] | int | None = None
    interpolation: str = "bilinear"
    crop_offset: tuple[int, int] | None = None
    crop_rounding: str = "down"
    long_side: str = "down"
    channel_order: str = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    mean_cube: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("resize", "crop_offset", "mean", "std"):  # a card's JSON has lists
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_words_and_sizes()
        channels = self.num_channels
        object.__setattr__(self, "mean", (0.0,) * channels if self.mean == () else self.mean)
        object.__setattr__(self, "std", (1.0,) * channels if self.std == () else self.std)
        self._check_numbers()
        if isinstance(self.resize, tuple):
            y, x = self.crop_offset or (0, 0)
            if y + self.crop > self.resize[0] or x + self.crop > self.resize[1]:
                raise UsageError(f"a crop of {self.crop} at {(y, x)} does not fit into frames resized to {self.resize}")
        elif self.resize is not None and self.resize < self.crop:
            raise UsageError(f"a crop of {self.crop} does not fit into frames resized to a short side of {self.resize}")
        cube = self.mean_cube
        if cube is not None and not isinstance(cube, np.ndarray):
            raise UsageError(f"mean_cube is {cube!r:.100}, but must be an array of float32 (3, T, h, w)")
        if cube is not None and (cube.ndim != 4 or cube.shape[0] != channels or cube.shape[2:] != self.resize):
            raise UsageError(f"the mean cube is {cube.shape}, but must be (3, T, h, w) with (h, w) = {self.resize}")

    def _check_words_and_sizes(self) -> None:
        for name, known in (
            ("channel_order", CHANNEL_ORDERS),
            ("interpolation", tuple(INTERPOLATIONS)),
            ("crop_rounding", CROP_ROUNDINGS),
            ("long_side", LONG_SIDES),
        ):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is {getattr(self, name)!r:.100}, but must be one of {', '.join(known)}")
        side = f"a whole number from 1 to {MAX_SIDE}"
        if not _is_whole(self.crop, 1):
            raise UsageError(f"crop is {self.crop!r:.100}, but must be {side}")
        if self.resize is not None and not (_is_whole(self.resize, 1) or _is_pair(self.resize, 1)):
            raise UsageError(f"resize is {self.resize!r:.100}, but must be {side}, or two of them: height and width")
        if self.crop_offset is not None and not _is_pair(self.crop_offset, 0):
            raise UsageError(
                f"crop_offset is {self.crop_offset!r:.100}, but must be two whole numbers of at least 0: y, x"
            )

    def _check_numbers(self) -> None:
        if not (_is_number(self.scale) and self.scale >= FLOAT32_MIN):
            raise UsageError(f"scale is {self.scale!r:.100}, but must be a number above 0, within the range of float32")
        channels = self.num_channels
        for name in ("mean", "std"):
            values = getattr(self, name)
            is_good = isinstance(values, tuple) and len(values) == channels and all(map(_is_number, values))
            if not is_good or (name == "std" and min(values) < FLOAT32_MIN):
                word = {2: "two", 3: "three"}[channels]
                above = " above 0" * (name == "std")
                raise UsageError(
                    f"{name} is {values!r:.100}, but must be {word} numbers{above}, within the range of float32"
                )
        brightest = 255 * self.scale
        if not all(0 <= mean <= brightest * (1 + 1e-6) for mean in self.mean):  # it is subtracted after the scale
            raise UsageError(
                f"mean is {self.mean}, but a pixel times the scale {self.scale:g} is from 0 to {brightest:g}; "
                "give the mean of such values"
            )

    @property
    def num_channels(self) -> int:
        """Channels that go into the network: 2 for optical flow, else 3."""
        return 2 if self.channel_order == "flow" else 3

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of a frame of `height` x `width` pixels after the resize."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        short = self.resize
        if height <= width:
            return short, self._long_side(width, height)
        return self._long_side(height, width), short

    def _long_side(self, long: int, short: int) -> int:
        """The long side where `short` becomes `resize`; in the order of operations of those who round so."""
        if self.long_side == "nearest":
            return int(long * (self.resize / short) + 0.5)
        return int(self.resize * long / short)

    def prepare_frames(self, frames: Tensor, resizer: Resizer | None = None) -> Tensor:
        """Resize and crop uint8 (N, H, W, C) frames on the CPU to uint8 (N, crop, crop, C), a copy.

        The same as `crop_frames` of `resize_frames`, but what the crop leaves out is not computed. `resizer` does what
        `featx.resize.resize` does, and frames that have the right size it only cuts; frames may be whatever it takes that
        has such a shape. Raises VideoError where they are smaller than the crop.
        """
        size = self.resized_shape(*frames.shape[1:3])
        return self._part(frames, size, self._window(*size), resizer)

    def _part(self, frames: Tensor, size: tuple[int, int], window: Window, resizer: Resizer | None) -> Tensor:
        """The window of the frames after the resize to `size`, a copy."""
        import torch

        if resizer is not None:
            return resizer(frames, size, self.interpolation, window)
        if size != tuple(frames.shape[1:3]):
            return resize(frames, size, self.interpolation, window)
        top, left, height, width = window
        return frames[:, top : top + height, left : left + width].clone(memory_format=torch.contiguous_format)

    def crop_windows(self, height: int, width: int, crops: int = 1) -> list[Window]:
        """Where `crops` crops lie in a resized frame of `height` x `width`; see `featx.views.Views`.

        Raises VideoError where the frame is smaller than a crop.
        """
        return place_crops(self._window(height, width), height, width, crops)

    def prepare_crops(self, frames: Tensor, crops: int, resizer: Resizer | None = None) -> Tensor:
        """As `prepare_frames`, but several crops of every frame, which is resized once: uint8 (N, crops, crop, crop, C)."""
        import torch

        size = self.resized_shape(*frames.shape[1:3])
        windows = self.crop_windows(*size, crops)
        top, left = min(w.top for w in windows), min(w.left for w in windows)
        bottom, right = max(w.top + w.height for w in windows), max(w.left + w.width for w in windows)
        resized = self._part(frames, size, Window(top, left, bottom - top, right - left), resizer)
        pixels = resized.numpy()
        cut = [pixels[:, w.top - top :, w.left - left :][:, : w.height, : w.width] for w in windows]
        return torch.from_numpy(np.stack(cut, axis=1))

    def resize_frames(self, frames: Tensor) -> Tensor:
        """Resize uint8 (N, H, W, C) frames on the CPU to uint8 (N, h, w, C)."""
        size = self.resized_shape(*frames.shape[1:3])
        return frames if size == tuple(frames.shape[1:3]) else resize(frames, size, self.interpolation)

    def crop_frames(self, frames: Tensor) -> Tensor:
        """Cut resized (N, h, w, C) frames to (N, crop, crop, C): a view."""
        top, left, height, width = self._window(*frames.shape[1:3])
        return frames[:, top : top + height, left : left + width]

    def normalise(self, clips: Tensor) -> Tensor:
        """Turn cropped uint8 BGR clips (N, T, crop, crop, 3) into network input, float32 (N, 3, T, crop, crop).

        In memory the channels stay last, as they came.
        """
        import torch

        if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[2:] != (self.crop, self.crop, 3):
            raise ValueError(
                f"clips are {clips.dtype} {tuple(clips.shape)}, not uint8 (N, T, {self.crop}, {self.crop}, 3)"
            )
        pixels = clips.permute(0, 4, 1, 2, 3)  # (N, T, h, w, 3) -> (N, 3, T, h, w)
        if self.channel_order == "rgb":
            pixels = pixels.flip(1)
        elif self.channel_order == "flow":
            pixels = pixels[:, :2]
        values = pixels.to(torch.float32)
        if self.scale != 1.0:
            divisor = round(1 / self.scale)
            # dividing by 255 and multiplying by 1 / 255 differ in the last bit of some values; the authors' code divides
            values = values / divisor if divisor and 1 / divisor == self.scale else values * self.scale
        if self.mean_cube is not None:
            # cropping cube and clip alike equals subtracting at full size and cropping the difference
            top, left, height, width = self._window(*self.mean_cube.shape[2:])
            cube = self.mean_cube[:, :, top : top + height, left : left + width]
            cube = np.ascontiguousarray(cube, dtype=np.float32)
            values = values - torch.from_numpy(cube).to(values.device)
        elif any(self.mean):
            values = values - self._constants(self.mean, values)
        if set(self.std) != {1.0}:
            values = values / self._constants(self.std, values)
        return values

    def _window(self, height: int, width: int) -> Window:
        if self.crop_offset is not None:
            y, x = self.crop_offset
        elif self.crop_rounding == "down":
            y, x = (height - self.crop) // 2, (width - self.crop) // 2
        else:
            y, x = round((height - self.crop) / 2), round((width - self.crop) / 2)
        if min(y, x) < 0 or y + self.crop > height or x + self.crop > width:
            raise VideoError(f"frames of {width}x{height} pixels are smaller than the crop of {self.crop}")
        return Window(y, x, self.crop, self.crop)

    def mean_cube_sha256(self) -> str:
        """SHA-256 of the mean cube's float32 bytes, "" without one: what the feature file records of it."""
        if self.mean_cube is None:
            return ""
        return hashlib.sha256(np.ascontiguousarray(self.mean_cube, dtype="<f4").tobytes()).hexdigest()

    def mean_cube_averages(self) -> tuple[float, ...]:
        """What the mean cube is on average in each channel, of the part that the crop takes."""
        top, left, height, width = self._window(*self.mean_cube.shape[2:])
        cropped = self.mean_cube[:, :, top : top + height, left : left + width]
        return tuple(cropped.mean(axis=(1, 2, 3), dtype=np.float64).tolist())

    @staticmethod
    def _constants(numbers: tuple[float, ...], like: Tensor) -> Tensor:
        import torch

        return torch.tensor(numbers, dtype=torch.float32, device=like.device).view(1, -1, 1, 1, 1)


def _is_whole(value: object, least: int) -> bool:
    """Whether `value` is a whole number of pixels; True and 160.0 are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= MAX_SIDE


def _is_pair(value: object, least: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_is_whole(number, least) for number in value)


def _is_number(value: object) -> bool:
    """Whether float32 can hold `value`; NaN and the infinities are no numbers."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= FLOAT32_MAX
