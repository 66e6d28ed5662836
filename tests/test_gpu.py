"""The GPU engine on a GPU: the CPU's numbers, equal bits, and what is recorded."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from test_engine_plan import ONE_OF_EACH, wide
from test_run import same_features

import featx
from featx import checkpoints
from featx.catalog import get_checkpoint
from featx.engine import GPU_ENGINES, Engine, unavailable
from featx.engine.cuda import Captured, Plans, cuda_seconds
from featx.engine.folded import FusedConvolution
from featx.engine.precision import PRECISIONS, agreement, arithmetic
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.plan import plan_videos
from featx.preprocess import Preprocess
from featx.run import extract_to

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
GPU = torch.device("cuda")
LIMITS = {"fp32": 1e-9, "tf32": 1e-5, "bf16": 5e-3, "fp16": 1e-4}


def clips(num, length=8, side=112, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (length, side, side, 3), generator=generator, dtype=torch.uint8) for _ in range(num)]


@pytest.fixture(scope="module")
def mini():
    card = get_checkpoint("res3d-mini")
    return checkpoints.load(card).backbone, card.preprocess


def engine(mini, **options):
    return Engine(mini[0], mini[1], ["res5b", "pool5"], length=8, device=GPU, **{"batch_size": 8, **options})


@pytest.mark.parametrize("architecture", ONE_OF_EACH)
@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("form", ["torch", "folded", "cudnn"])
def test_every_form_of_every_kind_of_net(architecture, precision, form):
    if form == "torch" and precision not in ("fp32", "tf32"):
        pytest.skip("the network as it is written is float32")
    net, (channels, length, side, width) = wide(architecture)
    if channels != 3 or side != width:
        pytest.skip("clips are square")
    given = torch.stack(clips(3, length, side))
    plans = Plans(net.eval(), Preprocess(crop=side, mean=(110.0,) * 3), net.layer_names[-2:], given.shape, GPU)
    found = {layer: x.float().cpu() for layer, x in plans.make(form, precision)(given.to(GPU)).items()}
    assert agreement(found, plans.on_cpu(given), 3) < LIMITS[precision]


@pytest.mark.parametrize("name", GPU_ENGINES)
def test_every_engine(name, mini):
    if unavailable(name, "cuda"):
        pytest.skip(unavailable(name, "cuda"))
    made, given = engine(mini, name=name, precision="fp16"), clips(8)
    expected = Engine(
        mini[0], mini[1], ["res5b", "pool5"], length=8, device=torch.device("cpu"), name="torch", batch_size=8
    )
    found, right = made.run(given), expected.run(given)
    as_tensors = ({layer: torch.from_numpy(x) for layer, x in values.items()} for values in (found, right))
    assert agreement(*as_tensors, 8) < LIMITS["fp16"]
    again = made.run(given)
    assert all(np.array_equal(found[layer], again[layer]) for layer in found)


@pytest.mark.parametrize("name", ["folded-graph", "cudnn-graph"])
def test_equal_clips_give_equal_bits_in_any_batch_and_engine(name, mini):
    one, two = (engine(mini, name=name, precision="fp16") for _ in range(2))
    given = clips(8)
    together, backwards = one.run(given)["pool5"], two.run(given[::-1])["pool5"]
    assert np.array_equal(together, backwards[::-1])
    assert np.array_equal(one.run(given[:3])["pool5"], together[:3])


def test_many_batches_on_their_way_come_back_right(mini):
    made, given = engine(mini, name="folded-graph", precision="fp32"), clips(40)
    made.settle(given[:8])
    alone = [made.run(given[i : i + 8])["pool5"] for i in range(0, 40, 8)]
    handles = []
    for i in range(0, 40, 8):
        batch = [clip.clone() for clip in given[i : i + 8]]
        handles.append(made.submit(batch))
        for clip in batch:
            clip.zero_()
    for handle, expected in zip(handles, alone, strict=True):
        assert np.array_equal(handle.result()["pool5"], expected)
        assert handle.forward_seconds > 0 and handle.copy_seconds > 0


def test_clips_that_are_on_the_gpu_already(mini):
    made, given = engine(mini, name="folded", precision="fp32"), clips(8)
    expected, stream, event = made.run(given)["pool5"], torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        there = [clip.to(GPU, non_blocking=True) for clip in given]
        event.record(stream)
    handle = made.submit(there, [event])
    assert np.array_equal(handle.result()["pool5"], expected) and handle.taken.query()


def test_auto_is_chosen_told_recorded_and_kept(clips_folder, tmp_path):
    notes = []
    extract_to(clips_folder / "cat", tmp_path / "f.h5", device="cuda", on_note=notes.append)
    with featx.open(tmp_path / "f.h5") as features:
        made = features.provenance
    assert made.precision in PRECISIONS[1:] and made.engine.endswith("-cuda") and made.batch_size >= 1
    assert any("precision" in note for note in notes) and any("the network runs as" in note for note in notes)
    notes.clear()
    extract_to([clips_folder / "cat", clips_folder / "dog"], tmp_path / "f.h5", on_note=notes.append)
    assert not any("the network runs as" in note for note in notes)
    if not made.engine.removesuffix("-cuda").endswith("-search"):
        options = {"device": "cuda", "precision": made.precision, "batch_size": made.batch_size}
        inputs = [clips_folder / "cat", clips_folder / "dog"]
        extract_to(inputs, tmp_path / "whole.h5", engine=made.engine.removesuffix("-cuda"), **options)
        assert same_features(tmp_path / "f.h5", tmp_path / "whole.h5")


def test_fp32_descriptors_are_the_cpus(clips_folder):
    items = plan_videos([clips_folder])
    found = []
    for options in ({"device": "cpu", "engine": "torch"}, {"device": "cuda", "precision": "fp32"}):
        with Extractor(layers=["pool5"], **options) as extractor:
            found.append({f.key: f.descriptors["pool5"] for f in extractor.extract_many(items)})
    for key, cpu in found[0].items():
        assert 1 - float(cpu @ found[1][key]) < 1e-6


def test_memory_that_is_full_halves_the_batch(mini, monkeypatch):
    made, notes = engine(mini, batch_size=8, name="folded", precision="fp32"), []
    made.on_note = notes.append
    make = Plans.make

    def full(self, plan, precision):
        if self.batch_shape[0] > 4:
            torch.empty(2**50, dtype=torch.uint8, device=GPU)
        return make(self, plan, precision)

    monkeypatch.setattr(Plans, "make", full)
    assert made.run(clips(8))["pool5"].shape[0] == 8 and made.batch_size == 4 and len(notes) == 1


def test_the_batch_fits_into_the_memory(mini):
    assert engine(mini, batch_size=None).batch_size >= 8


def test_a_capture_that_fails_leaves_nothing_behind(mini):
    stream, block = torch.cuda.current_stream(), 64 * 2**20
    with pytest.raises(RuntimeError):
        Captured(
            lambda batch: {"a": batch.float() * float(batch.sum())}, torch.ones(4, device=GPU)
        )  # which has to wait
    assert torch.cuda.current_stream() == stream
    made, given = engine(mini, name="folded-graph", precision="fp32"), clips(8)
    assert np.array_equal(made.run(given)["pool5"], engine(mini, name="folded", precision="fp32").run(given)["pool5"])
    torch.cuda.empty_cache()
    before, other = torch.cuda.memory_reserved(), torch.cuda.Stream()
    for _ in range(20):  # memory that two streams share comes back
        torch.empty(block, dtype=torch.uint8, device=GPU).record_stream(other)
        torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() - before <= 4 * block


@pytest.mark.parametrize("invalidates", [True, False])
def test_a_capture_that_fails_gives_its_memory_back(invalidates):
    """Once: of what is given back twice PyTorch makes an end of the process."""
    size, num_calls, example = 256 * 2**20, 0, torch.ones(4, device=GPU)

    def forward(batch):
        nonlocal num_calls
        num_calls += 1
        kept = torch.zeros(size, dtype=torch.uint8, device=GPU)
        if invalidates:
            float(batch.sum() if num_calls > Captured.WARM_UP else 0)  # which has to wait
        elif num_calls > Captured.WARM_UP:
            raise ValueError("no matter of the GPU's")
        return {"a": kept}

    def fail():
        try:
            Captured(forward, example)
        except (RuntimeError, ValueError):
            return
        raise AssertionError("the capture has not failed")

    def reserved():
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    before = reserved()
    fail()
    assert num_calls == Captured.WARM_UP + 1 and reserved() - before < size
    assert float(Captured(lambda batch: {"a": batch + 1}, example)(example)["a"][0]) == 2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_memory_held_before_does_not_reach_the_results(mini, precision):
    """Of what cuDNN's fused kernels write nothing is read first, though they are given it to add, 0 times; NaN would stay."""
    given = torch.stack(clips(8)).to(GPU)
    plans = Plans(mini[0].eval(), mini[1], ["res5b", "pool5"], given.shape, GPU)
    expected = {layer: x.float() for layer, x in plans.make("folded", precision)(given).items()}
    torch.cuda.synchronize()
    large, small = (
        [torch.full((size,), torch.nan, device=GPU) for _ in range(num)] for size, num in ((2**28, 4), (2**16, 999))
    )
    del large, small
    net = plans.net("cudnn", precision)
    pixels = plans.pixels(net)
    with torch.no_grad(), arithmetic(precision):
        found = {layer: x.float() for layer, x in net(pixels(given)).items()}
    assert any(module.works for module in net.modules() if isinstance(module, FusedConvolution))
    assert all(bool(x.isfinite().all()) for x in found.values())
    assert agreement(found, expected, 8) < LIMITS[precision]


