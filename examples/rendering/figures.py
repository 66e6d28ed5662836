"""People in rendered clips: who stands where, how they move as the camera sees it, and painting them.

Places are in picture heights, (y, x), y downwards, from the picture's middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from .actions import ACTIONS, draw_motion
from .bodies import JOINTS, draw_bodies, skeleton
from .clothes import CROPS, SLOTS, Palette, body_capsules, draw_palettes
from .draws import chance, log_uniform, uniform
from .painting import CROP_SIZE, Limbs, paint_limbs
from .parts import PARTS, part_maps
from .poses import FREEDOMS
from .props import PROPS, prop_capsules

__all__ = ["EXTREMITIES", "People", "View", "draw_people", "paint_people", "parts_on_screen", "project"]

EXTREMITIES = ("left_finger", "right_finger", "left_ankle", "right_ankle", "head")
_EXTREMITIES = torch.tensor([JOINTS.index(name) for name in EXTREMITIES])
_NAMED = {  # the joints whose names end so are a part
    "finger": "hand",
    "elbow": "elbow",
    "ankle": "ankle",
    "knee": "knee",
    "hips": "hips",
    "head": "head",
}
_JOINTS_OF_PARTS = torch.tensor([k for k, name in enumerate(JOINTS) if name.split("_")[-1] in _NAMED])
_PART_OF = torch.tensor([PARTS.index(_NAMED[JOINTS[k].split("_")[-1]]) for k in _JOINTS_OF_PARTS.tolist()])
_UPPER = torch.tensor([JOINTS.index(name) for name in ("head", "neck", "left_hand", "right_hand", "neck")])
_HUNG = torch.tensor([action.hung for action in ACTIONS.values()])
_PROP_OF = torch.tensor([list(PROPS).index(action.prop) for action in ACTIONS.values()])
_SHARES = (0.62, 0.25, 0.13)  # of clips with one, two and three people
MOST_PEOPLE = len(_SHARES)


class Camera(Protocol):
    """Where the camera looks: offset (B, T, 2) in picture heights, zoom (B, T), roll (B, T) in radians."""

    offset: Tensor
    zoom: Tensor
    roll: Tensor


@dataclass(frozen=True)
class View:
    """From where Q figures are seen: `yaw` their heading, 0 to the picture's right, positive away from the camera;
    `pitch` how far the camera looks down; `distance` in body heights of the point `focus` (Q, 3), x to the right, y up,
    z away, which is seen at `place` (Q, 2); `size` picture heights of a body height there. All but these (Q,)."""

    yaw: Tensor
    pitch: Tensor
    distance: Tensor
    focus: Tensor
    place: Tensor
    size: Tensor


@dataclass(frozen=True)
class People:
    """The people of B clips over T frames, Q in all; those of a clip follow each other, its main person first.

    Labels of the main person: `action` int64 (B,) into ACTIONS; `travel` float32 (B, 2) its way over the ground as the
    picture shows it, in picture heights a source frame, of which the camera takes away the part `tracking` (B,);
    `reach` (B, T, 5, 2) where EXTREMITIES are as seen from the hips, in body heights; `joints` (B, T, J, 2) in picture
    heights, before the camera; `path` (B, T, 2) the middle between hips and head, for a camera to follow; `pace` (B,)
    in turns of its action a source frame; `number` int64 (B,) of people.

    Of everyone: `points` (Q, T, 10, 2) the joints of parts.PARTS in picture heights, before the camera; `clip` and
    `order` int64 (Q,), the rank of painting in the clip; `start`, `end` (Q, T, K, 2), `radii` (Q, T, K, 2), `depth`
    (Q, T, K), `slot` int64 (Q, K) of capsules; `size` (Q,) of a body height. `light` (B, 2) is the slope of brightness;
    `following` (B,) the part of the camera's offset that people go along with: 0 where the camera itself follows `path`.
    """

    action: Tensor
    travel: Tensor
    tracking: Tensor
    reach: Tensor
    joints: Tensor
    path: Tensor
    pace: Tensor
    number: Tensor
    points: Tensor
    clip: Tensor
    order: Tensor
    start: Tensor
    end: Tensor
    radii: Tensor
    depth: Tensor
    slot: Tensor
    size: Tensor
    palette: Palette
    light: Tensor
    following: Tensor


def turn_and_look(points: Tensor, yaw: Tensor) -> Tensor:
    """Body axes (ahead, up, right) -> (right in the picture, up, away), of points (Q, ..., 3) headed by yaw (Q,)."""
    shape = [-1] + [1] * (points.dim() - 2)
    cos, sin = yaw.cos().reshape(shape), yaw.sin().reshape(shape)
    x, y, z = points.unbind(-1)
    return torch.stack([x * cos + z * sin, y, x * sin - z * cos], dim=-1)


def project(points: Tensor, view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Where points (Q, ..., 3), (right, up, away) in body heights, are seen.

    Places (Q, ..., 2) in picture heights (y, x), depths (Q, ...) in body heights behind the focus, and scales
    (Q, ...): picture heights of a body height there.
    """
    shape = [-1] + [1] * (points.dim() - 2)
    x, y, z = (points - view.focus.reshape(*shape, 3)).unbind(-1)
    cos, sin = view.pitch.cos().reshape(shape), view.pitch.sin().reshape(shape)
    depth = z * cos - y * sin
    y = y * cos + z * sin
    distance = view.distance.reshape(shape)
    # Nobody comes nearer than a quarter of the distance: what is behind the camera would be seen upside down.
    scale = view.size.reshape(shape) * distance / (distance + depth).clamp(min=0.25 * distance)
    place = torch.stack([-y * scale, x * scale], dim=-1) + view.place.reshape(*shape, 2)
    return place, depth, scale


