"""When rkvisord looks at a process, and what it sees: after requests and on a timer, at rest or not.

The policy is that of ``supervisor/memory/pace.py`` (after requests, as a token bucket allows) and ``sampler.py``
(every few seconds, whatever happens; a worker that runs a request is taken as it was when it rested last).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from leaks.traces import KB, MB, PAGE, Life, Trace, in_pieces, log_uniform
from rkvisor.supervisor.config.sections import MemorySection
from rkvisor.supervisor.memory.pace import Pace
from rkvisor.supervisor.memory.sample import Sample

#: The rates that rkvisord has by default, seconds.
INTERVAL_S, REQUEST_INTERVAL_S = MemorySection().interval_s, MemorySection().request_interval_s
#: Of all samples, so many see a request's own buffers: of a process that does not tell how it was at rest.
BUSY = 0.1


@dataclass(frozen=True, slots=True)
class Held:
    """What a leak in *series* holds after each request, in pieces of *grain*.  goes_on: in pauses too."""

    series: str
    after: list[float]
    grain: float
    goes_on: bool

    def at(self, life: Life, index: int, at_s: float) -> float:
        """What it holds at *at_s*, when *index* requests were done."""
        held = self.after[index]
        if self.goes_on and index + 1 < len(life.at_s):
            passed = (at_s - life.at_s[index]) / (life.at_s[index + 1] - life.at_s[index])
            held += passed * (self.after[index + 1] - held)
        return in_pieces(held, self.grain)


@dataclass(frozen=True, slots=True)
class Moment:
    """A look at *at_s*, when *index* requests were done.  rested_s: since when it shows nothing new: while a request
    runs, memory is told as it was when the one before ended; else *at_s*."""

    at_s: float
    index: int
    rested_s: float


def moments(chance: random.Random, life: Life) -> Iterator[Moment]:
    """Every look, in order."""
    pace = Pace(REQUEST_INTERVAL_S)
    tick_s = chance.uniform(0, INTERVAL_S)
    runs_s = life.gap_s * chance.uniform(0.05, 0.95)
    yield Moment(0.0, 0, 0.0)
    for index in range(1, len(life.at_s)):
        before_s, now_s = life.at_s[index - 1], life.at_s[index]
        while tick_s < now_s:
            is_running = tick_s > now_s - runs_s
            yield Moment(tick_s, index - 1, before_s if is_running else tick_s)
            tick_s += INTERVAL_S
        if pace.admit(0, now_s):
            yield Moment(now_s, index, now_s)


def _pages(value: float) -> int:
    return max(0, round(value / PAGE)) * PAGE


def looked_at(
    chance: random.Random,
    life: Life,
    columns: dict[str, list[float]],
    label: Trace,
    held: Held | None = None,
    *,
    is_swapped: bool = False,
) -> Trace:
    """*label* with its samples.  columns: of some series, what is held after each request, but for the leak."""
    base = {"anon": log_uniform(chance, 10 * MB, 800 * MB), "file": log_uniform(chance, 8 * MB, 64 * MB)}
    n = len(life.at_s)
    share = chance.uniform(0.3, 0.95) if is_swapped else 0.0
    model = _pages(log_uniform(chance, MB, 800 * MB))
    found = []
    for one in moments(chance, life):
        index = one.index

        def value(series: str, at_s: float, index: int = index) -> float:
            own = columns[series][index] if series in columns else 0.0
            return own + (held.at(life, index, at_s) if held is not None and held.series == series else 0.0)

        is_idle = chance.random() > BUSY
        busy = 0.0 if is_idle else log_uniform(chance, 64 * KB, 32 * MB)
        anon = base["anon"] + value("anon", one.rested_s) + busy
        swap = _pages(anon * share * min(1.0, 2 * index / n))
        file = value("file", one.rested_s) + base["file"]
        resident = _pages(model * min(1.0, 0.5 + index / n) * chance.uniform(0.9, 1))
        rss_anon = max(0, _pages(anon) - swap)
        has_dmabuf = "dmabuf" in columns
        found.append(
            Sample(
                at_s=one.at_s,
                wall_s=one.at_s,
                requests=index,
                tokens_in=life.tokens[index] // 2,
                tokens_out=life.tokens[index] - life.tokens[index] // 2,
                is_idle=is_idle,
                rss_bytes=rss_anon + _pages(file) + resident,
                rss_anon_bytes=rss_anon,
                rss_file_bytes=_pages(file) + resident,
                swap_bytes=swap,
                dmabuf_bytes=_pages(value("dmabuf", one.at_s)) if has_dmabuf else None,
                descriptors=17 + int(value("descriptors", one.at_s)),
                model_file_bytes=resident,
                context_tokens=life.longest[index],
            )
        )
    return Trace(label.kind, label.seed, label.leak, tuple(found), label.marks)
