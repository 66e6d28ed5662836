"""Action programs of arms and hands: gestures, work with tools, playing music, lifting.

Every program turns a phase (N,) in turns into a Pose; what repeats has the same pose at 0 and 1.
"""

from __future__ import annotations

import numpy as np

from .poses import TAU, Pose, alternate, beat, keys, pulse, wave


def stand(phase: np.ndarray) -> Pose:
    sway = wave(phase)
    return Pose(
        spine_lift=0.03 * sway,
        spine_twist=0.06 * wave(phase, 0.2),
        head_turn=0.25 * wave(phase, 0.4),
        arm_swing=alternate(0.06 * sway),
        leg_lift=0.1,
    )


def talk(phase: np.ndarray) -> Pose:
    return Pose(
        spine_twist=0.08 * wave(phase),
        head_swing=0.12 * wave(2 * phase),
        head_turn=0.2 * wave(phase, 0.3),
        arm_swing=(0.45 + 0.25 * wave(phase), 0.4 + 0.3 * wave(2 * phase, 0.2)),
        arm_lift=(0.3, 0.3 + 0.15 * wave(phase, 0.6)),
        elbow=(1.5 + 0.35 * wave(2 * phase, 0.1), 1.4 + 0.4 * wave(phase, 0.7)),
        arm_twist=0.3,
    )


def wave_hand(phase: np.ndarray) -> Pose:
    return Pose(
        head_turn=-0.1,
        arm_lift=(0.12, 1.75),
        arm_twist=(0, -1.45),
        elbow=(0.2, 1.1 + 0.6 * wave(phase)),
    )


def wave_both(phase: np.ndarray) -> Pose:
    swing = wave(phase)
    return Pose(arm_lift=(2.4 + 0.4 * swing, 2.4 - 0.4 * swing), elbow=0.3, spine_lift=-0.08 * swing)


def flap(phase: np.ndarray) -> Pose:
    return Pose(arm_lift=0.9 + 0.8 * wave(phase), elbow=0.2 + 0.2 * wave(phase, 0.7))


def clap(phase: np.ndarray) -> Pose:
    apart = pulse(phase)
    return Pose(arm_swing=0.85, arm_lift=0.05 + 0.25 * apart, arm_twist=0.75 - 0.75 * apart, elbow=1.2, head_swing=0.05)


def clap_high(phase: np.ndarray) -> Pose:
    return Pose(arm_lift=3.05 - 0.9 * pulse(phase), elbow=0.1, spine_swing=-0.05)


def arm_circles(phase: np.ndarray) -> Pose:
    turn = TAU * phase
    return Pose(arm_swing=turn, arm_lift=0.15, elbow=0.05, leg_lift=0.12)


def side_circles(phase: np.ndarray) -> Pose:
    return Pose(arm_lift=1.5 + 0.45 * wave(phase), arm_swing=0.45 * wave(phase, 0.25), elbow=0.05, leg_lift=0.12)


def side_bend(phase: np.ndarray) -> Pose:
    bend = wave(phase)
    return Pose(spine_lift=0.6 * bend, arm_lift=(0.5 + 2.2 * beat(phase), 0.5 + 2.2 * beat(phase, 0.5)), leg_lift=0.25)


def trunk_twist(phase: np.ndarray) -> Pose:
    return Pose(spine_twist=1.0 * wave(phase), arm_lift=1.45, elbow=0.2, leg_lift=0.25)


def lift_weight(phase: np.ndarray) -> Pose:
    low = keys(phase, (0, 1), (0.4, 0))
    rack, press = keys(phase, (0.3, 0), (0.55, 1)), keys(phase, (0.6, 0), (1, 1))
    return Pose(
        spine_swing=0.9 * low,
        arm_swing=0.75 * low + 0.5 * rack + 2.4 * press,
        arm_lift=0.2 + 0.15 * press,
        elbow=0.05 + 2.3 * rack - 2.2 * press,
        leg_swing=1.5 * low,
        knee=1.9 * low,
        leg_lift=0.2,
    )


def press(phase: np.ndarray) -> Pose:
    up = pulse(phase)
    return Pose(arm_swing=0.5 + 2.4 * up, arm_lift=0.3, elbow=2.35 - 2.2 * up, leg_lift=0.18)


def curl(phase: np.ndarray) -> Pose:
    return Pose(arm_swing=0.05 + 0.15 * pulse(phase), elbow=0.15 + 2.2 * pulse(phase), spine_swing=-0.04)


def row(phase: np.ndarray) -> Pose:
    drawn = pulse(phase)
    return Pose(
        up=0.12,
        spine_swing=0.55 - 0.85 * drawn,
        arm_swing=1.35 - 1.15 * drawn,
        elbow=0.1 + 1.5 * drawn,
        leg_swing=2.1 - 0.65 * drawn,
        knee=2.0 - 1.6 * drawn,
        leg_lift=0.1,
    )


def play_piano(phase: np.ndarray) -> Pose:
    run = wave(phase)
    return Pose(
        up=0.3,
        spine_swing=0.15 + 0.05 * wave(2 * phase),
        spine_lift=0.1 * run,
        head_swing=0.25,
        arm_swing=(0.5 + 0.06 * wave(4 * phase), 0.5 + 0.06 * wave(4 * phase, 0.5)),
        arm_lift=(0.15 - 0.25 * run, 0.15 + 0.25 * run),
        elbow=(1.15 - 0.1 * wave(4 * phase), 1.15 - 0.1 * wave(4 * phase, 0.5)),
        leg_swing=1.4,
        knee=1.5,
        prop=1.0,
    )


