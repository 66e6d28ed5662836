"""In which numbers a network computes, and how far that may lead from float32.

    fp32   float32 throughout; a GPU's TF32 is switched off, which PyTorch's convolutions would use unasked
    tf32   float32 whose products a GPU forms from 10 bits of each factor
    bf16   weights and activations of 8 bits and float32's range; sums in float32
    fp16   weights and activations of 11 bits up to 65,504; sums in float32

"auto" is fp32 on the CPU. On a GPU it is the fastest whose clip features agree with fp32's to 1 - cos <= AUTO_AGREEMENT on the
first batch of the run's own clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from featx.errors import UnknownNameError, UsageError

__all__ = [
    "ASKED_AGREEMENT",
    "AUTO_AGREEMENT",
    "DTYPES",
    "PRECISIONS",
    "Tried",
    "agreement",
    "arithmetic",
    "check_precision",
    "choose",
    "unavailable_precision",
]

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ON_CPU = ("auto", "fp32", "bf16")

AUTO_AGREEMENT = 1e-5
# 1 - cos beyond which a precision that was asked for is not what runs, but something broken
ASKED_AGREEMENT = {"fp32": 1e-6, "tf32": 1e-4, "bf16": 1e-2, "fp16": 1e-3}

# fp16 is taken unasked only where the largest activation of the first batch is so far below its limit: other clips have larger
HEADROOM = 16
FP16_LIMIT = torch.finfo(torch.float16).max

NEAR = 0.05  # where two are as fast as this, noise decides which is faster, and the better numbers are taken


def check_precision(name: str, device_type: str) -> None:
    """Raise UnknownNameError or UsageError for a precision that a "cpu" or "cuda" device has not."""
    if name not in PRECISIONS:
        raise UnknownNameError("precision", name, PRECISIONS)
    reason = unavailable_precision(name, device_type)
    if reason:
        raise UsageError(
            f"precision '{name}' was asked for, or the output was begun with it, but {reason}; the CPU has "
            f"{' and '.join(ON_CPU[1:])}"
        )


def unavailable_precision(name: str, device_type: str) -> str:
    """Why a "cpu" or "cuda" device has no precision `name`, in one line; "" where it has."""
    return f"{name} needs a GPU" if device_type == "cpu" and name not in ON_CPU else ""


# ------------------------------------------------------------------------------------------------ PyTorch's own switches


@contextmanager
def arithmetic(precision: str, search: bool = False) -> Iterator[None]:
    """Within, float32 products are formed as `precision` says, and cuDNN's convolutions give equal bits for equal clips.

    `search`: cuDNN times its algorithms for each new shape instead of choosing by rule. What was set before is set again
    afterwards.

    PyTorch remembers, a thread, what was chosen for a shape, whether by rule or by search, and would choose no more. TF32
    is a part of what it is remembered by, and means nothing to 16-bit numbers: there a search lets convolutions have it.
    """
    cudnn = torch.backends.cudnn
    before = (cudnn.benchmark, cudnn.deterministic)
    tf32_before = _tf32_switches()
    cudnn.benchmark, cudnn.deterministic = search, True
    allowed = precision == "tf32"
    _set_tf32(matmul=allowed, convolutions=allowed or (search and DTYPES[precision] != torch.float32))
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        _restore_tf32(*tf32_before)


# Since 2.9 PyTorch has a switch an operation beside the two old ones. Reading an old one that contradicts its new one raises
# RuntimeError, in PyTorch's own code too; so both kinds are set, the old ones first, which change the new ones.


def _new_switches() -> list:
    """The places of the new switches, [] before 2.9."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(cudnn, "conv") or not hasattr(matmul, "fp32_precision"):
        return []
    return [place for place in (matmul, cudnn.conv, getattr(cudnn, "rnn", None)) if place is not None]


def _old_switches() -> list:
    return [torch.backends.cuda.matmul, torch.backends.cudnn]


def _tf32_switches() -> tuple[list[bool | None], list[str]]:
    """What the old switches (None: contradicted by a new one) and the new ones are set to."""
    old: list[bool | None] = []
    for place in _old_switches():
        try:
            old.append(place.allow_tf32)
        except RuntimeError:
            old.append(None)
    return old, [place.fp32_precision for place in _new_switches()]


def _set_tf32(matmul: bool, convolutions: bool) -> None:
    for place, allowed in zip(_old_switches(), (matmul, convolutions), strict=True):
        place.allow_tf32 = allowed
    for place, allowed in zip(_new_switches(), (matmul, convolutions, convolutions), strict=False):
        place.fp32_precision = "tf32" if allowed else "ieee"


def _restore_tf32(old: list[bool | None], new: list[str]) -> None:
    for place, allowed in zip(_old_switches(), old, strict=True):
        if allowed is not None:
            place.allow_tf32 = allowed
    for place, value in zip(_new_switches(), new, strict=True):
        place.fp32_precision = value


# ------------------------------------------------------------------------------------------------ agreement, and the choice


def agreement(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], num_clips: int) -> float:
    """The worst 1 - cos of a clip's features in any layer; infinite where a number is not finite or a shape another.

    Tensors (N, ...) a layer, of which the first `num_clips` count. Two zero vectors agree, a zero vector and another do not.
    """
    worst = 0.0
    for layer, right in expected.items():
        ours = found[layer]
        if ours.shape != right.shape or not bool(torch.isfinite(ours[:num_clips]).all()):
            return math.inf
        a, b = (x[:num_clips].flatten(1).double() for x in (ours, right))
        norms = a.norm(dim=1) * b.norm(dim=1)
        cosines = (a * b).sum(1) / norms
        both_zero = (a == 0).all(1) & (b == 0).all(1)
        apart = torch.where(norms > 0, 1 - cosines, torch.where(both_zero, 0.0, 1.0).double())
        worst = max(worst, float(apart.max()))
    return max(worst, 0.0)


@dataclass(frozen=True)
class Tried:
    """A way to run a network, as it did on the first batch: seconds a batch, 1 - cos from fp32, or why it is left out."""

    name: str
    seconds: float = math.inf
    apart: float = math.inf
    problem: str = ""

    def line(self, num_clips: int) -> str:
        """For people."""
        if self.problem:
            return f"{self.name} is left out: {self.problem}"
        return f"{self.name} {num_clips / self.seconds:,.0f} clips/s, 1 - cos {self.apart:.1e}"


def choose(tried: Sequence[Tried], limit: float) -> Tried | None:
    """The fastest of those without a problem and within `limit`; of those NEAR it the one with the best numbers."""
    good = [one for one in tried if not one.problem and one.apart <= limit]
    if not good:
        return None
    fastest = min(one.seconds for one in good)
    return min((one for one in good if one.seconds <= fastest * (1 + NEAR)), key=lambda one: one.apart)
