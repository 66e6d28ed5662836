"""Action programs that move the whole body: walking, jumping, climbing, swimming, riding.

Every program turns a phase (N,) in turns into a Pose; what repeats has the same pose at 0 and 1.
"""

from __future__ import annotations

import numpy as np

from .poses import TAU, Pose, alternate, beat, keys, pulse, wave


def walk(phase: np.ndarray) -> Pose:
    swing = wave(phase)
    return Pose(
        spine_swing=0.06,
        spine_twist=-0.12 * swing,
        arm_swing=alternate(-0.5 * swing),
        elbow=(0.35 - 0.15 * swing, 0.35 + 0.15 * swing),
        leg_swing=alternate(0.5 * swing),
        knee=(0.12 + 0.8 * beat(phase, 0.25), 0.12 + 0.8 * beat(phase, 0.75)),
        leg_lift=0.02,
    )


def run(phase: np.ndarray) -> Pose:
    swing = wave(phase)
    return Pose(
        up=0.05 * pulse(2 * phase, 0.25),
        spine_swing=0.22,
        spine_twist=-0.2 * swing,
        arm_swing=alternate(-0.9 * swing),
        elbow=1.6,
        leg_swing=(0.25 + 0.95 * swing, 0.25 - 0.95 * swing),
        knee=(0.3 + 1.7 * beat(phase, 0.2), 0.3 + 1.7 * beat(phase, 0.7)),
        foot=0.3,
    )


def march(phase: np.ndarray) -> Pose:
    left, right = beat(phase), beat(phase, 0.5)
    return Pose(
        arm_swing=(1.1 * right - 0.2, 1.1 * left - 0.2),
        elbow=(0.3 + 1.2 * right, 0.3 + 1.2 * left),
        leg_swing=(1.6 * left, 1.6 * right),
        knee=(1.7 * left, 1.7 * right),
        foot=(0.4 * left, 0.4 * right),
    )


def skip(phase: np.ndarray) -> Pose:
    swing, hop = wave(phase), pulse(2 * phase)
    return Pose(
        up=0.13 * hop,
        spine_swing=0.1,
        arm_swing=alternate(-1.2 * swing),
        elbow=0.9,
        leg_swing=(0.35 + 0.8 * swing, 0.35 - 0.8 * swing),
        knee=(0.3 + 1.3 * beat(phase), 0.3 + 1.3 * beat(phase, 0.5)),
    )


def hop(phase: np.ndarray) -> Pose:
    air = pulse(phase)
    return Pose(
        up=0.16 * air,
        spine_swing=0.1,
        arm_swing=0.3 + 0.6 * air,
        arm_lift=0.5,
        elbow=0.9,
        leg_swing=(0.8, 0.4 - 0.4 * air),
        knee=(1.8, 0.8 - 0.7 * air),
        foot=(0.3, 0.6 * air),
    )


def jump(phase: np.ndarray) -> Pose:
    down = keys(phase, (0, 0.1), (0.25, 1), (0.4, 0), (0.75, 0), (0.88, 0.8), (1, 0.1))
    air = keys(phase, (0.38, 0), (0.57, 1), (0.78, 0))
    return Pose(
        up=0.3 * air,
        spine_swing=0.6 * down,
        arm_swing=-0.9 * down + 2.7 * air,
        elbow=0.3 + 0.3 * down,
        leg_swing=1.2 * down,
        knee=1.9 * down + 0.1,
        foot=0.7 * air,
    )


def long_jump(phase: np.ndarray) -> Pose:
    down = keys(phase, (0, 0.2), (0.3, 1), (0.45, 0))
    air = keys(phase, (0.42, 0), (0.6, 1), (0.8, 0))
    land = keys(phase, (0.7, 0), (0.85, 1), (1, 0.5))
    return Pose(
        up=0.25 * air,
        ahead=keys(phase, (0.38, -0.4), (0.82, 0.8)),
        spine_swing=0.7 * down + 0.5 * land,
        arm_swing=-1.1 * down + 2.5 * air + 0.8 * land,
        leg_swing=1.2 * down + 1.0 * air + 1.5 * land,
        knee=1.9 * down + 1.0 * air + 1.7 * land,
    )


def rope_jump(phase: np.ndarray) -> Pose:
    return Pose(
        up=0.1 * pulse(phase),
        arm_lift=0.5 + 0.1 * wave(phase),
        arm_swing=0.25 + 0.2 * wave(phase, 0.25),
        arm_twist=-0.8,
        elbow=1.0 + 0.2 * wave(phase),
        knee=0.4 - 0.3 * pulse(phase),
        leg_swing=0.2 - 0.15 * pulse(phase),
    )


def spin(phase: np.ndarray) -> Pose:
    return Pose(yaw=TAU * phase, arm_lift=1.3, elbow=0.3, leg_swing=(0.25, -0.05), knee=(0.6, 0.05), foot=0.3)


