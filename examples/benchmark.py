"""How fast is featx here? Decoding, the forward pass, and `featx extract` end to end, measured in one run.

    python examples/benchmark.py                                   a net of each family, on two rendered kinds of video
    python examples/benchmark.py --backbone c3d-sports1m --device cuda --seconds 20
    python examples/benchmark.py --videos ucf101/Archery

Speed does not depend on what the weights are, so backbones without an embedded file run with made-up ones, written to a
temporary file and used for nothing else. Figures are medians; machines are noisy, so compare rows of one run only.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch

import featx
from featx.backbones import build
from featx.catalog import Checkpoint, get_checkpoint
from featx.checkpoints.safetensors import write_safetensors
from featx.decode_pool import Chunk, DecodePool, default_num_workers
from featx.plan import plan_videos
from featx.video import read_frames

BACKBONES = (
    *("res3d-mini", "res3d-sports1m", "c3d-sports1m", "p3d199-kinetics"),
    *("resnet18-kinetics", "resnet34-kinetics", "resnext101-kinetics", "tv-r2plus1d18-kinetics"),
)
CODECS = {"MPEG-4": ("mpeg4", "avi", {"qscale": "4"}), "H.264": ("libx264", "mp4", {"crf": "23", "preset": "fast"})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", help="a card's name; repeatable (default: one a family)")
    parser.add_argument("--videos", type=Path, help="a folder of videos (default: rendered ones)")
    parser.add_argument("--num-videos", type=int, default=4, help="rendered videos a codec")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument(
        "--engine", default="auto", help="winograd, onednn or torch (default: the fastest that is here)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="time for each measurement")
    args = parser.parse_args()
    print(f"{processor()}, {default_num_workers()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        sets = {"given": args.videos} if args.videos else render(Path(folder), args.num_videos)
        print("\ndecode to BGR, frames/s               one process   all cores")
        for name, videos in sets.items():
            print(
                f"  {name:<34} {decode_alone(videos, args.seconds):12,.0f} {decode_pool(videos, args.seconds):11,.0f}"
            )
        videos = next(iter(sets.values()))
        print("\nbackbone, layer                       forward    end to end             of forward   batch   engine")
        for name in args.backbone or BACKBONES:
            card = get_checkpoint(name)
            weights = None if card.embedded else made_up_weights(card, Path(folder))
            with featx.Extractor(
                name, weights=weights, device=args.device, batch_size=args.batch_size, engine=args.engine
            ) as extractor:
                forward = forward_rate(extractor, args.seconds)
                clips, frames = end_to_end(extractor, videos, args.seconds)
                print(
                    f"  {name + ' ' + card.default_layer:<34} {forward:7.2f}    {clips:7.2f} clips/s {frames:6.0f} frames/s"
                    f"  {clips / forward:8.0%} {extractor.engine.batch_size:7}   {extractor.engine.description}",
                    flush=True,
                )


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def render(folder: Path, num_videos: int) -> dict[str, Path]:
    """Videos of 320x240, 25 frames/s, 180 frames: moving noise, about as hard to decode as a real clip."""
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
                for t in range(180):
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[:, t : t + 320]), format="bgr24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
    return made


def made_up_weights(card: Checkpoint, folder: Path) -> Path:
    """A file of the card's shape with values that keep activations finite."""
    torch.manual_seed(0)
    tensors = build(card.architecture, **card.build_arguments).state_dict()
    for name, tensor in tensors.items():
        if tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            tensor.fill_(1)
        else:
            tensor.zero_()
    write_safetensors(folder / f"{card.name}.safetensors", tensors)
    return folder / f"{card.name}.safetensors"


def rates(count_once, seconds: float) -> float:
    """The median of count / time over as many runs as fit into `seconds`, three at least."""
    found, started = [], time.perf_counter()
    while len(found) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        count = count_once()
        found.append(count / (time.perf_counter() - before))
    return statistics.median(found)


def decode_alone(videos: Path, seconds: float) -> float:
    paths = [item.path for item in plan_videos([videos])]
    return rates(lambda: sum(1 for path in paths for _ in read_frames(path)), seconds / 2)


def decode_pool(videos: Path, seconds: float) -> float:
    paths = [item.path for item in plan_videos([videos])]
    with DecodePool(default_num_workers()) as pool:

        def once() -> int:
            return sum(len(event.frames) for event in pool.decode(paths) if isinstance(event, Chunk))

        return rates(once, seconds / 2)


def forward_rate(extractor: featx.Extractor, seconds: float) -> float:
    """Clips/s of the engine alone, from uint8 clips in memory to features in memory."""
    card, engine = extractor.checkpoint, extractor.engine
    shape = (extractor.sampling.length, card.preprocess.crop, card.preprocess.crop, 3)
    clips = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(engine.batch_size)]
    engine.run(clips)
    return rates(lambda: len(next(iter(engine.run(clips).values()))), seconds)


def end_to_end(extractor: featx.Extractor, videos: Path, seconds: float) -> tuple[float, float]:
    """Clips/s and frames/s from files to descriptors, over the whole folder, as often as fits into `seconds`."""
    items = plan_videos([videos])
    clips = frames = 0
    started = time.perf_counter()
    while True:
        for features in extractor.extract_many(items):
            clips, frames = clips + features.num_clips, frames + features.num_frames
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return clips / elapsed, frames / elapsed


if __name__ == "__main__":
    main()
