"""The actions of rendered people: which pose program runs at which pace, with what in the hands.

Many actions have a partner with the same poses, which differs by direction, order, rhythm or speed alone. All programs
are evaluated once into TABLES, so that the poses of a batch are one look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from . import exercises, handwork, locomotion, sports
from .draws import uniform
from .poses import FREEDOMS, LIMITS, Pose

__all__ = ["ACTIONS", "STEPS", "TABLES", "Action", "Motion", "draw_motion"]

STEPS = 96  # of a turn, in a table of poses


@dataclass(frozen=True)
class Action:
    """A pose program, run through in `period` source frames (lowest, highest); about 25 source frames are a second.

    `reverse` runs it backwards in time; `once`: it has a beginning and an end, before and after which the figure keeps
    still. `travel` is the way of a turn in body heights (ahead, to the right). `hung`: the program's `up` is the height
    of the hips, as of one who sits, swims or hangs; else the lowest joint stands on the ground. `prop` is one of
    props.PROPS.
    """

    program: Callable[[np.ndarray], Pose]
    period: tuple[float, float]
    once: bool = False
    reverse: bool = False
    travel: tuple[float, float] = (0.0, 0.0)
    hung: bool = False
    prop: str = "nothing"

    def __post_init__(self) -> None:
        if not 0 < self.period[0] <= self.period[1]:
            raise ValueError(f"period {self.period}: needs 0 < lowest <= highest")

    def table(self) -> np.ndarray:
        """The poses at STEPS + 1 phases from 0 to 1, in the order of time: float32 (STEPS + 1, D)."""
        poses = self.program(np.linspace(0, 1, STEPS + 1)).table(STEPS + 1)
        return poses[::-1] if self.reverse else poses


_move, _exercise, _hands, _sport = locomotion, exercises, handwork, sports
ACTIONS: dict[str, Action] = {
    "Walk": Action(_move.walk, (22, 34), travel=(0.75, 0)),
    "WalkBackwards": Action(_move.walk, (22, 34), travel=(-0.6, 0), reverse=True),
    "Run": Action(_move.run, (14, 20), travel=(1.3, 0)),
    "Jog": Action(_move.run, (22, 30), travel=(0.9, 0)),
    "March": Action(_move.march, (18, 34), travel=(0.3, 0)),
    "Skip": Action(_move.skip, (18, 28), travel=(0.8, 0)),
    "Hop": Action(_move.hop, (10, 18), travel=(0.25, 0)),
    "Jump": Action(_move.jump, (22, 34)),
    "LongJump": Action(_move.long_jump, (24, 36), once=True),
    "JumpingJack": Action(_exercise.jumping_jack, (18, 30)),
    "RopeJump": Action(_move.rope_jump, (9, 15), prop="rope"),
    "Squat": Action(_exercise.squat, (32, 60)),
    "Lunge": Action(_exercise.lunge, (32, 60)),
    "Crouch": Action(_exercise.crouch, (14, 26), once=True),
    "Rise": Action(_exercise.crouch, (14, 26), once=True, reverse=True),
    "SitDown": Action(_exercise.sit_down, (18, 32), once=True, prop="seat"),
    "StandUp": Action(_exercise.sit_down, (18, 32), once=True, reverse=True, prop="seat"),
    "Bow": Action(_exercise.bow, (16, 30), once=True),
    "Straighten": Action(_exercise.bow, (16, 30), once=True, reverse=True),
    "PickUp": Action(_exercise.pick_up, (24, 40), once=True, prop="box"),
    "PutDown": Action(_exercise.pick_up, (24, 40), once=True, reverse=True, prop="box"),
    "PushUp": Action(_exercise.push_up, (26, 44)),
    "Plank": Action(_exercise.plank, (50, 90)),
    "SitUp": Action(_exercise.sit_up, (30, 54)),
    "LegRaise": Action(_exercise.leg_raise, (30, 54)),
    "Burpee": Action(_exercise.burpee, (50, 80)),
    "CartwheelRight": Action(_exercise.cartwheel, (24, 40), travel=(0, 1.5)),
    "CartwheelLeft": Action(_exercise.cartwheel, (24, 40), travel=(0, -1.5), reverse=True),
    "RollForwards": Action(_exercise.forward_roll, (26, 44), travel=(0.9, 0)),
    "RollBackwards": Action(_exercise.forward_roll, (26, 44), travel=(-0.9, 0), reverse=True),
    "Handstand": Action(_exercise.handstand, (40, 80)),
    "SpinLeft": Action(_move.spin, (14, 40)),
    "SpinRight": Action(_move.spin, (14, 40), reverse=True),
    "Dance": Action(_move.dance, (24, 44)),
    "Crawl": Action(_move.crawl, (26, 44), travel=(0.5, 0)),
    "CrawlBackwards": Action(_move.crawl, (26, 44), travel=(-0.5, 0), reverse=True),
    "ClimbUp": Action(_move.climb, (28, 50), hung=True, prop="rungs"),
    "ClimbDown": Action(_move.climb, (28, 50), hung=True, reverse=True, prop="rungs"),
    "PullUp": Action(_exercise.pull_up, (32, 60), hung=True, prop="bar"),
    "Trot": Action(_move.ride, (16, 24), hung=True, travel=(0.8, 0), prop="horse"),
    "Gallop": Action(_move.ride, (9, 14), hung=True, travel=(1.3, 0), prop="horse"),
    "PedalForwards": Action(_move.pedal, (14, 26), hung=True, travel=(1.0, 0), reverse=True, prop="bicycle"),
    "PedalBackwards": Action(_move.pedal, (14, 26), hung=True, prop="bicycle"),
    "SwimFront": Action(_move.crawl_stroke, (26, 42), hung=True, travel=(0.6, 0)),
    "SwimBack": Action(_move.crawl_stroke, (26, 42), hung=True, travel=(-0.5, 0), reverse=True),
    "BreastStroke": Action(_move.breast_stroke, (28, 46), hung=True, travel=(0.6, 0)),
    "Skate": Action(_move.skate, (28, 48), travel=(1.5, 0)),
    "SlideLeft": Action(_move.slide, (12, 20), travel=(0, -0.5)),
    "SlideRight": Action(_move.slide, (12, 20), travel=(0, 0.5), reverse=True),
    "Stand": Action(_hands.stand, (60, 140)),
    "Talk": Action(_hands.talk, (40, 80)),
    "Wave": Action(_hands.wave_hand, (9, 15)),
    "SlowWave": Action(_hands.wave_hand, (28, 46)),
    "WaveBoth": Action(_hands.wave_both, (16, 30)),
    "Flap": Action(_hands.flap, (12, 30)),
    "Clap": Action(_hands.clap, (7, 13)),
    "SlowClap": Action(_hands.clap, (22, 36)),
    "ClapHigh": Action(_hands.clap_high, (12, 24)),
    "ArmCirclesForwards": Action(_hands.arm_circles, (18, 32), reverse=True),
    "ArmCirclesBackwards": Action(_hands.arm_circles, (18, 32)),
    "SideCircles": Action(_hands.side_circles, (14, 30)),
    "SideBend": Action(_hands.side_bend, (36, 60)),
    "TrunkTwist": Action(_hands.trunk_twist, (22, 44)),
    "LiftWeight": Action(_hands.lift_weight, (34, 60), once=True, prop="barbell"),
    "LowerWeight": Action(_hands.lift_weight, (34, 60), once=True, reverse=True, prop="barbell"),
    "Press": Action(_hands.press, (30, 54), prop="barbell"),
    "Curl": Action(_hands.curl, (28, 50), prop="barbell"),
    "Row": Action(_hands.row, (32, 56), hung=True, prop="oars"),
    "PlayPiano": Action(_hands.play_piano, (26, 50), hung=True, prop="table"),
    "Drum": Action(_hands.drum, (8, 18), hung=True, prop="drums"),
    "Strum": Action(_hands.strum, (7, 16), prop="guitar"),
    "Fiddle": Action(_hands.fiddle, (16, 40), prop="wand"),
    "Hammer": Action(_hands.hammer, (12, 22), prop="hammer"),
    "SlowHammer": Action(_hands.hammer, (30, 46), prop="hammer"),
    "Saw": Action(_hands.saw, (14, 28), prop="wand"),
    "Dig": Action(_hands.dig, (34, 56), prop="pole"),
    "Sweep": Action(_hands.sweep, (26, 46), prop="pole"),
    "Wipe": Action(_hands.wipe, (16, 34)),
    "Brush": Action(_hands.brush, (5, 10)),
    "Drink": Action(_hands.drink, (22, 40), once=True, prop="cup"),
    "SetDown": Action(_hands.drink, (22, 40), once=True, reverse=True, prop="cup"),
    "Cut": Action(_hands.cut, (8, 16), prop="table"),
    "Stir": Action(_hands.stir, (16, 32), prop="table"),
    "Push": Action(_hands.push, (26, 44), travel=(0.5, 0), prop="box"),
    "Punch": Action(_sport.punch, (12, 20)),
    "Pull": Action(_sport.punch, (12, 20), reverse=True),
    "Box": Action(_sport.box, (8, 18)),
    "Uppercut": Action(_sport.uppercut, (14, 24)),
    "KickFront": Action(_sport.kick_front, (18, 32)),
    "KickSide": Action(_sport.kick_side, (20, 34)),
    "KickBall": Action(_sport.kick_ball, (16, 28), once=True, prop="foot ball"),
    "ThrowOver": Action(_sport.throw_over, (16, 28), once=True, prop="thrown ball"),
    "ThrowUnder": Action(_sport.throw_under, (20, 34), once=True, prop="rolled ball"),
    "Catch": Action(_sport.catch, (14, 24), once=True, prop="passed ball"),
    "Dribble": Action(_sport.dribble, (10, 18), prop="bounced ball"),
    "Shoot": Action(_sport.shoot, (24, 38), once=True, prop="shot ball"),
    "ChestPass": Action(_sport.chest_pass, (16, 28), once=True, prop="passed ball"),
    "Volley": Action(_sport.volley, (18, 32), prop="shot ball"),
    "DrawBow": Action(_sport.draw_bow, (20, 40), once=True, prop="bow"),
    "ReleaseBow": Action(_sport.draw_bow, (20, 40), once=True, reverse=True, prop="bow"),
    "Golf": Action(_sport.golf, (24, 40), once=True, prop="club"),
    "Bat": Action(_sport.bat, (16, 28), once=True, prop="club"),
    "Forehand": Action(_sport.forehand, (16, 28), once=True, prop="racket"),
    "Serve": Action(_sport.serve, (24, 40), once=True, prop="racket"),
    "Fence": Action(_sport.fence, (16, 30), prop="wand"),
    "Javelin": Action(_sport.javelin, (20, 34), once=True, prop="spear"),
}

TABLES = torch.from_numpy(np.stack([action.table() for action in ACTIONS.values()]))  # (A, STEPS + 1, D)
_LOW, _HIGH = torch.tensor([LIMITS[name] for name in FREEDOMS]).T
_MEANS = TABLES.mean(dim=1)
# Whole turns must stay whole: what ends elsewhere than it began, in a program that repeats, is not exaggerated.
_WHOLE = ((TABLES[:, 0] - TABLES[:, -1]).abs() > 1e-3) & ~torch.tensor([[a.once] for a in ACTIONS.values()])
_BODY = torch.tensor([name in ("yaw", "pitch", "roll", "up", "ahead", "aside", "prop") for name in FREEDOMS])
_PERIODS = torch.tensor([action.period for action in ACTIONS.values()], dtype=torch.float32)
_TRAVELS = torch.tensor([action.travel for action in ACTIONS.values()], dtype=torch.float32)
_REVERSE = torch.tensor([action.reverse for action in ACTIONS.values()])
_ONCE = torch.tensor([action.once for action in ACTIONS.values()])


@dataclass(frozen=True)
class Motion:
    """The poses of Q people over T frames: freedoms (Q, T, D), way (Q, T, 2) ahead and to the right in body heights,
    turns a source frame `pace` (Q,) and the program's phase (Q, T) in turns, falling where it runs backwards."""

    freedoms: Tensor
    way: Tensor
    pace: Tensor
    phase: Tensor


