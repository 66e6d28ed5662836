"""The library of native kernels that setup.py builds from cpp/*.cpp: found, loaded and described for ctypes.

    kernels()            None where there is none; `why_not()` says why

The library checks nothing; what goes into it is checked in layers.py.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from pathlib import Path

import torch  # noqa: F401 - loaded before the library, which then shares its pool of threads

__all__ = [
    "DirectRequest",
    "PoolRequest",
    "TimeRequest",
    "WinogradRequest",
    "kernels",
    "multiply_add_gflops",
    "why_not",
]

INTERFACE = 4  # of the library, as kInterface in cpp/convolution.h


class WinogradRequest(ctypes.Structure):
    """`Convolution` of cpp/convolution.h."""

    _fields_ = (
        [
            (name, ctypes.c_int)
            for name in ("n", "t", "h", "w", "c_in", "c_out", "kernel_t", "time_tile", "relu", "pool_t", "pool_hw")
        ]
        + [(name, ctypes.c_void_p) for name in ("input", "filters", "bias", "residual")]
        + [
            ("residual_factor", ctypes.c_float),
            ("output", ctypes.c_void_p),
        ]
    )


class DirectRequest(ctypes.Structure):
    """`DirectConvolution` of cpp/convolution.h."""

    _fields_ = (
        [
            (name, ctypes.c_int)
            for name in (
                *("n", "t", "h", "w", "c_in", "c_out", "kernel_t", "kernel_h", "kernel_w"),
                *("stride_t", "stride_h", "stride_w", "pad_t", "pad_h", "pad_w", "relu", "pool_hw"),
            )
        ]
        + [(name, ctypes.c_void_p) for name in ("input", "weight", "bias", "residual")]
        + [
            ("residual_factor", ctypes.c_float),
            ("output", ctypes.c_void_p),
        ]
    )


class TimeRequest(ctypes.Structure):
    """`TimeConvolution` of cpp/convolution.h."""

    _fields_ = [
        ("layer", DirectRequest),
        *((name, ctypes.c_int) for name in ("out_t", "tile", "points")),
        *((name, ctypes.c_void_p) for name in ("input_matrix", "output_matrix", "filters")),
    ]


class PoolRequest(ctypes.Structure):
    """`MaxPool` of cpp/convolution.h."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            *("n", "t", "h", "w", "c", "kernel_t", "kernel_h", "kernel_w", "stride_t", "stride_h", "stride_w"),
            *("pad_t", "pad_h", "pad_w", "out_t", "out_h", "out_w"),
        )
    ] + [(name, ctypes.c_void_p) for name in ("input", "output")]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none."""
    found = sorted(Path(__file__).parent.glob("_native*.so"))
    if not found:
        return None, "the native kernels were not built; they need a C++ compiler when featx is installed"
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return None, f"the native kernels cannot be loaded ({error})"
    if not hasattr(library, "featx_interface") or library.featx_interface() != INTERFACE:
        return None, f"the native kernels in {found[0].name} are of another featx; install featx again"
    if not library.featx_supported():
        return None, f"this processor ({platform.machine()}) has no AVX2, which the native kernels need"
    number, pointer, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_long
    library.featx_winograd_pack.argtypes = [pointer, number, number, number, number, pointer, number]
    library.featx_winograd_num_tiles.argtypes, library.featx_winograd_num_tiles.restype = [pointer], size
    library.featx_winograd_workspace_floats.argtypes = [pointer, size, number]
    library.featx_winograd_workspace_floats.restype = size
    library.featx_winograd.argtypes = [pointer, pointer, size, number]
    library.featx_direct.argtypes = [pointer, number]
    library.featx_in_time_workspace_floats.argtypes = [pointer, number]
    library.featx_in_time_workspace_floats.restype = size
    library.featx_direct_in_time.argtypes = [pointer, pointer, number]
    library.featx_max_pool.argtypes = [pointer, number]
    library.featx_resize_workspace_bytes.argtypes, library.featx_resize_workspace_bytes.restype = [pointer], size
    library.featx_resize.argtypes = [pointer, pointer]
    library.featx_multiply_add_gflops.argtypes = [number, ctypes.c_double]
    library.featx_multiply_add_gflops.restype = ctypes.c_double
    for name in ("winograd_pack", "winograd", "direct", "direct_in_time", "max_pool", "resize"):
        getattr(library, f"featx_{name}").restype = None
    return library, ""


def kernels() -> ctypes.CDLL | None:
    """The library, or None where there is none."""
    return _load()[0]


def why_not() -> str:
    """Why there is no library, in one line; "" where there is one."""
    return _load()[1]


def multiply_add_gflops(threads: int, seconds: float = 0.5) -> float:
    """How fast the processor multiplies and adds float32 when nothing else is to be done, in 10^9 operations a second."""
    return kernels().featx_multiply_add_gflops(threads, seconds)
