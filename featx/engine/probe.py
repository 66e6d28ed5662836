"""A clip to try an engine on, and what is wrong with an engine's numbers."""

from __future__ import annotations

import torch

__all__ = ["TOLERANCE", "disagreement", "probe_clip"]

# How far an engine's layers may be from plain torch's, as a part of the layer's largest number. One Winograd
# convolution is at up to 2e-5 from float64 (plain torch: 5e-7); what is wrong is far beyond this.
TOLERANCE = 1e-4


def probe_clip(like: torch.Tensor) -> torch.Tensor:
    """A clip of moving patches under noise, uint8 (1, T, h, w, 3), the same at every start."""
    generator = torch.Generator().manual_seed(0)
    _, t, h, w, _ = like.shape
    coarse = torch.rand((1, 3, max(t // 4, 1), max(h // 8, 1), max(w // 8, 1)), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (t, h, w), mode="trilinear")
    noise = torch.rand((1, 3, t, h, w), generator=generator)
    return (smooth * 200 + noise * 55).to(torch.uint8).permute(0, 2, 3, 4, 1)  # (1, 3, T, h, w) -> (1, T, h, w, 3)


def disagreement(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> str:
    """What is wrong with an engine's layers beside plain torch's, in one line; "" where they agree."""
    for layer, expected in plain.items():
        if ours[layer].shape != expected.shape:
            return f"{layer} has the shape {tuple(ours[layer].shape)}, not {tuple(expected.shape)}"
        scale = float(expected.abs().max())
        difference = float((ours[layer] - expected).abs().max())
        if not difference <= TOLERANCE * scale:  # also where it is no number
            return f"{layer} differs from plain torch's by {difference:.1e}, where the largest number is {scale:.1e}"
    return ""
