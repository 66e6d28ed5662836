"""engine: which one runs, what is said of it, and that a run keeps to the one that it began with."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import run
from test_graph import Net
from test_run import same_features
from torch import nn

import featx
from featx import checkpoints, parts
from featx.catalog import get_checkpoint
from featx.engine import (
    ENGINES,
    REVISIONS,
    TOLERANCE,
    Engine,
    choose_device,
    described,
    layers,
    native,
    unavailable,
)
from featx.engine.probe import probe_clip
from featx.errors import UnknownNameError, UsageError
from featx.extractor import Extractor
from featx.run import extract_to

CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(native.kernels() is None, reason=native.why_not())
NONE_BUILT = "the native kernels were not built"
pytestmark = pytest.mark.usefixtures("prepared_anew")


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def card():
    return get_checkpoint("res3d-mini")


@pytest.fixture(scope="module")
def backbone(card):
    return checkpoints.load(card).backbone


@pytest.fixture
def make(card, backbone):
    def make(name="auto", *, net=backbone, layers=("res5b", "pool5"), batch_size=2):
        return Engine(net, card.preprocess, layers, length=8, device=CPU, batch_size=batch_size, name=name)

    return make


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: (None, NONE_BUILT))


@pytest.fixture
def no_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)


def clips(num_clips=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (8, 112, 112, 3), generator=generator, dtype=torch.uint8) for _ in range(num_clips)]


def conv_net(function):
    return Net(function, lambda net, x: x.flatten(3).mean(3), conv=nn.Conv3d(3, 16, 3, padding=1)).eval()


# ------------------------------------------------------------------------- which one runs


def test_the_first_that_the_machine_has_is_taken(make):
    engine = make()
    expected = next(name for name in ENGINES if not unavailable(name))
    assert engine.name == expected and described(engine.description) == (expected, "cpu")
    assert bool(engine.note) == (expected != "winograd")


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_that_is_asked_for(name, make):
    if unavailable(name):
        pytest.skip(unavailable(name))
    engine = make(name)
    assert (engine.name, engine.note) == (name, "")
    ours, plain = engine.run(clips()), make("torch").run(clips())
    assert list(ours) == ["res5b", "pool5"]
    for layer, values in plain.items():
        assert ours[layer].shape == values.shape == (2, engine_dims(layer)) and ours[layer].dtype == np.float32
        assert np.abs(ours[layer] - values).max() <= TOLERANCE * np.abs(values).max()


def engine_dims(layer):
    return get_checkpoint("res3d-mini").layers[layer]


def test_engines_differ_in_their_last_bits(make):
    """Else this file would prove nothing."""
    if unavailable("winograd"):
        pytest.skip(unavailable("winograd"))
    values = [make(name).run(clips())["res5b"] for name in ("winograd", "torch")]
    assert not np.array_equal(*values)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("num_threads", [1, pytest.param(3, marks=pytest.mark.long)])
def test_equal_clips_give_equal_bits_in_any_batch(name, num_threads, make):
    if unavailable(name):
        pytest.skip(unavailable(name))
    torch.set_num_threads(num_threads)
    engine, (one, two, three) = make(name, batch_size=3), clips(3)
    together = engine.run([one, two, three])["res5b"]
    for batch in ([one], [one, three], [one, one]):
        assert np.array_equal(engine.run(batch)["res5b"][0], together[0])
    assert np.array_equal(engine.run([three, two, one])["res5b"][::-1], together)


def test_names_that_cannot_be(make):
    with pytest.raises(UnknownNameError, match="unknown engine 'winogard'; did you mean 'winograd'"):
        make("winogard")


def test_an_engine_that_is_not_there(make, no_kernels):
    assert unavailable("winograd") == NONE_BUILT
    with pytest.raises(UsageError, match=f"'winograd' was asked for, but {NONE_BUILT}; '--engine torch' goes without"):
        make("winograd")
    engine = make()
    assert engine.name == "onednn"
    assert engine.note == f"the engine is 'onednn', since {NONE_BUILT}; it costs speed only"
    assert make("onednn").note == ""


def test_neither_kernels_nor_onednn(make, no_kernels, no_onednn):
    engine = make()
    assert engine.name == "torch" and engine.note.count("\n") == 0 and NONE_BUILT in engine.note
    assert unavailable("onednn") == f"this torch, {torch.__version__} for {platform.machine()}, is built without oneDNN"
    with pytest.raises(UsageError, match="'onednn' was asked for, but this torch.* without oneDNN"):
        make("onednn")


def test_kernels_without_onednn(make, no_onednn, monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: (object(), ""))
    assert "without oneDNN" in unavailable("winograd")


def test_engines_of_a_gpu():
    assert unavailable("torch", "cuda") == ""
    for name in ("winograd", "onednn"):
        assert unavailable(name, "cuda") == f"the engine '{name}' runs on the CPU only"
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(("asked", "expected"), [("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda:2", "cuda:2")])
def test_a_gpu_without_a_number_stays_the_one_that_it_was(card, backbone, monkeypatch, asked, expected):
    given = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr("featx.engine.Dispatch", lambda *args, device, **options: given.append(device))
    engine = Engine(backbone, card.preprocess, ["pool5"], length=8, device=torch.device(asked))
    assert [engine.device, *given] == [torch.device(expected)] * 2


# ------------------------------------------------------------------------- the check at the start


@needs_kernels
def test_a_kernel_that_computes_wrongly_is_left_out(make, monkeypatch):
    """One number in one place is enough."""
    right = make("torch").run(clips())
    call = layers.WinogradConvolution.__call__

    def wrong(self, x, residual=None):
        y = call(self, x, residual)
        y[:, 3, 0, 2, 1] += 0.5 * y.abs().max()
        return y

    monkeypatch.setattr(layers.WinogradConvolution, "__call__", wrong)
    engine = make()
    assert engine.name == "torch"
    assert "the engine is 'torch', since of 'winograd' res5b differs from plain torch's by" in engine.note
    assert engine.note.endswith("; it costs speed only") and "\n" not in engine.note
    for layer, values in engine.run(clips()).items():
        assert np.array_equal(values, right[layer])
    with pytest.raises(
        UsageError, match="'winograd' was asked for, .*, but res5b differs .*; '--engine torch' goes without"
    ):
        make("winograd")
    assert make("onednn").name == "onednn"


@needs_kernels
def test_what_is_no_number_is_no_agreement(make, monkeypatch):
    call = layers.TimeConvolution.__call__
    monkeypatch.setattr(layers.TimeConvolution, "__call__", lambda self, x, residual=None: call(self, x) * torch.nan)
    assert make().name == "torch"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda net, x: net.conv(x).max(1).values[:, None], "not one tensor"),
        (lambda net, x: net.conv(x).view(x.shape[0], 2, -1, 1), "depend on the number of clips"),
        (lambda net, x: net.conv(x) * (1 if x.mean() > 0 else 2), "it cannot run this network"),
        (lambda net, x: net.conv(x).view(-1, 16 * 8, 112 * 112, 1), "it cannot run this network (view size"),
    ],
    ids=range(4),
)
def test_a_network_that_cannot_be_written_down_runs_as_it_is(function, words, make):
    if unavailable("onednn"):
        pytest.skip(unavailable("onednn"))
    net = conv_net(function)
    engine = make(net=net, layers=["layer1"])
    assert engine.name == "torch" and words in engine.note and "\n" not in engine.note
    assert np.array_equal(
        engine.run(clips())["layer1"], make("torch", net=net, layers=["layer1"]).run(clips())["layer1"]
    )
    with pytest.raises(UsageError, match="'onednn' was asked for, .*, but it cannot run this network"):
        make("onednn", net=net, layers=["layer1"])


def test_a_network_that_changes_its_input(make):
    engine = make(net=conv_net(lambda net, x: net.conv(x.mul_(2).add_(1))), layers=["layer1"])
    assert engine.name == next(name for name in ENGINES if not unavailable(name))


@pytest.mark.parametrize("shape", [(2, 16, 112, 112, 3), (1, 1, 5, 3, 3), (1, 3, 9, 20, 3)])
def test_the_clip_of_the_check_is_always_the_same(shape):
    clip = probe_clip(torch.empty(shape))
    assert clip.shape == (1, *shape[1:]) and clip.dtype == torch.uint8
    assert torch.equal(clip, probe_clip(torch.empty(shape)))
    assert clip.float().std() > 10


# ------------------------------------------------------------------------- a run keeps its engine


def engine_of(path):
    with featx.open(path) as features:
        return features.provenance.engine


def test_a_run_that_goes_on_keeps_the_engine(clips_folder, tmp_path):
    output, whole, notes = tmp_path / "f.h5", tmp_path / "whole.h5", []
    extract_to(clips_folder, whole, engine="torch")
    shutil.copytree(clips_folder / "cat", tmp_path / "clips/cat")
    extract_to(tmp_path / "clips", output, engine="torch")
    shutil.copytree(clips_folder / "dog", tmp_path / "clips/dog")
    assert extract_to(tmp_path / "clips", output, on_note=notes.append).num_videos == 2
    assert (engine_of(output), notes) == ("torch-cpu", [])
    assert same_features(output, whole)


def test_another_engine_is_told(clips_folder, tmp_path):
    if unavailable("onednn"):
        pytest.skip(unavailable("onednn"))
    output, notes = tmp_path / "f.h5", []
    extract_to(clips_folder / "cat", output, engine="torch")
    extract_to([clips_folder / "cat", clips_folder / "dog/001.avi"], output, engine="onednn", on_note=notes.append)
    assert len(notes) == 1 and "was begun with the engine torch-cpu; onednn-cpu agrees with it to rounding" in notes[0]


@needs_kernels
def test_an_interrupted_run_goes_on_with_the_same_bits(clips_folder, tmp_path, monkeypatch):
    whole, output = tmp_path / "whole.h5", tmp_path / "f.h5"
    extract_to(clips_folder / "dog", whole, layers=["res5b", "pool5"], engine="winograd")
    monkeypatch.setattr(parts, "PART_SECONDS", 0)

    def interrupt(result):
        raise KeyboardInterrupt

    torch.set_num_threads(2)
    with pytest.raises(KeyboardInterrupt):
        extract_to(clips_folder / "dog", output, layers=["res5b", "pool5"], on_result=interrupt)
    torch.set_num_threads(1)
    assert extract_to(clips_folder / "dog", output, layers=["res5b", "pool5"]).num_present == 1
    assert engine_of(output) == engine_of(whole) == "winograd3-cpu"
    assert same_features(output, whole)


@needs_kernels
def test_a_run_that_goes_on_where_the_kernels_are_missing(clips_folder, tmp_path, monkeypatch):
    output, notes = tmp_path / "f.h5", []
    extract_to(clips_folder / "cat", output, engine="winograd")
    monkeypatch.setattr(native, "_load", lambda: (None, NONE_BUILT))
    extract_to([clips_folder / "cat", clips_folder / "dog/001.avi"], output, on_note=notes.append)
    assert len(notes) == 2 and NONE_BUILT in notes[0] and "begun with the engine winograd3-cpu; onednn-cpu" in notes[1]


def test_the_extractor_passes_it_on():
    with Extractor(engine="torch") as extractor:
        assert extractor.engine.name == "torch" and extractor.provenance.engine == "torch-cpu"
    with pytest.raises(UnknownNameError, match="unknown engine"):
        Extractor(engine="fast")


# ------------------------------------------------------------------------- the command line


def test_info_engine(capsys):
    code, out, _ = run(capsys, "info", "--engine")
    taken = next(name for name in ENGINES if not unavailable(name, choose_device("auto").type))
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"engine    {taken} on ") and f"{torch.get_num_threads()} threads, torch " in lines[0]
    assert [line.split()[0] for line in lines[1:-1]] == list(ENGINES)
    assert lines[-2:] == ["    torch     available", "precision fp32; with --precision fp32, bf16"]


def test_info_engine_says_what_is_missing(capsys, no_kernels, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, _ = run(capsys, "info", "--engine")
    assert code == 0 and f"    winograd  {NONE_BUILT}" in out.splitlines() and out.startswith("engine    onednn on cpu")
    code, out, _ = run(capsys, "info", "--engine", "--json")
    info = json.loads(out)
    assert code == 0 and info == {
        "device": "cpu",
        "engine": "onednn",
        "unavailable": {"winograd": NONE_BUILT, "onednn": "", "torch": ""},
        "precisions": {"fp32": "", "tf32": "tf32 needs a GPU", "bf16": "", "fp16": "fp16 needs a GPU"},
        "gpus": [],
    }


def test_an_engine_and_threads_on_the_command_line(capsys, clips_folder, tmp_path, no_kernels):
    video, output = clips_folder / "dog/001.avi", tmp_path / "f.h5"
    code, _, err = run(capsys, "extract", video, "-o", output, "--engine", "winograd")
    assert code == 2 and f"'winograd' was asked for, but {NONE_BUILT}" in err.splitlines()[-1]
    code, out, _ = run(capsys, "extract", video, "-o", output, "--threads", 3)
    assert code == 0 and torch.get_num_threads() == 3
    assert f"the engine is 'onednn', since {NONE_BUILT}; it costs speed only" in out
    assert engine_of(output) == "onednn-cpu"
    code, _, _ = run(capsys, "extract", video, "-o", output, "--overwrite", "--engine", "torch", "--threads", 1)
    assert code == 0 and torch.get_num_threads() == 1 and engine_of(output) == "torch-cpu"


def test_who_has_no_summary_is_told_too(monkeypatch, capsys):
    """featx.extract warns, featx.classify tells `on_note`, and the command prints it."""
    monkeypatch.setattr(native, "_load", lambda: (None, NONE_BUILT))
    monkeypatch.chdir(Path(__file__).parents[1])
    video, notes = "examples/videos/Crouch/v_Crouch_g01_c01.mp4", []
    with pytest.warns(RuntimeWarning, match=f"the engine is 'onednn', since {NONE_BUILT}"):
        featx.extract(video)
    featx.classify(video, on_note=notes.append)
    assert [note for note in notes if NONE_BUILT in note]
    code, _, err = run(capsys, "classify", video)
    assert code == 0 and NONE_BUILT in err


@pytest.mark.parametrize("name", ENGINES)
def test_a_description_tells_engine_and_device(name):
    revision = str(REVISIONS[name]) if REVISIONS[name] > 1 else ""
    assert described(f"{name}{revision}-cpu") == described(f"{name}-cpu") == (name, "cpu")
    assert described("imported") == ("", "imported")
