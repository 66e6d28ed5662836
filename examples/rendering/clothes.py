"""What people wear: a palette of plain colours and of crops of pictures, and the capsules that a body is painted of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .bodies import JOINTS, Body
from .draws import chance, uniform

__all__ = ["BODY_PARTS", "CROPS", "SLOTS", "Palette", "body_capsules", "draw_palettes"]

SLOTS = (
    *("skin", "hair", "shirt", "sleeve", "forearm", "trousers", "shin", "shoes", "eyes"),
    *("prop", "prop2"),
)
CROPS = 3  # of pictures for a person: shirt, trousers, prop
_SLOT = {name: k for k, name in enumerate(SLOTS)}


@dataclass(frozen=True)
class Palette:
    """The colours of Q people: RGB 0-1 (Q, slots, 3); `crop` int64 (Q, slots), which of a person's crops it is
    painted with in place of the colour, -1 for none; `picture` int64 (Q, CROPS) into the bank of pictures; `corner`
    (Q, CROPS, 2) where the crop begins, in parts of what is free; `span` (Q, CROPS) the length that a crop spans, in
    body heights; `gain` (Q, CROPS) its brightness."""

    colour: Tensor
    crop: Tensor
    picture: Tensor
    corner: Tensor
    span: Tensor
    gain: Tensor


def draw_colours(generator: Generator, num: int) -> Tensor:
    """Colours (num, 3), RGB 0-1: dull and bright, dark and light ones alike."""
    hue = torch.rand(num, 3, generator=generator)
    hue = (hue - hue.amin(1, True)) / (hue.amax(1, True) - hue.amin(1, True)).clamp(min=1e-3)
    value = uniform(generator, (num, 1), 0.08, 1.0)
    return value * (1 - torch.rand(num, 1, generator=generator) ** 1.5 * (1 - hue))


def draw_palettes(generator: Generator, num: int, bank_size: int) -> Palette:
    """Skin from dark to light, hair, long and short sleeves and trousers, plain and patterned cloth."""
    colour = torch.stack([draw_colours(generator, num) for _ in SLOTS], dim=1)
    tone = uniform(generator, (num, 1), 0.28, 1.0)
    skin = torch.tensor([0.98, 0.80, 0.67]) ** (1.6 - 0.6 * tone) * tone * uniform(generator, (num, 3), 0.94, 1.05)
    colour[:, _SLOT["skin"]] = skin.clamp_(max=1)
    brown = torch.tensor([0.42, 0.28, 0.16]) * uniform(generator, (num, 1), 0.1, 1.7)
    natural = chance(generator, num, 0.8)[:, None]  # else a hat or dyed
    colour[:, _SLOT["hair"]] = torch.where(natural, brown, colour[:, _SLOT["hair"]])
    colour[:, _SLOT["eyes"]] = 0.15 * skin
    shares = {"shirt": 0.65, "trousers": 0.4, "prop": 0.35}
    crop = torch.full((num, len(SLOTS)), -1)
    for k, (name, share) in enumerate(shares.items()):
        crop[:, _SLOT[name]] = torch.where(chance(generator, num, share), k, -1)
    follows = {"sleeve": ("shirt", 0.8), "forearm": ("shirt", 0.45), "shin": ("trousers", 0.65)}
    bare = torch.zeros(num, dtype=torch.bool)
    for name, (cloth, share) in follows.items():
        # Who wears no sleeves has bare forearms too.
        bare = ~chance(generator, num, share) | (bare & (name == "forearm"))
        for values in (colour, crop):
            plain = values[:, _SLOT["skin"]]
            mask = bare.reshape(-1, *[1] * (plain.dim() - 1))
            values[:, _SLOT[name]] = torch.where(mask, plain, values[:, _SLOT[cloth]])
    return Palette(
        colour=colour,
        crop=crop,
        picture=torch.randint(bank_size, (num, CROPS), generator=generator),
        corner=torch.rand(num, CROPS, 2, generator=generator),
        span=uniform(generator, (num, CROPS), 0.15, 0.6),
        gain=uniform(generator, (num, CROPS), 0.55, 1.3),
    )


@dataclass(frozen=True)
class Part:
    """A capsule between two joints: its radii at either end in body heights of an average girth, and its slot."""

    start: str
    end: str
    radii: tuple[float, float]
    slot: str


def _sided(start: str, end: str, radii: tuple[float, float], slot: str) -> tuple[Part, Part]:
    left, right = (Part(f"{side}_{start}", f"{side}_{end}", radii, slot) for side in ("left", "right"))
    return left, right


BODY_PARTS = (
    *_sided("shoulder", "elbow", (0.033, 0.027), "sleeve"),
    *_sided("elbow", "hand", (0.027, 0.019), "forearm"),
    *_sided("hand", "finger", (0.022, 0.018), "skin"),
    *_sided("hip", "knee", (0.054, 0.038), "trousers"),
    *_sided("knee", "ankle", (0.037, 0.024), "shin"),
    *_sided("ankle", "toe", (0.027, 0.021), "shoes"),
    Part("neck", "head", (0.026, 0.026), "skin"),
    Part("left_shoulder", "right_shoulder", (0.036, 0.036), "shirt"),
    Part("left_hip", "right_hip", (0.056, 0.056), "trousers"),
    Part("hips", "neck", (0.062, 0.06), "shirt"),
    # The flanks make a trunk that is wide from the front and thin from the side; their ends are set below.
    *_sided("hip", "shoulder", (0.05, 0.052), "shirt"),
)
_STARTS = torch.tensor([JOINTS.index(part.start) for part in BODY_PARTS])
_ENDS = torch.tensor([JOINTS.index(part.end) for part in BODY_PARTS])
_RADII = torch.tensor([part.radii for part in BODY_PARTS])
_PART_SLOTS = torch.tensor([_SLOT[part.slot] for part in BODY_PARTS])
_HEAD_SLOTS = torch.tensor([_SLOT[name] for name in ("skin", "hair", "hair", "eyes", "eyes")])


@dataclass(frozen=True)
class Capsules:
    """K round-ended limbs of each of Q people: `start`, `end` (Q, T, K, 3) in body axes, `radii` (Q, K, 2) in body
    heights (0: not there), `slot` int64 (Q, K), `nearer` (K,) or (Q, K): how much is taken from its depth in the order
    of painting."""

    start: Tensor
    end: Tensor
    radii: Tensor
    slot: Tensor
    nearer: Tensor


def body_capsules(generator: Generator, body: Body, joints: Tensor) -> Capsules:
    """The capsules of bodies with joints (Q, T, J, 3); hair is short, long or none."""
    num = len(joints)
    start, end = joints[:, :, _STARTS].clone(), joints[:, :, _ENDS].clone()
    hips, neck, head, face = joints[:, :, :4].unbind(2)
    # The flanks lie further in than hips and shoulders, and end below these.
    start[:, :, -2:] = torch.lerp(hips[:, :, None], start[:, :, -2:], 0.75)
    start[:, :, -2:] += 0.12 * (neck - hips)[:, :, None]
    shoulders = end[:, :, -2:].mean(2, keepdim=True)
    end[:, :, -2:] = torch.lerp(shoulders, end[:, :, -2:], 0.62) - 0.08 * (neck - hips)[:, :, None]
    start[:, :, -3] = torch.lerp(hips, neck, 0.1)
    end[:, :, -3] = torch.lerp(hips, neck, 0.88)
    radii = _RADII * body.girth[:, None, None]
    size = body.head[:, None, None]
    ahead, up = (face - head) / (0.5 * size), torch.nn.functional.normalize(head - neck, dim=-1)
    right = torch.linalg.cross(ahead, up)
    crown = head + 0.12 * size * up - 0.17 * size * ahead
    long = chance(generator, num, 0.35)
    nape = crown - size * (0.2 * ahead + 0.15 * up)
    ends = nape - size * (1.6 * up) * uniform(generator, (num, 1, 1), 0.3, 1.2)
    eyes = [head + size * (0.92 * ahead + 0.12 * up + way * 0.36 * right) for way in (-1, 1)]
    chin = head + size * (0.3 * ahead - 0.25 * up)
    top = head + size * (0.22 * ahead + 0.1 * up)
    head_start = torch.stack([top, crown, nape, *eyes], dim=2)
    head_end = torch.stack([chin, crown - 0.1 * size * ahead, ends, *eyes], dim=2)
    hair = (~chance(generator, num, 0.08)).float()
    thick = torch.stack(
        [
            torch.stack([0.84 * body.head, 0.7 * body.head], -1),
            (hair * 0.98 * body.head)[:, None].expand(-1, 2),
            (hair * long * body.head)[:, None] * torch.tensor([0.7, 0.5]),
            *[(0.13 * body.head)[:, None].expand(-1, 2)] * 2,
        ],
        dim=1,
    )
    return Capsules(
        start=torch.cat([start, head_start], dim=2),
        end=torch.cat([end, head_end], dim=2),
        radii=torch.cat([radii, thick], dim=1),
        slot=torch.cat([_PART_SLOTS, _HEAD_SLOTS]).expand(num, -1),
        nearer=_NEARER,
    )


# Sleeves go over the trunk's rim, a foot before its shin; eyes lie on the face.
_NEARER = torch.zeros(len(BODY_PARTS) + len(_HEAD_SLOTS))
_NEARER[-2:] = 0.02
