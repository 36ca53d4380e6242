"""Time, as it is passed down: one monotonic clock for every decision, one wall clock for what people read."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """monotonic: seconds since some start, never backwards.  wall: Unix seconds, for display and storage only."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The kernel's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
