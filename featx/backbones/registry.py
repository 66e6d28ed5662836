"""The table of architectures: featx's own rows, and those that other packages add through entry points.

A package's rows are found when a name is asked for that featx has not; its code is imported when its net is. No package can
take the place of a net of featx, or keep featx's own from working.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from featx.errors import UsageError

__all__ = ["ENTRY_POINT_GROUP", "Architecture", "Registry"]

ENTRY_POINT_GROUP = "featx.architectures"


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


class Registry(Mapping[str, Architecture]):
    """Name -> Architecture: featx's own rows first, then those of other packages, by name.

    A name of another package that cannot be used is in the table, and asking for its row raises UsageError with the reason.
    """

    def __init__(self, rows: Iterable[Architecture]) -> None:
        self.own = {row.name: row for row in rows}

    @cached_property
    def _added(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name, without those that would take a name of featx's own."""
        found: dict[str, list[EntryPoint]] = {}
        for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value)):
            others = found.setdefault(point.name, [])
            if point not in others:  # a package seen twice on the path
                others.append(point)
        return found

    def __getitem__(self, name: str) -> Architecture:
        if name in self.own:
            return self.own[name]
        return _load(name, self._added[name])

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._added

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self._added if name not in self.own)

    def __len__(self) -> int:
        return len(set(self.own) | set(self._added))

    def package_of(self, name: str) -> str:
        """The package that adds the architecture `name`; "" for featx's own."""
        return "" if name in self.own else _package(self._added[name][0])

    def problems(self) -> list[str]:
        """One line for each architecture of another package that cannot be used."""
        texts = []
        for name, points in self._added.items():
            try:
                if name in self.own:
                    packages = ", ".join(map(_package, points))
                    raise UsageError(
                        f"architecture '{name}' of {packages} is passed over: featx has one of that name; rename it there"
                    )
                _load(name, points)
            except UsageError as error:
                texts.append(str(error))
        return texts


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _load(name: str, points: list[EntryPoint]) -> Architecture:
    if len(points) > 1:
        raise UsageError(
            f"architecture '{name}' is added by {' and by '.join(map(_package, points))}; uninstall one, or rename it there"
        )
    (point,) = points
    whose = f"architecture '{name}' of the package {_package(point)}"
    try:
        row = point.load()
    except Exception as error:  # another package's code can raise anything at all
        raise UsageError(
            f"{whose} cannot be loaded from {point.value} ({type(error).__name__}: {error}); mend or uninstall the package"
        ) from error
    if not isinstance(row, Architecture) or row.name != name:
        found = f"named '{row.name}'" if isinstance(row, Architecture) else f"a {type(row).__name__}"
        raise UsageError(
            f"{whose}: {point.value} is {found}, but must be a featx.backbones.Architecture named '{name}'; mend the package"
        )
    return row
