"""Points in time that outlive rkvisord and the kernel, on boards that may have no clock.  Pure.

A stamp is wall time, the kernel's boot id and the monotonic clock of that boot.  Within one boot the monotonic clock
counts, whatever the wall clock did meanwhile; between two boots the wall clock does, if it was set at either end:
boards boot in 1970 until a network tells them better.  Every age is clamped.
"""

from __future__ import annotations

from dataclasses import dataclass

#: 2020-01-01: a wall clock before it was never set.
SANE_WALL = 1_577_836_800.0


@dataclass(frozen=True, slots=True)
class Stamp:
    """wall: Unix seconds.  boot_id: of the kernel.  boot_s: seconds on the monotonic clock of that boot."""

    wall: float
    boot_id: str
    boot_s: float


def age_s(then: Stamp, now: Stamp, limit_s: float) -> float:
    """Seconds from *then* to *now*, within [0, limit_s]; 0 where no clock can tell."""
    if then.boot_id and then.boot_id == now.boot_id:
        age = now.boot_s - then.boot_s
    elif then.wall < SANE_WALL or now.wall < SANE_WALL:
        age = 0.0
    else:
        age = now.wall - then.wall
    return min(max(age, 0.0), limit_s)
