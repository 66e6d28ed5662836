"""engine/batches.py: how many clips fit."""

from __future__ import annotations

import pytest
import torch

from featx.engine.batches import MAX_BATCH_SIZE, batch_size_for, is_out_of_memory, may_be_out_of_memory

MB = 2**20


@pytest.mark.parametrize(
    ("fixed", "per_clip", "free", "expected"),
    [
        (0, 100, 100_000, MAX_BATCH_SIZE),
        (0, 100, 10_000, 56),  # 60 fit into 6,000 of 10,000
        (0, 100, 1_500, 8),
        (0, 100, 1_400, 8),
        (0, 100, 1_300, 4),
        (0, 100, 400, 2),
        (0, 100, 100, 1),  # and if that is too many, it is said later
        (2_000, 100, 10_000, 40),
        (9_000, 100, 10_000, 1),
    ],
)
def test_what_the_free_memory_holds(fixed, per_clip, free, expected):
    assert batch_size_for(lambda num_clips: (fixed + num_clips * per_clip) * MB, free * MB) == expected


def test_memory_that_does_not_seem_to_grow():
    """Such as where a workspace hides what the clips take."""
    assert batch_size_for(lambda num_clips: 400 * MB, 10_000 * MB) <= MAX_BATCH_SIZE
    assert batch_size_for(lambda num_clips: 0, 10_000 * MB) == MAX_BATCH_SIZE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_words_for_a_full_memory(error, expected):
    assert is_out_of_memory(error) is may_be_out_of_memory(error) is expected


@pytest.mark.parametrize("form", ["GET", "FIND"])
def test_words_that_leave_open_why(form):
    error = RuntimeError(f"{form} was unable to find an engine to execute this computation")
    assert may_be_out_of_memory(error) and not is_out_of_memory(error)
