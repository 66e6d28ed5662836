"""Action programs that move the whole body: walking, jumping, floor exercises, swimming, riding.

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


def jumping_jack(phase: np.ndarray) -> Pose:
    out = pulse(phase)
    return Pose(up=0.08 * pulse(2 * phase), arm_lift=0.15 + 2.6 * out, leg_lift=0.03 + 0.5 * out, elbow=0.2)


def rope_jump(phase: np.ndarray) -> Pose:
    return Pose(
        up=0.1 * pulse(phase),
        arm_lift=0.5 + 0.1 * wave(phase),
        arm_swing=0.25 + 0.2 * wave(phase, 0.25),
        arm_twist=-0.8,
        elbow=1.0 + 0.2 * wave(phase),
        knee=0.4 - 0.3 * pulse(phase),
        leg_swing=0.2 - 0.15 * pulse(phase),
        prop=phase,
    )


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
        prop=phase,
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
        prop=phase,
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
