"""engine/dispatch.py on a made-up asynchronous device: settled once, halved where memory is full, the numbers of the CPU."""

from __future__ import annotations

import dataclasses
import gc
import tempfile
import threading
import types
import weakref
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import recorded_graphs
import torch
from lazy_device import EagerStreams, LazyStreams
from test_engine_plan import wide
from test_urls import server  # noqa: F401 - a fixture

from featx import checkpoints, fetch_ahead
from featx.checkpoints.download import download
from featx.engine.batches import MAX_BATCH_SIZE, PROBES
from featx.engine.cuda import Plans
from featx.engine.dispatch import Dispatch
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.feeder import ClipReady, MemoryFull
from featx.fetch_ahead import FetchAhead
from featx.first_clips import PROBED_SECONDS
from featx.plan import VideoItem, plan_videos
from featx.preprocess import Preprocess
from featx.remote import Stop
from featx.scratch import PREFIX

CPU = torch.device("cpu")
AS_WRITTEN = Plans._as_written
SMALL = Preprocess(crop=20, mean=(100.0, 110.0, 90.0), channel_order="bgr")


@pytest.fixture(scope="module")
def net():
    return wide("res3d")[0].eval()


@pytest.fixture
def make(net):
    def make(batch_size=4, precision="fp32", plan="folded", streams=LazyStreams, net=net, preprocess=SMALL, **options):
        options = {"seconds_of": lambda run, clips: 1.0, **options}
        made = Dispatch(
            net, preprocess, ["pool5"],
            length=8, device=CPU, batch_size=batch_size, precision=precision, plan=plan, streams=streams(), **options,
        )  # fmt: skip
        made.notes = []
        made.on_note = made.notes.append
        return made

    return make


@pytest.fixture
def full_above(monkeypatch):
    """A memory that holds batches of so many clips, and how it says so."""
    limit = [1000, torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")]
    run = Plans._folded

    def small(self, form, precision):
        forward = run(self, form, precision)

        def checked(clips):
            if len(clips) > limit[0]:
                raise limit[1]
            return forward(clips)

        return checked

    monkeypatch.setattr(Plans, "_folded", small)
    monkeypatch.setattr(Plans, "_as_written", lambda self: self._folded("folded", "fp32"))
    return limit


def clips(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (8, 20, 20, 3), generator=generator, dtype=torch.uint8) for _ in range(num)]


@pytest.fixture(scope="module")
def expected(net):
    with torch.no_grad():
        return net(SMALL.normalise(torch.stack(clips(4))).contiguous(), ["pool5"])["pool5"].numpy()


