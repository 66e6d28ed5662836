"""What people hold, ride and sit at, as capsules that follow their joints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .bodies import JOINTS
from .clothes import SLOTS, Capsules

__all__ = ["PROPS", "PROP_CAPSULES", "prop_capsules"]

PROP_CAPSULES = 16  # at most, of one prop
_PROP, _PROP2 = SLOTS.index("prop"), SLOTS.index("prop2")


@dataclass(frozen=True)
class Held:
    """Who holds: joints (Q, T, J, 3), the program's `value` and its phase in turns (Q, T, 1), a size (Q, 1, 1)."""

    joints: Tensor
    value: Tensor
    phase: Tensor
    size: Tensor

    def at(self, name: str) -> Tensor:
        return self.joints[:, :, JOINTS.index(name)]

    def hands(self) -> Tensor:
        return (self.at("left_finger") + self.at("right_finger")) / 2

    def point(self, ahead: Tensor | float, up: Tensor | float, right: Tensor | float = 0.0) -> Tensor:
        """A point of the place where the figure began, on the ground at height `up`: (Q, T, 3)."""
        parts = (ahead, up, right)
        return torch.stack([torch.zeros_like(self.value[..., 0]) + part for part in parts], dim=-1)


Piece = tuple[Tensor, Tensor, float, float, int]  # start, end (Q, T, 3), radii at either end, slot


def _unit(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector, dim=-1)


def _ball(place: Tensor, radius: float) -> list[Piece]:
    # Never under the ground.
    height = place[..., 1:2].clamp(min=radius)
    place = torch.cat([place[..., :1], height, place[..., 2:]], dim=-1)
    return [(place, place, radius, radius, _PROP)]


def _thrown(ahead: float, up: float, radius: float, drop: float = 0.0) -> Callable[[Held], list[Piece]]:
    """A ball that leaves the right hand on a parabola."""

    def pieces(held: Held) -> list[Piece]:
        v = held.value
        flight = torch.cat([ahead * v, up * v - drop * v * v, 0 * v], dim=-1)
        return _ball(held.at("right_finger") + flight, radius)

    return pieces


def _passed(ahead: float, up: float, radius: float) -> Callable[[Held], list[Piece]]:
    """A ball that leaves both hands on a parabola."""

    def pieces(held: Held) -> list[Piece]:
        v = held.value
        flight = torch.cat([ahead * v, up * v - 0.5 * v * v, 0 * v], dim=-1)
        return _ball(held.hands() + flight, radius)

    return pieces


def _kicked(held: Held) -> list[Piece]:
    v = held.value
    # It lies where the swinging foot will come along.
    place = held.point(0.22 + 1.6 * v[..., 0], 0.06 + 0.35 * v[..., 0], 0.06)
    return _ball(place, 0.06)


def _bounced(held: Held) -> list[Piece]:
    hand = held.at("right_finger")
    ground = torch.cat([hand[..., :1], torch.full_like(hand[..., :1], 0.07), hand[..., 2:]], dim=-1)
    below = hand - torch.tensor([0.0, 0.08, 0.0])
    return _ball(torch.lerp(below, ground, held.value), 0.07)


def _stick(length: float, radius: float, back: float = 0.0, lean: float = 0.0) -> Callable[[Held], list[Piece]]:
    """A stick in the right hand, along the forearm where `lean` is 0, square to it where it is 1."""

    def pieces(held: Held) -> list[Piece]:
        hand, fore = held.at("right_finger"), _unit(held.at("right_hand") - held.at("right_elbow"))
        upper = _unit(held.at("right_elbow") - held.at("right_shoulder"))
        square = _unit(fore - upper * (fore * upper).sum(-1, keepdim=True) + torch.tensor([1e-3, 1e-3, 0.0]))
        along = _unit(torch.lerp(fore, square, lean))
        return [(hand - back * along, hand + length * along, radius, radius, _PROP)]

    return pieces


def _hammer(held: Held) -> list[Piece]:
    ((start, end, *_),) = _stick(0.2, 0.01, lean=0.6)(held)
    across = _unit(end - start)[..., [1, 0, 2]] * torch.tensor([-0.05, 0.05, 0.0])
    return [(start, end, 0.01, 0.01, _PROP), (end - across, end + across, 0.03, 0.03, _PROP2)]


