"""Whether weights are what they claim to be: more than that they load.

report = verify(get_checkpoint("c3d-sports1m"), "c3d.pickle")
report.is_good, report.findings
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from featx.backbones.base import Backbone
from featx.catalog import Checkpoint
from featx.checkpoints import LoadedCheckpoint, load
from featx.checkpoints.identity import is_published
from featx.checkpoints.input_scale import UNDECIDED, probe, scale_of
from featx.errors import FeatxError

__all__ = ["Finding", "Report", "inspect", "verify"]

MAX_VARIANCE = 1e12  # grey levels give first layers up to about 1e6
NUM_LISTED = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `level` is "ok", "warning" (odd, but may be so) or "problem"."""

    level: str
    text: str


@dataclass(frozen=True)
class Report:
    """What `verify` found, in the order in which it looked; `path` and `sha256` are "" where nothing could be read."""

    card: str
    path: str
    sha256: str
    findings: tuple[Finding, ...]

    @property
    def is_good(self) -> bool:
        """True without a problem; warnings are allowed."""
        return all(finding.level != "problem" for finding in self.findings)

    @property
    def problems(self) -> list[str]:
        """The texts of the problems."""
        return [finding.text for finding in self.findings if finding.level == "problem"]


def verify(card: Checkpoint, weights: str | Path | None = None) -> Report:
    """Look at the weights of a card, in a file or where `load` finds them, and at the card itself.

    Keys, shapes and finite values (as `load` does); published checksums; BatchNorm statistics and convolutions that no
    training leaves; the range of pixels that the first convolution expects; the dimensions that the card states for its
    layers; one clip of noise through the whole net. Raises nothing for what is wrong: it is in the report.
    """
    try:
        loaded = load(card, weights)
    except FeatxError as error:
        return Report(card.name, "" if weights is None else str(weights), "", (Finding("problem", str(error)),))
    return inspect(card, loaded)


def inspect(card: Checkpoint, loaded: LoadedCheckpoint) -> Report:
    """`verify` for weights that are loaded already."""
    return Report(card.name, str(loaded.path), loaded.sha256, tuple(_findings(card, loaded)))


def _findings(card: Checkpoint, loaded: LoadedCheckpoint) -> Iterator[Finding]:
    state = loaded.backbone.state_dict()
    numbers = sum(tensor.numel() for tensor in state.values())
    yield Finding(
        "ok", f"{len(state)} tensors, {numbers:,} numbers, in {loaded.naming} names: all there, of right shape, finite"
    )
    yield from _checksums(card, loaded)
    problems = list(_statistics(state))
    yield from problems or [Finding("ok", "no layer is untrained, constant or dead, and no variance is absurd")]
    yield from _input_scale(card, loaded.backbone)
    dims = _dims(card, loaded.backbone)
    if isinstance(dims, str):
        yield Finding("problem", dims)
        return
    wrong = [
        f"{name} gives {d}, the card says {card.layers[name]}" for name, d in dims.items() if d != card.layers[name]
    ]
    if wrong:
        yield Finding("problem", f"layers of other dimensions than the card's: {'; '.join(wrong)}")
    else:
        yield Finding("ok", "layers: " + ", ".join(f"{name} {d}" for name, d in dims.items()))
    yield from _one_clip(card, loaded.backbone, tuple(dims))


def _checksums(card: Checkpoint, loaded: LoadedCheckpoint) -> Iterator[Finding]:
    published = [source for source in card.source if source.sha256_prefix or source.sha1]
    stored = loaded.origin is not None  # of which only the SHA-256 of what it was made from is known
    for source in published:
        if (source.sha256_prefix or not stored) and is_published(source, loaded.path, loaded.sha256):
            words = f"SHA-256 {loaded.sha256} begins" if source.sha256_prefix else f"SHA-1 {source.sha1} is"
            yield Finding("ok", f"{words} as published for {source.file or source.url}")
            return
    if card.sha256 is not None and loaded.sha256 != card.sha256:
        yield Finding("problem", f"SHA-256 {loaded.sha256} is not the card's, {card.sha256}")
    elif card.sha256 is not None:
        yield Finding("ok", f"SHA-256 {loaded.sha256} is the card's")
    elif stored and any(source.sha1 for source in published):
        yield Finding(
            "ok", f"SHA-256 {loaded.sha256}; a SHA-1 is published, which only the file itself can be held against"
        )
    elif card.source and len(published) == len(card.source):
        prefixes = " or ".join(source.sha256_prefix for source in published if source.sha256_prefix)
        hashes = " or ".join(f"SHA-1 {source.sha1}" for source in published if not source.sha256_prefix)
        wrong = [f"does not begin with {prefixes}, as the published file's does"] * bool(prefixes)
        wrong += [f"is of a file without {hashes}, as the published one has"] * bool(hashes)
        yield Finding("warning", f"SHA-256 {loaded.sha256} {', and '.join(wrong)}")
    else:
        yield Finding("ok", f"SHA-256 {loaded.sha256}; none is published for this file")


