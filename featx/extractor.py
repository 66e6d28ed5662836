"""Extractor: videos in, features out; composes decoding, windowing, the backbone and aggregation (steps 2 to 6).

    decode workers          one thread                                the caller's thread
    --------------          ---------------------------------         -----------------------------------
    frames (H, W, 3)   ->   resize, crop, window: clips (T, h, w, 3)  -> batch, forward, aggregate: Features

Everything between the arrows is bounded, so memory depends neither on a video's length nor on the number of videos.
"""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import featx
from featx import checkpoints, decode_pool
from featx.aggregation import Aggregation, VideoInWork
from featx.backbones import ARCHITECTURES
from featx.catalog import Checkpoint, get_checkpoint
from featx.clip_frames import DeviceFrames, HostFrames
from featx.clips import Sampling
from featx.damage import check_policy
from featx.decode_choice import is_gpu_faster, videos_to_try
from featx.decode_pool import Chunk, DecodePool, Ended, Failed
from featx.engine import Engine, choose_device
from featx.engine.flight import Done, Handle
from featx.errors import UsageError, VideoError
from featx.features import Failure, Features
from featx.feeder import ClipReady, Feeder, MemoryFull
from featx.first_clips import first_clips
from featx.hardware_decode import why_no_hardware
from featx.plan import VideoItem, video_item
from featx.preprocess import Preprocess
from featx.profile import Stopwatch
from featx.provenance import Provenance
from featx.reachable import hindrance
from featx.segments import Segment
from featx.views import Views

__all__ = ["Extractor", "extract", "provenance_of"]

DECODE_FORMS = ("cpu", "cuda", "auto")
PIXELS = ("auto", "host", "device")
DEVICE_NUM_SLOTS = 4  # of a decode worker: one is written, and of the others one is copied

LONG_RUN_VIDEOS = 200  # from here on torch.compile's minute may pay, and seconds in which decoders are measured


InFlight = deque[tuple[list[VideoInWork], Handle | Done]]  # whose each row of a batch is


