"""The estimate: does a process leak, how fast, per what, and when does that end badly (design §7).  Pure.

Each series is looked at over stretches that end now, long ones first, along requests, tokens and time.  What a mark or
a longer context explains is taken out before.  ``growth`` knows what a leak looks like; here it is decided how much of
it must have been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rkvisor.supervisor.memory.explained import Step, explain, rare
from rkvisor.supervisor.memory.growth import Growth, judge
from rkvisor.supervisor.memory.limits import Limit, soonest
from rkvisor.supervisor.memory.sample import SERIES, Mark, Sample, series_of
from rkvisor.supervisor.memory.search import Policy, best, search, weak
from rkvisor.supervisor.memory.slope import Slope
from rkvisor.supervisor.memory.thinning import Track, by_age, by_axis, first_from, without_spikes

Verdict = Literal["clean", "warming_up", "suspect", "leaking"]
#: From good to bad.
VERDICTS: tuple[Verdict, ...] = ("clean", "warming_up", "suspect", "leaking")
AXES = ("requests", "tokens", "time")
_HOUR_S = 3600.0
#: Points of a line.
LINE = 24
#: Requests explain what they leave less of unexplained than this share, however well another covariate does.
CLEAR = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Growth per unit of a covariate, with its 95 % interval."""

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEstimate:
    """One series.  value: its last.  per_*: bytes, or descriptors, per request, token and hour.

    explained_by: "requests", "tokens" or "time", whichever fits best; None where nothing grows.
    grown: along the line.  since_s: monotonic, where the line begins (the end of the warm-up).
    line: (at_s, value, low, high) along it, as time passed; empty where nothing grows.  reasons: why it is no leak, or
    not yet.
    """

    name: str
    verdict: Verdict
    value: float
    per_request: Rate = Rate()
    per_token: Rate = Rate()
    per_hour: Rate = Rate()
    explained_by: str | None = None
    grown: float = 0.0
    since_s: float = 0.0
    line: tuple[tuple[float, float, float, float], ...] = ()
    steps: tuple[Step, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known of one process.  cause: "runtime", "rkvisor" or "unknown"; the estimate itself does not know.

    limit, limit_in_s: the limit that is reached first at this rate, and in how many seconds; None where none ever is.
    """

    verdict: Verdict
    series: tuple[SeriesEstimate, ...]
    at_s: float
    requests: int
    span_s: float
    samples: int
    cause: str = "unknown"
    limit: Limit | None = None
    limit_in_s: float | None = None


def estimate(
    samples: Sequence[Sample], marks: Sequence[Mark] = (), limits: Sequence[Limit] = (), policy: Policy | None = None
) -> Report:
    """Judge one process by its *samples*, oldest first.

    marks: what happened in its life.  limits: where it ends badly.
    """
    policy = policy or Policy()
    if not samples:
        return Report(verdict="warming_up", series=(), at_s=0.0, requests=0, span_s=0.0, samples=0)
    seen = _settled(samples)
    marks = rare(seen, marks)
    series = tuple(_series(seen, marks, name, policy) for name in SERIES)
    last = samples[-1]
    limit, limit_in_s = soonest(last, _rates(series), limits) or (None, None)
    return Report(
        verdict=max((one.verdict for one in series), key=VERDICTS.index),
        series=series,
        at_s=last.at_s,
        requests=last.requests,
        span_s=last.at_s - samples[0].at_s,
        samples=len(samples),
        limit=limit,
        limit_in_s=limit_in_s,
    )


def _settled(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those taken while idle, where these are enough: a request's own buffers are not a leak."""
    idle = [one for one in samples if one.is_idle]
    return idle if 2 * len(idle) >= len(samples) else samples


def _rates(series: Sequence[SeriesEstimate]) -> dict[str, float]:
    """Bytes a second of the series that grow."""
    grow = [one for one in series if one.verdict in ("suspect", "leaking")]
    return {one.name: one.per_hour.value / _HOUR_S for one in grow}


def _series(samples: Sequence[Sample], marks: Sequence[Mark], name: str, policy: Policy) -> SeriesEstimate:
    values = [series_of(one, name) for one in samples]
    is_warm = _is_enough(samples[0], samples[-1], policy)
    least = policy.least(name)
    if max(values) - min(values) < least:  # most series, most of the time
        return SeriesEstimate(name=name, verdict="clean" if is_warm else "warming_up", value=values[-1])
    is_counted = name == "descriptors"  # no mark and no context explains one
    calm = without_spikes(values)
    adjusted, steps, begin = (calm, (), 0) if is_counted else explain(samples, marks, calm)
    track = _track(samples, adjusted, begin)
    doubtful: Verdict = "suspect" if is_warm else "warming_up"
    leak = _leak(track, policy, least)
    if leak is not None and not is_counted and marks:
        granted, _, settled = explain(samples, marks, calm, is_generous=True)
        if _leak(_track(samples, granted, settled), policy, least) is None:
            return _grows(name, doubtful, track, replace(leak, faults=("marks",)), values[-1], steps)
    if leak is not None:
        return _grows(name, "leaking", track, leak, values[-1], steps)
    rise = weak(track, least)
    if rise is not None:
        return _grows(name, doubtful, track, rise, values[-1], steps)
    is_filling = begin > 0 and not _is_enough(samples[begin], samples[-1], policy)
    verdict: Verdict = "clean" if is_warm and not is_filling else "warming_up"
    return SeriesEstimate(name=name, verdict=verdict, value=values[-1], steps=steps)


def _track(samples: Sequence[Sample], values: Sequence[float], begin: int) -> Track:
    whole = Track(
        [float(one.requests) for one in samples],
        [float(one.tokens_in + one.tokens_out) for one in samples],
        [one.at_s for one in samples],
        values,
    )
    return by_age(whole.part(begin))


def _leak(track: Track, policy: Policy, least: float) -> Growth | None:
    return best([one for axis in ("requests", "time") if (one := search(track, axis, policy, least)) is not None])


def _is_enough(first: Sample, last: Sample, policy: Policy) -> bool:
    return last.requests - first.requests >= policy.min_requests or last.at_s - first.at_s >= policy.min_s


def _grows(
    name: str, verdict: Verdict, track: Track, growth: Growth, value: float, steps: tuple[Step, ...]
) -> SeriesEstimate:
    xs = track.along(growth.axis)
    part = track.part(first_from(xs, growth.xs[0]))
    by = _explained_by(part, growth)
    slope = growth.slope if by == growth.axis else judge(part, by, 0.0).slope
    passed = part.along(by)[-1] - part.along(by)[0]
    return SeriesEstimate(
        name=name,
        verdict="suspect" if verdict == "leaking" and slope.low <= 0 else verdict,  # along *by* it may be none
        value=value,
        per_request=_rate(part, by, slope, "requests", 1.0),
        per_token=_rate(part, by, slope, "tokens", 1.0),
        per_hour=_rate(part, by, slope, "time", _HOUR_S),
        explained_by=by,
        grown=slope.value * passed,
        since_s=part.time[0],
        line=_line(part, by, slope, value),
        steps=steps,
        reasons=growth.faults,
    )


def _line(part: Track, by: str, slope: Slope, value: float) -> tuple[tuple[float, float, float, float], ...]:
    """The line and its interval, narrowest in the middle, as time passed.  value: what the series ends with."""
    thin = by_axis(part, "time", LINE)
    hidden = value - part.values[-1]  # what was taken out as explained lies below the line's end
    middle = (part.along(by)[0] + part.along(by)[-1]) / 2
    points = []
    for at_s, x in zip(thin.time, thin.along(by), strict=True):
        on, away = slope.at(x) + hidden, x - middle
        sides = sorted((on + (slope.low - slope.value) * away, on + (slope.high - slope.value) * away))
        points.append((at_s, on, sides[0], sides[1]))
    return tuple(points)


def _explained_by(part: Track, growth: Growth) -> str:
    """The axis along which the line fits best; requests, where another is not clearly better."""
    errors = {}
    for axis in AXES:
        one = growth if axis == growth.axis else judge(part, axis, 0.0)
        errors[axis] = one.misfit
    fittest = min(AXES, key=lambda axis: errors[axis])
    is_clear = errors["requests"] > CLEAR and errors[fittest] < 0.8 * errors["requests"]
    return fittest if is_clear else "requests"


def _rate(part: Track, by: str, slope: Slope, axis: str, unit: float) -> Rate:
    """The slope along *by*, said per *unit* of *axis*: times what passed of the one while so much of the other did."""
    passed = part.along(by)[-1] - part.along(by)[0]
    other = part.along(axis)[-1] - part.along(axis)[0]
    if other <= 0:
        return Rate()
    factor = passed / other * unit
    return Rate(value=slope.value * factor, low=slope.low * factor, high=slope.high * factor)