def _racket(held: Held) -> list[Piece]:
    ((start, end, *_),) = _stick(0.22, 0.01, lean=0.25)(held)
    head = end + 0.07 * _unit(end - start)
    return [(start, end, 0.01, 0.01, _PROP), (end, head, 0.055, 0.07, _PROP2)]


def _spear(held: Held) -> list[Piece]:
    hand = held.at("right_finger") + torch.cat([1.8 * held.value, 0.5 * held.value, 0 * held.value], dim=-1)
    along = torch.tensor([0.5, 0.12, 0.0])
    return [(hand - along, hand + along, 0.009, 0.009, _PROP)]


def _club(held: Held) -> list[Piece]:
    """From both hands on, away from the shoulders."""
    hands = held.hands()
    chest = (held.at("left_shoulder") + held.at("right_shoulder")) / 2
    return [(hands, hands + 0.5 * _unit(hands - chest), 0.012, 0.022, _PROP)]


def _pole(held: Held) -> list[Piece]:
    """A spade or a broom: from the upper hand through the lower one."""
    upper, lower = held.at("right_finger"), held.at("left_finger")
    along = _unit(lower - upper)
    end = lower + 0.42 * along
    return [(upper - 0.1 * along, end, 0.012, 0.012, _PROP), (end, end + 0.12 * along, 0.035, 0.05, _PROP2)]


def _barbell(held: Held) -> list[Piece]:
    left, right = held.at("left_finger"), held.at("right_finger")
    out = _unit(right - left)
    ends = (left - 0.22 * out, right + 0.22 * out)
    bar = [(ends[0], ends[1], 0.011, 0.011, _PROP2)]
    return bar + [(end - 0.02 * out, end + 0.02 * out, 0.075, 0.075, _PROP) for end in ends]


def _oars(held: Held) -> list[Piece]:
    pieces = [(held.point(-0.6, 0.06), held.point(0.9, 0.06), 0.09, 0.07, _PROP)]
    for side, sign in (("left", -1.0), ("right", 1.0)):
        hand, pin = held.at(f"{side}_finger"), held.point(0.35, 0.22, sign * 0.22)
        out = _unit(pin - hand)
        # A blade is dipped and lifted a little, however high the hands are.
        out = torch.cat([out[..., :1], out[..., 1:2].clamp(-0.2, 0.05), out[..., 2:]], dim=-1)
        pieces.append((hand, pin + 0.75 * _unit(out), 0.011, 0.02, _PROP2))
    return pieces


def _box(held: Held) -> list[Piece]:
    """A parcel between the hands, of three bars side by side."""
    hands, aside = held.hands(), torch.tensor([0.0, 0.0, 0.1])
    rows = [hands + torch.tensor([0.06, height, 0.0]) for height in (-0.07, 0.0, 0.07)]
    return [(row - aside, row + aside, 0.055, 0.055, _PROP) for row in rows]


def _table(held: Held) -> list[Piece]:
    """A board under the hands, in front of the figure."""
    height = held.hands().amin(1, keepdim=True)[..., 1] - 0.05
    bars = [(held.point(x, height, -0.42), held.point(x, height, 0.42), 0.035, 0.035, _PROP) for x in (0.3, 0.37, 0.44)]
    low = held.point(0.44, 0.5 * height, -0.42), held.point(0.44, 0.5 * height, 0.42)
    return [*bars, (*low, 0.1, 0.1, _PROP), *_stool(held)]


def _stool(held: Held) -> list[Piece]:
    hips = held.at("hips")
    # Only who sits has something to sit on: a stool as high as the hips are low.
    seated = (hips[..., 1].amax(1) < 0.42).float()[:, None]
    height = hips[..., 1].amin(1, keepdim=True) - 0.1
    seat = held.point(0.0, height * seated - (1 - seated))
    return [(seat, seat - torch.tensor([0.0, 0.2, 0.0]), 0.09, 0.07, _PROP2)]


def _seat(held: Held) -> list[Piece]:
    """A bench behind the figure, and its back."""
    pieces = [(held.point(x, 0.2, -0.2), held.point(x, 0.2, 0.2), 0.05, 0.05, _PROP) for x in (-0.3, -0.2)]
    back = [(held.point(-0.38, 0.2, z), held.point(-0.4, 0.55, z), 0.04, 0.04, _PROP2) for z in (-0.15, 0.0, 0.15)]
    legs = [
        (held.point(x, 0.2, z), held.point(x, 0.0, z), 0.02, 0.02, _PROP2) for x in (-0.35, -0.2) for z in (-0.2, 0.2)
    ]
    return pieces + back + legs