def assert_right(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_first_batch_settles_and_is_computed(make, expected):
    dispatch = make()
    assert not dispatch.settled
    handle = dispatch.submit(clips(4))
    assert dispatch.settled and (dispatch.plan, dispatch.precision) == ("folded", "fp32")
    assert_right(handle.result()["pool5"], expected)
    assert_right(dispatch.submit(clips(4)[:3]).result()["pool5"], expected[:3])


@pytest.mark.parametrize("plan", ["folded-graph", "cudnn-graph"])
def test_what_a_graph_reads_lives_as_long_as_it(make, expected, monkeypatch, plan):
    """The weights and the pixels' memory, of which a graph knows the addresses only."""
    recorded_graphs.stand_in(monkeypatch)
    dispatch = make(plan=plan)
    dispatch.settle(clips(4))
    gc.collect()
    assert_right(dispatch.submit(clips(4)).result()["pool5"], expected)
    others = clips(4, seed=1)
    assert_right(dispatch.submit(others[::-1]).result()["pool5"], make().submit(others[::-1]).result()["pool5"])


def test_a_graph_is_chosen_where_starting_kernels_decides(make, expected, monkeypatch):
    """Of what was tried nothing is left but the net that is taken, which was made once."""

    def num_nets():
        gc.collect()
        return sum(isinstance(each, torch.fx.GraphModule) for each in gc.get_objects())

    recorded_graphs.stand_in(monkeypatch)
    seconds = {"folded": 1.0, "folded-graph": 0.1, "cudnn": 0.5, "cudnn-graph": 0.3}
    made, make_form, before = [], Plans._folded, num_nets()
    monkeypatch.setattr(Plans, "_folded", lambda plans, *way: made.append(way) or make_form(plans, *way))
    dispatch = make(plan="auto", seconds_of=lambda run, clips: seconds[run.plan])
    handle = dispatch.submit(clips(4))
    assert dispatch.plan == "folded-graph" and made == [("folded", "fp32"), ("cudnn", "fp32")]
    assert num_nets() - before == 1
    assert_right(handle.result()["pool5"], expected)
    assert "the network runs as folded-graph in fp32: 40 clips/s" in dispatch.notes[-1]


def test_auto_is_settled_by_the_clips_given(make, expected):
    dispatch = make(precision="auto", plan="auto", seconds_of=lambda run, clips: 2.0 - run.plan.startswith("folded"))
    dispatch.settle(clips(2))
    assert dispatch.precision in ("fp32", "tf32") and dispatch.plan == "folded" and len(dispatch.notes) == 3
    assert "clips/s" in dispatch.notes[0]


def test_memory_that_is_full_at_the_first_batch(make, full_above, expected):
    full_above[0] = 1
    dispatch = make(batch_size=4)
    handle = dispatch.submit(clips(4))
    assert dispatch.batch_size == 1 and handle.done()
    assert dispatch.notes == [
        f"the memory of 'cpu' is full; batches are of {n} clips from here on, which changes the last bits of features"
        for n in (2, 1)
    ]
    assert_right(handle.result()["pool5"], expected)


@pytest.fixture
def full_for_ways_above(full_above, monkeypatch):
    """The same, where the network as it is written fits: it takes the least."""
    monkeypatch.setattr(Plans, "_as_written", AS_WRITTEN)
    return full_above


@pytest.mark.parametrize("asked", [{}, {"plan": "auto"}, {"precision": "auto"}, {"precision": "auto", "plan": "auto"}])
def test_memory_that_is_full_for_what_was_asked_for(make, full_for_ways_above, expected, asked):
    full_for_ways_above[0] = 1
    dispatch = make(**asked, seconds_of=lambda run, clips: 1.0 - 0.5 * (run.precision == "fp32"))
    handle = dispatch.submit(clips(4))
    assert dispatch.batch_size == 1 and dispatch.plan in ("folded", "cudnn") and dispatch.precision == "fp32"
    assert sum("the memory of 'cpu' is full" in note for note in dispatch.notes) == 2
    assert_right(handle.result()["pool5"], expected)


def test_memory_that_is_full_for_what_was_chosen_before(make, full_for_ways_above, expected):
    dispatch = make(batch_size=4, plan="auto", streams=EagerStreams)
    before = dispatch.submit(clips(4))
    full_for_ways_above[0], plan = 1, dispatch.plan
    after = dispatch.submit(clips(4))
    assert dispatch.batch_size == 1 and dispatch.plan == plan
    for handle in (before, after):
        assert_right(handle.result()["pool5"], expected)


def test_one_clip_that_does_not_fit_for_what_was_asked_for(make, full_for_ways_above):
    full_for_ways_above[0] = 0
    with pytest.raises(
        UsageError, match="'folded' in fp32 was asked for, .* does not fit into the memory; leave --engine"
    ):
        make(batch_size=2).submit(clips(2))


def test_memory_that_becomes_full_later(make, full_above, expected):
    """What is on its way comes back, and the batch that did not fit is done in parts."""
    dispatch = make(batch_size=4, streams=EagerStreams)
    before = dispatch.submit(clips(4))
    full_above[0] = 2
    after = dispatch.submit(clips(4))
    assert dispatch.batch_size == 2 and len(dispatch.notes) == 1
    for handle in (before, after, dispatch.submit(clips(4)), dispatch.submit(clips(4))):
        assert_right(handle.result()["pool5"], expected)
    assert_right(dispatch.submit(clips(4)[2:]).result()["pool5"], expected[2:])


def test_a_convolution_that_finds_no_way(make, full_above, expected):
    """A full memory may be why: a smaller batch is taken, and where none is small enough, both reasons are told."""
    full_above[:] = 2, RuntimeError("GET was unable to find an engine to execute this computation")
    dispatch = make(batch_size=4)
    assert_right(dispatch.submit(clips(4)).result()["pool5"], expected)
    assert dispatch.batch_size == 2
    full_above[0] = 0
    with pytest.raises(
        UsageError, match="finds no way to compute one clip of 8 frames on 'cpu', or its memory is full"
    ):
        make(batch_size=2).submit(clips(2))


def test_what_filled_the_memory_is_let_go_of(make):
    """Also what the errors hold on whose account the last one was raised."""

    class Activation:
        pass

    def forward():
        activation = Activation()
        held.append(weakref.ref(activation))
        raise NotImplementedError("no such kernel")

    def otherwise():
        try:
            forward()
        except NotImplementedError:
            activation = Activation()
            held.append(weakref.ref(activation))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")  # noqa: B904 - as it comes about

    held, dispatch = [], make(batch_size=4)
    try:
        otherwise()
    except RuntimeError as error:
        assert all(reference() is not None for reference in held)
        dispatch._halve(error)
        assert [reference() for reference in held] == [None, None] and error.__context__ is not None
    assert dispatch.batch_size == 2


def test_memory_that_does_not_hold_one_clip(make, full_above):
    full_above[0] = 0
    with pytest.raises(
        UsageError, match="one clip of 8 frames does not fit into the memory of 'cpu'; take a smaller --length"
    ):
        make(batch_size=2).submit(clips(2))


def test_other_errors_are_no_matter_of_memory(make, monkeypatch):
    def broken(self, form, precision):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Plans, "_as_written", lambda self: broken(self, "", ""))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        make().submit(clips(1))


