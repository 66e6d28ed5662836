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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    tf32_before, sums_before = _tf32_switches(), _short_sums()
    cudnn.benchmark, cudnn.deterministic = search, True
    allowed = precision == "tf32"
    _set_tf32(matmul=allowed, convolutions=allowed or (search and DTYPES[precision] != torch.float32))
    _set_short_sums(dict.fromkeys(sums_before, False))
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before
        _restore_tf32(*tf32_before)
        _set_short_sums(sums_before)


# Since 2.9 PyTorch has a switch an operation beside the old ones. Reading an old one that contradicts its new one raises
# RuntimeError, in PyTorch's own code too; so both kinds are set, the old ones first, which change the new ones. The old one of
# products is a word, which `allow_tf32` knows a half of: it stands for oneDNN's switch too, whose new one `allow_tf32` leaves.


def _new_switches() -> list:
    """The places of the new switches, oneDNN's last; [] before 2.9."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if not hasattr(cudnn, "conv") or not hasattr(matmul, "fp32_precision"):
        return []
    return [matmul, cudnn.conv, cudnn.rnn, torch.backends.mkldnn.matmul]


def _tf32_switches() -> tuple[str | None, bool | None, bool | None, list[str]]:
    """What is set: products by word and by half a word, convolutions (None: contradicted by a new switch), the new ones."""

    def said(read: Callable):
        try:
            return read()
        except RuntimeError:
            return None

    return (
        said(torch.get_float32_matmul_precision),
        said(lambda: torch.backends.cuda.matmul.allow_tf32),
        said(lambda: torch.backends.cudnn.allow_tf32),
        [place.fp32_precision for place in _new_switches()],
    )


def _set_tf32(matmul: bool, convolutions: bool) -> None:
    torch.set_float32_matmul_precision("high" if matmul else "highest")
    torch.backends.cudnn.allow_tf32 = convolutions
    for place, allowed in zip(_new_switches(), (matmul, convolutions, convolutions, matmul), strict=False):
        place.fp32_precision = "tf32" if allowed else "ieee"


def _restore_tf32(word: str | None, matmul: bool | None, convolutions: bool | None, new: list[str]) -> None:
    if word is not None:
        torch.set_float32_matmul_precision(word)
    elif matmul is not None:
        torch.backends.cuda.matmul.allow_tf32 = matmul
    if convolutions is not None:
        torch.backends.cudnn.allow_tf32 = convolutions
    for place, value in zip(_new_switches(), new, strict=True):
        place.fp32_precision = value


# By default a GPU may add up parts of a product of 16-bit matrices in 16 bits.
SHORT_SUMS = (
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)


def _short_sums() -> dict[str, bool | tuple[bool, bool]]:
    """What those of these switches are set to that this PyTorch has; a pair where one says too whether there may be parts."""
    matmul = torch.backends.cuda.matmul
    found = {name: getattr(matmul, name) for name in SHORT_SUMS if hasattr(matmul, name)}
    pairs = {name: f"{name}_split_k" for name in found if hasattr(matmul, f"{name}_split_k")}
    return found | {name: (found[name], getattr(matmul, pair)) for name, pair in pairs.items()}


def _set_short_sums(values: Mapping[str, bool | tuple[bool, bool]]) -> None:
    for name, value in values.items():
        setattr(torch.backends.cuda.matmul, name, value)


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
    """A way to run a network, as it did on the first batch: seconds a batch, 1 - cos from fp32, or why it is left out.

    `full`: it is left out since the memory is full; `may_be_full`: that may be why.
    """

    name: str
    seconds: float = math.inf
    apart: float = math.inf
    problem: str = ""
    full: bool = False
    may_be_full: bool = False

    def is_good(self, limit: float) -> bool:
        """Whether it runs, and within `limit` of fp32."""
        return not self.problem and self.apart <= limit

    def line(self, num_clips: int) -> str:
        """For people."""
        if self.problem:
            return f"{self.name} is left out: {self.problem}"
        return f"{self.name} {num_clips / self.seconds:,.0f} clips/s, 1 - cos {self.apart:.1e}"


def choose(tried: Sequence[Tried], limit: float) -> Tried | None:
    """The fastest of those without a problem and within `limit`; of those NEAR it the one with the best numbers."""
    good = [one for one in tried if one.is_good(limit)]
    if not good:
        return None
    fastest = min(one.seconds for one in good)
    return min((one for one in good if one.seconds <= fastest * (1 + NEAR)), key=lambda one: one.apart)