def _drums(held: Held) -> list[Piece]:
    tops = [held.point(0.32, 0.42, -0.16), held.point(0.32, 0.42, 0.16), held.point(0.45, 0.3)]
    down = torch.tensor([0.0, 0.13, 0.0])
    return [*((top, top - down, 0.11, 0.11, _PROP) for top in tops), *_sticks(held), *_stool(held)]


def _sticks(held: Held) -> list[Piece]:
    pieces = []
    for side in ("left", "right"):
        hand = held.at(f"{side}_finger")
        along = _unit(hand - held.at(f"{side}_elbow"))
        pieces.append((hand, hand + 0.17 * along, 0.008, 0.008, _PROP2))
    return pieces


def _guitar(held: Held) -> list[Piece]:
    """Across the belly, its neck in the left hand."""
    body, neck = torch.lerp(held.at("hips"), held.at("right_finger"), 0.75), held.at("left_finger")
    along = _unit(neck - body)
    return [
        (body - 0.06 * along, body + 0.1 * along, 0.085, 0.06, _PROP),
        (body, neck + 0.08 * along, 0.014, 0.014, _PROP2),
    ]


def _cup(held: Held) -> list[Piece]:
    hand = held.at("right_finger")
    return [(hand - torch.tensor([0.0, 0.03, 0.0]), hand + torch.tensor([0.0, 0.045, 0.0]), 0.026, 0.03, _PROP)]


def _rungs(held: Held) -> list[Piece]:
    """A ladder in front of the climber; the climber moves, seen by a camera that rises along."""
    drift = held.phase[..., 0] * 0.35
    drift = drift - drift.floor()
    rungs = [held.point(0.3, 0.35 * (k - drift) - 0.1) for k in range(5)]
    aside = torch.tensor([0.0, 0.0, 0.24])
    rails = [(held.point(0.3, -0.1, z), held.point(0.3, 1.5, z), 0.016, 0.016, _PROP) for z in (-0.24, 0.24)]
    return rails + [(rung - aside, rung + aside, 0.014, 0.014, _PROP) for rung in rungs]


def _bar(held: Held) -> list[Piece]:
    hands = held.hands().mean(1, keepdim=True) + torch.zeros_like(held.hands())
    aside = torch.tensor([0.0, 0.0, 0.6])
    return [(hands - aside, hands + aside, 0.016, 0.016, _PROP)]


def _rope(held: Held) -> list[Piece]:
    """A rope of eight pieces through both hands, whose belly turns round the figure."""
    left, right = held.at("left_finger"), held.at("right_finger")
    angle = 2 * math.pi * held.phase
    round_trip = torch.cat([torch.sin(angle), -torch.cos(angle), 0 * angle], dim=-1) * 0.62
    parts = [k / 8 for k in range(9)]
    points = [torch.lerp(left, right, part) + round_trip * (4 * part * (1 - part)) ** 0.5 for part in parts]
    return [(a, b, 0.007, 0.007, _PROP) for a, b in itertools.pairwise(points)]


def _bow(held: Held) -> list[Piece]:
    """The limbs of the bow about the left hand, its string and the arrow at the right hand."""
    grip, nock = held.at("left_finger"), held.at("right_finger")
    out = _unit(grip - held.at("left_shoulder"))
    nock = torch.lerp(grip - 0.1 * out, nock, held.value.clamp(0, 1))
    up = torch.tensor([0.0, 0.34, 0.0])
    tips = [grip + way * up - 0.1 * out for way in (1.0, -1.0)]
    limbs = [(grip, tip, 0.014, 0.008, _PROP) for tip in tips]
    return [
        *limbs,
        *((tip, nock, 0.004, 0.004, _PROP2) for tip in tips),
        (nock, nock + 0.5 * out, 0.006, 0.006, _PROP2),
    ]


