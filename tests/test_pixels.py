"""engine/pixels.py against the CPU's own steps, swscale's rule and featx/resize.py: the same pixels, on any device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from featx.catalog import CHECKPOINTS
from featx.engine.pixels import FORMS, Preparer, layouts_of, prepare
from featx.errors import VideoError
from featx.preprocess import Preprocess
from featx.resize import INTERPOLATIONS
from featx.yuv import Planes, planes_to_bgr, yuv_form

CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(
        torch.device("cuda"),
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]

# the cards, and one form of resize each that no card has: nothing to resize, far smaller, larger, cropped in a corner
PREPROCESS = {name: card.preprocess for name, card in sorted(CHECKPOINTS.items())} | {
    "as it is": Preprocess(crop=40),
    "corner": Preprocess(crop=30, crop_offset=(3, 5)),
    **{f"small {name}": Preprocess(crop=9, resize=(11, 14), interpolation=name) for name in INTERPOLATIONS},
    **{f"large {name}": Preprocess(crop=150, resize=190, interpolation=name) for name in INTERPOLATIONS},
}

SIZES = [(240, 320), (214, 161), (112, 149), (62, 91)]


BT601 = yuv_form(5, False)


def frames_of(size, num_frames=2, form=BT601, seed=0):
    """Noise as planes uint8 (n, bytes), and the same as BGR (n, H, W, 3)."""
    (height, width), half = size, ((size[0] + 1) // 2, (size[1] + 1) // 2)
    rng = np.random.default_rng(seed)
    luma_bytes, half_bytes = height * width, half[0] * half[1]
    rows = rng.integers(0, 256, (num_frames, luma_bytes + 2 * half_bytes), dtype=np.uint8)
    pictures = []
    for row in rows:
        luma, u, v = np.split(row, [luma_bytes, luma_bytes + half_bytes])
        pictures.append(planes_to_bgr(Planes(luma.reshape(size), u.reshape(half), v.reshape(half), form)))
    return torch.from_numpy(rows), torch.from_numpy(np.stack(pictures))


@pytest.fixture(scope="module")
def noise():
    return {size: frames_of(size) for size in SIZES}


def assert_equal_to(frames, expected, interpolation, device):
    assert frames.dtype == torch.uint8 and frames.is_contiguous() and frames.device.type == device.type
    difference = (frames.cpu().int() - expected.int()).abs()
    if interpolation == "bilinear-float":  # float32, whose last bit is the processor's; a grey level here and there
        assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3
    else:
        assert difference.max() == 0


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("name", PREPROCESS)
def test_pixels_are_those_of_the_cpu(noise, name, device):
    preprocess = PREPROCESS[name]
    for size in SIZES:
        if name.startswith(("r3d", "wide", "dense", "preres", "resne")) and name != "r3d18-k" and size != SIZES[0]:
            continue  # of Hara's many cards, which resize alike, one does for every size
        planes, pictures = noise[size]
        expected = preprocess.prepare_frames(pictures)
        (layout,) = layouts_of(preprocess, size, 1, device)
        for frames, form in ((planes, BT601), (pictures, None)):
            prepared = Preparer(device)(frames.to(device), layout, form)
            assert_equal_to(prepared, expected, layout.interpolation, device)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 7, 9])
@pytest.mark.parametrize("size", [(48, 64), (50, 41), (2, 3), (400, 600)])
def test_colours_are_swscales(matrix, full_range, size, device):
    """`planes_to_bgr` is proved equal to swscale in test_yuv.py."""
    form = yuv_form(matrix, full_range)
    planes, pictures = frames_of(size, 3, form)
    side = min(2, *size) if size[0] < 9 else 33
    for preprocess in (Preprocess(crop=side), Preprocess(crop=side, resize=side + 4)):
        (layout,) = layouts_of(preprocess, size, 1, device)
        prepared = Preparer(device)(planes.to(device), layout, form)
        assert_equal_to(prepared, preprocess.prepare_frames(pictures), layout.interpolation, device)


def test_any_number_of_frames():
    preprocess = CHECKPOINTS["c3d-sports1m"].preprocess
    (layout,) = layouts_of(preprocess, (48, 64), 1, CPU)
    planes, pictures = frames_of((48, 64), 7)
    whole = preprocess.prepare_frames(pictures)
    for count in (0, 1, 7):
        assert torch.equal(prepare(planes[:count], layout, BT601), whole[:count])


def test_frames_smaller_than_the_crop_are_refused():
    with pytest.raises(VideoError, match="20x10 pixels are smaller than the crop of 16"):
        layouts_of(Preprocess(crop=16), (10, 20), 1, CPU)


def test_every_interpolation_has_a_form():
    assert set(FORMS) == {*INTERPOLATIONS, "none"}


class TestPreparer:
    """Which of the two forms is taken, with a stand-in for Triton's kernel."""

    @pytest.fixture
    def prepared(self, monkeypatch):
        (layout,) = layouts_of(Preprocess(crop=30), (48, 64), 1, CPU)
        planes, pictures = frames_of((48, 64))

        def by(kernel):
            monkeypatch.setitem(
                sys.modules, "featx.engine.pixels_triton", types.SimpleNamespace(prepare=kernel) if kernel else None
            )
            monkeypatch.delattr("featx.engine.pixels_triton", raising=False)
            preparer = Preparer(CPU)
            preparer.note = ""  # as on a GPU
            for _ in range(2):
                assert torch.equal(preparer(planes, layout, BT601), prepare(pictures, layout, None))
            return preparer

        return by

    def test_on_the_cpu_there_is_none(self):
        assert Preparer(CPU).note == "Triton's kernel runs on GPUs only"

    def test_one_that_gives_the_same_is_taken(self, prepared):
        calls = []

        def kernel(*args):
            calls.append(1)
            return prepare(*args)

        assert prepared(kernel).note == "" and len(calls) == 2

    def test_one_that_gives_other_pixels_is_not(self, prepared):
        assert prepared(lambda *args: prepare(*args) + 1).note == "Triton's kernel gives other pixels"

    def test_one_that_fails_is_not(self, prepared):
        def kernel(*args):
            raise RuntimeError("no C compiler\nmore")

        assert prepared(kernel).note == "Triton's kernel cannot run (no C compiler)"

    def test_without_triton(self, prepared):
        assert prepared(None).note.startswith("Triton's kernel cannot run (import of")


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (pip install triton)")
@pytest.mark.parametrize(
    ("names", "size"),
    [
        (["small bilinear", "small bilinear-antialias", "small bilinear-float", "corner"], (33, 47)),
        pytest.param(["r3d18-k", "c3d-sports1m", "tv-r3d18-kinetics", "as it is"], (112, 149), marks=pytest.mark.long),
    ],
    ids=["small", "cards"],
)
def test_tritons_kernel_in_its_interpreter(names, size):
    """What the kernel computes, without a GPU; Triton reads when it is imported that it is to interpret."""
    program = (
        "import json, sys, torch; sys.path.insert(0, sys.argv[1]); import test_pixels as t\n"
        "from featx.engine import pixels_triton\n"
        "names, size = json.loads(sys.argv[2])\n"
        "for name in names:\n"
        "    (layout,) = t.layouts_of(t.PREPROCESS[name], tuple(size), 1, t.CPU)\n"
        "    planes, pictures = t.frames_of(tuple(size))\n"
        "    for frames, form in ((planes, t.BT601), (pictures, None)):\n"
        "        ours = pixels_triton.prepare(frames, layout, form)\n"
        "        t.assert_equal_to(ours, t.prepare(frames, layout, form), layout.interpolation, t.CPU)\n"
    )
    command = [sys.executable, "-c", program, os.path.dirname(__file__), json.dumps([names, size])]
    subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, check=True)


