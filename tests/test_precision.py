"""engine/precision.py: PyTorch's switches, what counts as agreement, and which candidate is taken."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from featx.engine.precision import (
    AUTO_AGREEMENT,
    PRECISIONS,
    Tried,
    agreement,
    arithmetic,
    check_precision,
    choose,
    unavailable_precision,
)
from featx.errors import UnknownNameError, UsageError

cudnn, matmul, mkldnn = torch.backends.cudnn, torch.backends.cuda.matmul, torch.backends.mkldnn
HAS_NEW_SWITCHES = hasattr(cudnn, "conv")
NEW = (matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul) if HAS_NEW_SWITCHES else ()
REDUCED = [f"allow_{kind}_reduced_precision_reduction" for kind in ("fp16", "bf16")]
HAS_PAIRS = hasattr(matmul, f"{REDUCED[0]}_split_k")
SUMS = [name for name in (*REDUCED, "allow_fp16_accumulation") if hasattr(matmul, name)]
PAIRS = [f"{name}_split_k" for name in REDUCED] if HAS_PAIRS else []


def switches():
    """All that `arithmetic` may touch; "mixed" where PyTorch itself will not say."""
    found = [cudnn.benchmark, cudnn.deterministic, *(place.fp32_precision for place in NEW)]
    found += [getattr(matmul, name) for name in (*SUMS, *PAIRS)]
    for read in (torch.get_float32_matmul_precision, lambda: matmul.allow_tf32, lambda: cudnn.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append("mixed")
    return found


@pytest.fixture(autouse=True)
def as_before():
    before, new, sums = switches(), [place.fp32_precision for place in NEW], [getattr(matmul, name) for name in SUMS]
    yield
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True
    for place, value in zip(NEW, new, strict=True):
        place.fp32_precision = value
    for name, value in zip(SUMS, sums, strict=True):
        setattr(matmul, name, value)
    assert switches() == before


STATES = [
    lambda: None,
    lambda: (setattr(matmul, "allow_tf32", True), setattr(cudnn, "allow_tf32", False)),
    lambda: (setattr(matmul, "allow_tf32", False), setattr(cudnn, "allow_tf32", True)),
    lambda: torch.set_float32_matmul_precision("high"),
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: torch.set_float32_matmul_precision("highest"),
    lambda: setattr(matmul, REDUCED[0], False),
    lambda: setattr(matmul, "allow_fp16_accumulation", "allow_fp16_accumulation" in SUMS),
]
if HAS_NEW_SWITCHES:
    STATES.append(lambda: setattr(matmul, "fp32_precision", "tf32"))
    STATES.append(lambda: setattr(cudnn.conv, "fp32_precision", "tf32"))
    STATES.append(lambda: setattr(mkldnn.matmul, "fp32_precision", "bf16"))
    STATES.append(
        lambda: (torch.set_float32_matmul_precision("high"), setattr(mkldnn.matmul, "fp32_precision", "bf16"))
    )
if HAS_PAIRS:
    STATES.append(lambda: setattr(matmul, REDUCED[1], (False, False)))


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_what_was_set_before_is_set_again(state):
    state()
    before = switches()
    for precision, search in itertools.product(PRECISIONS[1:], (False, True)):
        with pytest.raises(KeyError), arithmetic(precision, search):
            allowed = precision == "tf32", precision == "tf32" or (search and precision in ("bf16", "fp16"))
            # the old switches can be read, as PyTorch's compiler does
            assert (matmul.allow_tf32, cudnn.allow_tf32) == allowed
            assert torch.get_float32_matmul_precision() == ("high" if allowed[0] else "highest")
            assert not any(getattr(matmul, name) for name in SUMS)  # 16-bit numbers are added up in float32
            if HAS_NEW_SWITCHES:
                expected = tuple("tf32" if each else "ieee" for each in allowed)
                assert (matmul.fp32_precision, cudnn.conv.fp32_precision) == expected
            assert (cudnn.benchmark, cudnn.deterministic) == (search, True)
            raise KeyError
        # where PyTorch said nothing, since the user's own switches contradict each other, it may say something afterwards
        assert [new for new, old in zip(switches(), before, strict=True) if old != "mixed"] == [
            old for old in before if old != "mixed"
        ]


def test_a_torch_without_the_new_switches(monkeypatch):
    monkeypatch.setattr("featx.engine.precision._new_switches", list)
    with arithmetic("tf32"):
        assert matmul.allow_tf32 and cudnn.allow_tf32
    assert not matmul.allow_tf32


def test_agreement_is_that_of_the_worst_clip_in_the_worst_layer():
    right = {"a": torch.tensor([[1.0, 0], [0, 2], [5, 5]]), "b": torch.ones(3, 2, 2)}
    assert agreement(right, right, 3) <= 1e-15
    turned = {**right, "a": torch.tensor([[3.0, 0], [2, 2], [-5, 5]])}
    assert agreement(turned, right, 1) == pytest.approx(0, abs=1e-15)  # length does not count
    assert agreement(turned, right, 2) == pytest.approx(1 - math.sqrt(0.5))
    assert agreement(turned, right, 3) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize(("row", "counts"), [(1, True), (2, False)])  # the third only fills the batch up
def test_what_is_not_finite_never_agrees(wrong, row, counts):
    right = {"a": torch.ones(3, 2)}
    found = {"a": torch.ones(3, 2)}
    found["a"][row, 1] = wrong
    assert (agreement(found, right, 2) == math.inf) == counts


def test_zero_vectors_and_shapes():
    zero, one = {"a": torch.zeros(1, 4)}, {"a": torch.ones(1, 4)}
    assert (agreement(zero, zero, 1), agreement(zero, one, 1), agreement(one, zero, 1)) == (0, 1, 1)
    assert agreement({"a": torch.ones(1, 2, 2)}, one, 1) == math.inf


def test_the_fastest_that_agrees():
    tried = [
        Tried("fp16", 1.0, 2e-6),
        Tried("bf16", 0.5, 2e-5),  # faster, and too far
        Tried("tf32", 2.0, 1e-7),
        Tried("wrong", 0.1, math.inf),
        Tried("nan", 0.1, math.nan),
        Tried("full", problem="it does not fit into the memory"),
    ]
    assert choose(tried, AUTO_AGREEMENT).name == "fp16"
    assert choose(tried, 1e-4).name == "bf16"
    assert choose(tried, 1e-6).name == "tf32"
    assert choose(tried, 1e-9) is None


def test_noise_decides_nothing():
    near = [Tried("bf16", 1.0, 9e-6), Tried("fp16", 1.04, 1e-7), Tried("fp32", 1.2, 0.0)]
    assert choose(near, AUTO_AGREEMENT).name == "fp16"


def test_what_is_told_of_a_candidate():
    assert Tried("bf16", 0.5, 2e-6).line(64) == "bf16 128 clips/s, 1 - cos 2.0e-06"
    assert Tried("bf16", problem="it is slow").line(64) == "bf16 is left out: it is slow"


def test_precisions_of_the_cpu():
    for name in PRECISIONS:
        check_precision(name, "cuda")
        assert unavailable_precision(name, "cuda") == ""
    for name in ("auto", "fp32", "bf16"):
        check_precision(name, "cpu")
    for name in ("tf32", "fp16"):
        with pytest.raises(
            UsageError, match=f"'{name}' was asked for, .* but {name} needs a GPU; the CPU has fp32 and bf16"
        ):
            check_precision(name, "cpu")
    with pytest.raises(UnknownNameError, match="unknown precision 'fp31'"):
        check_precision("fp31", "cuda")
