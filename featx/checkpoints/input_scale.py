"""What range of pixels a net's first convolution was trained on, told from its BatchNorm statistics.

P3D's weights go round in files that want grey levels of 0 to 255 and in files that want normalised pixels, under the same
names and shapes. A filter w of the first convolution answers pixels of variance v with a variance of about v sum(w^2), times
how alike neighbouring pixels are (between 0.1 and 100 for filters from fine to coarse); the BatchNorm behind it has measured
that variance. So the median over filters of

    running_var / sum(w^2)

tells v whatever the size of w: about 1 for normalised pixels, and (255 x 0.226)^2 = 3321 times that for grey levels. In
between, within a factor of four of the geometric middle, featx does not decide; nor where the figure fits neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from featx.backbones.base import Backbone
from featx.catalog import Checkpoint
from featx.errors import CheckpointError
from featx.preprocess import Preprocess

__all__ = ["InputScale", "probe", "require_input_scale", "scale_of"]

GREY_TO_NORMALISED = (255 * 0.226) ** 2  # in variance; 0.226 is the mean of ImageNet's three standard deviations
MIDDLE = GREY_TO_NORMALISED**0.5
UNDECIDED_FACTOR = 4.0
LOWEST, HIGHEST = 0.05, 1e6  # beyond these, no trained net takes natural pictures

GREY, NORMALISED, UNDECIDED = "grey levels of 0 to 255", "normalised pixels of about -2 to 2", "undecided"


@dataclass(frozen=True)
class InputScale:
    """What the probe found: `kind` is one of GREY, NORMALISED and UNDECIDED, `reason` says why in words."""

    kind: str
    reason: str


def probe(backbone: Backbone) -> InputScale | None:
    """The pixels that the weights of a backbone expect.

    None for a net without a BatchNorm behind its first convolution, and for optical flow, which varies less than pictures.
    """
    state = backbone.state_dict()
    names = ("conv1.weight", "bn_conv1.running_mean", "bn_conv1.running_var")
    if any(name not in state for name in names) or state[names[0]].shape[1] != 3:
        return None
    weight, mean, variance = (state[name].double() for name in names)
    if not mean.any() and (variance == 1).all():
        return InputScale(UNDECIDED, "its BatchNorm statistics are those of a net that was never trained")
    energy = weight.flatten(1).square().sum(1)  # (C,)
    alive = energy > 1e-12 * energy.max()
    ratio = float(torch.median(variance[alive] / energy[alive])) if alive.any() else 0.0
    measured = f"the median of bn_conv1's variance over conv1's sum of squares is {ratio:.3g}"
    if LOWEST <= ratio <= MIDDLE / UNDECIDED_FACTOR:
        return InputScale(NORMALISED, measured)
    if MIDDLE * UNDECIDED_FACTOR <= ratio <= HIGHEST:
        return InputScale(GREY, measured)
    return InputScale(UNDECIDED, measured)


def scale_of(preprocess: Preprocess) -> str:
    """The pixels that a preprocessing makes: GREY or NORMALISED."""
    grey_level = preprocess.scale / (
        sum(preprocess.std) / len(preprocess.std)
    )  # one grey level, as the network sees it
    return GREY if grey_level > MIDDLE**-0.5 else NORMALISED


def require_input_scale(card: Checkpoint, backbone: Backbone, where: str) -> None:
    """Raise CheckpointError where the weights of `where` clearly expect other pixels than the card, as chosen, makes.

    Only cards are asked that have a variant for the other kind of pixels; the message names it.
    """
    base = card.base or card
    chosen = scale_of(card.preprocess)
    others = [form for form in (base, *map(base.with_variant, base.variants)) if scale_of(form.preprocess) != chosen]
    found = probe(backbone) if others else None
    if found is None or found.kind in (UNDECIDED, chosen):
        return
    others.sort(key=lambda form: form.build_arguments != card.build_arguments)  # the same arithmetic first
    remedies = [f"take --variant {form.variant}" if form.variant else "leave --variant out" for form in others]
    raise CheckpointError(
        f"{where} expects {found.kind} ({found.reason}), but {card.name} {card.variant}".rstrip()
        + f" makes {chosen}; {' or '.join(remedies)}"
    )