class Extractor:
    """A checkpoint made ready to extract features; keep one for many videos.

    >>> with Extractor("res3d-mini", layers=["pool5"]) as extractor:              # doctest: +SKIP
    ...     features = extractor.extract("a.mp4")

    `backbone`: a card's name, the path of a card of your own (.json), or a `featx.catalog.Checkpoint`; `weights`: the file of
    that card, not needed where it is embedded, stored with `featx weights`, or named by your card, or what
    `featx.checkpoints.load` gave for it; `mean`: a file with a mean
    cube in place of the card's constant mean (`.binaryproto`, or `.npy` (3, T, h, w), BGR), or "card" for the constants even
    where a cube is stored; `variant`: a variant of the card. `layers`: names of activations (default: the card's).
    `length`, `stride`, `frame_step`: of clips, in frames (default: the card's); `num_clips`: that many evenly spread clips
    instead of a stride; `num_clips_random`: that many drawn by `clips_seed`, for figures only, since no feature file records
    them; `listed_clips`: every VideoItem brings the starts of its clips; `fps`: frames a second to resample
    to, 0 for frames as filmed (default: the card's, mostly as filmed); `short`, `tail`: see `featx.clips.Sampling`.
    `flip` and `crops`: views of every clip whose features are averaged, see `featx.views.Views`; each costs as much as a
    clip. `aggregate`, `bins`, `save`, `dtype`, `clip_times`: see `featx.aggregation.Aggregation`. `device`: "auto", "cpu",
    "cuda" or "cuda:N" (`featx.extract_to` also takes several, "cuda:0,cuda:2"); `batch_size` in clips (default: chosen by the
    device);
    `engine`: "auto" or one of `featx.engine.ENGINES` or `GPU_ENGINES`; `precision`: see `featx.engine.precision`.
    `on_corrupt`: "fail" a damaged video, or "keep" what decodes of it, see `featx.damage`; `timeout_seconds`: a video fails
    when its decoder gives no frame for so long; `num_decoders`: decode workers at most (default: a core each); `decode`:
    "cpu", "cuda" for the video decoder of the GPU, which gives the same frames but does not tell damage inside of a picture,
    or "auto", which is "cuda" where `prepare` measures, in a long run on a GPU, that it is faster, and else "cpu". `pixels`:
    where frames become what the network is shown, on the "host" or on the "device" that computes, with the same result; "auto"
    is the device where that is a GPU.

    Raises UnknownNameError, UsageError or CheckpointError for what cannot be.
    """

    def __init__(
        self,
        backbone: str | os.PathLike | Checkpoint = "res3d-mini",
        *,
        weights: str | os.PathLike | checkpoints.LoadedCheckpoint | None = None,
        mean: str | os.PathLike | None = None,
        variant: str | None = None,
        layers: str | Iterable[str] | None = None,
        length: int | None = None,
        stride: int | None = None,
        frame_step: int | None = None,
        num_clips: int | None = None,
        num_clips_random: int | None = None,
        clips_seed: int = 0,
        fps: float | None = None,
        short: str = "loop",
        tail: str = "drop",
        listed_clips: bool = False,
        flip: bool = False,
        crops: int = 1,
        aggregate: str = "mean",
        bins: int | None = None,
        save: str = "descriptors",
        dtype: str = "float32",
        clip_times: bool = False,
        device: str = "auto",
        batch_size: int | None = None,
        engine: str = "auto",
        precision: str = "auto",
        on_corrupt: str = "fail",
        timeout_seconds: float = decode_pool.TIMEOUT_SECONDS,
        num_decoders: int | None = None,
        decode: str = "cpu",
        pixels: str = "auto",
    ) -> None:
        check_policy(on_corrupt)
        self.on_corrupt, self.timeout_seconds = on_corrupt, timeout_seconds
        if not 0 < timeout_seconds < float("inf"):
            raise UsageError(f"timeout_seconds is {timeout_seconds}, but must be above 0")
        checkpoint = get_checkpoint(backbone)
        self.checkpoint: Checkpoint = checkpoint.with_variant(variant) if variant else checkpoint
        self.layers = self.checkpoint.ordered_layers(layers)
        self.sampling = _check_sampling(
            self.checkpoint, listed_clips, length, stride, frame_step, num_clips, fps, short, tail
        )
        if num_clips_random is not None:
            self.sampling = _random_clips(self.sampling, num_clips_random, clips_seed, stride)
        self.checkpoint = checkpoints.with_chosen_mean(self.checkpoint, mean, self.sampling.length)
        self.aggregation = Aggregation(aggregate, bins, save, dtype, clip_times)
        self.views = _check_views(self.checkpoint, crops, flip)
        if pixels not in PIXELS:
            raise UsageError(f"pixels is '{pixels}', but must be one of {', '.join(PIXELS)}")
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, but must be at least 1 clip")
        self.save, self.dtype = save, np.dtype(dtype)
        chosen = choose_device(device)
        self._gpu = _gpu_to_decode(decode, chosen)
        self.decode = decode  # "auto" until `prepare` has settled it
        self._pixels_on_device = pixels == "device" or (pixels == "auto" and chosen.type == "cuda")
        loaded = checkpoints.load(self.checkpoint, weights)
        checkpoints.require_input_scale(self.checkpoint, loaded.backbone, f"weights '{loaded.path}'")
        self.num_dims = _num_dims(loaded.backbone, self.checkpoint, self.sampling, self.layers)
        self._backbone = loaded.backbone
        try:
            self.engine = self._make_engine(chosen, batch_size, engine, precision)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            clips = "clips" if batch_size is None else f"{batch_size} clips"
            raise UsageError(
                f"a batch of {clips} of {self.sampling.length} frames does not fit into the memory of '{chosen}'; take a "
                "smaller --batch-size or --length"
            ) from error
        self._on_note: Callable[[str], None] = lambda note: None
        self.checkpoint_sha256 = loaded.sha256
        self.stopwatch = Stopwatch()  # of the stages of `featx.profile`, in all calls together
        self._max_decoders = num_decoders
        self._pool: DecodePool | None = None
        self._frames: HostFrames | DeviceFrames | None = None
        self._frames_note = ""
        self._extracting = False

    def _make_engine(self, device: torch.device, batch_size: int | None, name: str, precision: str) -> Engine:
        return Engine(
            *(self._backbone, self.checkpoint.preprocess, self.layers),
            length=self.sampling.length, device=device, batch_size=batch_size, name=name, precision=precision,
        )  # fmt: skip

    @property
    def provenance(self) -> Provenance:
        """How this extractor makes features: what a feature file records.

        On a GPU `prepare` should have been called before: what is not known yet is settled now, without real clips.
        """
        if self.engine.wants_clips:
            self.engine.settle()
        return provenance_of(
            self.checkpoint,
            self.sampling,
            checkpoint_sha256=self.checkpoint_sha256,
            layers=self.layers,
            precision=self.engine.precision,
            crops=self.views.crops,
            flip=int(self.views.flip),
            aggregate=self.aggregation.aggregate,
            bins=self.aggregation.num_bins,
            clip_times=int(self.aggregation.clip_times and self.save == "descriptors" and not self.sampling.listed),
            save=self.save,
            dtype=self.dtype.name,
            engine=self.engine.description,
            batch_size=self.engine.batch_size,
        )

    def prepare(self, items: Sequence[VideoItem], on_note: Callable[[str], None] = lambda note: None) -> None:
        """Settle who decodes and how the network is run, on a GPU by the first videos of those that are to come.

        What "auto" stands for, as precision and as engine, is known afterwards. `on_note` gets what was chosen, in lines, and
        later what becomes of it where a GPU's memory is full.
        """
        self._on_note = self.engine.on_note = on_note
        if self.decode == "auto":
            self._choose_decoder(items)
        if not self.engine.wants_clips:
            return
        wanted = self.engine.batch_size

        def feed(videos: Iterable[VideoItem]) -> Feeder:
            return Feeder(self._decoders(), videos, self.sampling, self.checkpoint.preprocess, wanted)

        clips = first_clips(items, feed, wanted, on_note)
        self.engine.settle(clips, long_run=len(items) >= LONG_RUN_VIDEOS)

    def _choose_decoder(self, items: Sequence[VideoItem]) -> None:
        """Let the GPU decode where it is faster at it, which a long run looks into; see `featx.decode_choice`."""
        self.decode = "cpu"
        device, flow = self.engine.device, self.checkpoint.preprocess.channel_order == "flow"
        if device.type != "cuda" or flow or len(items) < LONG_RUN_VIDEOS or why_no_hardware(_number_of(device)):
            return
        paths = videos_to_try(items, self._num_workers)
        if not paths:
            return
        self.close()
        with ExitStack() as opened:
            cpu = opened.enter_context(self._make_pool(None))
            gpu = opened.enter_context(self._make_pool(_number_of(device)))
            is_faster, note = is_gpu_faster(cpu, gpu, paths, self._num_workers, len(items))
            opened.pop_all()
        if note:
            self._on_note(note)
        (cpu if is_faster else gpu).close()
        self._pool, self._frames = (gpu if is_faster else cpu), self._make_frames()
        if is_faster:
            self.decode, self._gpu = "cuda", _number_of(device)

    def extract(self, path: str | os.PathLike) -> Features:
        """The features of one video, a file or a folder of numbered images. Raises VideoError where there are none.

        Its key is the file's stem, or the folder's name.
        """
        path = Path(path)
        if not os.path.exists(path):
            raise UsageError(f"{hindrance(path) or 'no such video'}: {path}")
        (result,) = self.extract_many([video_item(path)])
        if isinstance(result, Failure):
            raise VideoError(f"{path}: {result.reason}")
        return result

    def extract_many(self, items: Iterable[VideoItem]) -> Iterator[Features | Failure]:
        """The features of many videos, or why there are none, in the order in which they are finished.

        Clips of several videos share batches; the numbers do not depend on which. Raises UsageError while another call is
        not finished.
        """
        if self._extracting:
            raise UsageError("this Extractor is extracting already; finish that first, or make a second one")
        self._extracting = True
        try:
            yield from self._extract_many(items)
        finally:
            self._extracting = False

    def _extract_many(self, items: Iterable[VideoItem]) -> Iterator[Features | Failure]:
        ahead, pool = 2 * self.engine.batch_size, self._decoders()
        feeder = Feeder(
            *(pool, items, self.sampling, self.checkpoint.preprocess, ahead),
            stopwatch=self.stopwatch,
            on_corrupt=self.on_corrupt,
            frames=self._frames,
        )
        videos: dict[int, VideoInWork] = {}
        batch: list[tuple[VideoInWork, ClipReady]] = []
        in_flight: InFlight = deque()
        num_results = 0
        with feeder:
            for event in self.stopwatch.time_each("wait", feeder.events()):
                if isinstance(event, MemoryFull):
                    self._make_room(event, batch, in_flight)
                    continue
                if event.index not in videos:
                    videos[event.index] = VideoInWork(
                        self.aggregation, self.num_dims, self.sampling.listed, self.views.num_views
                    )
                if isinstance(event, ClipReady):
                    batch.append((videos[event.index], event))
                    if len(batch) >= self.engine.batch_size:
                        in_flight.append(self._forward(batch))
                else:
                    videos[event.index].outcome = event
                while in_flight and (len(in_flight) > self.engine.max_in_flight or in_flight[0][1].done()):
                    self._collect(*in_flight.popleft())
                for index in [i for i, video in videos.items() if video.is_complete()]:
                    num_results += 1
                    yield videos.pop(index).result()
            if batch:
                in_flight.append(self._forward(batch))
            while in_flight:
                self._collect(*in_flight.popleft())
            self._tell_of_frames()
            for video in videos.values():
                yield video.result()
        if num_results + len(videos) != feeder.num_started:
            raise AssertionError(f"{feeder.num_started} videos went in, {num_results + len(videos)} results came out")

    def _tell_of_frames(self) -> None:
        note = getattr(self._frames, "note", "")
        if note and note != self._frames_note:
            self.engine.on_note(f"frames are made ready by slower means, with the same pixels: {note}")
        self._frames_note = note

    def count_frames(self, items: Sequence[VideoItem]) -> Iterator[tuple[int, int | str]]:
        """Decode videos only to count the frames that clips are cut from.

        Yields (place in `items`, number of frames), or (place, reason) for a video that fails, as they are finished.
        """
        flow = self.checkpoint.preprocess.channel_order == "flow"
        whole = [i for i, item in enumerate(items) if item.segment is None]
        counted = self._decoders().count((items[i].path for i in whole), self.sampling.fps, flow, self.on_corrupt)
        for event in counted:
            yield whole[event.index], event.reason if isinstance(event, Failed) else event.num_frames
        places: dict[Path, list[int]] = defaultdict(list)
        for i, item in enumerate(items):
            if item.segment is not None:
                places[item.path].append(i)
        paths, seconds = list(places), defaultdict(list)
        for event in self._decoders().decode(paths, self.sampling.fps, False, flow, self.on_corrupt):
            if isinstance(event, Chunk):
                seconds[event.index] += event.seconds
            elif isinstance(event, Ended | Failed):
                for i in places[paths[event.index]]:
                    yield i, _frames_in(items[i].segment, seconds[event.index], event)

    def close(self) -> None:
        """End the decode workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pool", None) is not None:
            self.close()

    @property
    def num_decoders(self) -> int:
        """Decode workers that were started for the last videos."""
        return 0 if self._pool is None else self._pool.num_started

    def _decoders(self) -> DecodePool:
        if self._pool is None or self._pool.closed:
            self._pool = self._make_pool(self._gpu)
            # new with the pool: a feeder that was left before its end, and closed the pool, may still use the others
            self._frames = self._make_frames()
        return self._pool

    @property
    def _num_workers(self) -> int:
        return self._max_decoders or decode_pool.default_num_workers()

    def _make_pool(self, gpu: str | None) -> DecodePool:
        num_slots = DEVICE_NUM_SLOTS if self._pixels_on_device else decode_pool.NUM_SLOTS
        return DecodePool(self._num_workers, self.timeout_seconds, gpu, num_slots)

    def _make_frames(self) -> HostFrames | DeviceFrames:
        """Where frames become what the network is shown."""
        preprocess, sampling = self.checkpoint.preprocess, self.sampling
        if not self._pixels_on_device:
            return HostFrames(preprocess, self.views, planar=self.engine.name != "torch")
        sparse = sampling.listed or sampling.counts_first or sampling.stride > 2 * sampling.span
        return DeviceFrames(preprocess, self.engine.device, self.views, sparse=sparse)

    def _forward(self, batch: list[tuple[VideoInWork, ClipReady]]) -> tuple[list[VideoInWork], Handle | Done]:
        """Begin the batch, and empty it; who its rows belong to, and where they will be."""
        ready = [clip.ready for _, clip in batch if clip.ready is not None]
        frames = [clip.frames for _, clip in batch]
        if not self.engine.settled:  # what was asked for by name is tried on the first batch
            with self.stopwatch.time("start"):
                for mark in ready:
                    mark.synchronize()
                self.engine.settle(frames)
        with self.stopwatch.time("launch" if self.engine.is_beside else "forward"):
            handle = self.engine.submit(frames, ready)
        videos = [video for video, _ in batch]
        batch.clear()
        return videos, handle

    def _make_room(self, full: MemoryFull, batch: list[tuple[VideoInWork, ClipReady]], in_flight: InFlight) -> None:
        """Let go of every clip that has come, by way of the network; where that was not enough, halve the batches.

        Raises UsageError where they cannot become smaller.
        """
        if batch:
            in_flight.append(self._forward(batch))
        while in_flight:
            self._collect(*in_flight.popleft())
        engine = self.engine
        # who prepares nothing has given it to the engine only
        on_note = engine.on_note if engine.is_beside else self._on_note
        if full.num_asked:
            if engine.batch_size == 1:
                raise UsageError(
                    f"the memory of '{engine.device}' has no room for {full.what} beside a batch of one clip; let other "
                    "programs leave more of it, or take '--device cpu'"
                )
            half = engine.batch_size // 2
            self.engine = self._make_engine(engine.device, half, engine.name, engine.precision)
            self.engine.on_note = on_note
            on_note(
                f"the memory of '{engine.device}' is full ({full.what}); batches are of {half} clips from here on, which "
                "changes the last bits of features"
            )
        del engine  # and with it the memory of its batches
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        full.freed.set()

    def _collect(self, videos: list[VideoInWork], handle: Handle | Done) -> None:
        """Fetch a batch's results, and hand each row to its video in clip order."""
        if self.engine.is_beside:
            with self.stopwatch.time("results"):
                handle.result()
            self.stopwatch.add("copy", handle.copy_seconds)
            self.stopwatch.add("forward", handle.forward_seconds)
        activations = handle.result()
        for row, video in enumerate(videos):
            video.add({layer: values[row] for layer, values in activations.items()}, self.engine.precision)


