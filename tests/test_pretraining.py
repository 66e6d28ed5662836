"""How the embedded checkpoint is trained. Its scenes: test_taught_scenes.py; judging: test_judging.py."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import write_noise_video
from sklearn.cluster import KMeans
from test_taught_scenes import FAMILY_OF_PHOTOGRAPHS, folder_of_photographs  # noqa: F401 - a fixture
from torch import nn

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
sys.path.append(str(EXAMPLES))

import lessons  # noqa: E402
import mini_net  # noqa: E402
import refit_classifier  # noqa: E402
import train_mini  # noqa: E402
import training_curves  # noqa: E402
from local_descriptors import DIRECTIONS, GROUPS, NUM_DESCRIPTORS, SPEEDS, local_descriptors  # noqa: E402
from rendering import scene  # noqa: E402
from rendering.scene import Renderer  # noqa: E402
from simple_figures import LABELS, figures_batch  # noqa: E402
from visual_words import Vocabulary, k_means  # noqa: E402

import featx  # noqa: E402
from featx.backbones import res3d  # noqa: E402
from featx.backbones.res3d import Res3D  # noqa: E402
from featx.checkpoints.safetensors import read_safetensors, write_safetensors  # noqa: E402

# ------------------------------------------------------------------------------------------------ descriptors by hand


def group(clip: torch.Tensor, name: str) -> torch.Tensor:
    """The group's descriptors (K, h / 16, w / 16) of one clip (3, T, h, w)."""
    found = local_descriptors(clip[None])
    assert found.shape == (1, NUM_DESCRIPTORS, clip.shape[2] // 16, clip.shape[3] // 16)
    return found[0, GROUPS[name]]


def test_colours_are_shared_between_the_nearest_levels():
    clip = torch.zeros(3, 8, 32, 32)
    clip[0], clip[1] = 1 / 3, 1.0  # level 1 of 0..3, and level 3
    clip[2, ..., :16] = 0.5  # half-way between levels 1 and 2, in the left half
    found = group(clip, "colour")
    first = 16 * 1 + 4 * 3  # the index of (1, 3, 0)
    assert torch.allclose(found[first, :, 1], torch.ones(2), atol=1e-3)
    assert torch.allclose(found[first + 1 : first + 3, :, 0], torch.full((2, 2), math.sqrt(0.5)), atol=1e-3)
    assert torch.allclose(found.square().sum(0), torch.ones(2, 2), atol=1e-4)


def grating(angle: float, velocity: float, period: float = 12.0) -> torch.Tensor:
    """A grey sine grating (3, 8, 64, 64) that varies along `angle` and moves that way, in pixels a frame."""
    t, y, x = torch.meshgrid(torch.arange(8), torch.arange(64), torch.arange(64), indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle) - velocity * t
    return (0.5 + 0.4 * torch.sin(math.tau * along / period)).expand(3, -1, -1, -1)


@pytest.mark.parametrize("which", range(DIRECTIONS))
def test_edges_are_strongest_in_their_own_direction(which):
    shares = group(grating(math.pi * which / DIRECTIONS, 0), "appearance")[:DIRECTIONS, 1, 1]
    assert int(shares.argmax()) == which and shares[which] > 0.6


@pytest.mark.parametrize("which", range(DIRECTIONS))
@pytest.mark.parametrize("speed", SPEEDS)
def test_motion_is_explained_by_its_own_velocity(which, speed):
    # The motion is seen at half size: twice as many pixels of the clip.
    shares = group(grating(math.tau * which / DIRECTIONS, 2 * speed, period=28.0), "motion")[:17, 1, 1]
    assert int(shares.argmax()) == 1 + which * len(SPEEDS) + SPEEDS.index(speed)


def test_a_still_picture_stands_still():
    motion = group(grating(0.3, 0.0), "motion")[:, 1, 1]
    assert int(motion[:17].argmax()) == 0
    assert motion[27] == pytest.approx(0.3 * math.log(0.005))  # nothing changes


# ------------------------------------------------------------------------------------------------ visual words


def test_k_means_comes_to_rest_near_scikit_learns_best():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 3, generator=generator)
    centres = k_means(rows, 6, generator, rounds=100)
    nearest = torch.cdist(rows, centres).argmin(1)
    for k in range(6):
        assert torch.allclose(centres[k], rows[nearest == k].mean(0), atol=1e-5)
    best = KMeans(6, n_init=10, random_state=0).fit(rows.numpy()).inertia_
    assert best <= float((rows - centres[nearest]).square().sum()) * 1.0001 < 1.15 * best


