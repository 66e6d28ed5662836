"""Two files of one net, tensor by tensor: are the kernels of one those of the other, turned in time or in colour?

Ports of C3D were made by several hands. A kernel taken over from a program that computes true convolutions runs backwards,
and one for RGB has its first and last plane exchanged against one for BGR; both load and give plausible features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from featx.catalog import Checkpoint
from featx.checkpoints import fit
from featx.checkpoints.files import without_counters

__all__ = ["Comparison", "compare"]

EQUAL, DIFFERENT = "equal", "different"
# of a kernel (out, in, kD, kH, kW): in words, and the dimensions that are turned round
TURNS = {
    "backwards in time": (2,),
    "red and blue exchanged": (1,),
    "red and blue exchanged, backwards in time": (1, 2),
    "backwards in time and upside down": (2, 3, 4),
    "red and blue exchanged, backwards in time and upside down": (1, 2, 3, 4),
}
TOLERANCE = 1e-6  # of the largest value: what a trip through another program may change


@dataclass(frozen=True)
class Comparison:
    """`relations` maps every tensor, in featx's name, to "equal", a key of TURNS, "different" or "only in <file>"."""

    relations: dict[str, str]

    @property
    def is_equal(self) -> bool:
        return set(self.relations.values()) == {EQUAL}

    def groups(self) -> dict[str, list[str]]:
        """Relation -> names of the tensors that stand in it."""
        result: dict[str, list[str]] = {}
        for name, relation in self.relations.items():
            result.setdefault(relation, []).append(name)
        return result

    def conclusion(self) -> str:
        """The comparison in a sentence."""
        found = set(self.relations.values()) - {EQUAL}
        turned = found & TURNS.keys()
        if not found:
            return "the two files hold the same weights"
        if DIFFERENT in found:
            return "the two files hold different weights"
        if turned:
            return f"the same weights, but kernels are turned ({'; '.join(sorted(turned))}): only one of the files is right"
        return "the same weights as far as both files have them"


def compare(card: Checkpoint, first: str | Path, second: str | Path) -> Comparison:
    """Compare the weights of two files of a card, whatever their forms and names; raises CheckpointError as `load` does."""
    states = [without_counters(fit(card, Path(path))[0].state_dict()) for path in (first, second)]
    return Comparison(dict(_relations(*states, Path(first).name, Path(second).name)))


def _relations(a: dict[str, Tensor], b: dict[str, Tensor], name_a: str, name_b: str) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            yield name, f"only in {name_a if name in a else name_b}"
        else:
            yield name, _relation(a[name], b[name])


def _relation(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape:
        return DIFFERENT
    if _close(a, b):
        return EQUAL
    if a.ndim == 5:
        for words, dims in TURNS.items():
            if (1 not in dims or a.shape[1] == 3) and _close(a, b.flip(dims)):
                return words
    return DIFFERENT


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.dist(a, b, float("inf")) <= TOLERANCE * a.abs().max())