def extract(
    path: str | os.PathLike, backbone: str | os.PathLike | Checkpoint = "res3d-mini", **options: object
) -> Features:
    """The features of one video. `options` are those of `Extractor`, which is better for more than one.

    Raises VideoError where the video gives none, and what `Extractor` raises. Warns where a slower engine had to be taken.
    """
    with Extractor(backbone, **options) as extractor:
        if extractor.engine.note:
            warnings.warn(extractor.engine.note, RuntimeWarning, stacklevel=2)
        return extractor.extract(path)


# ------------------------------------------------------------------------------------------------- what an Extractor checks


def _gpu_to_decode(decode: str, device: torch.device) -> str | None:
    """The number of the GPU that is to decode; None for the processor."""
    if decode not in DECODE_FORMS:
        raise UsageError(f"decode is '{decode}', but must be one of {', '.join(DECODE_FORMS)}")
    if decode != "cuda":
        return None
    gpu = _number_of(device) if device.type == "cuda" else "0"
    if reason := why_no_hardware(gpu):
        raise UsageError(f"decode 'cuda' was asked for, but {reason}; use '--decode cpu'")
    return gpu


def _number_of(device: torch.device) -> str:
    """Which GPU a device of no number is."""
    return str(torch.cuda.current_device() if device.index is None else device.index)


