"""The corpus: which traces there are, and how one is put together from its seed.

``trace("held-out-4", "per token", 17)`` is the same on every machine.  Parts share no seed: see ``PARTS``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from leaks import traces
from leaks.looking import Held, looked_at
from leaks.traces import KB, MB, PAGE, Leak, Life, Part, Trace, log_uniform
from rkvisor.supervisor.memory.sample import Mark

#: What a part's seeds begin with.  A part that was judged, and that something was changed after, is held out no more.
PARTS = {
    "tuning": "tuning",
    "spent-1": "held-out",
    "spent-2": "held-out-2",
    "spent-3": "held-out-3",
    "spent-4": "held-out-4",
    "held-out": "held-out-5",
}
#: Requests that a leak may take to be found.
WITHIN = 500
CLEAN: dict[str, tuple[Part, ...]] = {
    "still": (traces.still,),
    "noise": (traces.noise,),
    "warm-up": (traces.noise, traces.warm_up),
    "pools that fill": (traces.noise, traces.records),
    "steps": (traces.noise, traces.steps),
    "saw-tooth": (traces.noise, traces.teeth),
    "KV growth": (traces.noise, traces.kv_cache),
    "swing": (traces.noise, traces.swing),
    "page cache": (traces.noise, traces.page_cache),
    "LoRA, prompt cache": (traces.noise,),
    "swapped out": (traces.noise, traces.warm_up),
    "all together": (traces.noise, traces.warm_up, traces.records, traces.steps, traces.teeth, traces.kv_cache),
}
#: Kind: (series, axis, least and most rate per unit of the axis, whether it begins late).
LEAKS: dict[str, tuple[str, str, float, float, bool]] = {
    "1 to 4 KB a request": ("anon", "requests", 1 * KB, 4 * KB, False),
    "4 to 64 KB a request": ("anon", "requests", 4 * KB, 64 * KB, False),
    "64 KB to 1 MB a request": ("anon", "requests", 64 * KB, 1 * MB, False),
    "begins late": ("anon", "requests", 4 * KB, 1 * MB, True),
    "per token": ("anon", "tokens", 32.0, 4 * KB, False),
    "per hour": ("anon", "time", 0.0, 0.0, False),  # the rate depends on the pace of the requests
    "swapped out while leaking": ("anon", "requests", 4 * KB, 1 * MB, False),
    "shared memory": ("file", "requests", 4 * KB, 1 * MB, False),
    "dma-buf": ("dmabuf", "requests", 4 * KB, 1 * MB, False),
    "descriptors": ("descriptors", "requests", 0.1, 2.0, False),
}
#: What else may go on where memory leaks.
_BESIDE: tuple[tuple[Part, ...], ...] = (
    (),
    (traces.warm_up,),
    (traces.records,),
    (traces.teeth,),
    (traces.kv_cache,),
    (traces.step,),
    (traces.warm_up, traces.kv_cache),
)


def trace(part: str, kind: str, number: int) -> Trace:
    """One trace.  part: one of the values of ``PARTS``.  kind: of ``CLEAN`` or ``LEAKS``."""
    seed = f"{part}/{kind}/{number}"
    chance = random.Random(seed)
    return _clean(kind, seed, chance) if kind in CLEAN else _leaking(kind, seed, chance)


def _clean(kind: str, seed: str, chance: random.Random) -> Trace:
    life = traces.life(chance, chance.randint(600, 1500))
    parts = CLEAN[kind]
    if kind == "all together":
        parts = tuple(chance.sample(parts, chance.randint(2, len(parts))))
    moving = _sum([part(chance, life) for part in parts])
    marks: list[Mark] = []
    if kind == "LoRA, prompt cache":
        moving, marks = _marked(chance, life, moving)
    file = kind == "page cache"
    columns = {"file" if file else "anon": moving, "anon" if file else "file": traces.still(chance, life)}
    label = Trace(kind, seed, None, (), tuple(marks))
    return looked_at(chance, life, columns, label, is_swapped=kind == "swapped out")


def _leaking(kind: str, seed: str, chance: random.Random) -> Trace:
    series, axis, least, most, is_late = LEAKS[kind]
    onset = chance.randint(200, 1500) if is_late else 0
    life = traces.life(chance, onset + WITHIN)
    each = {"requests": 1.0, "tokens": life.tokens[-1] / len(life.tokens), "time": life.at_s[-1] / len(life.at_s)}
    if kind == "per hour":
        least, most = 4 * KB / each["time"], 256 * KB / each["time"]
    rate = log_uniform(chance, max(least, 4 * KB / each["tokens"]) if axis == "tokens" else least, most)
    leak = Leak(series, rate, axis, onset)
    if series == "descriptors":
        quiet = [float(chance.choice((0, 0, 0, 1, 2))) for _ in life.at_s]
        held = Held(series, traces.leaked(chance, life, leak), 1.0, leak.axis == "time")
        columns = {"descriptors": quiet, "anon": traces.noise(chance, life)}
        return looked_at(chance, life, columns, Trace(kind, seed, leak, (), ()), held)
    lost = rate * each[axis] * WITHIN
    grains = [one for one in (0, PAGE, 64 * KB, 132 * KB, 256 * KB, 2 * MB) if one <= lost / 16]
    grain = chance.choice(grains)
    held = Held(series, traces.leaked(chance, life, leak), grain, axis == "time")
    beside = [traces.noise(chance, life, most=lost / 32), *(p(chance, life) for p in _beside(chance, series, lost))]
    columns = {"anon": traces.still(chance, life), "file": traces.still(chance, life)}
    columns |= {series: _sum(beside)}
    is_swapped = kind == "swapped out while leaking"
    return looked_at(chance, life, columns, Trace(kind, seed, leak, (), ()), held, is_swapped=is_swapped)


def _beside(chance: random.Random, series: str, lost: float) -> list[Part]:
    """Teeth no higher than a quarter of what leaks in 500 requests: larger ones hide it for longer."""
    if series != "anon":
        return []
    small_teeth: Part = lambda c, life: traces.teeth(c, life, most=lost / 4)  # noqa: E731
    return [small_teeth if part is traces.teeth else part for part in chance.choice(_BESIDE)]


def _sum(columns: Sequence[Sequence[float]]) -> list[float]:
    return [sum(row) for row in zip(*columns, strict=True)]


def _marked(chance: random.Random, life: Life, moving: list[float]) -> tuple[list[float], list[Mark]]:
    """Loads of LoRAs and prompt caches, each with its mark."""
    marks: list[Mark] = []
    for _ in range(chance.randint(1, 20)):
        index, height = chance.randrange(1, len(moving)), log_uniform(chance, 256 * KB, 64 * MB)
        marks.append(Mark(at_s=life.at_s[index] - 0.005, kind=chance.choice(("lora", "prompt_cache"))))
        moving = [one + height * (n >= index) for n, one in enumerate(moving)]
    return moving, marks


def size(kind: str, clean: int, leaking: int) -> int:
    """Traces of *kind* where there are *clean* and *leaking* in all."""
    among, total = (CLEAN, clean) if kind in CLEAN else (LEAKS, leaking)
    return math.ceil(total / len(among))
