"""The architectures: torch modules that name their layers, and the table of those that can be built.

One file a family, one row below a network. Another package adds a row through the entry point group "featx.architectures":

    [options.entry_points]
    featx.architectures =
        mynet = mypackage.mynet:ARCHITECTURE        # an Architecture whose module is "mypackage.mynet"
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any

from featx.backbones.registry import Architecture, Registry
from featx.errors import FeatxError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from featx.backbones.base import Backbone

__all__ = ["ARCHITECTURES", "Architecture", "build"]

# far above every published net; channels, kernels, strides and the like are all sizes
MAX_BLOCKS, MAX_SIZE, MAX_CLASSES = 1000, 16_384, 1_000_000


def _rows() -> Iterator[Architecture]:
    yield from _c3d_rows()
    yield from _res3d_rows()
    yield from _p3d_rows()
    yield from _torchvision_rows()
    yield from _hara_rows()


def _c3d_rows() -> Iterator[Architecture]:
    """C3D, and the smaller nets in which its paper searched for it: one convolution a group, 101 classes."""
    module, clip_shape = "featx.backbones.c3d", (3, 16, 112, 112)
    yield Architecture("c3d", module, "C3D", clip_shape, "Tran et al. 2015, figure 3")
    searched = {"num_classes": 101, "widths": (64, 128, 256, 256, 256), "fc_width": 2048, "convs": (1, 1, 1, 1, 1)}
    source = "Tran et al. 2015, section 3.1"
    depths = {f"c3d-depth{depth}": (depth,) * 5 for depth in (1, 3, 5, 7)}
    depths |= {"c3d-increasing": (3, 3, 5, 5, 7), "c3d-decreasing": (7, 5, 5, 3, 3)}
    for name, each in depths.items():
        yield Architecture(name, module, "C3D", clip_shape, source, {**searched, "depths": each})
    for resolution, crop in {64: 56, 128: 112, 256: 224}.items():
        clip_shape, source = (3, 16, crop, crop), "Tran et al. 2015, table 7"
        yield Architecture(f"c3d-net{resolution}", module, "C3D", clip_shape, source, {**searched, "crop": crop})


def _res3d_rows() -> Iterator[Architecture]:
    """Res3D, and the nets in which its paper searched for it: 101 classes, four frames but for the first four."""

    def row(name: str, num_frames: int, source: str, crop: int = 112, **arguments: Any) -> Architecture:
        source, clip_shape = f"Tran et al. 2017, {source}", (3, num_frames, crop, crop)
        return Architecture(name, "featx.backbones.res3d", "Res3D", clip_shape, source, arguments)

    def of_width(k: int) -> tuple[int, ...]:
        return (k, 2 * k, 4 * k, 8 * k)

    yield row("res3d", 8, "table 2")
    for depth, blocks in {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}.items():
        basic = {"num_classes": 101, "blocks": blocks}
        flat = {"depths": (1, 1, 1, 1, 1), "temporal_strides": (1, 1, 1, 1)}
        yield row(f"res2d{depth}", 1, "table 3", **basic, **flat)
        yield row(f"res3d{depth}", 8, "table 3", **basic)

    simplified = {"num_classes": 101, "temporal_strides": (1, 2, 2, 1)}
    yield row("sr18", 4, "section 3.2", **simplified)
    yield row("sr18-56", 4, "table 5", crop=56, **simplified, stem=(5, 1))
    yield row("sr18-224", 4, "table 5", crop=224, **simplified, stem=(11, 4))
    for flat_from, k in {1: 109, 2: 109, 3: 108, 4: 103, 5: 90}.items():
        depths = tuple(3 if group < flat_from else 1 for group in (1, 2, 3, 4, 5))
        yield row(f"mc{flat_from}", 4, "table 13", **simplified, widths=of_width(k), depths=depths)
    yield row("sr18-25d", 4, "table 6", **simplified, split="paper")
    for depth, blocks, k in (
        (10, (1, 1, 1, 1), 98),
        (16, (2, 2, 2, 1), 85),
        (18, (2, 2, 2, 2), 64),
        (26, (2, 3, 4, 3), 50),
        (34, (3, 4, 6, 3), 46),
    ):
        yield row(f"d{depth}", 4, "table 14", **simplified, blocks=blocks, widths=of_width(k))


def _p3d_rows() -> Iterator[Architecture]:
    """P3D-199 and its smaller kin; p3d-a, -b, -c and -abc, of 50 layers before the split, as the paper writes them."""
    blocks = {199: (3, 8, 36, 3), 131: (3, 4, 23, 3), 63: (3, 4, 6, 3)}
    module, clip_shape, source = "featx.backbones.p3d", (3, 16, 160, 160), "Qiu et al. 2017, section 3"
    for depth, each in blocks.items():
        yield Architecture(f"p3d{depth}", module, "P3D", clip_shape, source, {"blocks": each})
    paper = {"num_classes": 101, "blocks": blocks[63], "arithmetic": "paper"}
    for kinds in ("A", "B", "C", "ABC"):
        source = "Qiu et al. 2017, table 1 and equations 3 to 5"
        arguments = {**paper, "kinds": tuple(kinds)}
        yield Architecture(f"p3d-{kinds.lower()}", module, "P3D", clip_shape, source, arguments)


def _torchvision_rows() -> Iterator[Architecture]:
    module, clip_shape = "featx.backbones.res3d", (3, 16, 112, 112)
    forms = {
        "r3d": {},
        "mc3": {"depths": (3, 3, 1, 1, 1), "temporal_strides": (1, 1, 1, 1)},
        "r2plus1d": {"split": "torchvision"},
    }
    for form, arguments in forms.items():
        source = f"torchvision, models.video.{form}_18 (Tran et al. 2018)"
        arguments = {"num_classes": 400, "project_res2a": False, **arguments}
        yield Architecture(f"tv-{form}18", module, "Res3D", clip_shape, source, arguments)


def _hara_rows() -> Iterator[Architecture]:
    """3D ResNets and their kin; the nets of 2020 (r3d) differ from those before in the shortcuts of 18 and 34 layers."""
    module, clip_shape = "featx.backbones.resnet3d", (3, 16, 112, 112)
    depths = {
        18: {"block": "basic", "blocks": (2, 2, 2, 2)},
        34: {"block": "basic", "blocks": (3, 4, 6, 3)},
        50: {"block": "bottleneck", "blocks": (3, 4, 6, 3)},
        101: {"block": "bottleneck", "blocks": (3, 4, 23, 3)},
        152: {"block": "bottleneck", "blocks": (3, 8, 36, 3)},
        200: {"block": "bottleneck", "blocks": (3, 24, 36, 3)},
    }
    for depth, arguments in depths.items():
        source = "Hara et al. 2017, table 1" if depth < 50 else "Hara et al. 2018, table 1"
        shortcut = "A" if depth < 50 else "B"
        yield Architecture(
            f"resnet{depth}", module, "ResNet3D", clip_shape, source, {**arguments, "shortcut": shortcut}
        )
    source = "Hara et al. 2018, table 1"
    pre = {**depths[200], "block": "preactivation"}
    wide = {**depths[50], "widths": (128, 256, 512, 1024), "expansion": 2}
    resnext = {**depths[101], "widths": (128, 256, 512, 1024), "expansion": 2, "groups": 32}
    yield Architecture("preresnet200", module, "ResNet3D", clip_shape, source, pre)
    yield Architecture("wideresnet50", module, "ResNet3D", clip_shape, source, wide)
    yield Architecture("resnext101", module, "ResNet3D", clip_shape, source, resnext)
    yield Architecture("resnext101-64f", module, "ResNet3D", (3, 64, 112, 112), source, resnext)
    for depth, blocks in {121: (6, 12, 24, 16), 201: (6, 12, 48, 32)}.items():
        densenet = "featx.backbones.densenet3d"
        yield Architecture(f"densenet{depth}", densenet, "DenseNet3D", clip_shape, source, {"blocks": blocks})
    for depth, arguments in depths.items():
        source = "Hara et al. 2020 (3D-ResNets-PyTorch)"
        yield Architecture(f"r3d{depth}", module, "ResNet3D", clip_shape, source, {**arguments, "num_classes": 700})


ARCHITECTURES = Registry(_rows())


def build(architecture: str, **arguments: Any) -> Backbone:
    """Make a backbone with fresh weights, in training mode.

    Raises UnknownNameError for an unknown architecture, and UsageError for one that cannot be built with these arguments.
    """
    from featx.backbones.base import Backbone

    if architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", architecture, ARCHITECTURES, "'featx models' lists them.")
    row = ARCHITECTURES[architecture]
    arguments = {**row.arguments, **arguments}
    if architecture in ARCHITECTURES.own:  # what another package's arguments mean is not known here
        _check_sizes(architecture, arguments)
    try:
        net = getattr(importlib.import_module(row.module), row.kind)(**arguments)
        if not isinstance(net, Backbone):
            raise TypeError(
                f"{row.module}.{row.kind} makes a {type(net).__name__}, not a featx.backbones.base.Backbone"
            )
    except FeatxError:
        raise
    except Exception as error:  # a user's card can hold any arguments, and another package's code raise anything at all
        package = ARCHITECTURES.package_of(architecture)
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UsageError(
            f"architecture '{architecture}'"
            + f" of the package {package}" * bool(package)
            + f" cannot be built with {given} "
            f"({type(error).__name__}: {error}); correct the arguments" + ", or mend the package" * bool(package)
        ) from error
    return net


def _check_sizes(architecture: str, arguments: dict[str, Any]) -> None:
    """Refuse what no machine can build, before it is tried for minutes or until the memory is full."""
    for name, value in arguments.items():
        is_list = isinstance(value, (list, tuple)) and name != "kinds"
        limit = MAX_CLASSES if name == "num_classes" else MAX_SIZE
        if is_list and not all(map(_is_size, value)):
            problem = f"must be whole numbers of at most {MAX_SIZE}"
        elif is_list and name == "blocks" and sum(value) > MAX_BLOCKS:
            problem = f"may not be more than {MAX_BLOCKS} in all"
        elif isinstance(value, (int, float)) and not abs(value) <= limit:
            problem = f"may not go beyond {limit}"
        else:
            continue
        raise UsageError(
            f"{name} of architecture '{architecture}' is {value!r:.100}, but {problem}; correct the arguments"
        )


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE
