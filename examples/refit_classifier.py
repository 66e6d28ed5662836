"""Learn the small network's own classes anew, from pool5 of rendered simple figures; all else stays as it is.

    python examples/refit_classifier.py run/res3d-mini.safetensors -o refitted.safetensors

For weights whose pool5 is no longer the one that their classifier learned from, as when train_mini.py writes them. Prints
the share of right answers on difficult figures that were never learned from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from lessons import CALM_SHARE, HELD_OUT, SIZES, TRAINING
from mini_net import ARGUMENTS, activations, new_net, to_input
from simple_figures import LABELS, figures_batch
from torch import Tensor

from featx.backbones.res3d import Res3D
from featx.checkpoints.safetensors import read_safetensors, write_safetensors

BATCH = 3 * len(LABELS["motion"])  # as many of each class
WEIGHT_DECAY = 3e-4  # times the squares of the weights, for pool5 of variance 1


@torch.no_grad()
def pooled_figures(net: Res3D, seeds: tuple[int, int], num_clips: int, side: int, ease: float) -> tuple[Tensor, Tensor]:
    """pool5 (N, D) and the motions (N,) of simple figures of `side` pixels, calm with probability `ease`, on the CPU."""
    pooled, motions, device = [], [], net.fc8.weight.device
    for number in range(-(-num_clips // BATCH)):
        batch = figures_batch(seeds, number, BATCH, side, ease)
        clips = to_input(batch.clips.to(device)).contiguous(memory_format=torch.channels_last_3d)
        pooled.append(activations(net, clips)[1].cpu())
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


@torch.no_grad()
def learn_classifier(net: Res3D, seed: int, num_clips: int, side: int) -> float:
    """Teach `net`'s classifier anew, in place, and leave `net` in eval mode: the share of right answers on others.

    It learns from `num_clips` figures of a run's training part, and is judged by an eighth as many difficult ones.
    """
    net.eval()
    with torch.enable_grad():
        weight, bias = fit(*pooled_figures(net, (seed, TRAINING), num_clips, side, CALM_SHARE))
    net.fc8.weight.copy_(weight)
    net.fc8.bias.copy_(bias)
    pooled, motions = pooled_figures(net, (seed, HELD_OUT), max(BATCH, num_clips // 8), side, 0.0)
    return float((F.linear(pooled, weight, bias).argmax(1) == motions).float().mean())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="safetensors of the small network")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=2688, help="to learn from")
    args = parser.parse_args(arguments)
    tensors = read_safetensors(args.weights)
    net = new_net(ARGUMENTS)
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    share = learn_classifier(net, 0, args.clips, SIZES[-1])
    print(f"{100 * share:.1f} % of difficult held-out figures are named right")
    classifier = {f"fc8.{name}": tensor.detach() for name, tensor in net.fc8.named_parameters()}
    fitted = {name: tensor.to(tensors[name].dtype) for name, tensor in classifier.items()}
    write_safetensors(args.output, {**tensors, **fitted})


if __name__ == "__main__":
    main()
