"""Batches of simple figures: the people of render_actions.py, who walk, wave or punch before still or moving pictures.

Their fourteen motions come in pairs that share all poses and differ by direction, order, rhythm or speed alone, so that only
the order of frames tells them. They are learned long before the actions of rendering/, and are the network's own classes.
"""

from __future__ import annotations

import numpy as np
import torch
from render_actions import render_clip
from rendering.scene import LABELS, MOTIONS, NUM_FRAMES, REACH_DIMS, Batch

__all__ = ["figures_batch", "joined"]

FRAME_STEP = 2
SPAN = (NUM_FRAMES - 1) * FRAME_STEP + 1


def figures_batch(seeds: tuple[int, int], number: int, size: int, side: int, ease: float) -> Batch:
    """`size` clips of `side` x `side` pixels, calm with probability `ease`."""
    clips, motions, reach = [], [], []
    for row in range(size):
        index = number * size + row
        rng = np.random.default_rng((*seeds, index, 0))
        motion = index % len(MOTIONS)
        num_frames = int(rng.integers(SPAN + 1, 29))
        frames = int(rng.integers(0, num_frames - SPAN + 1)) + np.arange(NUM_FRAMES) * FRAME_STEP
        height, width = round(side * 128 / 112), round(side * 171 / 112)
        group, own = (*seeds, index, 1), (*seeds, index, 2)
        clip = render_clip(
            MOTIONS[motion], group, own, frames, num_frames, height, width, calm=bool(rng.uniform() < ease)
        )
        top, left = (height - side) // 2, (width - side) // 2
        pixels = clip.frames[:, top : top + side, left : left + side, ::-1]  # RGB -> BGR
        clips.append(torch.from_numpy(np.ascontiguousarray(pixels)))
        motions.append(motion)
        reach.append(torch.from_numpy(clip.reach[[0, NUM_FRAMES // 2, -1]].reshape(REACH_DIMS)))
    labels = {name: torch.full((size,), -1) for name in LABELS}
    labels["motion"] = torch.tensor(motions)
    return Batch(torch.stack(clips), labels, torch.stack(reach), torch.ones(size))


def joined(first: Batch, second: Batch) -> Batch:
    """Two batches as one, on the first one's device."""
    device = first.clips.device
    return Batch(
        torch.cat([first.clips, second.clips.to(device)]),
        {name: torch.cat([values, second.labels[name].to(device)]) for name, values in first.labels.items()},
        torch.cat([first.reach, second.reach.to(device)]),
        torch.cat([first.has_reach, second.has_reach.to(device)]),
    )
