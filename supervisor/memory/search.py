"""Looks for a leak in one series: over stretches that end now, long ones first, with a look at what was before.  Pure.

``growth`` judges one stretch.  A stretch alone can deceive: every curve is straight where one looks closely, and every
swing rises for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkvisor.supervisor.memory.growth import ALIKE, PERSISTENT, Growth, judge
from rkvisor.supervisor.memory.thinning import Track, first_from

#: A stretch that rises at less than this share of the rate just before it is the tail of a curve that flattens.
TAIL = 0.7
#: Shorter than this share of the life is short; before a short one the series rose at most at this share of its rate.
SHORT, NEW = 1 / 3, 0.5
#: A stretch with little before it has at least this share of the life, or of its samples, and rises in its later half
#: at least at this share of the earlier half's rate.
WHOLE, STRAIGHT = 0.75, 0.8
#: What takes longer than so many times the shortest stretch to grow by the least is slow, as pools are that fill: so
#: many times the least must have been seen of it.
SLOW, PATIENT = 2.0, 2.0
#: Of as long a time before a stretch, so much must have been seen, in so many points; fewer than ``TOLD`` do not tell
#: whether a short stretch is where the growth began.
ENOUGH, KNOWN, TOLD = 0.6, 2, 8
#: Stretches that are looked at: the shortest one that may say "leaking" times these, by requests and by time; of two
#: that differ by less than this share of their samples, one.
_STRETCHES = (64.0, 32.0, 16.0, 8.0, 4.0, 3.5, 3.0, 2.75, 2.5, 2.25, 2.0, 1.83, 1.67, 1.5, 1.33, 1.17, 1.0)
_APART = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How much must have been seen.  A process is warm after *min_requests* or *min_s*, whichever comes first.

    min_points: samples in a stretch.  min_bytes, min_descriptors: growth in a stretch below this is none.
    """

    min_requests: int = 150
    min_s: float = 3600.0
    min_points: int = 24
    min_bytes: float = 1024 * 1024
    min_descriptors: float = 8.0

    def least(self, name: str) -> float:
        """Growth of the series *name* below this is none."""
        return self.min_descriptors if name == "descriptors" else self.min_bytes


def _stretches(track: Track, policy: Policy) -> list[int]:
    """The first index of each stretch that may be judged, the longest first; long enough by requests or by time."""
    begins: set[int] = set()
    for axis, shortest in (("requests", float(policy.min_requests)), ("time", policy.min_s)):
        xs = track.along(axis)
        for factor in _STRETCHES:
            begin = first_from(xs, xs[-1] - factor * shortest)
            if xs[-1] - xs[begin] >= 0.99 * shortest and len(xs) - begin >= policy.min_points:
                begins.add(begin)
    apart: list[int] = []
    for begin in sorted(begins):
        if not apart or begin - apart[-1] >= _APART * (len(track) - begin):
            apart.append(begin)
    return apart


def _spans(track: Track, begin: int, policy: Policy, factor: float) -> bool:
    """Whether *track* is, from *begin* on, *factor* times as long as the shortest stretch, by requests or by time.

    Requests are counted from the birth of the process, so that those before the oldest sample that is kept count too.
    """
    requests = track.requests[-1] - (track.requests[begin] if begin else 0.0)
    time = track.time[-1] - track.time[begin]
    return requests >= factor * policy.min_requests or time >= factor * policy.min_s


def search(track: Track, axis: str, policy: Policy, least: float) -> Growth | None:
    """The longest stretch that grows as a leak does and is not the tail of a curve that flattens, or None.

    One that rises faster in its later half began before the leak did: a shorter one that does not tells its slope.
    """
    steepens = None
    for begin in _stretches(track, policy):
        part = track.part(begin)
        growth = judge(part, axis, least, is_brief=True)
        if growth.faults or _is_early(part, growth, policy, least):
            continue
        if not _is_new(track, begin, growth) or _is_tail(track, begin, growth, policy):
            continue
        if growth.ratio * PERSISTENT <= 1:
            return _longest(track, begin, growth, policy, least)
        steepens = growth
    return steepens


def _is_early(part: Track, growth: Growth, policy: Policy, least: float) -> bool:
    """Whether *growth* is so slow that more of it must be seen.  Requests tell, or time where there are few of them."""
    requests, time = part.requests[-1] - part.requests[0], part.time[-1] - part.time[0]
    stretches = requests / policy.min_requests if requests >= policy.min_requests else time / policy.min_s
    return growth.amount < PATIENT * least and growth.amount * SLOW < least * stretches


def _longest(track: Track, begin: int, growth: Growth, policy: Policy, least: float) -> Growth:
    """The longest stretch around *growth* that is straight and fits as well: it tells the slope better."""
    for earlier in (0, *_stretches(track, policy)):
        if earlier >= begin:
            break
        longer = judge(track.part(earlier), growth.axis, least, is_brief=True)
        if not longer.faults and 1 / ALIKE < longer.ratio < ALIKE and longer.misfit <= growth.misfit:
            return longer
    return growth


def _is_new(track: Track, begin: int, growth: Growth) -> bool:
    """Whether the stretch ends above what came before it: a swing that comes back was there already."""
    before = sorted(track.values[:begin])
    if len(before) < 4:
        return True
    highest = before[-1 - len(before) // 20]
    end = track.values[-1 - min(8, len(track) - begin) :]
    return sorted(end)[len(end) // 2] >= highest + 0.3 * growth.amount


def _is_tail(track: Track, begin: int, growth: Growth, policy: Policy) -> bool:
    """Whether the series rose faster over as long a time just before, or nobody knows: it may flatten yet.

    A stretch that is short against the life looks straight on any curve: there the growth must have begun with it.
    """
    xs = track.along(growth.axis)
    length = growth.xs[-1] - growth.xs[0]
    first = first_from(xs, xs[begin] - length)
    if begin - first < KNOWN or xs[begin] - xs[first] < ENOUGH * length:
        return _is_curved(track, begin, growth, policy)
    before = judge(track.part(first, begin + 1), growth.axis, 0.0).slope.value
    if length >= SHORT * (xs[-1] - xs[0]):
        return growth.slope.value < TAIL * before
    if before > NEW * growth.slope.value and begin - first < TOLD:  # of a fast life few old samples are kept
        return _is_curved(track, begin, growth, policy)
    return before > NEW * growth.slope.value


def _is_curved(track: Track, begin: int, growth: Growth, policy: Policy) -> bool:
    """Whether the stretch is not nearly the whole life, or not straight, or too short to tell.

    The last three quarters of what flattens slowly, as a logarithm does, rise half as fast in their later half.
    """
    xs = track.along(growth.axis)
    is_long = growth.xs[-1] - growth.xs[0] >= WHOLE * (xs[-1] - xs[0]) or len(track) - begin >= WHOLE * len(track)
    return not (is_long and _spans(track, begin, policy, 2.0)) or growth.ratio < STRAIGHT


def best(found: Sequence[Growth]) -> Growth | None:
    """The one whose line fits best."""
    return min(found, key=lambda one: one.misfit, default=None)


def weak(track: Track, least: float) -> Growth | None:
    """The latter half of the life, where it rises for sure, though not as a leak is known to."""
    if len(track) < 6:
        return None
    for axis in ("requests", "time"):
        xs = track.along(axis)
        growth = judge(track.part(first_from(xs, (xs[0] + xs[-1]) / 2)), axis, least)
        if not {"small", "unsure", "noise", "uneven", "recent"} & set(growth.faults):
            return growth
    return None
