"""The native kernels: the library that setup.py builds from cpp/*.cpp, called through ctypes.

    library = kernels()                      None where there is none; `why_not()` says why
    conv = WinogradConvolution(weight, bias, relu=True)
    y = conv(x)                              x, y: (N, C, T, H, W) in memory order N, T, H, W, C

What goes into the library is checked here, since the library itself checks nothing.
"""

from __future__ import annotations

import ctypes
import functools
import math
import platform
import threading
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DirectConvolution", "WinogradConvolution", "kernels", "multiply_add_gflops", "recycle", "why_not"]

INTERFACE = 1  # of the library, as kInterface in cpp/convolution.h
PANEL = 16  # output channels that the kernels compute at a time
LANES = 8  # channels must be a multiple of it
MAX_CHANNELS = 4096
MAX_SEGMENTS = 64
# What the transformed tiles of a chunk may occupy: a good part of the last cache, where they are passed between phases.
# Filters are read once a chunk, so large ones want few chunks; tiles of small ones stay nearer to the processor.
CHUNK_BYTES, SMALL_CHUNK_BYTES = 24e6, 6e6


class _Convolution(ctypes.Structure):
    """`Convolution` of cpp/convolution.h."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("n", "t", "h", "w", "c_in", "c_out", "kernel_t", "time_tile", "relu", "pool_t", "pool_hw")
    ] + [(name, ctypes.c_void_p) for name in ("input", "filters", "bias", "residual", "output")]


class _DirectConvolution(ctypes.Structure):
    """`DirectConvolution` of cpp/convolution.h."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            *("n", "t", "h", "w", "c_in", "c_out", "kernel_t", "kernel_h", "kernel_w"),
            *("stride_t", "stride_h", "stride_w", "relu", "pool_hw"),
        )
    ] + [(name, ctypes.c_void_p) for name in ("input", "weight", "bias", "output")]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and why there is none. torch is imported above: the two then share one pool of threads."""
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
    library.featx_winograd_workspace_floats.argtypes = [pointer, size]
    library.featx_winograd_workspace_floats.restype = size
    library.featx_winograd.argtypes = [pointer, pointer, size, number]
    library.featx_direct.argtypes = [pointer, pointer, number]
    library.featx_multiply_add_gflops.argtypes = [number, ctypes.c_double]
    library.featx_multiply_add_gflops.restype = ctypes.c_double
    for function in (library.featx_winograd_pack, library.featx_winograd, library.featx_direct):
        function.restype = None
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


class WinogradConvolution:
    """A 3x3x3 or 1x3x3 convolution of stride 1, padded so that the size stays, by F(4x4, 3x3) in space.

    `weight` is (c_out, c_in, 3 or 1, 3, 3), `bias` (c_out,), both channel numbers multiples of 8. With `time_tile` 2,
    F(2, 3) is used in time besides. ReLU, and then a max pool of size and stride `pool` (time, space; 1 or 2; sizes
    rounded up), follow if asked for; a `residual` is added before the ReLU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        time_tile: int = 1,
        relu: bool = False,
        pool: tuple[int, int] = (1, 1),
    ) -> None:
        self.c_out, self.c_in, self.kernel_t, *_ = weight.shape
        if not self.takes(weight) or time_tile not in (1, 2) or (time_tile == 2 and self.kernel_t == 1):
            raise ValueError(
                f"no Winograd convolution for a weight of {tuple(weight.shape)} with time_tile {time_tile}"
            )
        if pool[0] not in (1, 2) or pool[1] not in (1, 2):
            raise ValueError(f"the pool is {pool}, but must be 1 or 2 in time and in space")
        _require_fit(weight, bias)
        self.time_tile, self.relu, self.pool = time_tile, relu, pool
        panels = -(-self.c_out // PANEL)
        points = 144 if time_tile == 2 else 36 * self.kernel_t
        self.bias = functional.pad(bias.detach().float(), (0, panels * PANEL - self.c_out)).contiguous()
        self.filters = torch.empty(points * panels * PANEL * self.c_in)
        weight = weight.detach().float().contiguous()
        kernels().featx_winograd_pack(
            *(weight.data_ptr(), self.c_out, self.c_in, self.kernel_t, time_tile),
            *(self.filters.data_ptr(), torch.get_num_threads()),
        )

    @staticmethod
    def takes(weight: Tensor) -> bool:
        """Whether there is a Winograd convolution for a weight of this shape."""
        c_out, c_in, kernel_t, *kernel = weight.shape
        return (
            (kernel_t in (1, 3) and kernel == [3, 3])
            and (c_in % LANES == 0 and c_out % LANES == 0)
            and max(c_in, c_out) <= MAX_CHANNELS
        )

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """`x` (N, c_in, T, H, W), and `residual` of the output's shape, to (N, c_out, T', H', W')."""
        n, c_in, t, h, w = x.shape
        if c_in != self.c_in:
            raise ValueError(f"the input has {c_in} channels, not {self.c_in}")
        pool_t, pool_hw = self.pool
        y = _empty((n, self.c_out, -(-t // pool_t), -(-h // pool_hw), -(-w // pool_hw)))
        if residual is not None and (self.pool != (1, 1) or residual.shape != y.shape):
            raise ValueError(f"a residual of {tuple(residual.shape)} does not fit an output of {tuple(y.shape)}")
        x, residual = _channels_last(x), None if residual is None else _channels_last(residual)
        request = _Convolution(
            *(n, t, h, w, self.c_in, self.c_out, self.kernel_t, self.time_tile, self.relu, pool_t, pool_hw),
            *(x.data_ptr(), self.filters.data_ptr(), self.bias.data_ptr()),
            *(None if residual is None else residual.data_ptr(), y.data_ptr()),
        )
        library, at = kernels(), ctypes.byref(request)
        num_tiles = library.featx_winograd_num_tiles(at)
        # chunks of equal size, as near as can be to what the cache takes
        bytes_a_tile = 4 * library.featx_winograd_workspace_floats(at, 1)
        chunk_bytes = min(CHUNK_BYTES, max(SMALL_CHUNK_BYTES, 4 * self.filters.numel()))
        num_chunks = max(1, round(num_tiles * bytes_a_tile / chunk_bytes))
        chunk = -(-num_tiles // num_chunks)
        workspace = _workspace(library.featx_winograd_workspace_floats(at, chunk))
        library.featx_winograd(at, workspace.data_ptr(), chunk, torch.get_num_threads())
        return y


class DirectConvolution:
    """A convolution of any kernel and stride, made for few input channels: the first layer of a network.

    `weight` is (c_out, c_in, kT, kH, kW) with c_out a multiple of 16. ReLU, and then a 1x2x2 max pool (sizes rounded up)
    where `pool` is (1, 2), follow if asked for.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        stride: tuple[int, int, int],
        padding: tuple[int, int, int],
        relu: bool = False,
        pool: tuple[int, int] = (1, 1),
    ) -> None:
        if not self.takes(weight) or pool not in ((1, 1), (1, 2)):
            raise ValueError(f"no direct convolution for a weight of {tuple(weight.shape)} with a pool of {pool}")
        _require_fit(weight, bias)
        self.c_out, self.c_in, *self.kernel = weight.shape
        self.stride, self.padding, self.relu, self.pool = stride, padding, relu, pool
        kernel_t, kernel_h, kernel_w = self.kernel
        # (c_out, c_in, kT, kH, kW) -> (c_out / 16, kT, kH, kW * c_in, 16)
        panels = weight.detach().float().permute(2, 3, 4, 1, 0)
        panels = panels.reshape(kernel_t, kernel_h, kernel_w * self.c_in, self.c_out // PANEL, PANEL)
        self.weight = panels.permute(3, 0, 1, 2, 4).contiguous()
        self.bias = bias.detach().float().contiguous()

    @staticmethod
    def takes(weight: Tensor) -> bool:
        """Whether there is a direct convolution for a weight of this shape."""
        return weight.shape[0] % PANEL == 0 and weight.shape[2] * weight.shape[3] <= MAX_SEGMENTS

    def __call__(self, x: Tensor, residual: None = None) -> Tensor:
        """`x` (N, c_in, T, H, W) to (N, c_out, T', H', W')."""
        if x.shape[1] != self.c_in:
            raise ValueError(f"the input has {x.shape[1]} channels, not {self.c_in}")
        if residual is not None:
            raise ValueError("a direct convolution adds no residual")
        _require_float32(x)
        x = _padded(x, self.padding)
        n, *padded, _ = x.shape  # (N, T, H, W, C)
        out = [(size - k) // s + 1 for size, k, s in zip(padded, self.kernel, self.stride, strict=True)]
        if min(out) < 1:
            raise ValueError(f"an input of {padded} with its padding is smaller than the kernel {self.kernel}")
        pool = self.pool[1]
        y = _empty((n, self.c_out, out[0], -(-out[1] // pool), -(-out[2] // pool)))
        threads = torch.get_num_threads()
        rows = _workspace(threads * pool * out[2] * self.c_out)
        request = _DirectConvolution(
            *(n, *padded, self.c_in, self.c_out, *self.kernel, *self.stride, self.relu, pool),
            *(x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr(), y.data_ptr()),
        )
        kernels().featx_direct(ctypes.byref(request), rows.data_ptr(), threads)
        return y


def _empty(shape: tuple[int, ...]) -> Tensor:
    """Memory for a result (N, C, T, H, W), in memory order N, T, H, W, C: recycled where there is some of that size."""
    free = _kept.free.get(math.prod(shape))
    if not free:
        return torch.empty(shape, memory_format=torch.channels_last_3d)
    n, c, t, h, w = shape
    return free.pop().view(n, t, h, w, c).permute(0, 4, 1, 2, 3)


def recycle(result: Tensor) -> None:
    """Give back the memory of a result that nobody reads any more, for the next one of its size in this thread.

    The system hands out large blocks as fresh pages, which cost about as much as the writing of them.
    """
    _kept.free.setdefault(result.numel(), []).append(result.permute(0, 2, 3, 4, 1).reshape(-1))


def _padded(x: Tensor, padding: tuple[int, int, int]) -> Tensor:
    """(N, C, T, H, W) -> (N, T, H, W, C) with zeros around it, valid until the next call in this thread."""
    n, c, *size = x.shape
    shape = (n, *(side + 2 * pad for side, pad in zip(size, padding, strict=True)), c)
    kept = _kept.padded.get((shape, padding))
    if kept is None:
        _kept.padded.clear()
        kept = _kept.padded[shape, padding] = torch.zeros(shape)
    t, h, w = (slice(pad, pad + side) for side, pad in zip(size, padding, strict=True))
    kept[:, t, h, w] = x.permute(0, 2, 3, 4, 1)
    return kept


def _channels_last(x: Tensor) -> Tensor:
    """The same float32 numbers in memory order N, T, H, W, C."""
    _require_float32(x)
    return x.contiguous(memory_format=torch.channels_last_3d)


def _require_float32(x: Tensor) -> None:
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"the native kernels take float32 on the CPU, not {x.dtype} on {x.device}")


def _require_fit(weight: Tensor, bias: Tensor) -> None:
    if bias.shape != weight.shape[:1] or weight.device.type != "cpu" or bias.device.type != "cpu":
        raise ValueError(
            f"a bias of {tuple(bias.shape)} on {bias.device} for a weight of {tuple(weight.shape)} on {weight.device}"
        )


class _Kept(threading.local):
    """What is kept from call to call. Every thread of Python has its own, since their calls may run at the same time."""

    def __init__(self) -> None:
        self.workspace = torch.empty(0)
        self.free: dict[int, list[Tensor]] = {}  # number of floats -> memory of that size
        self.padded: dict[tuple, Tensor] = {}  # the last padded input, whose zeros are still there


_kept = _Kept()


def _workspace(num_floats: int) -> Tensor:
    """Memory for the passing results of one call."""
    if _kept.workspace.numel() < num_floats:
        _kept.workspace = torch.empty(num_floats)
    return _kept.workspace
