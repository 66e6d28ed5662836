"""clip_frames.py: clips made on a device are those made on the CPU, and no memory is used again too early."""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections import deque

import numpy as np
import pytest
import torch
from conftest import write_noise_video
from test_decode_pool import changing  # noqa: F401 - a fixture
from test_frame_folders import flow_card, write_frames  # noqa: F401 - a fixture

from featx import clip_frames
from featx.catalog import CHECKPOINTS
from featx.clip_frames import DeviceFrames, FrameOnDevice, HostFrames
from featx.clips import Sampling, plan_clips
from featx.decode_pool import Arena, Chunk, DecodePool
from featx.engine import Engine, native
from featx.engine.page_lock import page_lock
from featx.errors import UsageError
from featx.extractor import Extractor
from featx.features import Failure
from featx.feeder import ClipReady, Feeder, MemoryFull, VideoEnded, VideoFailed
from featx.plan import VideoItem, plan_videos
from featx.preprocess import Preprocess
from featx.views import Views

CPU = torch.device("cpu")
MINI = CHECKPOINTS["res3d-mini"].preprocess
SMALL = Preprocess(crop=24, resize=(30, 40))


@pytest.fixture(scope="module")
def pool():
    with DecodePool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def videos(tmp_path_factory, changing):  # noqa: F811
    """Of all kinds, by name."""
    folder = tmp_path_factory.mktemp("videos")
    made = {
        "mpeg4": write_noise_video(folder / "a.avi", 150, size=(48, 64)),  # three chunks
        "h264": write_noise_video(folder / "b.mp4", 30, size=(66, 90), codec="libx264"),
        "short": write_noise_video(folder / "c.mp4", 5),
        "odd height": write_noise_video(folder / "d.mkv", 20, codec="ffv1", size=(33, 35)),
        "4:4:4": write_noise_video(folder / "e.mkv", 20, codec="ffv1", pix_fmt="yuv444p"),
        "changing": changing,
        "images": folder / "images",
        "damaged": folder / "damaged.mp4",
    }
    write_frames(made["images"], 20)
    made["damaged"].write_bytes(made["h264"].read_bytes()[:-300])
    return made


def clips_of(pool, paths, frames, sampling, preprocess=SMALL):
    """index -> (clips, what it ended with)"""
    items = [VideoItem(str(i), path, (0, 4) if sampling.listed else None) for i, path in enumerate(paths)]
    clips, ends = {i: [] for i in range(len(items))}, {}
    with Feeder(pool, items, sampling, preprocess, 8, frames=frames) as feeder:
        for event in feeder.events():
            if isinstance(event, ClipReady):
                assert event.ready is None
                clips[event.index].append(event.frames.clone())
            else:
                ends[event.index] = event
    return clips, ends


SAMPLINGS = [
    Sampling(16, 8), Sampling(16, 1), Sampling(4, 3, 2), Sampling(16, 100), Sampling(8, 8, 9), Sampling(16, 8, short="pad"),
    Sampling(16, 8, tail="pad"), Sampling(8, num_clips_even=3), Sampling(8, fps=12.5), Sampling(8, fps=60), Sampling(1, 1),
    Sampling(8, listed=True),
]  # fmt: skip


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize(
    "preprocess",
    [SMALL, dataclasses.replace(SMALL, interpolation="bilinear-antialias"), Preprocess(crop=24, crop_offset=(3, 8))],
    ids=["bilinear", "antialias", "cut"],
)
def test_clips_from_planes_equal_those_from_bgr(pool, videos, preprocess, crops, monkeypatch):
    """Videos of every kind; without native kernels they come as BGR."""
    paths, views = list(videos.values()), Views(crops)
    planar, plain = HostFrames(preprocess, views), HostFrames(preprocess, views, planar=False)
    assert planar.planar == (native.kernels() is not None) and not plain.planar
    clips, ends = clips_of(pool, paths, planar, Sampling(16, 8), preprocess)
    expected, ends_from_bgr = clips_of(pool, paths, plain, Sampling(16, 8), preprocess)
    for i, name in enumerate(videos):
        assert type(ends[i]) is type(ends_from_bgr[i])
        if isinstance(ends[i], VideoEnded):
            assert len(clips[i]) == len(expected[i]) > 0
            assert all(torch.equal(a, b) for a, b in zip(clips[i], expected[i], strict=True)), name
    monkeypatch.setattr(native, "kernels", lambda: None)
    assert not HostFrames(preprocess).planar


