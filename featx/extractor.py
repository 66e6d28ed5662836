"""Extractor: videos in, features out; composes decoding, windowing, the backbone and aggregation (steps 2 to 6).

    decode workers          one thread                                the caller's thread
    --------------          ---------------------------------         -----------------------------------
    frames (H, W, 3)   ->   resize, crop, window: clips (T, h, w, 3)  -> batch, forward, aggregate: Features

Everything between the arrows is bounded, so memory depends neither on a video's length nor on the number of videos.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import featx
from featx import checkpoints, decode_pool
from featx.backbones import ARCHITECTURES
from featx.catalog import Checkpoint, get_checkpoint
from featx.clip_frames import DeviceFrames, HostFrames
from featx.clip_rows import ClipRows
from featx.clips import Sampling
from featx.damage import check_policy
from featx.decode_pool import DecodePool, Failed
from featx.descriptors import MeanAccumulator, l2_normalise
from featx.engine import Engine, choose_device
from featx.errors import UsageError, VideoError
from featx.features import Failure, Features
from featx.feeder import ClipReady, Feeder, VideoEnded, VideoFailed
from featx.plan import VideoItem, video_item
from featx.preprocess import Preprocess
from featx.profile import Stopwatch
from featx.provenance import Provenance

__all__ = ["Extractor", "extract", "provenance_of"]

SAVE_FORMS = ("descriptors", "clips", "both")
CLIP_DTYPES = ("float32", "float16")
PIXELS = ("auto", "host", "device")
DEVICE_NUM_SLOTS = 4  # of a decode worker: one is written, and of the others one is copied


class Extractor:
    """A checkpoint made ready to extract features; keep one for many videos.

    >>> with Extractor("res3d-mini", layers=["pool5"]) as extractor:              # doctest: +SKIP
    ...     features = extractor.extract("a.mp4")

    `backbone`: a card's name, the path of a card of your own (.json), or a `featx.catalog.Checkpoint`; `weights`: the file of
    that card, not needed where it is embedded, stored with `featx weights`, or named by your card; `mean`: a file with a mean
    cube in place of the card's constant mean (`.binaryproto`, or `.npy` (3, T, h, w), BGR), or "card" for the constants even
    where a cube is stored; `variant`: a variant of the card. `layers`: names of activations (default: the card's).
    `length`, `stride`, `frame_step`: of clips, in frames (default: the card's); `num_clips`: that many evenly spread clips
    instead of a stride; `num_clips_random`: that many drawn by `clips_seed`, for figures only, since no feature file records
    them; `listed_clips`: every VideoItem brings the starts of its clips; `fps`: frames a second to resample
    to, 0 for frames as filmed (default: the card's, mostly as filmed); `short`, `tail`: see `featx.clips.Sampling`.
    `save`: "descriptors", "clips" or "both"; `dtype` of clip features: "float32" or "float16". `device`: "auto", "cpu",
    "cuda" or "cuda:N"; `batch_size` in clips (default: chosen by the device);
    `engine`: "auto" or one of `featx.engine.ENGINES`. `on_corrupt`: "fail" a damaged video, or "keep" what decodes of it,
    see `featx.damage`; `timeout_seconds`: a video fails when its decoder gives no frame for so long. `pixels`: where frames
    become what the network is shown, on the "host" or on the "device" that computes, with the same result; "auto" is the
    device where that is a GPU.

    Raises UnknownNameError, UsageError or CheckpointError for what cannot be.
    """

    def __init__(
        self,
        backbone: str | os.PathLike | Checkpoint = "res3d-mini",
        *,
        weights: str | os.PathLike | None = None,
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
        save: str = "descriptors",
        dtype: str = "float32",
        device: str = "auto",
        batch_size: int | None = None,
        engine: str = "auto",
        on_corrupt: str = "fail",
        timeout_seconds: float = decode_pool.TIMEOUT_SECONDS,
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
        for name, value, known in (
            ("save", save, SAVE_FORMS),
            ("dtype", dtype, CLIP_DTYPES),
            ("pixels", pixels, PIXELS),
        ):
            if value not in known:
                raise UsageError(f"{name} is '{value}', but must be one of {', '.join(known)}")
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, but must be at least 1 clip")
        self.save, self.dtype = save, np.dtype(dtype)
        chosen = choose_device(device)
        self._pixels_on_device = pixels == "device" or (pixels == "auto" and chosen.type == "cuda")
        loaded = checkpoints.load(self.checkpoint, weights)
        checkpoints.require_input_scale(self.checkpoint, loaded.backbone, f"weights '{loaded.path}'")
        self.num_dims = _num_dims(loaded.backbone, self.checkpoint, self.sampling, self.layers)
        try:
            self.engine = Engine(
                loaded.backbone,
                self.checkpoint.preprocess,
                self.layers,
                length=self.sampling.length,
                device=chosen,
                batch_size=batch_size,
                name=engine,
            )
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            clips = "clips" if batch_size is None else f"{batch_size} clips"
            raise UsageError(
                f"a batch of {clips} of {self.sampling.length} frames does not fit into the memory of '{chosen}'; take a "
                "smaller --batch-size or --length"
            ) from error
        self.checkpoint_sha256 = loaded.sha256
        self.stopwatch = Stopwatch()  # of "decode", "resize", "wait" and "forward", in all calls together
        self._pool: DecodePool | None = None
        self._frames: HostFrames | DeviceFrames | None = None
        self._extracting = False

    @property
    def provenance(self) -> Provenance:
        """How this extractor makes features: what a feature file records."""
        return provenance_of(
            self.checkpoint,
            self.sampling,
            checkpoint_sha256=self.checkpoint_sha256,
            layers=self.layers,
            precision=self.engine.precision,
            save=self.save,
            dtype=self.dtype.name,
            engine=self.engine.description,
            batch_size=self.engine.batch_size,
        )

    def extract(self, path: str | os.PathLike) -> Features:
        """The features of one video, a file or a folder of numbered images. Raises VideoError where there are none.

        Its key is the file's stem, or the folder's name.
        """
        path = Path(path)
        if not path.exists():
            raise UsageError(f"no such video: {path}")
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
        videos: dict[int, _VideoInWork] = {}
        batch: list[tuple[_VideoInWork, torch.Tensor]] = []
        num_results = 0
        with feeder:
            for event in self.stopwatch.time_each("wait", feeder.events()):
                if event.index not in videos:
                    videos[event.index] = _VideoInWork(self)
                if isinstance(event, ClipReady):
                    if event.ready is not None:
                        event.ready.synchronize()
                    batch.append((videos[event.index], event.frames))
                    if len(batch) == self.engine.batch_size:
                        self._forward(batch)
                else:
                    videos[event.index].outcome = event
                for index in [i for i, video in videos.items() if video.is_complete()]:
                    num_results += 1
                    yield videos.pop(index).result()
            if batch:
                self._forward(batch)
            for video in videos.values():
                yield video.result()
        if num_results + len(videos) != feeder.num_started:
            raise AssertionError(f"{feeder.num_started} videos went in, {num_results + len(videos)} results came out")

    def count_frames(self, paths: Iterable[Path]) -> Iterator[tuple[int, int | str]]:
        """Decode videos only to count the frames that clips are cut from.

        Yields (place in `paths`, number of frames), or (place, reason) for a video that fails, as they are finished.
        """
        flow = self.checkpoint.preprocess.channel_order == "flow"
        for event in self._decoders().count(paths, self.sampling.fps, flow, self.on_corrupt):
            yield event.index, event.reason if isinstance(event, Failed) else event.num_frames

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
            num_slots = DEVICE_NUM_SLOTS if self._pixels_on_device else decode_pool.NUM_SLOTS
            self._pool = DecodePool(decode_pool.default_num_workers(), self.timeout_seconds, num_slots)
            # new with the pool: a feeder that was left before its end, and closed the pool, may still use the others
            self._frames = self._make_frames()
        return self._pool

    def _make_frames(self) -> HostFrames | DeviceFrames:
        """Where frames become what the network is shown."""
        preprocess, sampling = self.checkpoint.preprocess, self.sampling
        if not self._pixels_on_device:
            return HostFrames(preprocess)
        sparse = sampling.listed or sampling.counts_first or sampling.stride > 2 * sampling.span
        return DeviceFrames(preprocess, self.engine.device, sparse=sparse)

    def _forward(self, batch: list[tuple[_VideoInWork, torch.Tensor]]) -> None:
        """Run the batch, hand each row to its video in clip order, and empty the batch."""
        with self.stopwatch.time("forward"):
            activations = self.engine.run([frames for _, frames in batch])
        for row, (video, _) in enumerate(batch):
            video.add({layer: values[row] for layer, values in activations.items()})
        batch.clear()


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


# ------------------------------------------------------------------------------------------- one video in the forward pass


class _VideoInWork:
    """Steps 5 and 6 for one video: sums, and if asked for keeps, its clip features as they arrive, in clip order."""

    def __init__(self, extractor: Extractor) -> None:
        self.outcome: VideoEnded | VideoFailed | None = None
        self._save, self._dtype, self._listed = extractor.save, extractor.dtype, extractor.sampling.listed
        self._num_clips = 0
        self._means = {layer: MeanAccumulator(extractor.num_dims[layer]) for layer in extractor.layers}
        self._rows = {}
        if self._save != "descriptors":
            self._rows = {layer: ClipRows(extractor.num_dims[layer], self._dtype) for layer in extractor.layers}
        self._problem: str | None = None

    def add(self, clip_features: dict[str, np.ndarray]) -> None:
        """Take the features of the next clip, float32 (D,) a layer."""
        self._num_clips += 1
        for layer, values in clip_features.items():
            if not np.isfinite(values).all():
                self._problem = f"clip {self._num_clips - 1} gives values that are not finite in {layer}"
                continue
            self._means[layer].add(values[None])
            if layer in self._rows:
                if self._dtype == np.float16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                    self._problem = f"{layer} has values beyond float16's range; keep clip features as float32"
                    continue
                self._rows[layer].append(values.astype(self._dtype))

    def is_complete(self) -> bool:
        outcome = self.outcome
        return isinstance(outcome, VideoFailed) or (outcome is not None and self._num_clips == len(outcome.clip_table))

    def result(self) -> Features | Failure:
        """The video's features once every clip has come, or its failure."""
        outcome = self.outcome
        if isinstance(outcome, VideoFailed):
            return outcome.failure
        if self._problem is not None:
            f = outcome.features
            return Failure(f.key, f.path, self._problem, f.size_bytes, f.mtime_ns)
        if self._num_clips != len(outcome.clip_table):
            raise AssertionError(
                f"{self._num_clips} of {len(outcome.clip_table)} clips of {outcome.features.path} came back"
            )
        descriptors, clips = {}, {}
        if self._save != "clips":
            descriptors = {layer: l2_normalise(mean.result()) for layer, mean in self._means.items()}
        if self._save != "descriptors":
            clips = {layer: rows.result() for layer, rows in self._rows.items()}
        table = outcome.clip_table if clips or self._listed else None  # the stride tells where other clips lie
        return replace(outcome.features, descriptors=descriptors, clips=clips, clip_table=table)


# ------------------------------------------------------------------------------------------------- what an Extractor checks


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