def _check_sampling(checkpoint, listed, length, stride, frame_step, num_clips, fps, short, tail) -> Sampling:
    if listed and stride is not None:
        raise UsageError(f"stride is {stride}, but the starts of clips are listed; leave one of the two out")
    if num_clips is not None and num_clips < 1:
        raise UsageError(f"num_clips is {num_clips}, but must be a whole number of at least 1")
    if num_clips is not None and stride is not None:
        raise UsageError(
            f"both num_clips {num_clips} and stride {stride} are given; evenly spread clips have no stride; leave one out"
        )
    if listed and fps is None and checkpoint.sampling.fps is not None:
        raise UsageError(
            f"{checkpoint.name} takes {checkpoint.sampling.fps:g} frames a second, but the starts of clips are listed, in "
            "frames as filmed; take these with --fps 0"
        )
    given = {"length": length, "stride": stride, "frame_step": frame_step, "num_clips_even": num_clips, "fps": fps}
    given = {name: value for name, value in given.items() if value is not None}
    if fps == 0:
        given["fps"] = None  # as filmed, whatever the card says
    return replace(checkpoint.sampling, short=short, tail=tail, listed=listed, **given)


def _random_clips(sampling: Sampling, num_clips: int, seed: int, stride: int | None) -> Sampling:
    if stride is not None:
        raise UsageError(
            f"both {num_clips} random clips and stride {stride} are given; random clips have no stride; leave one out"
        )
    return replace(sampling, num_clips_random=num_clips, seed=seed)


