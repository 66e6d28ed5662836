"""Things that move: textured discs, boxes, polygons, stars and blobs, and cut-out real things, that travel and collide.

A thing is a small picture with cover (a sprite), made once a clip and sampled into every frame inside the box of the
screen that it crosses, so that its shape costs nothing a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .camera import Camera, affine_grid, screen_grid, screen_points
from .draws import STILL, TAU, choose, direction_of, log_uniform, signs, uniform

__all__ = ["MOTIONS", "SHAPES", "Objects", "draw_objects", "paint_objects"]

SHAPES = ("disc", "box", "triangle", "pentagon", "hexagon", "star", "flower", "blob")
_CORNERS = torch.tensor([0, 4, 3, 5, 6, 5, 6, 3])

# Motions and their shares; "collide" is of the first two things of a clip and drawn apart.
MOTIONS = {
    "still": 1, "linear": 4, "accelerate": 1.5, "bounce": 2, "orbit": 1.2, "swing": 1.2, "grow": 1.2, "spin": 1.2,
    "fall": 1.2, "collide": 0,
}  # fmt: skip
_MOTION = {name: number for number, name in enumerate(MOTIONS)}

CUTOUT_SHARE = 0.7  # of the things, where there are cut-out ones
_WALL = 0.42  # where bouncing things turn, in heights from the middle


@dataclass(frozen=True)
class Objects:
    """Up to K things a clip, on the CPU, float32 unless said otherwise; a clip's absent things have index -1.

    Paths, `direction` (one of DIRECTIONS) and `speed` are in the scene, apart from the camera's motion. Labels describe
    the clip as it is shown: `speed` in picture heights a shown frame, from its first to its last.
    """

    count: Tensor  # (B,) int64: things 0 .. count - 1 exist
    picture: Tensor  # (B, K) int64: the texture, index into the bank; -1 is absent
    shape: Tensor  # (B, K) int64, index into SHAPES
    motion: Tensor  # (B, K) int64, index into MOTIONS
    centre: Tensor  # (B, K, T, 2), (y, x) in heights
    angle: Tensor  # (B, K, T): turns like the camera's roll
    radius: Tensor  # (B, K, T): no part of a thing is farther from its centre, but for waves through it
    aspect: Tensor  # (B, K, 2): narrower by these factors along its y, x
    wave: Tensor  # (B, K): how far waves bend it, in radii; 0 is rigid
    wave_turns: Tensor  # (B, K, T): the waves' phase
    outline: Tensor  # (B, K, 4): free numbers of the outline, 0..1
    tint: Tensor  # (B, K, 3): the texture is multiplied by it
    cutout: Tensor  # (B, K) int64: which cut-out thing this is, instead of a texture in a shape; -1 is none
    direction: Tensor  # (B, K) int64
    speed: Tensor  # (B, K)
    grow_rate: Tensor  # (B, K): log radius a shown frame
    turn_rate: Tensor  # (B, K): radians a shown frame


def draw_objects(
    generator: Generator,
    times: Tensor,
    bank_size: int,
    most: int = 3,
    count_shares: tuple[float, ...] = (3, 4, 2, 1),
    aspect_ratio: float = 1.0,
    num_cutouts: int = 0,
) -> Objects:
    """Random things for frames at `times` float32 (B, T), in source frames; 0 to `most` a clip in `count_shares`.

    `aspect_ratio` is the screen's width in heights, over which they spread. Where there are cut-out things, most things
    are one of them, and nearly upright.
    """
    batch, num_frames = times.shape
    some = (batch, most)
    count = choose(generator, count_shares[: most + 1], batch)
    motion = choose(generator, list(MOTIONS.values()), batch * most).view(some)
    collides = (count >= 2) & (uniform(generator, (batch,)) < 0.5)
    motion[:, :2] = torch.where(collides[:, None], _MOTION["collide"], motion[:, :2])

    def of(*names: str) -> Tensor:
        return torch.stack([motion == _MOTION[name] for name in names]).any(0)

    time = times - (times.amin(1, keepdim=True) + times.amax(1, keepdim=True)) / 2
    half_span = time.amax(1).clamp_min(0.5)[:, None]  # (B, 1)
    steps = max(num_frames - 1, 1)
    radius = log_uniform(generator, some, 0.08, 0.34)
    most_rate = 1.0 / half_span
    rate = torch.minimum(log_uniform(generator, some, 0.01, 0.08), most_rate * 0.45) * of("grow")
    rate = rate * signs(generator, some)
    radii = radius[..., None] * torch.exp(rate[..., None] * time[:, None])
    turning = torch.minimum(log_uniform(generator, some, 0.03, 0.25), most_rate * 1.4) * signs(generator, some)
    turning = turning * torch.where(of("spin"), 1.0, 0.5 * (uniform(generator, some) < 0.4)) * ~of("still")
    angles = uniform(generator, (*some, 1), 0, TAU) + turning[..., None] * time[:, None]
    centre = _draw_paths(generator, motion, time, half_span, radius, aspect_ratio)
    velocity = (centre[:, :, -1] - centre[:, :, 0]) / steps
    deforms = (uniform(generator, some) < 0.3) & ~of("collide")
    wave_rate = log_uniform(generator, (*some, 1), 0.03, 0.2) * signs(generator, (*some, 1))
    exists = torch.arange(most) < count[:, None]
    picture = torch.randint(bank_size, some, generator=generator)
    cutout = torch.full(some, -1)
    if num_cutouts:
        real = exists & (uniform(generator, some) < CUTOUT_SHARE)
        cutout = torch.where(real, torch.randint(num_cutouts, some, generator=generator), -1)
        leaning = 0.25 * torch.randn((*some, 1), generator=generator)
        angles = torch.where(real[..., None], leaning + turning[..., None] * time[:, None], angles)
        grown = (log_uniform(generator, some, 1.0, 1.8) * real)[..., None]  # they fill less of their discs
        radii = torch.where(real[..., None], radii * grown, radii)
    return Objects(
        count=count,
        picture=torch.where(exists, picture, -1),
        shape=torch.randint(len(SHAPES), some, generator=generator),
        motion=motion,
        centre=centre,
        angle=angles,
        radius=radii,
        aspect=torch.where(uniform(generator, (*some, 2)) < 0.5, 1.0, uniform(generator, (*some, 2), 0.45, 1)),
        wave=deforms * uniform(generator, some, 0.08, 0.25),
        wave_turns=wave_rate * times[:, None] + uniform(generator, (*some, 1)),
        outline=uniform(generator, (*some, 4)),
        tint=torch.exp(0.25 * torch.randn((*some, 3), generator=generator)),
        cutout=cutout,
        direction=torch.where(of("still", "spin", "grow"), STILL, direction_of(velocity)),
        speed=velocity.norm(dim=-1),
        grow_rate=(radii[..., -1] / radii[..., 0]).log() / steps,
        turn_rate=(angles[..., -1] - angles[..., 0]) / steps,
    )


def _draw_paths(
    generator: Generator, motion: Tensor, time: Tensor, half_span: Tensor, radius: Tensor, aspect_ratio: float
) -> Tensor:
    """The centres (B, K, T, 2) of things over `time` (B, T), which is 0 in the middle of the clip."""
    some = motion.shape
    spread = torch.tensor([0.35, 0.35 * aspect_ratio])
    middle = uniform(generator, (*some, 1, 2), -1, 1) * spread
    heading = uniform(generator, (*some, 1), 0, TAU)
    heading = torch.stack([heading.sin(), heading.cos()], dim=-1)  # (B, K, 1, 2)
    speed = torch.minimum(log_uniform(generator, some, 0.008, 0.07), 0.45 / half_span)[..., None, None]
    clock, half = time[:, None, :, None], half_span[:, :, None, None]  # (B, 1, T, 1), (B, 1, 1, 1)
    straight = middle + heading * speed * clock
    part = ((clock / half + 1) / 2).clamp(0, 1)  # rounding leads beyond, where a power is not a number
    starts = uniform(generator, (*some, 1, 1)) < 0.5
    eased = torch.where(starts, part**2.2, 1 - (1 - part) ** 2.2) - 0.5
    walls = torch.tensor([_WALL, _WALL * aspect_ratio])
    folded = ((straight + 1.5 * (heading * speed * clock) + walls) % (4 * walls) - 2 * walls).abs() - walls
    turns = uniform(generator, (*some, 1, 1)) + torch.minimum(speed * 1.5, 0.7 / half) * clock * signs(
        generator, (*some, 1, 1)
    )
    ring = torch.cat([torch.sin(TAU * turns), torch.cos(TAU * turns)], -1)
    ring = ring * uniform(generator, (*some, 1, 2), 0.1, 0.35)
    swung = heading * torch.sin(TAU * turns) * uniform(generator, (*some, 1, 1), 0.08, 0.3)
    gravity = uniform(generator, (*some, 1, 1), 0.3, 0.9) / half**2
    fallen = torch.cat([0.5 * gravity * clock**2 - 0.2, 0 * clock.expand(*some, -1, 1)], -1) + heading * speed * clock
    paths = {
        "linear": straight,
        "accelerate": middle + heading * speed * eased * 2 * half,
        "bounce": folded,
        "orbit": middle * 0.5 + ring,
        "swing": middle + swung,
        "fall": middle * 0.6 + fallen,
    }
    centre = middle.expand(*some, time.shape[1], 2)
    for name, path in paths.items():
        centre = torch.where((motion == _MOTION[name])[..., None, None], path, centre)
    if some[1] >= 2:
        pair = (motion[:, 0] == _MOTION["collide"])[:, None, None, None]
        crash = uniform(generator, (some[0], 1, 1), -0.5, 0.5) * half[:, 0]
        met = _collision(time[..., None] - crash, middle[:, 0] * 0.4, heading[:, 0], speed[:, 0], radius[:, :2])
        centre = torch.cat([torch.where(pair, met, centre[:, :2]), centre[:, 2:]], 1)
    return centre


def _collision(clock: Tensor, middle: Tensor, normal: Tensor, speed: Tensor, radius: Tensor) -> Tensor:
    """Two discs that meet at clock 0 and part again: centres (B, 2, T, 2); the heavier one moves less.

    In the frame of their common centre of mass an elastic collision turns each way back, so the distance is
    |closing speed * clock| + both radii, and never less.
    """
    mass = radius**2
    lever = torch.stack([mass[:, 1], -mass[:, 0]], 1) / mass.sum(1, keepdim=True)  # (B, 2)
    distance = radius.sum(1)[:, None, None] + 1.5 * speed * clock.abs()  # (B, T, 1)
    drift = middle + 0.4 * speed * clock * normal.flip(-1)
    return drift[:, None] + lever[..., None, None] * (distance * normal)[:, None]


def paint_objects(
    canvas: Tensor, objects: Objects, pictures: Tensor, camera: Camera, cutouts: Tensor | None = None
) -> None:
    """Paint things into `canvas` float32 (B, 3, T, h, w) in place, the last one in front.

    `pictures` float32 (N, 3, S, S) are their textures, on the canvas's device; `cutouts` are those of photographs.py.
    """
    _, _, _, height, width = canvas.shape
    device = canvas.device
    rows, slots = torch.nonzero(objects.picture >= 0, as_tuple=True)
    if not len(rows):
        return
    sprites = _sprites(objects, rows, slots, pictures, cutouts, max(16, round(0.6 * height)))
    middle = screen_points(camera, objects.centre.transpose(1, 2)).transpose(1, 2)[rows, slots]  # (n, T, 2)
    scale = objects.radius[rows, slots] * camera.zoom[rows]
    angle = objects.angle[rows, slots] + camera.roll[rows]
    aspect = objects.aspect[rows, slots][:, None]
    reach = scale * (1 + objects.wave[rows, slots][:, None])
    first = torch.floor(((middle - reach[..., None]).amin(1) + 0.5) * height - 1)
    last = torch.ceil(((middle + reach[..., None]).amax(1) + 0.5) * height + 1)
    shift = (width - height) / 2
    tops, bottoms = first[:, 0].clamp(0, height), last[:, 0].clamp(0, height)
    lefts, rights = (first[:, 1] + shift).floor().clamp(0, width), (last[:, 1] + shift).ceil().clamp(0, width)
    boxes = torch.stack([tops, bottoms, lefts, rights], 1).int().tolist()
    # Screen -> sprite: coefficients of y, x and 1 for the sprite's y and x, (n, 2, T, 3).
    cos, sin = angle.cos() / scale, angle.sin() / scale
    to_y = torch.stack([cos, sin, -cos * middle[..., 0] - sin * middle[..., 1]], -1) / aspect[..., :1]
    to_x = torch.stack([-sin, cos, sin * middle[..., 0] - cos * middle[..., 1]], -1) / aspect[..., 1:]
    maps = torch.stack([to_y, to_x], 1).to(device)
    waves = objects.wave[rows, slots].tolist()
    turns = (TAU * objects.wave_turns[rows, slots]).to(device)
    y, x = screen_grid(height, width, device)
    for n, (row, (top, bottom, left, right), wave) in enumerate(zip(rows.tolist(), boxes, waves, strict=True)):
        if top >= bottom or left >= right:
            continue
        grid = affine_grid(maps[n], y[top:bottom], x[:, left:right])
        if wave:
            bent = grid.flip(-1).mul_(2.5).add_(turns[n][:, None, None, None])
            grid.add_(bent.sin_(), alpha=wave)
        num_frames, box_height, box_width, _ = grid.shape
        flat = grid.view(1, num_frames * box_height, box_width, 2)
        # A sprite's border is empty, so what lies outside may repeat it: quicker than asking for zeros.
        drawn = F.grid_sample(sprites[n : n + 1], flat, "bilinear", "border", align_corners=False)
        drawn = drawn.view(4, num_frames, box_height, box_width)
        canvas[row, :, :, top:bottom, left:right].mul_(1 - drawn[3:]).add_(drawn[:3])


def _sprites(
    objects: Objects, rows: Tensor, slots: Tensor, pictures: Tensor, cutouts: Tensor | None, size: int
) -> Tensor:
    """Colours times cover, and cover: float32 (n, 4, size, size), with an empty border."""
    device = pictures.device
    outline = objects.outline[rows, slots]
    line = ((torch.arange(size, device=device) + 0.5) / size * 2 - 1) * (size / (size - 3))
    y, x = line[:, None], line[None]
    distance, angle = torch.sqrt(y * y + x * x), torch.atan2(y, x)
    edge = _outlines(objects.shape[rows, slots], outline, angle)
    cover = ((edge - distance) * (size / 2)).add_(0.5).clamp_(0, 1)
    room = pictures.shape[-1] - size
    if room < 0:
        pictures, room = F.interpolate(pictures, (size, size), mode="bilinear"), 0
    corners = (outline[:, :2] * room).int().tolist()
    names = objects.picture[rows, slots].tolist()
    colours = torch.stack(
        [
            pictures[name, :, top : top + size, left : left + size]
            for name, (top, left) in zip(names, corners, strict=True)
        ]
    )
    real = objects.cutout[rows, slots]
    for n, number in enumerate(real.tolist()):
        if number >= 0:
            colours[n], cover[n] = _cut_out(cutouts[number], size, mirrored=float(outline[n, 0]) < 0.5)
    tint = objects.tint[rows, slots] ** torch.where(real < 0, 1.0, 0.4)[:, None]  # of real things colours are telling
    colours.mul_(tint.to(device)[:, :, None, None])
    shade = (outline[:, 2:] * 0.8 - 0.4).to(device)
    colours.mul_(1 + shade[:, :1, None, None] * y + shade[:, 1:, None, None] * x).clamp_(0, 1)
    sprites = torch.cat([colours * cover[:, None], cover[:, None]], 1)
    # Things much smaller than their sprite are smoothed first, against aliasing.
    small = objects.radius[rows, slots].mean(1) * 2 < 0.3
    if small.any():
        rows_small = torch.nonzero(small).flatten().to(device)
        smooth = sprites[rows_small]
        smooth[..., 1:-1, :] = 0.5 * smooth[..., 1:-1, :] + 0.25 * (smooth[..., :-2, :] + smooth[..., 2:, :])
        smooth[..., 1:-1] = 0.5 * smooth[..., 1:-1] + 0.25 * (smooth[..., :-2] + smooth[..., 2:])
        sprites[rows_small] = smooth
    return sprites


def _cut_out(cutout: Tensor, size: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Colours (3, size, size) and cover of a cut-out thing, with an empty border."""
    inner = F.interpolate(cutout[None].float() / 255, (size - 2, size - 2), mode="bilinear", antialias=True)[0]
    drawn = F.pad(inner.flip(2) if mirrored else inner, (1, 1, 1, 1))
    return drawn[:3] / drawn[3].clamp_min(1e-3), drawn[3]


