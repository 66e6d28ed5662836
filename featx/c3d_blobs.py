"""The features that the C3D tool for Caffe writes, one file a clip and layer: feature files to them, and back.

FOLDER/<key>/000016.fc6-1     the clip from frame 16 on; the layer as the Caffe net calls it

int32 n c l h w               little-endian; n is 1, the others are the layer's shape, 1 where it has fewer dimensions
float32 ...                   c * l * h * w of them, row-major
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featx import backbones, store
from featx.catalog import Checkpoint, get_checkpoint
from featx.descriptors import mean_descriptor
from featx.durable import new_folder, require_new
from featx.errors import FeatureFileError, UnknownNameError, UsageError
from featx.extractor import provenance_of
from featx.features import ClipTable, Features
from featx.key_paths import check_key
from featx.parts import written_anew
from featx.plan import folders_below, key_of
from featx.provenance import ENDED, Provenance
from featx.small_files import is_special

__all__ = ["ExportSummary", "ImportSummary", "export_c3d", "import_c3d"]

# layers that a Caffe net calls otherwise than we do
CAFFE_LAYERS = {"c3d-sports1m": {"fc6": "fc6-1", "fc7": "fc7-1"}}

ENGINE = "c3d-caffe"  # what imported features record as their engine
PREFIX_LIST = "output_list_prefix.txt"
HEADER_BYTES = 5 * 4
MAX_START = 2**31 - 1  # of a clip; no video has more frames

_BLOB_NAME = re.compile(r"(?P<start>[0-9]+)\.(?P<layer>[^.]+)")


@dataclass(frozen=True)
class ExportSummary:
    """What `export_c3d` wrote; `prefix_list` names every clip's files without their suffix, a clip a line."""

    folder: Path
    num_videos: int
    num_clips: int
    num_files: int
    prefix_list: Path


@dataclass(frozen=True)
class ImportSummary:
    """What `import_c3d` wrote."""

    output: Path
    num_videos: int
    num_clips: int
    layers: tuple[str, ...]


def export_c3d(
    features_path: str | os.PathLike, folder: str | os.PathLike, *, layers: Iterable[str] | None = None
) -> ExportSummary:
    """Write the clip features of a feature file as the C3D tool would, and a list of the clips' prefixes.

    `layers`: the ones to write, None for all. float16 features are widened. Raises UsageError for a file without clip
    features or after PCA, a folder that holds something, and a key that would lead out of the folder; FeatureFileError
    for a damaged file.
    """
    folder = Path(folder)
    require_new(folder)
    with store.open_features(features_path) as features:
        if not features.has_clips:
            raise UsageError(
                f"{features_path} holds no clip features, which is what the C3D tool's files are; "
                "extract with '--save clips' or '--save both'"
            )
        if features.bases:
            raise UsageError(f"{features_path} has gone through PCA; export the file that 'featx extract' wrote")
        chosen = tuple(layers or features.layers)
        for layer in chosen:
            if layer not in features.layers:
                raise UnknownNameError("layer", layer, features.layers)
        made = features.provenance
        arguments = _arguments(made.arguments, features_path)
        clip_shape = (arguments.get("in_channels", 3), made.length, made.crop, made.crop)
        shapes = _blob_shapes(made.backbone, arguments, clip_shape, chosen)
        for layer in chosen:
            if np.prod(shapes[layer]) != features.num_dims(layer):
                raise UsageError(
                    f"{layer} has {features.num_dims(layer)} dimensions in {features_path}, but {np.prod(shapes[layer])} "
                    f"in {made.backbone}; the architecture is not the one that it was extracted with"
                )
        for key in features.keys:
            check_key(key)
        store.verify_set(features)
        return _export(
            features, folder, {layer: (blob_suffix(made.checkpoint, layer), shapes[layer]) for layer in chosen}
        )