# ----------------------------------------------------------------------------------------------------------- values


def _statistics(state: dict[str, Tensor]) -> Iterator[Finding]:
    """What no training leaves behind, over all tensors of a net."""
    norms = [name.removesuffix(".running_var") for name in state if name.endswith(".running_var")]
    found: dict[tuple[str, str], list[str]] = {}

    def note(level: str, text: str, name: str) -> None:
        found.setdefault((level, text), []).append(name)

    untouched = [
        norm for norm in norms if (state[f"{norm}.running_var"] == 1).all() and not state[f"{norm}.running_mean"].any()
    ]
    if norms and untouched == norms:
        yield Finding(
            "problem", "every BatchNorm has mean 0 and variance 1: the net was never trained, or they were not saved"
        )
        untouched = []
    for norm in untouched:
        note("warning", "mean 0 and variance 1, as before training", norm)
    for norm in norms:
        variance = state[f"{norm}.running_var"]
        if not variance.any():
            note("problem", "no variance in any channel", norm)
        elif (variance == 0).any():
            note("warning", "channels that never vary", norm)
        if variance.max() > MAX_VARIANCE:
            note("problem", f"a variance above {MAX_VARIANCE:g}", norm)
        if not state[f"{norm}.weight"].any():
            note("problem", "gamma 0 in every channel", norm)
    for name, tensor in state.items():
        if tensor.ndim > 1 and tensor.numel() > 1 and (tensor == tensor.flatten()[0]).all():
            note("problem", "one number throughout", name)
    for (level, text), names in found.items():
        more = f", … ({len(names)} in all)" if len(names) > NUM_LISTED else ""
        yield Finding(level, f"{text}: {', '.join(names[:NUM_LISTED])}{more}")


def _input_scale(card: Checkpoint, backbone: Backbone) -> Iterator[Finding]:
    found = probe(backbone)
    if found is None:
        return
    makes = scale_of(card.preprocess)
    if found.kind == UNDECIDED:
        yield Finding("warning", f"the range of its input cannot be told ({found.reason}); the card makes {makes}")
    elif found.kind == makes:
        yield Finding("ok", f"it expects {found.kind}, which the card makes ({found.reason})")
    else:
        variants = [n for n in card.variants if scale_of(card.with_variant(n).preprocess) == found.kind]
        remedy = f"; use it with --variant {' or '.join(variants)}" if variants else ""
        yield Finding("warning", f"it expects {found.kind} ({found.reason}), but the card makes {makes}{remedy}")


# ----------------------------------------------------------------------------------------------------------- the net


def _dims(card: Checkpoint, backbone: Backbone) -> dict[str, int] | str:
    """D of each layer that the card names, as the net gives it for the card's clips; a text where it cannot."""
    names = [name for name in card.layers if name in backbone.layer_names]
    absent = [name for name in card.layers if name not in names and name != "prob"]  # some ports have no classifier
    if absent:
        return (
            f"the net has no layer {', '.join(absent)}, which the card names; it has {', '.join(backbone.layer_names)}"
        )
    try:
        return {name: math.prod(shape) for name, shape in backbone.layer_shapes(card.clip_shape, names).items()}
    except Exception as error:  # a net of the user's can raise anything at all
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"the net cannot take clips of {card.clip_shape}, as the card makes them ({reason})"


def _one_clip(card: Checkpoint, backbone: Backbone, layers: tuple[str, ...]) -> Iterator[Finding]:
    """Run one clip of noise, seeded, through every layer that the card names."""
    _, length, height, width = card.clip_shape
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, length, height, width, 3), generator=generator, dtype=torch.uint8)
    with torch.inference_mode():
        values = backbone(card.preprocess.normalise(pixels).contiguous(), layers)
    broken = [name for name, value in values.items() if not torch.isfinite(value).all()]
    silent = [name for name, value in values.items() if name not in broken and not value.any()]
    if broken:
        yield Finding("problem", f"a clip of noise gives values that are not finite in {', '.join(broken)}")
    if silent:
        yield Finding("warning", f"a clip of noise gives nothing but zeros in {', '.join(silent)}")
    if not broken and not silent:
        yield Finding("ok", "a clip of noise goes through every layer and gives finite values")
