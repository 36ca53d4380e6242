"""Whose leak it is: "runtime", "rkvisor" or "unknown", and why one thinks so.  Pure.

A worker's memory has three owners that can be told apart.  What the binding holds for the runtime is counted (the
tracker); Python counts its own blocks; what grows beyond both was taken by the runtime, for nobody else is there.  Of
descriptors, rkvisor's are sockets, pipes and events of its messaging; a worker opens no other kind after its load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rkvisor.supervisor.memory.estimate import Report, SeriesEstimate
from rkvisor.supervisor.memory.history import Look

#: What a block of Python's own allocator has on the average, bytes; it hands out up to 512.
BLOCK_BYTES = 96
#: From this share of a leak on it is whose share it is; below the other it is not.
MOST, LITTLE = 0.5, 0.2
#: Descriptors of rkvisor's own messaging; all other kinds are opened by a runtime.
OWN_KINDS = ("socket", "pipe", "eventfd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """cause: see above.  reasons: sentences.  growth: bytes by class of mapping over the looks compared."""

    cause: str = "unknown"
    reasons: tuple[str, ...] = ()
    growth: Mapping[str, int] = field(default_factory=dict)


def attribute(report: Report, looks: Sequence[Look], *, is_worker: bool = True) -> Attribution:
    """Whose the leak is that *report* tells of; "unknown" without reasons where it tells of none.

    looks: of the same process, oldest first.  is_worker: False for rkvisord, whose own everything is.
    """
    series = _worst(report)
    if series is None:
        return Attribution()
    if not is_worker:
        return Attribution(cause="rkvisor", reasons=("rkvisord runs no runtime: what it holds is rkvisor's own",))
    pair = _compared(looks, series.since_s)
    if pair is None:
        why = "its mappings were not looked at twice since it began to grow: that happens rarely, and while it is idle"
        return Attribution(reasons=(why,))
    first, last = pair
    growth = _growth(first, last)
    if series.name == "descriptors":
        cause, why = _by_descriptors(first, last)
    elif series.name == "anon":
        cause, why = _by_accounts(first, last, _expected(series, first, last), growth)
    else:
        cause, why = "runtime", f"{_told(growth)}: rkvisor maps no memory of this kind into a worker after its load"
    return Attribution(cause=cause, reasons=(why,), growth=growth)


def _worst(report: Report) -> SeriesEstimate | None:
    """The series that leaks, or is suspected to; bytes before descriptors."""
    for verdict in ("leaking", "suspect"):
        found = [one for one in report.series if one.verdict == verdict and one.grown > 0]
        if found:
            return max(found, key=lambda one: one.grown)
    return None


def _compared(looks: Sequence[Look], since_s: float) -> tuple[Look, Look] | None:
    """The looks furthest apart since the growth began that have requests between them, else the last two."""
    if len(looks) < 2:
        return None
    last = looks[-1]
    within = [one for one in looks[:-1] if one.at_s >= since_s and one.requests < last.requests]
    first = within[0] if within else looks[-2]
    return (first, last) if last.at_s > first.at_s else None


def _growth(first: Look, last: Look) -> dict[str, int]:
    """By class, the largest first; of resident pages where both looks have them."""
    before, after = first.mappings.resident_bytes, last.mappings.resident_bytes
    if before is None or after is None:
        before, after = first.mappings.size_bytes, last.mappings.size_bytes
    grown = {kind: size - before.get(kind, 0) for kind, size in after.items() if size > before.get(kind, 0)}
    return dict(sorted(grown.items(), key=lambda one: -one[1]))


def _expected(series: SeriesEstimate, first: Look, last: Look) -> float:
    """What the leak took between the looks, bytes."""
    requests = last.requests - first.requests
    if series.per_request.value > 0 and requests:
        return series.per_request.value * requests
    return series.per_hour.value * (last.at_s - first.at_s) / 3600.0


def _by_accounts(first: Look, last: Look, expected: float, growth: Mapping[str, int]) -> tuple[str, str]:
    if None in (first.buffers_bytes, last.buffers_bytes, first.python_blocks, last.python_blocks) or expected <= 0:
        return "unknown", "the worker has not told of its own accounts often enough"
    buffers = max(0, (last.buffers_bytes or 0) - (first.buffers_bytes or 0))
    blocks = max(0, (last.python_blocks or 0) - (first.python_blocks or 0))
    share = (buffers + blocks * BLOCK_BYTES) / expected
    accounts = (
        f"of about {_bytes(expected)} the buffers that rkvisor holds for the runtime took {_bytes(buffers)}, "
        f"Python {blocks} blocks (about {_bytes(blocks * BLOCK_BYTES)})"
    )
    if share >= MOST:
        return "rkvisor", accounts
    if share > LITTLE:
        return "unknown", f"{accounts}: neither most of it nor next to nothing"
    return "runtime", f"{accounts}; the rest is the runtime's: {_told(growth)}"


def _by_descriptors(first: Look, last: Look) -> tuple[str, str]:
    grown = {
        kind: count - first.descriptors.get(kind, 0)
        for kind, count in last.descriptors.items()
        if count > first.descriptors.get(kind, 0)
    }
    if not grown:
        return "unknown", "no kind of descriptor has grown in number between the looks"
    told = ", ".join(f"{count} more of kind {kind}" for kind, count in sorted(grown.items(), key=lambda one: -one[1]))
    own = sum(count for kind, count in grown.items() if kind in OWN_KINDS)
    share = own / sum(grown.values())
    if share >= MOST:
        return "rkvisor", f"{told}: what rkvisor's messaging opens"
    if share > LITTLE:
        return "unknown", f"{told}: of both"
    return "runtime", f"{told}: rkvisor opens none of this kind in a worker after its load"


def _told(growth: Mapping[str, int]) -> str:
    if not growth:
        return "no class of mappings has grown by itself"
    return ", ".join(f"{kind} +{_bytes(size)}" for kind, size in list(growth.items())[:3])


def _bytes(number: float) -> str:
    for unit, size in (("MB", 1e6), ("KB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"
