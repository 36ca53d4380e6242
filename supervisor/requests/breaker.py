"""The circuit breaker of one model (requirements S2.21–S2.23, S4.16): closed, open, half-open.  Pure.

``threshold`` failures in a row open it; while it is open, requests are refused at once, or go to the fallback.  After
``open_s`` one request may probe: its success closes the breaker, its failure opens it again.  What counts as a failure
is decided by the dispatcher: a load that failed, a request that ended in WORKER_CRASHED, a death without a request;
never a death that is charged to a request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Circuit(Enum):
    """The three states."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """failures: in a row.  opened_s: when it opened last, on the monotonic clock.  is_probing: a probe is under way."""

    threshold: int = 3
    open_s: float = 30.0
    circuit: Circuit = Circuit.CLOSED
    failures: int = 0
    opened_s: float = 0.0
    is_probing: bool = False

    def admit(self, now_s: float) -> tuple[Breaker, bool]:
        """Whether a request may go through now, and the breaker after it did."""
        if self.circuit is Circuit.CLOSED:
            return self, True
        if self.circuit is Circuit.OPEN and now_s - self.opened_s >= self.open_s:
            return replace(self, circuit=Circuit.HALF_OPEN, is_probing=True), True
        if self.circuit is Circuit.HALF_OPEN and not self.is_probing:
            return replace(self, is_probing=True), True
        return self, False

    def retry_after_s(self, now_s: float) -> float:
        """Seconds until the next probe may go through, ≥ 0."""
        if self.circuit is Circuit.OPEN:
            return max(0.0, self.opened_s + self.open_s - now_s)
        return 1.0 if self.circuit is Circuit.HALF_OPEN else 0.0

    def succeeded(self) -> Breaker:
        """A request was answered, or a worker settled."""
        if self.circuit is Circuit.CLOSED and not self.failures:
            return self
        return replace(self, circuit=Circuit.CLOSED, failures=0, is_probing=False)

    def failed(self, now_s: float) -> Breaker:
        """Something that counts went wrong."""
        failures = self.failures + 1
        if self.circuit is Circuit.HALF_OPEN or failures >= self.threshold:
            opened_s = self.opened_s if self.circuit is Circuit.OPEN else now_s
            return replace(self, circuit=Circuit.OPEN, failures=failures, opened_s=opened_s, is_probing=False)
        return replace(self, failures=failures)

    def abandoned(self) -> Breaker:
        """The probe ended without telling anything (it was aborted, or a death was charged to it)."""
        return replace(self, is_probing=False) if self.is_probing else self
