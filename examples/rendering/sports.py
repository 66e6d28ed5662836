"""Action programs of sports: striking, kicking, throwing, catching, shooting, swinging a club.

Every program turns a phase (N,) in turns into a Pose; what repeats has the same pose at 0 and 1.
"""

from __future__ import annotations

import numpy as np

from .poses import Pose, beat, keys, pulse, wave


def punch(phase: np.ndarray) -> Pose:
    reach = keys(phase, (0, 0), (0.2, 1), (0.26, 1), (1, 0))  # out fast, back slowly
    return Pose(
        spine_swing=0.1 + 0.1 * reach,
        spine_twist=-0.3 + 0.8 * reach,
        ahead=0.06 * reach,
        arm_swing=(0.55, -0.3 + 1.85 * reach),
        arm_lift=(0.2, 0.3 - 0.1 * reach),
        elbow=(2.2, 2.3 - 2.25 * reach),
        leg_swing=(0.45, -0.4),
        knee=(0.5, 0.15),
    )


def box(phase: np.ndarray) -> Pose:
    left, right = beat(phase) ** 1.5, beat(phase, 0.5) ** 1.5
    return Pose(
        spine_swing=0.12,
        spine_twist=0.5 * (right - left),
        arm_swing=(0.2 + 1.4 * left, 0.2 + 1.4 * right),
        arm_lift=0.2,
        elbow=(2.3 - 2.2 * left, 2.3 - 2.2 * right),
        leg_swing=(0.4, -0.3),
        knee=0.4,
    )


def uppercut(phase: np.ndarray) -> Pose:
    up = keys(phase, (0, 0), (0.25, -0.3), (0.45, 1), (1, 0))
    return Pose(
        spine_swing=0.25 - 0.3 * up,
        spine_twist=-0.2 + 0.6 * up,
        arm_swing=(0.5, 0.1 + 1.8 * up),
        elbow=(2.2, 1.6 + 0.2 * up),
        leg_swing=(0.5 - 0.2 * up, -0.1),
        knee=(0.7 - 0.4 * up, 0.4 - 0.3 * up),
    )


def kick_front(phase: np.ndarray) -> Pose:
    chamber, out = keys(phase, (0, 0), (0.3, 1), (0.6, 1), (1, 0)), keys(phase, (0.25, 0), (0.45, 1), (0.65, 0))
    return Pose(
        spine_swing=-0.25 * out,
        arm_swing=(0.5, 0.3 - 0.6 * out),
        elbow=1.8,
        leg_swing=(-0.05, -0.3 + 1.7 * chamber + 0.2 * out),
        knee=(0.15, 0.3 + 1.5 * chamber - 1.75 * out),
        foot=(0, 0.4),
    )


def kick_side(phase: np.ndarray) -> Pose:
    chamber, out = keys(phase, (0, 0), (0.3, 1), (0.65, 1), (1, 0)), keys(phase, (0.25, 0), (0.45, 1), (0.7, 0))
    return Pose(
        spine_lift=-0.55 * out,
        roll=-0.3 * out,
        arm_swing=0.5,
        elbow=1.7,
        leg_lift=(0.05, 0.1 + 0.7 * chamber + 0.7 * out),
        leg_swing=(0, 1.0 * chamber - 0.9 * out),
        knee=(0.15, 0.2 + 1.7 * chamber - 1.85 * out),
    )


def kick_ball(phase: np.ndarray) -> Pose:
    back, through = keys(phase, (0, 0), (0.35, 1), (0.5, 0)), keys(phase, (0.4, 0), (0.62, 1), (1, 0.3))
    return Pose(
        spine_swing=0.15 - 0.3 * through,
        arm_swing=(0.5 * back - 0.6 * through, -0.5 * back + 0.7 * through),
        arm_lift=0.5,
        leg_swing=(0.1, -0.9 * back + 1.3 * through),
        knee=(0.2, 1.5 * back + 0.1),
        foot=(0, 0.5),
        prop=keys(phase, (0.5, 0), (1, 1)),
    )


def throw_over(phase: np.ndarray) -> Pose:
    back, through = keys(phase, (0, 0.3), (0.35, 1), (0.5, 0)), keys(phase, (0.38, 0), (0.62, 1), (1, 0.9))
    return Pose(
        spine_swing=-0.2 * back + 0.5 * through,
        spine_twist=-0.8 * back + 0.6 * through,
        arm_swing=(1.4 * back, 0.9 * through + 0.1),
        arm_lift=(0.2, 1.7 - 1.2 * through),
        arm_twist=(0, -1.3 * back),
        elbow=(0.3, 1.8 * back + 0.2),
        leg_swing=(0.3 * back + 0.5 * through, -0.2 - 0.2 * through),
        knee=(0.4, 0.5),
        prop=keys(phase, (0.55, 0), (0.95, 1)),
    )


