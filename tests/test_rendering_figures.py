"""The rendered people of examples/rendering: poses, actions, bodies, projection and painting."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from rendering.actions import ACTIONS, TABLES, draw_motion, poses_at
from rendering.bodies import JOINTS, Body, skeleton
from rendering.camera import draw_camera, screen_points
from rendering.figures import (
    EXTREMITIES,
    View,
    draw_people,
    paint_people,
    parts_on_screen,
    project,
    turn_and_look,
)
from rendering.painting import CROP_SIZE, Limbs, paint_limbs
from rendering.parts import PARTS
from rendering.poses import FREEDOMS, LIMITS, Pose, keys
from rendering.props import PROPS

BATCH, FRAMES = 6, 4
BODY = Body(*(torch.tensor([value]) for value in (0.3, 0.16, 0.25, 0.06, 0.1, 0.05, 1.0)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bank() -> torch.Tensor:
    return torch.rand(5, 3, 40, 40, generator=generator(9))


def people(seed: int = 0, batch: int = BATCH, **options):
    times = torch.arange(FRAMES).float().expand(batch, -1) * 2
    return draw_people(generator(seed), batch, times, 5, **options)


def painted(drawn, bank, camera=None, height=32, width=40) -> torch.Tensor:
    canvas = torch.full((len(drawn.action), 3, FRAMES, height, width), -1.0)
    paint_people(canvas, drawn, bank, camera)
    return canvas


def joints_of(pose: Pose, hung: bool = False) -> dict[str, list[float]]:
    """The joints (ahead, up, right) of BODY in a pose, hung so that the hips are at `up`."""
    freedoms = torch.from_numpy(pose.table(1))[None]
    found = skeleton(BODY, freedoms, torch.tensor([hung]))[0, 0]
    return {name: [round(float(x), 4) + 0.0 for x in found[k]] for k, name in enumerate(JOINTS)}


# ------------------------------------------------------------------------------------------------ poses

STRAIGHT = {"arm_lift": 0, "elbow": 0, "leg_lift": 0, "leg_twist": 0, "knee": 0}


def test_who_stands_straight_has_joints_below_each_other():
    joints = joints_of(Pose(**STRAIGHT), hung=True)
    assert joints["hips"] == [0, 0, 0]
    assert joints["neck"] == [0, 0.3, 0]
    assert joints["head"] == pytest.approx([0, 0.387, 0])
    assert joints["face"] == pytest.approx([0.03, 0.387, 0])
    assert joints["left_shoulder"] == pytest.approx([0, 0.264, -0.1])
    assert joints["right_hand"] == pytest.approx([0, 0.264 - 0.32, 0.1])
    assert joints["left_ankle"] == pytest.approx([0, -0.5, -0.05])
    assert joints["left_toe"][0] > 0.08


@pytest.mark.parametrize(
    ("pose", "joint", "place"),
    [
        ({"arm_swing": math.pi / 2}, "left_hand", [0.32, 0.264, -0.1]),
        ({"arm_lift": math.pi / 2}, "left_hand", [0, 0.264, -0.42]),
        ({"arm_lift": math.pi / 2}, "right_hand", [0, 0.264, 0.42]),
        ({"elbow": math.pi / 2}, "right_hand", [0.16, 0.104, 0.1]),
        ({"elbow": math.pi / 2, "arm_twist": math.pi / 2}, "right_hand", [0, 0.104, -0.06]),
        ({"elbow": math.pi / 2, "arm_twist": math.pi / 2}, "left_hand", [0, 0.104, 0.06]),
        ({"leg_swing": (math.pi / 2, 0)}, "left_ankle", [0.5, 0, -0.05]),
        ({"knee": (0, math.pi / 2)}, "right_ankle", [-0.25, -0.25, 0.05]),
        ({"leg_lift": math.pi / 2}, "right_knee", [0, 0, 0.3]),
        ({"spine_swing": math.pi / 2}, "neck", [0.3, 0, 0]),
        ({"spine_lift": math.pi / 2}, "neck", [0, 0, 0.3]),
        ({"spine_twist": math.pi / 2}, "right_shoulder", [0.1, 0.264, 0]),
        ({"yaw": math.pi / 2}, "right_hip", [0.05, 0, 0]),
        ({"pitch": math.pi / 2}, "neck", [0.3, 0, 0]),
        ({"pitch": math.pi / 2}, "left_ankle", [-0.5, 0, -0.05]),
        ({"roll": math.pi / 2}, "neck", [0, 0, 0.3]),
        ({"head_turn": math.pi / 2}, "face", [0, 0.387, -0.03]),
        ({"up": 0.4, "ahead": 0.1, "aside": 0.2}, "hips", [0.1, 0.4, 0.2]),
    ],
)
def test_joints_of_known_poses(pose, joint, place):
    assert joints_of(Pose(**{**STRAIGHT, **pose}), hung=True)[joint] == pytest.approx(place, abs=2e-4)


def test_the_lowest_joint_stands_on_the_ground():
    joints = joints_of(Pose(leg_swing=(1.2, 0), knee=(1, 0), up=0.25))
    assert min(place[1] for place in joints.values()) == pytest.approx(0.25, abs=1e-4)
    assert joints["right_ankle"][1] < joints["left_ankle"][1]


def test_eased_keys_pass_through_their_points():
    points = ((0.1, 2.0), (0.3, -1.0), (0.9, 5.0))
    assert keys(np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.9, 1.0]), *points) == pytest.approx([2, 2, 0.5, -1, 2, 5, 5])


# ------------------------------------------------------------------------------------------------ actions


def test_there_are_many_actions():
    assert len(ACTIONS) >= 40
    assert {action.prop for action in ACTIONS.values()} <= set(PROPS)


@pytest.mark.parametrize("number", range(len(ACTIONS)), ids=list(ACTIONS))
def test_an_action_moves_within_the_limits_of_bodies(number):
    action, table = list(ACTIONS.values())[number], TABLES[number]
    assert table.isfinite().all()
    for name, column in zip(FREEDOMS, table.unbind(1), strict=True):
        low, high = LIMITS[name]
        assert low - 1e-6 <= column.min() and column.max() <= high + 1e-6, name
    assert np.ptp(table.numpy(), axis=0).max() > 0.02
    steps = skeleton(BODY, table[None], torch.tensor([action.hung]))[0].diff(dim=0).norm(dim=-1)
    assert steps.max() < 0.2  # nothing jumps from one step of a table to the next
    if not action.once:
        turned = (table[0] - table[-1]).abs() / math.tau
        assert torch.allclose(turned, turned.round(), atol=1e-5)


BACKWARDS = [
    (one, other)
    for one, first in ACTIONS.items()
    for other, second in ACTIONS.items()
    if first.program is second.program and not first.reverse and second.reverse
]


def test_many_actions_have_a_partner_that_runs_backwards():
    assert len(BACKWARDS) >= 15


@pytest.mark.parametrize(("one", "other"), BACKWARDS)
def test_a_partner_has_the_same_poses_backwards(one, other):
    names = list(ACTIONS)
    phase = torch.linspace(0, 1, 12)[1:-1][None]
    there = poses_at(torch.tensor([names.index(one)]), phase)
    back = poses_at(torch.tensor([names.index(other)]), 1 - phase)
    assert torch.allclose(there, back, atol=1e-4)


def test_a_clip_played_backwards_shows_the_same_poses_mirrored_in_time():
    action = torch.arange(len(ACTIONS))
    times = (torch.arange(5).float() * 3).expand(len(ACTIONS), -1)
    there, back = (draw_motion(generator(3), action, t) for t in (times, times.flip(1)))
    assert torch.equal(there.freedoms, back.freedoms.flip(1))
    assert torch.equal(there.way, back.way.flip(1))


def test_what_is_drawn_stays_within_the_limits():
    action = torch.arange(len(ACTIONS)).repeat(3)
    motion = draw_motion(generator(1), action, torch.arange(6).float().expand(len(action), -1))
    low, high = torch.tensor([LIMITS[name] for name in FREEDOMS]).T
    assert (motion.freedoms >= low).all() and (motion.freedoms <= high).all()


# ------------------------------------------------------------------------------------------------ projection


def view(yaw=0.0, pitch=0.0, distance=4.0, focus=(0.0, 0.5, 0.0), place=(0.1, -0.2), size=0.8) -> View:
    values = (yaw, pitch, distance, focus, place, size)
    return View(*(torch.tensor([value], dtype=torch.float32) for value in values))


def test_projection_by_hand():
    points = torch.tensor([[[0.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.5, 0.5, 4.0]]])
    place, depth, scale = project(points, view())
    expected = [[0.1, -0.2], [0.1 - 0.4, -0.2 + 0.4], [0.1, -0.2 + 0.5 * 0.8 * 4 / 8]]
    assert torch.allclose(place[0], torch.tensor(expected), atol=1e-6)
    assert depth[0].tolist() == pytest.approx([0, 0, 4])
    assert scale[0].tolist() == pytest.approx([0.8, 0.8, 0.4])


def test_from_above_what_is_behind_is_seen_higher():
    place, depth, _ = project(torch.tensor([[[0.0, 0.5, 1.0], [0.0, 1.5, 0.0]]]), view(pitch=math.pi / 6, distance=1e6))
    assert place[0, :, 0].tolist() == pytest.approx([0.1 - 0.8 * 0.5, 0.1 - 0.8 * 3**0.5 / 2], abs=1e-4)
    assert depth[0].tolist() == pytest.approx([3**0.5 / 2, -0.5], abs=1e-4)


@pytest.mark.parametrize(
    ("yaw", "ahead", "right"),
    [(0, [1, 0, 0], [0, 0, -1]), (math.pi / 2, [0, 0, 1], [1, 0, 0]), (math.pi, [-1, 0, 0], [0, 0, 1])],
)
def test_headings(yaw, ahead, right):
    seen = turn_and_look(torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]]), torch.tensor([float(yaw)]))[0]
    assert torch.allclose(seen, torch.tensor([ahead, right], dtype=torch.float32), atol=1e-6)


# ------------------------------------------------------------------------------------------------ people


def test_the_same_seed_makes_the_same_people(bank):
    one, again, other = painted(people(4), bank), painted(people(4), bank), painted(people(5), bank)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_labels_have_their_shapes_and_ranges():
    drawn = people(batch=40)
    assert drawn.action.shape == (40,) and drawn.action.min() >= 0 and drawn.action.max() < len(ACTIONS)
    assert drawn.joints.shape == (40, FRAMES, len(JOINTS), 2) and drawn.reach.shape == (40, FRAMES, 5, 2)
    assert drawn.joints.isfinite().all() and drawn.travel.shape == (40, 2)
    assert set(drawn.number.tolist()) == {1, 2, 3} and len(drawn.clip) == drawn.number.sum()
    assert (drawn.joints[:, :, 0].abs() < 1.5).float().mean() > 0.95


def test_reach_targets_are_the_joints():
    drawn = people(2)
    main = (drawn.number.cumsum(0) - drawn.number).tolist()
    for b, q in enumerate(main):
        assert drawn.clip[q] == b
        for k, name in enumerate(EXTREMITIES):
            joint = drawn.joints[b, :, JOINTS.index(name)] - drawn.joints[b, :, JOINTS.index("hips")]
            assert torch.allclose(drawn.reach[b, :, k], joint / drawn.size[q], atol=1e-5)


@pytest.mark.parametrize("height, width, side", [(64, 96, None), (104, 40, 64), (40, 72, 64)])
def test_maps_of_parts_follow_the_camera(height, width, side):
    """The head of who is alone, through cameras that move: its cell in every frame, and no other far from it."""
    times = torch.arange(8).float().expand(60, -1) * 2
    drawn, camera = draw_people(generator(3), 60, times, 5), draw_camera(generator(4), times)
    drawn = replace(drawn, following=torch.zeros(60))
    parts, _ = parts_on_screen(drawn, camera, height, width, side)
    heads = parts[:, :, PARTS.index("head")]
    shown = (height, width) if side is None else (side, side)
    # in pixels of the picture that is shown
    seen = screen_points(camera, drawn.joints[:, :, JOINTS.index("head")]) * height
    seen = (seen + torch.tensor([height / 2, width / 2])) * torch.tensor([shown[0] / height, shown[1] / width])
    middles = torch.stack(torch.meshgrid(*(torch.arange(n // 8) for n in shown), indexing="ij"), -1) * 8 + 4.0
    found = 0
    for b in torch.nonzero(drawn.number == 1)[:, 0].tolist():
        for half in range(2):
            places = seen[b, 4 * half : 4 * half + 4]
            away = (middles - places[:, None, None]).abs().amax(-1)  # (4, h, w)
            there = (away < 4).any(0)
            assert (heads[b, half][there] > 0.55).all() and (heads[b, half][(away > 24).all(0)] < 0.01).all()
            found += int(there.sum())
    assert found > 30 and camera.zoom.std() > 0.05 and camera.roll.abs().max() > 0.1


def test_people_are_seen_to_travel_as_their_label_says():
    times = torch.arange(FRAMES).float().expand(120, -1) * 8
    drawn = draw_people(generator(7), 120, times, 5)
    seen = drawn.path[:, -1] - drawn.path[:, 0]
    told = drawn.travel * (1 - drawn.tracking)[:, None] * 8 * (FRAMES - 1)
    fast = told[:, 1].abs() > 0.1
    assert fast.sum() >= 5 and told.abs().max() < 1.5
    assert (seen[fast, 1].sign() == told[fast, 1].sign()).float().mean() > 0.9
    # Seen in perspective, who comes nearer gains some of it.
    assert ((seen - told)[fast, 1].abs() < 0.6 * told[fast, 1].abs() + 0.1).float().mean() > 0.8


def test_times_must_fit_the_batch():
    with pytest.raises(ValueError, match=r"needs \(3, T\)"):
        draw_people(generator(), 3, torch.zeros(2, 4), 5)


def test_a_canvas_must_have_the_people_s_frames(bank):
    with pytest.raises(ValueError, match="canvas of 7 frames"):
        paint_people(torch.zeros(BATCH, 3, 7, 8, 8), people(), bank)


def test_only_figures_are_painted(bank):
    drawn = people(1)
    height, width = 32, 40
    canvas = painted(drawn, bank, height=height, width=width)
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    near = torch.zeros(BATCH, FRAMES, height, width, dtype=torch.bool)
    for q, t, k in np.ndindex(*drawn.start.shape[:3]):
        if drawn.radii[q, t, k].max() > 0:
            (y0, x0), (y1, x1) = ((p[q, t, k] * height).tolist() for p in (drawn.start, drawn.end))
            r = float(drawn.radii[q, t, k].max()) * height + 1.5
            y, x = rows - height / 2, columns - width / 2
            inside = (y > min(y0, y1) - r) & (y < max(y0, y1) + r) & (x > min(x0, x1) - r) & (x < max(x0, x1) + r)
            near[drawn.clip[q], t] |= inside
    touched = (canvas != -1).any(1)
    assert touched.any() and not (touched & ~near).any()
    assert canvas.max() < 1.5 and canvas[touched[:, None].expand_as(canvas)].min() >= -1


class Camera:
    def __init__(self, offset, zoom, roll):
        self.offset = torch.tensor(offset, dtype=torch.float32).expand(BATCH, FRAMES, 2)
        self.zoom = torch.full((BATCH, FRAMES), zoom)
        self.roll = torch.full((BATCH, FRAMES), roll)


def test_a_camera_moves_turns_and_magnifies(bank):
    drawn = replace(people(6), following=torch.zeros(BATCH))
    still = painted(drawn, bank, height=40)
    assert torch.equal(painted(drawn, bank, Camera((0, 0), 1.0, 0.0), height=40), still)
    moved = painted(drawn, bank, Camera((4 / 40, -3 / 40), 1.0, 0.0), height=40)
    assert torch.allclose(moved[..., :-4, 3:], still[..., 4:, :-3], atol=2e-3)
    # Plain light falls alike on who is turned upside down.
    plain = replace(drawn, light=torch.zeros(BATCH, 2), palette=replace(drawn.palette, crop=drawn.palette.crop * 0 - 1))
    turned = painted(plain, bank, Camera((0, 0), 1.0, math.pi), height=40)
    assert torch.allclose(turned, painted(plain, bank, height=40).flip(3, 4), atol=2e-3)
    quarter = painted(plain, bank, Camera((0, 0), 1.0, math.pi / 2), height=40)
    assert torch.allclose(quarter, painted(plain, bank, height=40).transpose(3, 4).flip(3), atol=2e-3)
    larger = replace(plain, start=plain.start * 1.5, end=plain.end * 1.5, radii=plain.radii * 1.5)
    near = painted(plain, bank, Camera((0, 0), 1.5, 0.0), height=40)
    assert torch.allclose(near, painted(larger, bank, height=40), atol=2e-3)


def test_who_goes_along_with_the_camera_stays_where_they_are(bank):
    drawn = replace(people(6), following=torch.ones(BATCH))
    assert torch.equal(painted(drawn, bank, Camera((0.2, 0.3), 1.0, 0.0)), painted(drawn, bank))


# ------------------------------------------------------------------------------------------------ painting


def limbs(**changes) -> Limbs:
    """One limb in frame 1 of clip 0, of the atlas' first colour."""
    one = Limbs(
        layer=torch.tensor([0]),
        frame=torch.tensor([1]),
        start=torch.tensor([[6.0, 4.0]]),
        end=torch.tensor([[11.0, 17.0]]),
        radii=torch.tensor([[3.0, 1.5]]),
        light=torch.zeros(1, 2),
        address=torch.tensor([0]),
        patterned=torch.tensor([False]),
        origin=torch.zeros(1),
        density=torch.ones(1),
    )
    return replace(one, **changes)


