"""Cameras that pan, zoom, roll, shake and follow, and what they see of still pictures.

A camera maps a scene point p = (y, x), in picture heights from the middle, y downwards, to the screen point
R(roll) @ (p - offset) * zoom, where R(a) = [[cos a, -sin a], [sin a, cos a]] acts on (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .draws import STILL, TAU, choose, direction_of, log_uniform, signs, uniform

__all__ = [
    "CAMERAS",
    "Camera",
    "affine_grid",
    "draw_camera",
    "look",
    "sample_pictures",
    "screen_grid",
    "screen_points",
    "view_of",
]

# Kinds and their shares.
CAMERAS = {"still": 3, "pan": 4, "accelerate": 1.5, "zoom": 2, "roll": 1, "shake": 1.5, "follow": 2}
_KIND = {name: number for number, name in enumerate(CAMERAS)}

# The most that one clip may sweep over, however far its frames are apart: heights, log zoom, radians.
_MOST_TRAVEL, _MOST_ZOOM, _MOST_ROLL = 0.9, 0.8, 1.4


@dataclass(frozen=True)
class Camera:
    """The cameras of a batch, on the CPU, float32 unless said otherwise.

    `direction` (one of DIRECTIONS, of the camera: the picture moves the other way) and the rates describe the clip as
    it is shown: `speed` in picture heights a shown frame, `zoom_rate` in log zoom a frame, `roll_rate` in radians a
    frame. In a clip with a cut they describe the shot before it.
    """

    kind: Tensor  # (B,) int64, index into CAMERAS
    offset: Tensor  # (B, T, 2): what is seen in the middle of the screen, (y, x)
    zoom: Tensor  # (B, T)
    roll: Tensor  # (B, T)
    tilt: Tensor  # (B, 2): perspective of the still picture: how much farther it is at screen y, x = 1
    extent: Tensor  # (B,): the height of the still picture, in scene heights
    cut: Tensor  # (B,) int64: the first frame of a second shot; T is no cut
    direction: Tensor  # (B,) int64
    speed: Tensor  # (B,)
    zoom_rate: Tensor  # (B,)
    roll_rate: Tensor  # (B,)


def draw_camera(generator: Generator, times: Tensor, subject: Tensor | None = None, cut_share: float = 0.06) -> Camera:
    """Random cameras for frames at `times` float32 (B, T), in source frames (falling where a clip runs backwards).

    Following cameras keep `subject` (B, T, 2), a path in the scene, near the middle; without it they wander. `cut_share`
    of the clips change to another picture and another camera at a frame.
    """
    batch, num_frames = times.shape
    first = _draw_shot(generator, times, subject)
    second = _draw_shot(generator, times, subject)
    has_cut = uniform(generator, (batch,)) < cut_share
    at = torch.randint(2, max(3, num_frames - 1), (batch,), generator=generator)
    cut = torch.where(has_cut, at, num_frames).clamp_max(num_frames)
    after = torch.arange(num_frames) >= cut[:, None]  # (B, T)
    steps = max(num_frames - 1, 1)
    velocity = (first["offset"][:, -1] - first["offset"][:, 0]) / steps
    tilt_share = uniform(generator, (batch, 1)) < 0.3
    return Camera(
        kind=first["kind"],
        offset=torch.where(after[..., None], second["offset"], first["offset"]),
        zoom=torch.where(after, second["zoom"], first["zoom"]),
        roll=torch.where(after, second["roll"], first["roll"]),
        tilt=uniform(generator, (batch, 2), -0.6, 0.6) * tilt_share,
        extent=log_uniform(generator, (batch,), 1.3, 2.4),
        cut=cut,
        direction=torch.where(first["kind"] == _KIND["still"], STILL, direction_of(velocity)),
        speed=velocity.norm(dim=-1),
        zoom_rate=(first["zoom"][:, -1] / first["zoom"][:, 0]).log() / steps,
        roll_rate=(first["roll"][:, -1] - first["roll"][:, 0]) / steps,
    )


def _draw_shot(generator: Generator, times: Tensor, subject: Tensor | None) -> dict[str, Tensor]:
    """The kind, offset, zoom and roll of a camera that is never cut; all kinds share the draws, for speed."""
    batch = len(times)
    kind = choose(generator, list(CAMERAS.values()), batch)
    time = times - (times.amin(1, keepdim=True) + times.amax(1, keepdim=True)) / 2  # 0 in the middle of the clip
    half_span = time.amax(1).clamp_min(0.5)
    span = 2 * half_span

    def of(*names: str) -> Tensor:
        return torch.stack([kind == _KIND[name] for name in names]).any(0)

    angle = uniform(generator, (batch,), 0, TAU)
    heading = torch.stack([angle.sin(), angle.cos()], dim=1)  # (B, 2)
    speed = torch.minimum(log_uniform(generator, (batch,), 0.005, 0.05), _MOST_TRAVEL / span)
    part = ((time / half_span[:, None] + 1) / 2).clamp(0, 1)  # 0 to 1 over the clip
    starts = uniform(generator, (batch, 1)) < 0.5
    eased = torch.where(starts, part**2.2, 1 - (1 - part) ** 2.2) - 0.5
    along = torch.where(of("accelerate")[:, None], eased * span[:, None], time) * speed[:, None]
    offset = along[..., None] * heading[:, None] * of("pan", "accelerate")[:, None, None]

    # Hands shake at all clips' random frequencies; strongly in "shake", a little in a third of the others.
    shakiness = uniform(generator, (batch,)) < 0.3
    strength = torch.where(of("shake"), log_uniform(generator, (batch,), 0.012, 0.035), 0.004 * shakiness)
    strength = strength * ~of("still")
    offset = offset + strength[:, None, None] * _waves(generator, times, 4, 0.03, 0.25)
    wander = uniform(generator, (batch, 1, 1), 0.05, 0.25) * _waves(generator, times, 2, 0.01, 0.04)
    followed = wander if subject is None else subject + 0.05 * wander
    offset = torch.where(of("follow")[:, None, None], followed, offset)

    rate = torch.minimum(log_uniform(generator, (batch,), 0.005, 0.04), _MOST_ZOOM / span) * signs(generator, (batch,))
    steady_zoom = torch.randn(batch, generator=generator) * 0.12
    zoom = torch.exp(steady_zoom[:, None] + rate[:, None] * time * of("zoom")[:, None])
    rate = torch.minimum(log_uniform(generator, (batch,), 0.01, 0.08), _MOST_ROLL / span) * signs(generator, (batch,))
    steady_roll = torch.randn(batch, generator=generator) * 0.04
    roll = steady_roll[:, None] + rate[:, None] * time * of("roll")[:, None]
    return {"kind": kind, "offset": offset, "zoom": zoom, "roll": roll}


def _waves(generator: Generator, times: Tensor, num: int, low: float, high: float) -> Tensor:
    """Smooth random paths (B, T, 2) of about unit size: `num` sines of `low` to `high` cycles a source frame."""
    shape = (len(times), 1, 2, num)
    turns = log_uniform(generator, shape, low, high) * times[:, :, None, None] + uniform(generator, shape)
    return torch.sin(TAU * turns).sum(-1) / num**0.5


def screen_points(camera: Camera, points: Tensor) -> Tensor:
    """Where scene points (B, T, ..., 2), (y, x), are seen on the screen, in the same units."""
    ones = (1,) * (points.dim() - 3)
    batch, num_frames = camera.zoom.shape
    offset, zoom, roll = (value.to(points.device) for value in (camera.offset, camera.zoom, camera.roll))
    y, x = (points - offset.view(batch, num_frames, *ones, 2)).unbind(-1)
    cos, sin = (value.view(batch, num_frames, *ones) for value in (roll.cos() * zoom, roll.sin() * zoom))
    return torch.stack([cos * y - sin * x, sin * y + cos * x], dim=-1)


def look(pictures: Tensor, index: Tensor, camera: Camera, height: int, width: int, out: Tensor | None = None) -> Tensor:
    """What cameras see of pictures: float32 (B, 3, T, height, width), written into `out` where it is given.

    `pictures` float32 (N, 3, S, S) may lie on any device, where the work is done; `index` int64 (B,), or (B, 2) with the
    picture after a cut, on the CPU. A picture ends in its mirror image.
    """
    batch, num_frames = camera.zoom.shape
    device = pictures.device
    index = index.view(batch, -1)
    if out is None:
        out = torch.empty(batch, 3, num_frames, height, width, device=device)
    view = view_of(camera, height, width, device)
    texels = pictures.shape[-1] / (camera.extent * height * camera.zoom.mean(1))  # a screen pixel's, along one side
    is_coarse = texels > 1.5  # these pictures are sampled at half their resolution, against aliasing
    # Clip by clip the cache is used best; all at once there are the fewest calls.
    paint = _look_clip_by_clip if device.type == "cpu" else _look_at_once
    paint(out, pictures, index[:, 0], view, is_coarse)
    for row in torch.nonzero(camera.cut < num_frames).flatten().tolist() if index.shape[1] > 1 else ():
        cut, name = int(camera.cut[row]), int(index[row, 1])
        out[row, :, cut:] = sample_pictures(pictures[name : name + 1], view.clip_grid(row)[:, cut:])[0]
    return out


def _look_clip_by_clip(out: Tensor, pictures: Tensor, index: Tensor, view: View, is_coarse: Tensor) -> None:
    for row, (name, coarse) in enumerate(zip(index.tolist(), is_coarse.tolist(), strict=True)):
        source = pictures[name : name + 1]
        out[row] = sample_pictures(halved(source) if coarse else source, view.clip_grid(row))[0]


def _look_at_once(out: Tensor, pictures: Tensor, index: Tensor, view: View, is_coarse: Tensor) -> None:
    for coarse in (False, True):
        rows = torch.nonzero(is_coarse == coarse).flatten()
        if len(rows):
            names, rows = index[rows].to(out.device), rows.to(out.device)
            source = pictures.index_select(0, names)
            out[rows] = sample_pictures(halved(source) if coarse else source, view.grid(rows))


def halved(pictures: Tensor) -> Tensor:
    """Pictures (..., h, w), of even sizes, at half their resolution."""
    rows = pictures[..., ::2, :] + pictures[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def sample_pictures(source: Tensor, grid: Tensor) -> Tensor:
    """Pictures `source` (B, 3, S, S) at `grid` (B, T, h, w, 2), (x, y) in -1..1 over a picture: (B, 3, T, h, w)."""
    batch, num_frames, height, width, _ = grid.shape
    flat = grid.reshape(batch, num_frames * height, width, 2)  # one call for all frames: no copies of the picture
    seen = F.grid_sample(source, flat, "bilinear", "reflection", align_corners=False)
    return seen.view(batch, 3, num_frames, height, width)


def screen_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The middles of the screen's pixels: y (height, 1) and x (1, width), in picture heights."""
    y = (torch.arange(height, device=device) + 0.5) / height - 0.5
    x = (torch.arange(width, device=device) + 0.5 - width / 2) / height
    return y[:, None], x[None]