def _outlines(shape: Tensor, outline: Tensor, angle: Tensor) -> Tensor:
    """The distance (n, size, size) of the outline from the centre, at most 1, in the direction `angle` (size, size)."""
    device = angle.device
    corners = _CORNERS[shape].to(device)[:, None, None]
    shape, free = shape.to(device)[:, None, None], outline.to(device)[:, :, None, None]
    step = TAU / corners.clamp_min(1)
    within = (angle % step) - step / 2  # -half .. half of a side
    disc = torch.ones_like(within)
    polygon = torch.cos(step / 2) / torch.cos(within)
    deep = 0.35 + 0.3 * free[:, 0]
    star = 1 - (1 - deep) * (1 - within.abs() / (step / 2))
    wavy = 1 + torch.cos(corners * angle + TAU * free[:, 1]) * (0.15 + 0.25 * free[:, 0])
    wavy = wavy + 0.25 * free[:, 2] * torch.cos(2 * angle + TAU * free[:, 3]) * (shape == SHAPES.index("blob"))
    wavy = wavy / wavy.amax((1, 2), keepdim=True)
    edge = torch.where(corners == 0, disc, polygon)
    edge = torch.where(shape == SHAPES.index("star"), star, edge)
    return torch.where(shape >= SHAPES.index("flower"), wavy, edge)