def join(*parts: Limbs) -> Limbs:
    return Limbs(*(torch.cat([getattr(part, name) for part in parts]) for name in Limbs.__dataclass_fields__))


def slow_limb(canvas: torch.Tensor, limb: Limbs, colour: torch.Tensor) -> None:
    """One limb in one frame (3, h, w), pixel by pixel."""
    (y0, x0), (y1, x1), (r0, r1) = limb.start[0].tolist(), limb.end[0].tolist(), limb.radii[0].tolist()
    light_y, light_x = limb.light[0].tolist()
    bone_y, bone_x = y1 - y0, x1 - x0
    for y, x in np.ndindex(*canvas.shape[1:]):
        along = ((y - y0) * bone_y + (x - x0) * bone_x) / max(bone_y**2 + bone_x**2, 1e-6)
        along = min(max(along, 0), 1)
        out_y, out_x = y - y0 - along * bone_y, x - x0 - along * bone_x
        distance, radius = math.hypot(out_y, out_x), r0 + along * (r1 - r0)
        cover = min(max(radius - distance + 0.5, 0), 1)
        facing = math.sqrt(max(1 - (distance / radius) ** 2, 0))
        shade = 0.74 + 0.28 * facing + (light_y * out_y + light_x * out_x) / radius
        canvas[:, y, x] += cover * (colour * shade - canvas[:, y, x])