def test_words_are_the_nearest_and_what_is_left_open_is_a_share_of_the_variance():
    torch.manual_seed(0)
    rows = torch.randn(600, NUM_DESCRIPTORS)
    vocabulary = Vocabulary(10)
    vocabulary.fit(rows, torch.Generator().manual_seed(1))
    assert vocabulary.sizes == {"colour": 2, "form": 8} and vocabulary.num_words == 10
    words = vocabulary(rows.reshape(6, 10, 10, NUM_DESCRIPTORS).permute(0, 3, 1, 2))
    standard = ((rows - rows.mean(0)) / (rows.std(0) + 1e-3)).numpy()
    for name, which in (("colour", slice(0, 64)), ("form", slice(64, None))):
        centres = getattr(vocabulary, f"words_{name}").numpy()
        nearest = np.square(standard[:, None, which] - centres).sum(-1).argmin(1)
        assert np.array_equal(words[name].reshape(-1).numpy(), nearest)
    shape = (6, 10, 10, 10)
    assert float(vocabulary.unexplained(torch.zeros(shape), words)) == pytest.approx(1, abs=1e-5)
    known = torch.cat([F.one_hot(words["colour"], 2), F.one_hot(words["form"], 8)], -1).float()
    shares = torch.cat([vocabulary.shares_colour, vocabulary.shares_form])
    assert float(vocabulary.unexplained(known - shares, words)) == pytest.approx(0, abs=1e-6)


# ------------------------------------------------------------------------------------------------ training


