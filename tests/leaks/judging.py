"""Judges traces as rkvisord does: an estimate now and then while the samples come, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from leaks.corpus import trace
from leaks.traces import Trace
from rkvisor.supervisor.memory.estimate import Report, estimate
from rkvisor.supervisor.memory.judge import LEAST_S, MOST_S, PACE, REQUESTS
from rkvisor.supervisor.memory.sample import Sample
from rkvisor.supervisor.memory.sieve import Sieve
from rkvisor.supervisor.memory.standing import Standing, settle

#: What an estimate is taken to cost, seconds of a core: after one, rkvisord waits for ``PACE`` times as long.  Twice as
#: long as was measured, for slow cores.
COST_S = 0.006


@dataclass(frozen=True, slots=True)
class Outcome:
    """found: the request, counted from the leak's onset, at which "leaking" was said first; None for never.

    worst: the worst that was said.  error: of the slope at the end, relative, None where nothing was found there.
    axis: what explains it best, as the last estimate says.
    is_covered: the truth lies within the interval.  last: what was said in the end.
    """

    kind: str
    seed: str
    found: int | None
    worst: str
    rate: float = 0.0
    error: float | None = None
    axis: str | None = None
    series: tuple[str, ...] = ()
    is_covered: bool = False
    last: str = "clean"


class Watch:
    """One life as rkvisord keeps it, and when it is estimated anew: see ``supervisor/memory/judge.py``."""

    def __init__(self) -> None:
        self._sieve: Sieve[Sample] = Sieve()
        self._at_s, self._requests, self._not_before_s = float("-inf"), 0, float("-inf")

    def add(self, one: Sample) -> bool:
        """One more sample.  Returns whether an estimate is made now."""
        self._sieve.add(one.at_s, one.requests, one)
        since_s = one.at_s - self._at_s
        is_due = since_s >= MOST_S or (one.requests - self._requests >= REQUESTS and since_s >= LEAST_S)
        if not is_due or one.at_s < self._not_before_s:
            return False
        self._at_s, self._requests, self._not_before_s = one.at_s, one.requests, one.at_s + COST_S * PACE
        return True

    def estimate(self, one: Trace) -> Report:
        """Of what is kept, and was marked, so far."""
        samples = self._sieve.samples()
        return estimate(samples, [mark for mark in one.marks if mark.at_s <= samples[-1].at_s])


def judge(one: Trace) -> Outcome:
    """Follow *one* from its first sample to its last; its slope is that of a report that is asked for in the end."""
    standing, found, worst, accused = Standing(), None, "clean", []
    order = ("clean", "warming_up", "suspect", "leaking")
    watch = Watch()
    for sample in one.samples:
        if not watch.add(sample):
            continue
        report = watch.estimate(one)
        standing = settle(standing, report.verdict, report.requests, report.at_s)
        worst = max(worst, standing.verdict, key=order.index)
        if standing.verdict == "leaking":
            accused += [series.name for series in report.series if series.verdict == "leaking"]
            if found is None:
                found = sample.requests - (one.leak.onset if one.leak else 0)
    error, is_covered, axis = _error(one, watch.estimate(one))
    return Outcome(
        one.kind,
        one.seed,
        found,
        worst,
        one.bytes_per_request,
        error,
        axis,
        tuple(dict.fromkeys(accused)),
        is_covered,
        standing.verdict,
    )


def _error(one: Trace, report: Report) -> tuple[float | None, bool, str | None]:
    """How far the slope is off, whether its interval holds the truth, and what explains it best."""
    if one.leak is None:
        return None, False, None
    series = next(series for series in report.series if series.name == one.leak.series)
    if series.explained_by is None:
        return None, False, None
    said = {"requests": series.per_request, "tokens": series.per_token, "time": series.per_hour}[one.leak.axis]
    true = one.leak.rate * (3600 if one.leak.axis == "time" else 1)
    return said.value / true - 1, said.low <= true <= said.high, series.explained_by


def judge_seed(seed: tuple[str, str, int]) -> Outcome:
    """*seed*: part, kind, number."""
    return judge(trace(*seed))
