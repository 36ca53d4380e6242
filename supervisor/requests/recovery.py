"""What follows a failure of a worker: whom it is charged to, what becomes of the request, what the breaker counts.

The decisions are in ``faults.py``, ``ladder.py`` and ``breaker.py``; this module brings them the facts.
"""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from rkvisor.protocol.run import can_be_tokens, is_greedy
from rkvisor.supervisor.clock import Clock
from rkvisor.supervisor.config import ModelSection
from rkvisor.supervisor.front.events import Events
from rkvisor.supervisor.requests import ladder
from rkvisor.supervisor.requests.breaker import Breaker, Circuit
from rkvisor.supervisor.requests.degradation import Outcomes
from rkvisor.supervisor.requests.endings import Endings
from rkvisor.supervisor.requests.faults import FaultWindow
from rkvisor.supervisor.requests.jobs import Job, JobState
from rkvisor.supervisor.workers.processes import Process


class Recovery:
    """name: of the model.  requeue: let a job wait again, before all others."""

    def __init__(
        self,
        clock: Clock,
        name: str,
        section: ModelSection,
        faults: FaultWindow,
        endings: Endings,
        events: Events,
        requeue: Callable[[Job], None],
    ):
        self._clock = clock
        self._name = name
        self._section = section
        self._faults = faults
        self._endings = endings
        self._events = events
        self._requeue = requeue
        self.breaker = Breaker(threshold=section.breaker_failures, open_s=section.breaker_open_s)
        self.outcomes = Outcomes()
        self.on_circuit: Callable[[str, Breaker], None] = lambda name, breaker: None

    def failed(
        self, worker: str, job: Job | None, process: Process, how: str, signal: int | None, *, was_loading: bool
    ) -> None:
        """*process* died or hung while it had *job*.  how: "SIGSEGV", "exit status 1", "hung"."""
        self.outcomes.failed(self._clock.monotonic())
        begun = job is not None and job.number in (process.last_job, process.begun_job())
        is_suspect = begun and not process.was_ended_from_outside()
        charged = self._faults.died(worker, job, self._clock.monotonic(), is_suspect=is_suspect)
        if job is None:
            if was_loading or not charged:
                self.count_failure(f"{worker}: {how}")
            return
        self.resolve(worker, job, process, how, signal)

    def resolve(self, worker: str, job: Job, process: Process, how: str, signal: int | None) -> None:
        """Decide what becomes of *job*, whose process is gone or useless."""
        job.worker, job.failed_worker, job.state = None, worker, JobState.QUEUED
        self._faults.ended(job)
        if job.is_aborting or job.is_answered:  # this ended it as well as its runtime would have
            self._endings.abort(job)
            self._set(self.breaker.abandoned() if job.is_probe else self.breaker)
            return
        verdict = ladder.after_death(self._suspect(job, process))
        logger.debug("{}: job {} (charged {}, attempt {}): {}", worker, job.number, job.charged, job.attempts, verdict)
        if isinstance(verdict, ladder.GiveUp):
            if verdict.name == "WORKER_CRASHED":
                self.count_failure(f"{worker}: {how}")
            elif job.is_probe:
                self._set(self.breaker.abandoned())
            self._endings.give_up(job, verdict, how, signal, process.last_log())
            return
        quality = verdict.quality(self._is_greedy(job, process))
        job.resume, job.quality = verdict.resume, job.quality if job.quality == "continued" else quality
        job.resumed += 1
        job.is_hung = job.is_moving = False
        self._requeue(job)

    def can_move(self, job: Job, process: Process) -> bool:
        """Whether another process may go on with *job*, which *process* runs."""
        if job.is_aborting or job.is_answered:
            return False
        return isinstance(ladder.after_death(self._suspect(job, process)), ladder.Again)

    def _suspect(self, job: Job, process: Process) -> ladder.Suspect:
        ready = process.ready
        return ladder.Suspect(
            streamed=len(job.ids),
            is_greedy=self._is_greedy(job, process),
            may_retry=job.params.retry == "auto",
            can_force=ready is not None and ready.can_force_tokens,
            is_tokens=can_be_tokens(job.params, has_tokenizer=ready is not None and ready.has_tokenizer),
            charged=job.charged,
            attempts=job.attempts,
            is_edited=job.is_edited,
        )

    def _is_greedy(self, job: Job, process: Process) -> bool:
        return is_greedy(job.params, process.ready.param if process.ready is not None else self._section.param)

    # The circuit breaker.

    def admit(self, job: Job) -> bool:
        """Whether the breaker lets *job* through."""
        breaker, is_admitted = self.breaker.admit(self._clock.monotonic())
        job.is_probe = is_admitted and breaker.is_probing and breaker is not self.breaker
        self._set(breaker)
        return is_admitted

    def count_failure(self, why: str) -> None:
        """Something that counts went wrong."""
        self._set(self.breaker.failed(self._clock.monotonic()), why)

    def count_success(self) -> None:
        """A request was answered, or a worker settled."""
        breaker = self.breaker.succeeded()
        if breaker is not self.breaker:
            self._set(breaker)

    def abandon_probe(self, job: Job) -> None:
        """*job* was ended by its client or its deadline: as a probe it told nothing."""
        if job.is_probe:
            self._set(self.breaker.abandoned())

    def _set(self, breaker: Breaker, why: str = "") -> None:
        before, self.breaker = self.breaker, breaker
        if before.circuit is breaker.circuit:
            return
        self.on_circuit(self._name, breaker)
        logger.warning(
            "circuit breaker of {}: {} → {} {}", self._name, before.circuit.value, breaker.circuit.value, why
        )
        if breaker.circuit is Circuit.OPEN:
            text = f"model {self._name}: {breaker.failures} failures in a row, the circuit is open"
            self._events.error("CIRCUIT_OPEN", text, self._name, "error", why)
        elif breaker.circuit is Circuit.CLOSED:
            self._events.error("RPC_RECOVERED", f"model {self._name} serves again", self._name, "warning")