def poses_at(action: Tensor, phase: Tensor) -> Tensor:
    """The freedoms (Q, T, D) of actions (Q,) at phases (Q, T) in turns of time, interpolated in TABLES."""
    once = _ONCE[action][:, None]
    turn = torch.where(once, phase.clamp(0, 1), phase - phase.floor()) * STEPS
    low = turn.floor().clamp_(max=STEPS - 1)
    index, rows = low.long(), action[:, None]
    return torch.lerp(TABLES[rows, index], TABLES[rows, index + 1], (turn - low)[..., None])


def draw_motion(generator: Generator, action: Tensor, times: Tensor) -> Motion:
    """Everyone's own style and pace for actions (Q,) at times (Q, T) in source frames.

    What is done once happens about the middle of the times, so that some of it is seen; the way is 0 there.
    """
    num = len(action)
    period = torch.lerp(*_PERIODS[action].unbind(1), torch.rand(num, generator=generator))
    pace, start = 1 / period, torch.rand(num, generator=generator)
    middle = (times.amin(1) + times.amax(1)) / 2
    turns = (times - middle[:, None]) * pace[:, None]
    phase = turns + torch.where(_ONCE[action], 0.2 + 0.6 * start, start)[:, None]
    freedoms = poses_at(action, phase)
    means = _MEANS[action][:, None]
    amplitude = uniform(generator, (num, 1, len(FREEDOMS)), 0.8, 1.2)
    amplitude *= uniform(generator, (num, 1, 1), 0.8, 1.2)
    amplitude = amplitude.masked_fill(_WHOLE[action][:, None], 1.0)
    offset = 0.07 * torch.randn(num, 1, len(FREEDOMS), generator=generator)
    plain = _BODY.expand(num, 1, -1)
    freedoms = torch.where(
        plain, freedoms, torch.lerp(means.expand_as(freedoms), freedoms, amplitude.expand_as(freedoms)) + offset
    )
    freedoms = torch.minimum(torch.maximum(freedoms, _LOW), _HIGH)
    stride = _TRAVELS[action] * uniform(generator, (num, 1), 0.7, 1.2)
    phase = torch.where(_REVERSE[action][:, None], -phase, phase)
    return Motion(freedoms, turns[..., None] * stride[:, None], pace, phase)
