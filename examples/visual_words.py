"""Visual words: the local descriptors of cells, each counted as the nearest of a vocabulary.

A clip's histogram of words is the bag of words of Laptev et al. 2008, with cells on a grid and words found in rendered
clips. As a target it asks for more than the descriptors themselves: which values go together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from local_descriptors import GROUPS, NUM_DESCRIPTORS
from torch import Generator, Tensor, nn

__all__ = ["Vocabulary", "k_means"]

# Vocabularies: the descriptors that they quantise, and their share of the words.
PARTS = {
    "colour": (GROUPS["colour"], 0.2),
    "form": (slice(GROUPS["appearance"].start, GROUPS["motion"].stop), 0.8),  # edges and motion
}


def k_means(rows: Tensor, num: int, generator: Generator, rounds: int = 20) -> Tensor:
    """`num` centres (num, D) of rows (M, D) by Lloyd's rounds from random rows; a centre that loses all stays."""
    centres = rows[torch.randint(len(rows), (num,), generator=generator).to(rows.device)].clone()
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(part, centres).argmin(1) for part in rows.split(4096)])
        counts = torch.bincount(nearest, minlength=num)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        kept = counts > 0
        centres[kept] = sums[kept] / counts[kept, None]
    return centres


class Vocabulary(nn.Module):
    """`num_words` words in all, in PARTS' shares; nothing in it is learned by gradients."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.sizes = {name: max(2, round(share * num_words)) for name, (_, share) in PARTS.items()}
        self.register_buffer("mean", torch.zeros(NUM_DESCRIPTORS))
        self.register_buffer("scale", torch.ones(NUM_DESCRIPTORS))
        for name, (which, _) in PARTS.items():
            self.register_buffer(f"words_{name}", torch.zeros(self.sizes[name], which.stop - which.start))
            self.register_buffer(f"shares_{name}", torch.zeros(self.sizes[name]))

    @property
    def num_words(self) -> int:
        return sum(self.sizes.values())

    def fit(self, rows: Tensor, generator: Generator) -> None:
        """Find the words in local descriptors (M, 147)."""
        self.mean.copy_(rows.mean(0))
        self.scale.copy_(1 / (rows.std(0) + 1e-3))
        standard = (rows - self.mean) * self.scale
        for name, (which, _) in PARTS.items():
            words = k_means(standard[:, which], self.sizes[name], generator)
            getattr(self, f"words_{name}").copy_(words)
            nearest = torch.cat([torch.cdist(part, words).argmin(1) for part in standard[:, which].split(4096)])
            shares = torch.bincount(nearest, minlength=self.sizes[name]) / len(rows)
            getattr(self, f"shares_{name}").copy_(shares)

    def forward(self, descriptors: Tensor) -> dict[str, Tensor]:
        """The number of every cell's word: (N, 147, h, w) -> {part: int64 (N, h, w)}."""
        rows = (descriptors.permute(0, 2, 3, 1) - self.mean) * self.scale  # (N, h, w, 147)
        return {
            name: torch.cdist(rows[..., which].flatten(0, 2), getattr(self, f"words_{name}"))
            .argmin(1)
            .view(rows.shape[:3])
            for name, (which, _) in PARTS.items()
        }

    def unexplained(self, guesses: Tensor, words: dict[str, Tensor]) -> Tensor:
        """How much of which word stands in a cell the guesses (N, h, w, num_words) leave open: 1 by shares alone, 0 none.

        The squared error of 1 for the word and 0 for the others, by its variance, averaged over the parts.
        """
        total, first = guesses.new_zeros(()), 0
        for name, size in self.sizes.items():
            one_hot = F.one_hot(words[name], size).to(guesses.dtype)
            shares = getattr(self, f"shares_{name}")
            wrong = (guesses[..., first : first + size] + shares - one_hot).square().sum(-1).mean()
            total = total + wrong / (1 - shares.square().sum())
            first += size
        return total / len(self.sizes)
