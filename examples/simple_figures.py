"""Batches of simple figures: the people of render_actions.py, who walk, wave or punch before still or moving pictures.

Their fourteen motions come in pairs that share all poses and differ by direction, order, rhythm or speed alone, so that only
the order of frames tells them. They are learned long before the actions of rendering/, and are the network's own classes.
"""

from __future__ import annotations

import numpy as np
import torch
from action_programs import ACTIONS
from render_actions import render_clip
from rendering import scene
from rendering.aspect import draw_filmed_size, shown
from rendering.parts import PARTS, part_maps
from rendering.scene import NUM_FRAMES, REACH_DIMS, Batch
from torch import Tensor

__all__ = ["LABELS", "figures_batch", "joined"]

MOTIONS = tuple(ACTIONS)
LABELS: dict[str, tuple[str, ...]] = {"motion": MOTIONS} | scene.LABELS  # of scenes and figures together

FRAME_STEP = 2
SPAN = (NUM_FRAMES - 1) * FRAME_STEP + 1  # frames from a clip's first to its last
_PARTS_OF = {"hand": "hand", "elbow": "elbow", "foot": "ankle", "knee": "knee"}
_JOINTS = ("hips", "head", *(f"{side}_{name}" for side in ("near", "far") for name in _PARTS_OF))
_PART_OF = torch.tensor([PARTS.index(_PARTS_OF.get(name.split("_")[-1], name)) for name in _JOINTS])


def figures_batch(seeds: tuple[int, int], number: int, size: int, side: int, ease: float) -> Batch:
    """`size` clips of `side` x `side` pixels, filmed in one shape, calm with probability `ease`; their label is "motion"."""
    draw = torch.Generator().manual_seed(int(np.random.default_rng((*seeds, number, 3)).integers(1 << 62)))
    filmed_height, filmed_width = draw_filmed_size(draw, side)
    clips, motions, reach, points = [], [], [], []
    for row in range(size):
        index = number * size + row
        rng = np.random.default_rng((*seeds, index, 0))
        motion = index % len(MOTIONS)
        num_frames = int(rng.integers(SPAN + 1, 29))
        frames = int(rng.integers(0, num_frames - SPAN + 1)) + np.arange(NUM_FRAMES) * FRAME_STEP
        height, width = round(filmed_height * 128 / 112), round(filmed_width * 171 / 112)
        group, own = (*seeds, index, 1), (*seeds, index, 2)
        clip = render_clip(
            MOTIONS[motion], group, own, frames, num_frames, height, width, calm=bool(rng.uniform() < ease)
        )
        top, left = (height - filmed_height) // 2, (width - filmed_width) // 2
        pixels = clip.frames[:, top : top + filmed_height, left : left + filmed_width, ::-1]  # RGB -> BGR
        clips.append(torch.from_numpy(np.ascontiguousarray(pixels)))
        motions.append(motion)
        points.append(np.stack([clip.joints[name] for name in _JOINTS], 1) - [top, left])
        reach.append(torch.from_numpy(clip.reach[[0, NUM_FRAMES // 2, -1]].reshape(REACH_DIMS)))
    labels = {"motion": torch.tensor(motions)}
    places = torch.from_numpy(np.stack(points) / [filmed_height, filmed_width]).float()  # (N, T, K, 2)
    maps = part_maps(places, _PART_OF, torch.arange(size), size, side, side)
    return Batch(shown(torch.stack(clips), side), labels, torch.stack(reach), torch.ones(size), *maps)


def joined(first: Batch, second: Batch) -> Batch:
    """Two batches as one, on the first one's device; a label that only one of them has is -1 in the other."""
    device = first.clips.device

    def label(batch: Batch, name: str) -> Tensor:
        return batch.labels.get(name, torch.full((len(batch.clips),), -1)).to(device)

    return Batch(
        torch.cat([first.clips, second.clips.to(device)]),
        {name: torch.cat([label(first, name), label(second, name)]) for name in first.labels | second.labels},
        *(
            torch.cat([getattr(first, name), getattr(second, name).to(device)])
            for name in ("reach", "has_reach", "parts", "motions")
        ),
    )
