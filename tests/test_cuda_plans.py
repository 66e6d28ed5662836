"""engine/cuda.py: which way of running a network is taken, with made-up ways and a made-up clock; torch.compile on the CPU."""

from __future__ import annotations

import math
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

from featx.engine import cuda
from featx.engine.cuda import GPU_PLANS, Forward, Plans, settle
from featx.engine.precision import DTYPES
from featx.errors import UsageError
from featx.preprocess import Preprocess

CPU = torch.device("cpu")
CLIPS = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1, 1).expand(4, 2, 4, 4, 3).contiguous()  # each has its number
RIGHT = torch.tensor([[3.0, 4.0], [1.0, 2.0], [5.0, 1.0], [0.0, 0.0]])  # the last only fills the batch up
SECONDS = {"fp16": 2.0, "bf16": 2.0, "tf32": 4.0, "fp32": 8.0}
NO_ENGINE = RuntimeError("GET was unable to find an engine to execute this computation")
FASTER = {"torch": 1.5, "folded": 1.0, "cudnn": 0.8, "compile": 0.7}


class MadeUp:
    """As Plans: what each way gives and how long it takes are told; an exception in their place is raised."""

    def __init__(self, gives=None, takes=None, on_cpu=RIGHT, largest=100.0):
        self.gives, self.takes, self.largest = gives or {}, takes or {}, largest
        self.on_cpu = lambda clips: {"a": on_cpu[clips[:, 0, 0, 0, 0].long()]}
        self.made, self.kept = [], None
        self.pixels = lambda net: lambda clips: clips
        self.num_rooms = 0

    def make_room(self):
        self.num_rooms += 1

    def net(self, form, precision):
        return SimpleNamespace()

    def make(self, plan, precision):
        self.made.append((plan, precision))
        gives = self.told(self.gives, plan, precision, RIGHT)
        if isinstance(gives, Exception):
            raise gives

        def run(clips):
            return {"a": gives.to(DTYPES[precision]) if precision == "fp32" else gives}

        return Forward(plan, precision, run)

    def told(self, table, plan, precision, otherwise):
        return table.get((plan, precision), table.get(plan, table.get(precision, otherwise)))

    def forget_others(self, plan, precision):
        self.kept = plan, precision

    def seconds_of(self, run, clips):
        form, *how = run.plan.split("-")
        usual = (
            SECONDS[run.precision]
            * FASTER[form]
            * (0.9 if "graph" in how else 1.0)
            * (0.99 if "search" in how else 1.0)
        )
        return self.told(self.takes, run.plan, run.precision, usual)


@pytest.fixture
def chosen(monkeypatch):
    monkeypatch.setattr(cuda, "no_compiler", lambda: "")

    def chosen(plans, clips=CLIPS, **options):
        monkeypatch.setattr(cuda, "largest_activation", lambda net, pixels: plans.largest)
        notes = []
        forward = settle(plans, clips, min(len(clips), 3), seconds_of=plans.seconds_of, on_note=notes.append, **options)
        assert plans.kept == (forward.plan, forward.precision)
        assert all("\n" not in note for note in notes)
        return forward.plan, forward.precision, notes

    return chosen


def turned(one_minus_cos):
    """RIGHT with every row turned by an angle of that cosine."""
    angle = math.acos(1 - one_minus_cos)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    return (RIGHT.double() @ turn).float()


def test_the_fastest_of_all(chosen):
    plan, precision, notes = chosen(MadeUp())
    assert (plan, precision) == ("compile-graph", "fp16")
    assert notes[0].startswith(
        "precision fp16 is the fastest within 1 - cos 1e-05 of fp32 on the first batch: fp16 2 clips/s"
    )
    assert "compile-graph" in notes[1] and notes[2].startswith("the network runs as compile-graph in fp16: ")


def test_short_runs_are_not_compiled(chosen):
    plans = MadeUp()
    assert chosen(plans, compiled=False)[:2] == ("cudnn-graph", "fp16")
    assert not [plan for plan, _ in plans.made if plan.startswith("compile")]


