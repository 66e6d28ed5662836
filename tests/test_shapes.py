"""backbones/shapes.py: the rules give what PyTorch gives, and spare a run PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from featx.backbones.shapes import ShapesOnly

VIDEO = Path(__file__).parents[1] / "examples/videos/Wave/v_Wave_g01_c01.mp4"


def empty(*size, dtype=torch.float32):
    return torch.empty(size, dtype=dtype, device="meta")


def convolve(*size, sides=3, channels=4, groups=1, bias=True, **options):
    weight = empty(6, channels // groups, *size)
    return (F.conv3d if sides == 3 else F.conv2d)(
        empty(2, 4, *(7, 9, 8)[:sides]), weight, empty(6) if bias else None, groups=groups, **options
    )


def pool(kernel, *, max_pool=True, **options):
    return (F.max_pool3d if max_pool else F.avg_pool3d)(empty(2, 4, 7, 9, 8), kernel, **options)


CALLS = {
    "3x3x3": lambda: convolve(3, 3, 3, padding=1),
    "strides": lambda: convolve(3, 5, 7, stride=(1, 2, 3), padding=(0, 2, 3), bias=False),
    "dilation": lambda: convolve(3, 3, 3, dilation=(3, 2, 1), padding=(1, 0, 1)),
    "groups": lambda: convolve(1, 1, 1, groups=2, stride=2),
    "padding by name": lambda: convolve(3, 3, 3, padding="same"),
    "2d": lambda: convolve(3, 3, sides=2, padding=1, stride=2),
    "one clip": lambda: F.conv3d(empty(4, 7, 9, 8), empty(6, 4, 3, 3, 3)),
    "channels last": lambda: F.conv3d(
        empty(2, 4, 7, 9, 8).contiguous(memory_format=torch.channels_last_3d), empty(6, 4, 3, 3, 3)
    ),
    "too large a kernel": lambda: convolve(9, 3, 3),
    "wrong channels": lambda: convolve(3, 3, 3, channels=5),
    "wrong groups": lambda: convolve(3, 3, 3, groups=4),
    "wrong bias": lambda: F.conv3d(empty(1, 4, 7, 9, 8), empty(6, 4, 3, 3, 3), empty(5)),
    "negative padding": lambda: convolve(3, 3, 3, padding=-1),
    "pool": lambda: pool(2),
    "pool strides": lambda: pool((1, 3, 2), stride=(1, 2, 3), padding=(0, 1, 1)),
    "pool up": lambda: pool((2, 2, 2), ceil_mode=True),
    "pool up, padded": lambda: pool((1, 2, 3), stride=(1, 2, 4), padding=(0, 1, 1), ceil_mode=True),
    "pool up, large strides": lambda: pool(2, stride=5, padding=1, ceil_mode=True),
    "pool dilated": lambda: pool(2, dilation=3, ceil_mode=True),
    "pool too large": lambda: pool((8, 1, 1)),
    "pool padded too much": lambda: pool(2, padding=2),
    "average": lambda: pool((7, 3, 2), max_pool=False, stride=1),
    "average up": lambda: pool(2, max_pool=False, ceil_mode=True, count_include_pad=False),
    "average one clip": lambda: F.avg_pool3d(empty(4, 7, 9, 8), 2),
    "norm": lambda: F.batch_norm(empty(2, 4, 7, 9, 8), empty(4), empty(4), empty(4), empty(4)),
    "norm without": lambda: F.batch_norm(empty(2, 4), empty(4), empty(4)),
    "add": lambda: empty(2, 4, 3) + empty(2, 4, 3),
    "add rows": lambda: empty(2, 1, 3) * empty(2, 4, 1),
    "add fewer sides": lambda: empty(2, 4, 3) + empty(3),
    "add a number": lambda: empty(2, 4, 3) * 2.5,
    "add whole numbers": lambda: empty(2, 4, dtype=torch.int64) + 0.5,
    "add other types": lambda: empty(2, 4) + empty(2, 4, dtype=torch.float64),
    "add turned": lambda: empty(2, 4, 3).transpose(1, 2) + empty(2, 3, 4),
    "add wrong": lambda: empty(2, 4, 3) + empty(2, 4, 4),
    "add to a part": lambda: empty(2, 4, 3)[:, :2].add_(empty(2, 2, 3)),
    "add in place, wrong": lambda: empty(2, 1, 3).add_(empty(2, 4, 3)),
    "change of parts": lambda: empty(2, 4, 3)[:, 1:] - empty(2, 4, 3)[:, :-1],
    "change of parts of one": lambda: empty(1, 4, 2, 3)[:, :, 1:] - empty(1, 4, 2, 3)[:, :, :-1],
    "change of a part": lambda: empty(2, 4, 3)[:, ::2] - empty(2, 2, 3),
    "change of parts, turned": lambda: empty(2, 4, 3).transpose(1, 2)[:, 1:] - empty(2, 4, 3).transpose(1, 2)[:, 1:],
    "change of parts, wrong": lambda: empty(2, 4, 3)[:, 1:] - empty(2, 4, 3),
    "change of wholes and halves": lambda: empty(2, 4) - empty(2, 4, dtype=torch.float16),
    "size": lambda: empty(2, 4, 3).abs(),
    "size of a part": lambda: empty(2, 4, 3)[:, 1:].abs(),
    "size of whole numbers": lambda: empty(2, 4, dtype=torch.int64).abs(),
    "at least": lambda: empty(2, 4, 3).clamp_min(1e-6),
    "power": lambda: empty(2, 4) ** 0.5,
    "power of whole numbers": lambda: empty(2, 4, dtype=torch.int64) ** 0.5,
    "power of another type": lambda: empty(2, 4) ** 1j,
    "root": lambda: empty(2, 4).sqrt(),
    "relu": lambda: F.relu(empty(2, 4, 3)),
    "cat": lambda: torch.cat([empty(2, 4, 3), empty(2, 5, 3)], 1),
    "cat from the end": lambda: torch.cat([empty(2, 4, 3), empty(2, 4, 1)], -1),
    "cat wrong": lambda: torch.cat([empty(2, 4, 3), empty(2, 5, 2)], 1),
    "cat far": lambda: torch.cat([empty(2, 4, 3)], 3),
    "linear": lambda: F.linear(empty(2, 7, 4), empty(5, 4), empty(5)),
    "linear wrong": lambda: F.linear(empty(2, 3), empty(5, 4)),
    "mean": lambda: empty(2, 4, 3, 5).mean((2, -1)),
    "mean kept": lambda: empty(2, 4, 3, 5).mean((-1, 1), keepdim=True),
    "mean of all": lambda: empty(2, 4, 3).mean(),
    "mean twice": lambda: empty(2, 4, 3).mean((1, -2)),
    "mean far": lambda: empty(2, 4, 3).mean(3),
    "mean as": lambda: empty(2, 4, 3).mean(1, dtype=torch.float64),
    "softmax": lambda: F.softmax(empty(2, 4), dim=1),
    "softmax far": lambda: F.softmax(empty(2, 4), dim=2),
    "softmax as": lambda: F.softmax(empty(2, 4), dim=1, dtype=torch.float64),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_gives_what_pytorch_gives(call):
    def outcome():
        try:
            with torch.inference_mode():
                y = call()
        except (RuntimeError, IndexError) as error:
            return type(error)
        return y.shape, y.dtype, y.stride(), y.device.type

    expected = outcome()
    with ShapesOnly():
        assert outcome() == expected


def modules_after(command: list[str]) -> set[str]:
    code = (
        "import sys, featx.cli\ntry: featx.cli.main(sys.argv[1:])\n"
        "except SystemExit: print(*{name.partition('.')[0] for name in sys.modules}, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        (["extract", str(VIDEO), "-o", "f.h5"], {"torch._dynamo", "sympy", "sklearn", "scipy"}),
        (["models", "c3d"], {"torch._dynamo", "sympy", "sklearn", "h5py"}),
        (["extract", str(VIDEO), "-o", "f.h5", "--backbone", "c3d-sprots1m"], {"torch", "h5py"}),
        (["extract", str(VIDEO), "-o", "f.h5", "--layer", "fc6"], {"torch", "h5py"}),
        (["classify", str(VIDEO), "--variant", "port"], {"torch", "h5py"}),
    ],
    ids=lambda x: " ".join(x[0:1] + x[-2:]) if isinstance(x, list) else "",
)
def test_a_command_loads_no_more_than_it_needs(command, spared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not modules_after(command) & spared
