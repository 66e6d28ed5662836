"""Render short synthetic action videos: an articulated figure in front of a textured background.

    python examples/render_actions.py OUT --clips-per-class 6 --frames 24 --seed 7

writes `OUT/<Class>/v_<Class>_gNN_cMM.mp4`. Every class shares its poses with a partner class and differs from it
by motion alone: direction (`WalkForward` / `WalkBackward`), order (`Crouch` / `Rise`), rhythm (`Punch` / `Pull`) or
speed (`Wave` / `SlowWave`). A group gNN is one person in one place: the same body, clothes and background in all
classes, so that splits by group test new people in new places.

A clip depends on its seeds only. Lengths are in frame heights, angles in radians (0 hangs down, positive turns
towards the side that the figure faces), times in frames.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from action_programs import ACTIONS, Pose, draw_motion
from numpy.random import Generator

TEXTURES = ("gradient", "smooth", "fractal", "stripes", "checker", "blobs", "shapes", "horizon")
CAMERAS = ("still", "left", "right", "up", "down", "zoom_in", "zoom_out")
TAU = 2 * np.pi


# ------------------------------------------------------------------------------------------------ who and where


@dataclass(frozen=True)
class Person:
    """A body and its clothes. Lengths in body heights; colours RGB 0-255."""

    height: float
    torso: float
    arm: float
    leg: float
    head: float
    girth: float
    shoulders: float
    skin: np.ndarray
    shirt: np.ndarray  # (2, 3): two colours
    trousers: np.ndarray  # (2, 3)
    shoes: np.ndarray
    hair: np.ndarray
    stripes: tuple[float, float]  # bands over a limb of shirt and trousers; 0 is plain
    place: tuple[float, float]  # of the feet: x from the middle, y from the top, in frame heights
    faces_right: bool


def _colour(rng: Generator, saturation: float = 1.0) -> np.ndarray:
    """A random RGB colour (3,), 0-255: dull and bright ones alike."""
    hue, value = rng.uniform(0, 1, 3), rng.uniform(30, 250)
    hue = (hue - hue.min()) / max(float(np.ptp(hue)), 1e-6)
    return (value * (1 - saturation * rng.uniform() ** 1.5 * (1 - hue))).astype(np.float32)


def draw_person(rng: Generator) -> Person:
    """A random person."""
    tone = rng.uniform(0.3, 1.0)
    skin = np.array([250, 205, 170], np.float32) * tone * rng.uniform(0.9, 1.05, 3).astype(np.float32)
    clothes = [np.stack([_colour(rng), _colour(rng)]) for _ in range(2)]
    for cloth in clothes:
        if rng.uniform() < 0.5:
            cloth[1] = cloth[0]
    return Person(
        height=rng.uniform(0.55, 0.8),
        torso=rng.uniform(0.27, 0.33),
        arm=rng.uniform(0.36, 0.44),
        leg=rng.uniform(0.42, 0.5),
        head=rng.uniform(0.06, 0.085),
        girth=rng.uniform(0.7, 1.45),
        shoulders=rng.uniform(0.17, 0.24),
        skin=np.minimum(skin, 255),
        shirt=clothes[0],
        trousers=clothes[1],
        shoes=_colour(rng),
        hair=_colour(rng, 0.6) * 0.6,
        stripes=(rng.uniform(2, 9), rng.uniform(2, 9)),
        place=(rng.uniform(-0.12, 0.12), rng.uniform(0.86, 0.96)),
        faces_right=bool(rng.uniform() < 0.5),
    )


def _noise(rng: Generator, cells: float, height: int, width: int, channels: int) -> np.ndarray:
    """Smooth noise (channels, height, width), about N(0, 1), with `cells` random values a frame height."""
    rows = max(2, round(cells) + 1)
    columns = max(2, round(cells * width / height) + 1)
    grid = rng.standard_normal((channels, rows, columns)).astype(np.float32)
    (top, down), (left, across) = _cells(height, rows), _cells(width, columns)
    # Not a product of matrices: BLAS' threads wait for each other longer than so small a product takes.
    upper = grid[:, top]
    strip = upper + down[:, None] * (grid[:, top + 1] - upper)  # (channels, height, columns)
    low = strip[:, :, left]
    return low + across * (strip[:, :, left + 1] - low)


def _cells(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `size` places among `cells` values: the value before each, and the part, smoothed, of the one after."""
    at = np.linspace(0, cells - 1, size, dtype=np.float32)
    low = np.minimum(at.astype(int), cells - 2)
    part = at - low.astype(np.float32)
    return low, part * part * (3 - 2 * part)


