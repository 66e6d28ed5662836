"""The ways in which a GPU can run a backbone, and which of them is taken: the fastest whose numbers are right.

    torch              the backbone as it is written
    folded             BatchNorm folded, channels last                                     (folded.py)
    cudnn              the same, with bias, residual and ReLU inside cuDNN's convolutions
    compile            the same, compiled by torch.compile
    …-graph            replayed as a CUDA graph, without the work of starting each kernel
    …-search           with the algorithms that cuDNN found fastest here, not those of its rules

Each is tried on the first batch of the run's own clips, a search for the fastest of the others only. With "-search" two runs
may differ in the last bits, as cuDNN's measurements do; without, equal runs give equal bits, or the way is left out. Of
"compile" two processes may differ, too, with a PyTorch whose compiler cannot be told to measure no reductions, such as 2.4's.
"""

from __future__ import annotations

import copy
import gc
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor

from featx.backbones.base import Backbone
from featx.engine.batches import is_out_of_memory, may_be_out_of_memory
from featx.engine.folded import Pixels, folded, largest_activation
from featx.engine.precision import (
    ASKED_AGREEMENT,
    AUTO_AGREEMENT,
    DTYPES,
    FP16_LIMIT,
    HEADROOM,
    Tried,
    agreement,
    arithmetic,
    choose,
)
from featx.engine.probe import disagreement
from featx.errors import FeatxError, UsageError
from featx.preprocess import Preprocess

__all__ = ["FORMS", "GPU_PLANS", "Forward", "Plans", "cuda_seconds", "no_compiler", "settle"]

FORMS = ("folded", "cudnn", "compile")
GPU_PLANS = ("torch", *(form + how for form in FORMS for how in ("", "-search", "-graph", "-graph-search")))

SEARCHED = ("bf16", "fp16")  # see `arithmetic`: of the others cuDNN's rules have chosen already
SEARCH_PAYS = 0.97  # a search must bring the seconds down to this part, since it costs the same bits
TIMED_BATCHES = 5
LONG_ENOUGH_SECONDS = 1.0  # a slow way is not run so often
NO_ROOM, FULL_PERHAPS = "it does not fit into the memory", " (the memory may be full)"

Layers = dict[str, Tensor]


def no_compiler() -> str:
    """Why torch.compile cannot be used for a GPU here, in one line; "" where it can."""
    return "" if find_spec("triton") is not None else "Triton, which torch.compile needs for a GPU, is not installed"


@dataclass(frozen=True)
class Forward:
    """A backbone made ready: uint8 clips (N, T, crop, crop, 3) on the device -> a tensor (N, ...) a layer."""

    plan: str
    precision: str
    run: Callable[[Tensor], Layers]

    def __call__(self, clips: Tensor) -> Layers:
        with torch.no_grad(), arithmetic(self.precision, search=self.plan.endswith("-search")):
            return self.run(clips)


class Plans:
    """Makes the ways of one backbone, which stays on the CPU, for batches of one shape (N, T, crop, crop, 3) on a device."""

    def __init__(
        self,
        backbone: Backbone,
        preprocess: Preprocess,
        layers: Sequence[str],
        batch_shape: Sequence[int],
        device: torch.device,
    ) -> None:
        self.backbone, self.preprocess, self.layers = backbone, preprocess, tuple(layers)
        self.batch_shape, self.device = tuple(batch_shape), device
        self.clip_shape = (preprocess.num_channels, batch_shape[1], preprocess.crop, preprocess.crop)
        self._made: dict[tuple[str, str], Callable[[Tensor], Layers]] = {}  # a form and a precision: compiled once

    def make(self, plan: str, precision: str) -> Forward:
        """Raises whatever PyTorch raises where it cannot be had."""
        form, *how = plan.split("-")
        run = self._made.get((form, precision))
        if run is None:
            run = self._made[form, precision] = self._as_written() if form == "torch" else self._folded(form, precision)
        forward = Forward(plan, precision, run)
        if "graph" in how:
            example = torch.zeros(self.batch_shape, dtype=torch.uint8, device=self.device)
            forward = Forward(plan, precision, Captured(forward, example))
        return forward

    def forget_others(self, plan: str, precision: str) -> None:
        """Free the memory of all that was made but what a plan needs."""
        kept = plan.partition("-")[0], precision
        self._made = {made: run for made, run in self._made.items() if made == kept}

    def make_room(self) -> None:
        """Give the device the memory back that nothing needs any more."""
        if self.device.type == "cuda":
            gc.collect()  # nets hold themselves
            torch.cuda.empty_cache()

    def on_cpu(self, clip: Tensor) -> Layers:
        """What the backbone as it is written gives for clips on the CPU, uint8 (n, T, crop, crop, 3)."""
        with torch.no_grad():
            return self.backbone(self.preprocess.normalise(clip).contiguous(), self.layers)

    def pixels(self, net: torch.fx.GraphModule) -> Pixels:
        return Pixels(self.preprocess, self.batch_shape[1], net, self.device, self.batch_shape[0])

    def net(self, form: str, precision: str) -> torch.fx.GraphModule:
        """The folded net of a form, not yet compiled."""
        dtype = DTYPES[precision]
        return folded(self.backbone, self.clip_shape, self.layers, dtype, self.device, fused=form == "cudnn")

    def _as_written(self) -> Callable[[Tensor], Layers]:
        backbone = copy.deepcopy(self.backbone).to(self.device)
        return lambda clips: backbone(self.preprocess.normalise(clips).contiguous(), self.layers)

    def _folded(self, form: str, precision: str) -> Callable[[Tensor], Layers]:
        net = self.net(form, precision)
        pixels = self.pixels(net)
        called = _compiled(net) if form == "compile" else net
        return lambda clips: called(pixels(clips))