def import_c3d(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    backbone: str | os.PathLike | Checkpoint,
    *,
    layers: str | Iterable[str] | None = None,
    first_frame: int | None = None,
    overwrite: bool = False,
) -> ImportSummary:
    """Read a folder of the C3D tool's files into a feature file: clip features, and their descriptors.

    `backbone`: the card of the net that made them (its name, its file or itself), which tells the layers' shapes and a
    clip's span; `layers`: those to read (default: all that are found). A video is a folder of such files; its key is the
    folder's path below `folder`, and a file's name the number of the clip's first frame. Links to folders are followed, names
    that begin with a dot are not looked at. `first_frame` is the number of a video's first frame in these names: as its lists
    do, the tool counts the images of a folder from 1, and the frames of a video file from 0; None stands for 0, unless a
    video's first clip is numbered 1, which may be either and is refused. What such files do not tell is
    recorded as unknown: `num_frames` 0, `fps` and all seconds NaN. The result is a file of its own: it neither merges with
    extracted features nor is continued.

    Raises UsageError for names that are not understood and layers that a clip lacks, FeatureFileError for files of another
    shape or length and values that are not finite.
    """
    folder, output = Path(folder), Path(output)
    store.require_replaceable(output)
    if first_frame not in (None, 0, 1):
        raise UsageError(f"--first-frame is {first_frame}, but must be 0 or 1")
    card = get_checkpoint(backbone)
    for layer in [layers] if isinstance(layers, str) else layers or ():
        if layer not in card.layers:
            raise UnknownNameError(f"layer of {card.name}:", layer, card.layers)
    videos = _find_blobs(folder, card, [layers] if isinstance(layers, str) else list(layers or ()))
    found = {layer for clips in videos.values() for blobs in clips.values() for layer in blobs}
    chosen = tuple(layer for layer in card.layers if layer in found)
    shapes = _blob_shapes(card.architecture, card.build_arguments, card.clip_shape, chosen)
    provenance = _imported(card, chosen)
    with written_anew(Path(output), overwrite) as parts:
        for key, clips in sorted(videos.items()):  # all names, before the first long read
            for start, blobs in clips.items():
                if missing := [layer for layer in chosen if layer not in blobs]:
                    raise UsageError(
                        f"the clip {key}/{start:06d} has no file of {missing[0]}, which others have; "
                        f"add it, or name the layers to read with --layer"
                    )
        num_clips = 0
        for key, clips in sorted(_counted_from_0(videos, first_frame).items()):
            parts.add(_read_video(key, folder, clips, card, shapes), provenance)
            num_clips += len(clips)
        parts.flush(provenance)
    return ImportSummary(output, len(videos), num_clips, chosen)


def blob_suffix(checkpoint: str, layer: str) -> str:
    """A layer's name in the Caffe net of a checkpoint, which is the suffix of its files."""
    return CAFFE_LAYERS.get(checkpoint, {}).get(layer, layer)


def write_blob(path: Path, values: np.ndarray, shape: Sequence[int]) -> None:
    """Write one clip's layer, float32 (D,), of which `shape` is (c, l, h, w), to a new file."""
    path.write_bytes(np.array([1, *shape], "<i4").tobytes() + np.ascontiguousarray(values, "<f4").tobytes())