def throw_under(phase: np.ndarray) -> Pose:
    swing = keys(phase, (0, 0.2), (0.4, -1.1), (0.75, 1.6), (1, 1.8))
    low = keys(phase, (0.1, 0), (0.5, 1), (1, 0.6))
    return Pose(
        spine_swing=0.3 + 0.5 * low,
        head_swing=-0.4,
        arm_swing=(-0.4, swing),
        arm_lift=(0.6, 0.05),
        elbow=0.1,
        leg_swing=(0.3 + 0.6 * low, -0.2 - 0.4 * low),
        knee=(0.3 + 0.6 * low, 0.3 + 0.6 * low),
        prop=keys(phase, (0.62, 0), (1, 1)),
    )


def catch(phase: np.ndarray) -> Pose:
    near, give = keys(phase, (0, 0), (0.5, 1)), keys(phase, (0.5, 0), (0.85, 1))
    return Pose(
        spine_swing=0.1 + 0.1 * give,
        arm_swing=0.2 + 1.3 * near - 0.6 * give,
        elbow=0.4 + 1.5 * give,
        arm_twist=0.3,
        knee=0.2 + 0.4 * give,
        leg_swing=0.1 + 0.2 * give,
        prop=1 - near,
    )


def dribble(phase: np.ndarray) -> Pose:
    down = pulse(phase)
    return Pose(
        spine_swing=0.4,
        head_swing=-0.3,
        arm_swing=(0.4, 0.5 + 0.1 * down),
        arm_lift=(0.5, 0.25),
        elbow=(1.0, 1.25 - 0.75 * down),
        leg_swing=(0.55 + 0.1 * wave(phase), 0.4),
        knee=(0.8, 0.8 + 0.1 * wave(phase)),
        leg_lift=0.15,
        prop=np.abs(wave(0.5 * phase)),
    )


def shoot(phase: np.ndarray) -> Pose:
    low, up = keys(phase, (0, 0.3), (0.35, 1), (0.6, 0)), keys(phase, (0.35, 0), (0.65, 1))
    air = keys(phase, (0.5, 0), (0.68, 1), (0.9, 0))
    return Pose(
        up=0.15 * air,
        spine_swing=0.3 * low,
        head_swing=-0.2,
        arm_swing=0.7 + 1.9 * up,
        arm_twist=0.3,
        elbow=1.7 - 1.5 * keys(phase, (0.5, 0), (0.72, 1)),
        leg_swing=0.8 * low,
        knee=1.3 * low + 0.05,
        foot=0.6 * air,
        prop=keys(phase, (0.64, 0), (1, 1)),
    )


def chest_pass(phase: np.ndarray) -> Pose:
    out = keys(phase, (0.1, 0), (0.45, 1), (0.6, 1), (1, 0.6))
    return Pose(
        spine_swing=0.15 + 0.15 * out,
        arm_swing=0.2 + 1.3 * out,
        arm_lift=0.45 - 0.35 * out,
        arm_twist=0.9 - 0.8 * out,
        elbow=2.1 - 2.0 * out,
        leg_swing=(0.35 * out, -0.3 * out),
        knee=(0.3, 0.3),
        prop=keys(phase, (0.36, 0), (0.9, 1)),
    )


def draw_bow(phase: np.ndarray) -> Pose:
    # Sideways to the target: the left arm holds the bow out, the right hand draws back to the chin.
    drawn = keys(phase, (0, 0), (1, 1))
    return Pose(
        head_turn=1.2,
        arm_lift=(1.5, -0.5 + 1.9 * drawn),
        arm_swing=(0.0, 1.45 - 0.9 * drawn),
        arm_twist=(0, 1.5 - 0.2 * drawn),
        elbow=(0.05, 0.6 + 1.8 * drawn),
        leg_lift=0.22,
        prop=drawn,
    )


def golf(phase: np.ndarray) -> Pose:
    turn = keys(phase, (0, 0), (0.4, -1), (0.52, -0.9), (0.68, 0.2), (0.9, 1))
    return Pose(
        spine_swing=0.55 - 0.1 * np.abs(turn),
        spine_twist=1.1 * turn,
        head_swing=0.2,
        arm_swing=0.55 + 1.3 * np.abs(turn),
        arm_lift=(-0.15 + 0.6 * turn, -0.15 - 0.6 * turn),
        elbow=(0.1 + 0.8 * np.maximum(turn, 0), 0.1 + 0.8 * np.maximum(-turn, 0)),
        leg_lift=0.2,
        knee=(0.3 - 0.1 * turn, 0.3 + 0.3 * np.maximum(turn, 0)),
        prop=0.5 + 0.5 * turn,
    )


