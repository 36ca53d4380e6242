"""Which models are degraded (requirements S2.27, S2.28): by their own health, or by that of one they depend on.  Pure.

The health of a model is a score from 0 to 1: the share of its workers that run, times the share of what they did lately
that was an answer and not a death or a hang.  Below its threshold it is degraded; it is restored above 1.2 times the
threshold, so that it does not flutter.  Who depends on a degraded model is degraded too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Restored above this many times the threshold (S2.27).
RESTORE = 1.2
#: A threshold above it could never be passed again by RESTORE.
MAX_THRESHOLD = 1.0 / RESTORE
#: How long an answer or a death counts, seconds, and how finely their age is known.
WINDOW_S, BUCKET_S = 60.0, 5.0
#: Fewer outcomes than these within the window say nothing.
MIN_OUTCOMES = 5


@dataclass(slots=True)
class _Bucket:
    begin_s: float
    answered: int = 0
    failed: int = 0


class Outcomes:
    """Answers and failures of the last ``WINDOW_S`` seconds, in bounded memory."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()

    def _now(self, now_s: float) -> _Bucket:
        if not self._buckets or now_s >= self._buckets[-1].begin_s + BUCKET_S:
            self._forget(now_s)
            self._buckets.append(_Bucket(now_s))
        return self._buckets[-1]

    def _forget(self, now_s: float) -> None:
        while self._buckets and now_s - self._buckets[0].begin_s >= WINDOW_S + BUCKET_S:
            self._buckets.popleft()

    def answered(self, now_s: float) -> None:
        """A request was answered by a worker, be it with an error of its runtime."""
        self._now(now_s).answered += 1

    def failed(self, now_s: float) -> None:
        """A worker died or hung."""
        self._now(now_s).failed += 1

    def share(self, now_s: float) -> float:
        """The share of answers, 1.0 where there are too few outcomes to tell."""
        self._forget(now_s)
        answered = sum(bucket.answered for bucket in self._buckets)
        failed = sum(bucket.failed for bucket in self._buckets)
        return answered / (answered + failed) if answered + failed >= MIN_OUTCOMES else 1.0


def score(up: int, workers: int, share: float) -> float:
    """The health of a model of which *up* of *workers* run.  *share*: of ``Outcomes``."""
    return up / workers * share


def below(threshold: float, health: float, *, was_below: bool) -> bool:
    """Whether a model of that *health* counts as below its *threshold*; 0 is never below."""
    return health <= threshold * RESTORE if was_below and threshold > 0 else health < threshold


def spread(below: Mapping[str, bool], depends_on: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Degraded models, each with the model whose health it is degraded by: itself, or one that it depends on.

    depends_on: without circles; the reading of the configuration refuses them.
    """
    found: dict[str, str] = {}

    def cause(name: str) -> str | None:
        if name in found:
            return found[name]
        why = name if below[name] else next((c for other in depends_on[name] if (c := cause(other))), None)
        if why is not None:
            found[name] = why
        return why

    for name in below:
        cause(name)
    return found