def read_blob(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Read one clip's layer of `shape` (c, l, h, w), float32 (c * l * h * w,).

    Raises FeatureFileError for another shape or length, and for values that are not finite.
    """
    if is_special(path):
        raise FeatureFileError(f"{path}: not a regular file")  # a pipe would be waited for without an end
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FeatureFileError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) < HEADER_BYTES:
        raise FeatureFileError(f"{path}: cut short: {len(data)} bytes, and the header alone has {HEADER_BYTES}")
    header = tuple(np.frombuffer(data, "<i4", 5).tolist())
    if header != (1, *shape):
        raise FeatureFileError(
            f"{path}: its header (n, c, l, h, w) is {header}, but must be {(1, *shape)}; is it of another net, or layer?"
        )
    if len(data) != HEADER_BYTES + 4 * np.prod(shape):
        raise FeatureFileError(
            f"{path}: {len(data)} bytes, but its header asks for {HEADER_BYTES + 4 * np.prod(shape)}; write it again"
        )
    values = np.frombuffer(data, "<f4", offset=HEADER_BYTES).astype(np.float32)
    if not np.isfinite(values).all():
        raise FeatureFileError(f"{path}: holds values that are not finite; write it again")
    return values


def _export(features: store.FeatureSet, folder: Path, blobs: dict[str, tuple[str, tuple[int, ...]]]) -> ExportSummary:
    prefixes = []
    with new_folder(folder) as aside:
        for key in features.keys:
            video = features[key]
            (aside / key).mkdir(parents=True, exist_ok=True)
            for i, start in enumerate(video.clip_table.start_frame):
                prefix = f"{key}/{start:06d}"
                for layer, (suffix, shape) in blobs.items():
                    write_blob(aside / f"{prefix}.{suffix}", video.clips[layer][i], shape)
                prefixes.append(f"{folder}/{prefix}\n")
        (aside / PREFIX_LIST).write_text("".join(prefixes), encoding="utf-8", errors="surrogateescape")
    return ExportSummary(folder, len(features), len(prefixes), len(prefixes) * len(blobs), folder / PREFIX_LIST)


def _arguments(text: str, path: str | os.PathLike) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise FeatureFileError(f"{path}: damaged: its attribute 'arguments' is no JSON object; extract again")
    return arguments


def _blob_shapes(
    architecture: str, arguments: Mapping[str, Any], clip_shape: Sequence[int], layers: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """layer -> (c, l, h, w) of one clip (C, T, H, W), found without memory for the weights."""
    with torch.device("meta"):
        backbone = backbones.build(architecture, **arguments)
    shapes = backbone.layer_shapes(clip_shape, layers)
    # (C, T, H, W) as it is; (C, H, W) of a 2-D layer lacks the time, (D,) all but the channels
    return {layer: (s[0], *(1,) * (4 - len(s)), *s[1:]) for layer, s in shapes.items()}


def _find_blobs(folder: Path, card: Checkpoint, layers: Sequence[str]) -> dict[str, dict[int, dict[str, Path]]]:
    """key -> start -> layer -> file, of the layers asked for, or of all of the card's."""
    if not os.path.isdir(folder):
        raise UsageError(f"no such folder: {folder}")
    layer_of = {name: layer for layer in card.layers for name in (layer, blob_suffix(card.name, layer))}
    videos: dict[str, dict[int, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    folder_of: dict[str, str] = {}
    for at, names in folders_below(folder):
        below = at.relative_to(folder)
        if any(name.startswith(".") for name in below.parts):
            continue
        key = key_of(below if below.parts else folder.resolve().name, keep_suffix=True)
        for name in (name for name in names if not name.startswith(".")):
            path = at / name
            layer = layer_of.get(name.rpartition(".")[2])
            match = _BLOB_NAME.fullmatch(name)
            if match is None:
                if layer is not None:
                    raise UsageError(
                        f"{path}: the name must be the number of the clip's first frame, such as 000016.{layer}"
                    )
                continue  # a list, a note
            if layer is None and not layers:
                raise UnknownNameError(
                    f"layer of {card.name} in {path}:",
                    match["layer"],
                    layer_of,
                    "Name the layers to read with --layer.",
                )
            if layer is None or (layers and layer not in layers):
                continue
            if folder_of.setdefault(key, at) != at:
                raise UsageError(
                    f"{folder_of[key]} and {at} both give the video '{key}'; move the files of one elsewhere"
                )
            digits = match["start"].lstrip("0")
            if len(digits) > len(str(MAX_START)) or int(digits or 0) > MAX_START:
                raise UsageError(f"{path}: the clip's first frame must be at most {MAX_START:,}; correct the name")
            blobs = videos[key][int(digits or 0)]
            if layer in blobs:
                raise UsageError(f"{blobs[layer]} and {path} are the same clip and layer; remove one")
            blobs[layer] = path
    if not videos:
        wanted = ", ".join(f".{blob_suffix(card.name, layer)}" for layer in layers or card.layers)
        raise UsageError(f"no features of the C3D tool in {folder}; looked for files such as 000016 with {wanted}")
    return videos


def _counted_from_0(videos: Mapping[str, Mapping[int, Any]], first_frame: int | None) -> dict[str, dict[int, Any]]:
    """The clips by the numbers of their first frames among a video's, of which the first is 0."""
    for key, clips in sorted(videos.items()):
        if first_frame is None and min(clips) == 1:
            raise UsageError(
                f"the first clip of {key} is numbered 1, which is its first frame where the tool read a folder of images, and "
                "its second where it read a video file; say --first-frame 1 or --first-frame 0"
            )
        if min(clips) < (first_frame or 0):
            raise UsageError(
                f"a clip of {key} is numbered 0, but --first-frame is 1; import folders of images and video files apart"
            )
    return {key: {start - (first_frame or 0): clip for start, clip in clips.items()} for key, clips in videos.items()}


def _read_video(
    key: str, folder: Path, clips: dict[int, dict[str, Path]], card: Checkpoint, shapes: dict[str, tuple[int, ...]]
) -> Features:
    starts = np.array(sorted(clips), np.int64)
    rows = {layer: np.stack([read_blob(clips[start][layer], shapes[layer]) for start in starts]) for layer in shapes}
    unknown = np.full(len(starts), np.nan)
    return Features(
        key=key,
        path=key_of(next(iter(clips[starts[0]].values())).parent, keep_suffix=True),
        num_frames=0,
        num_clips=len(starts),
        fps=np.nan,
        duration_seconds=np.nan,
        start_seconds=np.nan,
        end_seconds=np.nan,
        descriptors={layer: mean_descriptor(values) for layer, values in rows.items()},
        clips=rows,
        clip_table=ClipTable(starts, starts + card.sampling.span, unknown, unknown),
    )


def _imported(card: Checkpoint, layers: tuple[str, ...]) -> Provenance:
    """How the C3D tool made the features, as far as the card knows: starts as listed, no sha256 of the weights, no engine."""
    return provenance_of(
        card,
        replace(card.sampling, listed=True, fps=None),
        checkpoint_sha256="",
        layers=layers,
        precision="fp32",
        save="both",
        dtype="float32",
        engine=ENGINE,
        batch_size=0,
        pixels_version=0,
        run=ENDED,
    )