def test_without_a_compiler(chosen, monkeypatch):
    monkeypatch.setattr(cuda, "no_compiler", lambda: "Triton is not installed")
    plan, _, notes = chosen(MadeUp())
    assert plan == "cudnn-graph" and "torch.compile is not tried: Triton is not installed" in notes


@pytest.mark.parametrize(
    ("gives", "expected"),
    [
        ({"fp16": turned(2e-5)}, "bf16"),
        ({"fp16": turned(9e-6), "bf16": turned(9e-7)}, "bf16"),  # equally fast: the better numbers
        ({"fp16": turned(2e-5), "bf16": turned(2e-5)}, "tf32"),
        ({"fp16": RIGHT * math.nan, "bf16": RIGHT / 0, "tf32": turned(0.5)}, "fp32"),
        ({"fp16": RuntimeError("no such kernel\nand more"), "bf16": NO_ENGINE}, "tf32"),
    ],
)
def test_a_precision_must_agree(chosen, gives, expected):
    _, precision, notes = chosen(MadeUp(gives))
    assert precision == expected
    for name, values in gives.items():
        if (
            name != expected
            and not isinstance(values, Exception)
            and torch.isfinite(values).all()
            and precision != "bf16"
        ):
            assert "(too far)" in notes[0]
    if isinstance(gives["fp16"], RuntimeError):
        assert (
            "fp16 is left out: RuntimeError: no such kernel; bf16 is left out: RuntimeError: GET was unable to find"
            in notes[0]
        )


FULL = torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("full", [("folded", "fp16"), ("folded", "bf16"), ("folded", "fp32")], ids="-".join)
def test_the_memory_decides_no_precision(chosen, full):
    """A batch of several clips that does not fit in one of them is for the caller to halve; a clip is as small as it gets."""
    with pytest.raises(torch.cuda.OutOfMemoryError, match="batches of 4 clips: .*does not fit into the memory"):
        chosen(MadeUp({full: FULL}))
    _, precision, notes = chosen(MadeUp({full: FULL}), clips=CLIPS[:1])
    assert precision == ("bf16" if full[1] == "fp16" else "fp16")
    assert f"{full[1]} is left out: it does not fit into the memory" in notes[0]


@pytest.mark.parametrize("error", [FULL, NO_ENGINE], ids=["full", "no engine"])
@pytest.mark.parametrize(
    ("asked", "way"),
    [
        ({"precision": "fp16", "plan": "cudnn"}, "'cudnn' in fp16 was asked for"),
        ({"precision": "bf16"}, "no engine runs this network in bf16"),
        ({"precision": "fp32"}, "fp32"),
    ],
)
def test_what_was_asked_for_and_does_not_fit_is_for_the_caller_to_halve(chosen, error, asked, way):
    """Until it is one clip, of which the user is told."""
    ways = ("folded", "cudnn", "compile")
    if way == "fp32" and error is NO_ENGINE:  # there may be none, and there is the network as it is written
        assert chosen(MadeUp(dict.fromkeys(ways, error)), **asked)[:2] == ("torch", "fp32")
        return
    with pytest.raises(torch.cuda.OutOfMemoryError, match="batches of 4 clips"):
        chosen(MadeUp(dict.fromkeys(ways, error)), **asked)
    if way == "fp32":
        assert chosen(MadeUp(dict.fromkeys(ways, error)), clips=CLIPS[:1], **asked)[:2] == ("torch", "fp32")
        return
    with pytest.raises(
        UsageError, match=f"{way}.*{'not fit into the' if error is FULL else 'find an engine.*the'} memory"
    ):
        chosen(MadeUp(dict.fromkeys(ways, error)), clips=CLIPS[:1], **asked)


def test_one_form_that_does_not_fit_is_left_out(chosen):
    plan, _, notes = chosen(MadeUp({"cudnn": FULL}), compiled=False)
    assert plan == "folded-graph" and "cudnn is left out: it does not fit into the memory" in notes[1]