def train(folder: Path, *options: str, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    defaults = [
        "--steps",
        "2",
        "--batch-size",
        "4",
        "--workers",
        "0",
        "--pictures",
        "4",
        "--held-out",
        "4",
        "--words",
        "10",
    ]
    args = train_mini.parse([str(folder), *defaults, *options])
    args.sizes = ((0.5, 32), (1.0, 48))
    if args.processes > 1:
        train_mini.train_together(args)
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        return {f"{part}.{name}": x for part in ("net", "heads") for name, x in state[part].items()}
    run = train_mini.Run(args)
    run.train(stop_at)
    return {**run.net.state_dict(), **{f"heads.{name}": x for name, x in run.heads.state_dict().items()}}


@pytest.fixture(scope="module")
def half_run(tmp_path_factory):
    """The folder of a run of two steps that stopped after the first, and its weights."""
    folder = tmp_path_factory.mktemp("half") / "run"
    return folder, train(folder, stop_at=1)


@pytest.mark.long
def test_a_run_learns_to_name_its_photographs(tmp_path, folder_of_photographs):  # noqa: F811
    arguments = [str(tmp_path), "--steps", "1", "--batch-size", "6", "--pictures", "4", "--held-out", "6"]
    arguments += ["--photographs", str(folder_of_photographs)]
    run = train_mini.Run(train_mini.parse(arguments))
    run.train()
    log = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert {"cutout", "photograph"} <= set(log["losses"]) & set(log["held_out"])
    assert run.heads.labels["cutout"].out_features == 2


@pytest.mark.long
def test_a_run_begins_with_anothers_weights(tmp_path):
    begun = train_mini.parse([str(tmp_path / "first"), "--steps", "4", "--workers", "0", "--words", "10"])
    begun.pictures, begun.held_out = 4, 4
    run = train_mini.Run(begun)
    run.save()
    first = {**run.net.state_dict(), **{f"heads.{name}": x for name, x in run.heads.state_dict().items()}}
    args = train_mini.parse([str(tmp_path / "second"), "--steps", "4", "--workers", "0", "--words", "10"])
    args.begin_with, args.pictures, args.held_out = str(tmp_path / "first"), 4, 4
    second = train_mini.Run(args)
    assert all(torch.equal(tensor, first[name]) for name, tensor in second.net.state_dict().items())
    assert torch.equal(second.heads.vocabulary.words_form, first["heads.vocabulary.words_form"])


def test_a_resumed_run_reaches_the_weights_of_an_uninterrupted_one(tmp_path, half_run):
    whole = train(tmp_path / "whole")
    folder, half = half_run
    shutil.copytree(folder, tmp_path / "parted")
    resumed = train(tmp_path / "parted", "--resume")
    assert all(torch.isfinite(tensor).all() for tensor in whole.values())
    assert any(not torch.equal(half[name], whole[name]) for name in whole)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_what_a_clip_costs_is_measured_by_the_processor_s_clock(tmp_path, monkeypatch, capsys):
    """With a clock that goes on by 0.3 seconds whenever it is read: over ten rounds of three clips, 10 ms each."""
    ticks = itertools.count(0, 0.3)
    monkeypatch.setattr(train_mini.time, "process_time", lambda: next(ticks))
    monkeypatch.setattr(train_mini, "SIZES", (32, 32, 32))
    threads, options = torch.get_num_threads(), ["--batch-size", "3", "--pictures", "4", "--held-out", "3"]
    try:
        train_mini.main([str(tmp_path / "run"), "--measure", *options, "--words", "10"])
    finally:
        torch.set_num_threads(threads)
    told = "processor ms a clip of 32 pixels, one thread: scenes 10.0, figures 10.0, training 10.0\n"
    assert capsys.readouterr().out == told and not (tmp_path / "run").exists()


def test_a_gpu_has_done_its_work_when_the_clock_is_read(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", done.append)
    monkeypatch.setattr(train_mini.time, "perf_counter", lambda: 5.0 + len(done))
    gpu = torch.device("cuda")
    assert train_mini.clock(gpu) == 6.0 and done == [gpu]


@pytest.mark.parametrize("other", [["--resume"], ["--begin-with", "here"]])
def test_a_measurement_begins_and_resumes_nothing(capsys, other):
    with pytest.raises(SystemExit) as stopped:
        train_mini.main(["run", "--measure", *other])
    assert stopped.value.code == 2 and "leave --resume and --begin-with out" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "workers", "how"), [("cuda", 2, "forkserver"), ("cuda", 0, None), ("cpu", 2, None)])
def test_nothing_forks_beside_a_gpu(monkeypatch, device, workers, how):
    """What another process is given can be pickled."""
    args = train_mini.parse(["run", "--steps", "4", "--workers", str(workers)])
    run, asked = object.__new__(train_mini.Run), {}
    run.args, run.device, run.step = args, torch.device(device), 1
    run.team, run.schedule = train_mini.Team(), train_mini.Schedule(4, None)
    monkeypatch.setattr(train_mini, "DataLoader", lambda dataset, **options: asked.update(options) or [dataset])
    monkeypatch.setattr(run, "_with_scenes", lambda figures: figures)
    dataset, begin = pickle.loads(pickle.dumps((next(run.batches()), asked["worker_init_fn"])))
    assert asked["multiprocessing_context"] == how and begin is train_mini.take_one_thread
    assert (dataset.step, dataset.figures_only, dataset.args) == (1, device == "cuda", args)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_on_a_gpu_other_processes_render_the_figures(tmp_path, monkeypatch, workers):
    """With a stand-in for the GPU, whose scenes are rendered on the CPU: the batches are those of one process."""
    options = ["--steps", "4", "--batch-size", "6", "--pictures", "4", "--held-out", "6", "--words", "10"]
    run = train_mini.Run(train_mini.parse([str(tmp_path), *options, "--workers", str(workers)]))
    run.args.sizes = ((0.5, 32), (1.0, 48))
    main, here = os.getpid(), []

    def figures(*args):
        here.append(os.getpid() == main)
        assert here[-1] == (workers == 0)
        return figures_batch(*args)

    class GpuRenderer(Renderer):
        def __init__(self, seeds, device, *others):
            super().__init__(seeds, "cpu", *others)
            self.asked = torch.device(device)

        def batch(self, *args):
            assert self.asked.type == "cuda" and os.getpid() == main
            return super().batch(*args)

    monkeypatch.setattr(train_mini, "figures_batch", figures)
    monkeypatch.setattr(train_mini, "Renderer", GpuRenderer)
    run.device, run.step = torch.device("cuda"), 1
    batches = run.batches()
    found = [next(batches) for _ in range(3)]
    assert any(here) == (workers == 0)
    monkeypatch.undo()
    whole = Renderer((0, train_mini.TRAINING), "cpu", 4)
    for step, (batch, side) in enumerate(zip(found, (32, 48, 48), strict=True), 1):
        own = train_mini.mixed_batch(whole, step, 6, side, train_mini.calm_share(step / 4, 0.5))
        assert torch.equal(batch.clips, own.clips) and torch.equal(batch.parts, own.parts)
        assert all(torch.equal(batch.labels[name], own.labels[name]) for name in own.labels)


