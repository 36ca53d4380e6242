"""How often a process is sampled after its requests: each one at first, then once in a while.  Pure."""

from __future__ import annotations

from rkvisor.supervisor.rate import Limiter

#: Samples of a young process that may follow each other at once.
BURST = 64
#: The least time between two samples of a process, seconds; and the same for each process that there is, so that many
#: take no more of rkvisord's time than few.
GAP_S, GAP_EACH_S = 0.05, 0.0125


class Pace:
    """interval_s: between two samples of a process in the long run.  Processes are known by their incarnation."""

    def __init__(self, interval_s: float):
        self._limiter = Limiter(burst=BURST, every_s=interval_s)
        self._last_s: dict[int, float] = {}

    @property
    def gap_s(self) -> float:
        """The least time between two samples of one process, seconds."""
        return max(GAP_S, GAP_EACH_S * len(self._last_s))

    def admit(self, incarnation: int, now_s: float) -> bool:
        """Whether the process, a request of which is done *now*, is to be sampled for it; if so that is counted."""
        last_s = self._last_s.get(incarnation)
        if last_s is not None and now_s - last_s < self.gap_s:
            return False
        if self._limiter.admit(incarnation, now_s) is None:
            return False
        self._last_s[incarnation] = now_s
        return True

    def forget(self, incarnation: int) -> None:
        """The process is gone."""
        self._last_s.pop(incarnation, None)
