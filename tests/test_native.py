"""engine/native.py: the kernels against PyTorch's convolution in float64, their bits, and what they refuse."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from featx.engine import native
from featx.engine.native import DirectConvolution, WinogradConvolution

needs_kernels = pytest.mark.skipif(native.kernels() is None, reason=native.why_not())

# Distance from float64 as a part of the largest number. F(4x4, 3x3) adds and subtracts multiples of up to 10 and divides by
# up to 576 on the way: it loses a digit and a half of the seven that a convolution as it is written keeps.
WINOGRAD, DIRECT = 5e-5, 2e-6


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def reference(x, weight, bias, *, stride=1, padding, relu=False, pool=(1, 1), residual=None):
    y = F.conv3d(x.double(), weight.double(), bias.double(), stride, padding)
    if residual is not None:
        y = y + residual.double()
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
    }
    return draw, shape, draw.choice([8, 16, 40, 88, 136]), options


@needs_kernels
@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(16, 200))])
def test_what_follows_a_winograd_convolution(seed, monkeypatch):
    draw, shape, c_out, options = drawn_case(seed)
    monkeypatch.setattr(native, "CHUNK_BYTES", draw.choice([12e6, 5e5, 1.0]))  # 1: a chunk a tile
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


@needs_kernels
@pytest.mark.parametrize("case", range(4))
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
            monkeypatch.setattr(native, "CHUNK_BYTES", chunk_bytes)
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
    with pytest.raises(ValueError, match="adds no residual"):
        direct(x, torch.zeros(1, 16, 2, 2, 2))
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


@needs_kernels
def test_the_processors_limit_is_a_number_of_its_kind():
    assert 1 < native.multiply_add_gflops(1, seconds=0.01) < 1000


# ------------------------------------------------------------------------- the library


@needs_kernels
@pytest.mark.long
def test_torch_and_the_kernels_share_one_pool_of_threads():
    """Both were linked to the same libgomp: the one that torch brings, or the system's."""
    code = (
        "from featx.engine import native; native.kernels(); import torch\n"
        "torch.set_num_threads(2); torch.relu(torch.zeros(1 << 22))\n"
        "names = {line.split()[-1] for line in open('/proc/self/maps') if '/libgomp' in line}\n"
        "print(len(names))"
    )
    maps = Path("/proc/self/maps")
    if not maps.exists() or not (Path(torch.__file__).parent / "lib/libgomp.so.1").exists():
        pytest.skip("this torch brings a libgomp under another name, or none")
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "1\n"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """As if the module lay in an empty folder."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    return tmp_path


def test_a_library_that_was_not_built(elsewhere):
    library, reason = native._load.__wrapped__()
    assert library is None and "were not built; they need a C++ compiler" in reason


def test_a_library_that_cannot_be_loaded(elsewhere):
    (elsewhere / "_native.abi3.so").write_bytes(b"nothing")
    library, reason = native._load.__wrapped__()
    assert library is None and reason.startswith("the native kernels cannot be loaded (") and "\n" not in reason


def test_a_processor_that_cannot_run_it(elsewhere, monkeypatch):
    (elsewhere / "_native.abi3.so").touch()
    monkeypatch.setattr(
        native.ctypes,
        "CDLL",
        lambda path: SimpleNamespace(featx_supported=lambda: 0, featx_interface=lambda: native.INTERFACE),
    )
    library, reason = native._load.__wrapped__()
    assert library is None and "has no AVX2, which the native kernels need" in reason


def test_a_library_of_other_sources(elsewhere, monkeypatch):
    """Its records may be laid out otherwise, so that it must not be called."""
    (elsewhere / "_native.abi3.so").touch()
    for old in (
        SimpleNamespace(featx_supported=lambda: 1),
        SimpleNamespace(featx_interface=lambda: native.INTERFACE - 1),
    ):
        monkeypatch.setattr(native.ctypes, "CDLL", lambda path, old=old: old)
        library, reason = native._load.__wrapped__()
        assert library is None and "are of another featx; install featx again" in reason


@needs_kernels
def test_memory_is_given_back_and_taken_again():
    x = torch.randn(1, 8, 2, 5, 5)
    convolution = native.WinogradConvolution(torch.randn(8, 8, 3, 3, 3), torch.zeros(8))
    first = convolution(x)
    expected, place = first.clone(), first.data_ptr()
    native.recycle(first)
    again = convolution(x)
    assert again.data_ptr() == place and torch.equal(again, expected)
    assert convolution(x).data_ptr() != place  # it is in use
