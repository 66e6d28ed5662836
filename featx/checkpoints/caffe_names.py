"""From the blobs of Caffe's layers to tensors, and from the layers' names to ours.

    conv1a: weight, bias                   conv1a.weight, conv1a.bias
    fc6-1, fc8-new, fc_kinetics            fc6, fc8, fc: what follows says which data the layer was trained on
    res4a_branch2a: weight                 res4a.branch2a.weight
    bn4a_branch2a (BatchNorm, Res3D)       res4a.bn_branch2a.running_mean, .running_var
    scale4a_branch2a (Scale, Res3D)        res4a.bn_branch2a.weight, .bias
    bn4a_branch2a (BN, P3D)                res4a.bn_branch2a.weight, .bias, .running_mean, .running_var

Rules, not tables, since our names follow the layers'. They do not depend on the architecture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from featx.checkpoints.names import Naming

__all__ = ["caffe_naming", "caffe_tensors"]

# the blobs of a layer, by their number
ROLES = {
    1: ("weight",),
    2: ("weight", "bias"),
    3: ("running_mean", "running_var", "factor"),
    4: ("weight", "bias", "running_mean", "running_var"),
}


def caffe_tensors(layers: dict[str, list[np.ndarray]]) -> dict[str, Tensor]:
    """Name every blob of `read_caffe`, "<layer>.<role>", in the shape that PyTorch gives such a tensor.

    BatchNorm's mean and variance are divided by the scale factor stored with them, and are 0 where that is 0. A layer
    with blobs that no known layer has keeps them as "<layer>.blob0" and so on.
    """
    tensors = {}
    for layer, blobs in layers.items():
        roles = ROLES.get(len(blobs), ())
        arrays = dict(zip(roles, blobs, strict=bool(roles)))
        factor = arrays.pop("factor", np.ones(1, np.float32))
        if not roles or factor.size != 1:
            arrays = {f"blob{i}": blob for i, blob in enumerate(blobs)}
        elif len(blobs) == 3:
            arrays = {role: _divided(blob, factor.item()) for role, blob in arrays.items()}
        vectors = our_module(layer).rpartition(".")[2].startswith("bn_")
        for role, array in arrays.items():
            shape = _vector_shape(array) if vectors or role == "bias" else _matrix_shape(array)
            tensors[f"{layer}.{role}"] = torch.from_numpy(array.reshape(shape))
    return tensors


def caffe_naming(our_names: Iterable[str], names: Iterable[str]) -> Naming:
    """How a Caffe file with the tensors `names` calls those that we call `our_names`.

    A tensor of ours that the file has not got is listed under our name.
    """
    ours: dict[str, str] = {}
    wanted = dict.fromkeys(our_names)
    for name in names:
        layer, _, role = name.rpartition(".")
        own = f"{our_module(layer)}.{role}"
        if own in wanted:  # and not yet found: a second layer of that name is one too many
            ours[name] = own
            del wanted[own]
    return Naming("Caffe", ours | {own: own for own in wanted})


def our_module(layer: str) -> str:
    """The module of ours that holds a Caffe layer's weights."""
    if match := re.fullmatch(r"(res|bn|scale)(\d[a-z]\d*)_(\w+)", layer):
        kind, block, module = match.groups()
        return f"res{block}.{module}" if kind == "res" else f"res{block}.bn_{module}"
    if match := re.fullmatch(r"(?:bn|scale)_(\w+)", layer):
        return f"bn_{match[1]}"
    if match := re.fullmatch(r"(fc\d*)[-_].+", layer):
        return match[1]
    return layer


def _divided(statistic: np.ndarray, factor: float) -> np.ndarray:
    if factor == 0:
        return np.zeros_like(statistic)
    with np.errstate(all="ignore"):  # a factor that is no factor gives values that are not finite, refused later on
        return statistic / np.float32(factor)


def _vector_shape(array: np.ndarray) -> tuple[int, ...]:
    """(N,) for (1, 1, 1, 1, N), (1, N) and the like; other shapes as they are."""
    return (array.size,) if array.size == max(array.shape, default=1) else array.shape


def _matrix_shape(array: np.ndarray) -> tuple[int, ...]:
    """(N, K) for (1, 1, 1, N, K) and (1, 1, N, K); other shapes, those of convolutions, as they are."""
    return array.shape[-2:] if all(n == 1 for n in array.shape[:-2]) else array.shape
