"""Samples of a process's memory, for tests of the estimator."""

from __future__ import annotations

from rkvisor.supervisor.memory.estimate import Report, SeriesEstimate
from rkvisor.supervisor.memory.sample import Sample
from rkvisor.supervisor.memory.thinning import Track

KB, MB = 1024, 1024 * 1024
BASE = 50 * MB


def sample(n: int, anon: float = BASE, **more: object) -> Sample:
    """Of request *n*, one a second, twenty tokens each."""
    known: dict[str, object] = {
        "at_s": 1000.0 + n,
        "wall_s": float(n),
        "requests": n,
        "tokens_in": 10 * n,
        "tokens_out": 10 * n,
        "rss_bytes": int(anon),
        "rss_anon_bytes": int(anon),
        "descriptors": 17,
    }
    return Sample(**{**known, **more})  # type: ignore[arg-type]


def leaking(rate: float, count: int = 400, base: float = BASE) -> list[Sample]:
    """*rate* bytes of anonymous memory a request."""
    return [sample(n, base + rate * n) for n in range(count)]


def series(report: Report, name: str = "anon") -> SeriesEstimate:
    return next(one for one in report.series if one.name == name)


def track(values: list[float]) -> Track:
    axis = [float(n) for n in range(len(values))]
    return Track(axis, axis, axis, values)