def bat(phase: np.ndarray) -> Pose:
    turn = keys(phase, (0, -0.8), (0.3, -1), (0.6, 0.6), (1, 1))
    return Pose(
        yaw=0.35 * turn,
        spine_swing=0.2,
        spine_twist=1.1 * turn,
        head_turn=0.9 - 0.9 * keys(phase, (0.3, 0), (1, 1)),
        arm_swing=1.35,
        arm_lift=(-0.2 + 0.7 * turn, -0.2 - 0.7 * turn),
        elbow=(0.6 + 0.5 * turn, 1.0 - 0.7 * turn),
        leg_lift=0.25,
        knee=0.35,
        prop=0.5 + 0.5 * turn,
    )


def forehand(phase: np.ndarray) -> Pose:
    turn = keys(phase, (0, -0.3), (0.35, -1), (0.65, 0.7), (1, 1))
    return Pose(
        yaw=0.3 * turn,
        spine_twist=0.8 * turn,
        spine_swing=0.15,
        arm_swing=(0.6, 0.7 + 0.6 * turn),
        arm_lift=(0.4, 0.9 - 0.9 * turn),
        elbow=(0.9, 0.5 + 0.4 * np.maximum(turn, 0)),
        leg_swing=(0.3, 0.1),
        knee=0.5,
        leg_lift=0.2,
    )


def serve(phase: np.ndarray) -> Pose:
    toss = keys(phase, (0, 0), (0.35, 1), (0.6, 0.2))
    back, hit = keys(phase, (0.1, 0), (0.45, 1), (0.6, 0)), keys(phase, (0.45, 0), (0.66, 1), (1, 0.2))
    return Pose(
        up=0.1 * keys(phase, (0.5, 0), (0.64, 1), (0.85, 0)),
        spine_swing=-0.3 * back + 0.5 * hit,
        spine_twist=-0.6 * back + 0.3 * hit,
        head_swing=-0.5 * toss,
        arm_swing=(0.3 + 2.4 * toss, 0.3 + 2.4 * hit + 0.2 * back),
        arm_lift=(0.2, 0.2 + 1.3 * back),
        arm_twist=(0, -1.3 * back),
        elbow=(0.1, 0.3 + 1.8 * back),
        knee=0.2 + 0.7 * back,
        leg_swing=0.1 + 0.4 * back,
    )


def fence(phase: np.ndarray) -> Pose:
    out = keys(phase, (0, 0), (0.3, 1), (0.45, 1), (1, 0))
    return Pose(
        ahead=0.25 * out,
        spine_twist=0.7,
        spine_swing=0.15 * out,
        arm_swing=(-0.8 - 0.3 * out, 0.7 + 0.8 * out),
        arm_lift=(1.0, 0.1),
        elbow=(1.6 - 1.4 * out, 1.3 - 1.2 * out),
        leg_swing=(-0.5 - 0.3 * out, 0.5 + 0.8 * out),
        knee=(0.7 - 0.6 * out, 0.8 + 0.4 * out),
    )


def javelin(phase: np.ndarray) -> Pose:
    back, through = keys(phase, (0, 0.5), (0.4, 1), (0.6, 0)), keys(phase, (0.42, 0), (0.68, 1))
    return Pose(
        spine_swing=-0.35 * back + 0.45 * through,
        spine_twist=-0.7 * back + 0.6 * through,
        arm_swing=(1.5 * back, 2.6 * back + 1.7 * through),
        arm_lift=(0.3, 0.6),
        elbow=(0.1, 0.9 * back),
        leg_swing=(0.6 * back, -0.4 * back + 0.4 * through),
        knee=(0.2, 0.6),
        prop=keys(phase, (0.6, 0), (1, 1)),
    )


def volley(phase: np.ndarray) -> Pose:
    """Setting a ball high with both hands."""
    up = pulse(phase)
    return Pose(
        head_swing=-0.5,
        arm_swing=2.3 + 0.5 * up,
        arm_lift=0.35,
        arm_twist=0.3,
        elbow=1.5 - 1.3 * up,
        knee=0.5 - 0.4 * up,
        leg_swing=0.3 - 0.25 * up,
        prop=up,
    )