@pytest.mark.parametrize(
    ("sampling", "sparse"),
    [
        pytest.param(sampling, sparse, marks=() if i % 2 == sparse else pytest.mark.long, id=f"{sampling}-{sparse}")
        for i, sampling in enumerate(SAMPLINGS)
        for sparse in (False, True)
    ],
)
def test_clips_equal_those_of_the_host(pool, videos, sampling, sparse):
    """Videos of every kind, whatever way clips are cut; in every run, each way in one of the two forms."""
    paths = list(videos.values())
    expected, ends = clips_of(pool, paths, HostFrames(SMALL, planar=False), sampling)
    clips, ends_on_device = clips_of(pool, paths, DeviceFrames(SMALL, CPU, sparse=sparse), sampling)
    for i, name in enumerate(videos):
        assert type(ends[i]) is type(ends_on_device[i])
        if isinstance(ends[i], VideoFailed):
            assert ends[i].failure.reason == ends_on_device[i].failure.reason
            continue
        assert isinstance(ends[i], VideoEnded) and len(clips[i]) == len(expected[i]) == ends[i].features.num_clips
        assert all(torch.equal(a, b) for a, b in zip(clips[i], expected[i], strict=True)), name
    if sampling == SAMPLINGS[0]:
        assert [name for i, name in enumerate(videos) if isinstance(ends[i], VideoFailed)] == ["damaged"]


def geometry(name):
    """What a card does to the pixels of frames, the numbers of the network's input aside."""
    card = CHECKPOINTS[name].preprocess
    return card.resize, card.interpolation, card.crop, card.crop_offset, card.crop_rounding, card.long_side


@pytest.mark.parametrize("name", sorted({geometry(name): name for name in CHECKPOINTS}.values()))
def test_every_card(pool, videos, name):
    """One of those that do the same to the pixels of frames."""
    preprocess, sampling = CHECKPOINTS[name].preprocess, Sampling(8, 8)
    if preprocess.channel_order == "flow":
        preprocess = dataclasses.replace(preprocess, channel_order="bgr", mean=(), std=())
    paths = [videos["h264"], videos["4:4:4"]]
    expected, _ = clips_of(pool, paths, HostFrames(preprocess, planar=False), sampling, preprocess)
    clips, _ = clips_of(pool, paths, DeviceFrames(preprocess, CPU), sampling, preprocess)
    for i in range(len(paths)):
        for ours, host in zip(clips[i], expected[i], strict=True):
            limit = 1 if preprocess.interpolation == "bilinear-float" else 0
            assert (ours.int() - host.int()).abs().max() <= limit


def test_features_are_the_same(clips_folder):
    both = []
    for pixels in ("host", "device"):
        with Extractor(pixels=pixels, save="both", batch_size=3, tail="pad") as extractor:
            both.append({f.key: f for f in extractor.extract_many(plan_videos([clips_folder]))})
            assert extractor._frames.planar == (pixels == "device" or native.kernels() is not None)
    with Extractor(engine="torch", device="cpu") as extractor:
        assert not extractor._make_frames().planar
    host, device = both
    assert host.keys() == device.keys() and len(host) == 3
    for key, features in host.items():
        for layer, clips in features.clips.items():
            assert np.array_equal(clips, device[key].clips[layer])
            assert np.array_equal(features.descriptors[layer], device[key].descriptors[layer])


