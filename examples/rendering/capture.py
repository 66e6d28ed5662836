"""What a camera and a codec do to a clip: blur, light, noise, black bars and compression, in place.

Each effect is drawn for a share of the clips and computed for these alone. Colours and light change moderately: they
must go on telling one thing from another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .camera import Camera, halved
from .draws import TAU, log_uniform, uniform

__all__ = ["EFFECTS", "Capture", "apply_capture", "draw_capture", "quantise"]

# Effects and the share of clips that each is applied to.
EFFECTS = {
    "low_resolution": 0.12, "defocus": 0.15, "motion_blur": 0.3, "light": 0.35, "gamma": 0.2, "low_light": 0.05,
    "noise": 0.3, "bars": 0.06, "compression": 0.35,
}  # fmt: skip


@dataclass(frozen=True)
class Capture:
    """How each clip of a batch is taken, on the CPU; what an effect does not apply to is 0, gains and gammas are 1."""

    low_resolution: Tensor  # (B,) bool: half of the resolution is lost
    defocus: Tensor  # (B,): the blur's standard deviation, in heights
    smear: Tensor  # (B, 2): motion blur, (y, x) in heights
    gain: Tensor  # (B, 3, T): by which channels are multiplied, frame by frame
    lift: Tensor  # (B,): what is added after
    gamma: Tensor  # (B,)
    noise: Tensor  # (B,): the standard deviation in black; less in the light
    noise_start: Tensor  # (B,) 0..1: where in the sheet of noise to begin
    bars: Tensor  # (B, 2): black bars above and below, left and right, in parts of the side
    compression: Tensor  # (B,): the quantiser's finest step, of 0..1


def draw_capture(generator: Generator, times: Tensor, camera: Camera | None = None) -> Capture:
    """Random capture of clips with frames at `times` float32 (B, T).

    Motion blur runs along the way of `camera`, over up to a whole frame; without one, in any direction.
    """
    batch, num_frames = times.shape
    names = list(EFFECTS)
    applies = uniform(generator, (batch, len(names))) < torch.tensor(list(EFFECTS.values()))
    on = {name: applies[:, column] for column, name in enumerate(names)}
    some = (batch,)
    if camera is None:
        angle = uniform(generator, some, 0, TAU)
        way = torch.stack([angle.sin(), angle.cos()], 1) * 0.05
    else:
        way = (camera.offset[:, -1] - camera.offset[:, 0]) / max(num_frames - 1, 1) * camera.zoom.mean(1)[:, None]
    way = way * (0.08 / way.norm(dim=1, keepdim=True).clamp_min(1e-6)).clamp_max(1)
    drift = uniform(generator, (batch, 1), -0.15, 0.15) * torch.linspace(-1, 1, num_frames)
    flickers = (uniform(generator, (batch, 1)) < 0.4) * uniform(generator, (batch, 1), 0.01, 0.06)
    light = 1 + drift + flickers * torch.randn((batch, num_frames), generator=generator)
    colour = torch.exp(0.05 * torch.randn((batch, 3, 1), generator=generator))
    contrast = log_uniform(generator, some, 0.75, 1.25)
    lift = 0.5 * (1 - contrast) + uniform(generator, some, -0.04, 0.04)
    gain = torch.where(on["light"][:, None, None], light[:, None] * colour * contrast[:, None, None], 1.0)
    dark = torch.where(on["low_light"], uniform(generator, some, 0.3, 0.6), 1.0)
    return Capture(
        low_resolution=on["low_resolution"],
        defocus=on["defocus"] * log_uniform(generator, some, 0.006, 0.02),
        smear=on["motion_blur"][:, None] * way * uniform(generator, (batch, 1), 0.3, 1),
        gain=gain * dark[:, None, None],
        lift=on["light"] * lift * dark,
        gamma=torch.where(on["gamma"], log_uniform(generator, some, 0.7, 1.4), 1.0),
        noise=(on["noise"] | on["low_light"]) * log_uniform(generator, some, 0.008, 0.06),
        noise_start=uniform(generator, some),
        bars=on["bars"][:, None] * uniform(generator, (batch, 2), 0.04, 0.14) * _one_of_two(generator, batch),
        compression=on["compression"] * log_uniform(generator, some, 0.004, 0.022),
    )


def _one_of_two(generator: Generator, batch: int) -> Tensor:
    first = uniform(generator, (batch,)) < 0.7
    return torch.stack([first, ~first], 1).float()


def apply_capture(canvas: Tensor, capture: Capture) -> None:
    """Take the clips of `canvas` float32 (B, 3, T, h, w) in place; the result lies in 0..1.

    Light falls through the lens, so blur comes first; then the sensor's gain and noise, and last the codec.
    """
    _, _, _, height, width = canvas.shape
    gains = capture.gain.to(canvas.device)
    changes_light = ((capture.gain != 1).flatten(1).any(1) | (capture.lift != 0)).tolist()
    rows = zip(
        canvas, capture.low_resolution.tolist(), (capture.defocus * height).tolist(), (capture.smear * height).tolist(),
        changes_light, gains, capture.lift.tolist(), capture.gamma.tolist(), capture.noise.tolist(),
        capture.noise_start.tolist(), capture.bars.tolist(), capture.compression.tolist(), strict=True,
    )  # fmt: skip
    for clip, is_coarse, blur, smear, is_lit, gain, lift, gamma, noise, start, bars, step in rows:
        if is_coarse:
            _coarsen(clip)
        if blur:
            _defocus(clip, blur)
        if math.hypot(*smear) > 0.5:
            _smear(clip, *smear)
        if is_lit:
            clip.mul_(gain[:, :, None, None]).add_(lift)
        clip.clamp_(0, 1)
        if gamma != 1:
            clip.pow_(gamma)
        if noise:
            _add_noise(clip, noise, start)
        if any(bars):
            _add_bars(clip, round(bars[0] * height), round(bars[1] * width))
        if step:
            _compress(clip, step)
        clip.clamp_(0, 1)


def _coarsen(clip: Tensor) -> None:
    """Lose half of the resolution, as videos do that were enlarged."""
    lower, right = clip.shape[-2] % 2, clip.shape[-1] % 2
    small = halved(F.pad(clip, (0, right, 0, lower), mode="replicate") if lower or right else clip)
    clip.copy_(F.interpolate(small, clip.shape[-2:], mode="bilinear", align_corners=False))


def _defocus(clip: Tensor, deviation: float) -> None:
    """Blur by a Gaussian of `deviation` pixels, first along x, then along y."""
    radius = max(1, math.ceil(2 * deviation))
    weights = [math.exp(-0.5 * (k / deviation) ** 2) for k in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    for axis in (2, 3):
        size = clip.shape[axis]
        margin = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
        padded = F.pad(clip, margin, mode="replicate")
        torch.mul(padded.narrow(axis, radius, size), weights[0] / total, out=clip)
        for k in range(1, radius + 1):
            clip.add_(padded.narrow(axis, radius - k, size), alpha=weights[k] / total)
            clip.add_(padded.narrow(axis, radius + k, size), alpha=weights[k] / total)


def _smear(clip: Tensor, length_y: float, length_x: float) -> None:
    """Average the clip along a line of these pixels, in whole pixels."""
    num = math.ceil(max(abs(length_y), abs(length_x))) + 1
    steps = [k / (num - 1) - 0.5 for k in range(num)]
    shifts = [(round(length_y * step), round(length_x * step)) for step in steps]
    reach_y, reach_x = (max(abs(shift[axis]) for shift in shifts) for axis in range(2))
    padded = F.pad(clip, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    height, width = clip.shape[-2:]
    clip.zero_()
    for y, x in shifts:
        clip.add_(padded[..., reach_y + y : reach_y + y + height, reach_x + x : reach_x + x + width], alpha=1 / num)


@lru_cache(maxsize=4)
def _noise_sheet(num: int, device: torch.device) -> Tensor:
    """One long row of normal noise, the same on all devices, from which clips take pieces: drawing it is slow."""
    return torch.randn(num, generator=torch.Generator().manual_seed(20)).to(device)


def _add_noise(clip: Tensor, deviation: float, start: float) -> None:
    """Sensor noise, weaker where there is more light."""
    spare = 1 << 18
    first = int(start * spare)
    noise = _noise_sheet(clip.numel() + spare, clip.device)[first : first + clip.numel()].view(clip.shape)
    clip.addcmul_(clip.mul(-0.8 * deviation).add_(deviation), noise)


def _add_bars(clip: Tensor, rows: int, columns: int) -> None:
    """Black bars of so many rows above and below, and so many columns left and right."""
    if rows:
        clip[:, :, :rows] = 0
        clip[:, :, -rows:] = 0
    if columns:
        clip[..., :columns] = 0
        clip[..., -columns:] = 0


# ------------------------------------------------------------------------------------------------ compression


# Light and two differences of colour (as in television of standard definition), and the way back.
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_FROM_YCC = torch.linalg.inv(_TO_YCC)


@lru_cache(maxsize=4)
def _dct(device: torch.device) -> Tensor:
    """The cosine transform of a block of 8 x 8 as an orthonormal matrix (64, 64) on its pixels in a row."""
    k = torch.arange(8, dtype=torch.float64)
    basis = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * 0.5  # (frequency, place)
    basis[0] *= 0.5**0.5
    return torch.kron(basis, basis).float().to(device)


@lru_cache(maxsize=4)
def _steps(slope: float, device: torch.device) -> Tensor:
    """Quantiser steps (64,) of a block's coefficients, relative to the finest: coarser for finer detail."""
    k = torch.arange(8, dtype=torch.float32)
    return (1 + slope * (k[:, None] + k[None])).flatten().to(device)


