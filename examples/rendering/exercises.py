"""Action programs in one place: sitting, bowing, bending, exercises on the floor and on a bar.

Every program turns a phase (N,) in turns into a Pose; what repeats has the same pose at 0 and 1.
"""

from __future__ import annotations

import numpy as np

from .poses import TAU, Pose, alternate, keys, pulse, wave


def jumping_jack(phase: np.ndarray) -> Pose:
    out = pulse(phase)
    return Pose(up=0.08 * pulse(2 * phase), arm_lift=0.15 + 2.6 * out, leg_lift=0.03 + 0.5 * out, elbow=0.2)


def squat(phase: np.ndarray) -> Pose:
    down = pulse(phase)
    return Pose(
        spine_swing=0.55 * down,
        arm_swing=1.5 * down,
        leg_swing=1.75 * down,
        leg_lift=0.2,
        leg_twist=-0.3,
        knee=0.05 + 2.1 * down,
        foot=-0.35 * down,
    )


def lunge(phase: np.ndarray) -> Pose:
    down = pulse(phase)
    return Pose(
        ahead=0.12 * down,
        arm_lift=0.7,
        arm_twist=1.2,
        elbow=2.0,
        leg_swing=(0.15 + 1.25 * down, -0.1 - 0.4 * down),
        knee=(0.1 + 1.35 * down, 0.1 + 1.2 * down),
        foot=(0, -0.4 * down),
    )


def crouch(phase: np.ndarray) -> Pose:
    down = keys(phase, (0, 0), (1, 1))
    return Pose(
        spine_swing=0.9 * down,
        head_swing=0.3 * down,
        arm_swing=1.5 * down,
        elbow=0.3 + 0.4 * down,
        leg_swing=2.0 * down,
        leg_lift=0.15,
        knee=2.5 * down,
        foot=-0.4 * down,
    )


def sit_down(phase: np.ndarray) -> Pose:
    down, lean = keys(phase, (0, 0), (0.9, 1)), keys(phase, (0, 0), (0.5, 1), (1, 0))
    return Pose(
        ahead=-0.2 * down,
        spine_swing=0.75 * lean,
        arm_swing=0.5 * down + 0.3 * lean,
        elbow=0.2 + 0.6 * down,
        leg_swing=1.5 * down,
        knee=1.55 * down,
        leg_lift=0.1,
        prop=1.0,
    )


def bow(phase: np.ndarray) -> Pose:
    down = keys(phase, (0, 0), (1, 1))
    return Pose(spine_swing=1.35 * down, head_swing=0.3 * down, arm_swing=1.0 * down, leg_swing=-0.1 * down)


def pick_up(phase: np.ndarray) -> Pose:
    down, held = keys(phase, (0, 0), (0.45, 1), (0.55, 1), (1, 0)), keys(phase, (0.5, 0), (1, 1))
    return Pose(
        spine_swing=1.1 * down,
        arm_swing=1.5 * down + 0.9 * held,
        elbow=0.15 + 1.0 * held * (1 - down),
        leg_swing=1.3 * down,
        knee=1.6 * down,
        leg_lift=0.15,
    )


def push_up(phase: np.ndarray) -> Pose:
    down = pulse(phase)
    return Pose(
        pitch=1.3 + 0.14 * down,
        arm_swing=1.45 - 0.9 * down,
        arm_lift=0.15 + 0.7 * down,
        arm_twist=0.2,
        elbow=0.05 + 1.75 * down,
        head_swing=-0.3,
        foot=-0.8,
    )


def plank(phase: np.ndarray) -> Pose:
    return Pose(
        pitch=1.42 + 0.015 * wave(phase),
        arm_swing=1.5,
        elbow=1.55,
        head_swing=-0.2 + 0.05 * wave(phase),
        foot=-0.8,
    )


def sit_up(phase: np.ndarray) -> Pose:
    up = pulse(phase)
    return Pose(
        pitch=-1.5,
        spine_swing=1.25 * up,
        head_swing=0.3 * up,
        arm_swing=2.4,
        arm_lift=0.6,
        arm_twist=0.7,
        elbow=2.4,
        leg_swing=0.85,
        knee=1.7,
    )


def leg_raise(phase: np.ndarray) -> Pose:
    return Pose(pitch=-1.57, arm_lift=0.35, leg_swing=0.1 + 1.4 * pulse(phase), knee=0.1, foot=0.6)


def burpee(phase: np.ndarray) -> Pose:
    low = keys(phase, (0.05, 0), (0.25, 1), (0.6, 1), (0.78, 0))
    flat = keys(phase, (0.22, 0), (0.38, 1), (0.46, 1), (0.62, 0))
    air = keys(phase, (0.76, 0), (0.87, 1), (1, 0))
    return Pose(
        pitch=0.5 * low + 0.85 * flat,
        up=0.2 * air,
        spine_swing=0.6 * (low - flat),
        arm_swing=0.9 * low + 0.5 * flat + 2.7 * air,
        leg_swing=2.0 * (low - flat),
        knee=2.4 * (low - flat) + 0.05,
        foot=-0.6 * low,
    )


def cartwheel(phase: np.ndarray) -> Pose:
    return Pose(roll=TAU * phase, arm_lift=2.6, leg_lift=0.55, elbow=0.05, leg_twist=-0.6)


def forward_roll(phase: np.ndarray) -> Pose:
    return Pose(
        pitch=TAU * phase,
        spine_swing=1.3,
        head_swing=0.7,
        arm_swing=1.4,
        elbow=0.9,
        leg_swing=2.1,
        knee=2.3,
    )


def handstand(phase: np.ndarray) -> Pose:
    sway = 0.12 * wave(phase)
    return Pose(
        pitch=np.pi + sway,
        arm_swing=np.pi - 0.1,
        elbow=0.05,
        head_swing=-0.4,
        leg_swing=alternate(0.25 * wave(phase, 0.3)),
        foot=0.7,
    )


def pull_up(phase: np.ndarray) -> Pose:
    up = pulse(phase)
    return Pose(
        up=0.5 + 0.26 * up,
        head_swing=-0.2,
        arm_lift=2.8 - 1.6 * up,
        arm_twist=-0.2,
        elbow=0.1 + 2.2 * up,
        arm_swing=0.1,
        knee=0.6,
        leg_swing=0.1,
        foot=0.5,
    )