def test_optical_flow(tmp_path, flow_card):  # noqa: F811
    card, weights = flow_card
    for letter, seed in (("x", 1), ("y", 2)):
        write_frames(tmp_path / "v", 20, f"flow_{letter}_{{:05d}}.png", grey=True, seed=seed, size=(96, 130))
    descriptors = []
    for pixels in ("host", "device"):
        with Extractor(card, weights=weights, layers=["pool5"], pixels=pixels) as extractor:
            descriptors.append(extractor.extract(tmp_path / "v").descriptors["pool5"])
    assert np.array_equal(*descriptors)


@pytest.mark.parametrize("views", [Views(flip=True), Views(3), Views(10), Views(5, True, is_flow=True)], ids=str)
def test_views_are_the_same(pool, videos, views):
    paths = [videos["h264"], videos["mpeg4"]]
    expected, _ = clips_of(pool, paths, HostFrames(SMALL, views), Sampling(16, 8))
    clips, _ = clips_of(pool, paths, DeviceFrames(SMALL, CPU, views), Sampling(16, 8))
    for i in range(2):
        assert len(clips[i]) == len(expected[i]) and len(clips[i]) % views.num_views == 0
        assert all(torch.equal(a, b) for a, b in zip(clips[i], expected[i], strict=True))


def test_frames_smaller_than_the_crop_fail_alone(pool, videos):
    """As on the CPU: the video, and no other."""
    preprocess = Preprocess(crop=60)
    paths = [videos["h264"], videos["short"]]
    for frames in (HostFrames(preprocess), DeviceFrames(preprocess, CPU)):
        clips, ends = clips_of(pool, paths, frames, Sampling(16, 8), preprocess)
        assert len(clips[0]) == 2 and isinstance(ends[1], VideoFailed)
        assert "64x48 pixels are smaller than the crop of 60" in ends[1].failure.reason


def test_words_for_where():
    with pytest.raises(UsageError, match="pixels is 'gpu', but must be one of auto, host, device"):
        Extractor(pixels="gpu")
    with Extractor(device="cpu") as extractor:
        assert isinstance(extractor._make_frames(), HostFrames)  # the CPU's own way is the faster one there


# ------------------------------------------------------------------------------------------------------------------- clips


def numbered(num_frames):
    """A block of frames, each of its number."""
    return torch.arange(num_frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3).contiguous()


@pytest.mark.parametrize(
    ("rows", "num_parts"),
    [([(0, 3), (0, 4), (0, 5)], 1), ([(0, 1), (0, 4), (0, 7)], 1), ([(0, 8), (0, 9), (1, 0), (1, 1)], 2), ([(1, 2)], 1),
     ([(0, 0), (0, 1), (0, 1), (0, 1)], 3), ([(0, 0), (0, 1), (0, 2), (0, 0), (0, 1)], 2), ([(0, 9), (1, 0), (2, 0)], 3)],
)  # fmt: skip
def test_a_clip_is_cut_from_blocks(rows, num_parts):
    blocks = [numbered(10) + 10 * i for i in range(3)]
    frames = [FrameOnDevice(blocks[block], row) for block, row in rows]
    assert len(clip_frames._runs(frames)) == num_parts
    for sparse in (False, True):
        (clip,) = DeviceFrames(SMALL, CPU, sparse=sparse).views(frames)
        assert clip[:, 0, 0, 0].tolist() == [10 * block + row for block, row in rows]
        shares = any(clip.data_ptr() == blocks[b][r].data_ptr() for b, r in rows[:1])
        assert shares == (num_parts == 1 and not sparse)


