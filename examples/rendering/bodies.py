"""Bodies of varied proportions, and where their joints are in a pose.

Axes of a body: x ahead, y up, z to its right; lengths in body heights. The ground is y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .draws import chance, uniform
from .poses import FREEDOMS

__all__ = ["JOINTS", "Body", "draw_bodies", "skeleton"]

_SIDED = ("shoulder", "elbow", "hand", "finger", "hip", "knee", "ankle", "toe")
JOINTS = ("hips", "neck", "head", "face", *(f"{side}_{name}" for name in _SIDED for side in ("left", "right")))
_COLUMN = {name: k for k, name in enumerate(FREEDOMS)}
# The left is at negative z.
_SIGN = torch.tensor([-1.0, 1.0])


@dataclass(frozen=True)
class Body:
    """Lengths in body heights, each (Q,): `torso` from hips to neck, `arm` and `leg` of either half, and so on.

    `girth` multiplies the thickness of trunk and limbs.
    """

    torso: Tensor
    arm: Tensor
    leg: Tensor
    head: Tensor  # the radius
    shoulders: Tensor  # half their width
    hips: Tensor  # half their width
    girth: Tensor


def draw_bodies(generator: Generator, num: int) -> Body:
    """Adults, thin to stout, and some children with large heads and short legs."""
    child = chance(generator, num, 0.15).float()
    return Body(
        torso=uniform(generator, (num,), 0.27, 0.32),
        arm=uniform(generator, (num,), 0.155, 0.185) - 0.015 * child,
        leg=uniform(generator, (num,), 0.225, 0.26) - 0.03 * child,
        head=uniform(generator, (num,), 0.056, 0.072) + 0.025 * child,
        shoulders=uniform(generator, (num,), 0.095, 0.13),
        hips=uniform(generator, (num,), 0.05, 0.068),
        girth=uniform(generator, (num,), 0.75, 1.35),
    )


def _turns(about_z: Tensor, about_x: Tensor, about_y: Tensor) -> Tensor:
    """The matrices Rz Rx Ry of angles (...): (..., 3, 3)."""
    (ca, cb, cc), (sa, sb, sc) = ((f(about_z), f(about_x), f(about_y)) for f in (torch.cos, torch.sin))
    return torch.stack(
        [
            *(ca * cc - sa * sb * sc, -sa * cb, ca * sc + sa * sb * cc),
            *(sa * cc + ca * sb * sc, ca * cb, sa * sc - ca * sb * cc),
            *(-cb * sc, sb, cb * cc),
        ],
        dim=-1,
    ).unflatten(-1, (3, 3))


def skeleton(body: Body, freedoms: Tensor, hung: Tensor) -> Tensor:
    """The joints float32 (Q, T, J, 3), x ahead, y up, z right, of bodies in poses `freedoms` (Q, T, D).

    The lowest joint stands `up` above the ground, but where `hung` (Q,) the hips are `up` above it. The body's own
    motion ahead and aside is in it, the way of its travel is not.
    """

    def one(name: str) -> Tensor:
        return freedoms[..., _COLUMN[name]]

    def pair(name: str) -> Tensor:
        first = _COLUMN[f"{name}_left"]
        return freedoms[..., first : first + 2]

    def length(value: Tensor) -> Tensor:
        return value[:, None, None, None]  # (Q,) -> (Q, 1, 1, 1), against joints (Q, T, 2, 3)

    zero = torch.zeros_like(one("yaw"))
    trunk = _turns(
        torch.stack([zero, -one("pitch"), -one("spine_swing"), -one("head_swing")], -1),
        torch.stack([zero, one("roll"), one("spine_lift"), zero], -1),
        torch.stack([one("yaw"), zero, one("spine_twist"), one("head_turn")], -1),
    )  # (Q, T, 4, 3, 3)
    root = trunk[:, :, 0] @ trunk[:, :, 1]
    chest = root @ trunk[:, :, 2]
    skull = chest @ trunk[:, :, 3]
    limbs = _turns(
        torch.stack([pair("arm_swing"), pair("leg_swing")], -1),
        torch.stack([pair("arm_lift"), pair("leg_lift")], -1) * -_SIGN[:, None],
        torch.stack([pair("arm_twist"), pair("leg_twist")], -1) * _SIGN[:, None],
    )  # (Q, T, 2 sides, 2 of arm and leg, 3, 3)
    arm, leg = chest[:, :, None] @ limbs[:, :, :, 0], root[:, :, None] @ limbs[:, :, :, 1]

    def bent(frame: Tensor, angle: Tensor) -> Tensor:
        """Where the next bone goes from `frame` (Q, T, 2, 3, 3), bent forwards by `angle`: (Q, T, 2, 3)."""
        return frame[..., 0] * angle.sin()[..., None] - frame[..., 1] * angle.cos()[..., None]

    neck = chest[..., 1] * body.torso[:, None, None]
    head = neck + skull[..., 1] * (1.45 * body.head[:, None, None])
    face = head + skull[..., 0] * (0.5 * body.head[:, None, None])
    side = _SIGN[:, None]
    drop = length(0.12 * body.torso)
    shoulder = (
        neck[:, :, None] + chest[:, :, None, :, 2] * side * length(body.shoulders) - chest[:, :, None, :, 1] * drop
    )
    elbow = shoulder - arm[..., 1] * length(body.arm)
    fore = bent(arm, pair("elbow"))
    hand = elbow + fore * length(body.arm)
    finger = hand + fore * length(0.28 * body.arm)
    hip = root[:, :, None, :, 2] * side * length(body.hips)
    knee = hip - leg[..., 1] * length(body.leg)
    shin = bent(leg, -pair("knee"))
    ankle = knee + shin * length(body.leg)
    # The foot is square to the shin where the ankle is at 0.
    toe = ankle + bent(leg, 1.45 - pair("knee") - pair("foot")) * length(0.36 * body.leg)
    middle = torch.stack([torch.zeros_like(neck), neck, head, face], dim=2)
    sided = torch.stack([shoulder, elbow, hand, finger, hip, knee, ankle, toe], dim=2).flatten(2, 3)
    joints = torch.cat([middle, sided], dim=2)  # (Q, T, J, 3)
    ground = torch.where(hung[:, None], zero, joints[..., 1].amin(2))
    aside = torch.stack([one("ahead"), one("up") - ground, one("aside")], -1)
    return joints + aside[:, :, None]
