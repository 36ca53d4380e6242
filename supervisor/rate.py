"""How often the same thing is told: the first few times, then once a while with the number of those kept back (S2.34).

Pure; the clock is passed in.  Keyed by what happened and to whom, such as ``("SIGSEGV", "demo:0")``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


def untold(suppressed: int) -> str:
    """What is put behind a line before which so many like it were kept back."""
    return f" [{suppressed} more like this were not told of]" if suppressed else ""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float
    suppressed: int = 0


class Limiter:
    """A token bucket for each key: *burst* at once, then one every *every_s* seconds.

    max_keys: the keys told of longest ago are forgotten beyond it, so that memory is bounded.
    """

    def __init__(self, burst: int = 5, every_s: float = 60.0, max_keys: int = 1000):
        self._burst = burst
        self._every_s = every_s
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, key: Hashable, now_s: float) -> int | None:
        """How many of *key* were kept back since the last one that was admitted; None: keep this one back too."""
        bucket = self._buckets.pop(key, None) or _Bucket(float(self._burst), now_s)
        self._buckets[key] = bucket
        while len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        passed = max(0.0, now_s - bucket.filled_s) / self._every_s if self._every_s else float(self._burst)
        bucket.tokens = min(float(self._burst), bucket.tokens + passed)
        bucket.filled_s = now_s
        if bucket.tokens < 1.0:
            bucket.suppressed += 1
            return None
        bucket.tokens -= 1.0
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return suppressed