@pytest.mark.long
@pytest.mark.parametrize("capability", [70, 80, 90])
def test_tritons_kernel_compiles(capability):
    """Where Triton is installed: for GPUs of this kind, without one."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from featx.engine import pixels_triton

    for kind in pixels_triton.KINDS.values():
        for planar in (True, False):
            weights = "*fp32" if kind == pixels_triton.KINDS["bilinear-float"] else "*i32"
            signature = {"frames": "*u8", "out": "*u8", "rows": "*i32", "row_weights": weights, "columns": "*i32"}
            signature |= {"column_weights": weights} | dict.fromkeys(pixels_triton.NUMBERS.split(), "i32")
            constants = {"KIND": kind, "PLANAR": planar, "BLOCK": pixels_triton.BLOCK}
            signature |= dict.fromkeys(constants, "constexpr")
            source = ASTSource(fn=pixels_triton._prepare, signature=signature, constexprs=constants)
            assert "cubin" in triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tritons_kernel_is_taken_on_a_gpu():
    """Where this fails, the pixels are right and slow: `note` says why."""
    pytest.importorskip("triton")
    device, preparer = torch.device("cuda"), Preparer(torch.device("cuda"))
    for name in ("r3d18-k", "c3d-sports1m", "tv-r3d18-kinetics", "as it is"):
        (layout,) = layouts_of(PREPROCESS[name], (112, 149), 1, device)
        planes, pictures = frames_of((112, 149))
        preparer(planes.to(device), layout, BT601)
        preparer(pictures.to(device), layout, None)
        assert preparer.note == "", name