def refused(capsys, folder: Path, *options: str) -> str:
    """What the program says when it refuses a run, on one line."""
    capsys.readouterr()  # what a run before printed
    with pytest.raises(SystemExit) as stopped:
        train_mini.main([str(folder), *options])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2 and not out and err.startswith("train_mini.py: ") and err.count("\n") == 1
    return err


def test_a_run_is_not_replaced_by_another(tmp_path, capsys, half_run):
    shutil.copytree(half_run[0], tmp_path / "run")
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    assert "holds a run (checkpoint.pt); go on with --resume" in refused(capsys, tmp_path / "run", "--steps", "2")
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before
    (tmp_path / "run/checkpoint.pt").unlink()
    told = "holds log.jsonl, and no checkpoint.pt to go on from; give another folder"
    assert told in refused(capsys, tmp_path / "run", "--steps", "2")
    told = "has no checkpoint.pt to resume, but log.jsonl; give the folder of a run that has saved one"
    assert told in refused(capsys, tmp_path / "run", "--steps", "2", "--resume")
    told = "has no checkpoint.pt to resume; leave --resume out, or give the folder of a run"
    assert told in refused(capsys, tmp_path / "empty", "--steps", "2", "--resume")
    begin = ["--steps", "2", "--begin-with", str(tmp_path)]
    assert f"--begin-with {tmp_path} has no checkpoint.pt" in refused(capsys, tmp_path / "new", *begin)
    assert not (tmp_path / "new").exists()


def test_the_embedded_weights_are_not_replaced_by_a_run(capsys):
    assert "holds res3d-mini.safetensors, and no" in refused(capsys, ROOT / "weights", "--minutes", "60")
    assert "to resume, but res3d-mini.safetensors; give" in refused(
        capsys, ROOT / "weights", "--minutes", "60", "--resume"
    )


def test_a_run_goes_on_with_its_own_arguments_only(tmp_path, capsys, half_run):
    folder, own = tmp_path / "run", ["--batch-size", "4", "--pictures", "4", "--held-out", "4", "--words", "10"]
    shutil.copytree(half_run[0], folder)
    before = (folder / "checkpoint.pt").read_bytes()
    go_on = ["--resume", *own, "--steps"]
    for changed, told in (
        (["2", "--seed", "3"], "--seed 3 instead of 0"),
        (["2", "--batch-size", "5"], "--batch-size 5 instead of 4"),
        (["2", "--recipe", "labels"], "--recipe labels instead of all"),
        (["3"], "--steps 3 instead of 2"),
        (["2", "--larger-from", "0.1", "0.2"], "--larger-from (0.1, 0.2) instead of (0.6, 0.85)"),
        (["2", "--photographs", "here", "--bf16"], "--bf16 True instead of False, --photographs here instead of None"),
    ):
        assert f"other arguments: {told}; give those" in refused(capsys, folder, *go_on, *changed)
    assert (folder / "checkpoint.pt").read_bytes() == before
    # the defaults, said aloud, and what changes no result
    same = [str(folder), *go_on, "2", "--larger-from", "0.6", "0.85", "--threads", "1", "--workers", "0"]
    assert train_mini.refusal(train_mini.parse(same)) is None
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    del state["arguments"]
    torch.save(state, folder / "checkpoint.pt")
    assert "an older program wrote it" in refused(capsys, folder, *go_on, "2")


