"""Provenance: how features were made. Files merge, and a run continues a file, only where it agrees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from featx.errors import ProvenanceError

__all__ = ["ADDED_LATER", "BEGUN", "ENDED", "FORMAT_VERSION", "PIXELS_VERSION", "Provenance"]

# raised when readers of older files would misread new ones
FORMAT_VERSION = 1
# raised when decoding, resizing or normalising gives other pixels than before, or frames other times
PIXELS_VERSION = 3

# May differ between files that belong together: they change nothing, or only the last bits of a number.
# Shards differ by their nature; what of them belongs together is told by `featx.shards`.
_MAY_DIFFER = {"featx_version", "engine", "batch_size", "shard", "run"}

# Attributes that files may lack which were written before there were any; what they then were made with is the default.
ADDED_LATER = {"crops", "flip", "aggregate", "bins", "clip_times", "shard", "run"}

BEGUN, ENDED = "begun", "ended"  # the attribute `run`

MAX_NAMED = 3  # so many differing fields are told with both values: another net differs in ten


@dataclass(frozen=True)
class Provenance:
    """The root attributes of a feature file, in the words of DESIGN's tables; all values are str, int, float or tuples.

    `arguments` are what the backbone is built with, as JSON. `stride` 0 says that the starts of clips were listed, -1
    that nothing is known of clips; `num_clips_even` 0 and `fps` 0.0 stand for "not asked for"; `resize` is "128x171"
    (height x width), "short 112", "short 128, long to the nearest" or "none"; `crop_offset` "8,29" (y, x), "centre" or
    "centre, half to even", as `featx.preprocess.Preprocess` rounds them; `mean` and `std` a number a channel in
    `channel_order`; `basis_sha256` "" before PCA. `crops` places of every clip, and with `flip` 1 their mirror images, were
    averaged, see `featx.views`; `aggregate` is how clip features became a descriptor, see `featx.aggregation`, and `bins` 0
    stands for "not asked for"; `clip_times` 1 says that clip tables are kept though clip features are not.
    `shard` tells which shards of the videos the file holds, "" for all of them or none, see `featx.shards`.
    `run` is "begun" in what a run writes before it has come to its end, "ended" afterwards, "" where nobody told; of a file and
    its parts the last word counts.
    `checkpoint_sha256` "" and `pixels_version` 0 mark what another program extracted.
    """

    backbone: str
    checkpoint: str
    checkpoint_sha256: str
    variant: str
    arguments: str
    layers: tuple[str, ...]
    length: int
    stride: int
    frame_step: int
    num_clips_even: int
    fps: float
    short: str
    tail: str
    resize: str
    interpolation: str
    crop: int
    crop_offset: str
    scale: float
    mean: tuple[float, ...]
    mean_cube_sha256: str
    std: tuple[float, ...]
    channel_order: str
    precision: str
    save: str
    dtype: str
    engine: str
    batch_size: int
    featx_version: str
    basis_sha256: str = ""
    crops: int = 1
    flip: int = 0
    aggregate: str = "mean"
    bins: int = 0
    clip_times: int = 0
    shard: str = ""
    run: str = ""
    pixels_version: int = PIXELS_VERSION
    format_version: int = FORMAT_VERSION
    format: str = "featx"

    @property
    def has_clip_table(self) -> bool:
        """Whether the file says where each clip lies: with clip features, with listed starts, and where it was asked for."""
        return self.save != "descriptors" or self.stride == 0 or self.clip_times == 1

    def differences(self, other: Provenance) -> list[str]:
        """The fields in which two provenances that should agree do not."""
        return [
            f.name
            for f in fields(self)
            if f.name not in _MAY_DIFFER and getattr(self, f.name) != getattr(other, f.name)
        ]

    def require_agreement(self, other: Provenance, this: str, that: str, remedy: str) -> None:
        """Raise ProvenanceError, naming the fields and the first ones' values, unless `other` agrees."""
        names = self.differences(other)
        if names:
            pairs = "; ".join(
                f"{name} is {_shown(getattr(self, name))} {this}, {_shown(getattr(other, name))} {that}"
                for name in names[:MAX_NAMED]
            )
            if len(names) > MAX_NAMED:
                pairs += f"; and so differ {', '.join(names[MAX_NAMED:])}"
            if "mean_cube_sha256" in names:
                pairs += " (a mean cube stored with the weights is used unasked; '--mean card' goes without)"
            raise ProvenanceError(f"{pairs}. Features made in different ways do not belong in one file. {remedy}")


def _shown(value: object) -> str:
    """A value for a message: a hash by its beginning."""
    text = repr(value)
    return f"{text[:13]}…'" if isinstance(value, str) and len(value) == 64 else text


def common(provenances: Iterable[tuple[str, Provenance]]) -> Provenance:
    """The first of several named provenances, with their smallest batch, which is what fits where memory became short.

    Raises ProvenanceError where one disagrees with the first.
    """
    first_name, first, batch_size = None, None, 0
    for name, provenance in provenances:
        if first is None:
            first_name, first, batch_size = name, provenance, provenance.batch_size
        else:
            first.require_agreement(provenance, f"in {first_name}", f"in {name}", "Leave one of them out.")
            batch_size = min(batch_size, provenance.batch_size)
    return first and replace(first, batch_size=batch_size)