def draw_people(generator: Generator, batch: int, times: Tensor, bank_size: int) -> People:
    """Random people for `batch` clips at times (B, T) in source frames; `bank_size` pictures give their cloth."""
    if times.dim() != 2 or len(times) != batch:
        raise ValueError(f"times of shape {tuple(times.shape)}: needs ({batch}, T)")
    number = torch.multinomial(torch.tensor(_SHARES), batch, replacement=True, generator=generator) + 1
    main_action = torch.randint(len(ACTIONS), (batch,), generator=generator)
    clip = torch.repeat_interleave(torch.arange(batch), number)
    main = number.cumsum(0) - number
    num = len(clip)
    is_main = torch.zeros(num, dtype=torch.bool)
    is_main[main] = True
    other = torch.randint(len(ACTIONS), (num,), generator=generator)
    same = chance(generator, num, 0.4) | is_main
    action = torch.where(same, main_action[clip], other)

    motion = draw_motion(generator, action, times[clip])
    body = draw_bodies(generator, num)
    joints = skeleton(body, motion.freedoms, _HUNG[action])
    worn = body_capsules(generator, body, joints)
    value = motion.freedoms[..., FREEDOMS.index("prop")]
    thick = uniform(generator, (num,), 0.8, 1.25)
    held = prop_capsules(_PROP_OF[action], joints, value, motion.phase, thick)

    view, stature, tracking = _draw_view(generator, clip, main, is_main, joints)
    tracking = _kept_in_sight(tracking, motion.way[main], view.size[main])
    facing = same & ~is_main & chance(generator, num, 0.4)
    beside = same & ~is_main & ~facing & chance(generator, num, 0.5)
    main_yaw = view.yaw[main][clip]
    turned = torch.where(facing, main_yaw + math.pi, torch.where(beside, main_yaw, view.yaw))
    view = replace(view, yaw=turned)
    ends = torch.stack([torch.cat([worn.start, held.start], 2), torch.cat([worn.end, held.end], 2)], dim=2)
    points = torch.cat([joints, ends.flatten(2, 3)], dim=2)  # (Q, T, J + 2K, 3)
    away = (1 - tracking)[clip][:, None, None] * motion.way
    points = points + torch.stack([away[..., 0], 0 * away[..., 0], away[..., 1]], -1)[:, :, None]
    points = turn_and_look(points * stature[:, None, None, None], view.yaw)
    points, order = _set_apart(generator, points, clip, is_main, torch.where(facing, main_yaw, math.nan))
    place, depth, scale = project(points, view)
    num_joints = len(JOINTS)
    (start, end), (near, far) = (x[:, :, num_joints:].unflatten(2, (2, -1)).unbind(2) for x in (place, scale))
    radii = torch.cat([worn.radii, held.radii], 1)[:, None] * stature[:, None, None, None]
    middle = depth[:, :, num_joints:].unflatten(2, (2, -1)).mean(2)
    nearer = torch.cat([worn.nearer, held.nearer])
    seen = place[main, :, :num_joints]
    size = view.size * stature
    ground = torch.stack([motion.way[main, -1, 0], torch.zeros(batch), motion.way[main, -1, 1]], -1)
    ground = ground - torch.stack([motion.way[main, 0, 0], torch.zeros(batch), motion.way[main, 0, 1]], -1)
    ground = turn_and_look(ground, view.yaw[main]) * size[main, None]
    span = times[:, -1] - times[:, 0]
    span = torch.where(span == 0, 1.0, span)[:, None]
    travel = torch.stack([-ground[:, 2] * view.pitch[main].sin(), ground[:, 0]], -1) / span
    return People(
        action=main_action,
        travel=travel,
        tracking=tracking,
        reach=(seen[:, :, _EXTREMITIES] - seen[:, :, :1]) / size[main, None, None, None],
        joints=seen,
        path=(seen[:, :, JOINTS.index("hips")] + seen[:, :, JOINTS.index("head")]) / 2,
        pace=motion.pace[main],
        number=number,
        points=place[:, :, _JOINTS_OF_PARTS],
        clip=clip,
        order=order,
        start=start,
        end=end,
        radii=radii * torch.stack([near, far], -1),
        depth=middle - nearer,
        slot=torch.cat([worn.slot, held.slot], 1),
        size=size,
        palette=draw_palettes(generator, num, bank_size),
        light=_draw_light(generator, batch),
        following=uniform(generator, (batch,), 0.3, 1.0),
    )