@pytest.mark.long
def test_processes_train_one_network_with_the_mean_of_their_gradients(tmp_path):
    """Two processes, against one that takes both batches of every step itself."""
    together = train(tmp_path / "together", "--processes", "2", "--threads", "1", "--recipe", "all")
    args = train_mini.parse([str(tmp_path / "alone"), "--steps", "2", "--batch-size", "4", "--words", "10"])
    args.pictures, args.held_out, args.sizes = 4, 4, ((0.5, 32), (1.0, 48))
    run, renderer = train_mini.Run(args), Renderer((0, train_mini.TRAINING), pictures=4)
    both = nn.ModuleDict({"net": run.net, "heads": run.heads})
    start = {name: parameter.detach().clone() for name, parameter in both.named_parameters()}
    for step, (side, ease) in enumerate(((32, 1.0), (48, train_mini.CALM_SHARE))):
        for group in run.optimizer.param_groups:
            group["lr"] = args.learning_rate * (step + 1) / 200 * (1, 0.5)[step]
        run.optimizer.zero_grad()
        for number in (2 * step, 2 * step + 1):
            found = lessons.losses(run.net, run.heads, train_mini.mixed_batch(renderer, number, 4, side, ease))
            weights = {name: w for name, w in lessons.RECIPES["all"].items() if name in found}  # no photographs
            (sum(w * found[name] for name, w in weights.items()) / 2).backward()
        nn.utils.clip_grad_norm_(run.net.parameters(), 2.0)
        run.optimizer.step()
    # AdamW's first steps are all of one size, so that a gradient near 0 may lead to either side.
    alone = both.state_dict()
    for part in ("net", "heads"):
        names = [name for name in start if name.startswith(part)]
        one, other = (torch.cat([(end[name] - start[name]).flatten() for name in names]) for end in (together, alone))
        assert F.cosine_similarity(one, other, dim=0) > 0.99 and 1e-6 < one.abs().mean() < 3e-5


def test_a_run_writes_its_log_and_the_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    train(tmp_path / "run")
    (line,) = training_curves.read_log(tmp_path / "run")
    assert (
        line["step"] == 2
        and set(line["losses"]) == set(lessons.RECIPES["all"]) - set(scene.EXEMPLARS)
        and set(line["held_out"]) == set(LABELS)
    )
    training_curves.draw([tmp_path / "run"], tmp_path / "curves.svg")
    assert (
        "descriptors of cells" in (tmp_path / "curves.svg").read_text()
        or (tmp_path / "curves.svg").stat().st_size > 5000
    )


@pytest.fixture(scope="module")
def mixed():
    return train_mini.mixed_batch(Renderer((5, 0), pictures=6), 3, 24, 32)


@pytest.mark.long
def test_every_loss_has_a_weight_and_teaches_the_network(mixed):
    torch.manual_seed(0)
    net, heads = mini_net.new_net().train(), lessons.Heads(320, 12, {}).train()
    for head in (heads.words, heads.descriptors, heads.parts, heads.part_motions):
        nn.init.normal_(head.weight)  # they begin at zero, which teaches nothing but themselves
    found = lessons.losses(net, heads, mixed)
    recipes = lessons.RECIPES
    assert set(found) == set(recipes["all"]) - set(scene.EXEMPLARS)  # without photographs of its own
    assert set(recipes["all"]) == set(recipes["both"]) | {"parts", "part_motions"}
    assert set(recipes["both"]) == set(recipes["labels"]) | set(recipes["descriptors"])
    answered = {name for name in LABELS if (mixed.labels[name] >= 0).any()}
    assert len(answered) >= len(LABELS) - 2
    for name, loss in found.items():
        if name in LABELS and name not in answered:
            assert float(loss.detach()) == 0
            continue
        (gradient,) = torch.autograd.grad(loss, net.conv1.weight, retain_graph=True)
        assert gradient.abs().max() > 0, name