@pytest.mark.parametrize("num_frames", [15, 16, 64, 65, 100, 150])
def test_few_copies(num_frames):
    """Of the clips of a video that is decoded in chunks of 64 frames, only those are copied that lie in two."""
    blocks = [numbered(min(64, num_frames - first)) for first in range(0, num_frames, 64)]
    frames = [FrameOnDevice(block, row) for block in blocks for row in range(len(block))]
    clips = [clip for clip in plan_clips(num_frames, Sampling(16, 8)) if clip.end_frame - clip.start_frame == 16]
    num_split = sum(clip.start_frame // 64 != (clip.end_frame - 1) // 64 for clip in clips)
    runs = [len(clip_frames._runs([frames[i] for i in clip.frames])) for clip in clips]
    assert runs.count(2) == num_split and runs.count(1) == len(clips) - num_split


# ------------------------------------------------------------------------------------------------------- a memory that is full


class Full(DeviceFrames):
    """Frames on a device whose memory is full: `times` maps a method's name to how often in a row, at its second call."""

    def __init__(self, *args, times, **options):
        super().__init__(*args, **options)
        self._times, self._num_calls = dict(times), dict.fromkeys(times, 0)

    def _ask(self, method):
        self._num_calls[method] = self._num_calls.get(method, 0) + 1
        if self._num_calls[method] >= 2 and self._times.get(method, 0):
            self._times[method] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    def prepare(self, chunk, taken=clip_frames.ALL):
        self._ask("prepare")
        return super().prepare(chunk, taken)

    def views(self, frames):
        self._ask("views")
        return super().views(frames)

    def _with_mirror(self, view):
        self._ask("mirror")
        return super()._with_mirror(view)


@pytest.mark.parametrize("times", [{"prepare": 3}, {"views": 1}, {"mirror": 2}, {"prepare": 1, "views": 2}], ids=str)
def test_what_does_not_fit_is_made_once_there_is_room(pool, videos, times):
    items, views = [VideoItem("a", videos["mpeg4"])], Views(flip=True)
    expected, _ = clips_of(pool, [videos["mpeg4"]], HostFrames(SMALL, views), Sampling(16, 8))
    found, asked = [], []
    with Feeder(pool, items, Sampling(16, 8), SMALL, 8, frames=Full(SMALL, CPU, views, times=times)) as feeder:
        for event in feeder.events():
            if isinstance(event, MemoryFull):
                asked.append(event)
                event.freed.set()
            elif isinstance(event, ClipReady):
                found.append(event.frames.clone())
    num_asked = [n for count in times.values() for n in range(count)]
    assert sorted(event.num_asked for event in asked) == sorted(num_asked)
    assert all(event.what in ("64 frames of 64x48", "22 frames of 64x48", "a clip of 16 frames") for event in asked)
    assert len(found) == len(expected[0]) and all(map(torch.equal, found, expected[0]))


def test_a_reader_that_makes_no_room_leaves(videos):
    """The thread that waits for it ends, too."""
    with DecodePool(1) as pool:
        feeder = Feeder(
            pool, [VideoItem("a", videos["mpeg4"])], Sampling(16, 8), SMALL, 8,
            frames=Full(SMALL, CPU, times={"prepare": 9}),
        )  # fmt: skip
        with feeder:
            assert any(isinstance(event, MemoryFull) for event in feeder.events())
        feeder._thread.join(60)
        assert not feeder._thread.is_alive()


@pytest.mark.parametrize(("times", "batch_size"), [(1, 4), pytest.param(2, 2, marks=pytest.mark.long), (3, 1)])
def test_a_run_goes_on_with_smaller_batches_where_waiting_is_not_enough(clips_folder, monkeypatch, times, batch_size):
    items, notes = plan_videos([clips_folder / "cat/000.mkv", clips_folder / "dog/001.avi"]), []
    options = {"batch_size": 4, "stride": 4, "pixels": "device", "device": "cpu", "engine": "torch", "num_decoders": 1}
    with Extractor(**options) as extractor:
        expected = {f.key: f.descriptors["pool5"] for f in extractor.extract_many(items)}
    with Extractor(**options) as extractor:
        monkeypatch.setattr(extractor, "_make_frames", lambda: Full(MINI, CPU, times={"prepare": times, "views": 1}))
        extractor.prepare(items, notes.append)
        found = {f.key: f.descriptors["pool5"] for f in extractor.extract_many(items)}
        assert extractor.engine.batch_size == extractor.provenance.batch_size == batch_size
    assert found.keys() == expected.keys() and len(notes) == times - 1
    for note, size in zip(notes, (2, 1), strict=False):
        assert note.startswith("the memory of 'cpu' is full (") and f"batches are of {size} clips from here on" in note
    for key, values in expected.items():
        assert 1 - float(values @ found[key]) < 1e-6


def test_who_listens_to_the_engine_only_is_told_of_smaller_batches(monkeypatch):
    """As `featx classify` does, which prepares nothing: also of the second time, when the engine is another one."""
    notes = []
    monkeypatch.setattr(Engine, "is_beside", True)
    monkeypatch.setattr(Engine, "on_note", None)  # kept by an engine on a GPU only
    with Extractor(batch_size=4, device="cpu", engine="torch") as extractor:
        extractor.engine.on_note = notes.append
        for num_asked in (1, 2):
            full = MemoryFull("64 frames of 64x48", num_asked)
            extractor._make_room(full, [], deque())
            assert full.freed.is_set()
    assert [note.partition("; ")[2][:22] for note in notes] == ["batches are of 2 clips", "batches are of 1 clips"]


def test_frames_for_which_nothing_makes_room_end_the_run_in_words(clips_folder, monkeypatch):
    with Extractor(batch_size=4, pixels="device", device="cpu") as extractor:
        monkeypatch.setattr(extractor, "_make_frames", lambda: Full(MINI, CPU, times={"prepare": 99}))
        with pytest.raises(
            UsageError, match="'cpu' has no room for [0-9]+ frames of 64x48 beside a batch of one clip; let other"
        ):
            list(extractor.extract_many(plan_videos([clips_folder])))
        assert extractor.engine.batch_size == 1


# --------------------------------------------------------------------------------------------------------- a GPU's stand-in


class FakeEvent:
    """An event that has not happened until the test says so."""

    happened = False
    num_recorded = 0

    def record(self, stream):
        FakeEvent.num_recorded += 1

    def query(self):
        return FakeEvent.happened


@pytest.fixture
def fake_gpu(monkeypatch):
    """DeviceFrames that believes in a GPU, whose memory is the CPU's: what it holds, marks and unlocks, and in which order."""
    log = []
    frames = DeviceFrames(SMALL, CPU)
    frames._stream = types.SimpleNamespace(synchronize=lambda: log.append("waited"))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(FakeEvent, "happened", False)
    monkeypatch.setattr(FakeEvent, "num_recorded", 0)
    monkeypatch.setattr(clip_frames, "page_lock", lambda memory, device: lambda: log.append("unlocked"))
    return frames, log


def chunk_of(num_frames, arena):
    pictures = np.zeros((num_frames, 48, 64, 3), np.uint8)
    return Chunk(0, pictures, [0.0] * num_frames, (48, 64), arena=arena)


def test_a_slot_is_held_until_it_is_copied(fake_gpu):
    frames, log = fake_gpu
    arena = Arena(np.zeros(10, np.uint8))
    first, second = chunk_of(4, arena), chunk_of(4, arena)
    frames.prepare(first)
    frames.prepare(second)
    assert arena.is_locked and len(arena.before_closing) == 2  # locked once
    assert not first.held_until() and not second.held_until()
    FakeEvent.happened = True
    assert first.held_until() and second.held_until()
    arena.close()
    assert log == ["waited", "unlocked"]


def test_memory_that_cannot_be_locked_is_copied_once_more(fake_gpu, monkeypatch):
    frames, _ = fake_gpu
    monkeypatch.setattr(clip_frames, "page_lock", lambda memory, device: None)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs))
    chunk = chunk_of(4, Arena(np.zeros(10, np.uint8)))
    frames.prepare(chunk)
    assert chunk.held_until is None and chunk.arena.is_locked is False and not chunk.arena.before_closing
    assert frames.note.endswith("the decoders' memory cannot be page-locked, and each frame is copied once more")