def _draw_view(
    generator: Generator, clip: Tensor, main: Tensor, is_main: Tensor, joints: Tensor
) -> tuple[View, Tensor, Tensor]:
    """One camera a clip, aimed at its main person; everyone's own heading and stature (Q,); how the clip's camera
    goes along with travellers (B,)."""
    batch, num = len(main), len(clip)
    yaw = uniform(generator, (num,), 0, 2 * math.pi)
    level = 0.08 + 0.12 * torch.randn(batch, generator=generator).abs()
    steep = uniform(generator, (batch,), -0.25, 0.9)
    pitch = torch.where(chance(generator, batch, 0.25), steep, level)
    size = log_uniform(generator, (batch,), 0.36, 1.8)
    stature = torch.where(is_main, 1.0, uniform(generator, (num,), 0.75, 1.15))
    # A whole figure is seen about its middle, a close-up about the head and the hands.
    whole, upper = joints[main].mean((1, 2)), joints[main][:, :, _UPPER].mean((1, 2))
    focus = torch.lerp(whole, upper, ((size - 0.75) / 0.5).clamp(0, 1)[:, None])
    focus = turn_and_look(focus[:, None], yaw[main])[:, 0]
    free = (1.1 - size).clamp(0.12, 0.5)
    place = uniform(generator, (batch, 2), -1, 1) * torch.stack([0.45 * free, 0.7 * free], -1)
    tracking = torch.where(chance(generator, batch, 0.35), 1.0, uniform(generator, (batch,), 0, 1))
    # A close-up would lose who runs off.
    tracking = torch.where(size > 1, 0.7 + 0.3 * tracking, tracking)
    distance = log_uniform(generator, (batch,), 2.2, 9)
    view = View(yaw, pitch[clip], distance[clip], focus[clip], place[clip], size[clip])
    return view, stature, tracking


def _kept_in_sight(tracking: Tensor, way: Tensor, size: Tensor) -> Tensor:
    """`tracking` (B,), but enough that nobody travels more than 1.2 picture heights within the clip."""
    extent = (way.amax(1) - way.amin(1)).norm(dim=1) * size
    return torch.maximum(tracking, 1 - 1.2 / extent.clamp(min=1e-3))


def _set_apart(
    generator: Generator, points: Tensor, clip: Tensor, is_main: Tensor, faced: Tensor
) -> tuple[Tensor, Tensor]:
    """Move the others beside, behind or before the main person; and the ranks of painting, far to near.

    `faced` (Q,) is the heading of the main person for who stands in front of that, else not a number.
    """
    num = len(clip)
    side = torch.where(chance(generator, num, 0.5), 1.0, -1.0) * uniform(generator, (num,), 0.25, 1.1)
    behind = uniform(generator, (num,), -0.6, 1.6)
    gap = uniform(generator, (num,), 0.5, 1.1)
    in_front = ~faced.isnan()
    side, behind = (torch.where(in_front, gap * f(faced), x) for f, x in ((torch.cos, side), (torch.sin, behind)))
    shift = torch.stack([side, torch.zeros(num), behind], -1).masked_fill(is_main[:, None], 0.0)
    depth = shift[:, 2]
    before = (clip[:, None] == clip) & (depth[:, None] < depth)
    return points + shift[:, None, None], before.sum(1)


def _draw_light(generator: Generator, batch: int) -> Tensor:
    """A slope (B, 2) of brightness, mostly from above."""
    strength = uniform(generator, (batch, 1), 0.0, 0.3)
    angle = torch.randn(batch, 1, generator=generator) * 0.9
    return strength * torch.cat([-angle.cos(), angle.sin()], dim=1)


def _seen(points: Tensor, people: People, camera: Camera) -> Tensor:
    """Where the camera sees points (Q, T, K, 2) of the people, in picture heights from the middle."""
    offset, zoom, roll = (part.cpu()[people.clip] for part in (camera.offset, camera.zoom, camera.roll))
    offset = offset * (1 - people.following[people.clip])[:, None, None]
    y, x = (points - offset[:, :, None]).unbind(-1)
    cos, sin = ((f(roll) * zoom)[:, :, None] for f in (torch.cos, torch.sin))
    return torch.stack([y * cos - x * sin, y * sin + x * cos], dim=-1)


