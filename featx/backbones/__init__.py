"""The architectures: torch modules that name their layers. One file and one row below each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featx.errors import UnknownNameError

if TYPE_CHECKING:
    from featx.backbones.base import Backbone

__all__ = ["ARCHITECTURES", "build"]

# name -> module of this package and its class; a module is imported when it is first built
ARCHITECTURES = {
    "c3d": ("c3d", "C3D"),
    "p3d": ("p3d", "P3D"),
    "res3d": ("res3d", "Res3D"),
}


def build(architecture: str, **arguments: Any) -> Backbone:
    """Make a backbone with fresh weights, in training mode; raises UnknownNameError for an unknown architecture."""
    if architecture not in ARCHITECTURES:
        raise UnknownNameError("architecture", architecture, ARCHITECTURES)
    module, name = ARCHITECTURES[architecture]
    return getattr(importlib.import_module(f"featx.backbones.{module}"), name)(**arguments)
