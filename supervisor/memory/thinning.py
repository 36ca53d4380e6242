"""Many samples to few points, so that the estimate costs the same after a day as after an hour.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rkvisor.supervisor.memory.slope import median, middle

#: Samples that are kept as they are at the young end; each older stretch of as many points stands for twice as many.
YOUNG = 192
#: A spike is this many times as far from the median around it as samples usually are.
SPIKE = 6.0
#: Points at most that one window is judged by, and at least, where there are so many.
POINTS, FEWEST = 48, 20


@dataclass(frozen=True, slots=True)
class Track:
    """One series over its three covariates: requests, tokens and time in seconds; all of the same length."""

    requests: Sequence[float]
    tokens: Sequence[float]
    time: Sequence[float]
    values: Sequence[float]

    def along(self, axis: str) -> Sequence[float]:
        """The covariate *axis*: "requests", "tokens" or "time"."""
        return {"requests": self.requests, "tokens": self.tokens, "time": self.time}[axis]

    def part(self, begin: int, end: int | None = None) -> Track:
        """The points from *begin* on, before *end*."""
        s = slice(begin, end)
        return Track(self.requests[s], self.tokens[s], self.time[s], self.values[s])

    def __len__(self) -> int:
        return len(self.values)


def without_spikes(values: Sequence[float]) -> list[float]:
    """*values* with what stands out from the median of the five around it replaced by that median (Hampel's filter).

    A buffer that was held in one or two samples is gone.  A step stays, and so does noise: smoothed, it would make a
    step look smaller than it is.
    """
    n = len(values)
    widths = [min(2, index, n - 1 - index) for index in range(n)]
    medians = [sorted(values[i - w : i + w + 1])[w] for i, w in enumerate(widths)]
    off = [abs(a - b) for a, b in zip(values, medians, strict=True) if a != b]  # many repeat what was seen before
    usual = median(off) if off else 0.0
    return [b if abs(a - b) > SPIKE * usual else a for a, b in zip(values, medians, strict=True)]


def _merged(track: Track, groups: Sequence[tuple[int, int]]) -> Track:
    """One point for each group [begin, end): the medians of its coordinates.  Covariates are in order: none falls."""
    requests, tokens, time = (
        [column[n] if m - n == 1 else middle(column[n:m]) for n, m in groups]
        for column in (track.requests, track.tokens, track.time)
    )
    values = [track.values[n] if m - n == 1 else median(track.values[n:m]) for n, m in groups]
    return Track(requests, tokens, time, values)


def by_age(track: Track) -> Track:
    """The youngest ``YOUNG`` points as they are, older ones merged two, four, eight … at a time."""
    groups: list[tuple[int, int]] = []
    end, size = len(track), 1
    while end > 0:
        for _ in range(YOUNG):
            if end <= 0:
                break
            groups.append((max(0, end - size), end))
            end -= size
        size *= 2
    groups.reverse()
    return _merged(track, groups)


def first_from(xs: Sequence[float], least: float) -> int:
    """The first index whose x is at least *least*."""
    low, high = 0, len(xs) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if xs[middle] < least else (low, middle)
    return low


def by_axis(track: Track, axis: str, points: int = POINTS) -> Track:
    """At most *points* points, each the median of what lies in one of as many equal pieces of *axis*.

    Of few samples fewer, so that a median is one of some, and a buffer that was held still shows in none.
    """
    xs = track.along(axis)
    points = min(points, max(FEWEST, len(xs) // 3))
    if len(xs) == 0:
        return track
    width = (xs[-1] - xs[0]) / points
    edges = [first_from(xs, xs[0] + width * piece) for piece in range(1, points)] if width else []
    begins = sorted({0, *edges})
    return _merged(track, list(zip(begins, [*begins[1:], len(xs)], strict=True)))
