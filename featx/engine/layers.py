"""The layers that the native kernels compute: convolutions with bias, residual, ReLU and a max pool, and max pools alone.

    conv = WinogradConvolution(weight, bias, relu=True)
    y = conv(x)                              x, y: (N, C, T, H, W) in memory order N, T, H, W, C

What goes into the library is checked here, since the library itself checks nothing.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor
from torch.nn import functional

from featx.engine.filtering import MAX_POINTS, minimal_filtering
from featx.engine.memory import memory, padded, result_memory, workspace
from featx.engine.native import DirectRequest, PoolRequest, TimeRequest, WinogradRequest, kernels

__all__ = ["DirectConvolution", "Linear", "MaxPool", "TimeConvolution", "WinogradConvolution"]

PANEL = 16  # output channels that the kernels compute at a time
LANES = 8  # channels must be a multiple of it
MAX_CHANNELS = 4096
MAX_RUNS = 64  # of the input under a kernel, as kMaxSegments in cpp/convolution.h
# What the transformed tiles of a chunk may occupy: a good part of the last cache, where they are passed between phases.
# Filters are read once a chunk, so large ones want few chunks; tiles of small ones stay nearer to the processor.
CHUNK_BYTES, SMALL_CHUNK_BYTES = 24e6, 6e6


class WinogradConvolution:
    """A 3x3x3 or 1x3x3 convolution of stride 1, padded so that the size stays, by F(4x4, 3x3) in space.

    `weight` is (c_out, c_in, 3 or 1, 3, 3), `bias` (c_out,), both channel numbers multiples of 8. With `time_tile` 2,
    F(2, 3) is used in time besides. ReLU, and then a max pool of size and stride `pool` (time, space; 1 or 2; sizes
    rounded up), follow if asked for; a `residual`, times `residual_factor`, is added before the ReLU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        time_tile: int = 1,
        relu: bool = False,
        pool: tuple[int, int] = (1, 1),
        residual_factor: float = 1.0,
    ) -> None:
        self.c_out, self.c_in, self.kernel_t, *_ = weight.shape
        if not self.takes(weight) or time_tile not in (1, 2) or (time_tile == 2 and self.kernel_t == 1):
            raise ValueError(
                f"no Winograd convolution for a weight of {tuple(weight.shape)} with time_tile {time_tile}"
            )
        if pool[0] not in (1, 2) or pool[1] not in (1, 2):
            raise ValueError(f"the pool is {pool}, but must be 1 or 2 in time and in space")
        _require_fit(weight, bias)
        self.time_tile, self.relu, self.pool, self.residual_factor = time_tile, relu, pool, residual_factor
        panels = -(-self.c_out // PANEL)
        points = 144 if time_tile == 2 else 36 * self.kernel_t
        self.bias = functional.pad(bias.detach().float(), (0, panels * PANEL - self.c_out)).contiguous()
        self.filters = memory(points * panels * PANEL * self.c_in)
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
        y = result_memory((n, self.c_out, -(-t // pool_t), -(-h // pool_hw), -(-w // pool_hw)))
        if residual is not None and (self.pool != (1, 1) or residual.shape != y.shape):
            raise ValueError(f"a residual of {tuple(residual.shape)} does not fit an output of {tuple(y.shape)}")
        x, residual = _channels_last(x), None if residual is None else _channels_last(residual)
        request = WinogradRequest(
            *(n, t, h, w, self.c_in, self.c_out, self.kernel_t, self.time_tile, self.relu, pool_t, pool_hw),
            *(x.data_ptr(), self.filters.data_ptr(), self.bias.data_ptr()),
            *(None if residual is None else residual.data_ptr(), self.residual_factor, y.data_ptr()),
        )
        library, at = kernels(), ctypes.byref(request)
        num_tiles = library.featx_winograd_num_tiles(at)
        # chunks of equal size, as near as can be to what the cache takes
        threads = torch.get_num_threads()
        bytes_a_tile = 4 * (
            library.featx_winograd_workspace_floats(at, 2, threads)
            - library.featx_winograd_workspace_floats(at, 1, threads)
        )
        chunk_bytes = min(CHUNK_BYTES, max(SMALL_CHUNK_BYTES, 2 * self.filters.numel()))
        num_chunks = max(1, round(num_tiles * bytes_a_tile / chunk_bytes))
        chunk = -(-num_tiles // num_chunks)
        floats = workspace(library.featx_winograd_workspace_floats(at, chunk, threads))
        library.featx_winograd(at, floats.data_ptr(), chunk, threads)
        return y


class DirectConvolution:
    """A convolution of any kernel and stride, as it is written.

    `weight` is (c_out, c_in, kT, kH, kW) with c_out a multiple of 16. ReLU, and then a 1x2x2 max pool (sizes rounded up)
    where `pool` is (1, 2), follow if asked for; a `residual`, times `residual_factor`, is added before the ReLU, where there
    is no pool.
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
        residual_factor: float = 1.0,
    ) -> None:
        if not self.takes(weight, padding) or pool not in ((1, 1), (1, 2)):
            raise ValueError(f"no direct convolution for a weight of {tuple(weight.shape)} with a pool of {pool}")
        _require_fit(weight, bias)
        self.c_out, self.c_in, *self.kernel = weight.shape
        self.stride, self.padding, self.relu, self.pool = stride, padding, relu, pool
        self.residual_factor = residual_factor
        # lines of few channels are padded in memory, so that the taps of a line are one run of numbers
        self.copies = self.c_in < PANEL and any(padding)
        self.weight = _packed(weight.detach().float())
        self.bias = bias.detach().float().contiguous()

    @staticmethod
    def takes(weight: Tensor, padding: tuple[int, int, int]) -> bool:
        """Whether there is a direct convolution for a weight of this shape."""
        c_out, c_in, *kernel = weight.shape
        runs = math.prod(kernel[:2]) if c_in < PANEL else math.prod(kernel)
        inside = all(pad < side for pad, side in zip(padding, kernel, strict=True))
        return c_out % PANEL == 0 and runs <= MAX_RUNS and c_in <= MAX_CHANNELS and inside

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """`x` (N, c_in, T, H, W), and `residual` of the output's shape, to (N, c_out, T', H', W')."""
        if x.shape[1] != self.c_in:
            raise ValueError(f"the input has {x.shape[1]} channels, not {self.c_in}")
        x, padding = _channels_last(x), self.padding
        n, _, *size = x.shape
        out = [
            (s + 2 * p - k) // step + 1 for s, p, k, step in zip(size, padding, self.kernel, self.stride, strict=True)
        ]
        if min(out) < 1:
            raise ValueError(f"an input of {size} with a padding of {padding} is smaller than the kernel {self.kernel}")
        if self.copies:
            x, padding = padded(x, padding, padding), (0, 0, 0)
            _, *size, _ = x.shape
        pool = self.pool[1]
        y = result_memory((n, self.c_out, out[0], -(-out[1] // pool), -(-out[2] // pool)))
        if residual is not None and (pool != 1 or residual.shape != y.shape):
            raise ValueError(f"a residual of {tuple(residual.shape)} does not fit an output of {tuple(y.shape)}")
        residual = None if residual is None else _channels_last(residual)
        if not n:
            return y
        if self.kernel[1:] == [1, 1] and self.stride[1:] == (1, 1) and not any(padding[1:]) and pool == 1:
            size = [size[0], 1, size[1] * size[2]]  # a picture is one line
            if self.kernel[0] == self.stride[0] == 1 and not padding[0]:
                n, size = 1, [1, 1, n * math.prod(size)]  # all is one line
        request = DirectRequest(
            *(n, *size, self.c_in, self.c_out, *self.kernel, *self.stride, *padding, self.relu, pool),
            *(x.data_ptr(), self.weight.data_ptr(), self.bias.data_ptr()),
            *(None if residual is None else residual.data_ptr(), self.residual_factor, y.data_ptr()),
        )
        kernels().featx_direct(ctypes.byref(request), torch.get_num_threads())
        return y


class Linear:
    """A fully connected layer, as a convolution over a line of vectors: `weight` (c_out, c_in), c_out a multiple of 16.

    What it costs is reading its weights, which the kernel does as fast as the memory gives them.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        if not self.takes(weight):
            raise ValueError(f"no linear layer for a weight of {tuple(weight.shape)}")
        c_out, self.c_in = weight.shape
        self.parts = -(-self.c_in // MAX_CHANNELS)  # a vector is so many pixels side by side
        # (c_out, c_in) -> (c_out, c_in / parts, 1, 1, parts)
        pixels = weight.reshape(c_out, self.parts, -1).transpose(1, 2)[:, :, None, None]
        self.convolution = DirectConvolution(pixels, bias, stride=(1, 1, self.parts), padding=(0, 0, 0))

    @staticmethod
    def takes(weight: Tensor) -> bool:
        """Whether there is a linear layer for a weight of this shape."""
        c_out, c_in = weight.shape
        return c_out % PANEL == 0 and c_in > 0 and c_in % -(-c_in // MAX_CHANNELS) == 0

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (N, c_in) to (N, c_out)."""
        if x.ndim != 2 or x.shape[1] != self.c_in:
            raise ValueError(f"the input is {tuple(x.shape)}, not (N, {self.c_in})")
        if not len(x):
            return x.new_empty(0, self.convolution.c_out)
        line = x.reshape(1, 1, 1, len(x) * self.parts, -1).permute(0, 4, 1, 2, 3)  # (1, c_in / parts, 1, 1, N * parts)
        return self.convolution(line).permute(0, 2, 3, 4, 1).reshape(len(x), -1)


class TimeConvolution:
    """A convolution of few input channels, of stride 1 in time and padded so that the frames stay as many, by F(4, kT) in time.

    Otherwise as DirectConvolution, without a residual.
    """

    TILE = 4  # outputs in time of one group

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
        if not self.takes(weight, stride, padding) or pool not in ((1, 1), (1, 2)):
            raise ValueError(f"no convolution in time for a weight of {tuple(weight.shape)} with a pool of {pool}")
        _require_fit(weight, bias)
        self.c_out, self.c_in, *self.kernel = weight.shape
        self.stride, self.padding, self.relu, self.pool = stride, padding, relu, pool
        filtering = minimal_filtering(self.TILE, self.kernel[0])
        # (c_out, c_in, kT, kH, kW) -> a (c_out, c_in, 1, kH, kW) for every point
        points = torch.einsum("pt,octyx->pocyx", filtering.filter, weight.detach().double()).float().unsqueeze(3)
        self.filters = torch.stack([_packed(point) for point in points])
        self.matrices = [m.float().contiguous() for m in (filtering.input, filtering.output)]
        self.bias = bias.detach().float().contiguous()

    @classmethod
    def takes(cls, weight: Tensor, stride: tuple[int, int, int], padding: tuple[int, int, int]) -> bool:
        """Whether there is such a convolution for a weight of this shape."""
        c_out, c_in, kernel_t, kernel_h, _ = weight.shape
        fits = (
            c_out % PANEL == 0 and c_in < PANEL and 1 < kernel_t <= MAX_POINTS - cls.TILE + 1 and kernel_h <= MAX_RUNS
        )
        return fits and stride[0] == 1 and 2 * padding[0] == kernel_t - 1

    def __call__(self, x: Tensor, residual: None = None) -> Tensor:
        """`x` (N, c_in, T, H, W) to (N, c_out, T, H', W')."""
        if residual is not None or x.shape[1] != self.c_in:
            raise ValueError(f"the input has {x.shape[1]} channels, not {self.c_in}, or there is a residual")
        _require_float32(x)
        n, _, out_t, *_ = x.shape
        before, groups = self.padding, -(-out_t // self.TILE)
        points = self.TILE + self.kernel[0] - 1
        x = padded(x, before, (groups * self.TILE - out_t + before[0], *before[1:]))
        _, *size, _ = x.shape  # with the padding
        out = [(s - k) // step + 1 for s, k, step in zip(size[1:], self.kernel[1:], self.stride[1:], strict=True)]
        if min(out) < 1:
            raise ValueError(f"an input of {size} with its padding is smaller than the kernel {self.kernel}")
        pool = self.pool[1]
        y = result_memory((n, self.c_out, out_t, *(-(-side // pool) for side in out)))
        kernel = (1, *self.kernel[1:])  # what is left for a point
        layer = DirectRequest(
            *(n, *size, self.c_in, self.c_out, *kernel, *self.stride, 0, 0, 0, self.relu, pool),
            *(x.data_ptr(), None, self.bias.data_ptr(), None, 0.0, y.data_ptr()),
        )
        matrices = (matrix.data_ptr() for matrix in self.matrices)
        request = TimeRequest(layer, out_t, self.TILE, points, *matrices, self.filters.data_ptr())
        threads, library, at = torch.get_num_threads(), kernels(), ctypes.byref(request)
        floats = workspace(library.featx_in_time_workspace_floats(at, threads))
        library.featx_direct_in_time(at, floats.data_ptr(), threads)
        return y


class MaxPool:
    """A max pool with zero or more of padding, which never wins.

    `kernel`, `stride` and `padding` are in T, H, W; `rounds_up` is PyTorch's `ceil_mode`.
    """

    def __init__(
        self,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
        padding: tuple[int, int, int],
        rounds_up: bool = False,
    ) -> None:
        if any(2 * pad > side for pad, side in zip(padding, kernel, strict=True)):
            raise ValueError(f"a padding of {padding} is more than half of the kernel {kernel}")
        self.kernel, self.stride, self.padding, self.rounds_up = kernel, stride, padding, rounds_up

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (N, C, T, H, W), C a multiple of 8, to (N, C, T', H', W')."""
        x = _channels_last(x)
        n, c, *size = x.shape
        if c % LANES:
            raise ValueError(f"the input has {c} channels, no multiple of {LANES}")
        out = [self._num_windows(*sides) for sides in zip(size, self.kernel, self.stride, self.padding, strict=True)]
        if min(out) < 1:
            raise ValueError(f"an input of {size} with its padding is smaller than the kernel {self.kernel}")
        y = result_memory((n, c, *out))
        sizes = (n, *size, c, *self.kernel, *self.stride, *self.padding, *out)
        kernels().featx_max_pool(ctypes.byref(PoolRequest(*sizes, x.data_ptr(), y.data_ptr())), torch.get_num_threads())
        return y

    def _num_windows(self, size: int, kernel: int, stride: int, padding: int) -> int:
        """As PyTorch counts them: rounding up, a window must begin in the input or in the padding before it."""
        spare = size + 2 * padding - kernel
        if not self.rounds_up:
            return spare // stride + 1
        num = -(-spare // stride) + 1
        return num - ((num - 1) * stride >= size + padding)


def _packed(weight: Tensor) -> Tensor:
    """(c_out, c_in, kT, kH, kW) -> (c_out / 16, kT, kH, kW, c_in, 16), as the products read it."""
    c_out, c_in, *kernel = weight.shape
    panels = weight.reshape(c_out // PANEL, PANEL, c_in, *kernel).permute(0, 3, 4, 5, 2, 1)
    return memory(weight.numel()).view(panels.shape).copy_(panels)


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