def draw_texture(family: str, height: int, width: int, rng: Generator) -> np.ndarray:
    """A background picture float32 (3, height, width), 0-255, of one of TEXTURES."""
    first, second = _colour(rng)[:, None, None], _colour(rng)[:, None, None]
    if abs(float((first - second).mean())) < 20:
        second = 255 - second
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(0, width / height, width, dtype=np.float32)[None]
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    if family == "gradient":
        mix = (along - along.min()) / np.ptp(along)
    elif family == "smooth":
        mix = 0.5 + 0.4 * _noise(rng, rng.uniform(3, 16), height, width, 1)
    elif family == "fractal":
        mix = _fractal(rng, height, width, 1) * 0.5 + 0.5
    elif family == "stripes":
        mix = 0.5 + 0.5 * np.clip(rng.uniform(1, 6) * np.sin(TAU * rng.uniform(3, 14) * along), -1, 1)
    elif family == "checker":
        count = rng.uniform(2, 8)
        mix = 0.5 + 0.5 * np.clip(6 * np.sin(TAU * count * along) * np.sin(TAU * count * across), -1, 1)
    elif family == "blobs":
        mix = np.clip(0.5 + 4 * _noise(rng, rng.uniform(4, 12), height, width, 1), 0, 1)
    elif family == "shapes":
        return _shapes(rng, height, width, first)
    else:
        return _horizon(rng, height, width, first, second)
    picture = first + (second - first) * mix
    return np.clip(picture + rng.uniform(0, 25) * _fractal(rng, height, width, 3), 0, 255)


def _fractal(rng: Generator, height: int, width: int, channels: int) -> np.ndarray:
    """Noise (channels, height, width) about N(0, 1) whose amplitude falls with frequency, as in natural pictures."""
    fall = rng.uniform(0.5, 0.9)
    octaves = [fall**k * _noise(rng, 2.0 * 2**k, height, width, channels) for k in range(6)]
    return sum(octaves) / np.sqrt(sum(fall ** (2 * k) for k in range(6))) * 1.5


def _shapes(rng: Generator, height: int, width: int, ground: np.ndarray) -> np.ndarray:
    picture = np.broadcast_to(ground, (3, height, width)) + 12 * _fractal(rng, height, width, 1)
    for _ in range(rng.integers(6, 20)):
        size_y, size_x = (rng.uniform(0.06, 0.4, 2) * height).astype(int) + 1
        top, left = int(rng.integers(-size_y, height)), int(rng.integers(-size_x, width))
        box = np.s_[:, max(top, 0) : top + size_y, max(left, 0) : left + size_x]
        if rng.uniform() < 0.5:
            picture[box] = _colour(rng)[:, None, None]
        else:
            rows, columns = np.mgrid[max(top, 0) : min(top + size_y, height), max(left, 0) : min(left + size_x, width)]
            inside = np.hypot((rows - top) / size_y - 0.5, (columns - left) / size_x - 0.5) < 0.5
            picture[box] = np.where(inside, _colour(rng)[:, None, None], picture[box])
    return np.clip(picture, 0, 255)


def _horizon(rng: Generator, height: int, width: int, sky: np.ndarray, ground: np.ndarray) -> np.ndarray:
    line = int(height * rng.uniform(0.35, 0.75))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    picture = np.where(rows < line / height, sky * (0.7 + 0.5 * rows), ground * (1.2 - 0.5 * rows))
    rough = _fractal(rng, height, width, 1)
    rough[:, :line] *= rng.uniform(0, 0.6)
    return np.clip(picture + rng.uniform(10, 40) * rough, 0, 255)


