"""The papers' own figures, which stand in the cards of the checkpoints, and why ours may be others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from featx.provenance import Provenance

__all__ = [
    "FAR_OFF",
    "far_off",
    "foreign_weights",
    "likely_causes",
    "published_figure",
    "published_figures",
    "published_source",
]

FAR_OFF = 2.0  # points


def published_figure(
    checkpoint: str, dataset: str, layer: str, dims: int | None = None, metric: str = "accuracy"
) -> float | None:
    """What is printed for a layer of a checkpoint in %, after PCA to `dims` if given; None where nothing is known.

    `layer` may be several in the card's order, joined by "+".
    """
    card = _card(checkpoint)
    figures = card.published.get(dataset, {}) if card else {}
    name = layer if dims is None else f"{layer}@{dims}"
    return figures.get(name if metric == "accuracy" else f"{name}:{metric}")


def published_figures(
    checkpoint: str, dataset: str, layer: str, metrics: Iterable[str], dims: int | None = None
) -> dict[str, float]:
    """What is printed of several metrics, without those that are not."""
    found = {metric: published_figure(checkpoint, dataset, layer, dims, metric) for metric in metrics}
    return {metric: figure for metric, figure in found.items() if figure is not None}


def published_source(checkpoint: str, dataset: str, layer: str) -> str:
    """Where the figures of a layer are printed, or why there are none."""
    card = _card(checkpoint)
    figures = card.published.get(dataset, {}) if card else {}
    if any(name.partition(":")[0].partition("@")[0] == layer for name in figures):
        return card.published_source[dataset]
    if card and card.embedded:
        return "none: the checkpoint is featx's own"
    return f"none known for {checkpoint} {layer} on {dataset}"


def foreign_weights(provenance: Provenance) -> list[str]:
    """A remark where the features come from other weights than the file that the checkpoint's card is about."""
    card = _card(provenance.checkpoint)
    if card is None or card.sha256 in (None, provenance.checkpoint_sha256):
        return []
    return [
        f"the weights are not {card.name}'s own: a file with SHA-256 {provenance.checkpoint_sha256[:12]}… was given"
    ]


def far_off(what: str, ours: float, published: float | None, causes: Iterable[str]) -> list[str]:
    """A remark where `ours`, in %, is more than FAR_OFF points from the published figure, with the first three of `causes`."""
    if published is None or abs(ours - published) <= FAR_OFF:
        return []
    side = "below" if ours < published else "above"
    three = "; ".join(f"({n}) {cause}" for n, cause in zip((1, 2, 3), causes, strict=False))
    return [f"{what} is {abs(ours - published):.1f} points {side} the published {published:g} %; likeliest: {three}"]


def likely_causes(provenance: Provenance, dataset: str, num_left_out: int = 0) -> Iterator[str]:
    """Why our figure may not be the published one, likeliest first: what is known to differ, then what never is known."""
    card = _card(provenance.checkpoint)
    if card is not None:
        if num_left_out:
            yield f"{num_left_out} listed videos were left out"
        if foreign_weights(provenance):
            yield "other weights than the card's"
        if "never released" in card.published_source.get(dataset, ""):
            yield "the published figure belongs to a net that was never released"
        yield from _other_clips(provenance, card)
        if provenance.variant:
            yield f"the weights were run as variant '{provenance.variant}'"
        if card.architecture in ("c3d", "res3d") and not provenance.mean_cube_sha256:
            yield "the authors subtract a mean cube, and here its average was subtracted (--mean)"
        if "no L2" in card.published_source.get(dataset, ""):
            yield "the paper does not L2-normalise"
    yield "weights converted or mixed up on the way (featx weights verify)"
    yield "the paper does not state the SVM's C"
    yield "videos that were re-encoded or scaled since"


def _other_clips(provenance: Provenance, card) -> Iterator[str]:
    source = " ".join(card.published_source.values())
    if card.architecture.startswith("p3d") and "20 clips" in source and provenance.num_clips_even != 20:
        yield "the paper takes 20 clips a video (--clips 20)"
    used = {"length": provenance.length, "stride": provenance.stride, "frame step": provenance.frame_step}
    sampling = card.sampling
    own = {"length": sampling.length, "stride": sampling.stride, "frame step": sampling.frame_step}
    changed = [f"{name} {used[name]} in place of {own[name]}" for name in used if used[name] != own[name]]
    if changed and not provenance.num_clips_even:
        yield "clips were cut otherwise than the card says: " + ", ".join(changed)
    elif provenance.num_clips_even and not card.architecture.startswith("p3d"):
        yield f"{provenance.num_clips_even} evenly spread clips were taken, not all of them"
    if provenance.fps != (sampling.fps or 0):
        yield "the videos were resampled to another rate than the card says"
    if provenance.aggregate == "max":
        yield "a descriptor is the maximum of its clips, not their mean (--aggregate)"
    if provenance.crops > 1 or provenance.flip:
        yield f"{provenance.crops * (1 + provenance.flip)} views of every clip were averaged (--crops, --flip)"


def _card(checkpoint: str):
    from featx.catalog import CHECKPOINTS  # late: it brings torch

    return CHECKPOINTS.get(checkpoint)