def affine_grid(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Coordinates float32 (..., T, h, w, 2), (x, y), to sample at: affine maps of the screen's y and x.

    `maps` (..., 2, T, 3) holds for y and for x the factors of the screen's y, of its x, and a constant; `y` and `x`
    (..., h, 1) and (..., 1, w), or both (..., h, w).
    """
    y, x = y.unsqueeze(-3), x.unsqueeze(-3)
    size = torch.broadcast_shapes(y.shape[-2:], x.shape[-2:])
    grid = torch.empty(*maps.shape[:-3], maps.shape[-2], *size, 2, device=maps.device)
    for axis in range(2):
        of_y, of_x, constant = maps[..., axis, :, :, None, None].unbind(-3)
        torch.add(of_y * y, torch.addcmul(constant, of_x, x), out=grid[..., 1 - axis])
    return grid


@dataclass(frozen=True)
class View:
    """The way from the screen to the still pictures, on a device."""

    maps: Tensor  # (B, 2, T, 3), as affine_grid takes them
    y: Tensor  # (h, 1): the screen's coordinates
    x: Tensor  # (1, w)
    tilt: Tensor  # (B, 2)
    is_tilted: list[bool]  # of every clip

    def grid(self, rows: Tensor | slice) -> Tensor:
        """Where the pixels of clips `rows` lie in their pictures: (rows, T, h, w, 2), (x, y) in -1..1."""
        tilt = self.tilt[rows][..., None, None]
        depth = 1 / (1 + tilt[:, 0] * self.y + tilt[:, 1] * self.x)  # (rows, h, w)
        return affine_grid(self.maps[rows], self.y * depth, self.x * depth)

    def clip_grid(self, row: int) -> Tensor:
        """The same of one clip, (1, T, h, w, 2), quicker where its picture is not tilted."""
        if self.is_tilted[row]:
            return self.grid(slice(row, row + 1))
        return affine_grid(self.maps[row], self.y, self.x)[None]


def view_of(camera: Camera, height: int, width: int, device: torch.device) -> View:
    """The view of all clips."""
    scale = 2 / camera.extent[:, None]
    cos, sin = camera.roll.cos() / camera.zoom * scale, camera.roll.sin() / camera.zoom * scale  # (B, T)
    shift_y, shift_x = (camera.offset * scale[..., None]).unbind(-1)
    maps = torch.stack([torch.stack([cos, sin, shift_y], -1), torch.stack([-sin, cos, shift_x], -1)], 1)
    y, x = screen_grid(height, width, device)
    return View(maps.to(device), y, x, camera.tilt.to(device), camera.tilt.any(1).tolist())