@pytest.mark.parametrize("seed", range(6))
def test_a_limb_is_painted_as_pixel_by_pixel(seed):
    values = torch.rand(4, 2, generator=generator(seed))
    start, end = values[:2] * torch.tensor([26.0, 34.0]) - 5
    # Level, upright, without length, leaning.
    end = [end, torch.stack([start[0], end[1]]), torch.stack([end[0], start[1]]), start, end, end][seed]
    limb = limbs(start=start[None], end=end[None], radii=values[2:3] * 5 + 0.4, light=values[3:] - 0.5)
    atlas = torch.tensor([[0.3], [0.9], [0.6]])
    canvas = torch.rand(2, 3, 2, 16, 24, generator=generator(seed + 50))
    expected = canvas.clone()
    slow_limb(expected[0, :, 1], limb, atlas[:, 0])
    paint_limbs(canvas, limb, atlas)
    assert torch.allclose(canvas, expected, atol=1e-4)


def test_later_layers_hide_earlier_ones_whatever_their_place_in_the_list():
    atlas = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    far = limbs(layer=torch.tensor([1]))
    near = limbs(layer=torch.tensor([2]), address=torch.tensor([1]), radii=torch.tensor([[9.0, 9.0]]))
    for some in (join(far, near), join(near, far)):
        canvas = torch.zeros(1, 3, 2, 16, 24)
        paint_limbs(canvas, some, atlas)
        assert canvas[0, 0].max() == 0 and canvas[0, 1, 1].max() > 0.9 and canvas[0, :, 0].max() == 0