def _frames_in(segment: Segment, seconds: Sequence[float], event: Ended | Failed) -> int | str:
    """How many of a video's frames belong to a segment, or why it gives no clips."""
    if isinstance(event, Failed):
        return event.reason
    try:
        segment.end_within(event.source_seconds)
        num_frames = sum(map(segment.holds, seconds))
        segment.require_frames(num_frames)
        return num_frames
    except VideoError as error:
        return str(error)


def _check_views(checkpoint: Checkpoint, crops: int, flip: bool) -> Views:
    preprocess = checkpoint.preprocess
    views = Views(crops, flip, is_flow=preprocess.channel_order == "flow")
    if views.num_views > 1 and preprocess.mean_cube is not None:
        raise UsageError(
            f"{views.num_views} views of a clip are asked for, but the mean cube of {checkpoint.name} holds a value for every "
            "place of its own crop; take the card's constant mean with '--mean card'"
        )
    fixed = isinstance(preprocess.resize, tuple)
    if views.crops > 1 and fixed and len(set(preprocess.crop_windows(*preprocess.resize, views.crops))) == 1:
        raise UsageError(
            f"{views.crops} crops are asked for, but {checkpoint.name} crops nothing: frames are resized to "
            "{}x{} pixels; leave --crops out".format(*preprocess.resize)
        )
    return views