def test_memory_is_unlocked_though_the_device_has_failed(fake_gpu):
    frames, log = fake_gpu
    arena = Arena(np.zeros(10, np.uint8))
    frames.prepare(chunk_of(4, arena))

    def failed():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    frames._stream.synchronize = failed
    arena.close()
    assert log == ["unlocked"]


def test_a_mark_for_all_clips_that_nothing_came_after(fake_gpu):
    frames, _ = fake_gpu
    some = frames.prepare(chunk_of(20, Arena(np.zeros(10, np.uint8))))
    copied = FakeEvent.num_recorded
    marks = [(frames.views(some[i : i + 8]), frames.mark())[1] for i in range(5)]
    assert len(set(map(id, marks))) == 1 and FakeEvent.num_recorded == copied + 1
    more = frames.prepare(chunk_of(20, Arena(np.zeros(10, np.uint8))))
    frames.views([some[19], more[0]])
    assert frames.mark() is not marks[0]


@pytest.mark.parametrize("fails", [False, True])
def test_memory_is_locked_and_unlocked_on_the_device_that_reads_it(monkeypatch, fails):
    memory, log, current = np.zeros(10, np.uint8), [], ["none"]

    class Runtime:
        def cudaHostRegister(self, address, num_bytes, flags):
            log.append(("locked", current[-1], address, num_bytes))
            return 0

        def cudaHostUnregister(self, address):
            log.append(("unlocked", current[-1], address))

    @contextlib.contextmanager
    def at_device(device):
        if fails and log:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        current.append(str(device))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    monkeypatch.setattr(torch.cuda, "device", at_device)
    unlock = page_lock(memory, torch.device("cuda:1"))
    unlock()
    address = memory.ctypes.data
    assert log == [("locked", "cuda:1", address, 10), ("unlocked", "cuda:1", address)][: 1 if fails else 2]


