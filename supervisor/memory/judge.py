"""When a life is estimated anew, and what is known of it since: in the sampler's thread, a little at a time.

An estimate costs milliseconds, so they are paced: after each one the thread leaves the processor alone for many
times as long as it took, whoever else waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import thread_time

from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.memory.attribution import Attribution, attribute
from rkvisor.supervisor.memory.estimate import Report, estimate
from rkvisor.supervisor.memory.history import Life
from rkvisor.supervisor.memory.limits import Limit
from rkvisor.supervisor.memory.standing import Standing, settle

#: A life is estimated anew after so many requests, but not twice within so many seconds; else after so many seconds.
REQUESTS, LEAST_S, MOST_S = 20, 2.0, 60.0
#: Of the processor's time, estimates take one part in so many.
PACE = 400


@dataclass(slots=True)
class Judgement:
    """What is known of a life.  standing: the verdict that is told.  report: the last estimate, its cause filled in."""

    standing: Standing = field(default_factory=Standing)
    report: Report | None = None
    attribution: Attribution = field(default_factory=Attribution)
    at_s: float = 0.0
    requests: int = 0


class Judge:
    """limits: of a life, now.  on_verdict: told of a life whose verdict changed, and what it was before.  Everything
    happens in the sampler's thread."""

    def __init__(
        self,
        clock: Clock,
        limits: Callable[[Life], Sequence[Limit]],
        on_verdict: Callable[[Life, Judgement, str], None],
    ):
        self._clock = clock
        self._limits = limits
        self._on_verdict = on_verdict
        self._known: dict[Life, Judgement] = {}
        self._due: dict[Life, None] = {}
        self._not_before_s = 0.0

    def of(self, life: Life) -> Judgement:
        """What is known of *life*."""
        return self._known.setdefault(life, Judgement())

    def sampled(self, life: Life) -> None:
        """*life* has a new sample: whoever is due longest is estimated, if it is time."""
        now_s = self._clock.monotonic()
        known = self.of(life)
        last = life.last
        since_s = now_s - known.at_s
        has_worked = last is not None and last.requests - known.requests >= REQUESTS
        if since_s >= MOST_S or (has_worked and since_s >= LEAST_S):
            self._due[life] = None
        while self._due and now_s >= self._not_before_s:
            first = next(iter(self._due))
            del self._due[first]
            if first.ended_s is None:
                begun_s = thread_time()
                self.judge(first)
                # Its own processor time: waiting for others is no work, and must not make verdicts late.
                self._not_before_s = now_s + (thread_time() - begun_s) * PACE

    def judge(self, life: Life) -> Judgement:
        """Estimate *life* now."""
        known = self.of(life)
        report = estimate(life.samples(), list(life.marks), self._limits(life))
        found = attribute(report, life.looks, is_worker=life.is_worker)
        before = known.standing.verdict
        known.standing = settle(known.standing, report.verdict, report.requests, report.at_s)
        if known.standing.verdict == "leaking" and not found.reasons:
            found = known.attribution  # the verdict outlives an estimate in which nothing grew for a moment
        known.report, known.attribution = replace(report, cause=found.cause), found
        known.at_s, known.requests = self._clock.monotonic(), report.requests
        if known.standing.verdict != before:
            life.verdicts.append((known.at_s, known.standing.verdict))
            self._on_verdict(life, known, before)
        return known

    def forget(self, is_kept: Callable[[Life], bool]) -> None:
        """Drop what is known of lives that are not kept any more."""
        for life in [one for one in self._known if not is_kept(one)]:
            del self._known[life]
            self._due.pop(life, None)
