"""Batches of scenes: people, things, dynamic textures and mere views, captured as cameras do, with what they show.

    renderer = Renderer((seed, part), device)
    batch = renderer.batch(number, size=32, side=64)

A batch depends on its renderer's seeds and its number alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Generator, Tensor

from .actions import ACTIONS
from .aspect import draw_filmed_size, shown
from .camera import CAMERAS, Camera, draw_camera, look
from .capture import Capture, apply_capture, draw_capture
from .draws import DIRECTIONS, SPEEDS, STILL, choose, log_uniform, speed_class, uniform
from .dynamic import DYNAMICS, PACES, SPACE_BANDS, draw_dynamic, render_dynamic
from .figures import EXTREMITIES, draw_people, paint_people, parts_on_screen
from .objects import MOTIONS as THING_MOTIONS
from .objects import Objects, draw_objects, paint_objects
from .parts import CELL, HALVES, PARTS
from .photographs import read_photographs
from .pictures import FAMILIES, Pictures, draw_pictures

__all__ = ["EXEMPLARS", "LABELS", "NUM_FRAMES", "REACH_DIMS", "Batch", "Renderer"]

NUM_FRAMES = 8
KINDS = {"people": 6, "things": 2, "views": 1, "dynamic": 2}  # of scenes, and their shares
REAL_KINDS = KINDS | {"things": 4}  # where there are cut-out things
TEMPI = (0.02, 0.05, 0.1)  # bounds, in turns of an action a shown frame
PLAYBACK = (0.7, 1.14, 1.85, 3.0)  # bounds, in source frames a shown frame; all classes are drawn alike
FOLLOW = list(CAMERAS).index("follow")
STEADY = ("still", "linear", "accelerate", "fall", "grow", "spin")  # motions that go one way, or stay
BATCHES_A_BANK = 128  # pictures seen much oftener are learned by heart

LABELS: dict[str, tuple[str, ...]] = {
    "action": tuple(ACTIONS),  # of the main person, in clips that run forwards
    "playback": ("backward", "forward"),
    "playback_speed": tuple(f"{low:g}-{high:g}" for low, high in pairwise(PLAYBACK)),
    "tempo": ("slow", "walking", "quick", "fast"),
    "people": ("one", "two", "three"),
    "people_speed": SPEEDS,  # the main person's way over the ground, of who travels, apart from the camera's
    "camera": tuple(CAMERAS),
    "camera_direction": DIRECTIONS,
    "camera_speed": SPEEDS,
    "zoom": ("out", "none", "in"),
    "cut": ("none", "cut"),
    "thing_direction": DIRECTIONS,  # of the only thing
    "thing_speed": SPEEDS,  # of the same, apart from the camera's
    "picture": tuple(FAMILIES),
    "dynamic": tuple(DYNAMICS),
    "dynamic_band": tuple(f"{low:g}-{high:g}" for low, high in SPACE_BANDS),
    "dynamic_pace": tuple(f"{low:g}-{high:g}" for low, high in PACES),
}
EXEMPLARS = ("cutout", "photograph")  # labels of as many classes as there are: the front-most thing, what is behind all
REACH_DIMS = 3 * len(EXTREMITIES) * 2


@dataclass(frozen=True)
class Batch:
    """Clips and what they show.

    `clips` uint8 (N, T, h, w, 3), BGR; `labels` {name: int64 (N,)}, -1 where a clip has none; `reach` float32
    (N, REACH_DIMS): where limbs and head of the main person are in the first, a middle and the last frame, as seen from
    the hips, in body heights, where `has_reach` float32 (N,) is 1. `parts` (N, 2, P, h / 8, w / 8) and `motions`
    (N, 2, P, 2, h / 8, w / 8), float32, are the maps of parts.part_maps: all 0 where nobody is.
    """

    clips: Tensor
    labels: dict[str, Tensor]
    reach: Tensor
    has_reach: Tensor
    parts: Tensor
    motions: Tensor


class Renderer:
    """Renders numbered batches; `seeds` say of which collection, `pictures` how many there are to look at at a time.

    `photographs` is a folder of some beside those of the installed packages (photographs.py).
    """

    def __init__(
        self,
        seeds: tuple[int, int],
        device: torch.device | str = "cpu",
        pictures: int = 256,
        photographs: Path | None = None,
    ) -> None:
        self.seeds, self.device, self.num_pictures = seeds, torch.device(device), pictures
        self.photographs = read_photographs(photographs)
        self._bank: tuple[int, Pictures] | None = None

    def _generator(self, *numbers: int) -> Generator:
        mixed = 0
        for number in (*self.seeds, *numbers):
            mixed = (mixed * 1_000_003 + number + 1) % (1 << 61)
        return torch.Generator().manual_seed(mixed)

    def _pictures(self, number: int) -> Pictures:
        """The bank of batch `number`: painted anew every BATCHES_A_BANK batches."""
        which = number // BATCHES_A_BANK
        if self._bank is None or self._bank[0] != which:
            drawn = draw_pictures(
                self._generator(0, which), self.num_pictures, device=self.device, photographs=self.photographs
            )
            self._bank = which, drawn
        return self._bank[1]

    def batch(self, number: int, size: int, side: int, ease: float = 0.0) -> Batch:
        """`size` clips of `side` x `side` pixels, in no order; of the clips with people, the share `ease` is calm."""
        generator = self._generator(1, number)
        pictures = self._pictures(number)
        filmed = draw_filmed_size(generator, side)
        kinds = REAL_KINDS if len(self.photographs.cutouts) else KINDS
        kind = choose(generator, list(kinds.values()), size)
        labels = {name: torch.full((size,), -1) for name in (*LABELS, *EXEMPLARS)}
        reach, has_reach = torch.zeros(size, REACH_DIMS), torch.zeros(size)
        parts, motions = _no_parts(size, side)
        clips = torch.empty(size, NUM_FRAMES, side, side, 3, dtype=torch.uint8, device=self.device)
        for which, name in enumerate(KINDS):
            rows = torch.nonzero(kind == which)[:, 0]
            if not len(rows):
                continue
            scene = _draw_scene(
                generator, name, len(rows), filmed, side, pictures, self.photographs.cutouts, self.device, ease
            )
            clips[rows.to(self.device)] = shown(scene.clips, side)
            for label, values in scene.labels.items():
                labels[label][rows] = values
            reach[rows], has_reach[rows] = scene.reach, scene.has_reach
            parts[rows], motions[rows] = scene.parts, scene.motions
        labels = {name: values.to(self.device) for name, values in labels.items()}
        return Batch(clips, labels, *(x.to(self.device) for x in (reach, has_reach, parts, motions)))


def _draw_times(generator: Generator, num: int) -> tuple[Tensor, Tensor]:
    """Times (N, T) of the frames, in source frames, and the steps (N,) between them: three of ten run backwards."""
    step = log_uniform(generator, (num,), PLAYBACK[0], PLAYBACK[-1])
    step = torch.where(uniform(generator, (num,)) < 0.3, -step, step)
    start = uniform(generator, (num, 1), 0, 60)
    return start + step[:, None] * torch.arange(NUM_FRAMES), step


def _draw_scene(
    generator: Generator,
    kind: str,
    num: int,
    filmed: tuple[int, int],
    side: int,
    pictures: Pictures,
    cutouts: Tensor,
    device: torch.device,
    ease: float,
) -> Batch:
    """`num` scenes of one of KINDS, the share `ease` of those with people calm.

    Clips are of `filmed` pixels (height, width); the maps of parts are those of the square of `side` they are shown in.
    A calm scene is a person before a pale picture, seen by a camera that stands still and captures all as it is. Cameras
    that follow keep the main person in the middle, or the first thing; where nothing is to follow they wander, unnamed.
    """
    times, step = _draw_times(generator, num)
    people = things = subject = None
    if kind == "things" or kind == "people":
        shares = (0, 4, 3, 2) if kind == "things" else (5, 2, 1, 0)
        things = draw_objects(generator, times, len(pictures.family), count_shares=shares, num_cutouts=len(cutouts))
        subject = things.centre[:, 0]
    if kind == "people":
        people = draw_people(generator, num, times, len(pictures.family))
        subject = people.path
    camera = draw_camera(generator, times, subject)
    calm = (uniform(generator, (num,)) < ease) & (kind == "people")
    camera = _stilled(camera, calm)
    index = torch.randint(len(pictures.family), (num, 2), generator=generator)
    is_cut = camera.cut < NUM_FRAMES
    follows = camera.kind == FOLLOW
    magnified = camera.zoom.mean(1)  # speeds are told as they are seen
    labels = {
        "camera": torch.where(is_cut | (follows & (subject is None)), -1, camera.kind),
        "camera_direction": torch.where(is_cut, -1, camera.direction),
        "camera_speed": torch.where(is_cut, -1, speed_class(camera.speed * magnified)),
        "zoom": torch.where(is_cut, -1, camera.zoom_rate.sign().long() + 1),
        "cut": is_cut.long(),
        "picture": torch.where(is_cut, -1, pictures.family[index[:, 0]]),
        "photograph": torch.where(is_cut | calm, -1, pictures.photograph[index[:, 0]]),
    }
    reach, has_reach = torch.zeros(num, REACH_DIMS), torch.zeros(num)
    parts, motions = _no_parts(num, side)
    canvas = look(pictures.pixels, index, camera, *filmed)
    if kind == "dynamic" or kind == "people":
        share = 1.0 if kind == "dynamic" else 0.15
        rows = torch.nonzero((uniform(generator, (num,)) < share) & ~calm)[:, 0]
        dynamic = draw_dynamic(generator, times)
        render_dynamic(dynamic, pictures.pixels, index, camera, canvas, rows)
        for name in ("picture", "photograph"):
            labels[name] = labels[name].index_fill(0, rows, -1)
        if kind == "dynamic":
            labels |= {"dynamic": dynamic.family, "dynamic_band": dynamic.band, "dynamic_pace": dynamic.pace}
    if things is not None:
        things.picture[calm] = -1
        paint_objects(canvas, things, pictures.pixels, camera, cutouts)
        labels["cutout"] = _front_most(things)
        if kind == "things":
            names = list(THING_MOTIONS)
            steady = torch.isin(things.motion[:, 0], torch.tensor([names.index(name) for name in STEADY]))
            told = (things.count == 1) & steady
            labels["thing_direction"] = torch.where(told, things.direction[:, 0], -1)
            labels["thing_speed"] = torch.where(told, speed_class(things.speed[:, 0] * magnified), -1)
    if people is not None:
        _fade(canvas, torch.nonzero(calm)[:, 0].to(device))
        # After a cut another camera looks, from which who was followed could be out of sight.
        people = replace(people, following=torch.where(follows & ~is_cut, 0.0, people.following))
        paint_people(canvas, people, pictures.pixels, camera)
        tempo = torch.bucketize((people.pace * step).abs(), torch.tensor(TEMPI))
        speed = people.travel.norm(dim=1) * (1 - people.tracking) * step.abs() * magnified
        labels |= {
            "action": torch.where(step > 0, people.action, -1),
            "playback": (step > 0).long(),
            "playback_speed": torch.bucketize(step.abs(), torch.tensor(PLAYBACK[1:-1])),
            "tempo": tempo,
            "people_speed": torch.where(people.travel.norm(dim=1) > 1e-4, speed_class(speed), -1),
            "people": people.number - 1,
        }
        reach = people.reach[:, [0, NUM_FRAMES // 2, -1]].flatten(1)
        has_reach = torch.ones(num)
        parts, motions = parts_on_screen(people, camera, *filmed, side)
    apply_capture(canvas, _unspoilt(draw_capture(generator, times, camera), calm))
    pixels = canvas.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    pixels = pixels.permute(0, 2, 3, 4, 1).flip(-1)  # (N, 3, T, h, w), RGB -> (N, T, h, w, 3), BGR
    return Batch(pixels, labels, reach, has_reach, parts, motions)


def _front_most(things: Objects) -> Tensor:
    """The last thing of each clip that is cut out of a photograph, (B,); -1 where there is none."""
    front = torch.full((len(things.count),), -1)
    for cutout, picture in zip(things.cutout.T, things.picture.T, strict=True):
        front = torch.where((cutout >= 0) & (picture >= 0), cutout, front)
    return front


def _no_parts(num: int, side: int) -> tuple[Tensor, Tensor]:
    """The maps of clips where nobody is."""
    shape, cells = (num, HALVES, len(PARTS)), (side // CELL, side // CELL)
    return torch.zeros(*shape, *cells), torch.zeros(*shape, 2, *cells)


def _stilled(camera: Camera, calm: Tensor) -> Camera:
    """The cameras, those of calm clips standing still."""
    names = ("kind", "offset", "zoom", "roll", "tilt", "cut", "direction", "speed", "zoom_rate", "roll_rate")
    some = {name: getattr(camera, name).clone() for name in names}
    for name, value in some.items():
        value[calm] = {"zoom": 1, "cut": NUM_FRAMES, "direction": STILL}.get(name, 0)  # kind 0 is "still"
    return replace(camera, **some)


def _fade(canvas: Tensor, rows: Tensor) -> None:
    """Make what calm clips show behind the people pale, in place."""
    seen = canvas[rows]
    canvas[rows] = 0.25 * seen + 0.75 * seen.mean((2, 3, 4), keepdim=True)


def _unspoilt(capture: Capture, calm: Tensor) -> Capture:
    """The captures, those of calm clips without any effect."""
    some = {field.name: getattr(capture, field.name).clone() for field in fields(capture)}
    for name, value in some.items():
        value[calm] = 1 if name in ("gain", "gamma") else 0
    return replace(capture, **some)