def drum(phase: np.ndarray) -> Pose:
    left, right = pulse(phase), pulse(phase, 0.5)
    return Pose(
        up=0.3,
        head_swing=0.1 * wave(2 * phase),
        arm_swing=(0.35 + 0.5 * left, 0.35 + 0.5 * right),
        arm_twist=0.2,
        elbow=(1.1 + 0.7 * left, 1.1 + 0.7 * right),
        leg_swing=1.4,
        leg_lift=0.3,
        knee=1.5,
    )


def strum(phase: np.ndarray) -> Pose:
    return Pose(
        head_swing=0.15,
        arm_swing=(0.55, 0.15),
        arm_lift=(0.35, 0.25),
        arm_twist=(-0.3, 0.6 + 0.35 * wave(phase)),
        elbow=(1.6, 1.5 + 0.2 * wave(phase)),
        leg_lift=0.15,
    )


def fiddle(phase: np.ndarray) -> Pose:
    stroke = wave(phase)
    return Pose(
        head_turn=0.5,
        head_swing=0.2,
        arm_swing=(1.2, 0.9),
        arm_lift=(0.5, 0.35 + 0.2 * stroke),
        arm_twist=(0.2, 0.9),
        elbow=(1.3, 1.4 + 0.6 * stroke),
    )


def hammer(phase: np.ndarray) -> Pose:
    up = keys(phase, (0, 1), (0.25, 0), (0.35, 0), (1, 1))
    return Pose(
        spine_swing=0.45 - 0.2 * up,
        head_swing=0.2,
        arm_swing=(0.8, 0.6 + 1.2 * up),
        elbow=(0.7, 0.35 + 1.3 * up),
        leg_swing=(0.4, -0.2),
        knee=(0.6, 0.2),
    )


def saw(phase: np.ndarray) -> Pose:
    back = pulse(phase)
    return Pose(
        spine_swing=0.65 - 0.12 * back,
        arm_swing=(0.75, 0.9 - 1.3 * back),
        elbow=(0.4, 0.25 + 1.5 * back),
        leg_swing=(0.6, -0.15),
        knee=(0.7, 0.1),
    )


def dig(phase: np.ndarray) -> Pose:
    low, fling = keys(phase, (0, 0), (0.35, 1), (0.5, 1), (0.75, 0)), keys(phase, (0.5, 0), (0.75, 1), (1, 0))
    return Pose(
        spine_swing=0.35 + 0.75 * low,
        spine_twist=0.8 * fling,
        arm_swing=(0.7 + 0.3 * low + 0.5 * fling, 0.4 + 0.3 * low + 0.5 * fling),
        arm_lift=(-0.1, -0.1),
        elbow=(0.3, 0.9),
        leg_swing=(0.3 + 0.5 * low, -0.1 + 0.4 * low),
        knee=(0.4 + 0.6 * low, 0.2 + 0.6 * low),
    )


def sweep(phase: np.ndarray) -> Pose:
    swing = wave(phase)
    return Pose(
        spine_swing=0.4,
        spine_twist=0.5 * swing,
        head_swing=0.3,
        arm_swing=(0.9, 0.5),
        arm_lift=(0.0 + 0.2 * swing, 0.05 - 0.2 * swing),
        elbow=(0.3, 1.0),
        leg_lift=0.15,
        knee=0.2,
    )


def wipe(phase: np.ndarray) -> Pose:
    return Pose(
        spine_swing=0.1,
        arm_swing=(0.1, 1.75 + 0.4 * wave(phase)),
        arm_lift=(0.15, 0.15 + 0.45 * wave(phase, 0.25)),
        elbow=(0.3, 0.5),
    )


def brush(phase: np.ndarray) -> Pose:
    return Pose(
        head_swing=0.1 + 0.03 * wave(phase),
        arm_swing=(0.05, 0.75),
        arm_lift=(0.12, 0.7 + 0.08 * wave(phase)),
        arm_twist=(0, 0.9),
        elbow=(0.2, 2.2 + 0.2 * wave(phase)),
    )


def drink(phase: np.ndarray) -> Pose:
    up = keys(phase, (0, 0), (0.8, 1))
    return Pose(
        head_swing=-0.4 * keys(phase, (0.7, 0), (1, 1)),
        arm_swing=(0.05, 0.15 + 0.8 * up),
        arm_lift=(0.12, 0.15 + 0.3 * up),
        arm_twist=(0, 0.35 + 0.2 * up),
        elbow=(0.2, 1.1 + 1.2 * up),
    )


def cut(phase: np.ndarray) -> Pose:
    return Pose(
        spine_swing=0.15,
        head_swing=0.4,
        arm_swing=(0.45, 0.3 + 0.15 * wave(phase)),
        arm_twist=(0.5, 0.3),
        elbow=(1.1, 1.15 + 0.25 * wave(phase, 0.25)),
    )


def stir(phase: np.ndarray) -> Pose:
    return Pose(
        spine_swing=0.12,
        head_swing=0.35,
        arm_swing=(0.4, 0.5 + 0.15 * wave(phase)),
        arm_lift=(0.1, 0.15 + 0.2 * wave(phase, 0.25)),
        arm_twist=(0.4, 0.4),
        elbow=(1.3, 1.2 - 0.15 * wave(phase)),
    )


def push(phase: np.ndarray) -> Pose:
    step = wave(phase)
    return Pose(
        spine_swing=0.5,
        arm_swing=1.7,
        elbow=0.5 + 0.1 * wave(2 * phase),
        leg_swing=(0.1 + 0.55 * step, 0.1 - 0.55 * step),
        knee=(0.3 + 0.6 * beat(phase, 0.25), 0.3 + 0.6 * beat(phase, 0.75)),
    )