def _compiled(net: torch.fx.GraphModule) -> Callable[[Tensor], Layers]:
    """The net by torch.compile, which measures no reductions where it can be told so: their order would be another one in the
    next process.
    """
    import torch._inductor.config as inductor  # loads much that nothing else needs

    options = {"deterministic": True} if hasattr(inductor, "deterministic") else None  # older ones have it not
    return torch.compile(net, dynamic=False, fullgraph=True, options=options)


class Captured:
    """What `forward` does with a batch, as a CUDA graph. The tensors that it gives are written over by the next call."""

    WARM_UP = 3  # calls before: algorithms are chosen and compilers run, neither of which a capture can hold

    def __init__(self, forward: Callable[[Tensor], Layers], example: Tensor) -> None:
        # the graph knows of what `forward` reads, such as weights, the addresses only
        self._clips, self._forward = example.clone(), forward
        with torch.cuda.device(example.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(self.WARM_UP):
                    forward(self._clips)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
            # Other threads may use the device meanwhile: what they do is no part of the graph, and no mistake. The outer
            # context leaves the stream also where a capture fails, whose own context then does not.
            try:
                with (
                    torch.cuda.stream(stream),
                    torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"),
                ):
                    self._layers = forward(self._clips)
            except BaseException:
                _forget_capture(pool)
                raise

    def __call__(self, clips: Tensor) -> Layers:
        self._clips.copy_(clips)
        self._graph.replay()
        return self._layers


def _forget_capture(pool: tuple[int, int]) -> None:
    """Let PyTorch's memory know that a capture is over, which failed: it would put off giving back what streams share.

    Nor would it give back the capture's own. Where it knows of the end it refuses to be told, and the graph lets go of that.
    """
    end, release = (getattr(torch._C, f"_cuda_{name}", None) for name in ("endAllocateToPool", "releasePool"))
    try:
        if end is not None:
            end(torch.cuda.current_device(), pool)
            if release is not None:
                release(torch.cuda.current_device(), pool)
    except RuntimeError:  # it knows
        pass


def cuda_seconds(run: Callable[[Tensor], object], clips: Tensor) -> float:
    """The median time of a batch, by the GPU's own clock, after two that warm it up."""
    seconds: list[float] = []
    with torch.cuda.device(clips.device):  # on whose stream the events are recorded
        for _ in range(2):
            run(clips)
        while len(seconds) < TIMED_BATCHES and sum(seconds) < LONG_ENOUGH_SECONDS:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            run(clips)
            ended.record()
            ended.synchronize()
            seconds.append(begun.elapsed_time(ended) / 1000)
    return statistics.median(seconds)


# --------------------------------------------------------------------------------------------------------------- the choice


class _Trials:
    """The first batch, what fp32 gives for it, and the way of running it that was tried last.

    What only an earlier one needs is free: a graph holds memory of its own, as much as a batch takes, and two of them may be
    more than there is. A way that is taken after others were tried is made again, which of a graph costs a few batches.
    """

    def __init__(self, plans: Plans, clips: Tensor, num_clips: int, seconds_of: Callable) -> None:
        self._plans, self.clips, self.num_clips, self._seconds_of = plans, clips, num_clips, seconds_of
        self._expected = {layer: x.float().clone() for layer, x in plans.make("torch", "fp32")(clips).items()}
        for place in sorted({0, num_clips - 1}):  # a kernel may be wrong beyond the first clip only
            found = {layer: x[place : place + 1].cpu() for layer, x in self._expected.items()}
            _require_right(found, plans.on_cpu(clips[place : place + 1].cpu()))
        self._last: Forward | None = None

    def run(self, plan: str, precision: str, *, timed: bool = True, unasked: bool = False) -> Tried:
        """Try one way. Where it is `unasked` for, fp16 is left out where the activations come near its limit."""
        self._last = None
        try:
            problem = self._near_limit() if unasked and precision == "fp16" else ""
            return Tried(plan, problem=problem) if problem else self._run(plan, precision, timed)
        except Exception as error:  # whatever a compiler, a driver or a library says: another way is taken
            if is_out_of_memory(error):
                return Tried(plan, problem=NO_ROOM, full=True, may_be_full=True)
            if isinstance(error, FeatxError):
                raise
            may_be_full = may_be_out_of_memory(error)
            return Tried(plan, problem=_first_line(error) + FULL_PERHAPS * may_be_full, may_be_full=may_be_full)

    def require_room(self, *tried: Tried, surely: bool = True) -> None:
        """Raise OutOfMemoryError where one of these did not fit, or not `surely` may not have, and batches can be smaller."""
        for one in tried if len(self.clips) > 1 else ():
            if one.full if surely else one.may_be_full:
                raise torch.cuda.OutOfMemoryError(f"batches of {len(self.clips)} clips: {one.line(1)}")

    def keep_only(self, plan: str, precision: str) -> None:
        """Free the memory of what other ways need, but for the one that was tried last."""
        self._plans.forget_others(plan, precision)

    def taken(self, plan: str, precision: str) -> Forward | None:
        """The way that was tried last, if it is this one, and the memory of the others free."""
        last = self._last
        if last is None or (last.plan, last.precision) != (plan, precision):
            return None
        self.keep_only(plan, precision)
        return last

    def _near_limit(self) -> str:
        """Why fp16 may not hold this network's activations; "" where it will."""
        self._plans.make_room()
        net = self._plans.net("folded", "fp32")
        with arithmetic("fp32"):
            largest = largest_activation(net, self._plans.pixels(net)(self.clips))
        if largest * HEADROOM <= FP16_LIMIT:
            return ""
        return f"an activation of {largest:.0f} is too near fp16's limit of {FP16_LIMIT:.0f}"

    def _run(self, plan: str, precision: str, timed: bool) -> Tried:
        self._plans.make_room()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compilers have much to say
            forward = self._plans.make(plan, precision)
            first = {layer: x[: self.num_clips].float().clone() for layer, x in forward(self.clips).items()}
        found = {layer: x.float() for layer, x in forward(self.clips).items()}
        apart = agreement(found, self._expected, self.num_clips)
        if apart == math.inf:
            return Tried(plan, problem="it gives values that are not finite")
        # the kernels that cuDNN fuses with what follows are chosen without a look at `cudnn.deterministic`
        if not plan.endswith("-search") and any(
            not torch.equal(x, found[layer][: self.num_clips]) for layer, x in first.items()
        ):
            return Tried(plan, problem="two runs gave different bits")
        tried = Tried(plan, self._seconds_of(forward, self.clips) if timed else math.inf, apart)
        self._last = forward
        return tried


def settle(
    plans: Plans,
    clips: Tensor,
    num_clips: int,
    *,
    precision: str = "auto",
    plan: str = "auto",
    compiled: bool = True,
    seconds_of: Callable[[Callable[[Tensor], object], Tensor], float] = cuda_seconds,
    on_note: Callable[[str], None] = lambda note: None,
) -> Forward:
    """Choose, where "auto" is asked for, and check on the first batch how the network is run.

    `clips` uint8 (N, T, crop, crop, 3) on the device, a whole batch, of which the first `num_clips` are real. `compiled`:
    torch.compile may take its minute. `on_note` gets what was chosen and what was left out, in lines.

    A way costs about ten batches, a graph four more: with all open there are eight to choose the precision by and seven to
    choose the plan by, together some 200 batches at most, and fewer where LONG_ENOUGH_SECONDS end the timing.

    Raises UsageError where the device computes wrongly, or what was asked for cannot be had, and what PyTorch raises
    where one fp32 batch does not fit into the memory. Raises OutOfMemoryError where a batch of several clips does not fit
    for what was asked for, or for a precision that is compared: what the memory happens to hold decides no precision.
    """
    trials = _Trials(plans, clips, num_clips, seconds_of)
    limit = AUTO_AGREEMENT if precision == "auto" else ASKED_AGREEMENT[precision]
    if precision == "auto":
        precision = _choose_precision(trials, plan, limit, on_note)
    if plan == "auto":
        return _choose_plan(trials, precision, limit, compiled, on_note)
    tried = trials.run(plan, precision, timed=False)
    forward = trials.taken(plan, precision) if tried.apart <= max(limit, ASKED_AGREEMENT[precision]) else None
    if forward is None:
        trials.require_room(tried, surely=False)
        problem = tried.problem or f"its features are 1 - cos {tried.apart:.1e} from fp32's"
        raise UsageError(
            f"engine '{plan}' in {precision} was asked for, or the output was begun with it, but {problem}; leave "
            "--engine and --precision out, or use '--device cpu'"
        )
    return forward


def _choose_precision(trials: _Trials, plan: str, limit: float, on_note: Callable[[str], None]) -> str:
    """The fastest by the folded net, by its graph where the plan may be one and that is faster."""
    if plan == "torch":
        return "fp32"
    graph_may_be = plan == "auto" or "graph" in plan.split("-")
    tried: list[Tried] = []
    for precision in ("fp16", "bf16", "tf32", "fp32"):
        one = trials.run("folded", precision, unasked=True)
        if graph_may_be and one.is_good(limit):
            graph = trials.run("folded-graph", precision)
            trials.require_room(graph)
            if graph.is_good(limit) and graph.seconds < one.seconds:
                one = graph
        trials.require_room(one)
        tried.append(replace(one, name=precision))
        best = choose(tried, limit)
        if best is not None:
            trials.keep_only("folded", best.name)
    told = "; ".join(
        one.line(len(trials.clips)) + " (too far)" * (not one.problem and one.apart > limit) for one in tried
    )
    if best is None:
        on_note(f"the precision is fp32, since this network cannot be folded: {told}")
        return "fp32"
    on_note(f"precision {best.name} is the fastest within 1 - cos {limit:g} of fp32 on the first batch: {told}")
    return best.name


def _choose_plan(
    trials: _Trials, precision: str, limit: float, compiled: bool, on_note: Callable[[str], None]
) -> Forward:
    """The fastest of the forms and of the graphs of those that agree; a search for that one only."""
    forms = [form for form in FORMS if form != "compile" or (compiled and not no_compiler())]
    if compiled and no_compiler():
        on_note(f"torch.compile is not tried: {no_compiler()}")
    tried: dict[str, Tried] = {}
    best: Tried | None = None
    for form in forms:
        tried[form] = trials.run(form, precision)
        if tried[form].is_good(limit):
            tried[f"{form}-graph"] = trials.run(f"{form}-graph", precision)
        best = _best_form(tried, limit)
        if best is not None:
            trials.keep_only(best.name, precision)
    if best is not None and precision in SEARCHED:
        search = trials.run(f"{best.name}-search", precision)
        tried[search.name] = search
        if search.is_good(limit) and search.seconds <= best.seconds * SEARCH_PAYS:
            best = search
    while best is not None:
        forward = trials.taken(best.name, precision)
        if forward is not None:
            break
        again = trials.run(best.name, precision, timed=False)  # what was tried last is another
        if not again.is_good(limit):
            tried[best.name] = again
            best = _best_form(tried, limit)
    if best is None:
        trials.require_room(*tried.values())
        best = trials.run("torch", "fp32") if precision == "fp32" else None
        if best is None or not best.is_good(limit):
            trials.require_room(*tried.values(), surely=False)
            raise UsageError(
                f"no engine runs this network in {precision} ({'; '.join(one.line(1) for one in tried.values())}); use "
                "'--device cpu'"
            )
        forward = trials.taken("torch", "fp32")
    on_note("engines tried: " + "; ".join(one.line(len(trials.clips)) for one in tried.values()))
    told = best.line(len(trials.clips)).removeprefix(best.name + " ")
    on_note(f"the network runs as {best.name} in {precision}: {told} from fp32")
    return forward


def _best_form(tried: Mapping[str, Tried], limit: float) -> Tried | None:
    """The best of the forms, as a graph where that is as fast: the same kernels, and the processor is left to other threads."""
    pairs = ([tried[name] for name in (f"{form}-graph", form) if name in tried] for form in FORMS)
    return choose([one for one in (choose(pair, limit) for pair in pairs) if one is not None], limit)


def _require_right(gpu: Mapping[str, Tensor], cpu: Mapping[str, Tensor]) -> None:
    """Raise UsageError where a GPU's fp32 is not what the CPU computes."""
    problem = disagreement(dict(gpu), dict(cpu))
    if problem:
        raise UsageError(
            f"this GPU, with cuDNN {torch.backends.cudnn.version()} and torch {torch.__version__}, computes wrongly: {problem} "
            "on the CPU; use '--device cpu', or another version"
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:120]}"
