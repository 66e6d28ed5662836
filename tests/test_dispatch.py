"""engine/dispatch.py on a made-up asynchronous device: settled once, halved where memory is full, the numbers of the CPU."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from lazy_device import EagerStreams, LazyStreams
from test_engine_plan import wide
from test_urls import server  # noqa: F401 - a fixture

from featx import checkpoints, fetch_ahead
from featx.engine.cuda import Plans
from featx.engine.dispatch import Dispatch
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.plan import VideoItem, plan_videos
from featx.preprocess import Preprocess

CPU = torch.device("cpu")
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
    extractor.prepare(addresses("absent.mp4", "whole.mp4"))
    assert torch.equal(*taken) and taken[0].shape == (4, 8, 112, 112, 3)
    extractor.prepare([*addresses("whole.mp4"), local])  # where there is a file, nothing is fetched
    assert server.asked == 2 and torch.equal(taken[0], taken[2])
    assert dispatch.precision == "auto" and dispatch.notes == []
    monkeypatch.setattr("featx.extractor.PROBED_BYTES", 100)  # the video has more
    extractor.prepare(addresses("whole.mp4", "absent.mp4"), dispatch.notes.append)
    assert dispatch.precision == "fp32" and "there is no clip by which to compare" in dispatch.notes[0]
    assert sorted(clips_folder.parent.iterdir()) == before


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
    monkeypatch.setattr("featx.extractor.SMALL_BYTES", 2**20 if small else 0)
    extractor.prepare(plan_videos([clips_folder / "dog/000.mp4"]) * 3)
    assert extractor._pool.closed != small and len(taken[0]) == 4
    if small:
        pool, num_started = extractor._pool, extractor.num_decoders
        assert len(list(extractor._pool.count([clips_folder / "dog/001.avi"]))) == 1
        assert extractor._decoders() is pool and extractor.num_decoders == num_started