def test_there_is_room_before_each_way(chosen):
    plans = MadeUp()
    chosen(plans)
    assert plans.num_rooms >= len(plans.made) - 1  # the first is the network as it is written


@pytest.mark.parametrize(("device", "expected"), [("cuda", ["collected", "emptied"]), ("cpu", [])])
def test_room_is_made_of_what_nothing_needs(monkeypatch, device, expected):
    """What holds itself first."""
    log = []
    monkeypatch.setattr(cuda.gc, "collect", lambda: log.append("collected"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: log.append("emptied"))
    Plans(None, Preprocess(crop=4), [], CLIPS.shape, torch.device(device)).make_room()
    assert log == expected


@pytest.mark.parametrize(("largest", "expected"), [(4000.0, "fp16"), (5000.0, "bf16"), (math.nan, "bf16")])
def test_fp16_needs_headroom(chosen, largest, expected):
    _, precision, notes = chosen(MadeUp(largest=largest))
    assert precision == expected
    assert ("too near fp16's limit of 65504" in notes[0]) == (expected != "fp16")
    assert chosen(MadeUp(largest=largest), precision="fp16")[1] == "fp16"  # where it is asked for


@pytest.mark.parametrize(
    ("gives", "takes", "expected"),
    [
        ({"cudnn": turned(1e-3)}, {}, "folded-graph"),
        ({"cudnn-graph": RIGHT * math.nan}, {}, "cudnn"),
        ({"cudnn-graph": RuntimeError("operation not permitted when stream is capturing")}, {}, "cudnn"),
        ({}, {"cudnn-graph": 5.0}, "cudnn"),
        ({}, {"folded-graph": 0.1}, "folded-graph"),  # where the work of starting kernels decides
        ({"cudnn-graph": RuntimeError("no capture")}, {"folded-graph": 1.5}, "folded-graph"),
        ({"folded": turned(1e-3)}, {"folded-graph": 0.1}, "cudnn-graph"),
        ({}, {"cudnn-graph-search": 1.2}, "cudnn-graph-search"),
        ({}, {"cudnn-graph-search": 1.42}, "cudnn-graph"),  # not worth equal bits
        ({"cudnn-graph-search": turned(1e-3)}, {"cudnn-graph-search": 0.1}, "cudnn-graph"),
    ],
)
def test_a_plan_must_agree_and_pay(chosen, gives, takes, expected):
    assert chosen(MadeUp(gives, takes), compiled=False)[0] == expected


@pytest.mark.parametrize(
    ("gives", "takes", "asked", "expected"),
    [
        ({}, {("folded-graph", "bf16"): 0.1}, {}, "bf16"),
        ({}, {("folded-graph", "fp32"): 0.1}, {"plan": "cudnn-graph-search"}, "fp32"),
        ({}, {("folded-graph", "fp32"): 0.1}, {"plan": "cudnn"}, "fp16"),  # of which no graph is taken
        ({("folded-graph", "bf16"): turned(1e-3)}, {("folded-graph", "bf16"): 0.1}, {}, "fp16"),
        ({("folded-graph", "fp16"): RuntimeError("no capture")}, {("folded", "fp16"): 0.1}, {}, "fp16"),
        ({}, {("folded-graph", "fp16"): 99.0, ("folded", "fp16"): 0.1}, {}, "fp16"),
    ],
)
def test_precisions_are_timed_by_their_graphs_too(chosen, gives, takes, asked, expected):
    """The better of the two counts."""
    _, precision, notes = chosen(MadeUp(gives, takes), **asked)
    assert precision == expected
    for (_, quick), seconds in takes.items():
        if quick == precision and seconds == 0.1:
            assert f"{quick} 40 clips/s" in notes[0]


def test_no_graph_of_what_does_not_agree(chosen):
    plans = MadeUp({"cudnn": turned(1e-3), "compile": RuntimeError("inductor"), "bf16": turned(1e-3)})
    chosen(plans)
    graphs = [way for way in plans.made if way[0].endswith("-graph")]
    assert {("folded-graph", precision) for precision in ("fp16", "tf32", "fp32")} == set(graphs)


class Counted(MadeUp):
    """Counts the graphs whose memory is there when a way is begun."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.graphs, self.most = [], 0

    def make(self, plan, precision):
        forward = super().make(plan, precision)
        self.most = max(self.most, sum(graph() is not None for graph in self.graphs))
        if "graph" in plan:
            self.graphs.append(weakref.ref(forward))
        return forward


def test_no_two_graphs_take_memory_at_a_time(chosen):
    plans = Counted()
    plan, precision, _ = chosen(plans)
    assert len(plans.graphs) > 6 and plans.most == 0
    assert plans.made[-1] == (plan, precision)  # and so the one that is taken is made again, unless it was the last


def test_what_lost_is_gone_before_the_next_is_tried(chosen):
    kept, plans = {}, MadeUp()
    make = plans.make

    def noted(*way):
        kept.setdefault(way, plans.kept)
        return make(*way)

    plans.make = noted
    assert chosen(plans)[:2] == ("compile-graph", "fp16")
    assert kept["folded", "bf16"] == kept["folded", "fp32"] == ("folded", "fp16")
    assert kept["cudnn", "fp16"] == ("folded-graph", "fp16") and kept["compile", "fp16"] == ("cudnn-graph", "fp16")


class Failing(MadeUp):
    """A way that is right the first times only."""

    def __init__(self, way, num_right, then, **options):
        super().__init__(**options)
        self.way, self.num_right, self.then = way, num_right, then

    def make(self, plan, precision):
        num = self.made.count((plan, precision))
        if (plan, precision) == self.way and num >= self.num_right:
            self.gives[self.way] = self.then
        return super().make(plan, precision)


@pytest.mark.parametrize("then", [RIGHT * math.nan, turned(1e-3), FULL, RuntimeError("no capture")])
def test_what_is_made_again_must_be_right_again(chosen, then):
    plans = Failing(("cudnn-graph", "fp32"), 1, then, takes={"cudnn-graph": 0.1})
    plan, _, notes = chosen(plans, precision="fp32")
    assert plans.made.count(("cudnn-graph", "fp32")) == 2 and plan == "compile-graph"
    assert notes[-1].startswith("the network runs as compile-graph in fp32: 1 clips/s")


def test_a_graph_that_does_not_fit_decides_no_precision_either(chosen):
    gives = {("folded-graph", "fp32"): FULL}
    with pytest.raises(torch.cuda.OutOfMemoryError, match="batches of 4 clips: folded-graph is left out"):
        chosen(MadeUp(gives))
    assert chosen(MadeUp(gives, {"fp32": 0.1}), clips=CLIPS[:1])[1] == "fp32"  # by the folded net alone


class Unsteady(MadeUp):
    """Of some ways no two runs give the same bits; of the clip that only fills the batch up none do."""

    def __init__(self, *plans, **options):
        super().__init__(**options)
        self.unsteady, self.num_runs = plans, 0

    def make(self, plan, precision):
        forward = super().make(plan, precision)

        def run(clips):
            self.num_runs += 1
            values = forward.run(clips)["a"].float()
            values[3] = self.num_runs
            return {"a": values * (1 + 1e-6 * (self.num_runs if plan in self.unsteady else 0))}

        return Forward(plan, precision, run)


def test_a_plan_must_give_equal_bits(chosen):
    assert chosen(Unsteady(), compiled=False)[0] == "cudnn-graph"
    plan, _, notes = chosen(Unsteady("cudnn"), compiled=False)
    assert plan == "folded-graph" and "cudnn is left out: two runs gave different bits" in notes[1]
    plan, _, notes = chosen(Unsteady("cudnn-graph"), compiled=False)
    assert plan == "cudnn" and "cudnn-graph is left out: two runs gave different bits" in notes[1]
    with pytest.raises(UsageError, match="'cudnn-graph' in fp16 was asked for, .* but two runs gave different bits; "):
        chosen(Unsteady("cudnn-graph"), precision="fp16", plan="cudnn-graph")
    searched = "cudnn-graph-search"  # which promises none
    plans = Unsteady(searched, takes={searched: 0.1})
    assert chosen(plans, compiled=False)[0] == searched
    with pytest.raises(UsageError, match="values that are not finite"):  # which are no different bits
        chosen(Unsteady(gives={"cudnn": RIGHT * math.nan}), precision="fp16", plan="cudnn")


def test_of_two_that_are_equally_fast_the_graph(chosen):
    assert (
        chosen(MadeUp(takes={"cudnn-graph": 1.62, "cudnn-graph-search": 1.61, "cudnn": 1.6}), compiled=False)[0]
        == "cudnn-graph"
    )


def test_a_search_is_for_16_bits_only(chosen):
    """Of float32 convolutions PyTorch remembers what was chosen by rule, and a search would find nothing else."""
    for precision in ("fp32", "tf32"):
        plans = MadeUp()
        chosen(plans, precision=precision, compiled=False)
        assert not [plan for plan, _ in plans.made if plan.endswith("-search")]


def test_a_compiler_that_fails_is_one_line(chosen):
    plan, _, notes = chosen(MadeUp({"compile": AssertionError("inductor\n" + "x" * 999)}))
    assert plan == "cudnn-graph" and "compile is left out: AssertionError: inductor;" in notes[1]


def test_what_was_recorded_is_not_chosen_again(chosen):
    plans = MadeUp()
    assert chosen(plans, precision="bf16", plan="cudnn-graph") == ("cudnn-graph", "bf16", [])
    assert plans.made == [("torch", "fp32"), ("cudnn-graph", "bf16")]


def test_what_was_asked_for_must_be_right_too(chosen):
    """bf16 may be as far as bf16 is, and no farther."""
    assert chosen(MadeUp({"bf16": turned(5e-3)}), precision="bf16", plan="cudnn")[:2] == ("cudnn", "bf16")
    for gives in (turned(2e-2), RIGHT * math.nan, RuntimeError("no kernel")):
        with pytest.raises(
            UsageError, match="'cudnn' in bf16 was asked for, or the output was begun with it, but .*--device cpu"
        ):
            chosen(MadeUp({"bf16": gives}), precision="bf16", plan="cudnn")
        with pytest.raises(UsageError, match="no engine runs this network in bf16 .*--device cpu"):
            chosen(MadeUp({"bf16": gives}), precision="bf16")


def test_a_gpu_that_computes_wrongly_is_refused(chosen):
    with pytest.raises(UsageError, match="this GPU, with cuDNN .* computes wrongly: a differs .*'--device cpu'"):
        chosen(MadeUp(on_cpu=RIGHT + 0.01))


@pytest.mark.parametrize(("num_wrong", "refused"), [(1, False), (2, True), (3, True)])  # the last only fills up
def test_a_gpu_that_computes_the_first_clip_alone_rightly_is_refused(chosen, num_wrong, refused):
    wrong = RIGHT.clone()
    wrong[len(RIGHT) - num_wrong :] += 0.01
    plans = MadeUp({"torch": wrong, "cudnn": wrong})
    if refused:
        with pytest.raises(UsageError, match="computes wrongly: a differs"):
            chosen(plans, plan="cudnn", precision="fp32")
    else:
        chosen(plans, plan="cudnn", precision="fp32")


def test_one_clip_is_compared_once():
    plans, seen = MadeUp(), []
    on_cpu = plans.on_cpu
    plans.on_cpu = lambda clips: seen.append(len(clips)) or on_cpu(clips)
    settle(plans, CLIPS, 1, precision="fp32", plan="folded")
    assert seen == [1]


def test_a_network_that_cannot_be_folded_runs_as_it_is(chosen):
    gives = dict.fromkeys(("folded", "cudnn", "compile"), NotImplementedError("aten.max gives a tuple"))
    plan, precision, notes = chosen(MadeUp(gives))
    assert (plan, precision) == ("torch", "fp32") and "cannot be folded" in notes[0]
    assert chosen(MadeUp(), plan="torch")[:2] == ("torch", "fp32")


def test_memory_that_does_not_hold_fp32_is_for_the_caller(chosen):
    with pytest.raises(torch.cuda.OutOfMemoryError):
        chosen(MadeUp({"torch": torch.cuda.OutOfMemoryError("full")}))


# ------------------------------------------------------------------------------------------------------- real ways, on the CPU


@pytest.fixture(scope="module")
def real():
    from test_engine_plan import wide

    net, (_, length, side, _) = wide("res3d")[0], (3, 8, 20, 20)
    preprocess = Preprocess(crop=side, mean=(100.0, 110.0, 90.0), channel_order="bgr")
    clips = torch.randint(
        0, 256, (3, length, side, side, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    return Plans(net.eval(), preprocess, ["pool5"], clips.shape, CPU), clips


def test_the_form_of_a_way_is_made_once(real):
    plans, clips = real
    one, two = plans.make("folded", "fp32"), plans.make("folded-search", "fp32")
    assert one.run is two.run and plans.make("cudnn", "fp32").run is not one.run
    expected = plans.on_cpu(clips)["pool5"]
    for plan in ("torch", "folded", "cudnn"):
        found = plans.make(plan, "fp32")(clips)["pool5"]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    plans.forget_others("folded-search", "fp32")
    assert plans.make("folded", "fp32").run is one.run


@pytest.mark.long
def test_torch_compile_takes_the_folded_net(real):
    plans, clips = real
    found, expected = plans.make("compile", "fp32")(clips)["pool5"], plans.on_cpu(clips)["pool5"]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("can_be_told", [True, False])
def test_the_compiler_is_told_to_measure_no_reductions(real, monkeypatch, can_be_told):
    """Or two processes would add up in different orders; a PyTorch that cannot be told is told nothing."""
    import torch._inductor

    seen = []
    config = SimpleNamespace(**{"deterministic": False} if can_be_told else {})
    monkeypatch.setattr(torch._inductor, "config", config)
    monkeypatch.setitem(sys.modules, "torch._inductor.config", config)
    monkeypatch.setattr(torch, "compile", lambda net, **options: seen.append(options) or net)
    plans, clips = real
    plans.forget_others("torch", "fp32")
    assert plans.make("compile", "fp32")(clips).keys() == {"pool5"}
    plans.forget_others("torch", "fp32")
    assert seen == [{"dynamic": False, "fullgraph": True, "options": {"deterministic": True} if can_be_told else None}]


def test_this_pytorchs_compiler_knows_what_it_is_told():
    """By its own check of the options, without which it would refuse every network."""
    made = cuda._compiled(torch.fx.symbolic_trace(torch.nn.ReLU()))
    assert callable(made)


@pytest.mark.parametrize("knows", [False, True])
def test_a_failed_capture_is_ended_and_let_go_of_once(monkeypatch, knows):
    """Where PyTorch knows that it has ended, the graph lets go of the memory, and once more would be one time too many."""
    log = []

    def end(device, pool):
        log.append(("ended", device, pool))
        if knows:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    monkeypatch.setattr(
        torch._C, "_cuda_releasePool", lambda device, pool: log.append(("released", device, pool)), raising=False
    )
    cuda._forget_capture((0, 7))
    assert log == [("ended", 3, (0, 7)), ("released", 3, (0, 7))][: 1 if knows else 2]
    monkeypatch.delattr(torch._C, "_cuda_releasePool")
    cuda._forget_capture((0, 7))
    monkeypatch.delattr(torch._C, "_cuda_endAllocateToPool")
    cuda._forget_capture((0, 7))  # a PyTorch without them


def test_names_of_ways():
    assert len(set(GPU_PLANS)) == 13 and {"torch", "folded", "cudnn-graph", "compile-graph-search"} <= set(GPU_PLANS)
