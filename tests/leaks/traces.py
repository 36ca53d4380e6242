"""Labelled traces of a process's memory, made from seeds: the corpus that the estimator is tuned and judged by.

A trace is the truth (what leaks, how fast, from when) and the samples that rkvisord would have taken.  The shapes are
those that were seen: a worker of the simulator grows by four pages in 600 requests, and by whole pages where it leaks;
arenas and pools add 64 kB to 1 MB at a time; transparent huge pages 2 MB; a KV cache's pages become resident when a
longer context comes than any before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from rkvisor.supervisor.memory.sample import Mark, Sample

PAGE = 4096
KB, MB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Leak:
    """series: of ``SERIES``.  rate: bytes (or descriptors) per unit of axis ("requests", "tokens", "time": a second).

    onset: the request with which it begins.
    """

    series: str
    rate: float
    axis: str = "requests"
    onset: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """kind: of the corpus.  leak: the truth, None where it is clean."""

    kind: str
    seed: str
    leak: Leak | None
    samples: tuple[Sample, ...]
    marks: tuple[Mark, ...]

    @property
    def bytes_per_request(self) -> float:
        """Of the leak, over what was served since its onset; 0 for none."""
        if self.leak is None:
            return 0.0
        seen = [one for one in self.samples if one.requests >= self.leak.onset]
        passed = {
            "requests": seen[-1].requests - seen[0].requests,
            "tokens": seen[-1].tokens_in + seen[-1].tokens_out - seen[0].tokens_in - seen[0].tokens_out,
            "time": seen[-1].at_s - seen[0].at_s,
        }
        return self.leak.rate * passed[self.leak.axis] / max(1, passed["requests"])


@dataclass(slots=True)
class Life:
    """One request after another: when it ended, tokens so far, the longest context so far.

    gap_s: from one to the next in the mean, but for the pauses.
    """

    at_s: list[float]
    tokens: list[int]
    longest: list[int]
    gap_s: float


def log_uniform(chance: random.Random, low: float, high: float) -> float:
    """Each order of magnitude as likely as any other."""
    return math.exp(chance.uniform(math.log(low), math.log(high)))


def life(chance: random.Random, requests: int) -> Life:
    gap_s = log_uniform(chance, 0.05, 20)
    usual, is_session = log_uniform(chance, 30, 600), chance.random() < 0.3
    window = chance.choice((2048, 4096, 8192))
    at_s, tokens, longest = [0.0], [0], [0]
    context = 0
    for _ in range(requests):
        pause = gap_s * 60 if chance.random() < 0.01 else 0.0
        at_s.append(at_s[-1] + chance.expovariate(1 / gap_s) + pause + 0.01)
        used = max(2, min(window, int(chance.lognormvariate(math.log(usual), 0.6))))
        tokens.append(tokens[-1] + used)
        context = context + used if is_session and context + used <= window else used
        longest.append(max(longest[-1], context))
    return Life(at_s, tokens, longest, gap_s)


Part = Callable[..., list[float]]


def noise(chance: random.Random, life: Life, most: float = math.inf) -> list[float]:
    """White noise, and noise with a memory, both at most *most*; at times a buffer that is still held."""
    white, slow = min(most, log_uniform(chance, 4 * KB, 192 * KB)), min(most, log_uniform(chance, 4 * KB, 256 * KB))
    bursts, height = chance.choice((0, 0, 0.01, 0.05)), log_uniform(chance, 64 * KB, 32 * MB)
    keeps, state, out = 1 - 1 / chance.uniform(2, 30), 0.0, []
    for _ in life.at_s:
        state = keeps * state + chance.gauss(0, slow * math.sqrt(1 - keeps * keeps))
        burst = height * chance.random() if chance.random() < bursts else 0.0
        out.append(state + chance.gauss(0, white) + burst)
    return out


def still(chance: random.Random, life: Life) -> list[float]:
    """What a worker of the simulator does: nothing, but for some pages."""
    return [min(4, index // 100) * float(PAGE) for index in range(len(life.at_s))]


def warm_up(chance: random.Random, life: Life) -> list[float]:
    """Fast growth that flattens within some dozens of requests."""
    height, pace = log_uniform(chance, MB, 200 * MB), chance.uniform(3, 15)
    return [height * (1 - math.exp(-n / pace)) for n in range(len(life.at_s))]


def records(chance: random.Random, life: Life) -> list[float]:
    """Pools of forty sizes, each as large as the most that was ever needed of it: grows as a logarithm does."""
    unit = log_uniform(chance, 128, 1.5 * KB)
    most, out = [0.0] * 40, []
    for _ in life.at_s:
        needed = chance.lognormvariate(1, 0.5)
        most = [max(one, needed * chance.lognormvariate(0, 0.6)) for one in most]
        out.append(unit * sum(most))
    return out


def steps(chance: random.Random, life: Life) -> list[float]:
    """One to six buffers that were made larger for good."""
    n = len(life.at_s)
    found = [(chance.randrange(1, n), log_uniform(chance, 64 * KB, 64 * MB)) for _ in range(chance.randint(1, 6))]
    return [sum(height for begin, height in found if begin <= index) for index in range(n)]


def step(chance: random.Random, life: Life) -> list[float]:
    """One buffer that was made larger."""
    begin, height = chance.randrange(1, len(life.at_s)), log_uniform(chance, 64 * KB, 64 * MB)
    return [height * (begin <= index) for index in range(len(life.at_s))]


def teeth(chance: random.Random, life: Life, most: float = math.inf) -> list[float]:
    """An allocator that keeps what is freed, at most *most*, and gives it back now and then."""
    period, height = chance.uniform(5, 60), min(most, log_uniform(chance, 128 * KB, 16 * MB))
    out, begin, length = [], 0.0, period
    for index in range(len(life.at_s)):
        if index >= begin + length:
            begin, length = float(index), period * chance.uniform(0.7, 1.3)
        out.append(height * (index - begin) / period)
    return out


def kv_cache(chance: random.Random, life: Life) -> list[float]:
    """Pages of the longest context so far."""
    each = log_uniform(chance, 4 * KB, 112 * KB)
    return [each * longest for longest in life.longest]


def swing(chance: random.Random, life: Life) -> list[float]:
    """Up and down with the load."""
    period, height = chance.uniform(20, 150), log_uniform(chance, 64 * KB, 8 * MB)
    begin = chance.uniform(0, math.tau)
    return [height * (1 + math.sin(begin + math.tau * index / period)) for index in range(len(life.at_s))]


def page_cache(chance: random.Random, life: Life) -> list[float]:
    """Mapped files whose pages come when they are needed, and go when others need the memory."""
    full, state, out = log_uniform(chance, MB, 64 * MB), 0.0, []
    pace, loss = chance.uniform(5, 40), chance.choice((0, 0.002, 0.01))
    for _ in life.at_s:
        state += (full - state) / pace
        if chance.random() < loss:
            state *= chance.random()
        out.append(state)
    return out


def leaked(chance: random.Random, life: Life, leak: Leak) -> list[float]:
    """What *leak* holds after each request, not every request alike; it arrives in pieces, see ``in_pieces``."""
    along = {"requests": range(len(life.at_s)), "tokens": life.tokens, "time": life.at_s}[leak.axis]
    begin, held, out, previous = leak.onset, 0.0, [], None
    wild = chance.choice((0.0, 0.0, 0.3))
    for index, x in enumerate(along):
        if previous is not None and index > begin:
            held += leak.rate * (x - previous) * (chance.uniform(1 - wild, 1 + wild) if wild else 1.0)
        previous = x
        out.append(held)
    return out


def in_pieces(held: float, grain: float) -> float:
    """As much of *held* as has arrived, in pieces of *grain* (an arena, a huge page; 0 for none)."""
    return math.floor(held / grain) * grain if grain else held
