"""engine/layers.py: the kernels against PyTorch's layers in float64, their bits, and what they refuse."""

from __future__ import annotations

import itertools
import random
import threading

import pytest
import torch
import torch.nn.functional as F

from featx.engine import layers, memory, native
from featx.engine.layers import DirectConvolution, Linear, MaxPool, TimeConvolution, WinogradConvolution

needs_kernels = pytest.mark.skipif(native.kernels() is None, reason=native.why_not())

# Distance from float64 as a part of the largest number. F(4x4, 3x3) adds and subtracts multiples of up to 10 and divides by
# up to 576 on the way: it loses a digit and a half of the seven that a convolution as it is written keeps.
WINOGRAD, TIME, DIRECT, LINEAR = 5e-5, 2e-5, 2e-6, 1e-5


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def reference(x, weight, bias, *, stride=1, padding, relu=False, pool=(1, 1), residual=None, residual_factor=1.0):
    y = F.conv3d(x.double(), weight.double(), bias.double(), stride, padding)
    if residual is not None:
        y = y + residual_factor * residual.double()
    if relu:
        y = y.relu()
    kernel = (pool[0], pool[1], pool[1])
    return F.max_pool3d(y, kernel, kernel, ceil_mode=True)


def assert_close(got, expected, tolerance):
    assert got.dtype == torch.float32 and got.shape == expected.shape
    assert (got.double() - expected).abs().max() <= tolerance * expected.abs().max()


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(c_out, c_in, *kernel, seed=1):
    fan_in = c_in * kernel[0] * kernel[1] * kernel[2]
    return numbers(c_out, c_in, *kernel, seed=seed) * (2 / fan_in) ** 0.5, numbers(c_out, seed=seed + 1)


def assert_winograd(x, c_out, *, kernel_t=3, time_tile=1, seed=1, residual=None, **follows):
    weight, bias = parameters(c_out, x.shape[1], kernel_t, 3, 3, seed=seed)
    expected = reference(x, weight, bias, padding=(kernel_t // 2, 1, 1), residual=residual, **follows)
    assert_close(WinogradConvolution(weight, bias, time_tile=time_tile, **follows)(x, residual), expected, WINOGRAD)


# ------------------------------------------------------------------------- the numbers


@needs_kernels
@pytest.mark.parametrize("time_tile", [1, 2])
def test_every_number_of_a_patch_under_every_tap_is_exact(time_tile):
    """An impulse at each of the 4 x 6 x 6 inputs of a tile in the middle, filters of one tap each: 144 x 27 results.

    With a tap of 1152, which all denominators divide, there is nothing to round: the matrices are right, or they are not.
    """
    x = torch.zeros(144, 8, 4, 12, 12)
    for i in range(144):
        x[i, 3, i // 36, 3 + i // 6 % 6, 3 + i % 6] = 1
    weight = torch.zeros(32, 8, 27)
    weight[range(27), 3, range(27)] = 1152
    weight = weight.view(32, 8, 3, 3, 3)
    y = WinogradConvolution(weight, torch.zeros(32), time_tile=time_tile)(x)
    assert torch.equal(y.double(), F.conv3d(x.double(), weight.double(), padding=1))
    assert y.count_nonzero() > 144 * 9


@needs_kernels
@pytest.mark.parametrize("size", range(1, 14))
@pytest.mark.parametrize(("kernel_t", "time_tile"), [(3, 1), (3, 2), (1, 1)])
def test_every_size(kernel_t, time_tile, size):
    for t, h, w in [(size, 5, 6), (3, size, 7), (2, 6, size)]:
        assert_winograd(numbers(2, 8, t, h, w), 16, kernel_t=kernel_t, time_tile=time_tile)


def drawn_case(seed):
    """Sizes, channels, what follows, chunks and threads, drawn by lot."""
    draw = random.Random(seed)
    kernel_t = draw.choice([3, 3, 1])
    pool = draw.choice([(1, 1), (1, 1), (1, 2), (2, 2), (2, 1)])
    shape = (
        draw.randint(1, 3),
        draw.choice([8, 16, 24, 120]),
        draw.randint(1, 9),
        draw.randint(1, 13),
        draw.randint(1, 13),
    )
    options = {
        "kernel_t": kernel_t,
        "time_tile": draw.choice([1, 2]) if kernel_t == 3 else 1,
        "relu": draw.random() < 0.5,
        "pool": pool,
        "residual_factor": draw.choice([1.0, 0.5, -1.5]),
    }
    return draw, shape, draw.choice([8, 16, 40, 88, 136]), options


@needs_kernels
@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(16, 200))])
def test_what_follows_a_winograd_convolution(seed, monkeypatch):
    draw, shape, c_out, options = drawn_case(seed)
    monkeypatch.setattr(layers, "CHUNK_BYTES", draw.choice([12e6, 5e5, 1.0]))  # 1: a chunk a tile
    torch.set_num_threads(draw.choice([1, 2, 3, 7]))
    n, _, t, h, w = shape
    residual = numbers(n, c_out, t, h, w, seed=9) if options["pool"] == (1, 1) and draw.random() < 0.7 else None
    assert_winograd(numbers(*shape), c_out, seed=seed, residual=residual, **options)


