"""A figure's pose as joint angles, and the small functions that action programs are written with.

Angles are in radians, 0 stands upright with hanging arms. `swing` turns a limb forwards, `lift` outwards from the
body, `twist` about its own axis inwards; elbows and knees bend by positive angles. Lengths are in body heights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

TAU = 2 * np.pi
SIDES = ("left", "right")

# The range of every freedom that a person can reach, with some room for exaggeration.
BODY_LIMITS = {
    "yaw": (-TAU, TAU),  # of the whole body, positive to its left
    "pitch": (-TAU, TAU),  # of the whole body, positive forwards
    "roll": (-TAU, TAU),  # of the whole body, positive to its right
    "up": (-0.2, 1.2),  # above the ground; of a figure that hangs or sits, the height of its hips
    "ahead": (-0.6, 0.9),
    "aside": (-0.6, 0.6),  # positive to the right
    "spine_swing": (-0.8, 1.7),  # positive bends forwards
    "spine_lift": (-0.8, 0.8),  # positive bends to the right
    "spine_twist": (-1.3, 1.3),  # positive turns to the left
    "head_swing": (-0.9, 0.9),
    "head_turn": (-1.3, 1.3),
    "prop": (-0.1, 1.1),  # what the held thing does: how far a ball has flown, how far a bow is drawn
}
LIMB_LIMITS = {
    "arm_swing": (-TAU, TAU),
    "arm_lift": (-1.2, 3.2),
    "arm_twist": (-1.8, 1.8),
    "elbow": (0.0, 2.7),
    "leg_swing": (-1.3, 2.3),
    "leg_lift": (-0.6, 1.6),
    "leg_twist": (-1.3, 1.0),
    "knee": (0.0, 2.7),
    "foot": (-0.9, 0.9),  # positive points the toes downwards
}
FREEDOMS = (*BODY_LIMITS, *(f"{name}_{side}" for name in LIMB_LIMITS for side in SIDES))
LIMITS = {**BODY_LIMITS, **{f"{name}_{side}": low_high for name, low_high in LIMB_LIMITS.items() for side in SIDES}}

Value = np.ndarray | float
Pair = tuple[Value, Value] | Value  # left and right, or the same for both


@dataclass(frozen=True)
class Pose:
    """The freedoms of one figure; every field is a number or an array (N,), a limb's also a pair (left, right)."""

    yaw: Value = 0.0
    pitch: Value = 0.0
    roll: Value = 0.0
    up: Value = 0.0
    ahead: Value = 0.0
    aside: Value = 0.0
    spine_swing: Value = 0.0
    spine_lift: Value = 0.0
    spine_twist: Value = 0.0
    head_swing: Value = 0.0
    head_turn: Value = 0.0
    prop: Value = 0.0
    arm_swing: Pair = 0.0
    arm_lift: Pair = 0.12
    arm_twist: Pair = 0.0
    elbow: Pair = 0.2
    leg_swing: Pair = 0.0
    leg_lift: Pair = 0.06
    leg_twist: Pair = -0.1
    knee: Pair = 0.05
    foot: Pair = 0.0

    def table(self, num: int) -> np.ndarray:
        """All freedoms as float32 (num, D), in the order of FREEDOMS."""
        columns: list[Value] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in BODY_LIMITS:
                columns.append(value)
            else:
                columns.extend(value if isinstance(value, tuple) else (value, value))
        return np.stack([np.broadcast_to(np.asarray(column, np.float32), num) for column in columns], axis=1)


def wave(phase: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """A sine of the phase in turns, -1 to 1."""
    return np.sin(TAU * (phase + shift))


def pulse(phase: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """0 to 1 and back to 0 smoothly, once a turn."""
    return 0.5 - 0.5 * np.cos(TAU * (phase + shift))


def beat(phase: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """The upper half of a sine: 0 to 1 to 0 in half a turn, then still for the other half."""
    return np.maximum(wave(phase, shift), 0)


def keys(phase: np.ndarray, *points: tuple[float, float]) -> np.ndarray:
    """Values eased from one of the `points` (phase, value) to the next; before and after them still."""
    times, values = np.array(points, float).T
    k = np.clip(np.searchsorted(times, phase, side="right") - 1, 0, len(times) - 2)
    part = np.clip((phase - times[k]) / (times[k + 1] - times[k]), 0, 1)
    return values[k] + (values[k + 1] - values[k]) * part * part * (3 - 2 * part)


def alternate(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`value` for the left and its negative for the right."""
    return value, -value