def quantise(planes: Tensor, step: float, slope: float = 0.35) -> Tensor:
    """Round the cosine coefficients of blocks of 8 x 8 of `planes` (N, h, w), h and w multiples of 8.

    The coefficient of frequencies (v, u) becomes a multiple of 8 * step * (1 + slope * (v + u)): a flat block's lightness
    becomes a multiple of `step`.
    """
    num, height, width = planes.shape
    steps = _steps(slope, planes.device) * (8 * step)
    blocks = planes.view(num, height // 8, 8, width // 8, 8).transpose(2, 3).reshape(-1, 64)
    coefficients = (blocks @ _dct(planes.device).T).div_(steps).round_().mul_(steps)
    rounded = (coefficients @ _dct(planes.device)).view(num, height // 8, width // 8, 8, 8)
    return rounded.transpose(2, 3).reshape(num, height, width)


def _compress(clip: Tensor, step: float) -> None:
    """Quantise light and, at half the resolution and more coarsely, colour."""
    _, _, height, width = clip.shape
    lower, right = -height % 16, -width % 16
    whole = F.pad(clip, (0, right, 0, lower), mode="replicate") if lower or right else clip
    shape = whole.shape[1:]
    ycc = (_TO_YCC.to(clip.device) @ whole.reshape(3, -1)).view(3, *shape)
    ycc[0] = quantise(ycc[0], step)
    colour = halved(ycc[1:])
    colour = quantise(colour.flatten(0, 1), 1.2 * step, 0.5).view_as(colour)
    doubled = ycc[1:].view(2, shape[0], shape[1] // 2, 2, shape[2] // 2, 2)
    doubled.copy_(colour[:, :, :, None, :, None].expand_as(doubled))
    decoded = (_FROM_YCC.to(clip.device) @ ycc.view(3, -1)).view(3, *shape)
    clip.copy_(decoded[:, :, :height, :width])
