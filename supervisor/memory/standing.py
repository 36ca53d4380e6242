"""A verdict that does not flicker: what is said of a process, from one estimate to the next.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rkvisor.supervisor.memory.estimate import Verdict

#: Estimates in a row that say "leaking" before it is said, and that do not before it is taken back.
TO_ACCUSE, TO_ACQUIT = 3, 3


@dataclass(frozen=True, slots=True)
class Standing:
    """verdict: what is said.  streak: estimates in a row that would change whether that is "leaking"."""

    verdict: Verdict = "warming_up"
    streak: int = 0


def settle(standing: Standing, estimated: Verdict) -> Standing:
    """What is said after one more estimate of the same process.  A new process begins with ``Standing()``.

    Anything but "leaking" is said at once.  "leaking" is a "suspect" first, and stays until others were seen in a row.
    """
    if (standing.verdict == "leaking") == (estimated == "leaking"):
        return Standing(estimated)
    streak = standing.streak + 1
    if standing.verdict == "leaking":
        return Standing(estimated) if streak >= TO_ACQUIT else Standing("leaking", streak)
    return Standing("leaking") if streak >= TO_ACCUSE else Standing("suspect", streak)