def test_who_is_nearer_hides_who_is_behind(bank):
    """Two people of one clip in the same place, one of them much larger: it hides the other when it is before it."""
    drawn = people(0, batch=30)
    q = int((drawn.number == 2).nonzero()[0, 0])
    pair = (drawn.clip == q).nonzero()[:, 0]
    clip = {name: getattr(drawn, name)[pair].clone() for name in ("start", "end", "radii")}
    clip["start"][:], clip["end"][:] = 0, 0
    clip["radii"][0], clip["radii"][1] = 0.1, 0.4
    palette = replace(drawn.palette, **{n: getattr(drawn.palette, n)[pair] for n in drawn.palette.__dataclass_fields__})
    colour = torch.zeros_like(palette.colour)
    colour[0, :, 0], colour[1, :, 1] = 1, 1
    palette = replace(palette, colour=colour, crop=palette.crop * 0 - 1)
    rest = {n: getattr(drawn, n)[pair] for n in ("depth", "slot", "size")}
    for order, seen in (([0, 1], 1), ([1, 0], 0)):
        order = torch.tensor(order)
        zero = torch.zeros(2, dtype=torch.long)
        two = replace(drawn, clip=zero, order=order, palette=palette, light=torch.zeros(1, 2), **clip, **rest)
        canvas = torch.zeros(1, 3, FRAMES, 20, 20)
        paint_people(canvas, two, bank)
        middle = canvas[0, :, 0, 10, 10]
        assert middle[seen] > 0.9 and middle[1 - seen] == 0