def test_wrong_parts_are_weighed_as_told(mixed):
    """Heads that know nothing, at first: cross-entropy with one share for all; the square of the motions where parts are."""
    heads = lessons.Heads(320, 12, {})
    with torch.no_grad():
        found = lessons.part_losses(heads, torch.randn(24, 320, 2, 2, 2), mixed)
    share, parts = lessons.PART_SHARE, mixed.parts.double()
    entropy = -(parts * math.log(share) + (1 - parts) * math.log(1 - share)).mean()
    assert float(found["parts"]) == pytest.approx(float(entropy) / lessons.PART_COST, rel=1e-4)
    bias = (
        heads.part_motions.bias.detach().reshape(12, 2, 2).repeat(1, 2, 2).reshape(6, 2, 4, 4)
    )  # of quarters of cells
    square = (mixed.motions - bias).square().mean(3)
    moved = (square * mixed.parts).sum() / mixed.parts.sum()
    assert float(found["part_motions"]) == pytest.approx(float(moved) / lessons.MOTION_SIZE, rel=1e-4)


def test_uniformity_is_that_of_the_paper(mixed, monkeypatch):
    """log of the mean over pairs of exp(-2 |u - v|^2), by a loop."""
    torch.manual_seed(0)
    net, heads = mini_net.new_net().train(), lessons.Heads(320, 12, {}).train()
    pooled = torch.randn(24, 320).abs()
    maps = pooled[..., None, None, None].expand(-1, -1, 2, 2, 2)
    monkeypatch.setattr(lessons, "activations", lambda *_: (maps, pooled))
    unit = pooled / pooled.norm(dim=1, keepdim=True)
    pairs = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(24) for j in range(i)]
    expected = math.log(sum(pairs) / len(pairs))
    assert float(lessons.losses(net, heads, mixed)["uniformity"]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("arguments", [mini_net.TRAINED, mini_net.ARGUMENTS], ids=["trained", "embedded"])
def test_equalised_channels_deviate_alike_and_the_scores_stay(mixed, monkeypatch, arguments):
    monkeypatch.setattr(res3d, "LEAST_POOLED", 0.0)  # averages below it keep no ratios
    torch.manual_seed(0)
    net = mini_net.new_net(arguments).eval()
    for module in net.modules():
        if hasattr(module, "running_mean"):
            nn.init.uniform_(module.weight, 0.2, 2)
            nn.init.normal_(module.bias)
    clips = mini_net.to_input(mixed.clips)
    with torch.no_grad():
        before = net(clips, ("res5b", "pool5", "prob"))
        mini_net.equalise(net, [mixed.clips[:10], mixed.clips[10:]])
        after = net(clips, ("res5b", "pool5", "prob"))
    assert torch.allclose(after["prob"], before["prob"], rtol=1e-3, atol=1e-6)
    deviations = before["res5b"].mean((2, 3, 4)).std(0)
    alive = deviations > 0.01 * deviations.mean()
    scale = after["res5b"].sum((0, 2, 3, 4)) / before["res5b"].sum((0, 2, 3, 4)).clamp(min=1e-9)
    of_pool = scale.sqrt() if arguments["pool_power"] == 0.5 else scale
    assert torch.allclose(before["pool5"] * of_pool, after["pool5"], rtol=1e-3, atol=1e-4) and alive.sum() > 200
    assert float(deviations[alive].max() / deviations[alive].min()) > 3
    deviations = after["res5b"].mean((2, 3, 4))[:, alive].std(0)
    assert float(deviations.max() / deviations.min()) == pytest.approx(1, abs=1e-3)


def test_heads_learn_from_the_plain_average(mixed):
    """pool5's change and root are the card's alone: no program trains with them."""
    torch.manual_seed(0)
    net = mini_net.new_net()
    maps, pooled = mini_net.activations(net, mini_net.to_input(mixed.clips))
    assert torch.equal(pooled, maps.mean((2, 3, 4)))
    card = json.loads((ROOT / "weights/res3d-mini.json").read_text())["arguments"]
    assert {name: list(x) if isinstance(x, tuple) else x for name, x in mini_net.ARGUMENTS.items()} == card
    differing = {name for name in card if mini_net.TRAINED[name] != mini_net.ARGUMENTS[name]}
    assert differing == {"pool_change", "pool_power"}


@pytest.mark.long
def test_written_weights_name_their_classes_by_the_embedded_pool5(tmp_path, capsys):
    """The classifier fits the card's pool5, on figures that it learned from, whatever it was in training."""
    options = ["--steps", "1", "--batch-size", "8", "--pictures", "4", "--held-out", "4", "--words", "10"]
    run = train_mini.Run(train_mini.parse([str(tmp_path), *options]))
    run.args.sizes = ((1.0, 48),)
    for module in run.net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    seen = figures_batch((0, train_mini.TRAINING), 0, 42, 48, train_mini.CALM_SHARE)
    run.net(mini_net.to_input(seen.clips), ("pool5",))  # else random weights tell clips hardly apart
    run.write_weights(tmp_path / "weights.safetensors")
    assert capsys.readouterr().out.endswith(" % of difficult held-out figures are named right\n")
    net = Res3D(num_classes=len(LABELS["motion"]), **mini_net.ARGUMENTS).eval()
    net.load_state_dict(read_safetensors(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        named = net(mini_net.to_input(seen.clips), ("prob",))["prob"].argmax(1)
    assert (named == seen.labels["motion"]).float().mean() > 0.9
    assert torch.equal(net.conv1.weight, run.net.conv1.weight.half().float())


@pytest.mark.long
def test_written_weights_fit_the_network_and_its_size(tmp_path):
    run = train_mini.Run(
        train_mini.parse(
            [str(tmp_path / "run"), "--steps", "1", "--workers", "0", "--pictures", "4", "--held-out", "32"]
        )
    )
    run.args.sizes = ((1.0, 32),)
    run.write_weights(tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size <= 8_000_000
    tensors = read_safetensors(tmp_path / "weights.safetensors")
    net = Res3D(num_classes=len(LABELS["motion"]), **mini_net.ARGUMENTS)
    net.load_state_dict(tensors)
    clips = mini_net.to_input(Renderer((5, 0), pictures=6).batch(0, 24, 32).clips)
    with torch.no_grad():
        before, after = (x.eval()(clips, ("res5b",)) for x in (run.net, net))
    deviations = [x["res5b"].mean((2, 3, 4)).std(0) for x in (before, after)]
    alive = (deviations[0] > 0.01 * deviations[0].mean()) & (
        deviations[1] > 0
    )  # random weights leave some channels dead
    spread = deviations[1][alive].log().std() / deviations[0][alive].log().std()
    assert alive.sum() > 200 and spread < 0.7  # not 0: equalised over other clips than these


def test_a_classifier_is_learnt_anew_and_nothing_else_changes(tmp_path, monkeypatch, capsys):
    """On pool5 that tells the motions but for noise; what the renderer gives is left out, since it takes long."""
    random = torch.Generator().manual_seed(0)
    centres = torch.rand(14, 320, generator=random)

    def pooled(net, seeds, num_clips, side, ease):
        motions = torch.arange(num_clips) % 14
        return centres[motions] + 0.05 * torch.randn(num_clips, 320, generator=random), motions

    monkeypatch.setattr(refit_classifier, "pooled_figures", pooled)
    torch.manual_seed(0)
    write_safetensors(tmp_path / "a.safetensors", {k: v.half() for k, v in mini_net.new_net().state_dict().items()})
    refit_classifier.main([str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors"), "--clips", "560"])
    assert capsys.readouterr().out.startswith("100.0 % of difficult")
    before, after = (read_safetensors(tmp_path / f"{name}.safetensors") for name in "ab")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc8.weight", "fc8.bias"}
    other, motions = pooled(None, (0, 0), 140, 112, 0.0)
    scores = other @ after["fc8.weight"].float().T + after["fc8.bias"]
    assert (scores.argmax(1) == motions).all()


@pytest.mark.long
def test_figures_to_learn_a_classifier_from_are_of_all_motions():
    torch.manual_seed(0)
    pooled, motions = refit_classifier.pooled_figures(mini_net.new_net().eval(), (0, 0), 1, 112, 1.0)
    assert pooled.shape == (42, 320) and motions.bincount().tolist() == [3] * 14
    weight, bias = refit_classifier.fit(pooled, motions)
    assert ((pooled @ weight.T + bias).argmax(1) == motions).float().mean() > 0.8  # of those that it learned from


# ------------------------------------------------------------------------------------------------ what is told of it


def told(name: str) -> str:
    """A text of the repository, its lines joined."""
    return " ".join((ROOT / name).read_text().split())


def rows_that_judge(text: str) -> list[list[str]]:
    """The cells of the rows of figures under "| | pool5 | res5b | ..."."""
    table = text[text.index("| | pool5 | res5b |") :].split("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_the_embedded_weights_are_as_small_as_the_card_says():
    card = json.loads((ROOT / "weights/res3d-mini.json").read_text())
    size, text = (ROOT / "weights" / card["file"]).stat().st_size, told("weights/res3d-mini.md")
    assert size <= 8_000_000 and f"({size / 1e6:.1f} MB: convolutions in float16)" in text
    tensors = read_safetensors(ROOT / "weights" / card["file"])
    learnt = sum(x.numel() for name, x in tensors.items() if "running" not in name and "num_batches" not in name)
    assert f"of {learnt / 1e6:.1f} million weights" in text and 256 <= card["layers"]["pool5"] <= 512


@pytest.mark.long
def test_the_plain_average_of_res5b_is_had_in_two_ways(tmp_path):
    """As the README says: from res5b by reshaping, and by a card without what pool5 adds."""
    way = 'file.descriptors("res5b").reshape(-1, 320, 98).mean(2)'
    assert way in told("README.md") and way in told("weights/res3d-mini.md")
    card = json.loads((ROOT / "weights/res3d-mini.json").read_text())
    for name in ("pool_change", "pool_power"):
        del card["arguments"][name]
    shutil.copy(ROOT / "weights" / card["file"], tmp_path)
    (tmp_path / "plain.json").write_text(json.dumps(card | {"name": "res3d-plain", "embedded": False, "source": []}))
    videos = [write_noise_video(tmp_path / "a.mp4", 16)]
    featx.extract_to(videos, tmp_path / "f.h5", layers=["res5b"])
    plain = {"backbone": tmp_path / "plain.json", "weights": tmp_path / card["file"]}
    featx.extract_to(videos, tmp_path / "plain.h5", layers=["pool5"], **plain)
    with featx.open(tmp_path / "f.h5") as file, featx.open(tmp_path / "plain.h5") as other:
        average, expected = eval(way), other.descriptors("pool5")
        assert file.keys == other.keys and expected.shape == (1, 320)
    average /= np.linalg.norm(average, axis=1, keepdims=True)
    assert np.allclose(average, expected, atol=1e-5)


def test_the_readme_and_the_card_tell_the_same_figures():
    of_readme, of_card = (rows_that_judge((ROOT / name).read_text()) for name in ("README.md", "weights/res3d-mini.md"))
    assert of_readme == of_card and len(of_card) == 5
    (first, mean, basketball), readme = of_card[:3], told("README.md")
    assert (
        f"names {first[1]} % of three classes of UCF101 on official split 1 ({mean[1]} in the mean of the three splits; "
        f"on res5b {float(first[2]):g} and {mean[2]}) and {basketball[1]} % of five basketball actions ({basketball[2]})"
    ) in readme
    loop = re.search(r"gives pool5 ([\d.]+), res5b ([\d.]+)\.", told("weights/res3d-mini.md"))
    pad, looped, *res5b = re.search(
        r"an SVM named ([\d.]+) % with `pad` and ([\d.]+) with `loop` \(pool5 of res3d-mini; res5b ([\d.]+) and ([\d.]+)\)",
        readme,
    ).groups()
    assert [pad, res5b[0]] == basketball[1:3] and (looped, res5b[1]) == loop.groups()