def _num_dims(backbone, checkpoint: Checkpoint, sampling: Sampling, layers: tuple[str, ...]) -> dict[str, int]:
    """D of each layer for clips of the length asked for; raises UsageError where the network cannot take them."""
    channels, _, height, width = checkpoint.clip_shape
    try:
        shapes = backbone.layer_shapes((channels, sampling.length, height, width), layers)
    except (RuntimeError, TypeError) as error:  # TypeError: sizes that no tensor has
        raise UsageError(
            f"{checkpoint.name} cannot take clips of {sampling.length} frames for {', '.join(layers)}; "
            f"it was trained on {checkpoint.sampling.length}"
        ) from error
    return {layer: int(np.prod(shape)) for layer, shape in shapes.items()}


def provenance_of(checkpoint: Checkpoint, sampling: Sampling, **made: object) -> Provenance:
    """The provenance of features of `checkpoint`; `made` are the fields of Provenance that neither of the two tells."""
    if sampling.num_clips_random is not None:
        raise UsageError(
            f"{sampling.num_clips_random} random clips are asked for, but a feature file records where clips lie by their "
            "stride; take evenly spread ones with num_clips"
        )
    preprocess = checkpoint.preprocess
    return Provenance(
        backbone=checkpoint.architecture,
        checkpoint=checkpoint.name,
        variant=checkpoint.variant,
        arguments=json.dumps(
            {**ARCHITECTURES[checkpoint.architecture].arguments, **checkpoint.build_arguments}, sort_keys=True
        ),
        length=sampling.length,
        stride=0 if sampling.listed else sampling.stride,
        frame_step=sampling.frame_step,
        num_clips_even=sampling.num_clips_even or 0,
        fps=float(sampling.fps or 0),
        short="skip" if sampling.listed else sampling.short,
        tail=sampling.tail,
        resize=_resize_text(preprocess),
        interpolation=preprocess.interpolation,
        crop=preprocess.crop,
        crop_offset=_crop_text(preprocess),
        scale=float(preprocess.scale),
        mean=tuple(map(float, preprocess.mean)),
        mean_cube_sha256=preprocess.mean_cube_sha256(),
        std=tuple(map(float, preprocess.std)),
        channel_order=preprocess.channel_order,
        featx_version=featx.__version__,
        **made,
    )


def _resize_text(preprocess: Preprocess) -> str:
    resize = preprocess.resize
    if resize is None:
        return "none"
    if isinstance(resize, tuple):
        return "{}x{}".format(*resize)
    return f"short {resize}" + ", long to the nearest" * (preprocess.long_side == "nearest")


def _crop_text(preprocess: Preprocess) -> str:
    if preprocess.crop_offset is not None:
        return "{},{}".format(*preprocess.crop_offset)
    return "centre" + ", half to even" * (preprocess.crop_rounding == "even")
