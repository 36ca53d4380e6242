"""Whether a stretch of a series grows as a leak does: on and on, evenly, above everything before.  Pure.

What looks alike and is none: one or two steps (a buffer made larger), a curve that flattens (warm-up, a pool that
fills, the longest context so far), teeth (an allocator that gives back now and then), a swing that comes back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rkvisor.supervisor.memory.slope import FLAT, Slope, median, theil_sen
from rkvisor.supervisor.memory.thinning import Track, by_axis

#: Pieces that a stretch is cut into; a leak grows in nearly all of them.
PIECES = 8
#: Steps in a stretch that are taken out before the slope is looked for.
STEPS = 2
#: Of what steps explain, so much counts as unexplained.
STEPPED = 0.25
#: A step stands out by this factor above the increment that is left as the largest.
OUTSTANDING = 3.0
#: Points on either side of a step whose median is its level there.
_BESIDE = 3
#: The growth of a piece is even if the median piece grows by this share of the mean one, and none by more than that.
EVEN, LARGEST = 0.6, 0.3
#: All pieces but one grow by this share of the mean.
LEAST = 0.25
#: The low points that a slope is fitted to begin within this share of the stretch.
YOUNG = 0.2
#: Widens the interval: neither noise with a memory nor stairs are what the ranks assume.  Tuned on the corpus.
CAUTION = 2.2
#: The later half grows at least at this share of the earlier half's rate.
PERSISTENT = 0.6
#: The spread around the line (from the 10th to the 90th percentile) is at most this share of the growth.
SPREAD = 0.25
#: Where only the low points count, the spread of all around the line is at most this share of it, and the later half
#: grows at most so many times as fast as the earlier.
TEETH, STEEPENS = 0.6, 2.0
#: A line is straight if the rates of its halves differ by less than this factor.
ALIKE = 1.33
#: Where teeth are too close together to be seen, low points count if they spread around a straight line by this share
#: of the growth, and leave no wider gap than this share of where they lie.
FIRM, WIDEST = 0.14, 0.22


@dataclass(frozen=True, slots=True)
class Growth:
    """axis: what it was looked at along.  slope: along it, without the steps.  steps: (index in xs, height) of each.

    faults: why it is no leak, in words; empty where it is one.  error: the spread around the line.  ratio: of the later
    half's rate to the earlier half's.
    """

    axis: str
    xs: Sequence[float]
    ys: Sequence[float]
    slope: Slope
    steps: tuple[tuple[int, float], ...]
    faults: tuple[str, ...]
    error: float
    ratio: float = 1.0

    @property
    def amount(self) -> float:
        """How much the line rises from end to end."""
        return self.slope.value * (self.xs[-1] - self.xs[0]) if self.xs else 0.0

    @property
    def spread(self) -> float:
        """Of all points around the line, teeth included, from the 10th to the 90th percentile."""
        return _spread([y - self.slope.at(x) for x, y in zip(self.xs, self.ys, strict=True)])

    @property
    def misfit(self) -> float:
        """What the line leaves unexplained, as a share of all growth; of steps a part, as they fit any curve."""
        stepped = sum(height for _, height in self.steps)
        return (self.error + STEPPED * stepped) / (self.amount + stepped) if self.amount > 0 else math.inf


def judge(track: Track, axis: str, least: float, *, is_brief: bool = False) -> Growth:
    """Look at *track* along *axis*.  least: growth below this is none.

    is_brief: one that certainly is no leak is not fitted, which costs most; its slope is ``FLAT``.
    """
    thin = by_axis(track, axis)
    xs = thin.along(axis)
    ys, steps = without_steps(xs, thin.values)
    growth = Growth(axis, xs, ys, FLAT, steps, (), 0.0)
    if falls_back(ys):
        found = _judged(growth, low_points(ys), least, is_brief=is_brief)
        return replace(found, faults=("uneven",)) if not found.faults and found.ratio > STEEPENS else found
    found = _judged(growth, range(len(ys)), least, is_brief=is_brief)
    if {"uneven", "noise"} & set(found.faults) and len(low := low_points(ys)) < len(ys):
        floor = _judged(growth, low, least, is_brief=is_brief)
        if not floor.faults and _is_firm(floor, low):
            return floor
    return found


def _judged(growth: Growth, keep: Sequence[int], least: float, *, is_brief: bool) -> Growth:
    """*growth* by its points *keep*."""
    xs, ys = [growth.xs[i] for i in keep], [growth.ys[i] for i in keep]
    is_recent = len(xs) > 0 and xs[0] - growth.xs[0] > YOUNG * (growth.xs[-1] - growth.xs[0])
    faults = ["recent"] if is_recent else _crooked(xs, ys, growth.axis)
    if is_brief and faults:
        return replace(growth, faults=tuple(faults))
    growth, early, late = _fitted(growth, xs, ys)
    if not is_recent:
        if len(xs) < PIECES + 2 or growth.amount < least:
            faults = ["small"]
        else:
            faults += _doubts(growth, early, late)
    return replace(growth, faults=tuple(faults))


def _is_firm(floor: Growth, low: Sequence[int]) -> bool:
    """Whether the low points alone, with indices *low*, say it: close to the line, everywhere along it, no step among
    them.  Where nothing falls back for all to see, a few of them rise on many a curve."""
    xs = [floor.xs[index] for index in low]
    widest = max(b - a for a, b in pairwise(xs))
    return (
        not floor.steps
        and widest <= WIDEST * (xs[-1] - xs[0])
        and floor.error <= FIRM * floor.amount
        and 1 / ALIKE <= floor.ratio <= ALIKE
    )


def _fitted(growth: Growth, xs: Sequence[float], ys: Sequence[float]) -> tuple[Growth, float, float]:
    """*growth* with the line through the points; the rates of the earlier and of the later half."""
    slope = theil_sen(xs, ys)
    error = _spread([y - slope.at(x) for x, y in zip(xs, ys, strict=True)])
    half = len(xs) // 2
    early, late = theil_sen(xs[:half], ys[:half]).value, theil_sen(xs[half:], ys[half:]).value
    doubt = abs(late - early) / 2
    slope = Slope(
        slope.value,
        slope.value - CAUTION * max(slope.value - slope.low, doubt),
        slope.value + CAUTION * max(slope.high - slope.value, doubt),
        slope.level,
    )
    return replace(growth, slope=slope, error=error, ratio=late / early if early > 0 else math.inf), early, late


def _spread(residuals: Sequence[float]) -> float:
    """From the 10th to the 90th percentile."""
    ordered, tenth = sorted(residuals), len(residuals) // 10
    return ordered[-1 - tenth] - ordered[tenth] if ordered else 0.0


def _doubts(growth: Growth, early: float, late: float) -> list[str]:
    """What the line shows that is not as a leak is."""
    faults = []
    if growth.slope.low <= 0:
        faults.append("unsure")
    if growth.error > SPREAD * growth.amount or growth.spread > TEETH * growth.amount:
        faults.append("noise")
    if late < PERSISTENT * early:
        faults.append("flattens")
    return faults


def _crooked(xs: Sequence[float], ys: Sequence[float], axis: str) -> list[str]:
    """Whether it grows in some pieces only.  What goes with time goes on now, whether anybody asks for anything or not:
    in a pause that shows."""
    if len(xs) < PIECES + 2:
        return ["small"]
    rises = _rises(xs, ys)
    total = sum(rises)
    mean = total / len(rises)
    is_even = (
        total > 0
        and sum(one > LEAST * mean for one in rises) >= len(rises) - 1
        and median(rises) >= EVEN * mean
        and max(rises) <= LARGEST * total
        and (axis != "time" or rises[-1] > LEAST * mean)
    )
    return [] if is_even else ["uneven"]


def _rises(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """From each of ``PIECES`` equal pieces' median to the next.

    A piece in which nobody looked lies between its neighbours: when memory grew in the meantime is not known.
    """
    width = (xs[-1] - xs[0]) / PIECES
    pieces: list[list[float]] = [[] for _ in range(PIECES)]
    for x, y in zip(xs, ys, strict=True):
        pieces[min(PIECES - 1, int((x - xs[0]) / width))].append(y)
    known = [n for n, piece in enumerate(pieces) if piece]
    levels = [median(pieces[known[0]])]
    for before, n in pairwise(known):
        level, gap = median(pieces[n]), n - before
        levels += [levels[-1] + (level - levels[-1]) / gap * k for k in range(1, gap)] + [level]
    return [b - a for a, b in pairwise(levels)]


def without_steps(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], tuple[tuple[int, float], ...]]:
    """*ys* with at most ``STEPS`` outstanding rises taken out, and (index, height) of these.

    A rise stands out above what is usual for as long a way: where samples are far apart, each rise is large.
    """
    rises = [b - a for a, b in pairwise(ys)]
    if len(rises) <= STEPS:
        return list(ys), ()
    ways = [b - a for a, b in pairwise(xs)]
    rate = median([rise / way for rise, way in zip(rises, ways, strict=True) if way > 0] or [0.0])
    usual = [rate * way for way in ways]
    order = sorted(range(len(rises)), key=lambda i: usual[i] - rises[i])
    rest = rises[order[STEPS]]
    taken = sorted(
        i for i in order[:STEPS] if rises[i] > OUTSTANDING * max(rest, usual[i], 0.0) and _stays(ys, i + 1, rises[i])
    )
    steps = tuple((i + 1, rises[i] - usual[i]) for i in taken)
    level, out = 0.0, []
    heights = dict(steps)
    for index, y in enumerate(ys):
        level += heights.get(index, 0.0)
        out.append(y - level)
    return out, steps


def _stays(ys: Sequence[float], index: int, height: float) -> bool:
    """Whether *ys* keeps the rise of *height* at *index*: what falls back at once is a buffer that was held still."""
    return median(ys[index : index + _BESIDE]) - median(ys[max(0, index - _BESIDE) : index]) > height / 2


def falls_back(ys: Sequence[float]) -> bool:
    """Whether *ys* falls again and again, as it does where an allocator gives back now and then."""
    falls = [a - b for a, b in pairwise(ys)]
    usual = median([abs(one) for one in falls]) if falls else 0.0
    top = max(ys, default=0.0) - min(ys, default=0.0)
    return sum(one > 6 * usual and one > 0.15 * top for one in falls) >= 2


def low_points(ys: Sequence[float]) -> list[int]:
    """Indices of those that nothing behind them is below: what is left when all that can be given back is."""
    kept, lowest = [], math.inf
    for index in range(len(ys) - 1, -1, -1):
        if ys[index] <= lowest:
            kept.append(index)
            lowest = ys[index]
    return kept[::-1]
