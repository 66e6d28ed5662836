"""Where people's limbs are and how they move, as maps of cells: what teaches every place of a network about bodies.

Labels of whole clips say little about where to look; these maps say it of every cell, so that bodies are learned long
before actions. Left and right, near and far are one: a small picture hardly tells them.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CELL", "HALVES", "PARTS", "part_maps"]

PARTS = ("hand", "elbow", "ankle", "knee", "hips", "head")
CELL = 8  # pixels along a side
HALVES = 2  # of a clip's frames; each has its own maps
SPREAD = 0.7  # standard deviation of a part's presence, in cells


def part_maps(points: Tensor, part: Tensor, clip: Tensor, num: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Presence (N, HALVES, P, h, w), 0 to 1, and motion (N, HALVES, P, 2, h, w) of PARTS in `num` clips.

    `points` (Q, T, K, 2) are places (y, x) in picture heights from the top left corner of Q people in clips `clip`
    int64 (Q,); `part` int64 (K,) says which of PARTS each is. h = height / CELL, w likewise. A cell's presence is 1 where
    in any frame of the half a part is in its middle, and falls like a Gaussian; its motion is the way (y, x), in eighths
    of the picture's height, that the parts there go from the half's first frame to its last, weighted by presence.
    """
    device = points.device
    rows, columns = height // CELL, width // CELL
    people, frames, joints = points.shape[:3]
    points = points.reshape(people, HALVES, frames // HALVES, joints, 2)
    way = (points[:, :, -1] - points[:, :, 0]) * 8  # (Q, HALVES, K, 2)
    y, x = (points * (height / CELL)).unbind(-1)  # in cells
    falls = 0.5 / SPREAD**2
    in_rows = (-falls * (torch.arange(rows, device=device) + 0.5 - y[..., None]).square()).exp()
    in_columns = (-falls * (torch.arange(columns, device=device) + 0.5 - x[..., None]).square()).exp()
    seen = (in_rows[..., :, None] * in_columns[..., None, :]).amax(2)  # (Q, HALVES, f, K, h, w) -> (Q, HALVES, K, h, w)

    cells = torch.zeros(num, len(PARTS), HALVES, rows, columns, device=device)
    total, moved = torch.zeros_like(cells), torch.zeros(num, len(PARTS), HALVES, 2, rows, columns, device=device)
    where = (clip[:, None] * len(PARTS) + part).flatten()  # (Q * K,)
    each = seen.transpose(1, 2).flatten(0, 1)  # (Q * K, HALVES, h, w)
    moves = way.transpose(1, 2).flatten(0, 1)[..., None, None] * each[:, :, None]
    cells.flatten(0, 1).scatter_reduce_(0, where[:, None, None, None].expand_as(each), each, "amax")
    total.flatten(0, 1).index_add_(0, where, each)
    moved.flatten(0, 1).index_add_(0, where, moves)
    motion = moved / total.clamp(min=1e-6)[:, :, :, None]
    return cells.transpose(1, 2), motion.transpose(1, 2)