def test_an_extractor_keeps_the_order_of_clips(make, clips_folder, monkeypatch):
    """Several batches on their way, of a device that does all as late as it may."""
    items = plan_videos([clips_folder])
    with Extractor(batch_size=3, layers=["pool5"], engine="torch", save="both") as extractor:
        plain = {f.key: f for f in extractor.extract_many(items)}
        of_its_own = {
            "net": checkpoints.load(extractor.checkpoint).backbone,
            "preprocess": extractor.checkpoint.preprocess,
        }
        dispatch = make(batch_size=3, **of_its_own)
        monkeypatch.setattr(extractor.engine, "_dispatch", dispatch)
        assert extractor.engine.max_in_flight == 2 and extractor.engine.is_beside
        beside = {f.key: f for f in extractor.extract_many(items)}
        assert extractor.provenance.engine == "folded-cpu" and extractor.provenance.precision == "fp32"
        assert extractor.stopwatch.seconds("copy") > 0 and extractor.stopwatch.seconds("launch") > 0
    assert beside.keys() == plain.keys()
    for key, features in plain.items():
        assert_right(beside[key].clips[extractor.layers[0]], features.clips[extractor.layers[0]])


def test_preparing_takes_the_first_clips_there_are(make, clips_folder, tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    items = [*plan_videos([tmp_path]), *plan_videos([clips_folder])]
    taken = []
    with Extractor(batch_size=4, stride=2) as extractor:
        dispatch = make(precision="auto", plan="folded", preprocess=extractor.checkpoint.preprocess)
        monkeypatch.setattr(extractor.engine, "_dispatch", dispatch)
        monkeypatch.setattr(dispatch, "settle", lambda clips: taken.append([clip.shape for clip in clips]))
        extractor.prepare(items, dispatch.on_note)
        assert taken == [[(8, 112, 112, 3)] * 4] and extractor.engine.wants_clips
        extractor.prepare(items[:1], dispatch.on_note)  # which has none
        assert dispatch.precision == "fp32" and "there is no clip by which to compare precisions" in dispatch.notes[0]
        assert len(taken[1]) == 1


# -------------------------------------------------------------------------------------------- the batch that the memory holds

MB = 2**20
CLIP_BYTES = 8 * 20 * 20 * 3


class Memory:
    """A GPU of so many free bytes, and what a pass of so many clips is told to take beyond the clips themselves."""

    def __init__(self, free, fixed, per_clip):
        self.free, self.fixed, self.per_clip = free, fixed, per_clip
        self.seen, self.emptied = [], False

    def empty_cache(self):
        self.emptied = True

    def mem_get_info(self, device):
        assert self.emptied, "what PyTorch keeps for later counts as taken"
        return self.free, 10 * self.free

    def peak_bytes(self, run, device):
        (values,) = run().values()
        self.seen.append(len(values))
        return self.fixed + len(values) * (self.per_clip - CLIP_BYTES)


@pytest.fixture
def gpu_of(make, monkeypatch):
    """A Dispatch on a made-up GPU whose passes are the CPU's, before it knows its batch."""

    def gpu_of(free, fixed=0, per_clip=100 * MB):
        memory, dispatch = Memory(free, fixed, per_clip), make(batch_size=None)
        plans = dispatch._plans
        dispatch.device = torch.device("cuda", 0)
        monkeypatch.setattr(dispatch, "_plans", lambda num: with_device(plans(num), CPU))
        monkeypatch.setattr(dispatch, "_at_device", nullcontext)
        monkeypatch.setattr("featx.engine.dispatch.peak_bytes", memory.peak_bytes)
        monkeypatch.setattr(torch.cuda, "empty_cache", memory.empty_cache)
        monkeypatch.setattr(torch.cuda, "mem_get_info", memory.mem_get_info)
        return dispatch, memory

    return gpu_of


def with_device(plans, device):
    plans.device = device
    return plans


@pytest.mark.parametrize(
    ("free", "fixed", "expected"),
    [(10_000, 0, 56), (1_500, 0, 8), (400, 0, 2), (100, 0, 1), (10_000, 2_000, 40), (10**6, 0, MAX_BATCH_SIZE)],
)
def test_the_batch_that_the_free_memory_holds(gpu_of, free, fixed, expected):
    """6/10 of it; from passes of the network itself, small ones, once."""
    dispatch, memory = gpu_of(free * MB, fixed * MB)
    assert dispatch.batch_size == dispatch.batch_size == expected
    assert memory.seen == list(PROBES)


def test_clips_on_the_device_count_too(gpu_of):
    dispatch, _ = gpu_of(100 * CLIP_BYTES, per_clip=CLIP_BYTES)
    assert dispatch.batch_size == 56


def test_a_network_that_cannot_be_folded_is_measured_as_it_is(gpu_of, monkeypatch):
    def refused(self, form, precision):
        raise NotImplementedError("aten.max gives a tuple")

    monkeypatch.setattr(Plans, "_folded", refused)
    dispatch, memory = gpu_of(10_000 * MB)
    assert dispatch.batch_size == 56 and memory.seen == list(PROBES)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_where_few_clips_do_not_fit_one_is_begun_with(gpu_of, full_above, error):
    full_above[:] = 3, error
    dispatch, memory = gpu_of(10_000 * MB)
    assert dispatch.batch_size == 1 and memory.seen == [2]


def test_what_is_no_matter_of_memory_is_raised(gpu_of, full_above):
    full_above[:] = 3, RuntimeError("CUDA error: an illegal memory access was encountered")
    dispatch, _ = gpu_of(10_000 * MB)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        dispatch.batch_size  # noqa: B018 - which is found now


def test_other_devices_have_no_batch_of_their_own(make):
    with pytest.raises(UsageError, match="batch_size must be given for 'cpu'"):
        make(batch_size=None).batch_size  # noqa: B018


@pytest.fixture
def preparing(make, monkeypatch):
    """An Extractor that believes in a GPU, and the clips by which it would choose."""
    taken = []
    with Extractor(batch_size=4, stride=2) as extractor:
        dispatch = make(precision="auto", plan="folded", preprocess=extractor.checkpoint.preprocess)
        monkeypatch.setattr(extractor.engine, "_dispatch", dispatch)
        monkeypatch.setattr(dispatch, "settle", lambda clips: taken.append(torch.stack(clips)))
        yield extractor, dispatch, taken


def test_a_run_of_addresses_only_is_prepared_by_the_first_of_them(preparing, server, clips_folder, monkeypatch):  # noqa: F811
    extractor, dispatch, taken = preparing
    (local,) = plan_videos([clips_folder / "dog/000.mp4"])
    monkeypatch.setattr(tempfile, "tempdir", str(clips_folder.parent))
    before = sorted(clips_folder.parent.iterdir())

    def addresses(*names):
        return [VideoItem(n, Path(n), url=f"http://127.0.0.1:{server.server_port}/{n}") for n in names]

    extractor.prepare([local])
    left = clips_folder.parent / f"{PREFIX}killed_0"  # by a worker that was ended while it fetched
    (left / "videos").mkdir(parents=True)
    (left / ".lock").touch()
    (left / "videos/half.mp4").touch()
    extractor.prepare(addresses("absent.mp4", "whole.mp4"))
    assert torch.equal(*taken) and taken[0].shape == (4, 8, 112, 112, 3)
    extractor.prepare([*addresses("whole.mp4"), local])  # where there is a file, nothing is fetched
    assert server.asked == 2 and torch.equal(taken[0], taken[2])
    assert dispatch.precision == "auto" and dispatch.notes == []
    monkeypatch.setattr("featx.first_clips.PROBED_BYTES", 100)  # the video has more
    extractor.prepare(addresses("whole.mp4", "absent.mp4"), dispatch.notes.append)
    assert dispatch.precision == "fp32" and "there is no clip by which to compare" in dispatch.notes[0]
    assert sorted(clips_folder.parent.iterdir()) == before


def test_an_address_that_is_slow_does_not_hold_up_a_run(preparing, server, clips_folder, monkeypatch):  # noqa: F811
    """What came by then will do; the clock goes on when the first video has been taken."""
    extractor, dispatch, taken = preparing
    now, released, notes = [0.0], threading.Event(), []

    class InTime(FetchAhead):
        def fetched(self, items):
            for each in super().fetched(items):
                yield each
                now[0] += PROBED_SECONDS + 1

    def fetch(url, *args, **options):
        if "slow" in url:
            released.wait(60)
            raise Stop
        return download(url, *args, **options)

    monkeypatch.setattr("featx.first_clips.FetchAhead", InTime)
    monkeypatch.setattr("featx.first_clips.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(fetch_ahead, "download", fetch)
    monkeypatch.setattr(tempfile, "tempdir", str(clips_folder.parent))
    before = sorted(clips_folder.parent.iterdir())
    host = f"http://127.0.0.1:{server.server_port}"
    try:
        extractor.sampling = dataclasses.replace(extractor.sampling, stride=20)  # two clips of the video
        extractor.prepare([VideoItem(n, Path(n), url=f"{host}/{n}") for n in ("whole.mp4", "slow.mp4")], notes.append)
    finally:
        released.set()
    assert notes == ["the first addresses are slow: after 20 s the choice is made by 2 clips of theirs"]
    assert [len(clips) for clips in taken] == [2] and dispatch.precision == "auto"
    assert sorted(clips_folder.parent.iterdir()) == before


def test_a_full_memory_ends_the_look_at_first_clips(preparing, clips_folder, monkeypatch):
    extractor, _, taken = preparing
    full = MemoryFull("a clip of 16 frames", 0)

    class Feeding(nullcontext):
        def __init__(self, *args):
            super().__init__(self)

        def events(self):
            yield from (ClipReady(0, torch.zeros(1)), full, ClipReady(0, torch.ones(1)))

    monkeypatch.setattr("featx.extractor.Feeder", Feeding)
    extractor.prepare(plan_videos([clips_folder / "dog/000.mp4"]))
    assert [clips.tolist() for clips in taken] == [[[0.0]]] and full.freed.is_set()


def test_a_disk_that_takes_no_video_leaves_the_choice_open(preparing, server, monkeypatch):  # noqa: F811
    """The run itself may have room elsewhere, and says what is wrong."""
    extractor, dispatch, _ = preparing
    monkeypatch.setattr(fetch_ahead, "SPARE_BYTES", 2**62)
    extractor.prepare(
        [VideoItem("a", Path("a.mp4"), url=f"http://127.0.0.1:{server.server_port}/whole.mp4")], dispatch.on_note
    )
    assert dispatch.precision == "fp32" and "of the first addresses no clip could be had: " in dispatch.notes[0]


@pytest.mark.parametrize("small", [True, False])
def test_decode_workers_of_the_preparation_are_kept_where_videos_end_soon(preparing, clips_folder, monkeypatch, small):
    extractor, _, taken = preparing
    monkeypatch.setattr("featx.first_clips.SMALL_BYTES", 2**20 if small else 0)
    extractor.prepare(plan_videos([clips_folder / "dog/000.mp4"]) * 3)
    assert extractor._pool.closed != small and len(taken[0]) == 4
    if small:
        pool, num_started = extractor._pool, extractor.num_decoders
        assert len(list(extractor._pool.count([clips_folder / "dog/001.avi"]))) == 1
        assert extractor._decoders() is pool and extractor.num_decoders == num_started