def dance(phase: np.ndarray) -> Pose:
    sway, step = wave(phase), beat(2 * phase)
    return Pose(
        yaw=0.4 * sway,
        spine_lift=0.25 * sway,
        spine_twist=-0.6 * sway,
        aside=0.08 * sway,
        arm_lift=(0.6 + 0.9 * beat(phase), 0.6 + 0.9 * beat(phase, 0.5)),
        arm_swing=0.5,
        elbow=(1.2 + 0.6 * sway, 1.2 - 0.6 * sway),
        knee=0.25 + 0.4 * step,
        leg_swing=0.15 + 0.2 * step,
        leg_lift=0.15,
    )


def crawl(phase: np.ndarray) -> Pose:
    swing = wave(phase)
    return Pose(
        pitch=1.25,
        head_swing=-0.7,
        arm_swing=(1.5 - 0.4 * swing, 1.5 + 0.4 * swing),
        elbow=(0.1 + 0.6 * beat(phase, 0.75), 0.1 + 0.6 * beat(phase, 0.25)),
        leg_swing=(1.35 + 0.4 * swing, 1.35 - 0.4 * swing),
        knee=1.55,
        foot=0.7,
    )


def climb(phase: np.ndarray) -> Pose:
    left, right = pulse(phase), pulse(phase, 0.5)
    return Pose(
        up=0.6 + 0.06 * wave(2 * phase),
        spine_lift=0.12 * wave(phase),
        head_swing=-0.4,
        arm_swing=(1.9 + 0.8 * left, 1.9 + 0.8 * right),
        arm_lift=0.4,
        elbow=(1.5 - 1.3 * left, 1.5 - 1.3 * right),
        leg_swing=(0.3 + 1.1 * right, 0.3 + 1.1 * left),
        leg_lift=0.4,
        leg_twist=-0.5,
        knee=(0.4 + 1.3 * right, 0.4 + 1.3 * left),
    )


def ride(phase: np.ndarray) -> Pose:
    bounce = pulse(phase)
    return Pose(
        up=0.62 + 0.07 * bounce,
        spine_swing=0.1 + 0.2 * bounce,
        arm_swing=0.5 + 0.15 * bounce,
        elbow=1.2,
        arm_twist=0.3,
        leg_swing=0.85,
        leg_lift=0.45,
        leg_twist=-0.3,
        knee=1.15 - 0.25 * bounce,
    )


def pedal(phase: np.ndarray) -> Pose:
    return Pose(
        up=0.55,
        spine_swing=0.65,
        head_swing=-0.5,
        arm_swing=1.1,
        elbow=0.25,
        leg_swing=(1.0 + 0.5 * wave(phase), 1.0 - 0.5 * wave(phase)),
        knee=(1.25 + 0.6 * wave(phase, 0.3), 1.25 + 0.6 * wave(phase, 0.8)),
        leg_lift=0.04,
    )


def crawl_stroke(phase: np.ndarray) -> Pose:
    # The arms turn half a turn apart; a turn forwards over the water is a falling swing angle of a prone body.
    turn = TAU * phase
    return Pose(
        pitch=1.5,
        up=0.35,
        roll=0.4 * wave(phase),
        head_swing=-0.3,
        head_turn=0.7 * beat(phase),
        arm_swing=(np.pi - turn, -turn),
        elbow=(0.2 + 1.0 * beat(phase, 0.5), 0.2 + 1.0 * beat(phase)),
        leg_swing=alternate(0.25 * wave(3 * phase)),
        knee=0.2,
        foot=0.7,
    )


def breast_stroke(phase: np.ndarray) -> Pose:
    pull, kick = pulse(phase), pulse(phase, -0.15)
    return Pose(
        pitch=1.4 - 0.3 * pull,
        up=0.35,
        head_swing=-0.5,
        arm_swing=3.0 - 1.3 * pull,
        arm_lift=0.1 + 0.9 * pull * pulse(phase, 0.15),
        elbow=0.1 + 1.7 * pull,
        leg_swing=0.1 + 0.9 * kick,
        leg_lift=0.1 + 0.6 * kick,
        knee=0.1 + 1.9 * kick,
        foot=0.4,
    )


def skate(phase: np.ndarray) -> Pose:
    swing = wave(phase)
    return Pose(
        aside=0.1 * swing,
        spine_swing=0.7,
        spine_lift=0.15 * swing,
        head_swing=-0.4,
        arm_swing=alternate(-0.8 * swing),
        elbow=0.5,
        leg_swing=(0.55 + 0.4 * swing, 0.55 - 0.4 * swing),
        leg_lift=(0.05 + 0.6 * beat(phase, 0.5), 0.05 + 0.6 * beat(phase)),
        knee=(0.9 + 0.3 * swing, 0.9 - 0.3 * swing),
    )


def slide(phase: np.ndarray) -> Pose:
    """The steps to the left of a defender, arms out."""
    step = wave(phase)
    return Pose(
        up=0.02 * pulse(2 * phase),
        spine_swing=0.35,
        arm_lift=1.2,
        arm_swing=0.5,
        elbow=0.5,
        leg_swing=0.8,
        knee=1.2,
        leg_lift=(0.4 + 0.25 * step, 0.4 - 0.25 * step),
    )
