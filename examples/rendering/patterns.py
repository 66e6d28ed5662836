"""Families of painted still pictures: noise, stripes, leaves, places with a horizon, walls.

A painter makes one picture float32 (3, size, size), RGB, about 0..1, from a CPU generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .draws import TAU, band_noise, log_uniform, uniform

__all__ = ["BANDS", "PAINTERS", "draw_colours", "paint_band", "soft_mask"]

# Bands of the band-limited noise, in cycles a picture. In a view of half the picture they are half of this a view.
BANDS = ((2.0, 5.0), (5.0, 11.0), (11.0, 22.0), (22.0, 42.0))

# The main axes of natural colours: light, blue to yellow, green to red; and how much of each there is.
_OPPONENTS = torch.tensor([[1.0, 1.0, 1.0], [0.7, 0.15, -1.0], [0.8, -0.9, 0.2]])
_COMMON_HUES = torch.tensor([0.02, 0.07, 0.1, 0.13, 0.3, 0.57, 0.62])  # of skin, wood, earth, leaves, sky; 1 is a turn
_OPPONENT_SHARES = torch.tensor([1.0, 0.3, 0.15])


def draw_colours(generator: Generator, num: int) -> Tensor:
    """Random colours (num, 3): dark and light, dull ones more often than bright ones, earth and sky more than magenta."""
    free, common = uniform(generator, (num,)), torch.randint(len(_COMMON_HUES), (num,), generator=generator)
    near_common = _COMMON_HUES[common] + 0.03 * torch.randn(num, generator=generator)
    hue = 6 * torch.where(uniform(generator, (num,)) < 0.35, free, near_common)[:, None] % 6
    value = 0.06 + 0.92 * uniform(generator, (num, 1))
    saturation = uniform(generator, (num, 1)) ** 1.8
    wheel = ((hue + torch.tensor([[0.0, 4.0, 2.0]])) % 6 - 3).abs().sub(1).clamp(0, 1)
    return value * (1 - saturation * (1 - wheel))


def soft_mask(generator: Generator, size: int, softness: float = 0.1) -> Tensor:
    """A mask (size, size) of large smooth patches, 0..1, about half of it 1."""
    noise = band_noise(generator, 1, size, 0, uniform(generator, (), 2, 7).item(), 0.5)[0]
    return torch.sigmoid(noise / softness)


def _one(generator: Generator, low: float, high: float) -> float:
    return float(uniform(generator, (), low, high))


def _axes(size: int) -> tuple[Tensor, Tensor]:
    """y (size, 1) and x (1, size) in 0..1."""
    line = (torch.arange(size) + 0.5) / size
    return line[:, None], line[None]


def _turned(generator: Generator, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates (size, size) along two crossed directions, of any angle, often upright."""
    y, x = _axes(size)
    angle = _one(generator, 0, math.pi) if _one(generator, 0, 1) < 0.6 else math.pi / 2 * round(_one(generator, 0, 1))
    return math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x


def _palette(generator: Generator, values: Tensor) -> Tensor:
    """Map values (...), mostly in 0..1, to RGB (3, ...) along a way through 2 to 5 random colours."""
    num = int(torch.randint(2, 6, (), generator=generator))
    colours = draw_colours(generator, num)
    at = values.clamp(0, 1) * (num - 1)
    low = at.long().clamp_max(num - 2)
    part = (at - low)[..., None]
    return torch.lerp(colours[low], colours[low + 1], part).movedim(-1, 0)


def _roughness(generator: Generator, size: int, strength: float) -> Tensor:
    """Weak fractal noise (1, size, size) to lay over a flat area."""
    return strength * band_noise(generator, 1, size, 1, size / 2, _one(generator, 0.7, 1.4))


def paint_fractal(generator: Generator, size: int) -> Tensor:
    """Noise as in natural pictures: amplitude falls with frequency, light varies more than colour."""
    fall = uniform(generator, (3,), 0.9, 1.7)
    noise = band_noise(generator, 3, size, 0.9, size, fall, log_uniform(generator, (), 1, 12))
    strength = _OPPONENT_SHARES * uniform(generator, (3,), 0.3, 1.6) * _one(generator, 0.1, 0.28)
    colour = draw_colours(generator, 1)[0] * 0.7 + 0.15
    return colour[:, None, None] + torch.einsum("kc,kyx->cyx", _OPPONENTS * strength[:, None], noise)


def paint_palette(generator: Generator, size: int) -> Tensor:
    """Fractal noise through a palette, sometimes in folds like marble or rings of wood."""
    noise = band_noise(generator, 1, size, 0, size / 3, _one(generator, 1.2, 2.2), log_uniform(generator, (), 1, 15))[0]
    if _one(generator, 0, 1) < 0.5:
        return _palette(generator, noise * 0.3 + 0.5)
    return _palette(generator, 0.5 + 0.5 * torch.sin(noise * _one(generator, 2, 7)))


