"""Learn the small network's own classes anew, from pool5 of rendered simple figures; all else stays as it is.

    python examples/refit_classifier.py run/res3d-mini.safetensors -o refitted.safetensors

For weights whose pool5 is no longer the one that their classifier learned from. Prints the share of right answers on
difficult figures that were never learned from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from mini_net import activations, new_net, to_input
from simple_figures import LABELS, figures_batch
from torch import Tensor, nn
from train_mini import CALM_SHARE, HELD_OUT, SIZES, TRAINING

from featx.backbones.res3d import Res3D
from featx.checkpoints.safetensors import read_safetensors, write_safetensors

BATCH = 3 * len(LABELS["motion"])  # as many of each class
WEIGHT_DECAY = 3e-4  # times the squares of the weights, for pool5 of variance 1


@torch.no_grad()
def pooled_figures(net: Res3D, part: int, num_clips: int, ease: float) -> tuple[Tensor, Tensor]:
    """pool5 (N, D) and the motions (N,) of simple figures from one part of the seeds, calm with probability `ease`."""
    pooled, motions = [], []
    for number in range(-(-num_clips // BATCH)):
        batch = figures_batch((0, part), number, BATCH, SIZES[-1], ease)
        pooled.append(activations(net, to_input(batch.clips).contiguous(memory_format=torch.channels_last_3d))[1])
        motions.append(batch.labels["motion"])
    return torch.cat(pooled), torch.cat(motions)


def fit(pooled: Tensor, motions: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (K, D) and biases (K,) of multinomial logistic regression, by L-BFGS."""
    mean, deviation = pooled.mean(0), pooled.std(0).clamp_min(1e-6)
    rows = (pooled - mean) / deviation
    weight = torch.zeros(len(LABELS["motion"]), pooled.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=400, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(F.linear(rows, weight, bias), motions) + WEIGHT_DECAY * weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    weight, bias = weight.detach() / deviation, bias.detach()
    return weight, bias - weight @ mean


def right(classifier: nn.Linear, pooled: Tensor, motions: Tensor) -> float:
    """The share of right answers."""
    with torch.no_grad():
        return float((classifier(pooled).argmax(1) == motions).float().mean())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="safetensors of the small network")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2688, help="to learn from")
    args = parser.parse_args(arguments)
    tensors = read_safetensors(args.weights)
    net = new_net().eval()
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    weight, bias = fit(*pooled_figures(net, TRAINING, args.clips, CALM_SHARE))
    net.fc8.weight.data, net.fc8.bias.data = weight, bias
    share = right(net.fc8, *pooled_figures(net, HELD_OUT, max(BATCH, args.clips // 8), 0.0))
    print(f"{100 * share:.1f} % of difficult held-out figures are named right")
    fitted = {"fc8.weight": weight.to(tensors["fc8.weight"].dtype), "fc8.bias": bias}
    write_safetensors(args.output, {**tensors, **fitted})


if __name__ == "__main__":
    main()