@needs_kernels
def test_many_channels():
    """More than one block of the matrix product."""
    assert_winograd(numbers(1, 520, 3, 5, 5).relu(), 24)
    assert_winograd(numbers(1, 264, 4, 4, 9).relu(), 24, time_tile=2, relu=True, pool=(2, 2))


DIRECT_CASES = [  # c_in, c_out, kernel, stride, padding
    (3, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    (3, 16, (7, 7, 7), (1, 2, 2), (3, 3, 3)),
    (3, 48, (3, 7, 7), (1, 2, 2), (1, 3, 3)),
    (2, 32, (1, 7, 7), (1, 2, 2), (0, 3, 3)),
    (1, 16, (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    (7, 16, (5, 2, 3), (2, 1, 3), (2, 0, 1)),
    (3, 16, (3, 11, 11), (1, 4, 4), (1, 5, 5)),
    (40, 16, (2, 3, 7), (1, 1, 1), (0, 1, 2)),  # a run of 280 numbers: more than one block
    (5, 16, (16, 4, 9), (1, 1, 1), (8, 2, 4)),
    (64, 80, (1, 1, 1), (1, 1, 1), (0, 0, 0)),  # a matrix product, and more panels than a task takes
    (24, 32, (1, 1, 1), (1, 2, 2), (0, 0, 0)),
    (16, 16, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    (16, 96, (3, 3, 3), (2, 2, 2), (1, 1, 1)),
    (520, 16, (1, 1, 1), (2, 1, 1), (0, 0, 0)),
    (600, 16, (1, 2, 3), (1, 1, 2), (0, 1, 0)),  # a line beyond the border is longer than one tap
]


@needs_kernels
@pytest.mark.parametrize("pool", [(1, 1), (1, 2)])
@pytest.mark.parametrize(("c_in", "c_out", "kernel", "stride", "padding"), DIRECT_CASES)
def test_direct_convolutions(c_in, c_out, kernel, stride, padding, pool):
    weight, bias = parameters(c_out, c_in, *kernel)
    for i, (n, t, h, w) in enumerate([(1, 5, 11, 13), (2, 6, 12, 9), (3, 5, 7, 18)]):
        torch.set_num_threads((1, 2, 5)[i])
        x, how = numbers(n, c_in, t, h, w), {"stride": stride, "padding": padding, "relu": i > 0, "pool": pool}
        assert_close(DirectConvolution(weight, bias, **how)(x), reference(x, weight, bias, **how), DIRECT)
        if pool == (1, 1):
            residual, factor = (
                numbers(*reference(x, weight, bias, **how).shape, seed=7),
                {"residual_factor": 1 - 0.5 * i},
            )
            expected = reference(x, weight, bias, residual=residual, **how, **factor)
            assert_close(DirectConvolution(weight, bias, **how, **factor)(x, residual), expected, DIRECT)


@needs_kernels
def test_direct_convolutions_in_many_blocks():
    """Several blocks a frame, a whole batch as one line, weights that stay near and weights that do not."""
    for c_in, c_out, kernel, stride, padding in [
        (32, 80, (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        (32, 80, (1, 1, 1), (2, 2, 2), (0, 0, 0)),
        (32, 144, (3, 3, 3), (1, 2, 2), (1, 1, 1)),
        (32, 16, (3, 1, 1), (1, 1, 1), (1, 0, 0)),
    ]:
        weight, bias = parameters(c_out, c_in, *kernel)
        x, how = numbers(2, c_in, 5, 29, 31), {"stride": stride, "padding": padding, "relu": True}
        assert_close(DirectConvolution(weight, bias, **how)(x), reference(x, weight, bias, **how), DIRECT)


@needs_kernels
@pytest.mark.parametrize(("c_in", "c_out"), [(1, 16), (40, 80), (4096, 16), (8192, 32), (4098, 16), (12288, 16)])
def test_linear_layers(c_in, c_out):
    """Also those of more numbers than a convolution has channels; so many are summed one after the other."""
    weight, bias = numbers(c_out, c_in, seed=1) / c_in**0.5, numbers(c_out, seed=2)
    for n in (1, 2, 7):
        torch.set_num_threads(n)
        x = numbers(n, c_in)
        assert_close(Linear(weight, bias)(x), F.linear(x.double(), weight.double(), bias.double()), LINEAR)
        assert_close(
            Linear(weight, bias)(x.t().contiguous().t()), F.linear(x.double(), weight.double(), bias.double()), LINEAR
        )
    layer, x = Linear(weight, bias), numbers(5, c_in)
    assert all(torch.equal(layer(x[i : i + 1])[0], layer(x)[i]) for i in range(5))
    assert layer(x[:0]).shape == (0, c_out)


@needs_kernels
def test_no_linear_layer():
    for shape in [(24, 8), (16, 4097)]:
        with pytest.raises(ValueError, match="no linear layer"):
            Linear(torch.zeros(shape), torch.zeros(shape[0]))
    for shape in [(2, 9), (8,), (2, 3, 8)]:
        with pytest.raises(ValueError, match=r"not \(N, 8\)"):
            Linear(torch.zeros(16, 8), torch.zeros(16))(torch.zeros(shape))


TIME_CASES = [  # c_in, c_out, kernel, stride, padding: the first layers of C3D, Res3D, Hara's nets, and odd ones
    (3, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    (3, 48, (3, 7, 7), (1, 2, 2), (1, 3, 3)),
    (3, 16, (7, 7, 7), (1, 2, 2), (3, 3, 3)),
    (2, 32, (5, 4, 3), (1, 1, 2), (2, 0, 1)),
    (15, 16, (7, 1, 1), (1, 3, 1), (3, 0, 0)),
]


@needs_kernels
@pytest.mark.parametrize("pool", [(1, 1), (1, 2)])
@pytest.mark.parametrize(("c_in", "c_out", "kernel", "stride", "padding"), TIME_CASES)
def test_convolutions_by_filtering_in_time(c_in, c_out, kernel, stride, padding, pool):
    weight, bias = parameters(c_out, c_in, *kernel)
    for i, (n, t, h, w) in enumerate([(1, 1, 11, 13), (2, 4, 12, 9), (3, 7, 7, 18), (1, 16, 21, 22)]):
        torch.set_num_threads((1, 2, 5, 3)[i])
        x, how = numbers(n, c_in, t, h, w), {"stride": stride, "padding": padding, "relu": i > 0, "pool": pool}
        assert_close(TimeConvolution(weight, bias, **how)(x), reference(x, weight, bias, **how), TIME)


POOLS = list(itertools.product([(2, 2, 2), (3, 3, 3), (2, 1, 1), (1, 3, 2)], [(2, 2, 2), (1, 2, 3)], [False, True]))


@needs_kernels
@pytest.mark.parametrize(("kernel", "stride", "rounds_up"), POOLS)
def test_max_pools(kernel, stride, rounds_up):
    for padding in ((0, 0, 0), tuple(side // 2 for side in kernel)):
        for shape in [(2, 8, 5, 7, 6), (1, 24, 3, 9, 14), (3, 16, 4, 4, 4)]:
            x = numbers(*shape) - 5  # below zero: padding must not win
            expected = F.max_pool3d(x, kernel, stride, padding, ceil_mode=rounds_up)
            assert torch.equal(MaxPool(kernel, stride, padding, rounds_up)(x), expected)


def forms(x):
    """The same numbers in other orders of memory."""
    n, c, t, h, w = x.shape
    yield x.contiguous(memory_format=torch.channels_last_3d)
    yield x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    wide = torch.full((n, 2 * c, t + 1, h, 3 * w), torch.nan)
    wide[:, ::2, 1:, :, ::3] = x
    yield wide[:, ::2, 1:, :, ::3]
    apart = torch.full((n, t, h, w, c + 8), torch.nan)
    apart[..., 8:] = x.permute(0, 2, 3, 4, 1)
    yield apart[..., 8:].permute(0, 4, 1, 2, 3)


@needs_kernels
def test_any_order_of_memory():
    x, residual = numbers(2, 16, 3, 5, 6), numbers(2, 8, 3, 5, 6, seed=5)
    winograd = WinogradConvolution(*parameters(8, 16, 3, 3, 3), time_tile=2)
    direct = DirectConvolution(*parameters(16, 16, 3, 3, 3), stride=(1, 1, 1), padding=(1, 0, 1))
    for other, other_residual in zip(forms(x), forms(residual), strict=True):
        assert torch.equal(winograd(other, other_residual), winograd(x, residual))
        assert torch.equal(direct(other), direct(x))
    same = x[:1, :1].expand(2, 16, 3, 5, 6)
    assert torch.equal(winograd(same), winograd(same.contiguous()))
    assert torch.equal(direct(same), direct(same.contiguous()))
    weight, bias = parameters(16, 16, 3, 3, 3)
    turned = weight.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert torch.equal(WinogradConvolution(turned, bias)(x), WinogradConvolution(weight, bias)(x))


# ------------------------------------------------------------------------- the bits


def kernels_under_test():
    yield WinogradConvolution(*parameters(40, 24, 3, 3, 3), time_tile=2, relu=True, pool=(2, 2)), (24, 5, 9, 11)
    yield WinogradConvolution(*parameters(40, 24, 3, 3, 3)), (24, 5, 9, 11)
    yield WinogradConvolution(*parameters(72, 8, 1, 3, 3), relu=True, pool=(1, 2)), (8, 3, 7, 14)
    how = {"stride": (1, 2, 2), "padding": (1, 3, 3), "relu": True, "pool": (1, 2)}
    yield DirectConvolution(*parameters(32, 3, 3, 7, 7), **how), (3, 5, 19, 22)
    yield TimeConvolution(*parameters(32, 3, 3, 7, 7), **how), (3, 6, 19, 22)
    yield DirectConvolution(*parameters(80, 24, 1, 1, 1), stride=(1, 1, 1), padding=(0, 0, 0)), (24, 5, 9, 11)
    yield DirectConvolution(*parameters(32, 24, 3, 1, 1), stride=(1, 1, 1), padding=(1, 0, 0)), (24, 5, 9, 13)
    yield DirectConvolution(*parameters(32, 24, 3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1)), (24, 5, 23, 25)
    yield MaxPool((3, 3, 3), (2, 2, 2), (1, 1, 1)), (8, 5, 9, 11)


@needs_kernels
@pytest.mark.parametrize("case", range(9))
def test_equal_clips_give_equal_bits_anywhere(case, monkeypatch):
    """At every place of a batch, beside other clips, in batches of any size, chunks of any size, with any number of threads."""
    kernel, shape = list(kernels_under_test())[case]
    clip = numbers(1, *shape)
    expected = kernel(clip)
    for place in (0, 3):
        others = numbers(4, *shape, seed=3 + place) * 10
        others[place] = clip[0]
        for num_threads, chunk_bytes in [(1, 12e6), (3, 1.0), (13, 3e5)]:
            torch.set_num_threads(num_threads)
            monkeypatch.setattr(layers, "CHUNK_BYTES", chunk_bytes)
            assert torch.equal(kernel(others)[place], expected[0])


@needs_kernels
def test_calls_of_several_python_threads_do_not_meet():
    """Each has its own workspace: the library runs without Python's lock."""
    clips = [numbers(2, 16, 4, 20, 20, seed=i) for i in range(4)]
    winograd = WinogradConvolution(*parameters(16, 16, 3, 3, 3), time_tile=2)
    direct = DirectConvolution(*parameters(16, 16, 3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1), pool=(1, 2))
    expected, wrong = [(winograd(x), direct(x)) for x in clips], []

    def work(i):
        torch.set_num_threads(1)
        for _ in range(10):
            if not torch.equal(winograd(clips[i]), expected[i][0]) or not torch.equal(direct(clips[i]), expected[i][1]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_kernels
@pytest.mark.parametrize("relu", [False, True])
def test_what_is_no_number_stays_none(relu):
    """As in PyTorch: broken weights must be seen in the features."""
    weight, bias = parameters(16, 8, 3, 3, 3)
    weight[3, 2, 1, 1, 0] = torch.nan
    x = numbers(1, 8, 4, 6, 6).relu()
    for pool in [(1, 1), (1, 2)]:
        how = {"relu": relu, "pool": pool}
        direct = DirectConvolution(weight, bias, stride=(1, 1, 1), padding=(1, 1, 1), **how)
        for y in (WinogradConvolution(weight, bias, **how)(x), direct(x)):
            assert y[:, 3].isnan().all() and not y[:, :3].isnan().any() and not y[:, 4:].isnan().any()


@needs_kernels
@pytest.mark.parametrize("place", list(itertools.product(range(2), repeat=3)))
def test_a_pool_hides_no_missing_number(place):
    """Wherever in its window it stands, as in PyTorch."""
    x = numbers(1, 16, 2, 2, 2)
    x[(0, 5, *place)] = torch.nan
    assert MaxPool((2, 2, 2), (2, 2, 2), (0, 0, 0))(x).isnan().flatten().tolist() == [c == 5 for c in range(16)]
    identity, how = torch.eye(16).view(16, 16, 1, 1, 1), {"stride": (1, 1, 1), "padding": (0, 0, 0), "pool": (1, 2)}
    assert (
        DirectConvolution(identity, torch.zeros(16), **how)(x)[0, :, place[0]].isnan().all()
    )  # a sum over all channels


# ------------------------------------------------------------------------- refusals


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((12, 16, 3, 3, 3), {}),
        ((16, 12, 3, 3, 3), {}),
        ((16, 16, 2, 3, 3), {}),
        ((16, 16, 3, 1, 1), {}),
        ((16, 16, 3, 3, 5), {}),
        ((16, 16, 1, 3, 3), {"time_tile": 2}),
        ((16, 16, 3, 3, 3), {"time_tile": 3}),
        ((16, 16, 3, 3, 3), {"pool": (3, 3)}),
        ((16, 16, 3, 3, 3), {"pool": (1, 0)}),
        ((16, 4104, 1, 3, 3), {}),
        ((4104, 16, 1, 3, 3), {}),
    ],
    ids=str,
)
def test_no_winograd_convolution(shape, options):
    with pytest.raises(ValueError, match="no Winograd convolution|the pool is"):
        WinogradConvolution(torch.zeros(shape), torch.zeros(shape[0]), **options)


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "pool"),
    [((8, 3, 3, 3, 3), (1, 1)), ((24, 3, 3, 3, 3), (1, 1)), ((16, 3, 3, 3, 3), (2, 2)), ((16, 3, 9, 8, 3), (1, 1))],
    ids=str,
)
def test_no_direct_convolution(shape, pool):
    with pytest.raises(ValueError, match="no direct convolution"):
        DirectConvolution(torch.zeros(shape), torch.zeros(shape[0]), stride=(1, 1, 1), padding=(1, 1, 1), pool=pool)


@needs_kernels
@pytest.mark.parametrize(
    ("shape", "stride", "padding"),
    [
        ((16, 3, 1, 3, 3), (1, 1, 1), (0, 1, 1)),
        ((16, 3, 3, 3, 3), (2, 1, 1), (1, 1, 1)),
        ((16, 3, 3, 3, 3), (1, 1, 1), (0, 1, 1)),
        ((16, 16, 3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((24, 3, 3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((16, 3, 9, 3, 3), (1, 1, 1), (4, 1, 1)),
    ],
    ids=str,
)
def test_no_filtering_in_time(shape, stride, padding):
    with pytest.raises(ValueError, match="no convolution in time"):
        TimeConvolution(torch.zeros(shape), torch.zeros(shape[0]), stride=stride, padding=padding)


@needs_kernels
def test_inputs_that_do_not_fit():
    weight, bias = torch.zeros(16, 8, 3, 3, 3), torch.zeros(16)
    winograd = WinogradConvolution(weight, bias)
    direct = DirectConvolution(weight, bias, stride=(1, 1, 1), padding=(0, 0, 0))
    for convolution in (winograd, direct):
        with pytest.raises(ValueError, match="the input has 16 channels, not 8"):
            convolution(torch.zeros(1, 16, 4, 4, 4))
        for dtype in (torch.float64, torch.float16, torch.uint8):
            with pytest.raises(ValueError, match=f"float32 on the CPU, not {dtype} on cpu"):
                convolution(torch.zeros(1, 8, 4, 4, 4, dtype=dtype))
        with pytest.raises(ValueError, match="float32 on the CPU, not torch.float32 on meta"):
            convolution(torch.zeros(1, 8, 4, 4, 4, device="meta"))
        with pytest.raises(ValueError):
            convolution(torch.zeros(8, 4, 4, 4))
    x = torch.zeros(1, 8, 4, 4, 4)
    for shape in [(1, 8, 4, 4, 4), (2, 16, 4, 4, 4), (1, 16, 4, 4, 5), (1, 16, 1, 1, 1)]:
        with pytest.raises(ValueError, match="a residual of .* does not fit"):
            winograd(x, torch.zeros(shape))
    with pytest.raises(ValueError, match="not torch.float64"):
        winograd(x, torch.zeros(1, 16, 4, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="a residual of .* does not fit"):
        WinogradConvolution(weight, bias, pool=(1, 2))(x, torch.zeros(1, 16, 4, 2, 2))
    with pytest.raises(ValueError, match="a residual of .* does not fit"):
        direct(x, torch.zeros(1, 16, 4, 4, 4))
    time = TimeConvolution(weight, bias, stride=(1, 1, 1), padding=(1, 1, 1))
    with pytest.raises(ValueError, match="or there is a residual"):
        time(x, torch.zeros(1, 16, 4, 4, 4))
    with pytest.raises(ValueError, match="has 12 channels, no multiple of 8"):
        MaxPool((2, 2, 2), (2, 2, 2), (0, 0, 0))(torch.zeros(1, 12, 4, 4, 4))
    with pytest.raises(ValueError, match="more than half of the kernel"):
        MaxPool((2, 2, 2), (2, 2, 2), (2, 0, 0))
    with pytest.raises(ValueError, match="smaller than the kernel"):
        direct(torch.zeros(1, 8, 2, 4, 4))
    for make in (WinogradConvolution, lambda w, b: DirectConvolution(w, b, stride=(1, 1, 1), padding=(0, 0, 0))):
        for wrong in (torch.zeros(8), torch.zeros(16, 1), torch.zeros(16, device="meta")):
            with pytest.raises(ValueError, match="a bias of"):
                make(weight, wrong)


@needs_kernels
def test_no_clips_and_no_frames():
    winograd = WinogradConvolution(*parameters(16, 8, 3, 3, 3))
    assert winograd(torch.zeros(0, 8, 4, 4, 4)).shape == (0, 16, 4, 4, 4)
    direct = DirectConvolution(*parameters(16, 8, 3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))
    assert direct(torch.zeros(0, 8, 4, 4, 4)).shape == (0, 16, 4, 4, 4)
    point = DirectConvolution(*parameters(16, 24, 1, 1, 1), stride=(1, 1, 1), padding=(0, 0, 0))
    assert point(torch.zeros(0, 24, 4, 4, 4)).shape == (0, 16, 4, 4, 4)
    assert MaxPool((2, 2, 2), (2, 2, 2), (0, 0, 0))(torch.zeros(0, 8, 4, 4, 4)).shape == (0, 8, 2, 2, 2)


# ------------------------------------------------------------------------- the memory


@needs_kernels
def test_memory_is_given_back_and_taken_again():
    x = torch.randn(1, 8, 2, 5, 5)
    convolution = WinogradConvolution(torch.randn(8, 8, 3, 3, 3), torch.zeros(8))
    first = convolution(x)
    expected, place = first.clone(), first.data_ptr()
    memory.recycle(first)
    again = convolution(x)
    assert again.data_ptr() == place and torch.equal(again, expected)
    assert convolution(x).data_ptr() != place  # it is in use


def test_large_pages_are_asked_for_and_the_memory_is_whole():
    for num_floats in (1, 1000, memory.LARGE_PAGE_BYTES, 3_000_001):
        floats = memory.memory(num_floats)
        assert floats.shape == (num_floats,) and floats.dtype == torch.float32
        if num_floats >= memory.LARGE_PAGE_BYTES:
            assert floats.data_ptr() % memory.LARGE_PAGE_BYTES == 0
        floats.fill_(2.5)
        assert float(floats.double().sum()) == 2.5 * num_floats


@needs_kernels
def test_recycled_memory_lives_as_long_as_its_owner():
    class Owner:
        pass

    owner, x = Owner(), numbers(1, 8, 2, 5, 5)
    convolution = WinogradConvolution(*parameters(8, 8, 3, 3, 3))
    with memory.recycled_for(owner):
        first = convolution(x)
        place = first.data_ptr()
        memory.recycle(first)
    assert convolution(x).data_ptr() != place  # another's
    with memory.recycled_for(owner):
        assert convolution(x).data_ptr() == place
    kept = memory._kept.free_of[owner]
    assert len(memory._kept.free_of) and kept is not memory._kept.free
    before = len(memory._kept.free_of)
    del owner, first
    assert len(memory._kept.free_of) == before - 1
