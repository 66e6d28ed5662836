"""Dynamic textures: band-limited noise in space and time, water, smoke, fire, foliage, rain, snow and flickering light.

All are made of fields: sums of waves with random phases, each wave turning at its own rate, by one inverse Fourier
transform a frame. So a field exists at any time, forwards or backwards, and its bands in space and time are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .camera import Camera, View, sample_pictures, view_of
from .draws import TAU, choose, uniform
from .patterns import draw_colours

__all__ = ["DYNAMICS", "PACES", "SPACE_BANDS", "Dynamic", "draw_dynamic", "render_dynamic"]

# Families and their shares.
DYNAMICS = {"noise": 3, "water": 2, "smoke": 1.5, "fire": 1, "foliage": 2, "rain": 1, "snow": 1, "flicker": 1}
_DYNAMIC = {name: number for number, name in enumerate(DYNAMICS)}

SPACE_BANDS = ((1.0, 3.0), (3.0, 7.0), (7.0, 14.0))  # cycles a picture height
PACES = ((0.01, 0.04), (0.04, 0.12), (0.12, 0.35))  # cycles a shown frame


@dataclass(frozen=True)
class Dynamic:
    """The dynamic textures of a batch, on the CPU. Labels describe the clip as it is shown."""

    family: Tensor  # (B,) int64, index into DYNAMICS
    band: Tensor  # (B,) int64, index into SPACE_BANDS: of noise, water, foliage and flicker; -1 for the others
    pace: Tensor  # (B,) int64, index into PACES
    times: Tensor  # (B, T): the frames' times in shown frames from the middle; falls where a clip runs backwards
    drift: Tensor  # (B, 2): how far the field moves as a whole, (y, x) in heights a shown frame
    strength: Tensor  # (B,) 0..1
    colours: Tensor  # (B, 3, 3)
    seed: int  # of the fields' phases


def draw_dynamic(generator: Generator, times: Tensor) -> Dynamic:
    """Random dynamic textures for frames at `times` float32 (B, T), in source frames.

    The pace is drawn for the clip as it is shown, whatever the distance of its frames in time.
    """
    batch, num_frames = times.shape
    family = choose(generator, list(DYNAMICS.values()), batch)
    band = torch.randint(len(SPACE_BANDS), (batch,), generator=generator)
    pace = torch.randint(len(PACES), (batch,), generator=generator)
    step = (times[:, -1:] - times[:, :1]).abs() / max(num_frames - 1, 1)
    shown = (times - times.mean(1, keepdim=True)) / step.clamp_min(1e-3)
    quickness = torch.tensor([low**0.5 * high**0.5 for low, high in PACES])[pace]
    drift = torch.zeros(batch, 2)
    angle = torch.randn(batch, generator=generator) * 0.35  # from straight up or down
    down = torch.stack([angle.cos(), angle.sin()], 1)
    # Smoke and fire rise, rain and snow fall, in heights a frame for a pace of 1.
    speeds = {"smoke": -0.15, "fire": -0.25, "rain": 0.45, "snow": 0.15}
    for name, speed in speeds.items():
        drift = torch.where((family == _DYNAMIC[name])[:, None], (speed * quickness.sqrt())[:, None] * down, drift)
    has_band = torch.stack([family == _DYNAMIC[name] for name in ("noise", "water", "foliage", "flicker")]).any(0)
    return Dynamic(
        family=family,
        band=torch.where(has_band, band, -1),
        pace=pace,
        times=shown,
        drift=drift,
        strength=uniform(generator, (batch,)),
        colours=draw_colours(generator, batch * 3).view(batch, 3, 3),
        seed=int(torch.randint(2**62, (), generator=generator)),
    )


def render_dynamic(
    dynamic: Dynamic, pictures: Tensor, index: Tensor, camera: Camera, canvas: Tensor, rows: Tensor | None = None
) -> None:
    """Paint the dynamic textures of clips `rows` (all by default) over `canvas` float32 (B, 3, T, h, w), in place.

    Water, foliage, rain, snow, smoke and flicker are seen over or through pictures `index` (B,) of `pictures`
    float32 (N, 3, S, S), with `camera`; noise and fire cover what was there. Work is done on the canvas's device.
    """
    _, _, _, height, width = canvas.shape
    generator = torch.Generator().manual_seed(dynamic.seed)
    view = view_of(camera, height, width, canvas.device)
    names = list(DYNAMICS)
    index = index.view(len(index), -1)[:, 0]
    for row in range(len(canvas)) if rows is None else rows.tolist():
        name = names[int(dynamic.family[row])]
        fields = _draw_fields(generator, dynamic, row, name, height, width, canvas.device)
        _PAINTERS[name](canvas[row], fields, dynamic, row, _Behind(pictures, int(index[row]), view, row))


@dataclass(frozen=True)
class _Behind:
    """The still picture behind a dynamic texture."""

    pictures: Tensor
    index: int
    view: View
    row: int

    def grid(self) -> Tensor:
        return self.view.clip_grid(self.row)

    def sample(self, grid: Tensor) -> Tensor:
        """The picture (3, T, h, w) at `grid` (1, T, h, w, 2)."""
        return sample_pictures(self.pictures[self.index : self.index + 1], grid)[0]

    def look(self) -> Tensor:
        return self.sample(self.grid())


def _draw_fields(
    generator: Generator, dynamic: Dynamic, row: int, name: str, height: int, width: int, device: torch.device
) -> Tensor:
    """The moving fields of a clip, (F, T, h, w): two for foliage, one for the others; mean 0, variance about 1."""
    y = torch.fft.fftfreq(height, 1 / height)[:, None]
    x = torch.fft.rfftfreq(width, height / width / height)[None] * (height / width)
    frequency = torch.sqrt(y * y + x * x)  # cycles a picture height
    low, high = PACES[int(dynamic.pace[row])]
    rates = torch.zeros_like(frequency)
    if name in ("rain", "snow"):
        spectrum = _sparse_spectrum(generator, dynamic.drift[row], float(dynamic.strength[row]), name, y, x)
    else:
        num = 2 if name == "foliage" else 1
        noise = torch.randn((num, *frequency.shape, 2), generator=generator)
        spectrum = torch.view_as_complex(noise) * _amplitude(dynamic, row, name, frequency)
        if name == "water":  # long waves run faster, but turn slower: rate ~ sqrt(frequency), as in deep water
            band = SPACE_BANDS[int(dynamic.band[row])]
            rates = (low * high) ** 0.5 * torch.sqrt(frequency / (band[0] * band[1]) ** 0.5).expand_as(frequency)
        else:
            rates = uniform(generator, frequency.shape, low, high)
        rates = rates * (torch.randint(0, 2, frequency.shape, generator=generator) * 2 - 1)
    if name in ("smoke", "fire"):
        rates = rates * 0.3  # it changes while it rises
    times, drift = dynamic.times[row].to(device), dynamic.drift[row]
    turning = (TAU * (rates - drift[0] * y - drift[1] * x)).to(device)
    phase = times[:, None, None] * turning  # (T, h, w // 2 + 1)
    waves = torch.polar(torch.ones((), device=device).expand_as(phase), phase)
    return torch.fft.irfft2(spectrum.to(device)[:, None] * waves, s=(height, width))


def _amplitude(dynamic: Dynamic, row: int, name: str, frequency: Tensor) -> Tensor:
    """Amplitudes (h, f) of a field's waves, scaled so that the field's variance is about 1."""
    if name in ("smoke", "fire"):
        low, high, fall = 0.8, 24.0, 1.5
    else:
        (low, high), fall = SPACE_BANDS[int(dynamic.band[row])], 0.0
    if name == "flicker":
        low, high = 0.5, 2.5 * (1 + int(dynamic.band[row]))
    amplitude = frequency.clamp_min(0.5) ** -fall * ((frequency >= low) & (frequency <= high))
    # The real transform holds half of the waves; each has a real and an imaginary part of variance 1.
    variance = 4 * amplitude.square().sum()
    size = frequency.shape[0] * (frequency.shape[1] - 1) * 2
    return amplitude * (size / variance.sqrt().clamp_min(1e-9))


def _sparse_spectrum(generator: Generator, drift: Tensor, strength: float, name: str, y: Tensor, x: Tensor) -> Tensor:
    """The spectrum (1, h, f) of scattered drops, drawn out along their way where they are rain; 1 at their middle."""
    height, width = len(y), (x.shape[1] - 1) * 2
    share = (0.003 + 0.01 * strength) * 4096 / (height * width)  # 12 to 50 drops
    points = (uniform(generator, (height, width)) < share) * uniform(generator, (height, width), 0.6, 1.3)
    way = drift / drift.norm().clamp_min(1e-6)
    along, across = way[0] * y + way[1] * x, way[0] * x - way[1] * y
    thin, long = (
        (1.0 if name == "snow" else 0.5) / 64,
        (1.0 if name == "snow" else 3.0 + 4 * strength) / 64,
    )  # widths in heights
    blur = torch.exp(-0.5 * TAU**2 * ((thin * across) ** 2 + (long * along) ** 2))
    peak = blur[:, :1].sum() + 2 * blur[:, 1:].sum()  # of one blurred point, before the transform's scale
    return (torch.fft.rfft2(points) * blur * (height * width / peak))[None]


# ------------------------------------------------------------------------------------------------ painting


def _paint_noise(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    middle = dynamic.colours[row, 0] * 0.5 + 0.25
    swing = (dynamic.colours[row, 1] - dynamic.colours[row, 2]) * 0.25
    swing = swing + 0.06 * (1 + float(dynamic.strength[row])) * torch.where(swing.sum() < 0, -1.0, 1.0)
    middle, swing = (value.to(clip.device)[:, None, None, None] for value in (middle, swing))
    torch.addcmul(middle, swing, fields, out=clip)


def _paint_water(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    height = fields[0]  # (T, h, w); the slopes bend the light, and one side of a wave shines
    slope_y, slope_x = height.roll(-1, 1).sub_(height), height.roll(-1, 2).sub_(height)
    low, high = SPACE_BANDS[int(dynamic.band[row])]
    slope = TAU * (low * high) ** 0.5 / clip.shape[-2]  # about what a wave of variance 1 rises over a pixel
    size = (0.012 + 0.02 * float(dynamic.strength[row])) / slope
    grid = behind.grid()
    grid[0, ..., 1].add_(slope_y, alpha=size)
    grid[0, ..., 0].add_(slope_x, alpha=size)
    torch.addcmul(behind.sample(grid), slope_y.add_(slope_x), torch.full((), 2.5 * size, device=clip.device), out=clip)


def _paint_foliage(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    size = 0.012 + 0.03 * float(dynamic.strength[row])
    grid = behind.grid()
    grid[0, ..., 1].add_(fields[0], alpha=size)
    grid[0, ..., 0].add_(fields[1], alpha=size)
    clip.copy_(behind.sample(grid))


def _paint_smoke(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    strength = float(dynamic.strength[row])
    cover = fields[0].add_(2 * strength - 0.7).mul_(0.6).clamp_(0, 0.92)
    colour = (0.6 * dynamic.colours[row, 0].mean() + 0.4 * dynamic.colours[row, 0] + 0.1).to(clip.device)
    picture = behind.look()
    torch.lerp(picture, colour[:, None, None, None], cover, out=clip)


def _paint_fire(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    num_rows = clip.shape[-2]
    rise = torch.linspace(-1.0, 1.0, num_rows, device=clip.device)[:, None] * (1 + float(dynamic.strength[row]))
    heat = fields[0].mul_(0.6).add_(rise + 0.5).clamp_(0, 3)
    picture = behind.look().mul_(0.6)
    for channel, start in enumerate((0.0, 0.9, 1.9)):  # red, then yellow, then white
        picture[channel].add_((heat - start).clamp_(0, 1))
    clip.copy_(picture)


def _paint_drops(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    cover = fields[0].clamp_(0, 1).mul_(0.5 + 0.4 * float(dynamic.strength[row]))
    torch.lerp(behind.look(), torch.full((), 0.9, device=clip.device), cover, out=clip)


def _paint_flicker(clip: Tensor, fields: Tensor, dynamic: Dynamic, row: int, behind: _Behind) -> None:
    light = fields[0].mul_(0.15 + 0.3 * float(dynamic.strength[row])).add_(1).clamp_min_(0.1)
    torch.mul(behind.look(), light, out=clip)


_PAINTERS = {
    "noise": _paint_noise,
    "water": _paint_water,
    "smoke": _paint_smoke,
    "fire": _paint_fire,
    "foliage": _paint_foliage,
    "rain": _paint_drops,
    "snow": _paint_drops,
    "flicker": _paint_flicker,
}