def paint_band(generator: Generator, size: int, band: int) -> Tensor:
    """Noise of frequencies in BANDS[band] alone, of one or two colours on a mean."""
    low, high = BANDS[band]
    noise = band_noise(generator, 2, size, low, high)
    colours = (draw_colours(generator, 2) - 0.4) * 0.25
    colours[0] += 0.12
    return 0.5 + torch.einsum("kc,kyx->cyx", colours, noise)


def paint_stripes(generator: Generator, size: int) -> Tensor:
    """Stripes of two to four colours, straight or bent, with hard or soft edges."""
    along, _ = _turned(generator, size)
    bend = _one(generator, 0, 0.06) if _one(generator, 0, 1) < 0.4 else 0.0
    along = along + bend * band_noise(generator, 1, size, 0, 4)[0]
    count = float(log_uniform(generator, (), 3, 26))
    wave = torch.sin(TAU * (count * along + _one(generator, 0, 1)))
    wave = wave + _one(generator, 0, 0.8) * torch.sin(TAU * count / 3 * along)
    mix = (wave * _one(generator, 0.5, 4)).clamp(-1, 1) * 0.5 + 0.5
    return _palette(generator, mix) + _roughness(generator, size, _one(generator, 0, 0.08))


def paint_checker(generator: Generator, size: int) -> Tensor:
    """Tiles in rows, of two colours or of many."""
    along, across = _turned(generator, size)
    count = float(log_uniform(generator, (), 3, 14))
    flat = _tiles(generator, along * count + 50, across * count * _one(generator, 0.6, 1.6) + 50)
    return flat + _roughness(generator, size, _one(generator, 0, 0.08))


def _tiles(generator: Generator, u: Tensor, v: Tensor) -> Tensor:
    """Colours (3, ...) of tiles 1 x 1 at coordinates u, v: a checkerboard, or every tile by chance; with joints."""
    row, column = v.floor().long(), u.floor().long()
    colours = draw_colours(generator, 2)
    table = torch.lerp(colours[0], colours[1], uniform(generator, (17, 19, 1)))
    if _one(generator, 0, 1) < 0.5:
        parity = ((row + column) % 2).unsqueeze(-1)
        flat = torch.where(parity == 0, colours[0], colours[1])
    else:
        flat = table[row % 17, column % 19]
    joint = _one(generator, 0, 0.08) if _one(generator, 0, 1) < 0.5 else 0.0
    inside = torch.minimum((u - column - 0.5).abs().neg() + 0.5, (v - row - 0.5).abs().neg() + 0.5)
    cover = (inside > joint).float()
    return torch.lerp(draw_colours(generator, 1)[0], flat, cover.unsqueeze(-1)).movedim(-1, 0)


def paint_blobs(generator: Generator, size: int) -> Tensor:
    """Large smooth patches, their borders sharp, each with its own texture."""
    picture = paint_fractal(generator, size)
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        patch = PAINTERS[("fractal", "palette", "stripes")[int(torch.randint(3, (), generator=generator))]]
        mask = soft_mask(generator, size, float(log_uniform(generator, (), 0.02, 0.3)))
        picture = torch.lerp(picture, patch(generator, size), mask)
    return picture