# ------------------------------------------------------------------------------------------------ camera and light


@dataclass(frozen=True)
class Camera:
    """Where the camera looks over time: offsets (T, 2) in frame heights (y, x), zoom factors and light (T,)."""

    kind: str
    offset: np.ndarray
    zoom: np.ndarray
    light: np.ndarray


def draw_camera(kind: str, frames: np.ndarray, num_frames: int, rng: Generator) -> Camera:
    """A random camera of one of CAMERAS, its motion centred on the video's middle, with shake and drifting light."""
    time = (frames - num_frames / 2).astype(np.float32)
    speed = rng.uniform(0.004, 0.012)  # frame heights a frame
    direction = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}.get(kind, (0, 0))
    offset = speed * time[:, None] * np.array(direction, np.float32)
    shake = rng.uniform(0, 0.006) * (rng.uniform() < 0.5)
    turns = rng.uniform(0.05, 0.2, 2) * time[:, None] + rng.uniform(0, 1, 2)
    offset = offset + shake * np.sin(TAU * turns)
    rate = {"zoom_in": 1, "zoom_out": -1}.get(kind, 0) * rng.uniform(0.006, 0.015)
    light = 1 + rng.uniform(-0.006, 0.006) * time
    return Camera(kind, offset.astype(np.float32), np.exp(rate * time).astype(np.float32), light.astype(np.float32))


def _look(picture: np.ndarray, camera: Camera, height: int, width: int) -> np.ndarray:
    """What the camera sees of a background (3, Y, X): float32 (3, T, height, width), sampled bilinearly."""
    num_frames = len(camera.zoom)
    seen = np.empty((3, num_frames, height, width), np.float32)
    for t in range(num_frames):
        rows, row_part = _sampling(picture.shape[1], height, camera.offset[t, 0] * height, camera.zoom[t])
        columns, column_part = _sampling(picture.shape[2], width, camera.offset[t, 1] * height, camera.zoom[t])
        low = picture[:, rows]
        strip = low + row_part[:, None] * (picture[:, rows + 1] - low)  # (3, height, X)
        low = strip[:, :, columns]
        seen[:, t] = low + column_part * (strip[:, :, columns + 1] - low)
    return seen


def _sampling(source: int, target: int, offset: float, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    at = source / 2 + offset + (np.arange(target, dtype=np.float32) - target / 2) / zoom
    at = np.clip(at, 0, source - 1.001)
    low = at.astype(np.intp)
    return low, (at - low).astype(np.float32)


# ------------------------------------------------------------------------------------------------ painting


def paint_capsule(
    canvas: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    radii: tuple[float, float],
    colours: np.ndarray,
    bands: float = 0.0,
) -> None:
    """Paint a round-ended limb into `canvas` (3, T, H, W) in place, with edges one pixel soft.

    `start` and `end` (T, 2) are its ends (y, x) in pixels; `radii` their half widths; `colours` (3,) or (2, 3), two
    for bands across the limb. The distance to the segment gives cover and shading for all frames together.
    """
    _, _, height, width = canvas.shape
    reach = max(radii) + 1
    ends = np.concatenate([start, end])
    top, left = np.floor(ends.min(0) - reach).astype(int).clip(0)
    bottom, right = np.minimum(np.ceil(ends.max(0) + reach).astype(int) + 1, (height, width))
    if top >= bottom or left >= right:
        return
    start, end = start.astype(np.float32)[:, :, None, None], end.astype(np.float32)[:, :, None, None]
    y = np.arange(top, bottom, dtype=np.float32)[None, :, None] - start[:, 0]  # (T, h, 1)
    x = np.arange(left, right, dtype=np.float32)[None, None, :] - start[:, 1]  # (T, 1, w)
    bone_y, bone_x = end[:, 0] - start[:, 0], end[:, 1] - start[:, 1]
    length = bone_y**2 + bone_x**2 + 1e-6
    along = y * (bone_y / length) + x * (bone_x / length)  # (T, h, w)
    np.clip(along, 0, 1, out=along)
    distance = (y - along * bone_y) ** 2 + (x - along * bone_x) ** 2
    np.sqrt(distance, out=distance)
    radius = radii[0] + (radii[1] - radii[0]) * along if radii[0] != radii[1] else np.float32(radii[0])
    cover = np.clip(radius - distance + 0.5, 0, 1)
    shade = 1 - 0.35 * np.square(np.minimum(distance / radius, 1))
    target = canvas[:, :, top:bottom, left:right]
    pair = np.asarray(colours, np.float32).reshape(-1, 3)
    if len(pair) == 1 or np.array_equal(pair[0], pair[1]):
        target += cover * (pair[0][:, None, None, None] * shade - target)
    else:
        second = (along * bands) % 1.0 < 0.5
        colour = np.where(second, pair[1][:, None, None, None], pair[0][:, None, None, None])
        target += cover * (colour * shade - target)


def _towards(origin: np.ndarray, angle: np.ndarray | float, length: float) -> np.ndarray:
    """The point (T, 2) at `length` from `origin` (T, 2): angle 0 is down, pi/2 is to the right."""
    angle = np.broadcast_to(angle, len(origin))
    return origin + length * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def skeleton(person: Person, pose: Pose, num_frames: int, frontal: bool) -> dict[str, np.ndarray]:
    """Joint positions (T, 2), (y, x) in body heights; the feet on y = 0 or, when spinning, the hips at y = -0.5."""
    hips = np.zeros((num_frames, 2))
    torso = np.broadcast_to(pose.torso, num_frames)
    joints = {"hips": hips, "neck": _towards(hips, np.pi - torso, person.torso)}
    joints["head"] = _towards(joints["neck"], np.pi - torso, person.head * 1.5)
    spread = (1.0 if frontal else 0.12) * np.array([1, -1])
    for side, name in enumerate(("near", "far")):
        shoulder = joints["neck"] + [0.03, spread[side] * person.shoulders / 2]
        elbow = _towards(shoulder, pose.arms[side], person.arm / 2)
        hand = _towards(elbow, np.add(pose.arms[side], pose.elbows[side]), person.arm / 2)
        hip = hips + [0, spread[side] * person.shoulders / 3.2]
        knee = _towards(hip, pose.legs[side], person.leg / 2)
        shin = np.subtract(pose.legs[side], pose.knees[side])
        foot = _towards(knee, shin, person.leg / 2)
        toe = _towards(foot, shin + (0.35 * spread[side] if frontal else np.pi / 2 - 0.15), 0.03 if frontal else 0.075)
        points = {
            "shoulder": shoulder,
            "elbow": elbow,
            "hand": hand,
            "hip": hip,
            "knee": knee,
            "foot": foot,
            "toe": toe,
        }
        joints.update({f"{name}_{part}": point for part, point in points.items()})
    if pose.spin is not None:
        spin = np.broadcast_to(pose.spin, num_frames)
        cos, sin = np.cos(spin), np.sin(spin)
        turn = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1)  # (T, 2, 2)
        joints = {name: np.einsum("tij,tj->ti", turn, point) - [0.55, 0] for name, point in joints.items()}
    else:
        lowest = np.maximum(joints["near_foot"][:, 0], joints["far_foot"][:, 0])
        joints = {name: point - np.stack([lowest, 0 * lowest], 1) for name, point in joints.items()}
    return joints