# ------------------------------------------------------------------------------------------------------------------ a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnAGpu:
    @pytest.mark.parametrize("locked", [True, False])
    def test_clips_equal_those_of_the_host(self, videos, monkeypatch, locked):
        with DecodePool(2) as pool:  # whose memory nobody has locked yet
            self.assert_equal_clips(pool, videos, monkeypatch, locked)
            assert {worker._shared.is_locked for worker in pool._workers} == {locked}

    def assert_equal_clips(self, pool, videos, monkeypatch, locked):
        if not locked:
            monkeypatch.setattr(clip_frames, "page_lock", lambda memory, device: None)
        device, paths = torch.device("cuda"), list(videos.values()) * 3
        for sampling in SAMPLINGS:
            expected, _ = clips_of(pool, paths, HostFrames(SMALL), sampling)
            items = [VideoItem(str(i), path, (0, 4) if sampling.listed else None) for i, path in enumerate(paths)]
            clips = {i: [] for i in range(len(items))}
            with Feeder(pool, items, sampling, SMALL, 8, frames=DeviceFrames(SMALL, device)) as feeder:
                for event in feeder.events():
                    if isinstance(event, ClipReady):
                        event.ready.wait()
                        clips[event.index].append(event.frames.cpu())
            for i in range(len(items)):
                assert all(torch.equal(a, b) for a, b in zip(clips[i], expected[i], strict=True))

    def test_shared_memory_is_locked(self, videos):
        """Where this fails, the pixels are right, and every frame is copied once more on the CPU."""
        with DecodePool(1, num_slots=4) as pool:
            feeder = Feeder(
                pool, [VideoItem("a", videos["mpeg4"])], Sampling(), SMALL, 8,
                frames=DeviceFrames(SMALL, torch.device("cuda")),
            )  # fmt: skip
            with feeder:
                assert sum(isinstance(event, ClipReady) for event in feeder.events()) == 17
            assert all(worker._shared.is_locked for worker in pool._workers)

    def test_features_are_the_same(self, clips_folder):
        results = []
        for pixels in ("host", "device"):
            options = {"engine": "folded", "precision": "fp32"}  # a measurement may choose otherwise each time
            with Extractor(device="cuda", pixels=pixels, batch_size=4, **options) as extractor:
                results.append({f.key: f.descriptors for f in extractor.extract_many(plan_videos([clips_folder]))})
        for key, descriptors in results[0].items():
            assert not isinstance(descriptors, Failure)
            for layer, values in descriptors.items():
                assert 1 - float(values @ results[1][key][layer]) < 1e-6
