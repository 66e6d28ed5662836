"""The architectures: torch modules that name their layers, and the table of those that can be built.

One file a family, one row below a network. Another package adds a row through the entry point group "featx.architectures":

    [options.entry_points]
    featx.architectures =
        mynet = mypackage.mynet:ARCHITECTURE        # an Architecture whose module is "mypackage.mynet"
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from featx.errors import UnknownNameError

if TYPE_CHECKING:
    from featx.backbones.base import Backbone

__all__ = ["ARCHITECTURES", "Architecture", "build"]


@dataclass(frozen=True)
class Architecture:
    """A network that can be built: a class, and what it is built with unless a card says otherwise.

    `module` holds the class `kind` and is imported when a network is first built. `clip_shape` (C, T, H, W) is that of the
    published form, for which `featx models` counts; `source` says where the network is described.
    """

    name: str
    module: str
    kind: str
    clip_shape: tuple[int, int, int, int]
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _rows() -> Iterator[Architecture]:
    c3d, res3d, p3d = "featx.backbones.c3d", "featx.backbones.res3d", "featx.backbones.p3d"
    yield Architecture("c3d", c3d, "C3D", (3, 16, 112, 112), "Tran et al. 2015, figure 3")
    yield Architecture("res3d", res3d, "Res3D", (3, 8, 112, 112), "Tran et al. 2017, table 2")
    yield Architecture("p3d199", p3d, "P3D", (3, 16, 160, 160), "Qiu et al. 2017, section 3")


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({row.name: row for row in _rows()})


def build(architecture: str, **arguments: Any) -> Backbone:
    """Make a backbone with fresh weights, in training mode; raises UnknownNameError for an unknown architecture."""
    if architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", architecture, ARCHITECTURES, "'featx models' lists them.")
    row = ARCHITECTURES[architecture]
    return getattr(importlib.import_module(row.module), row.kind)(**{**row.arguments, **arguments})