def paint_person(
    canvas: np.ndarray, person: Person, joints: dict[str, np.ndarray], scale: float, frontal: bool
) -> None:
    """Paint a person into `canvas` (3, T, H, W); `joints` (T, 2) in pixels, `scale` pixels a body height."""
    girth = person.girth * scale

    def limb(start: str, end: str, from_width: float, to_width: float, colours: np.ndarray, bands: float = 0) -> None:
        paint_capsule(canvas, joints[start], joints[end], (from_width * girth, to_width * girth), colours, bands)

    def arm(side: str, dim: float) -> None:
        limb(f"{side}_shoulder", f"{side}_elbow", 0.034, 0.028, person.shirt * dim, person.stripes[0])
        limb(f"{side}_elbow", f"{side}_hand", 0.027, 0.022, person.skin * dim)

    def leg(side: str, dim: float) -> None:
        limb(f"{side}_foot", f"{side}_toe", 0.026, 0.022, person.shoes * dim)
        limb(f"{side}_knee", f"{side}_foot", 0.036, 0.026, person.trousers * dim, person.stripes[1])
        limb(f"{side}_hip", f"{side}_knee", 0.05, 0.038, person.trousers * dim, person.stripes[1])

    arm("far", 0.8)
    leg("far", 0.8)
    leg("near", 1.0)
    limb("hips", "neck", 0.062, 0.072, person.shirt, person.stripes[0])
    if frontal:
        limb("near_shoulder", "far_shoulder", 0.045, 0.045, person.shirt, 1)
    head = person.head * scale
    paint_capsule(canvas, joints["neck"], joints["head"], (0.4 * head, 0.5 * head), person.skin)
    paint_capsule(canvas, joints["head"], joints["head"], (head, head), person.hair)
    up = joints["head"] - joints["neck"]
    up = up / np.linalg.norm(up, axis=1, keepdims=True)
    ahead = np.stack([up[:, 1], -up[:, 0]], 1) * (1 if person.faces_right else -1)
    face = joints["head"] + head * ((-0.25 * up) if frontal else (0.4 * ahead - 0.2 * up))
    paint_capsule(canvas, face, face, (0.72 * head, 0.72 * head), person.skin)
    arm("near", 1.0)


# ------------------------------------------------------------------------------------------------ clips


@dataclass(frozen=True)
class Clip:
    """Frames uint8 (T, H, W, 3), RGB, and what they show.

    `texture` and `camera` index TEXTURES and CAMERAS. `reach` float32 (T, 5, 2) is where hands, feet and head are as
    seen from the hips, (y, x) in body heights; `joints` {name: float (T, 2)} where joints are, (y, x) in pixels.
    """

    frames: np.ndarray
    action: str
    texture: int
    camera: int
    reach: np.ndarray
    joints: dict[str, np.ndarray]


EXTREMITIES = ("near_hand", "far_hand", "near_foot", "far_foot", "head")


