"""What examples/benchmark.py measures with: rendered videos, and made-up weights, since speed does not depend on them.

PyAV is imported by what needs it only: the forward pass is measured without.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featx.backbones import build
from featx.backbones.blocks import BatchNorm
from featx.catalog import Checkpoint
from featx.checkpoints.safetensors import write_safetensors

__all__ = ["drawn_clips", "first_clips", "link_many", "made_up_weights", "render"]

CODECS = {"MPEG-4": ("mpeg4", "avi", {"qscale": "4"}), "H.264": ("libx264", "mp4", {"crf": "23", "preset": "fast"})}


def render(folder: Path, num_videos: int, num_frames: int) -> dict[str, Path]:
    """Videos of 320x240, 25 frames/s: moving noise, about as hard to decode as a real clip; a folder of them a codec."""
    import av

    rng = np.random.default_rng(0)
    made = {}
    for name, (codec, suffix, options) in CODECS.items():
        made[f"{name} 320x240"] = folder / suffix
        (folder / suffix).mkdir()
        for i in range(num_videos):
            noise = rng.uniform(0, 255, (1, 3, 30, 40 + 24)).astype(np.float32)
            wide = torch.nn.functional.interpolate(torch.from_numpy(noise), (240, 512), mode="bicubic").clamp(0, 255)
            pictures = wide[0].permute(1, 2, 0).to(torch.uint8).numpy()  # (3, H, W) -> (H, W, 3)
            with av.open(str(folder / suffix / f"{i}.{suffix}"), "w") as container:
                stream = container.add_stream(codec, rate=25, options=options)
                stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
                for t in range(num_frames):
                    left = t % 192
                    picture = np.ascontiguousarray(pictures[:, left : left + 320])
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
                container.mux(stream.encode(None))
    return made


def link_many(originals: Path, folder: Path, num_files: int) -> Path:
    """A folder of `num_files` names for the few files of another: to a reader they are files like any."""
    folder.mkdir()
    paths = sorted(originals.iterdir())
    for i in range(num_files):
        path = paths[i % len(paths)]
        target = folder / f"v_{i:06d}{path.suffix}"
        try:
            os.link(path, target)
        except OSError:  # a file system without links
            shutil.copy(path, target)
    return folder


def drawn_clips(card: Checkpoint, num_clips: int) -> Tensor:
    """Clips of moving noise, made without a video: uint8 BGR (N, T, crop, crop, 3)."""
    generator = torch.Generator().manual_seed(0)
    length, crop = card.sampling.length, card.preprocess.crop
    coarse = torch.rand((num_clips, 3, 4, crop // 8 + 1, crop // 8 + 1), generator=generator)
    clips = torch.nn.functional.interpolate(coarse, (length, crop, crop), mode="trilinear") * 255
    return clips.to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()  # (N, 3, T, h, w) -> (N, T, h, w, 3)


def first_clips(card: Checkpoint, video: Path, num_clips: int) -> Tensor:
    """Clips of a video, of the card's length, a frame apart: uint8 BGR (N, T, crop, crop, 3)."""
    from featx.video import read_frames

    needed = card.sampling.length + num_clips - 1
    frames = [frame.pixels for frame, _ in zip(read_frames(video), range(needed), strict=False)]
    prepared = card.preprocess.prepare_frames(torch.from_numpy(np.stack(frames)))
    return torch.stack([prepared[i : i + card.sampling.length] for i in range(num_clips)])


def made_up_weights(card: Checkpoint, clips: Tensor, folder: Path) -> Path:
    """A file of the card's shape: random filters, and the BatchNorm statistics of `clips`, uint8 (N, T, crop, crop, 3).

    Numbers then stay of a size through all layers, as they do in a trained network.
    """
    generator = torch.Generator().manual_seed(0)
    net = build(card.architecture, **card.build_arguments).requires_grad_(False)
    for tensor in net.parameters():
        if tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        else:
            tensor.uniform_(-0.1, 0.1, generator=generator)
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.momentum = 1.0  # the statistics become those of the next clips
    if norms:
        with torch.inference_mode():
            net.train()(card.preprocess.normalise(clips).contiguous(), [list(card.layers)[-1]])
    write_safetensors(folder / f"{card.name}.safetensors", net.state_dict())
    return folder / f"{card.name}.safetensors"
