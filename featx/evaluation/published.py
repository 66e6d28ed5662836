"""The papers' own figures, which stand in the cards of the checkpoints."""

from __future__ import annotations

from featx.provenance import Provenance

__all__ = ["foreign_weights", "published_figure", "published_source"]


def published_figure(checkpoint: str, dataset: str, layer: str, dims: int | None = None) -> float | None:
    """Accuracy in % that is printed for a layer of a checkpoint, after PCA to `dims` if given; None where none is known."""
    card = _card(checkpoint)
    figures = card.published.get(dataset, {}) if card else {}
    return figures.get(layer if dims is None else f"{layer}@{dims}")


def published_source(checkpoint: str, dataset: str, layer: str) -> str:
    """Where the figures of a layer are printed, or why there are none."""
    card = _card(checkpoint)
    figures = card.published.get(dataset, {}) if card else {}
    if any(name.partition("@")[0] == layer for name in figures):
        return card.published_source
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


def _card(checkpoint: str):
    from featx.catalog import CHECKPOINTS  # late: it brings torch

    return CHECKPOINTS.get(checkpoint)
