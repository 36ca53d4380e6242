"""In which order models start: what they depend on first, then by priority.  Stopping is the reverse.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Cycle(Exception):
    """Models depend on each other in a circle; ``names`` goes round it once."""

    def __init__(self, names: Sequence[str]):
        super().__init__(" → ".join(names))
        self.names = tuple(names)


def depths(depends_on: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many steps of dependencies lie below each name, 0 for none.

    Raises:
        Cycle: there is a circle (requirement S2.28).
    """
    known: dict[str, int] = {}

    def depth(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise Cycle((*path[path.index(name) :], name))
        if name not in known:
            below = [depth(other, (*path, name)) for other in depends_on.get(name, ())]
            known[name] = 1 + max(below, default=-1)
        return known[name]

    for name in depends_on:
        depth(name, ())
    return known


def levels(depends_on: Mapping[str, Sequence[str]], priority: Mapping[str, int]) -> list[list[str]]:
    """Groups that may start together, in order: by depth, then by priority, lower numbers first (as supervisord's).

    Raises Cycle.
    """
    depth = depths(depends_on)
    keys = sorted({(depth[name], priority[name]) for name in depth})
    return [sorted(name for name in depth if (depth[name], priority[name]) == key) for key in keys]
