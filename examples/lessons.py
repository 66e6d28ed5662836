"""What teaches the small network: linear heads on its last maps, and how wrong they are.

labels        what the renderer knows: action, playback and its speed, directions and speeds of camera, people and
              things, zoom in and out, textures, limbs
descriptors   what is computed by hand in every cell (local_descriptors.py): colours, edges, motion, and which visual
              word they are (visual_words.py); and the uniformity of pool5's directions (Wang and Isola 2020), which
              spreads what a linear SVM will compare
parts         in every quarter of a cell, whether hands, elbows, knees, ankles, hips or heads are there, and which
              way they go (rendering/parts.py)

Where a run has photographs of its own, labels say too which of them is there: a whole one behind, a cut-out thing in front.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from local_descriptors import NUM_DESCRIPTORS, local_descriptors
from mini_net import MEAN, STD, activations, to_input
from rendering.parts import PARTS
from rendering.scene import REACH_DIMS, Batch
from simple_figures import LABELS
from torch import Tensor, nn
from visual_words import Vocabulary

from featx.backbones.res3d import Res3D

__all__ = [
    "CALM_SHARE",
    "HELD_OUT",
    "RECIPES",
    "SIZES",
    "TRAINING",
    "WORDS",
    "Heads",
    "accuracies",
    "losses",
    "part_losses",
]

SIZES = (64, 96, 112)  # in pixels, of the clips in the three parts of a run
CALM_SHARE = 0.2  # of the clips with people: what the calm ones fall to
TRAINING, HELD_OUT, WORDS = 0, 1, 2  # a part of every batch's seed, so that no two share a person or a place

PART_SHARE = 0.03  # about the mean of a presence at 112 pixels; what the head of parts begins with
PART_COST, MOTION_SIZE = 0.12, 1.8  # about what presences and motions cost then: the scales of their losses

DESCRIPTOR_WEIGHTS = {"cells": 1.0, "pooled": 1.0, "words": 1.0, "uniformity": 0.3}
LABEL_WEIGHTS = {name: 0.25 for name in LABELS} | {"motion": 1.0, "action": 1.0, "reach": 4.0}
LABEL_WEIGHTS |= {"cutout": 1.0, "photograph": 0.5}
PART_WEIGHTS = {"parts": 2.0, "part_motions": 1.0}
RECIPES = {
    "labels": LABEL_WEIGHTS,
    "descriptors": DESCRIPTOR_WEIGHTS,
    "both": LABEL_WEIGHTS | DESCRIPTOR_WEIGHTS,
    "all": LABEL_WEIGHTS | DESCRIPTOR_WEIGHTS | PART_WEIGHTS,
}


class Heads(nn.Module):
    """Linear heads beside the network's own, and the vocabulary of one of them, for training only.

    `exemplars` are the numbers of classes of those labels that depend on a run's photographs.
    """

    def __init__(self, dims: int, num_words: int, exemplars: dict[str, int]) -> None:
        super().__init__()
        sizes = {name: len(classes) for name, classes in LABELS.items() if name != "motion"} | exemplars
        self.labels = nn.ModuleDict({name: nn.Linear(dims, size) for name, size in sizes.items()})
        self.reach = nn.Linear(dims, REACH_DIMS)
        self.descriptors = nn.Linear(dims, NUM_DESCRIPTORS)
        self.vocabulary = Vocabulary(num_words)
        self.words = nn.Linear(dims, self.vocabulary.num_words)
        self.parts = nn.Linear(dims, 4 * len(PARTS))  # of the four quarters of a cell of res5b
        self.part_motions = nn.Linear(dims, 4 * len(PARTS) * 2)
        nn.init.constant_(self.parts.bias, math.log(PART_SHARE / (1 - PART_SHARE)))
        for head in (self.words, self.descriptors, self.parts, self.part_motions):
            nn.init.zeros_(head.weight)  # random guesses cost many times what none does, and would lead the first steps
        self.standard = nn.BatchNorm2d(NUM_DESCRIPTORS, affine=False)  # what is learned has mean 0 and variance 1


def scores(net: Res3D, heads: Heads, pooled: Tensor) -> dict[str, Tensor]:
    """The class scores of every label from pool5."""
    return {"motion": net.fc8(pooled)} | {name: head(pooled) for name, head in heads.labels.items()}


def losses(net: Res3D, heads: Heads, batch: Batch, bf16: bool = False) -> dict[str, Tensor]:
    """Every loss by its name in RECIPES; a label that a clip does not have (-1) is left out."""
    inputs = to_input(batch.clips)
    with torch.no_grad():
        descriptors = local_descriptors((inputs * STD + MEAN) / 255)  # (N, 147, h / 16, w / 16)
        targets, words = heads.standard(descriptors), heads.vocabulary(descriptors)
    maps, pooled = activations(net, inputs.contiguous(memory_format=torch.channels_last_3d), bf16)
    found = {
        name: F.cross_entropy(score, batch.labels[name], ignore_index=-1, reduction="sum") / len(pooled)
        for name, score in scores(net, heads, pooled).items()
    }
    wrong = (heads.reach(pooled) - batch.reach).square().mean(1)
    found["reach"] = (wrong * batch.has_reach).mean()
    found |= part_losses(heads, maps, batch)
    cells = maps.mean(2).permute(0, 2, 3, 1)  # (N, D, T, h, w) -> (N, h, w, D)
    found["cells"] = F.mse_loss(heads.descriptors(cells).permute(0, 3, 1, 2), targets)
    found["words"] = heads.vocabulary.unexplained(heads.words(cells), words)
    means = targets.mean((2, 3))
    spread = means.var(0).mean().clamp(min=0.05)  # means of cells vary less than cells
    found["pooled"] = F.mse_loss(heads.descriptors(pooled), means) / spread
    found["uniformity"] = torch.pdist(F.normalize(pooled)).square().mul(-2).exp().mean().log()
    return found


def part_losses(heads: Heads, maps: Tensor, batch: Batch) -> dict[str, Tensor]:
    """How wrong res5b (N, D, T, h, w) is about where limbs are and, where they are, how they move.

    Both begin near 1 at 112 pixels; at 64, whose cells hold more, at 2 and 0.7.
    """
    halves = maps.permute(0, 2, 3, 4, 1).flatten(0, 1)  # (N, D, T, h, w) -> (N * T, h, w, D)

    def fine(head: nn.Linear) -> Tensor:
        return F.pixel_shuffle(head(halves).permute(0, 3, 1, 2), 2)  # (N * T, 4 * C, h, w) -> (N * T, C, 2h, 2w)

    present = batch.parts.flatten(0, 1)  # (N, T, P, 2h, 2w) -> (N * T, P, 2h, 2w)
    wrong = F.binary_cross_entropy_with_logits(fine(heads.parts), present)
    motions = batch.motions.flatten(0, 1).flatten(1, 2)  # (N * T, P * 2, 2h, 2w)
    error = (fine(heads.part_motions) - motions).unflatten(1, (-1, 2)).square().mean(2)
    moved = (error * present).sum() / present.sum().clamp(min=1)
    return {"parts": wrong / PART_COST, "part_motions": moved / MOTION_SIZE}


@torch.no_grad()
def accuracies(net: Res3D, heads: Heads, batches: list[Batch]) -> dict[str, float]:
    """The share of right answers to every label over the clips that have it, with the network in eval mode."""
    net.eval()
    right, total = ({name: 0 for name in ("motion", *heads.labels)} for _ in range(2))
    for batch in batches:
        _, pooled = activations(net, to_input(batch.clips))
        for name, score in scores(net, heads, pooled).items():
            known = batch.labels[name] >= 0
            right[name] += int(((score.argmax(1) == batch.labels[name]) & known).sum())
            total[name] += int(known.sum())
    net.train()
    return {name: right[name] / max(total[name], 1) for name in right}