def test_the_order_of_painting_is_by_depth(bank):
    drawn = people(3)
    behind = replace(drawn, depth=-drawn.depth)
    assert not torch.equal(painted(drawn, bank), painted(behind, bank))


def test_a_pattern_runs_along_and_across_a_limb():
    atlas = torch.zeros(3, 1 + CROP_SIZE**2)
    texels = atlas[:, 1:].view(3, CROP_SIZE, CROP_SIZE)
    texels[0] = torch.arange(CROP_SIZE)[:, None] / CROP_SIZE  # red grows along
    texels[1] = torch.arange(CROP_SIZE) / CROP_SIZE  # green grows across
    ends = {"start": torch.tensor([[2.0, 10.0]]), "end": torch.tensor([[13.0, 10.0]])}
    look = {"patterned": torch.tensor([True]), "address": torch.tensor([1]), "origin": torch.tensor([4.5])}
    canvas = torch.zeros(1, 3, 2, 16, 24)
    paint_limbs(canvas, limbs(**ends, **look, radii=torch.tensor([[60.0, 60.0]])), atlas)
    red, green = canvas[0, :2, 1] * CROP_SIZE / canvas.new_tensor(1.02)
    assert red[:, 10].tolist() == pytest.approx([2 + y for y in range(16)], rel=0.03)
    assert green[7].tolist() == pytest.approx([(x - 6) % CROP_SIZE for x in range(24)], rel=0.05, abs=0.05)


def test_nothing_to_paint():
    canvas = torch.zeros(1, 3, 2, 8, 8)
    paint_limbs(canvas, limbs().take(torch.zeros(0, dtype=torch.long)), torch.zeros(3, 1))
    paint_limbs(canvas, limbs(start=torch.full((1, 2), -90.0), end=torch.full((1, 2), -80.0)), torch.zeros(3, 1))
    assert canvas.abs().max() == 0