def test_nets_that_are_not_taken_are_gone(mini):
    def num_nets():
        return sum(isinstance(each, torch.fx.GraphModule) for each in gc.get_objects())

    gc.collect()
    made, before = engine(mini), num_nets()
    made.settle(clips(8))
    assert num_nets() - before == 1


@pytest.mark.parametrize("name", ["folded-graph", "cudnn-graph"])
def test_what_a_graph_reads_lives_as_long_as_it(mini, name):
    """Whatever the memory that was free is used for in the meantime."""
    made, given = engine(mini, name=name, precision="fp16"), clips(8)
    made.settle(given)
    before = made.run(given)
    gc.collect()
    torch.cuda.empty_cache()
    others = [
        torch.full((size,), torch.nan, device=GPU)
        for size, num in ((2**27, 4), (2**22, 64), (2**18, 512), (2**10, 4096))
        for _ in range(num)
    ]
    torch.cuda.synchronize()
    after = made.run(given)
    assert all(np.isfinite(x).all() and np.array_equal(x, after[layer]) for layer, x in before.items())
    assert bool(others[0].isnan().all())  # which were there all the time


@pytest.mark.parametrize("room", [100, 200, 400, 800])  # MB
@pytest.mark.parametrize("name", ["folded", "cudnn", "auto"])
def test_memory_that_is_really_full(mini, name, room):
    """By whatever words the libraries tell of it, batches become smaller, or the user is told."""
    given, expected = clips(8), engine(mini, name="folded", precision="fp32").run(clips(8))
    made = engine(mini, batch_size=128, name=name, precision="fp32")
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room * 2**20) / total)
    try:
        found = made.run(given)
    except UsageError as error:
        assert "memory" in str(error)
        return
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    as_tensors = ({layer: torch.from_numpy(x) for layer, x in values.items()} for values in (found, expected))
    assert agreement(*as_tensors, 8) < LIMITS["fp32"]


@pytest.mark.parametrize("word", ["high", "medium"])
def test_what_the_program_around_has_set(mini, word):
    """PyTorch's compiler asks for it, and got an error where switches contradict each other."""
    if unavailable("compile", "cuda"):
        pytest.skip(unavailable("compile", "cuda"))
    given = clips(8)
    expected, before = engine(mini, name="folded", precision="fp32").run(given), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(word)
    try:
        found = engine(mini, name="compile", precision="fp32").run(given)
        assert torch.get_float32_matmul_precision() == word
    finally:
        torch.set_float32_matmul_precision(before)
    as_tensors = ({layer: torch.from_numpy(x) for layer, x in values.items()} for values in (found, expected))
    assert agreement(*as_tensors, 8) < LIMITS["fp32"]


def test_the_clock_of_the_gpu():
    x = torch.rand(2048, 2048, device=GPU)
    assert cuda_seconds(lambda _: x @ x, x) > 0
