"""The actions of the rendered videos, as joint angles over time.

Angles are in radians: 0 hangs down, positive turns towards the side that the figure faces. Every action has a partner
with the same poses, which differs by direction, order, rhythm or speed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

TAU = 2 * np.pi


@dataclass(frozen=True)
class Pose:
    """The joints of one figure over time; every field is a number or an array (T,)."""

    torso: np.ndarray | float = 0.0  # the lean of the trunk, positive forwards
    arms: tuple = (0.0, 0.0)  # upper arms, near and far
    elbows: tuple = (0.0, 0.0)  # added to the upper arm's angle
    legs: tuple = (0.0, 0.0)  # thighs, near and far
    knees: tuple = (0.0, 0.0)  # taken from the thigh's angle
    spin: np.ndarray | float | None = None  # of the whole body about its middle; None: the feet stand on the ground


@dataclass(frozen=True)
class Action:
    """A pose program: `pose(phase)` with the phase in turns, run through in `period` frames (lowest, highest).

    `reverse` runs the program backwards in time. A program that is not `cyclic` is run once, over the whole video.
    `frontal` shows the figure from the front, else from its side. `travel` is the way forwards (in a frontal view to
    the right) of a turn, in body heights.
    """

    pose: Callable[[np.ndarray], Pose]
    period: tuple[float, float]
    reverse: bool = False
    cyclic: bool = True
    frontal: bool = False
    travel: float = 0.0


def _walk(phase: np.ndarray) -> Pose:
    swing, lift = np.sin(TAU * phase), np.cos(TAU * phase)
    return Pose(
        torso=0.06,
        arms=(-0.55 * swing, 0.55 * swing),
        elbows=(0.35 - 0.2 * swing, 0.35 + 0.2 * swing),
        legs=(0.55 * swing, -0.55 * swing),
        knees=(0.1 + 0.8 * np.maximum(lift, 0), 0.1 + 0.8 * np.maximum(-lift, 0)),
    )


def _arm_circles(phase: np.ndarray) -> Pose:
    turn = TAU * phase
    return Pose(arms=(turn, -turn), elbows=(0.1, -0.1), legs=(0.2, -0.2))


def _crouch(phase: np.ndarray) -> Pose:
    depth = 0.5 - 0.5 * np.cos(np.pi * phase)
    return Pose(
        torso=0.5 * depth,
        arms=(1.5 * depth, 1.4 * depth),
        elbows=(0.2, 0.2),
        legs=(1.7 * depth, 1.6 * depth),
        knees=(2.5 * depth, 2.4 * depth),
    )


def _punch(phase: np.ndarray) -> Pose:
    turn = phase % 1.0
    reach = np.where(turn < 0.22, turn / 0.22, np.clip((1 - turn) / 0.7, 0, 1))  # out fast, back slowly
    return Pose(
        torso=0.05 + 0.15 * reach,
        arms=(-0.5 + 2.0 * reach, 0.3 - 0.3 * reach),
        elbows=(2.2 * (1 - reach), 1.9),
        legs=(0.45, -0.4),
        knees=(0.5, 0.1),
    )


def _pedal(phase: np.ndarray) -> Pose:
    turn = TAU * phase
    return Pose(
        torso=-0.05,
        arms=(0.7, 0.5),
        elbows=(0.7, 0.7),
        legs=(0.85 + 0.6 * np.sin(turn), 0.0),
        knees=(1.0 + 0.9 * np.cos(turn), 0.05),
    )


def _cartwheel(phase: np.ndarray) -> Pose:
    return Pose(arms=(2.6, -2.6), legs=(0.45, -0.45), spin=TAU * phase)


def _wave(phase: np.ndarray) -> Pose:
    return Pose(arms=(2.1, -0.15), elbows=(0.75 + 0.75 * np.sin(TAU * phase), -0.1), legs=(0.12, -0.12))


ACTIONS: dict[str, Action] = {
    "WalkForward": Action(_walk, (16, 26), travel=0.55),
    "WalkBackward": Action(_walk, (16, 26), travel=0.55, reverse=True),
    "ArmCirclesOut": Action(_arm_circles, (14, 24), frontal=True),
    "ArmCirclesIn": Action(_arm_circles, (14, 24), reverse=True, frontal=True),
    "Crouch": Action(_crouch, (14, 22), cyclic=False),
    "Rise": Action(_crouch, (14, 22), reverse=True, cyclic=False),
    "Punch": Action(_punch, (11, 17)),
    "Pull": Action(_punch, (11, 17), reverse=True),
    "PedalForward": Action(_pedal, (11, 18), reverse=True),
    "PedalBackward": Action(_pedal, (11, 18)),
    "CartwheelLeft": Action(_cartwheel, (22, 36), frontal=True, travel=0.5, reverse=True),
    "CartwheelRight": Action(_cartwheel, (22, 36), frontal=True, travel=0.5),
    "Wave": Action(_wave, (7, 10), frontal=True),
    "SlowWave": Action(_wave, (20, 28), frontal=True),
}


def draw_motion(action: Action, frames: np.ndarray, num_frames: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Phases (T,) in turns and the way travelled (T,) at the source frames `frames` of a video of `num_frames`.

    The way is 0 in the video's middle, so that a walker crosses the middle of the picture.
    """
    period = rng.uniform(*action.period)
    if action.cyclic:
        turns = (frames - num_frames / 2) / period
        turns = -turns if action.reverse else turns
        return turns + rng.uniform(), action.travel * turns
    duration = min(period, 0.95 * num_frames)
    begin = rng.uniform(0.2, 0.8) * (num_frames - duration)
    done = np.clip((frames - begin) / duration, 0, 1)
    return 1 - done if action.reverse else done, np.zeros(len(frames))