def paint_leaves(generator: Generator, size: int) -> Tensor:
    """Discs and polygons that hide one another, many small and few large ones (1 / r^3), shaded and textured."""
    texture = band_noise(generator, 1, size, 1, size / 2, 1.2)[0] * _one(generator, 0.0, 0.12)
    picture = paint_fractal(generator, size)
    num = int(log_uniform(generator, (), 60, 300))
    largest = _one(generator, 0.15, 0.5)
    parts = uniform(generator, (num,))
    radii = ((0.03**-2) * (1 - parts) + parts * largest**-2) ** -0.5  # the inverse of the distribution of 1 / r^3
    middles = uniform(generator, (num, 2), -0.1, 1.1)
    colours = draw_colours(generator, max(3, num // 3))
    colours = colours[torch.randint(len(colours), (num,), generator=generator)]
    corners = torch.randint(0, 7, (num,), generator=generator)  # below 3: a disc
    turns, stretches = uniform(generator, (num,), 0, TAU), log_uniform(generator, (num,), 0.6, 1.7)
    shades = uniform(generator, (num, 2), -0.35, 0.35)
    line = (torch.arange(size) + 0.5) / size
    scene = zip(
        (radii * size).tolist(), (middles * size).tolist(), corners.tolist(), turns.tolist(), stretches.tolist(),
        colours, shades.tolist(), strict=True,
    )  # fmt: skip
    for radius, (y, x), num_corners, turn, stretch, colour, (shade_y, shade_x) in scene:
        reach = radius * 1.35
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        bottom, right = min(size, int(y + reach) + 2), min(size, int(x + reach) + 2)
        if top >= bottom or left >= right:
            continue
        dy = line[top:bottom, None].mul(size).sub_(y).mul_(stretch)
        dx = line[None, left:right].mul(size).sub_(x).div_(stretch)
        if num_corners < 3:
            distance = torch.sqrt(dy * dy + dx * dx)
        else:
            sides = [turn + TAU * k / num_corners for k in range(num_corners)]
            distance = dy * math.sin(sides[0]) + dx * math.cos(sides[0])
            for side in sides[1:]:
                torch.maximum(distance, dy * math.sin(side) + dx * math.cos(side), out=distance)
        cover = (radius - distance).add_(0.5).clamp_(0, 1)
        light = (dy * (shade_y / radius) + dx * (shade_x / radius)).add_(1).add_(texture[top:bottom, left:right])
        target = picture[:, top:bottom, left:right]
        target.add_(cover * (colour[:, None, None] * light - target))
    return picture


def _ground(generator: Generator, size: int, horizon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates u, v on a plane that reaches to the horizon, and haze (all (size, size)); above it they mean nothing."""
    y, x = _axes(size)
    below = (y - horizon).clamp_min(0.012)
    height = _one(generator, 0.25, 0.8)
    turn = _one(generator, 0, math.pi)
    u, v = (x - _one(generator, 0.2, 0.8)) * height / below, (height / below).expand(size, size)
    return math.cos(turn) * u + math.sin(turn) * v, math.cos(turn) * v - math.sin(turn) * u, torch.exp(-below * 9)


def _sample(texture: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A texture that wraps around (C, S, S) at (u, v) in its own sizes: (C, ...)."""
    grid = torch.stack([u % 1, v % 1], -1).mul_(2).sub_(1)
    return F.grid_sample(texture[None], grid[None], "bilinear", "border", align_corners=False)[0]


def paint_horizon(generator: Generator, size: int) -> Tensor:
    """Sky, perhaps with clouds and hills, and rough ground that shrinks towards the horizon."""
    line = _one(generator, 0.25, 0.7)
    y, _ = _axes(size)
    sky, low_sky = torch.tensor([0.35, 0.55, 0.85]), torch.tensor([0.85, 0.87, 0.9])
    if _one(generator, 0, 1) < 0.5:
        sky, low_sky = draw_colours(generator, 2) * 0.7 + 0.2
    picture = torch.lerp(sky[:, None, None], low_sky[:, None, None], (y / line).clamp(0, 1)).repeat(1, 1, size)
    if _one(generator, 0, 1) < 0.6:
        clouds = band_noise(generator, 1, size, 1, size / 3, 1.6, log_uniform(generator, (), 1, 4))[0]
        cover = ((clouds - _one(generator, -0.5, 1)) * _one(generator, 0.3, 1)).clamp(0, 0.9)
        picture = torch.lerp(picture, torch.full_like(picture, _one(generator, 0.6, 1)), cover)
    land = draw_colours(generator, 3) * torch.tensor([0.9, 1.0, 0.7])
    land[0] = torch.lerp(land[0], torch.tensor([0.3, 0.4, 0.2]), 0.6)
    if _one(generator, 0, 1) < 0.6:  # hills or a row of trees: a skyline with its own texture
        hills = band_noise(generator, 1, size, 1, float(log_uniform(generator, (), 4, 60)), 1.0)[0, 0]
        edge = (line - 0.06 - _one(generator, 0.01, 0.06) * hills)[None] * size
        cover = (y * size - edge).clamp(0, 1)
        picture = torch.lerp(picture, land[1][:, None, None] * 0.7 + _roughness(generator, size, 0.1), cover)
    u, v, haze = _ground(generator, size, line)
    texture = land[0][:, None, None] + (land[2] - 0.4)[:, None, None] * 0.3 * band_noise(
        generator, 1, size, 1, size / 2, _one(generator, 0.5, 1.2)
    )
    ground = torch.lerp(_sample(texture, u * 0.3, v * 0.3), picture[:, -1:, -1:] * 0.5 + 0.2, haze * 0.7)
    return torch.lerp(picture, ground, ((y - line) * size).clamp(0, 1))


def paint_floor(generator: Generator, size: int) -> Tensor:
    """A room or a court: a tiled or painted floor in perspective before a wall."""
    line = _one(generator, 0.2, 0.6)
    y, x = _axes(size)
    u, v, haze = _ground(generator, size, line - _one(generator, 0.02, 0.25))
    count = float(log_uniform(generator, (), 1.5, 6))
    if _one(generator, 0, 1) < 0.6:
        floor = _tiles(generator, u * count + 500, v * count * _one(generator, 0.3, 1) + 500)
        floor = torch.lerp(floor, floor.mean((1, 2), keepdim=True), haze)  # far tiles blur together
    else:  # a plain floor with lines, as of a court
        lines = ((u * count / 4) % 1 < 0.05) | ((v * count / 4) % 1 < 0.05)
        plain = draw_colours(generator, 2)
        floor = torch.lerp(plain[0][:, None, None], plain[1][:, None, None], lines.float() * (1 - haze))
    floor = floor + _roughness(generator, size, _one(generator, 0.01, 0.07))
    wall = PAINTERS[("wall", "fractal", "stripes", "facade")[int(torch.randint(4, (), generator=generator))]]
    picture = wall(generator, size) * _one(generator, 0.5, 1) + _one(generator, 0, 0.2)
    corner = ((x - _one(generator, -1, 2)) * _one(generator, -0.4, 0.4)).clamp(-0.15, 0.15)
    return torch.lerp(picture, floor, ((y - line - corner) * size).clamp(0, 1))


def paint_wall(generator: Generator, size: int) -> Tensor:
    """Bricks, tiles or planks with joints between them, every one a little different."""
    y, x = _axes(size)
    if _one(generator, 0, 1) < 0.4:
        y, x = x, y  # planks and bricks that stand
    rows = float(log_uniform(generator, (), 5, 20))
    columns = rows / float(log_uniform(generator, (), 1, 5))
    row = (y * rows).floor()
    shifted = x * columns + row * _one(generator, 0.2, 0.5)
    column = shifted.floor()
    colours = draw_colours(generator, 3)
    spread = uniform(generator, (23, 29, 1), -1, 1)
    table = colours[0] + spread * (colours[1] - 0.5) * _one(generator, 0.05, 0.5)
    flat = table[(row.long() % 23).expand_as(column), column.long() % 29].movedim(-1, 0)
    gap = _one(generator, 0.02, 0.12)
    inside_y = (y * rows - row - 0.5).abs().neg().add(0.5) * size / rows
    inside_x = (shifted - column - 0.5).abs().neg().add(0.5) * size / columns
    cover = (torch.minimum(inside_y, inside_x) - gap * size / rows / 2 + 0.5).clamp(0, 1)
    picture = torch.lerp(colours[2][:, None, None], flat, cover)
    return picture + _roughness(generator, size, _one(generator, 0.02, 0.1))


def paint_facade(generator: Generator, size: int) -> Tensor:
    """Houses or shelves: upright blocks of different heights with rows of windows, before a plain ground."""
    y, x = _axes(size)
    picture = paint_horizon(generator, size) if _one(generator, 0, 1) < 0.5 else paint_fractal(generator, size)
    for _ in range(int(torch.randint(2, 7, (), generator=generator))):
        left, width, top = _one(generator, -0.1, 0.9), _one(generator, 0.12, 0.5), _one(generator, -0.2, 0.6)
        columns, rows = round(_one(generator, 2, 8)), _one(generator, 3, 14)
        u, v = (x - left) / width, (y - top) * rows
        body, pane, other = draw_colours(generator, 3)
        lit = uniform(generator, (31, columns, 1)) < 0.3
        panes = torch.where(lit, other, pane * 0.6)[(v.floor().long() % 31), (u * columns).floor().long() % columns]
        size_y, size_x = _one(generator, 0.25, 0.48), _one(generator, 0.2, 0.48)
        window = ((v % 1 - 0.5).abs() < size_y) & ((u * columns % 1 - 0.5).abs() < size_x)
        block = torch.where(window[..., None], panes, body).movedim(-1, 0)
        block = block * (1 + _one(generator, -0.5, 0.5) * (u - 0.5)) + _roughness(generator, size, 0.03)
        inside = (((x - left) * size).clamp(0, 1) * ((left + width - x) * size).clamp(0, 1)) * ((y - top) * size).clamp(
            0, 1
        )
        picture = torch.lerp(picture, block, inside)
    return picture


def paint_gradient(generator: Generator, size: int) -> Tensor:
    """A plain wall: colours that pass slowly into one another, with little roughness and now and then a spot."""
    along, across = _turned(generator, size)
    bend = along + _one(generator, -0.6, 0.6) * across**2
    picture = _palette(generator, (bend - bend.min()) / (bend.max() - bend.min()))
    return picture + _roughness(generator, size, _one(generator, 0.01, 0.06))


PAINTERS: dict[str, Callable[[Generator, int], Tensor]] = {
    "fractal": paint_fractal,
    "palette": paint_palette,
    "stripes": paint_stripes,
    "checker": paint_checker,
    "blobs": paint_blobs,
    "leaves": paint_leaves,
    "horizon": paint_horizon,
    "floor": paint_floor,
    "wall": paint_wall,
    "facade": paint_facade,
    "gradient": paint_gradient,
}