def render_clip(
    action_name: str,
    group_seed: tuple[int, ...],
    clip_seed: tuple[int, ...],
    frames: np.ndarray,
    num_frames: int,
    height: int,
    width: int,
    calm: bool = False,
) -> Clip:
    """Render the source frames `frames` of a video of `num_frames` frames.

    `group_seed` chooses the person and the place, `clip_seed` the camera, the speed and the phase of the motion. `calm`
    makes an easy clip: the camera stands still and the background is pale.
    """
    action = ACTIONS[action_name]
    place, motion = np.random.default_rng(group_seed), np.random.default_rng(clip_seed)
    person = draw_person(place)
    texture = int(place.integers(len(TEXTURES)))
    background = draw_texture(TEXTURES[texture], round(1.5 * height), round(1.5 * width), place)
    if calm:
        background = 0.25 * background + 0.75 * background.mean((1, 2), keepdims=True)
    num_things = int(place.integers(0, 3))
    thing_colours = [_colour(place) for _ in range(num_things)]

    kind = int(motion.integers(len(CAMERAS)))
    kind = 0 if calm else kind
    camera = draw_camera(CAMERAS[kind], frames, num_frames, motion)
    canvas = _look(background, camera, height, width)

    def on_screen(points: np.ndarray, following: float) -> np.ndarray:
        """Frame heights from the middle -> pixels; a camera that follows by 1 keeps the point where it is."""
        seen = (points - (1 - following) * camera.offset) * camera.zoom[:, None]
        return seen * height + np.array([height / 2, width / 2])

    time = (frames - num_frames / 2)[:, None]
    for colour in thing_colours:  # things that drift behind the person
        path = motion.uniform(-0.5, 0.5, 2) + motion.uniform(-0.015, 0.015, 2) * time
        across = motion.uniform(-0.15, 0.15, 2)
        size = motion.uniform(0.02, 0.08) * height
        paint_capsule(canvas, on_screen(path, 0), on_screen(path + across, 0), (size, size), colour)

    phases, way = draw_motion(action, frames, num_frames, motion)
    joints = skeleton(person, action.pose(phases), len(frames), action.frontal)
    reach = np.stack([joints[name] - joints["hips"] for name in EXTREMITIES], axis=1)
    mirror = 1 if person.faces_right or action.frontal else -1
    feet = np.array([person.place[1] - 0.5, person.place[0]])
    ahead = np.stack([np.zeros(len(frames)), way], axis=1)
    joints = {
        name: on_screen(feet + person.height * (point + ahead) * [1, mirror], following=0.7)
        for name, point in joints.items()
    }
    paint_person(canvas, person, joints, person.height * height * float(camera.zoom.mean()), action.frontal)

    canvas *= camera.light[:, None, None]
    grain = motion.standard_normal((1, 1, height, width), dtype=np.float32) * motion.uniform(0, 6)
    for t in range(len(frames)):  # one sheet of grain, shifted: cheap noise that differs from frame to frame
        canvas[:, t] += np.roll(grain[0], (5 * t, 11 * t), (1, 2))
    pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels.transpose(1, 2, 3, 0))  # (3, T, H, W) -> (T, H, W, 3)
    return Clip(pixels, action_name, texture, kind, (reach * [1, mirror]).astype(np.float32), joints)


def write_video(path: Path, frames: np.ndarray, fps: int = 15, crf: int = 26) -> None:
    """Write frames uint8 (T, H, W, 3), RGB, as an MP4: H.264 where PyAV has its encoder, else MPEG-4."""
    has_h264 = "libx264" in av.codecs_available
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if has_h264 else "mpeg4", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "slow", "threads": "1"} if has_h264 else {"qscale": "8"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_splits(folder: Path, names: dict[str, list[str]], num_splits: int = 3) -> None:
    """Write lists in UCF101's format for `names`, {class: file names}; every group is tested in just one split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classInd.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(names, start=1)))
    for number in range(num_splits):
        train, test = [], []
        for label, (class_name, files) in enumerate(names.items(), start=1):
            for file in files:
                group = int(file.split("_g")[1][:2]) - 1
                if group % num_splits == number:
                    test.append(f"{class_name}/{file}\n")
                else:
                    train.append(f"{class_name}/{file} {label}\n")
        (folder / f"trainlist{number + 1:02d}.txt").write_text("".join(train))
        (folder / f"testlist{number + 1:02d}.txt").write_text("".join(test))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for the class folders")
    parser.add_argument("--clips-per-class", type=int, default=6)
    parser.add_argument("--clips-per-group", type=int, default=2, help="clips of one person and place in a class")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--classes", nargs="+", choices=list(ACTIONS), default=list(ACTIONS), metavar="CLASS")
    parser.add_argument("--crf", type=int, default=26, help="H.264 quality: higher is smaller")
    parser.add_argument("--splits", type=Path, help="folder for split lists in UCF101's format")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names: dict[str, list[str]] = {}
    for name in args.classes:
        folder = args.output / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(args.clips_per_class):
            group, number = divmod(index, args.clips_per_group)
            clip = render_clip(
                name,
                group_seed=(args.seed, group),
                clip_seed=(args.seed, group, number, list(ACTIONS).index(name)),
                frames=np.arange(args.frames),
                num_frames=args.frames,
                height=args.height,
                width=args.width,
            )
            file = f"v_{name}_g{group + 1:02d}_c{number + 1:02d}.mp4"
            write_video(folder / file, clip.frames, crf=args.crf)
            names.setdefault(name, []).append(file)
    if args.splits:
        write_splits(args.splits, names)


if __name__ == "__main__":
    main()
