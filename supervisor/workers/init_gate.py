"""One ``rkllm_init`` at a time across the workers of one NPU (facts of the runtime, §3); others wait their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable


class InitGate:
    """Who is inside loads; the next enters when it leaves, whether it became ready, failed or died."""

    def __init__(self) -> None:
        self._inside: Hashable | None = None
        self._waiting: deque[tuple[Hashable, Callable[[], None]]] = deque()

    def enter(self, who: Hashable, go: Callable[[], None]) -> None:
        """Call *go* when it is the turn of *who*: now, if nobody is inside."""
        if self._inside is None:
            self._inside = who
            go()
        else:
            self._waiting.append((who, go))

    def leave(self, who: Hashable) -> None:
        """*who* is done, or gives up waiting.  Who never entered may leave too."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not who)
        if self._inside is who:
            self._inside = None
            if self._waiting:
                self.enter(*self._waiting.popleft())
