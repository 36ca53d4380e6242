"""A verdict that does not flicker: what is said of a process, from one estimate to the next.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rkvisor.supervisor.memory.estimate import Verdict

#: Estimates in a row that say "leaking" before it is said, and that do not before it is taken back.
TO_ACCUSE = TO_ACQUIT = 3
#: So much of the process's life passes from the first of the former to the last: so many requests, or seconds.
SPAN_REQUESTS, SPAN_S = 50, 1500.0
#: Estimates count that see so much more of the process's life than the one that counted before: so many requests, or
#: so many seconds.  Four looks at the same requests are one.
MORE_REQUESTS, MORE_S = 20, 600.0


@dataclass(frozen=True, slots=True)
class Standing:
    """verdict: what is said.  streak: estimates in a row that would change whether that is "leaking".

    requests, at_s: of the last estimate that counted.  first_requests, first_s: of the first of the streak.
    """

    verdict: Verdict = "warming_up"
    streak: int = 0
    requests: float = float("-inf")
    at_s: float = float("-inf")
    first_requests: float = float("-inf")
    first_s: float = float("-inf")


def settle(standing: Standing, estimated: Verdict, requests: int, at_s: float) -> Standing:
    """What is said after one more estimate of the same process.  A new process begins with ``Standing()``.

    Anything but "leaking" is said at once.  "leaking" is a "suspect" first, and stays until others were seen in a row.
    requests, at_s: of the newest sample that the estimate knows.
    """
    is_said, is_estimated = standing.verdict == "leaking", estimated == "leaking"
    if requests - standing.requests < MORE_REQUESTS and at_s - standing.at_s < MORE_S:
        return standing if is_said else replace(standing, verdict="suspect" if is_estimated else estimated)
    if is_said == is_estimated:
        return Standing(estimated, 0, requests, at_s)
    first = (standing.first_requests, standing.first_s) if standing.streak else (float(requests), at_s)
    streak = standing.streak + 1
    if is_said:
        is_over = streak >= TO_ACQUIT
    else:
        is_over = streak >= TO_ACCUSE and (requests - first[0] >= SPAN_REQUESTS or at_s - first[1] >= SPAN_S)
    if is_over:
        return Standing(estimated, 0, requests, at_s)
    return Standing("leaking" if is_said else "suspect", streak, requests, at_s, *first)
