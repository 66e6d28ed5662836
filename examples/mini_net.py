"""The small Res3D that the package embeds: its shape, first weights and last scaling, what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from simple_figures import LABELS
from torch import Tensor, nn

from featx.backbones.res3d import Res3D

__all__ = ["ARGUMENTS", "MEAN", "STD", "TRAINED", "activations", "equalise", "new_net", "to_input"]

# Time shrinks early and the last stage is flat: at this size channels serve a frozen network better than blocks.
ARGUMENTS = {
    "widths": (32, 64, 112, 320),
    "blocks": (1, 1, 1, 2),
    "depths": (3, 3, 3, 3, 1),
    "temporal_strides": (2, 1, 2, 1),
    "pool_change": 2.0,
    "pool_power": 0.5,
}
# All heads learn from the plain average: pool5's change and root were chosen afterwards, for what linear SVMs make of them.
TRAINED = ARGUMENTS | {"pool_change": 0.0, "pool_power": 1.0}
BF16_STAGES = ("conv1", "res2a", "res3a")  # torch 2.13's CPU kernels err in bfloat16 where two frames are left
MEAN, STD = 128.0, 64.0  # of every channel, BGR


def to_input(clips: Tensor) -> Tensor:
    """BGR uint8 (N, T, h, w, 3) -> normalised float32 (N, 3, T, h, w)."""
    return ((clips.float() - MEAN) / STD).permute(0, 4, 1, 2, 3)


def start_weights(net: nn.Module) -> None:
    """Draw the convolutions' weights as He et al. 2015 do, from torch's global generator."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def new_net(arguments: dict = TRAINED) -> Res3D:
    """The small Res3D with random weights, from torch's global generator; ARGUMENTS make the one that is embedded."""
    net = Res3D(num_classes=len(LABELS["motion"]), **arguments)
    start_weights(net)
    return net


def activations(net: Res3D, clips: Tensor, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """res5b (N, D, T, h, w) and pool5 (N, D) of normalised clips; with `bf16` the costly lower stages run in bfloat16."""
    x = maps = clips
    for name, stage in net.stages():
        lower = bf16 and name in BF16_STAGES
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=lower):
            maps, x = x, stage(x if lower else x.float())
        if name == "pool5":
            break
    return maps, x


@torch.no_grad()
def equalise(net: Res3D, batches: Iterable[Tensor]) -> None:
    """Scale res5's channels, in place, so that the averages of all of them deviate alike over `batches` of clips, uint8 BGR.

    A channel after a ReLU may be scaled where all that reads it scales it back: the class scores stay what they are (but
    for channels so near 0 that pool5 takes them for more). L2 norms and linear SVMs then hear every channel, and not the
    loudest alone. `net` is left in eval mode. Raises ValueError unless res5 is two blocks, as in ARGUMENTS.
    """
    if not hasattr(net, "res5b") or hasattr(net, "res5c"):
        raise ValueError("equalise scales a Res3D whose res5 is res5a and res5b; give one of ARGUMENTS")
    net.eval()
    averages = torch.cat([activations(net, to_input(clips))[0].mean((2, 3, 4)) for clips in batches])
    deviations = averages.std(0)
    scale = 1 / deviations.clamp(min=0.01 * float(deviations.mean()))
    scale /= scale.log().mean().exp()  # on the whole as loud as before
    for norm in (net.res5a.bn_branch2b, net.res5a.bn_branch1, net.res5b.bn_branch2b):
        norm.weight *= scale
        norm.bias *= scale
    net.res5b.branch2a.weight /= scale[:, None, None, None]  # (O, C, t, h, w)
    net.fc8.weight /= scale**net.pool_power
