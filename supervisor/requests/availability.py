"""Whether a model takes a request now, and the refusals of one that does not."""

from __future__ import annotations

from collections.abc import Callable

from rkvisor.protocol.errors import CircuitOpen, Draining, ModelUnavailable, QueueFull, SupervisorError
from rkvisor.supervisor.requests.endings import RETRY_AFTER_MS
from rkvisor.supervisor.requests.fairqueue import FairQueue
from rkvisor.supervisor.requests.jobs import Job
from rkvisor.supervisor.requests.recovery import Recovery
from rkvisor.supervisor.workers.lifecycle import Phase
from rkvisor.supervisor.workers.slot import Slot

#: Told to clients of a model that no worker serves: an operator, or a backoff, must act first.
UNAVAILABLE_RETRY_MS = 5000


class Availability:
    """name: of the model.  degraded_by: whose bad health keeps requests out, "" for nobody's.  now_s: monotonic."""

    def __init__(self, name: str, queue: FairQueue[Job], recovery: Recovery, now_s: Callable[[], float]):
        self._name = name
        self._queue = queue
        self._recovery = recovery
        self._now_s = now_s
        self.slots: list[Slot] = []

    def check(self, job: Job, degraded_by: str) -> None:
        """Raise what keeps *job* from being taken in: Draining, ModelUnavailable, QueueFull, CircuitOpen."""
        self.check_workers()
        if degraded_by:
            text = f"cannot run model {self._name!r}: it is degraded by the health of {degraded_by!r}"
            raise ModelUnavailable(text, retry_after_ms=UNAVAILABLE_RETRY_MS, component=self._name)
        if self._queue.is_full:
            text = f"cannot queue another request for model {self._name!r}: {self._queue.capacity} wait already"
            raise QueueFull(text, retry_after_ms=RETRY_AFTER_MS, component=self._name)
        if not self._recovery.admit(job):
            breaker = self._recovery.breaker
            wait_ms = int(breaker.retry_after_s(self._now_s()) * 1000) + 1
            text = f"cannot run model {self._name!r}: it failed {breaker.failures} times in a row, its circuit is open"
            raise CircuitOpen(text, retry_after_ms=wait_ms, component=self._name)

    def check_workers(self) -> None:
        """Raise Draining or ModelUnavailable where no worker serves, nor will."""
        for slot in self.slots:
            if slot.state.serves_again:
                return
        if any(slot.phase is Phase.STOPPING for slot in self.slots):
            text = f"cannot take a request for model {self._name!r}: its workers are being stopped"
            raise Draining(text, retry_after_ms=UNAVAILABLE_RETRY_MS, component=self._name)
        why = "; ".join(
            f"{s.name} is {s.phase.name}{': ' + s.spawn_error if s.spawn_error else ''}" for s in self.slots
        )
        text = f"cannot run model {self._name!r}: no worker of it is up ({why})"
        raise ModelUnavailable(text, retry_after_ms=UNAVAILABLE_RETRY_MS, component=self._name)

    def refusal(self) -> SupervisorError:
        """What keeps requests out now; a general one where nothing does."""
        try:
            self.check_workers()
        except SupervisorError as error:
            return error
        return ModelUnavailable(f"cannot run model {self._name!r}: it is not up yet")
