"""Which idle worker a request goes to.  Pure.

A process has one KV cache, so what a worker has of a session is lost as soon as it runs something else.  Hence nothing
ever waits for a worker: one that is busy no longer has the conversation, and one that has it is idle.  What can be
chosen is only to go to the worker that has it, and to leave it alone as long as another one is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar


class Named(Protocol):
    """A worker."""

    @property
    def name(self) -> str: ...


W = TypeVar("W", bound=Named)


def choose(idle: Mapping[W, None], failed: str | None, home: W | None, is_held: Callable[[W], bool]) -> W:
    """A worker of *idle* (at least one; idle longest first).

    failed: name of the worker that failed this request last, which is only taken where there is no other.  home: the
    worker whose KV cache has the request's session.  is_held: whether it has another session's; of those, the one that
    has been idle longest.
    """
    if home is not None and home in idle:
        return home
    held: W | None = None
    for worker in idle:
        if worker.name == failed:
            continue
        if not is_held(worker):
            return worker
        held = held or worker
    return held or _first(idle)


def _first(idle: Iterable[W]) -> W:
    return next(iter(idle))
