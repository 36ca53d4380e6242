"""Takes out of a series what is known to have made it larger: a LoRA, a prompt cache, a longer context.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

from rkvisor.supervisor.memory.sample import Mark, Sample
from rkvisor.supervisor.memory.slope import median, middle

#: Samples on either side of a step whose median is its level there.
_BESIDE = 3
#: Explained samples that are this near to each other are one step.
_NEAR = 2
#: A step of more samples than this is a time of filling: what comes before its end is no evidence.
_LONG = 12
#: Places that are looked at for what is usual, in so many parts of the life.
_PLACES, _PARTS = 64, 8
#: An explained rise stands out by so many median deviations, and above all but a twentieth of those that nothing
#: explains (what leaks may come in pieces); and by this share of what would have risen anyhow.
_STANDS_OUT, _DOUBT = 4.5, 0.5
#: A rise of so many times what noise does is small.
_SMALL = 3.0
#: So many marks, with fewer samples to each than these, are a habit.
_HABIT, _APART = 16, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The series rose by *height* at *at_s* (monotonic).  kind: of the mark, "kv", or "step" where nobody knows why."""

    at_s: float
    height: float
    kind: str = "step"
    text: str = ""


def rare(samples: Sequence[Sample], marks: Sequence[Mark]) -> Sequence[Mark]:
    """*marks*, or none of them where they are a habit.

    What is done before nearly each request explains nothing: a client that loads its prompt cache each time would hide
    every leak.
    """
    if len(marks) < _HABIT:
        return marks
    first_s = min(mark.at_s for mark in marks)
    since = sum(one.at_s >= first_s for one in samples)
    return marks if len(marks) * _APART <= since else ()


def explain(
    samples: Sequence[Sample], marks: Sequence[Mark], values: Sequence[float], *, is_generous: bool = False
) -> tuple[list[float], tuple[Step, ...], int]:
    """*values* without the rises that are explained, these, and the index from which on nothing was filling.

    What rises anyhow, mark or no mark, is not explained by it; nor is what does not stand out.  is_generous: at a mark
    both are: small ones, and what is too little of each of many, add up to what looks like growth.
    """
    runs = _runs(_reasons(samples, marks))
    usual = _usual(samples, values, runs)
    lowest = _lowest_from(values)
    out = list(values)
    steps: list[Step] = []
    begin = previous = 0
    level = 0.0
    for first, last, mark in runs:
        before = median(values[max(0, first - _BESIDE) : first])
        across = _across(samples, values, first, last)
        is_granted = is_generous and mark.kind != "kv"
        anyhow = 0.0 if is_granted else usual.of(across)
        least = 0.0 if is_granted else usual.spread + _DOUBT * anyhow
        is_long = last - first > _LONG
        height = across.rise - anyhow
        if height <= least:
            continue
        is_small = is_granted and height < _SMALL * usual.spread  # noise alone falls as far
        if not is_small and lowest[last] - before < height / 2:  # it was given back
            continue
        for index in range(previous, first):
            out[index] -= level
        for index in range(first, last):
            out[index] = before - level
        level += height
        previous = last
        begin = last if is_long else begin
        steps.append(Step(at_s=samples[last].at_s, height=height, kind=mark.kind, text=mark.text))
    for index in range(previous, len(out)):
        out[index] -= level
    return out, tuple(steps), begin


def _lowest_from(values: Sequence[float]) -> list[float]:
    """Of each value and all behind it the lowest."""
    return list(accumulate(reversed(values), min))[::-1]


class _Across(NamedTuple):
    """What passed from the samples before a place to those behind it: of the series, requests and seconds."""

    rise: float
    requests: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Usual:
    """What rises where nothing explains it, per request and per second, and what a place differs from that by."""

    per_request: float = 0.0
    per_second: float = 0.0
    spread: float = 0.0

    def of(self, across: _Across) -> float:
        """As much would have risen anyhow: samples are far apart where they are old, so that it may be much."""
        return max(0.0, self.per_request * across.requests, self.per_second * across.seconds)


def _across(samples: Sequence[Sample], values: Sequence[float], first: int, last: int) -> _Across:
    """From the ``_BESIDE`` samples before *first* to those from *last* on."""
    before, behind = slice(max(0, first - _BESIDE), first), slice(last, last + _BESIDE)
    a, b = samples[before], samples[behind]
    return _Across(
        median(values[behind]) - median(values[before]),
        middle([float(one.requests) for one in b]) - middle([float(one.requests) for one in a]),
        middle([one.at_s for one in b]) - middle([one.at_s for one in a]),
    )


def _usual(samples: Sequence[Sample], values: Sequence[float], runs: Sequence[tuple[int, int, Mark]]) -> _Usual:
    """What is usual where nothing explains a rise: what three quarters of the parts of the life reach or exceed."""
    if not runs:
        return _Usual()
    explained = {near for first, last, _ in runs for near in range(first - _BESIDE + 1, last + _BESIDE + 1)}
    stride = max(1, len(values) // _PLACES)
    places = [
        _across(samples, values, index, index)
        for index in range(_BESIDE, len(values) - _BESIDE, stride)
        if index not in explained
    ]
    if not places:
        return _Usual()
    length = math.ceil(len(places) / _PARTS)
    parts = [places[n : n + length] for n in range(0, len(places), length)]
    sums = [_Across(*(sum(column) for column in zip(*part, strict=True))) for part in parts]
    usual = _Usual(
        _mostly([one.rise / one.requests if one.requests else 0.0 for one in sums]),
        _mostly([one.rise / one.seconds if one.seconds else 0.0 for one in sums]),
    )
    off = sorted(abs(one.rise - usual.of(one)) for one in places)
    return replace(usual, spread=max(_STANDS_OUT * middle(off), off[len(off) - 1 - len(off) // 20]))


def _mostly(rates: Sequence[float]) -> float:
    """What three quarters of *rates* reach: the noise of some parts must not leave its mark on every step."""
    return sorted(rates)[len(rates) // 4]


def _reasons(samples: Sequence[Sample], marks: Sequence[Mark]) -> dict[int, Mark]:
    """The samples that differ from the one before for a reason; of a mark's two, as memory follows a little later."""
    found: dict[int, Mark] = {}
    for index in range(1, len(samples)):
        if samples[index].context_tokens > samples[index - 1].context_tokens:
            found[index] = Mark(at_s=samples[index].at_s, kind="kv")
    pending = sorted(marks, key=lambda mark: mark.at_s)
    index = 1
    for mark in pending:
        while index < len(samples) and samples[index].at_s < mark.at_s:
            index += 1
        for one in (index, index + 1):
            if one < len(samples):
                found[one] = mark
    return found


def _runs(reasons: dict[int, Mark]) -> list[tuple[int, int, Mark]]:
    """Neighbouring ones together: (first, last, one reason)."""
    runs: list[tuple[int, int, Mark]] = []
    for index in sorted(reasons):
        if runs and index - runs[-1][1] <= _NEAR:
            runs[-1] = (runs[-1][0], index, runs[-1][2])
        else:
            runs.append((index, index, reasons[index]))
    return runs