def parts_on_screen(
    people: People, camera: Camera, height: int, width: int, side: int | None = None
) -> tuple[Tensor, Tensor]:
    """Presence and motion of everyone's limbs, as parts.part_maps gives them, for B pictures through the camera.

    With `side` the pictures of `height` x `width` are shown squeezed into a square of that side.
    """
    points = _seen(people.points, people, camera) + torch.tensor([0.5, 0.5 * width / height])
    if side is not None:
        points, height, width = points * torch.tensor([1.0, height / width]), side, side
    return part_maps(points, _PART_OF, people.clip, len(people.action), height, width)


def _on_screen(people: People, camera: Camera | None, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The capsules' ends in pixels (Q, T, K, 2) and radii in pixels (Q, T, K, 2), through the camera."""
    ends, radii = torch.cat([people.start, people.end], dim=2), people.radii * height
    if camera is not None:
        ends = _seen(ends, people, camera)
        radii = radii * camera.zoom.cpu()[people.clip][:, :, None, None]
    ends = ends * height + torch.tensor([height / 2 - 0.5, width / 2 - 0.5])
    start, end = ends.unflatten(2, (2, -1)).unbind(2)
    return start, end, radii


def _atlas(palette: Palette, bank: Tensor) -> Tensor:
    """All colours of all people (3, A): the plain ones (Q, slots), then the crops (Q, CROPS, CROP_SIZE, CROP_SIZE)."""
    device, size = bank.device, bank.shape[-1]
    plain = palette.colour.flatten(0, 1).to(device)
    # Small pictures are repeated, larger ones are cropped.
    corner = (palette.corner * max(size - CROP_SIZE, 0)).long().to(device)
    rows, columns = ((corner[..., k : k + 1] + torch.arange(CROP_SIZE, device=device)) % size for k in (0, 1))
    flat = (palette.picture.to(device)[..., None, None] * 3 * size + rows[..., None]) * size + columns[..., None, :]
    plane = size * size
    crops = torch.stack([bank.reshape(-1)[(flat + k * plane).flatten()] for k in range(3)])
    gain = palette.gain.to(device)[:, :, None, None].expand_as(flat).flatten()
    return torch.cat([plain.T, (crops * gain).clamp_(max=1)], dim=1)


def paint_people(canvas: Tensor, people: People, bank: Tensor, camera: Camera | None = None) -> None:
    """Paint people into `canvas` float32 (B, 3, T, h, w), 0-1, in place, far ones first.

    `bank` (N, 3, S, S), 0-1, on the canvas' device, holds the pictures of their cloth; `camera` moves them.
    """
    frames, height, width = canvas.shape[2:]
    if people.start.shape[1] != frames:
        raise ValueError(f"a canvas of {frames} frames: the people have {people.start.shape[1]}")
    start, end, radii = _on_screen(people, camera, height, width)
    num, _, capsules = start.shape[:3]
    there = radii[..., 0] > 0
    reach = radii.amax(-1, keepdim=True) + 1
    size = torch.tensor([height, width])
    low, high = torch.minimum(start, end) - reach, torch.maximum(start, end) + reach
    there = there & (high > 0).all(-1) & (low < size).all(-1)
    rank = torch.argsort(torch.argsort(people.depth.masked_fill(~there, math.inf), dim=-1, descending=True), dim=-1)
    layer = people.order[:, None, None] * capsules + rank
    person, t, k = there.nonzero().unbind(1)
    palette, slot = people.palette, people.slot[person, k]
    crop = palette.crop[person, slot]
    patterned = crop >= 0
    crop = crop.clamp(min=0)
    address = torch.where(
        patterned, num * len(SLOTS) + (person * CROPS + crop) * CROP_SIZE**2, person * len(SLOTS) + slot
    )
    # Thinner than a pixel is painted a little thicker, else far limbs break up.
    radii = radii[person, t, k].clamp(min=0.35)
    body_height = people.size[person] * height
    # A texel is never smaller than a pixel: fine patterns of far people would flicker.
    density = (CROP_SIZE / (palette.span[person, crop] * body_height)).clamp(max=1)
    limbs = Limbs(
        layer=layer[person, t, k],
        frame=people.clip[person] * frames + t,
        start=start[person, t, k],
        end=end[person, t, k],
        radii=radii,
        light=people.light[people.clip[person]],
        address=address,
        patterned=patterned,
        origin=k * 7.0,
        density=density,
    )
    paint_limbs(canvas, limbs, _atlas(palette, bank))
