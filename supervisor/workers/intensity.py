"""Restart intensity and period, as in Erlang/OTP: more restarts than that within the period, and it is over.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """limit: restarts allowed within ``period_s`` seconds; 0 switches it off.  times: of those that still count."""

    limit: int
    period_s: float
    times: tuple[float, ...] = ()

    def restarted(self, now_s: float) -> tuple[Intensity, bool]:
        """A restart is due at *now_s*: the window after it, and whether it is one too many."""
        if not self.limit:
            return self, False
        times = (*(when for when in self.times if now_s - when < self.period_s), now_s)
        after = Intensity(limit=self.limit, period_s=self.period_s, times=times)
        return after, len(times) > self.limit
