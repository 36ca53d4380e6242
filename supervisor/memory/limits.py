"""What a process may hold before it ends badly, and when it will at the rate that was estimated.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rkvisor.supervisor.memory.sample import Sample


@dataclass(frozen=True, slots=True)
class Limit:
    """kind: what happens at *bytes*.

    "max_rss": it is recycled once it holds more, resident or swapped out.
    "memory_limit": the kernel gives it no more (RLIMIT_DATA).  Mapped files and shared memory do not count; of memory
    that was asked for and never touched nothing is known here, so it may come sooner.
    "machine": what it holds and all that is free are taken, if nobody else takes any.
    """

    kind: Literal["max_rss", "memory_limit", "machine"]
    bytes: int


def soonest(last: Sample, rates: dict[str, float], limits: Iterable[Limit]) -> tuple[Limit, float] | None:
    """The limit that is reached first, and in how many seconds; None where none ever is.

    last: the newest sample.  rates: bytes a second by series, of those that grow.
    """
    found = []
    for limit in limits:
        is_data = limit.kind == "memory_limit"
        rate = sum(max(0.0, rates.get(name, 0.0)) for name in (("anon",) if is_data else ("anon", "file")))
        held = (last.rss_anon_bytes if is_data else last.rss_bytes) + last.swap_bytes
        if rate > 0:
            found.append((max(0.0, (limit.bytes - held) / rate), limit))
    if not found:
        return None
    in_s, limit = min(found, key=lambda one: one[0])
    return limit, in_s


def configured(limits: Sequence[Limit]) -> Limit | None:
    """The smallest one that somebody has set, None where nobody has."""
    return min((one for one in limits if one.kind != "machine"), key=lambda one: one.bytes, default=None)