def _horse(held: Held) -> list[Piece]:
    phase = 2 * math.pi * held.phase[..., 0]
    height = 0.5 + 0.03 * torch.sin(phase)
    nod = 0.04 * torch.sin(phase + 1)
    neck, poll = held.point(0.3, height + 0.05), held.point(0.52, height + 0.33 + nod)
    pieces = [
        (held.point(-0.32, height + 0.01), held.point(0.26, height), 0.14, 0.13, _PROP),
        (neck, poll, 0.085, 0.055, _PROP),
        (poll, held.point(0.7, height + 0.2 + nod), 0.055, 0.034, _PROP),
        (held.point(-0.45, height + 0.05), held.point(-0.58, height - 0.2), 0.03, 0.02, _PROP2),
        (poll, held.point(0.3, height + 0.16), 0.03, 0.03, _PROP2),
    ]
    for x, z, shift in ((0.27, -0.07, 0.0), (0.27, 0.07, 0.5), (-0.32, -0.07, 2.6), (-0.32, 0.07, 3.1)):
        angle, fold = 0.55 * torch.sin(phase + shift), 0.6 * (1 + torch.cos(phase + shift))
        knee_x, knee_y = x + 0.22 * torch.sin(angle), height - 0.06 - 0.22 * torch.cos(angle)
        knee = held.point(knee_x, knee_y, z)
        hoof = held.point(knee_x + 0.22 * torch.sin(angle - fold), knee_y - 0.22 * torch.cos(angle - fold), z)
        pieces += [(held.point(x, height - 0.06, z), knee, 0.055, 0.03, _PROP), (knee, hoof, 0.028, 0.022, _PROP)]
    return pieces


def _bicycle(held: Held) -> list[Piece]:
    radius, pieces = 0.19, []
    roll = 2 * math.pi * held.phase[..., 0]  # falling where the bicycle rolls on
    for x in (-0.36, 0.42):
        spokes = [roll + 2 * math.pi * k / 6 for k in range(7)]
        rim = [held.point(x + radius * torch.sin(a), radius - radius * torch.cos(a)) for a in spokes]
        pieces += [(a, b, 0.014, 0.014, _PROP2) for a, b in itertools.pairwise(rim)]
    crank, seat, head = held.point(0.02, 0.19), held.point(-0.08, 0.5), held.point(0.33, 0.5)
    frame = [(crank, seat), (crank, head), (head, held.point(0.42, radius)), (held.point(-0.36, radius), crank)]
    return pieces + [(a, b, 0.015, 0.015, _PROP) for a, b in frame]


PROPS: dict[str, Callable[[Held], list[Piece]]] = {
    "nothing": lambda held: [],
    "foot ball": _kicked,
    "thrown ball": _thrown(1.9, 0.5, 0.03, drop=0.3),
    "rolled ball": _thrown(1.4, 0.1, 0.06, drop=0.6),
    "passed ball": _passed(1.6, 0.3, 0.07),
    "bounced ball": _bounced,
    "shot ball": _passed(0.9, 1.1, 0.07),
    "wand": _stick(0.42, 0.009, back=0.05, lean=0.2),
    "hammer": _hammer,
    "racket": _racket,
    "spear": _spear,
    "club": _club,
    "pole": _pole,
    "barbell": _barbell,
    "oars": _oars,
    "box": _box,
    "table": _table,
    "seat": _seat,
    "drums": _drums,
    "guitar": _guitar,
    "cup": _cup,
    "rungs": _rungs,
    "bar": _bar,
    "rope": _rope,
    "bow": _bow,
    "horse": _horse,
    "bicycle": _bicycle,
}


def prop_capsules(prop: Tensor, joints: Tensor, value: Tensor, phase: Tensor, size: Tensor) -> Capsules:
    """The capsules of props `prop` int64 (Q,) into PROPS, whose thickness is multiplied by `size` (Q,).

    `joints` (Q, T, J, 3) of who holds them, `value` and `phase` (Q, T) of the program. What is not there has radius 0.
    """
    num, frames = joints.shape[:2]
    ends = torch.zeros(2, num, frames, PROP_CAPSULES, 3)
    radii = torch.zeros(num, PROP_CAPSULES, 2)
    slot = torch.full((num, PROP_CAPSULES), _PROP)
    programs = list(PROPS.values())
    for kind in sorted(set(prop.tolist())):
        who = (prop == kind).nonzero()[:, 0]
        held = Held(joints[who], value[who, :, None], phase[who, :, None], size[who, None, None])
        for k, (start, end, first, last, piece_slot) in enumerate(programs[kind](held)):
            ends[0, who, :, k], ends[1, who, :, k] = start, end
            radii[who, k] = torch.tensor([first, last]) * size[who, None]
            slot[who, k] = piece_slot
    return Capsules(ends[0], ends[1], radii, slot, torch.zeros(PROP_CAPSULES))
